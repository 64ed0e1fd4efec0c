//! A table of lies, each signed by the signer himself: what refuses them is the rule they break.

use attestation_verifier::manifest::{Manifest, Measured, NotAuthentic, Reported, Statement, lint};
use serde_json::{Value, json};
use touchstone_formats::Digest;

use super::support::*;

const SNP: &str = "/releases/0/platforms/0";
const TDX: &str = "/releases/0/platforms/1";

/// Puts a value at a place of the predicate, or removes what is there (`null` is a value: `REMOVE` says so).
fn with(pointer: &str, value: Value) -> Value {
    let mut predicate = predicate();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match predicate.pointer_mut(parent).expect(pointer) {
        Value::Object(object) if value == json!("REMOVE") => {
            object.remove(name).expect(pointer);
        }
        Value::Object(object) => {
            object.insert(name.into(), value);
        }
        Value::Array(array) if value == json!("REMOVE") => {
            array.remove(name.parse::<usize>().unwrap());
        }
        Value::Array(array) if name == "-" => array.push(value),
        Value::Array(array) => array[name.parse::<usize>().unwrap()] = value,
        other => panic!("{pointer}: {other}"),
    }
    predicate
}

fn at(base: &str, rest: &str) -> String {
    format!("{base}{rest}")
}

#[test]
fn lies_that_are_signed_are_malformed_all_the_same() {
    let key = key();
    let first = |pointer: &str| predicate().pointer(pointer).unwrap().clone();
    let remove = || json!("REMOVE");
    let table: Vec<(String, Value, &str)> = vec![
        ("/v".into(), json!("touchstone/manifest/2"), "predicate.v"),
        ("/v".into(), remove(), "missing field `v`"),
        ("/extra".into(), json!(1), "unknown field"),
        ("/name".into(), json!(""), "name"),
        ("/name".into(), json!("x".repeat(257)), "at most 256"),
        ("/name".into(), json!("a\u{1b}[2J"), "control characters"),
        (
            "/name".into(),
            json!("gpj\u{202e}exe"),
            "control characters",
        ),
        ("/version".into(), json!(0), "version"),
        ("/version".into(), json!("18"), "invalid type"),
        ("/version".into(), json!(-1), "invalid value"),
        (
            "/issued".into(),
            json!("2026-11-21T01:00:00+01:00"),
            "expected a time",
        ),
        (
            "/issued".into(),
            json!("2026-11-21t00:00:00Z"),
            "expected a time",
        ),
        (
            "/issued".into(),
            json!("2026-11-21T00:00:00.0Z"),
            "expected a time",
        ),
        (
            "/not_after".into(),
            json!("2026-11-21T00:00:00Z"),
            "later than issued",
        ),
        (
            "/releases/0/release".into(),
            json!(" "),
            "releases[0].release",
        ),
        ("/releases/-".into(), first("/releases/0"), "releases[1]"),
        ("/releases/0/platforms".into(), json!([]), "one or more"),
        ("/releases/0/platforms/-".into(), first(SNP), "platforms[2]"),
        (at(SNP, "/tee"), json!("sgx"), "unknown variant"),
        (at(SNP, "/tee"), json!("tdx"), "os_binding"),
        (
            at(SNP, "/os_binding"),
            json!("rtmr"),
            "what sev-snp can have",
        ),
        (
            at(TDX, "/os_binding"),
            json!("launch-digest"),
            "what tdx can have",
        ),
        (
            at(SNP, "/quote_source"),
            json!("anybody"),
            "unknown variant",
        ),
        (at(SNP, "/ingredients/0"), remove(), "one of role firmware"),
        (at(SNP, "/ingredients/1"), remove(), "one of role kernel"),
        (at(SNP, "/ingredients/2"), remove(), "one of role initrd"),
        (at(TDX, "/ingredients/3"), remove(), "one of role cmdline"),
        (
            at(SNP, "/ingredients/-"),
            first("/releases/0/platforms/0/ingredients/0"),
            "ingredients[5]",
        ),
        (
            at(SNP, "/ingredients/0/role"),
            json!("bios"),
            "unknown variant",
        ),
        (
            at(SNP, "/ingredients/0/sha256"),
            json!("AB".repeat(32)),
            "64 lower-case hex digits",
        ),
        (at(SNP, "/ingredients/0/size"), json!(-1), "invalid value"),
        (
            at(SNP, "/ingredients/0/origin"),
            json!("reproduced"),
            "unknown variant",
        ),
        (at(SNP, "/ingredients/0/source"), json!(""), "source"),
        (
            at(SNP, "/ingredients/0/source"),
            json!("x".repeat(501)),
            "at most 500",
        ),
        (
            at(SNP, "/ingredients/4/origin"),
            json!("rebuilt"),
            "ONNX Runtime is its vendor's",
        ),
        (
            at(SNP, "/minimum_tcb"),
            json!({}),
            "floors of one product or more",
        ),
        (
            at(SNP, "/minimum_tcb"),
            json!({ "tcb_evaluation_data_number": 1 }),
            "minimum_tcb",
        ),
        (
            at(TDX, "/minimum_tcb"),
            first("/releases/0/platforms/0/minimum_tcb"),
            "minimum_tcb",
        ),
        (
            at(SNP, "/minimum_tcb/Rome"),
            first("/releases/0/platforms/0/minimum_tcb/Genoa"),
            "is none of",
        ),
        (
            at(SNP, "/minimum_tcb/Turin"),
            first("/releases/0/platforms/0/minimum_tcb/Genoa"),
            "fmc",
        ),
        (at(SNP, "/minimum_tcb/Genoa/fmc"), json!(1), "fmc"),
        (at(SNP, "/minimum_tcb/Genoa/fmc"), json!(null), "one form"),
        (
            at(SNP, "/minimum_tcb/Genoa/snp"),
            json!(256),
            "invalid value",
        ),
        (
            at(SNP, "/minimum_tcb/Genoa/snp"),
            remove(),
            "missing field `snp`",
        ),
        (at(SNP, "/measurements"), json!([]), "one or more"),
        (
            at(SNP, "/measurements/0"),
            first("/releases/0/platforms/1/measurements/0"),
            "one of sev-snp",
        ),
        (
            at(SNP, "/measurements/0/tdx"),
            first("/releases/0/platforms/1/measurements/0/tdx"),
            "snp or tdx",
        ),
        (at(SNP, "/measurements/0"), json!({}), "snp or tdx"),
        (
            at(SNP, "/measurements/0/snp/measurement"),
            json!("a1".repeat(47)),
            "94 characters",
        ),
        (at(SNP, "/measurements/0/snp/vcpus"), json!(0), "vcpus"),
        (at(SNP, "/measurements/0/snp/cpu"), json!(""), "cpu"),
        (
            at(SNP, "/measurements/0/snp/guest_features"),
            json!("0x01"),
            "expected a mask",
        ),
        (
            at(SNP, "/measurements/0/snp/guest_features"),
            json!("1"),
            "expected a mask",
        ),
        (
            at(TDX, "/measurements/0/tdx/rtmr0"),
            json!([]),
            "all of them",
        ),
        (
            at(TDX, "/measurements/0/tdx/rtmr0/-"),
            json!("c0".repeat(48)),
            "rtmr0[2]",
        ),
        (
            at(TDX, "/measurements/0/tdx/rtmr1"),
            remove(),
            "both, or none",
        ),
        (
            at(TDX, "/measurements/0/tdx/rtmr2"),
            json!(null),
            "one form",
        ),
        (
            at(TDX, "/measurements/0/tdx/page_add_order"),
            json!(""),
            "page_add_order",
        ),
        ("/models/-".into(), first("/models/0"), "models[1]"),
        (
            "/models/0/model_digest".into(),
            json!("05"),
            "64 lower-case hex digits",
        ),
        (
            "/models/0/config_digests/-".into(),
            json!("06".repeat(32)),
            "config_digests[1]",
        ),
        ("/models/0/version".into(), json!(""), "version"),
    ];
    assert!(read(&good(), &key).is_ok(), "the twin of all");
    for (pointer, value, says) in &table {
        let lie = with(pointer, value.clone());
        let error = read(&payload(&statement(&lie)), &key).expect_err(pointer);
        assert_eq!(
            (error.exit(), error.id()),
            (2, "manifest.format"),
            "{pointer}: {error}"
        );
        assert!(error.to_string().contains(says), "{pointer}: {error}");
        // A draft is held to the same, white space aside.
        let draft = serde_json::to_vec_pretty(&lie).unwrap();
        assert!(Manifest::parse_draft(&draft).is_err(), "{pointer}");
    }
}

