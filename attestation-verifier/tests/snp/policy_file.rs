//! Policy files: nothing left out, nothing unknown, nothing of the wrong form.

use crate::common::{template, with};
use crate::simulated::genoa;
use attestation_verifier::policy::Rule;
use attestation_verifier::policy::{PolicyError, check_ids};
use attestation_verifier::{Binding, Policy};
use touchstone_formats::evidence::Tee;

#[test]
fn the_template_stands_and_accepts_nothing() {
    let text = template();
    let parsed = Policy::parse(&text).unwrap();
    assert_eq!(parsed.platforms.len(), 1);
    assert_eq!(parsed.answer.require.names(), ["logged", "signed"]);
    let mut scene = genoa();
    scene.policy = text.clone();
    let verdict = scene.judge();
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (4, Some("snp.measurement"))
    );
    // Every check is explained above its line, and names its source.
    for spec in check_ids(Tee::SevSnp) {
        let line = text
            .lines()
            .position(|l| l.starts_with(&format!("\"{}\" = ", spec.id)))
            .unwrap();
        let above = text.lines().nth(line - 1).unwrap();
        assert!(above.starts_with("# "), "{}", spec.id);
        assert!(text.lines().take(line).any(|l| l.contains("Source:")));
    }
    // Comments that people can read.
    for line in text.lines().filter(|l| l.starts_with('#')) {
        assert!(line.chars().count() <= 105, "{line}");
    }
}

#[test]
fn policies_leave_nothing_out() {
    let text = template();
    let keys: Vec<String> = text
        .lines()
        .filter(|l| !l.starts_with('#') && l.contains(" = "))
        .map(|l| l.split(" = ").next().unwrap().to_owned())
        .collect();
    assert!(keys.len() > 40);
    for key in &keys {
        let without: String = text
            .lines()
            .filter(|l| !l.starts_with(&format!("{key} = ")))
            .map(|l| format!("{l}\n"))
            .collect();
        match Policy::parse(&without) {
            Err(PolicyError::Missing { key: missing }) => {
                assert!(missing.contains(key.trim_matches('"')), "{key}: {missing}");
            }
            other => panic!("{key}: {other:?}"),
        }
        // The same key twice is no TOML.
        let line = text
            .lines()
            .find(|l| l.starts_with(&format!("{key} = ")))
            .unwrap();
        let twice = text.replacen(line, &format!("{line}\n{line}"), 1);
        assert!(
            matches!(Policy::parse(&twice), Err(PolicyError::Toml(_))),
            "{key}"
        );
    }
}

