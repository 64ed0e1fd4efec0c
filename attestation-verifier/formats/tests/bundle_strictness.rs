//! Bundles and evidence (§7): members, bounds, and what is free.

mod common;

use common::{bundle, evidence};
use serde_json::{Value, json};
use touchstone_formats::text::{Base64Bytes, base64_encode};
use touchstone_formats::{
    Attachment, Bundle, Collateral, EventLog, Evidence, FormatError, Purpose, SnpCollateral,
    TdxCollateral, Tee, jcs,
};

fn value() -> Value {
    serde_json::from_slice(&bundle().to_file()).unwrap()
}

fn parse(value: &Value) -> Result<Bundle, FormatError> {
    Bundle::parse(&jcs::to_file(value).unwrap())
}

/// Parses the bundle with one change made.
fn changed(change: impl FnOnce(&mut Value)) -> Result<Bundle, FormatError> {
    let mut value = value();
    change(&mut value);
    parse(&value)
}

fn remove(value: &mut Value, pointer: &str, name: &str) {
    value
        .pointer_mut(pointer)
        .and_then(Value::as_object_mut)
        .unwrap()
        .remove(name)
        .unwrap();
}

#[test]
fn members() {
    assert_eq!(parse(&value()).unwrap(), bundle());
    for (name, optional) in [
        ("v", false),
        ("receipt", false),
        ("keyset", false),
        ("evidence", false),
        ("proof", true),
        ("catalog", true),
        ("openings", true),
    ] {
        let without = changed(|value| remove(value, "", name));
        assert_eq!(without.is_ok(), optional, "without {name}");
        let null = changed(|value| value[name] = Value::Null);
        assert!(null.is_err(), "{name} null");
    }
    for (name, value) in [
        ("more", json!(1)),
        ("v", json!("touchstone/bundle/2")),
        ("receipt", json!("AA")),
        ("evidence", json!({})),
        ("openings", json!([])),
        ("attachments", json!({})),
        ("catalog", json!([])),
        ("keyset", json!([])),
    ] {
        assert!(changed(|bundle| bundle[name] = value).is_err(), "{name}");
    }
    assert!(Bundle::parse(b"[]\n").is_err());
    // Empty lists and openings are the same as none.
    let empty = changed(|value| {
        value["openings"] = json!({});
        value["attachments"] = json!([]);
        value["evidence"] = json!([]);
    })
    .unwrap();
    assert!(empty.openings.is_empty() && empty.attachments.is_empty() && empty.evidence.is_empty());
}

#[test]
fn openings() {
    for (pointer, name, value) in [
        ("/openings", "more", json!(1)),
        ("/openings/inputs", "more", json!(1)),
        ("/openings/inputs", "salt", json!("00")),
        ("/openings/inputs", "salt", json!("0A".repeat(16))),
        ("/openings", "inputs", Value::Null),
        (
            "/openings",
            "inputs",
            json!(["00".repeat(16), "00".repeat(32)]),
        ),
    ] {
        let bad = changed(|bundle| bundle.pointer_mut(pointer).unwrap()[name] = value.clone());
        assert!(bad.is_err(), "{pointer} {name} {value}");
    }
    let fewer = changed(|value| remove(value, "/openings", "inputs")).unwrap();
    assert_eq!(fewer.openings.inputs, None);
    assert!(changed(|value| remove(value, "/openings/inputs", "salt")).is_err());
}

#[test]
fn purposes() {
    let with = |purposes: &[Value]| {
        changed(|value| {
            let template = value["evidence"][1].clone();
            let objects = purposes.iter().map(|purpose| {
                let mut object = template.clone();
                object["purpose"] = purpose.clone();
                object
            });
            value["evidence"] = objects.collect();
        })
    };
    let (boot, checkpoint, receipt) = (json!("boot"), json!("checkpoint"), json!("receipt"));
    assert!(with(&[]).is_ok());
    let three = with(&[receipt.clone(), boot.clone(), checkpoint.clone()]).unwrap();
    assert!(three.evidence_of(Purpose::Receipt).is_some());
    for bad in [
        vec![json!("session")],
        vec![Value::Null],
        vec![boot.clone(), boot.clone()],
    ] {
        match with(&bad) {
            Err(error @ FormatError::Value { .. }) => {
                assert_eq!(error.field(), "evidence.purpose", "{bad:?}")
            }
            other => panic!("{bad:?}: {other:?}"),
        }
    }
    assert!(with(&[json!("Boot")]).is_err());
    let error = with(&[boot.clone(), checkpoint, receipt, boot]).unwrap_err();
    assert!(error.to_string().contains("more than 3"), "{error}");
}