#[test]
fn what_may_be_otherwise_is_accepted() {
    let key = key();
    for (pointer, value) in [
        ("/releases/0/platforms/0/os_binding", json!("none")),
        ("/releases/0/platforms/0/os_binding", json!("vtpm-pcr")),
        ("/releases/0/platforms/0/ingredients/4", json!("REMOVE")),
        (
            "/releases/0/platforms/0/ingredients/0/origin",
            json!("pinned-binary"),
        ),
        (
            "/releases/0/platforms/0/ingredients/0/source",
            json!("ä".repeat(500)),
        ),
        (
            "/releases/0/platforms/0/minimum_tcb/Turin",
            json!({ "fmc": 1, "bootloader": 1, "tee": 1, "snp": 1, "microcode": 1 }),
        ),
        ("/releases", json!([])),
        ("/models", json!([])),
        ("/models/0/config_digests", json!([])),
        ("/name", json!("x".repeat(256))),
        ("/version", json!((1_u64 << 53) - 1)),
    ] {
        let found = with(pointer, value);
        read(&payload(&statement(&found)), &key).unwrap_or_else(|e| panic!("{pointer}: {e}"));
    }
}

#[test]
fn the_statement_says_twice_what_it_says() {
    let key = key();
    let lies: Vec<(&str, Value, &str)> = vec![
        (
            "/_type",
            json!("https://in-toto.io/Statement/v0.1"),
            "_type",
        ),
        (
            "/predicateType",
            json!("https://slsa.dev/provenance/v1"),
            "predicateType",
        ),
        ("/subject", json!([]), "subject"),
        (
            "/subject/0/digest/sha256",
            json!("ff".repeat(32)),
            "subject",
        ),
        ("/subject/0/name", json!("another"), "subject"),
        ("/subject/0/digest/sha512", json!("00"), "unknown field"),
        ("/subject/0/uri", json!("x"), "unknown field"),
        ("/extra", json!("x"), "unknown field"),
    ];
    for (pointer, value, says) in lies {
        let mut lie = statement(&predicate());
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        lie.pointer_mut(parent).unwrap()[name] = value;
        let error = read(&payload(&lie), &key).expect_err(pointer);
        assert!(
            matches!(error, NotAuthentic::Malformed(_)),
            "{pointer}: {error}"
        );
        assert!(error.to_string().contains(says), "{pointer}: {error}");
    }
    let mut turned = statement(&predicate());
    turned["subject"].as_array_mut().unwrap().reverse();
    assert!(read(&payload(&turned), &key).is_err());
    // Canonical, and nothing around it.
    let good = good();
    let spaced = serde_json::to_vec_pretty(&statement(&predicate())).unwrap();
    for other in [
        spaced,
        [&good[..], b"\n"].concat(),
        [b" ", &good[..]].concat(),
    ] {
        assert_eq!(read(&other, &key).unwrap_err().exit(), 2);
    }
    assert!(read(&good, &key).is_ok());
}

