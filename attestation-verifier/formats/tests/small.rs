//! The small formats: guarantees, models, configuration, tensors, quotes, the two protocols.

mod common;

use serde_json::{Value, json};
use touchstone_formats::commitment::{Datatype, request_digest, tensors_digest};
use touchstone_formats::config::config_digest;
use touchstone_formats::control::{Ack, Batch, Batches, Status};
use touchstone_formats::evidence::quote_report_data;
use touchstone_formats::quote_agent::{Answer, ErrorKind, Request};
use touchstone_formats::report_data::{report_data, report_data_of_doctor};
use touchstone_formats::text::{Base64Digest, Hex16, hex_encode};
use touchstone_formats::{
    Digest, FormatError, Guarantee, GuaranteeSet, ModelFile, ModelManifest, Purpose, Tee,
    TensorRef, jcs,
};

#[test]
fn guarantees() {
    use Guarantee::*;
    let set = |names: &str| GuaranteeSet::parse_words(names).unwrap();
    for (asked, closed) in [
        ("signed", "signed"),
        ("logged", "logged signed"),
        ("quoted", "quoted signed"),
        ("quoted logged", "logged quoted signed"),
        ("recomputed", "recomputed"),
        ("proven", "proven"),
    ] {
        assert_eq!(set(asked).to_string(), closed);
        let names = set(asked).names();
        assert_eq!(GuaranteeSet::parse_wire(&names).unwrap(), set(asked));
        let json = serde_json::to_string(&set(asked)).unwrap();
        assert_eq!(
            serde_json::from_str::<GuaranteeSet>(&json).unwrap(),
            set(asked)
        );
    }
    assert_eq!(GuaranteeSet::default_set(), set("logged signed"));
    assert!(set("logged").contains(Signed) && !set("logged").contains(Quoted));
    assert!(set("quoted logged").is_superset(&set("logged")));
    assert!(!set("logged").is_superset(&set("quoted")));
    assert_eq!(set("logged").union(&set("quoted")), set("quoted logged"));
    assert_eq!(
        set("quoted logged").iter().collect::<Vec<_>>(),
        [Logged, Quoted, Signed]
    );

    for bad in [
        "",
        " ",
        "signed ",
        " signed",
        "logged  signed",
        "signed signed",
    ] {
        assert!(
            matches!(
                GuaranteeSet::parse_words(bad),
                Err(FormatError::Value { .. })
            ),
            "{bad:?}"
        );
    }
    for unknown in ["Signed", "signed,logged", "attested"] {
        assert!(matches!(
            GuaranteeSet::parse_words(unknown),
            Err(FormatError::UnknownGuarantee { .. })
        ));
    }
    assert!(GuaranteeSet::close([]).is_err());
    for bad in [
        [].as_slice(),
        &["logged"],
        &["signed", "logged"],
        &["signed", "signed"],
    ] {
        assert!(GuaranteeSet::parse_wire(bad).is_err(), "{bad:?}");
        assert!(serde_json::from_value::<GuaranteeSet>(json!(bad)).is_err());
    }
}

#[test]
fn models() {
    let file = |name: &str| ModelFile {
        name: name.into(),
        sha256: Digest([1; 32]),
        size: 3,
    };
    let with = |name: &str| ModelManifest::new(vec![file("model.onnx"), file(name)]);
    let manifest = with("a/weights.bin").unwrap();
    assert_eq!(manifest.files()[0].name, "a/weights.bin");
    for bad in [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "./a",
        "model.onnx",
        &"a".repeat(257),
    ] {
        assert!(with(bad).is_err(), "{bad}");
    }
    for good in ["a", "a/b/c", "..a", "a..", "a b", &"a".repeat(256)] {
        assert!(with(good).is_ok(), "{good}");
    }
    assert!(ModelManifest::new(vec![file("other.onnx")]).is_err());
    assert!(
        ModelManifest::new(vec![ModelFile {
            size: 1 << 53,
            ..file("model.onnx")
        }])
        .is_err()
    );
    // The names are part of the identity.
    assert_ne!(with("a").unwrap().digest(), with("b").unwrap().digest());

    let jcs = String::from_utf8(manifest.to_jcs()).unwrap();
    assert_eq!(ModelManifest::parse(jcs.as_bytes()).unwrap(), manifest);
    for (from, to) in [
        ("a/weights.bin", "z/weights.bin"),
        ("\"entry\":\"model.onnx\"", "\"entry\":\"a/weights.bin\""),
        ("sha256-manifest/1", "sha256-manifest/2"),
    ] {
        assert!(jcs.contains(from));
        assert!(
            ModelManifest::parse(jcs.replacen(from, to, 1).as_bytes()).is_err(),
            "{to}"
        );
    }
}

