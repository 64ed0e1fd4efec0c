//! `policy init`, `lint` and `diff`: profiles that judge as they say, and exit codes that scripts rely on.

mod support;

use std::path::Path;

use serde_json::Value;
use support::{Kept, Run, touchstone, touchstone_in};
use touchstone_formats::Digest;
use touchstone_formats::report_data::bind_session;
use touchstone_testkit::mint::{Exchange, World};
use touchstone_testkit::policy::edit;

const PROFILES: [&str; 4] = ["explore", "serve", "audit", "trade"];

fn profile(name: &str) -> String {
    let run = touchstone(&["policy", "init", "--profile", name]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.stdout
}

/// A folder with these policies in it.
fn folder(policies: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in policies {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn json(run: &Run) -> Value {
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    serde_json::from_str(&run.stdout).unwrap()
}

fn lint(folder: &Path, file: &str) -> (Run, Value) {
    let run = touchstone_in(folder, &["policy", "lint", file, "--json"]);
    let value = json(&run);
    assert_eq!(value["v"], "touchstone/policy-lint/1");
    assert_eq!(value["exit"], run.code);
    (run, value)
}

#[test]
fn without_a_profile_it_is_the_strict_template() {
    let text = attestation_verifier::policy::template(touchstone_formats::Tee::SevSnp);
    assert_eq!(
        touchstone(&["policy", "init", "--tee", "sev-snp"]).stdout,
        text
    );
    assert_eq!(touchstone(&["policy", "init"]).stdout, text);
}

#[test]
fn a_written_policy_says_what_is_to_be_filled_in_and_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    for (name, says) in [
        ("explore", "ANY SOFTWARE AND ANY MODEL"),
        ("serve", "answer.models, platform[1].snp.measurement\n"),
        ("audit", "answer.models, platform[1].snp.measurement\n"),
        (
            "trade",
            "answer.models, answer.configs, platform[1].snp.chip_id, platform[1].snp.measurement\n",
        ),
    ] {
        let args = ["policy", "init", "--profile", name, "-o", name];
        let run = touchstone_in(folder.path(), &args);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stderr.contains(says), "{}", run.stderr);
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(
            text.contains(&format!("\nprofile = \"{name}/1\" ")),
            "{name}"
        );
        assert_eq!(
            touchstone_in(folder.path(), &args).code,
            1,
            "not overwritten"
        );
    }
    let unknown = touchstone(&["policy", "init", "--profile", "lax"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("explore"), "{}", unknown.stderr);
}

/// An answer of this very moment, with the record of its connection, kept as `ask` keeps it.
fn answered() -> Kept {
    use std::time::{SystemTime, UNIX_EPOCH};
    use touchstone_testkit::{amd::Product, machine::Machine};

    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut world = World::on(Machine::new(Product::Genoa, 5, now), 1, now);
    let spki = Digest::of(b"the TLS key");
    world.keyset.tls_spki_sha256 = Some(spki);
    let minted = world
        .mint(Exchange::json(1).requiring("logged quoted signed"))
        .finish();
    let record = attestation_verifier::exchange::SessionRecord {
        nonce: [7; 32],
        exporter: Some([8; 32]),
        tls_spki_sha256: spki,
        opened_at: world.at - 6,
        keyset: world.keyset.clone(),
        evidence: Some(world.evidence(
            touchstone_formats::Purpose::Session,
            Some(vec![7; 32]),
            bind_session(spki, &[8; 32]),
        )),
    };
    let kept = Kept::new(world, &minted);
    std::fs::write(kept.path("answer/session.json"), record.to_file().unwrap()).unwrap();
    kept
}

fn check(kept: &Kept, policy: &str, more: &[&str]) -> Run {
    std::fs::write(kept.path("policy.toml"), policy).unwrap();
    let mut args = vec!["check", "answer", "--json", "--policy", "policy.toml"];
    args.extend(["--trust-simulated-root", "root.pem"]);
    args.extend(more);
    touchstone_in(kept.folder.path(), &args)
}

fn filled(name: &str, world: &World) -> String {
    let expect = |hex: String| format!("{{ expect = {hex:?} }}");
    let report = &world.machine.report;
    let measurement = expect(hex::encode(report.measurement));
    let model = expect(world.models[0].model_digest.to_string());
    let config = expect(world.models[0].config_digest.to_string());
    let chip = expect(hex::encode(report.chip_id));
    let mut changes = Vec::new();
    if name != "explore" {
        changes.push(("snp.measurement", measurement.as_str()));
        changes.push(("models", &model));
    }
    if name == "trade" {
        changes.push(("configs", &config));
        changes.push(("snp.chip_id", &chip));
    }
    edit(&profile(name), &changes)
}

#[test]
fn each_profile_holds_once_filled_in_and_refuses_before() {
    let kept = answered();
    for name in PROFILES {
        let run = check(&kept, &filled(name, &kept.world), &[]);
        let verdict = run.verdict();
        assert_eq!(run.code, 6, "{name}: {}", run.stderr);
        let waived = |id: &str| {
            let mut waivers = verdict["waivers"].as_array().unwrap().iter();
            waivers
                .find(|w| w["id"] == id)
                .map(|w| w["reason"].as_str().unwrap().to_owned())
        };
        // Only explore waives what it is about, and its verdicts say so.
        let any = waived("snp.measurement");
        assert_eq!(any.is_some(), name == "explore");
        assert!(any.is_none_or(|reason| reason.contains("ANY SOFTWARE")));
        if name != "explore" {
            for key in ["models", "snp.measurement"] {
                let open = edit(&filled(name, &kept.world), &[(key, "{ expect = [] }")]);
                let id = if key == "models" {
                    "receipt.model"
                } else {
                    key
                };
                check(&kept, &open, &[]).refused(4, id);
            }
        }
    }
}

/// The same answer, and one thing otherwise that the profile is about.
#[test]
fn each_profile_refuses_what_it_is_about() {
    let kept = answered();
    let refused = |name: &str, more: &[&str], id: &str| {
        check(&kept, &filled(name, &kept.world), more).refused(4, id);
    };
    // Waivers of explore end: a month and a day later nothing holds under it.
    let later = attestation_verifier::dates::rfc3339(kept.world.at + 31 * 86_400 + 86_400);
    let run = check(&kept, &filled("explore", &kept.world), &["--at", &later]);
    let verdict = run.verdict();
    let ended = verdict["checks"].as_array().unwrap().iter();
    let ended: Vec<&Value> = ended.filter(|c| c["result"] == "fail").collect();
    assert!(
        ended
            .iter()
            .any(|c| c["reason"].as_str().unwrap().contains("waiver ended")),
        "{ended:?}"
    );

    // An answer that is old. (A record of the connection is judged at this machine's clock alone.)
    let later = attestation_verifier::dates::rfc3339(kept.world.at + 7200);
    refused("serve", &["--at", &later], "receipt.fresh");
    refused("trade", &["--at", &later], "receipt.fresh");
    let audited = check(&kept, &filled("audit", &kept.world), &["--at", &later]);
    assert_eq!(audited.code, 6, "{}", audited.stderr);

    // Another chip; no record of the connection.
    let other = edit(
        &filled("trade", &kept.world),
        &[(
            "snp.chip_id",
            &format!("{{ expect = {:?} }}", "01".repeat(64)),
        )],
    );
    check(&kept, &other, &[]).refused(4, "snp.chip_id");
    std::fs::remove_file(kept.path("answer/session.json")).unwrap();
    refused("serve", &[], "session.binding");
    refused("trade", &[], "session.binding");
    assert_eq!(check(&kept, &filled("audit", &kept.world), &[]).code, 6);
}

#[test]
fn lint_refuses_what_accepts_anything() {
    let strict = touchstone(&["policy", "init"]).stdout;
    let any = "{ waive = \"whatever\" }";
    for (key, value, refused) in [
        ("snp.measurement", any, "platform[1].snp.measurement"),
        ("models", any, "answer.models"),
        ("snp.policy.debug", any, "platform[1].snp.policy.debug"),
        (
            "snp.policy.debug",
            "{ expect = true }",
            "platform[1].snp.policy.debug",
        ),
        ("snp.vmpl", any, "platform[1].snp.vmpl"),
        (
            "snp.vmpl",
            "{ expect = [0, 4294967295] }",
            "platform[1].snp.vmpl",
        ),
        ("snp.tcb.reported", any, "platform[1].snp.tcb.reported"),
        (
            "snp.tcb.reported",
            "{ expect = { Genoa = { bootloader = 0, tee = 0, snp = 0, microcode = 0 } } }",
            "platform[1].snp.tcb.reported",
        ),
    ] {
        let folder = folder(&[("p", &edit(&strict, &[(key, value)])), ("twin", &strict)]);
        let (run, found) = lint(folder.path(), "p");
        assert_eq!(
            (run.code, &found["fit"]),
            (4, &Value::Bool(false)),
            "{key} = {value}"
        );
        let first = &found["findings"][0];
        assert_eq!(
            (&first["level"], &first["key"]),
            (&"refuse".into(), &refused.into()),
            "{key}"
        );
        assert_eq!(found["not_protected"].as_array().unwrap().len(), 3);
        let (run, found) = lint(folder.path(), "twin");
        assert_eq!((run.code, &found["fit"]), (0, &Value::Bool(true)));
        let words = touchstone_in(folder.path(), &["policy", "lint", "p"]);
        assert_eq!(words.code, 4);
        assert!(
            words.stdout.starts_with("ACCEPTS ANYTHING: p "),
            "{}",
            words.stdout
        );
        assert!(
            words.stdout.contains(&format!("REFUSED: {refused}: ")),
            "{}",
            words.stdout
        );
    }
    for name in PROFILES {
        let folder = folder(&[("p", &profile(name))]);
        let (run, found) = lint(folder.path(), "p");
        assert_eq!(run.code, if name == "explore" { 4 } else { 0 }, "{name}");
        let weak = found["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|f| f["level"] == "weak");
        // Without a nonce of his own an auditor cannot tell an old answer, and is told so.
        let expected = matches!(name, "explore" | "audit");
        assert_eq!(weak.count() > 0, expected, "{name}: {found}");
    }
}

#[test]
fn lint_is_of_a_time() {
    let folder = folder(&[("p", &profile("explore"))]);
    let at = |time: &str| touchstone_in(folder.path(), &["policy", "lint", "p", "--at", time]);
    assert_eq!(at("2026-01-01T00:00:00Z").code, 4);
    let run = at("2099-01-01T00:00:00Z");
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(
        run.stdout
            .contains("note: platform[1].snp.measurement: Its waiver ended on")
    );
}

#[test]
fn diff_says_which_policy_is_stricter() {
    let strict = touchstone(&["policy", "init"]).stdout;
    let looser = edit(
        &strict,
        &[
            ("fresh_seconds", "{ waive = \"other words\" }"),
            ("snp.policy.debug", "{ expect = true }"),
        ],
    );
    let mixed = edit(&looser, &[("keyset_span_seconds", "{ expect = 60 }")]);
    let reworded = edit(&strict, &[("fresh_seconds", "{ waive = \"other words\" }")]);
    let folder = folder(&[
        ("strict", &strict),
        ("looser", &looser),
        ("mixed", &mixed),
        ("reworded", &reworded),
        ("broken", "v = 1"),
    ]);
    let diff = |more: &[&str]| touchstone_in(folder.path(), &[&["policy", "diff"], more].concat());
    for (a, b, relation, code, allowed) in [
        ("strict", "strict", "same", 0, 0),
        ("strict", "reworded", "same", 0, 0),
        ("strict", "looser", "looser", 4, 4),
        ("looser", "strict", "stricter", 4, 0),
        ("strict", "mixed", "incomparable", 4, 4),
    ] {
        let run = diff(&[a, b, "--json"]);
        let found = json(&run);
        assert_eq!(
            (run.code, &found["relation"]),
            (code, &relation.into()),
            "{a} {b}"
        );
        assert_eq!(
            (&found["v"], &found["exit"]),
            (&"touchstone/policy-diff/1".into(), &code.into())
        );
        assert_eq!(diff(&[a, b, "--allow-stricter"]).code, allowed, "{a} {b}");
        let words = diff(&[a, b]).stdout;
        assert!(
            words.starts_with(&format!("{}: ", relation.to_uppercase())),
            "{words}"
        );
        assert_eq!(
            words.contains("looser: snp.policy.debug"),
            b != "strict" && b != "reworded",
            "{words}"
        );
        // Reasons alone change nothing, and are shown.
        let reworded = words.contains("same in effect: answer.fresh_seconds");
        assert_eq!(reworded, a != b, "{words}");
    }
    let run = diff(&["strict", "broken", "--json"]);
    assert_eq!(run.code, 1);
    assert_eq!(run.verdict()["deciding"], "policy.file");
    assert!(run.stderr.contains("broken"), "{}", run.stderr);
}

/// A policy may be somebody else's, and its reasons are printed.
#[test]
fn no_control_character_of_a_policy_reaches_the_terminal() {
    let strict = touchstone(&["policy", "init"]).stdout;
    let hostile = edit(
        &strict,
        &[(
            "fresh_seconds",
            r#"{ waive = "fine\u001b[2J\nFIT TO JUDGE BY" }"#,
        )],
    );
    let folder = folder(&[("a", &strict), ("b", &hostile)]);
    for args in [&["policy", "lint", "b"][..], &["policy", "diff", "a", "b"]] {
        let run = touchstone_in(folder.path(), args);
        assert!(
            run.stdout.contains("fine\\u{1b}[2J\\nFIT"),
            "{}",
            run.stdout
        );
        assert!(!run.stdout.contains('\x1b'));
    }
}