#[test]
fn lists_are_bounded() {
    let key = key();
    let many = |pointer: &str, count: usize, change: &dyn Fn(&mut Value, usize)| {
        let mut predicate = predicate();
        let list = predicate
            .pointer_mut(pointer)
            .unwrap()
            .as_array_mut()
            .unwrap();
        let first = list[0].clone();
        list.clear();
        for n in 0..count {
            let mut item = first.clone();
            change(&mut item, n);
            list.push(item);
        }
        read(&payload(&statement(&predicate)), &key)
    };
    let digest = |n: usize| json!(Digest::of(&n.to_le_bytes()));
    let register = |n: usize| json!(format!("{n:096x}"));
    type Grow<'a> = &'a dyn Fn(&mut Value, usize);
    let cases: [(&str, usize, Grow<'_>); 6] = [
        ("/releases", 64, &|item, n| {
            item["release"] = json!(n.to_string())
        }),
        ("/releases/0/platforms", 64, &|item, n| {
            item["name"] = json!(n.to_string())
        }),
        ("/releases/0/platforms/0/measurements", 4096, &|item, n| {
            item["snp"]["measurement"] = register(n);
        }),
        (
            "/releases/0/platforms/1/measurements/0/tdx/rtmr0",
            256,
            &|item, n| *item = register(n),
        ),
        ("/models", 1024, &|item, n| {
            item["model_digest"] = digest(n);
            item["version"] = json!(n.to_string());
        }),
        ("/models/0/config_digests", 256, &|item, n| {
            *item = digest(n)
        }),
    ];
    for (pointer, limit, change) in cases {
        many(pointer, limit, change).unwrap_or_else(|e| panic!("{pointer}: {e}"));
        let error = many(pointer, limit + 1, change)
            .expect_err(pointer)
            .to_string();
        assert!(error.contains(&format!("at most {limit}")), "{error}");
    }
}

#[test]
fn a_measurement_is_matched_whole() {
    let found = authentic(&predicate());
    let manifest = found.manifest();
    let names = |reported: Reported<'_>| -> Vec<(String, String)> {
        let entries = manifest.entries(reported);
        entries
            .map(|e| (e.release.release.clone(), e.platform.name.clone()))
            .collect()
    };
    let one = |name: &str| vec![("1.4.2".to_owned(), name.to_owned())];
    assert_eq!(names(Reported::Snp(&[0xa2; 48])), one("qemu-genoa"));
    assert!(names(Reported::Snp(&[0xa3; 48])).is_empty());
    assert!(names(Reported::Snp(&[0xb0; 48])).is_empty(), "TDX's");
    let tdx = |mrtd: u8, rtmr: [u8; 3]| {
        let [r0, r1, r2] = rtmr.map(|byte| [byte; 48]);
        let mrtd = [mrtd; 48];
        names(Reported::Tdx {
            mrtd: &mrtd,
            rtmr: [&r0, &r1, &r2],
        })
    };
    for rtmr0 in [0xc0, 0xc1] {
        assert_eq!(tdx(0xb0, [rtmr0, 0xb1, 0xb2]), one("qemu-tdx"));
    }
    for (mrtd, rtmr) in [
        (0xb9, [0xc0, 0xb1, 0xb2]),
        (0xb0, [0xc2, 0xb1, 0xb2]),
        (0xb0, [0xc0, 0xb2, 0xb1]),
        (0xb0, [0xc0, 0xb1, 0xc1]),
    ] {
        assert!(tdx(mrtd, rtmr).is_empty());
    }
    // Members of two measurements make no third.
    let mut two = predicate();
    let list = two
        .pointer_mut("/releases/0/platforms/1/measurements")
        .unwrap();
    let mut second = list[0].clone();
    second["tdx"]["mrtd"] = json!("d0".repeat(48));
    second["tdx"]["rtmr1"] = json!("d1".repeat(48));
    list.as_array_mut().unwrap().push(second);
    let found = authentic(&two);
    let count = |mrtd: [u8; 48], rtmr1: [u8; 48]| {
        let rtmr = [&[0xc0; 48], &rtmr1, &[0xb2; 48]];
        let entries = found
            .manifest()
            .entries(Reported::Tdx { mrtd: &mrtd, rtmr });
        entries.count()
    };
    assert_eq!(count([0xb0; 48], [0xb1; 48]), 1);
    assert_eq!(count([0xd0; 48], [0xd1; 48]), 1);
    assert_eq!(count([0xb0; 48], [0xd1; 48]), 0);
    assert_eq!(count([0xd0; 48], [0xb1; 48]), 0);
}