#[test]
fn configuration() {
    let object = json!({"v": "touchstone/config/1", "threads": 1, "runtime": "x"});
    let map = |value: &Value| value.as_object().unwrap().clone();
    assert_eq!(
        config_digest(&map(&object)).unwrap(),
        Digest::of(br#"{"runtime":"x","threads":1,"v":"touchstone/config/1"}"#)
    );
    for bad in [
        json!({"threads": 1}),
        json!({"v": "touchstone/config/2"}),
        json!({"v": "touchstone/config/1", "spinning": false}),
        json!({"v": "touchstone/config/1", "scale": 0.5}),
    ] {
        assert!(config_digest(&map(&bad)).is_err(), "{bad}");
    }
}

#[test]
fn tensors() {
    let digest = |datatype, shape: &[u64], data: &[u8]| {
        tensors_digest(&[TensorRef {
            name: "x",
            datatype,
            shape,
            data,
        }])
    };
    for datatype in Datatype::ALL {
        assert_eq!(datatype.name().parse::<Datatype>().unwrap(), datatype);
        let json = serde_json::to_value(datatype).unwrap();
        assert_eq!(serde_json::from_value::<Datatype>(json).unwrap(), datatype);
        if let Some(size) = datatype.size() {
            assert!(digest(datatype, &[2, 3], &vec![1; 6 * size]).is_ok());
            assert!(digest(datatype, &[2, 3], &vec![1; 6 * size + 1]).is_err());
            assert!(digest(datatype, &[2, 3], &vec![1; 6 * size - 1]).is_err());
            assert!(digest(datatype, &[], &vec![1; size]).is_ok());
            assert!(digest(datatype, &[0, 7], &[]).is_ok());
            assert!(digest(datatype, &[0, 7], &[1]).is_err());
            assert!(digest(datatype, &[u64::MAX, 2], &[]).is_err());
            assert!(digest(datatype, &[u64::MAX], &[]).is_err());
        }
    }
    assert!("fp32".parse::<Datatype>().is_err());
    assert!(digest(Datatype::Bool, &[2], &[0, 1]).is_ok());
    assert!(digest(Datatype::Bool, &[2], &[0, 2]).is_err());
    let strings = b"\x02\0\0\0hi\0\0\0\0";
    assert!(digest(Datatype::Bytes, &[2], strings).is_ok());
    assert!(digest(Datatype::Bytes, &[1], strings).is_err());
    assert!(digest(Datatype::Bytes, &[3], strings).is_err());
    assert!(digest(Datatype::Bytes, &[2], &strings[..9]).is_err());
    assert!(digest(Datatype::Bytes, &[1], b"\xff\xff\xff\xff").is_err());
    // What could be confused is not: name, datatype, shape and data are each in the digest.
    let all = [
        digest(Datatype::Int8, &[4], &[0; 4]),
        digest(Datatype::Uint8, &[4], &[0; 4]),
        digest(Datatype::Int8, &[2, 2], &[0; 4]),
        digest(Datatype::Int8, &[4], &[1; 4]),
        digest(Datatype::Int32, &[1], &[0; 4]),
        tensors_digest(&[]),
    ]
    .map(Result::unwrap);
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b));
    }
    let one = TensorRef {
        name: "x",
        datatype: Datatype::Int8,
        shape: &[1],
        data: &[0],
    };
    let two = TensorRef { name: "y", ..one };
    assert!(tensors_digest(&[one, two]).is_ok());
    assert!(tensors_digest(&[one, one]).is_err());
    // A length of none is not a length of 0.
    assert_ne!(
        request_digest("POST", "/", None, b""),
        request_digest("POST", "/", Some(0), b"")
    );
}

