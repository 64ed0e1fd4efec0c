//! `explain`, and the forms in which verdicts are printed.

mod support;

use serde_json::Value;
use support::{Kept, Run, touchstone, touchstone_in};
use touchstone_testkit::mint::{Exchange, World};

fn kept() -> Kept {
    let world = World::new(1);
    let minted = world.mint(Exchange::json(1)).finish();
    Kept::new(world, &minted)
}

/// Runs a command about `answer` with policy, root and time.
fn run(kept: &Kept, command: &str, target: &str, more: &[&str]) -> Run {
    let mut args = vec![command, target, "--policy", "policy.toml"];
    args.extend(["--trust-simulated-root", "root.pem", "--at", &kept.at]);
    args.extend(more);
    touchstone_in(kept.folder.path(), &args)
}

/// Every id that a command can refuse under is explained, and one that is given as a file is understood.
#[test]
fn ids_of_the_commands_are_explained() {
    for (id, exit) in [
        ("collateral.fetch", "5"),
        ("collateral.format", "2"),
        ("collateral.authentic", "3"),
        ("collateral.validity", "5"),
        ("show.format", "2"),
        ("expect.format", "2"),
        ("verdict.format", "2"),
        ("usage", "1"),
    ] {
        let run = touchstone(&["explain", "--check", id, "--json"]);
        assert_eq!(run.code, 0, "{id}: {}", run.stderr);
        let about: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(about["exit"], exit, "{id}");
    }
    let run = touchstone(&["explain", "snp.vmpl"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("--check snp.vmpl"), "{}", run.stderr);
    let run = touchstone(&["explain", "nowhere.json"]);
    assert!(
        run.code == 1 && !run.stderr.contains("--check"),
        "{}",
        run.stderr
    );
}

#[test]
fn explain_has_the_exit_code_of_check() {
    let kept = kept();
    for (more, code) in [
        (&["--expect-simulated"][..], 0),
        (&[], 6),
        (&["--nonce", "00"], 4),
        (&["--at", "2027-09-21T14:13:20Z"], 1),
    ] {
        assert_eq!(run(&kept, "check", "answer", more).code, code, "{more:?}");
        let explained = run(&kept, "explain", "answer", more);
        assert_eq!(
            explained.code, code,
            "{}{}",
            explained.stdout, explained.stderr
        );
    }
    let holds = run(&kept, "explain", "answer", &["--expect-simulated"]).stdout;
    assert!(
        holds.starts_with("HOLDS (SIMULATED platform), exit 0\n"),
        "{holds}"
    );
    assert!(holds.contains("snp.policy.debug [boot]: passed"), "{holds}");
    assert!(
        holds.contains("source:   AMD 56860, table Guest Policy"),
        "{holds}"
    );
    let refused = run(&kept, "explain", "answer", &["--nonce", "00"]).stdout;
    let first = refused.find("receipt.nonce: FAILED").expect("the failure");
    assert!(
        first < refused.find(": passed").unwrap(),
        "what failed comes first"
    );
    assert!(
        refused.contains("do:       The receipt is not for your question."),
        "{refused}"
    );
    assert!(refused.contains("What no check shows\n  - "), "{refused}");
    let body = kept.path("answer/response.bin");
    let mut lie = std::fs::read(&body).unwrap();
    lie[20] ^= 1;
    std::fs::write(&body, lie).unwrap();
    let lied = run(&kept, "explain", "answer", &[]);
    assert_eq!(lied.code, 3);
    assert!(lied.stdout.contains("Class tamper"), "{}", lied.stdout);
}

#[test]
fn explanations_in_json() {
    let kept = kept();
    let run = run(&kept, "explain", "answer", &["--json", "--nonce", "00"]);
    assert_eq!(run.stdout.lines().count(), 1);
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["v"], "touchstone/explanation/1");
    assert_eq!(
        (json["exit"].as_i64(), json["class"].as_str()),
        (Some(4), Some("tamper"))
    );
    assert_eq!(json["checks"][0]["id"], "receipt.nonce");
    for member in ["summary", "why", "source", "advice", "reason"] {
        assert!(
            !json["checks"][0][member].as_str().unwrap().is_empty(),
            "{member}"
        );
    }
    assert_eq!(json["from_file"], false);
}