#[test]
fn models_are_found_by_their_identity() {
    let found = authentic(&predicate());
    let model = found.manifest().model(&Digest([5; 32])).unwrap();
    assert_eq!((&*model.name, &*model.version), ("fraud-score", "3"));
    assert!(model.has_config(&Digest([6; 32])) && !model.has_config(&Digest([7; 32])));
    assert_eq!(found.manifest().model(&Digest([6; 32])), None);
}

#[test]
fn what_should_not_be_signed_is_told() {
    let refuses = |predicate: &Value, at: u64| {
        let draft = Manifest::parse_draft(predicate.to_string().as_bytes()).unwrap();
        let found = lint(&draft, at);
        let words = found.into_iter().filter(|f| f.refuses).map(|f| f.words);
        words.collect::<Vec<_>>().join("; ")
    };
    assert_eq!(refuses(&predicate(), ISSUED), "");
    let mut empty = predicate();
    empty["releases"] = json!([]);
    assert_eq!(refuses(&empty, ISSUED), "", "models alone");
    empty["models"] = json!([]);
    assert!(refuses(&empty, ISSUED).contains("it is empty"));
    assert!(refuses(&predicate(), END + 1).contains("it is expired"));
    assert!(refuses(&predicate(), ISSUED - 301).contains("in the future"));
    assert!(refuses(&predicate(), ISSUED + 100 * 86_400).contains("release 1.4.2 ended"));
    let draft =
        |predicate: &Value| Manifest::parse_draft(predicate.to_string().as_bytes()).unwrap();
    let found = lint(
        &draft(&with(&at(SNP, "/os_binding"), json!("none"))),
        ISSUED,
    );
    let words: Vec<&str> = found.iter().map(|f| &*f.words).collect();
    assert!(
        words[0].contains("can be proven") && words[1].contains("shared agent"),
        "{words:?}"
    );
}