/// The known answer is SHA-512 of the text as docs/formats.md §3 has it, made by another implementation. Texts of purposes begin with
/// another line, so that none is the doctor's, whatever stands in them.
#[test]
fn report_data_of_the_doctor_is_of_no_purpose() {
    let nonce = std::array::from_fn(|n| n as u8);
    let found = report_data_of_doctor(&nonce);
    let expected = "dd72a38a616884f51eb9924e67f5dcca7f70c84cb9a85147d27a2e5273edee4d\
                    0679344162f3eab7b8a6bd471920025d9cb66218ca483ac0e767371409b66c62";
    assert_eq!(hex_encode(&found), expected);
    let other = Digest::of(&nonce);
    for purpose in [
        Purpose::Boot,
        Purpose::Session,
        Purpose::Checkpoint,
        Purpose::Receipt,
    ] {
        for nonce in [None, Some(&nonce[..])] {
            assert_ne!(report_data(purpose, other, nonce, other), found);
        }
    }
    assert_ne!(report_data_of_doctor(&[0; 32]), found);
}

#[test]
fn report_data_of_quotes() {
    let mut snp = vec![0; 1184];
    snp[0x50..0x90].fill(7);
    assert_eq!(quote_report_data(Tee::SevSnp, &snp), Some([7; 64]));
    assert_eq!(quote_report_data(Tee::SevSnp, &snp[..1183]), None);
    assert_eq!(quote_report_data(Tee::Tdx, &snp), None);
    snp.push(0);
    assert_eq!(quote_report_data(Tee::SevSnp, &snp), None);

    let mut v4 = vec![0; 632];
    v4[0] = 4;
    v4[4] = 0x81;
    v4[568..632].fill(8);
    assert_eq!(quote_report_data(Tee::Tdx, &v4), Some([8; 64]));
    assert_eq!(quote_report_data(Tee::Tdx, &v4[..631]), None);
    v4[4] = 0; // SGX
    assert_eq!(quote_report_data(Tee::Tdx, &v4), None);

    for (body, size) in [(2_u16, 584_u32), (3, 648)] {
        let mut v5 = vec![0; 638];
        v5[0] = 5;
        v5[4] = 0x81;
        v5[48..50].copy_from_slice(&body.to_le_bytes());
        v5[50..54].copy_from_slice(&size.to_le_bytes());
        v5[574..638].fill(9);
        assert_eq!(quote_report_data(Tee::Tdx, &v5), Some([9; 64]));
        v5[48] ^= 1; // the other body's type with this size
        assert_eq!(quote_report_data(Tee::Tdx, &v5), None);
        v5[48] ^= 1;
        v5[0] = 3;
        assert_eq!(quote_report_data(Tee::Tdx, &v5), None);
    }
}