#[test]
fn evidence_members() {
    let boot = evidence(Purpose::Boot);
    let value: Value = serde_json::from_slice(&boot.to_file()).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = value.clone();
        change(&mut value);
        Evidence::parse(&jcs::to_file(&value).unwrap())
    };
    assert_eq!(changed(&|_| ()).unwrap(), boot);
    for name in ["purpose", "nonce", "tee", "quote"] {
        assert!(
            changed(&|value| remove(value, "", name)).is_err(),
            "without {name}"
        );
    }
    let unknown = changed(&|value| value["purpose"] = Value::Null).unwrap();
    assert_eq!(unknown.purpose, None);
    for (name, bad) in [
        ("tee", json!("SEV-SNP")),
        ("quote", Value::Null),
        ("quote", json!("AB==")),
        ("more", json!(1)),
        ("event_log", Value::Null),
        ("event_log", json!({"format": "ccel"})),
        (
            "event_log",
            json!({"format": "ccel", "data": "", "more": 1}),
        ),
        ("event_log", json!({"format": "a".repeat(257), "data": ""})),
        ("collateral", json!([])),
        ("collateral", json!({"more": ""})),
        ("collateral", json!({"vek": null})),
        ("collateral", json!({"chain": ["AA=="], "crls": null})),
        ("collateral", json!({"tcb_info": "{}"})),
    ] {
        assert!(
            changed(&|value| value[name] = bad.clone()).is_err(),
            "{name} {bad}"
        );
    }

    // A nonce is 8 to 64 bytes.
    for (length, fits) in [(7, false), (8, true), (64, true), (65, false), (0, false)] {
        let nonce = json!("ab".repeat(length));
        let parsed = changed(&|value| value["nonce"] = nonce.clone());
        assert_eq!(parsed.is_ok(), fits, "{length} bytes");
    }

    // What is missing of the collateral is for the verifier to say.
    let none = SnpCollateral::default();
    for (collateral, expected) in [
        (Value::Null, None),
        (json!({}), Some(none.clone())),
        (json!({"chain": [], "crls": []}), Some(none.clone())),
        (
            json!({"vek": "AA=="}),
            Some(SnpCollateral {
                vek: Some(vec![0]),
                ..none
            }),
        ),
    ] {
        let parsed = changed(&|value| value["collateral"] = collateral.clone()).unwrap();
        assert_eq!(parsed.collateral, expected.map(Collateral::SevSnp));
    }
    let absent = changed(&|value| remove(value, "", "collateral")).unwrap();
    assert_eq!(absent.collateral, None);
}

#[test]
fn tdx_evidence() {
    let tdx = Evidence {
        purpose: Some(Purpose::Receipt),
        nonce: Some(vec![7; 32]),
        tee: Tee::Tdx,
        quote: vec![4, 0],
        collateral: Some(Collateral::Tdx(TdxCollateral {
            tcb_info: Some("{\"id\":\"TDX\"}".into()),
            tcb_info_signature: Some(touchstone_formats::text::HexBytes(vec![1; 64])),
            root_ca_crl: Some(touchstone_formats::text::HexBytes(vec![2; 3])),
            ..Default::default()
        })),
        event_log: None,
    };
    let file = tdx.to_file();
    assert_eq!(Evidence::parse(&file).unwrap(), tdx);
    let text = String::from_utf8(file).unwrap();
    let snp = text.replace("\"tee\":\"tdx\"", "\"tee\":\"sev-snp\"");
    assert_ne!(snp, text);
    let error = Evidence::parse(snp.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("another TEE"), "{error}");
    assert!(Evidence::parse(text.replace(&"01".repeat(64), &"0A".repeat(64)).as_bytes()).is_err());
}

#[test]
fn bounds() {
    let sized = |change: &dyn Fn(&mut Evidence)| {
        let mut evidence = evidence(Purpose::Boot);
        change(&mut evidence);
        Evidence::parse(&evidence.to_file()).map_err(|error| error.to_string())
    };
    let too_long = |result: Result<Evidence, String>, what: &str| {
        let error = result.unwrap_err();
        assert!(error.contains(what) && error.contains("at most"), "{error}");
    };
    let quote = |length: usize| sized(&|evidence| evidence.quote = vec![1; length]);
    assert!(quote(16 << 10).is_ok());
    too_long(quote((16 << 10) + 1), "quote: 16385");

    let collateral = |vek: usize, crl: usize| {
        sized(&|evidence| {
            evidence.collateral = Some(Collateral::SevSnp(SnpCollateral {
                vek: Some(vec![1; vek]),
                chain: vec![vec![2; 1000]],
                crls: vec![vec![3; crl]],
            }))
        })
    };
    let rest = (1 << 20) - 2000;
    assert!(collateral(1000, rest).is_ok());
    too_long(collateral(1000, rest + 1), "collateral: 1048577");
    too_long(collateral(1001, rest), "collateral: 1048577");

    let items = |count: usize| {
        sized(&|evidence| {
            evidence.collateral = Some(Collateral::SevSnp(SnpCollateral {
                vek: None,
                chain: vec![Vec::new(); count],
                crls: Vec::new(),
            }))
        })
    };
    assert!(items(16).is_ok());
    too_long(items(17), "more than 16");

    // Padding of an event log does not count.
    let log = |length: usize, padding: &[u8]| {
        sized(&|evidence| {
            evidence.event_log = Some(EventLog {
                format: "ccel".into(),
                data: Base64Bytes([vec![1; length].as_slice(), padding].concat()),
            })
        })
    };
    assert!(log(1 << 20, &[]).is_ok());
    let padded = log(1 << 20, &[0xff; 5000]).unwrap();
    assert_eq!(padded.event_log.unwrap().trimmed().len(), 1 << 20);
    assert!(log(1 << 20, &[0; 5000]).is_ok());
    too_long(log((1 << 20) + 1, &[]), "event log: 1048577");
    too_long(log(1 << 20, &[0, 1]), "event log: 1048578");

    // A bundle: 4 MiB, newline included.
    let file = |total: usize| {
        let mut bundle = bundle();
        bundle.view = Some("\"\"".into());
        let rest = bundle.to_file().len();
        bundle.view = Some(format!("\"{}\"", "a".repeat(total - rest)));
        let file = bundle.to_file();
        assert_eq!(file.len(), total);
        Bundle::parse(&file)
    };
    assert!(file(4 << 20).is_ok());
    assert!(matches!(
        file((4 << 20) + 1),
        Err(FormatError::TooLong { limit: 4194304, .. })
    ));
}