#[test]
fn evidence_and_verdicts_are_explained_too() {
    let kept = kept();
    let bundle: Value =
        serde_json::from_slice(&std::fs::read(kept.path("answer/bundle.json")).unwrap()).unwrap();
    let evidence = touchstone_formats::jcs::to_file(&bundle["evidence"][0]).unwrap();
    std::fs::write(kept.path("evidence.json"), evidence).unwrap();
    let appraised = run(&kept, "appraise", "evidence.json", &["--json"]);
    let explained = run(&kept, "explain", "evidence.json", &[]);
    assert_eq!(
        (appraised.code, explained.code),
        (6, 6),
        "{}",
        explained.stderr
    );
    let other = "00".repeat(64);
    let refused = run(
        &kept,
        "explain",
        "evidence.json",
        &["--report-data", &other],
    );
    assert_eq!(refused.code, 3);
    assert!(
        refused.stdout.contains("evidence.report_data: FAILED"),
        "{}",
        refused.stdout
    );
    // What is about bundles has no meaning here, and is not passed over.
    let wrong = run(&kept, "explain", "evidence.json", &["--receipt-only"]);
    assert_eq!(wrong.code, 1, "{}", wrong.stdout);
    let wrong = run(&kept, "explain", "answer", &["--report-data", &other]);
    assert_eq!(wrong.code, 1, "{}", wrong.stdout);

    let verdict = kept.check(&["--nonce", "00"]);
    assert_eq!(verdict.code, 4);
    std::fs::write(kept.path("verdict.json"), &verdict.stdout).unwrap();
    let told = touchstone_in(kept.folder.path(), &["explain", "verdict.json"]);
    assert_eq!(told.code, 4, "{}", told.stderr);
    assert!(
        told.stdout.contains("nothing was judged again"),
        "{}",
        told.stdout
    );
    assert!(told.stdout.contains("receipt.nonce: FAILED"));
    let lie = verdict.stdout.replace("\"exit\":4", "\"exit\":0");
    assert_ne!(lie, verdict.stdout);
    std::fs::write(kept.path("verdict.json"), lie).unwrap();
    touchstone_in(kept.folder.path(), &["explain", "verdict.json", "--json"])
        .refused(2, "verdict.format");
    let none = touchstone_in(kept.folder.path(), &["explain", "answer"]);
    assert!(
        none.code == 1 && none.stderr.contains("--policy"),
        "{}",
        none.stderr
    );
}

#[test]
fn one_check_and_its_neighbours() {
    let run = touchstone(&["explain", "--check", "snp.policy.debug"]);
    assert_eq!(run.code, 0);
    for part in [
        "A guest that may be debugged",
        "true or false",
        "{ expect = false }",
        "AMD 56860",
    ] {
        assert!(run.stdout.contains(part), "{part}: {}", run.stdout);
    }
    let fixed = touchstone(&["explain", "--check", "receipt.signature"]).stdout;
    assert!(fixed.contains("nothing waives it"), "{fixed}");
    let json: Value =
        serde_json::from_str(&touchstone(&["explain", "--json", "--check", "snp.vmpl"]).stdout)
            .unwrap();
    assert_eq!(json["id"], "snp.vmpl");
    let misspelt = touchstone(&["explain", "--check", "snp.polcy.debug"]);
    assert_eq!(misspelt.code, 1);
    assert!(
        misspelt.stderr.contains("did you mean snp.policy.debug"),
        "{}",
        misspelt.stderr
    );
    let evil = touchstone(&["explain", "--check", "\u{1b}[2J"]);
    assert!(
        evil.code == 1 && !evil.stderr.contains('\u{1b}'),
        "{}",
        evil.stderr
    );
    assert_eq!(touchstone(&["explain"]).code, 1);
}

#[test]
fn verdicts_come_in_three_forms() {
    let kept = kept();
    let expected = ["--expect-simulated"];
    let text = run(
        &kept,
        "check",
        "answer",
        &[&expected[..], &["--format", "text"]].concat(),
    );
    assert!(text.stdout.starts_with("HOLDS"), "{}", text.stdout);
    let json = run(
        &kept,
        "check",
        "answer",
        &[&expected[..], &["--format", "json"]].concat(),
    );
    assert_eq!(
        json.verdict(),
        run(
            &kept,
            "check",
            "answer",
            &[&expected[..], &["--json"]].concat()
        )
        .verdict()
    );
    let ear = run(
        &kept,
        "check",
        "answer",
        &[&expected[..], &["--format", "ear"]].concat(),
    );
    assert_eq!(ear.code, 0);
    assert!(ear.stderr.starts_with("HOLDS"), "words on stderr");
    let claims: Value = serde_json::from_str(&ear.stdout).unwrap();
    assert_eq!(ear.stdout.lines().count(), 1);
    assert_eq!(claims["eat_profile"], "tag:ietf.org,2026:rats/ear#03");
    assert_eq!(claims["submods"]["sev-snp"]["ear_status"], "warning");
    assert_eq!(
        claims["submods"]["sev-snp"]["touchstone_verdict"]["exit"],
        0
    );
    let refused = run(&kept, "check", "answer", &["--format=ear", "--nonce", "00"]);
    assert_eq!(refused.code, 4);
    let claims: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(claims["ear_status"], "contraindicated");
    // Usage errors too are told in the form that was asked for.
    let usage = run(&kept, "check", "nowhere", &["--format", "ear"]);
    assert_eq!(usage.code, 1);
    let claims: Value = serde_json::from_str(&usage.stdout).unwrap();
    assert_eq!(claims["ear_status"], "none");
    let both = run(&kept, "check", "answer", &["--format", "ear", "--json"]);
    assert_eq!(both.code, 1);
    run(&kept, "check", "answer", &["--format", "xml", "--json"]).refused(1, "usage");
}
