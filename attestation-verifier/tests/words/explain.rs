//! Explanations: what refuses comes first, with words for everything, and files that contradict themselves are none.

use attestation_verifier::explain::{Explanation, explain};
use attestation_verifier::policy::check_ids;
use attestation_verifier::verdict::{Class, Outcome};
use serde_json::Value;
use touchstone_formats::Tee;

use crate::support::*;

#[test]
fn what_holds_is_explained_check_by_check() {
    let world = world();
    let minted = mint(&world, |m| m);
    let verdict = judge(&world, &minted, &policy(&world, &[]));
    let explanation = explain(&verdict);
    assert_eq!(
        (explanation.exit, explanation.deciding.as_deref()),
        (0, None)
    );
    assert_eq!(explanation.checks.len(), verdict.checks.len());
    for told in &explanation.checks {
        assert!(
            !told.summary.is_empty() && !told.why.is_empty() && !told.source.is_empty(),
            "{}",
            told.id
        );
        assert_eq!(
            (told.refuses, told.advice.is_some(), told.class),
            (false, false, None)
        );
    }
    for spec in check_ids(Tee::SevSnp) {
        assert!(
            explanation
                .checks
                .iter()
                .any(|t| t.id == spec.id && t.why == spec.why)
        );
    }
    let words = explanation.words();
    assert!(
        words.starts_with("HOLDS (SIMULATED platform), exit 0\n"),
        "{words}"
    );
    assert!(
        words.contains("Waived by the policy (") && words.contains("because:  any genuine chip"),
        "{words}"
    );
    let end = words
        .split("What no check shows\n")
        .nth(1)
        .expect("the end");
    assert!(end.contains("Physical access"), "{end}");
    for line in words.lines().filter(|line| line.chars().count() > 100) {
        let longest = line.split_whitespace().map(str::len).max();
        assert!(longest > Some(60), "{line}");
    }
}

#[test]
fn the_deciding_check_comes_first_with_what_to_do() {
    let world = world();
    let minted = mint(&world, |m| {
        m.report(|p, r| {
            r.launch_tcb = [0; 8];
            r.policy |= u64::from(p == touchstone_formats::Purpose::Checkpoint) << 19;
        })
    });
    let verdict = judge(&world, &minted, &policy(&world, &[]));
    let explanation = explain(&verdict);
    let first = &explanation.checks[0];
    assert_eq!(
        (first.id.as_str(), first.evidence.as_deref()),
        ("snp.tcb.launch", Some("boot"))
    );
    assert_eq!(
        (first.class, explanation.class),
        (Some(Class::Operations), Some(Class::Operations))
    );
    assert!(first.advice.as_ref().unwrap().contains("SNP_COMMIT"));
    assert_eq!(explanation.deciding.as_deref(), Some("snp.tcb.launch"));
    let debug = explanation
        .checks
        .iter()
        .find(|t| t.id == "snp.policy.debug" && t.refuses)
        .unwrap();
    assert_eq!(
        (debug.class, debug.result),
        (Some(Class::Policy), Outcome::Fail)
    );
    let words = explanation.words();
    let failed = words.find("Failed (").unwrap();
    assert!(failed < words.find("Passed (").unwrap());
    assert!(words.contains("source:   AMD-SB-3019"), "{words}");
}

#[test]
fn nothing_in_words_controls_a_terminal() {
    let world = world();
    let minted = mint(&world, |m| m);
    let mut verdict = judge(&world, &minted, &policy(&world, &[]));
    let evil = "\u{1b}[2J\u{202e}gnp.exe\r\nHOLDS\u{7}";
    verdict.checks.fail(
        "receipt.model",
        attestation_verifier::Fault::Policy,
        evil,
        evil,
        evil,
    );
    verdict.context.residual_risks.push(evil.into());
    verdict.conclusion = verdict.checks.conclude(true, true);
    let words = explain(&verdict).words();
    assert!(words.contains("\\u{1b}[2J\\u{202e}gnp.exe"), "{words}");
    assert!(!words.contains(['\u{1b}', '\u{202e}', '\r', '\u{7}']));
    assert!(!words.lines().any(|line| line.starts_with("HOLDS")));
}

#[test]
fn a_verdict_in_a_file_is_explained_as_it_stands() {
    let world = world();
    let minted = mint(&world, |m| m.report(|_, r| r.launch_tcb = [0; 8]));
    let verdict = judge(&world, &minted, &policy(&world, &[]));
    let from_file = Explanation::of_file(verdict.to_json().as_bytes()).unwrap();
    let direct = explain(&verdict);
    assert!(from_file.from_file && !direct.from_file);
    assert_eq!(from_file.exit, direct.exit);
    assert_eq!(from_file.deciding, direct.deciding);
    assert_eq!(from_file.checks.len(), direct.checks.len());
    assert_eq!(from_file.checks[0], direct.checks[0]);
    assert!(from_file.words().contains("nothing was judged again"));

    let json: Value = serde_json::from_str(&verdict.to_json()).unwrap();
    type Change = fn(&mut Value);
    let lies: [(&str, Change); 10] = [
        ("exit is", |v| v["exit"] = 9.into()),
        ("verdict is", |v| v["verdict"] = "holds".into()),
        ("verdict is", |v| v["exit"] = 0.into()),
        ("expected a refusal, since snp.tcb.launch failed", |v| {
            v["exit"] = 0.into();
            v["verdict"] = "holds".into();
        }),
        ("deciding is", |v| v["deciding"] = Value::Null),
        ("deciding is", |v| v["deciding"] = "snp.vmpl".into()),
        ("deciding is", |v| v["deciding"] = "no.such".into()),
        ("class is", |v| v["class"] = "fine".into()),
        ("result is", |v| v["checks"][0]["result"] = "passed".into()),
        ("v is", |v| v["v"] = "touchstone/verdict/2".into()),
    ];
    for (says, change) in lies {
        let mut lie = json.clone();
        change(&mut lie);
        let error = Explanation::of_file(lie.to_string().as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
    for bytes in [
        &b"{}"[..],
        b"",
        b"[]",
        b"{\"v\":\"touchstone/verdict/1\",\"v\":1}",
        &vec![b' '; 5 << 20],
    ] {
        assert!(Explanation::of_file(bytes).is_err());
    }
}