#[test]
fn quote_agent() {
    let request = Request::new([0xab; 64]);
    let line = request.to_line();
    assert_eq!(
        line,
        format!(
            "{{\"v\":\"touchstone/quote-agent/1\",\"report_data\":\"{}\"}}\n",
            "ab".repeat(64)
        )
        .as_bytes()
    );
    assert_eq!(Request::parse(&line).unwrap(), request);
    let text = String::from_utf8(line).unwrap();
    for (from, to) in [
        ("agent/1", "agent/2"),
        ("abab", "ABAB"),
        ("abab", "ab"),
        ("{", "{\"more\":1,"),
        ("}", "} {}"),
        ("\"report_data\"", "\"reportdata\""),
    ] {
        assert!(
            Request::parse(text.replacen(from, to, 1).as_bytes()).is_err(),
            "{to}"
        );
    }

    let quote = Answer::Quote {
        tee: Tee::SevSnp,
        quote: vec![1, 2, 3],
        event_log: None,
    };
    assert_eq!(
        quote.to_line(),
        b"{\"v\":\"touchstone/quote-agent/1\",\"tee\":\"sev-snp\",\"quote\":\"AQID\"}\n"
    );
    let busy = Answer::Error {
        error: ErrorKind::Busy,
        message: "later".into(),
    };
    for answer in [quote, busy] {
        assert_eq!(Answer::parse(&answer.to_line()).unwrap(), answer);
    }
    let head = r#"{"v":"touchstone/quote-agent/1""#;
    for good in [
        r#","tee":"tdx","quote":"AQID","event_log":{"format":"ccel","data":"AA=="}}"#,
        r#","error":"failed"}"#,
    ] {
        assert!(
            Answer::parse(format!("{head}{good}").as_bytes()).is_ok(),
            "{good}"
        );
    }
    for bad in [
        "}",
        r#","tee":"tdx"}"#,
        r#","quote":"AQID"}"#,
        r#","tee":"tdx","quote":"AQID","error":"busy"}"#,
        r#","tee":"tdx","quote":"AQI"}"#,
        r#","tee":"tdx","quote":"AQID","quote":"AQID"}"#,
        r#","tee":"sgx","quote":"AQID"}"#,
        r#","error":"no","message":""}"#,
        r#","message":""}"#,
    ] {
        assert!(
            Answer::parse(format!("{head}{bad}").as_bytes()).is_err(),
            "{bad}"
        );
    }
    let long = Answer::Quote {
        tee: Tee::Tdx,
        quote: vec![0; (16 << 10) + 1],
        event_log: None,
    };
    assert!(Answer::parse(&long.to_line()).is_err());
}

#[test]
fn control() {
    let status = json!({
        "v": "touchstone/control/1", "boot": "00".repeat(16), "serving": true, "draining": false,
        "keyset_digest": null, "pending": 3, "batches": {"oldest": 1, "newest": 2},
        "quote": "failing", "catalog_epoch": 0, "catalog_digest": "11".repeat(32),
    });
    let parsed: Status = serde_json::from_value(status.clone()).unwrap();
    assert_eq!(serde_json::to_value(&parsed).unwrap(), status);

    let batches = Batches {
        boot: Hex16([1; 16]),
        batches: vec![Batch {
            number: 1,
            keyset_digest: Digest::ZERO,
            checkpoint: Some(common::text(&common::vectors(), "/log/note")),
            evidence: Some(common::evidence(Purpose::Checkpoint)),
            catalogs: vec![common::catalog()],
            receipts: vec![touchstone_formats::control::SealedReceipt {
                receipt: touchstone_formats::text::Base64Bytes(common::cose()),
                index: 2,
                proof: vec![Base64Digest(Digest([9; 32]))],
            }],
            quotes: Vec::new(),
            closed: false,
        }],
    };
    let json = serde_json::to_string(&batches).unwrap();
    assert_eq!(serde_json::from_str::<Batches>(&json).unwrap(), batches);
    // Inside other JSON the objects keep their bounds and rules.
    let bad = json.replacen("\"epoch\":0", "\"epoch\":-1", 1);
    assert_ne!(bad, json);
    assert!(serde_json::from_str::<Batches>(&bad).is_err());

    let entry = touchstone_formats::control::KeysetEntry {
        keyset: common::keyset(),
        evidence: common::evidence(Purpose::Boot),
        state: touchstone_formats::control::KeysetState::Current,
    };
    let json = serde_json::to_vec(&entry).unwrap();
    assert_eq!(
        serde_json::from_slice::<touchstone_formats::control::KeysetEntry>(&json).unwrap(),
        entry
    );
    let ack = r#"{"boot":"01010101010101010101010101010101","through":7}"#;
    assert_eq!(serde_json::from_str::<Ack>(ack).unwrap().through, 7);
    assert_eq!(
        jcs::to_vec(&serde_json::from_str::<Ack>(ack).unwrap()).unwrap(),
        ack.as_bytes()
    );
}