#[test]
fn view_and_attachments_are_kept_as_they_are() {
    let view = r#"{"at":"now","ok":true,"score":975}"#;
    let mut full = bundle();
    full.view = Some(view.into());
    full.attachments = vec![
        Attachment::parse(r#"{"deep":[[7]],"type":"voucher"}"#).unwrap(),
        Attachment::parse(r#"{"type":""}"#).unwrap(),
    ];
    let file = full.to_file();
    let parsed = Bundle::parse(&file).unwrap();
    assert_eq!(parsed, full);
    assert_eq!(parsed.to_file(), file);
    assert_eq!(parsed.attachments[0].kind(), "voucher");
    assert_eq!(parsed.view.as_deref(), Some(view));

    // Ignored, and canonical all the same.
    let text = String::from_utf8(file).unwrap();
    for (good, bad) in [
        ("975", "975.0"),
        ("975", "9.75"),
        ("975", "1e0"),
        ("975", "-0"),
        ("975", "9007199254740992"),
        ("true", "True"),
        ("true", "tru"),
        ("\"at\"", " \"at\""),
        ("\"at\"", "\"score\""),
        ("[[7]]", "[[7 ]]"),
        ("[[7]]", "[[1.5]]"),
    ] {
        assert!(text.contains(good));
        let changed = text.replacen(good, bad, 1);
        assert!(Bundle::parse(changed.as_bytes()).is_err(), "{bad}");
    }
    // Booleans stand in the view alone.
    for (from, to) in [
        ("[[7]]", "[[true]]"),
        ("\"epoch\":0", "\"epoch\":true"),
        ("\"epoch\":0", "\"epoch\":0,\"view\":true"),
        ("\"salt\"", "\"more\":false,\"salt\""),
    ] {
        assert!(text.contains(from));
        let changed = text.replacen(from, to, 1);
        match Bundle::parse(changed.as_bytes()) {
            Err(FormatError::Syntax { found, .. }) => {
                assert!(["'t'", "'f'"].contains(&found.as_str()), "{found}");
            }
            other => panic!("{to}: {other:?}"),
        }
    }

    for bad in [
        "[]",
        "\"type\"",
        "{}",
        r#"{"type":1}"#,
        r#"{"type":"a"} "#,
        r#"{"type":"a"},{"type":"b"}"#,
        r#"{"type":"a"}],"view":[1"#,
        r#"{"type":"a","type":"a"}"#,
        r#"{"paid":true,"type":"a"}"#,
    ] {
        assert!(Attachment::parse(bad).is_err(), "{bad}");
    }
    let kind =
        |length: usize| Attachment::parse(&format!("{{\"type\":\"{}\"}}", "a".repeat(length)));
    assert!(kind(256).is_ok());
    assert!(kind(257).is_err());

    let many = |count: usize| {
        let mut bundle = bundle();
        bundle.attachments = vec![Attachment::parse(r#"{"type":"a"}"#).unwrap(); count];
        Bundle::parse(&bundle.to_file())
    };
    assert!(many(64).is_ok());
    assert!(many(65).is_err());
}

#[test]
fn depth_counts_from_the_outside() {
    let view = |depth: usize| {
        let mut bundle = bundle();
        bundle.view = Some(format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        Bundle::parse(&bundle.to_file())
    };
    assert!(view(15).is_ok());
    assert!(view(16).is_err());
    let attachment = |depth: usize| {
        format!(
            r#"{{"a":{}{},"type":"x"}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let mut with = bundle();
    with.attachments = vec![Attachment::parse(&attachment(13)).unwrap()];
    assert!(Bundle::parse(&with.to_file()).is_ok());
    assert!(Attachment::parse(&attachment(14)).is_err());
}

#[test]
fn receipt_and_proof_stay_unparsed() {
    // Another check speaks about them.
    let odd = changed(|value| {
        value["receipt"] = json!(base64_encode(b"no receipt"));
        value["proof"] = json!("no proof");
    })
    .unwrap();
    assert_eq!(odd.receipt, b"no receipt");
    assert_eq!(odd.proof.as_deref(), Some("no proof"));
}