#[test]
fn policies_with_anything_wrong_are_refused() {
    let text = template();
    let parse = |text: &str| Policy::parse(text).map(|_| ());
    let value = |id: &str, value: &str| match Policy::parse(&with(&text, id, value)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{id} = {value} was accepted"),
    };
    for (id, wrong) in [
        ("snp.policy.debug", "false"),
        ("snp.policy.debug", "{}"),
        ("snp.policy.debug", "{ expect = false, waive = \"both\" }"),
        ("snp.policy.debug", "{ expect = \"false\" }"),
        ("snp.policy.debug", "{ expect = 0 }"),
        ("snp.policy.debug", "{ expect = [false] }"),
        (
            "snp.policy.debug",
            "{ expect = false, until = \"2027-01-01\" }",
        ),
        ("snp.policy.debug", "{ waive = \"\" }"),
        ("snp.policy.debug", "{ waive = \"  \" }"),
        ("snp.policy.debug", "{ waive = true }"),
        (
            "snp.policy.debug",
            "{ waive = \"r\", until = \"2027-02-30\" }",
        ),
        ("snp.policy.debug", "{ waive = \"r\", until = 2027-01-01 }"),
        (
            "snp.policy.debug",
            "{ waive = \"r\", since = \"2027-01-01\" }",
        ),
        ("snp.version", "{ expect = -3 }"),
        ("snp.version", "{ expect = 3.0 }"),
        ("snp.version", "{ expect = [\"3\"] }"),
        ("snp.version", "{ expect = 9007199254740992 }"),
        ("snp.product", "{ expect = \"Rome\" }"),
        ("snp.product", "{ expect = \"Genoa-X\" }"),
        ("snp.product", "{ expect = { Genoa = true } }"),
        ("snp.signing_key", "{ expect = \"none\" }"),
        ("snp.chain.crl", "{ expect = \"missing\" }"),
        ("snp.chain.crl", "{ expect = false }"),
        ("snp.measurement", "{ expect = \"\" }"),
        ("snp.measurement", "{ expect = [\"00\"] }"),
        (
            "snp.host_data",
            &format!("{{ expect = \"{}\" }}", "A".repeat(64)),
        ),
        ("snp.mitigation.launch", "{ expect = 1 }"),
        ("snp.mitigation.launch", "{ expect = \"1\" }"),
        ("snp.mitigation.launch", "{ expect = \"0x01\" }"),
        ("snp.mitigation.launch", "{ expect = \"0xA\" }"),
        (
            "snp.mitigation.launch",
            "{ expect = \"0x10000000000000000\" }",
        ),
        ("snp.tcb.launch", "{ expect = [] }"),
        (
            "snp.tcb.launch",
            "{ expect = { Rome = { bootloader = 0, tee = 0, snp = 0, microcode = 0 } } }",
        ),
        (
            "snp.tcb.launch",
            "{ expect = { Genoa = { bootloader = 0, tee = 0, snp = 0 } } }",
        ),
        (
            "snp.tcb.launch",
            "{ expect = { Genoa = { fmc = 0, bootloader = 0, tee = 0, snp = 0, microcode = 0 } } }",
        ),
        (
            "snp.tcb.launch",
            "{ expect = { Turin = { bootloader = 0, tee = 0, snp = 0, microcode = 0 } } }",
        ),
        (
            "snp.tcb.launch",
            "{ expect = { Genoa = { bootloader = 0, tee = 0, snp = 0, microcode = 256 } } }",
        ),
        ("require", "[]"),
        ("require", "[\"delivered\"]"),
        ("require", "{ waive = \"none\" }"),
        ("nonce", "{ expect = \"absent\" }"),
        ("nonce", "{ expect = true }"),
        ("models", "{ expect = [\"abc\"] }"),
        ("keyset_span_seconds", "{ expect = \"a week\" }"),
        ("binding", "{ expect = \"ohttp-keys\" }"),
        ("binding", "{ expect = [\"tls-exporter\", \"ohttp\"] }"),
        ("binding", "{ expect = \"TLS-exporter\" }"),
        ("binding", "{ expect = true }"),
        ("binding", "{ expect = { tls-exporter = true } }"),
        ("binding", "\"tls-exporter\""),
        ("answers", "{ expect = \"\" }"),
        ("answers", "{ waive = \"\" }"),
        ("name", "{ expect = 7 }"),
        ("name", "{ expect = [\"\"] }"),
        ("v", "\"touchstone/policy/2\""),
        ("v", "1"),
        ("profile", "\"\""),
        ("tee", "\"sgx\""),
    ] {
        let error = value(id, wrong);
        assert!(error.contains(id), "{id} = {wrong}: {error}");
    }
    // Keys nobody knows, anywhere.
    for place in [
        "[answer]\n",
        "[session]\n",
        "[[platform]]\n",
        "[platform.checks]\n",
    ] {
        let more = text.replacen(
            place,
            &format!("{place}\"snp.policy.debugg\" = {{ expect = false }}\n"),
            1,
        );
        assert!(
            matches!(parse(&more), Err(PolicyError::Unknown { .. })),
            "{place}"
        );
    }
    let more = format!("strict = true\n{text}");
    assert!(matches!(parse(&more), Err(PolicyError::Unknown { .. })));
    // What nothing may waive is no key.
    for id in [
        "snp.signature",
        "snp.chain.root",
        "evidence.report_data",
        "snp.chain.revoked",
    ] {
        let more = format!("{text}\n\"{id}\" = {{ waive = \"please\" }}\n");
        assert!(
            matches!(parse(&more), Err(PolicyError::Unknown { .. })),
            "{id}"
        );
    }
    let (head, _) = text.split_once("[[platform]]").unwrap();
    assert!(matches!(parse(head), Err(PolicyError::Missing { .. })));
    assert!(matches!(
        parse(&format!("platform = []\n{head}")),
        Err(PolicyError::Value { .. })
    ));
    assert!(matches!(
        parse("not TOML at all ="),
        Err(PolicyError::Toml(_))
    ));
    assert!(matches!(
        parse(&" ".repeat(1 << 21)),
        Err(PolicyError::Toml(_))
    ));
}

/// The table may be left out; a part of it may not.
#[test]
fn the_table_of_connections_is_there_or_not() {
    let text = template();
    let whole = crate::common::policy(&text);
    assert!(whole.session.is_some());
    let (head, rest) = text.split_once("[session]").unwrap();
    let (_, platforms) = rest.split_once("[[platform]]").unwrap();
    let with = |table: &str| Policy::parse(&format!("{head}{table}[[platform]]{platforms}"));
    let without = with("").unwrap();
    assert_eq!(without.session, None);
    assert_eq!(
        (without.answer, without.platforms),
        (whole.answer, whole.platforms)
    );
    assert!(matches!(
        with("[session]\n"),
        Err(PolicyError::Missing { .. })
    ));
    let more = format!("session = 1\n{head}[[platform]]{platforms}");
    assert!(matches!(
        Policy::parse(&more),
        Err(PolicyError::Value { .. })
    ));
    let sealed = with(
        "[session]\nbinding = { expect = \"ohttp-key\" }\nanswers = { waive = \"r\" }\nname = { waive = \"r\" }\n",
    );
    let binding = sealed.unwrap().session.unwrap().binding;
    assert_eq!(binding, Rule::Expect(vec![Binding::OhttpKey]));
}

/// A bare value is a list of one.
#[test]
fn bare_values_are_lists_of_one() {
    for (id, bare, list) in [
        ("snp.version", "{ expect = 5 }", "{ expect = [5] }"),
        (
            "snp.product",
            "{ expect = \"Genoa\" }",
            "{ expect = [\"Genoa\"] }",
        ),
        ("require", "\"signed\"", "[\"signed\"]"),
        (
            "binding",
            "{ expect = \"none\" }",
            "{ expect = [\"none\"] }",
        ),
    ] {
        let parse = |value| crate::common::policy(&with(&template(), id, value));
        assert_eq!(parse(bare), parse(list), "{id}");
    }
}
