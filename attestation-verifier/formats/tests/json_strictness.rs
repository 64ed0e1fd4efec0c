//! "Conventions": everything non-canonical is malformed. Each refusal stands beside the twin that is
//! accepted and differs in nothing else.

mod common;

use common::{bundle, keyset};
use proptest::prelude::*;
use serde_json::{Value, json};
use touchstone_formats::text::{base64_decode, base64_encode, hex_decode, hex_encode};
use touchstone_formats::{Bundle, Catalog, Digest, Evidence, FormatError, Keyset, jcs};

/// Accepts `good`; refuses `bad` at byte `offset`, naming `found`.
fn twins(good: &str, bad: &str, offset: usize, found: &str) {
    jcs::check(good.as_bytes()).unwrap_or_else(|error| panic!("{good}: {error}"));
    match jcs::check(bad.as_bytes()) {
        Err(FormatError::Syntax {
            offset: at,
            found: what,
            ..
        }) => {
            assert_eq!(at, offset, "{bad}: {what}");
            assert!(what.contains(found), "{bad}: {what}");
        }
        other => panic!("{bad}: {other:?}"),
    }
}

#[test]
fn white_space_and_ends() {
    for good in ["{}", "[]", "null", "\"\"", "0", r#"{"a":[1,{"b":null}]}"#] {
        twins(good, &format!(" {good}"), 0, "' '");
        twins(good, &format!("{good} "), good.len(), "' '");
        twins(good, &format!("{good}\n"), good.len(), "'\\n'");
        twins(good, &format!("{good}[]"), good.len(), "'['");
        twins(good, &format!("\u{feff}{good}"), 0, "feff");
    }
    twins("[1,2]", "[1, 2]", 3, "' '");
    twins("[1,2]", "[1,2,]", 5, "']'");
    twins("[1,2]", "[,1,2]", 1, "','");
    twins("[1,2]", "[1 ,2]", 2, "' '");
    twins("[1,2]", "[1,2", 4, "the end");
    twins("[1,2]", "[1,2}", 4, "'}'");
    twins(r#"{"a":1}"#, r#"{"a": 1}"#, 5, "' '");
    twins(r#"{"a":1}"#, r#"{"a" :1}"#, 4, "' '");
    twins(r#"{"a":1}"#, r#"{"a":1,}"#, 7, "'}'");
    twins(r#"{"a":1}"#, r#"{,"a":1}"#, 1, "','");
    twins(r#"{"a":1}"#, r#"{a:1}"#, 1, "'a'");
    twins(r#"{"a":1}"#, r#"{"a"}"#, 4, "'}'");
    twins(r#"{"a":1}"#, r#"{"a":}"#, 5, "'}'");
    twins(r#"{"a":1}"#, r#"{"a":1]"#, 6, "']'");
    twins(r#"{"a":1}"#, r#"{"a":1"#, 6, "the end");
    twins("null", "nul", 0, "'n'");
    twins("null", "nulL", 0, "'n'");
    twins("null", "", 0, "the end");
    twins("[null]", "[true]", 1, "'t'");
    twins("[null]", "[false]", 1, "'f'");
    twins("[null]", "[NaN]", 1, "'N'");
}

#[test]
fn order_and_repetition_of_members() {
    twins(
        r#"{"a":1,"b":2}"#,
        r#"{"b":2,"a":1}"#,
        7,
        "\"a\" after \"b\"",
    );
    twins(
        r#"{"a":1,"b":2}"#,
        r#"{"a":1,"a":2}"#,
        7,
        "\"a\" after \"a\"",
    );
    twins(r#"{"":1,"a":2}"#, r#"{"a":2,"":1}"#, 7, "\"\" after");
    twins(r#"{"a":1,"aa":2}"#, r#"{"aa":2,"a":1}"#, 8, "after");
    // By UTF-16 code units U+10000 (d800 dc00) comes before U+FFFF, by bytes or code points after.
    let (astral, last) = ("\u{10000}", "\u{ffff}");
    twins(
        &format!(r#"{{"{astral}":1,"{last}":2}}"#),
        &format!(r#"{{"{last}":2,"{astral}":1}}"#),
        9,
        "after",
    );
    // Escapes count as what they stand for: \n is U+000A, before "a" and after \u0001.
    twins(
        r#"{"\u0001":1,"\n":2,"a":3}"#,
        r#"{"\u0001":1,"a":3,"\n":2}"#,
        18,
        "after",
    );
    twins(
        r#"{"\u0001":1,"\n":2}"#,
        r#"{"\n":2,"\u0001":1}"#,
        8,
        "after",
    );
    // The order of one object says nothing about another.
    twins(
        r#"{"b":{"z":1},"c":{"a":1}}"#,
        r#"{"b":{"z":1},"b":{"a":1}}"#,
        13,
        "after",
    );
    // The samples of RFC 8785 §3.2.3.
    let sample = "{\"\\r\":1,\"1\":2,\"\u{80}\":3,\"ö\":4,\"€\":5,\"😀\":6,\"\u{fb33}\":7}";
    jcs::check(sample.as_bytes()).unwrap();
    let value: Value = serde_json::from_str(sample).unwrap();
    assert_eq!(jcs::to_vec(&value).unwrap(), sample.as_bytes());
}

#[test]
fn escapes() {
    twins(r#""\b\t\n\f\r\"\\""#, r#""\u0008""#, 1, "u0008");
    twins(r#""\b\t\n\f\r\"\\""#, r#""\u000a""#, 1, "u000a");
    twins(r#""\b\t\n\f\r\"\\""#, r#""\u000d""#, 1, "u000d");
    twins(r#""\u000b""#, r#""\u000B""#, 1, "u000B");
    twins(r#""\u001f""#, r#""\u0020""#, 1, "u0020");
    twins(r#""/""#, r#""\/""#, 1, "/");
    twins(r#""a""#, r#""\u0061""#, 1, "u0061");
    twins(r#""a""#, r#""\a""#, 1, "a");
    twins("\"\u{7f}é€😀\"", r#""\u00e9""#, 1, "u00e9");
    twins("\"x\"", "\"\u{1}\"", 1, "\\u{1}");
    twins("\"x\"", "\"\n\"", 1, "'\\n'");
    twins("\"x\"", "\"x", 2, "the end");
    twins("\"x\"", "\"\\", 1, "");
    // Surrogates, alone or in pairs, are never written as escapes.
    twins("\"😀\"", r#""\ud83d\ude00""#, 1, "ud83d");
    twins("\"😀\"", r#""\ud83d""#, 1, "ud83d");
    twins("\"😀\"", r#""\ude00""#, 1, "ude00");
    // Nor as bytes.
    assert!(jcs::check("\"😀\"".as_bytes()).is_ok());
    for surrogate in [b"\"\xed\xa0\xbd\"".as_slice(), b"\"\xff\"", b"\"\xc0\x80\""] {
        match jcs::check(surrogate) {
            Err(FormatError::Syntax {
                offset: 1, found, ..
            }) => assert!(found.contains("UTF-8")),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn numbers() {
    for bad in [
        "-0",
        "1.0",
        "1e0",
        "1E0",
        "1e+0",
        "1.5",
        "01",
        "00",
        "-01",
        "+1",
        ".5",
        "1.",
        "--1",
        "-",
        "0x1",
        "9007199254740992",
        "-9007199254740992",
        "18446744073709551616",
        "99999999999999999999999999999999999999999999",
    ] {
        let offset = usize::from(bad == "0x1");
        twins("1", bad, offset, "");
        twins("[1]", &format!("[{bad}]"), offset + 1, "");
    }
    for good in ["0", "-1", "9007199254740991", "-9007199254740991"] {
        jcs::check(good.as_bytes()).unwrap();
        let value: Value = serde_json::from_str(good).unwrap();
        assert_eq!(jcs::to_vec(&value).unwrap(), good.as_bytes());
    }
}

#[test]
fn depth() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    twins(&nested(16), &nested(17), 16, "one more level");
    let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    twins(&objects(16), &objects(17), 16 * 5, "one more level");
    // Levels are given back.
    let wide = format!("[{}]", [nested(15).as_str(); 40].join(","));
    jcs::check(wide.as_bytes()).unwrap();
    let value: Value = serde_json::from_str(&objects(17)).unwrap();
    assert!(matches!(
        jcs::to_vec(&value),
        Err(FormatError::TooLong { limit: 16, .. })
    ));
    assert_eq!(jcs::to_vec(&value["a"]).unwrap(), objects(16).as_bytes());
    // A million levels are refused like seventeen.
    assert!(jcs::check("[".repeat(1 << 20).as_bytes()).is_err());
    assert!(jcs::check(r#"{"a":"#.repeat(1 << 18).as_bytes()).is_err());
}

#[test]
fn files_end_in_one_newline() {
    assert_eq!(jcs::check_file(b"{}\n").unwrap(), b"{}");
    for bad in [
        b"{}".as_slice(),
        b"{}\n\n",
        b"{}\r\n",
        b"{}\n ",
        b"\xef\xbb\xbf{}\n",
        b"\n",
        b"",
        b"{}\0",
    ] {
        assert!(jcs::check_file(bad).is_err(), "{bad:?}");
    }
    let file = bundle().to_file();
    assert!(Bundle::parse(&file).is_ok());
    let body = &file[..file.len() - 1];
    for end in ["", "\n\n", "\r\n", " \n", "\n "] {
        let bad = [body, end.as_bytes()].concat();
        assert!(Bundle::parse(&bad).is_err(), "{end:?}");
    }
    assert!(Bundle::parse(&[b"\xef\xbb\xbf", file.as_slice()].concat()).is_err());
}

#[test]
fn writer_refuses_what_hashed_json_cannot_hold() {
    assert_eq!(
        jcs::to_vec(&json!({"b": [1, null, "\u{1}é"], "a": {}})).unwrap(),
        "{\"a\":{},\"b\":[1,null,\"\\u0001é\"]}".as_bytes()
    );
    for bad in [
        json!(true),
        json!([1.5]),
        json!({"a": 1.0}),
        json!(1_u64 << 53),
    ] {
        assert!(jcs::to_vec(&bad).is_err(), "{bad}");
    }
    assert_eq!(jcs::to_file(&json!([])).unwrap(), b"[]\n");
}

#[test]
fn structs_are_objects_alone() {
    #[derive(serde::Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Pair {
        a: u64,
        b: Option<String>,
    }
    assert_eq!(
        jcs::from_slice::<Pair>(br#"{"a":1,"b":"x"}"#).unwrap(),
        Pair {
            a: 1,
            b: Some("x".into())
        }
    );
    // serde_json would take the array for the object.
    assert!(serde_json::from_str::<Pair>(r#"[1,"x"]"#).is_ok());
    for (bad, offset) in [
        (r#"[1,"x"]"#, 0),
        (r#"{"a":1,"c":2}"#, 7),
        (r#"{"b":"x"}"#, 0),
        (r#"{"a":"1"}"#, 5),
        (r#"{"a":-1}"#, 5),
        (r#"{"a":1,"b":2}"#, 11),
    ] {
        match jcs::from_slice::<Pair>(bad.as_bytes()) {
            Err(FormatError::Json { offset: at, .. }) => assert_eq!(at, offset, "{bad}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
}

#[test]
fn messages_quote_nothing_that_a_terminal_acts_upon() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct One {
        #[serde(rename = "a")]
        _a: u8,
    }
    assert!(jcs::from_slice::<One>(br#"{"a":1}"#).is_ok());
    for bad in [
        "{\"a\u{9b}31m\u{7f}\":1}",
        r#"{"a\u001b[2J\nHOLDS, exit 0":1}"#,
        "{\"a\":\"\u{9b}31m\"}",
    ] {
        jcs::check(bad.as_bytes()).unwrap();
        let error = jcs::from_slice::<One>(bad.as_bytes()).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("\\u{"), "{said}");
        assert!(!said.chars().any(char::is_control), "{said:?}");
    }
}

#[test]
fn hex() {
    assert_eq!(hex_decode("00ff").unwrap(), [0, 255]);
    for (bad, offset) in [
        ("00FF", 2),
        ("00fF", 3),
        ("00f", 3),
        ("0 ff", 1),
        ("00fg", 3),
        ("0x00", 1),
    ] {
        match hex_decode(bad) {
            Err(FormatError::Syntax { offset: at, .. }) => assert_eq!(at, offset, "{bad}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
    let good = "ab".repeat(32);
    assert_eq!(Digest::from_hex(&good).unwrap().to_string(), good);
    for bad in [
        &good[1..],
        &good[2..],
        &good.to_uppercase(),
        &format!("{good}00"),
    ] {
        assert!(Digest::from_hex(bad).is_err(), "{bad}");
    }
}

#[test]
fn base64() {
    for (good, bytes) in [
        ("", "".as_bytes()),
        ("Zg==", b"f"),
        ("Zm8=", b"fo"),
        ("Zm9v", b"foo"),
    ] {
        assert_eq!(base64_decode(good).unwrap(), bytes);
        assert_eq!(base64_encode(bytes), good);
    }
    for bad in [
        "Zg", "Zg=", "Zg===", "Zh==", "Zn==", "Zm9=", " Zg==", "Zg==\n", "Zm 9v", "Zm9v=",
        "Zg==Zg==", "Z", "=", "-_-_", "Zm9v\0",
    ] {
        assert!(base64_decode(bad).is_err(), "{bad:?}");
    }
}

/// Writes the object with one member changed, removed or added, canonically.
fn with(object: &[u8], change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(object).unwrap();
    change(value.as_object_mut().unwrap());
    jcs::to_vec(&value).unwrap()
}

#[test]
fn keyset_members() {
    let good = keyset().to_jcs();
    assert!(Keyset::parse(&with(&good, |_| ())).is_ok());
    let changed = |name: &str, value: Value| {
        with(&good, |keyset| {
            keyset.insert(name.into(), value);
        })
    };
    let members: serde_json::Map<String, Value> = serde_json::from_slice(&good).unwrap();
    for name in members.keys() {
        let without = with(&good, |keyset| {
            keyset.remove(name);
        });
        let optional = ["tls_spki_sha256", "ohttp_keys"].contains(&name.as_str());
        assert_eq!(Keyset::parse(&without).is_ok(), optional, "without {name}");
        // Null stands for "none before", and for nothing else.
        let null = changed(name, Value::Null);
        assert_eq!(
            Keyset::parse(&null).is_ok(),
            name == "previous",
            "{name} null"
        );
        assert!(Keyset::parse(&changed(name, json!([]))).is_err(), "{name}");
        if name != "name" {
            assert!(Keyset::parse(&changed(name, json!(""))).is_err(), "{name}");
        }
    }
    assert!(Keyset::parse(&changed("extra", Value::Null)).is_err());
    assert!(Keyset::parse(&changed("v", json!("touchstone/keyset/2"))).is_err());
    assert!(Keyset::parse(&changed("software", json!("AB".repeat(32)))).is_err());
    assert!(Keyset::parse(&changed("previous", json!("ab".repeat(32)))).is_ok());
    assert!(Keyset::parse(&changed("not_before", json!(-1))).is_err());
    assert!(Keyset::parse(&changed("not_before", json!(0))).is_ok());
    // Text: 256 bytes.
    assert!(Keyset::parse(&changed("name", json!("é".repeat(128)))).is_ok());
    assert!(Keyset::parse(&changed("name", json!("a".repeat(257)))).is_err());
    let key = |text: String| changed("receipt_key", json!(text));
    let base64 = base64_encode(&keyset().receipt_key.0);
    assert!(Keyset::parse(&key(format!("ed25519:{base64}"))).is_ok());
    for bad in [
        base64.clone(),
        format!("Ed25519:{base64}"),
        format!("ed25519:{}", base64.trim_end_matches('=')),
        format!("ed25519: {base64}"),
        format!("ed25519:{}", base64_encode(&[7; 31])),
        format!("ed25519:{}", base64_encode(&[7; 33])),
    ] {
        assert!(Keyset::parse(&key(bad.clone())).is_err(), "{bad}");
    }
}

#[test]
fn keyset_bound() {
    let sized = |total: usize| {
        let mut keyset = keyset();
        keyset.name.clear();
        keyset.ohttp_keys = Some(touchstone_formats::text::Base64Bytes(vec![0; 3]));
        let rest = keyset.to_jcs().len() - 4;
        let keys = (total - rest) / 4 * 3;
        keyset.ohttp_keys = Some(touchstone_formats::text::Base64Bytes(vec![0; keys]));
        keyset.name = "a".repeat((total - rest) % 4);
        let bytes = keyset.to_jcs();
        assert_eq!(bytes.len(), total);
        bytes
    };
    assert!(Keyset::parse(&sized(8192)).is_ok());
    assert!(matches!(
        Keyset::parse(&sized(8193)),
        Err(FormatError::TooLong {
            field: "keyset",
            found: 8193,
            limit: 8192
        })
    ));
    // Inside a bundle the same bound holds.
    let inside = |total: usize| {
        let text = String::from_utf8(bundle().to_file()).unwrap();
        let own = String::from_utf8(keyset().to_jcs()).unwrap();
        let other = String::from_utf8(sized(total)).unwrap();
        Bundle::parse(text.replace(&own, &other).as_bytes())
    };
    assert!(inside(8192).is_ok());
    let error = inside(8193).unwrap_err().to_string();
    assert!(error.contains("8193"), "{error}");
}

#[test]
fn catalog_members() {
    let good = common::catalog().to_jcs();
    assert_eq!(Catalog::parse(&good).unwrap(), common::catalog());
    let two = |version: &str| {
        with(&good, |catalog| {
            let models = catalog["models"].as_array_mut().unwrap();
            let mut again = models[0].clone();
            again["version"] = json!(version);
            models.push(again);
        })
    };
    assert!(Catalog::parse(&two("2")).is_ok());
    let error = Catalog::parse(&two("1")).unwrap_err().to_string();
    assert!(error.contains("twice"), "{error}");
    type Change = fn(&mut serde_json::Map<String, Value>);
    let changes: [Change; 9] = [
        |catalog| {
            catalog.remove("epoch");
        },
        |catalog| {
            catalog.insert("more".into(), json!(1));
        },
        |catalog| catalog["models"][0]["more"] = json!(1),
        |catalog| catalog["models"][0]["name"] = json!("a".repeat(257)),
        |catalog| catalog["models"] = json!({}),
        |catalog| catalog["epoch"] = json!("0"),
        |catalog| catalog["epoch"] = json!(-1),
        |catalog| catalog["v"] = json!("touchstone/catalog/2"),
        |catalog| catalog["previous"] = Value::Null,
    ];
    for change in changes {
        let bad = with(&good, change);
        assert!(
            Catalog::parse(&bad).is_err(),
            "{}",
            String::from_utf8_lossy(&bad)
        );
    }
    let long = with(&good, |catalog| {
        catalog["models"][0]["name"] = json!("a".repeat(256))
    });
    assert!(Catalog::parse(&long).is_ok());
}

proptest! {
    /// What the writer writes is canonical, and reads back as the same value.
    #[test]
    fn writer_and_reader_agree(value in any_json()) {
        let written = jcs::to_vec(&value).unwrap();
        jcs::check(&written).unwrap();
        prop_assert_eq!(jcs::from_slice::<Value>(&written).unwrap(), value.clone());
        prop_assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), value);
    }

    /// Whatever is accepted is what the writer would have written.
    #[test]
    fn what_is_accepted_is_canonical(value in any_json(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = jcs::to_vec(&value).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if jcs::check(&bytes).is_ok() {
            let value: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(jcs::to_vec(&value).unwrap(), bytes);
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        (-9007199254740991_i64..=9007199254740991).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

#[test]
fn hex16_and_evidence_file() {
    assert_eq!(hex_encode(&[0x0a; 16]).len(), 32);
    let evidence = common::evidence(touchstone_formats::Purpose::Boot);
    let file = evidence.to_file();
    assert_eq!(Evidence::parse(&file).unwrap(), evidence);
    assert!(Evidence::parse(&file[..file.len() - 1]).is_err());
    assert!(Evidence::parse(&[file.as_slice(), b"\n"].concat()).is_err());
}