#[test]
fn drafts_are_written_as_they_are_read() {
    let text = serde_json::to_string_pretty(&predicate()).unwrap();
    let manifest = Manifest::parse_draft(text.as_bytes()).unwrap();
    let draft = manifest.to_draft().unwrap();
    assert_eq!(Manifest::parse_draft(draft.as_bytes()).unwrap(), manifest);
    assert_eq!(Statement::new(manifest).unwrap(), parsed());
    let twice = draft.replacen(
        "\"Genoa\":",
        "\"Genoa\": {\"bootloader\":0,\"tee\":0,\"snp\":0,\"microcode\":0}, \"Genoa\":",
        1,
    );
    assert!(
        Manifest::parse_draft(twice.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("twice")
    );
}

#[test]
fn measurements_are_read_strictly() {
    let platform = |index: usize| predicate()["releases"][0]["platforms"][index].clone();
    let measured = |index: usize| {
        let platform = platform(index);
        let mut ingredients = platform["ingredients"].clone();
        for i in ingredients.as_array_mut().unwrap() {
            i.as_object_mut()
                .unwrap()
                .retain(|name, _| name != "origin" && name != "source");
        }
        json!({ "v": "touchstone/measured/1", "tee": platform["tee"], "vmm": "qemu",
                "os_binding": platform["os_binding"], "confirmed": "dstack-milan",
                "ingredients": ingredients, "measurements": platform["measurements"] })
    };
    let parse = |value: &Value| Measured::parse(value.to_string().as_bytes());
    for index in [0, 1] {
        let found = parse(&measured(index)).unwrap();
        assert_eq!(found.confirmed.as_deref(), Some("dstack-milan"));
        let lies: Vec<(&str, Value, &str)> = vec![
            ("v", json!("touchstone/measured/2"), "v:"),
            ("extra", json!(1), "unknown field"),
            ("os_binding", json!("vtpm-pcr"), "what can be measured"),
            (
                "os_binding",
                platform(1 - index)["os_binding"].clone(),
                "what can be measured",
            ),
            ("measurements", json!([]), "one or more"),
            (
                "measurements",
                platform(1 - index)["measurements"].clone(),
                "one of",
            ),
            ("vmm", json!(""), "vmm"),
            ("confirmed", json!(""), "confirmed"),
        ];
        for (member, value, says) in lies {
            let mut lie = measured(index);
            lie[member] = value;
            let error = parse(&lie).expect_err(member).to_string();
            assert!(error.contains(says), "{member}: {error}");
        }
        let mut twice = measured(index);
        let first = twice["ingredients"][0].clone();
        twice["ingredients"].as_array_mut().unwrap().push(first);
        assert!(
            parse(&twice)
                .unwrap_err()
                .to_string()
                .contains("ingredients[5]")
        );
    }
    let mut unconfirmed = measured(0);
    unconfirmed["confirmed"] = json!(null);
    assert_eq!(parse(&unconfirmed).unwrap().confirmed, None);
    unconfirmed.as_object_mut().unwrap().remove("confirmed");
    assert!(parse(&unconfirmed).is_err(), "null is said");
}
