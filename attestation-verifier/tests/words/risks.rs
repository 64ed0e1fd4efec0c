//! What a host can do with ACPI tables (BadAML) stands in every form of every verdict that accepts evidence. The suites of bundles,
//! connections, evidence and the corpus ask every verdict of theirs the same (`common/warm.rs`).

use attestation_verifier::ear::ear;
use attestation_verifier::explain::explain;
use attestation_verifier::policy::template;
use attestation_verifier::{Policy, Roots, Verdict, Verifier, appraise, check};
use touchstone_formats::{Bundle, Tee};
use touchstone_testkit::mint::{Exchange, World};
use touchstone_testkit::policy::edit;

use crate::regrade::{notice, under};
use crate::support::*;

#[track_caller]
fn accepted_and_named(verdict: &Verdict) {
    assert!(matches!(verdict.exit(), 0 | 6), "{}", verdict.words());
    for (form, text) in [
        ("words", verdict.words()),
        ("JSON", verdict.to_json()),
        ("EAR", ear(verdict).to_string()),
        ("explanation", explain(verdict).words()),
    ] {
        assert!(text.contains("BadAML"), "{form}: {text}");
    }
}

#[test]
fn every_verdict_that_accepts_evidence_names_the_hosts_code() {
    let world = world();
    let minted = world.mint(Exchange::json(1)).finish();
    let (policy, roots) = (policy(&world, &[]), roots(&world));
    let verdict = judge(&world, &minted, &policy);
    accepted_and_named(&verdict);
    // By a verifier that knows it already.
    let verifier = Verifier::new(policy.clone(), roots.clone());
    for _ in 0..3 {
        accepted_and_named(&verifier.check(&minted.file(), &auditor(), at(&minted)));
    }
    // Under a notice that does not apply.
    let other = {
        let mut other = notice(None);
        other["products"] = serde_json::json!(["Turin"]);
        other
    };
    accepted_and_named(&under(&minted, &other, &policy, &roots).after);
    // Each evidence object alone.
    let bundle = Bundle::parse(&minted.file()).unwrap();
    assert!(!bundle.evidence.is_empty());
    for evidence in &bundle.evidence {
        let file = evidence.to_file();
        accepted_and_named(&appraise(&file, &policy, &roots, None, at(&minted)));
    }
    // Where nothing is authentic nothing is said of its platform.
    let strangers = Roots::pinned();
    let refused = check(&minted.file(), &policy, &strangers, &auditor(), at(&minted));
    assert_eq!(refused.exit(), 3);
    assert!(!refused.words().contains("BadAML"));
}

#[test]
fn so_of_tdx() {
    let world = World::tdx(1);
    let minted = world.mint(Exchange::json(1)).finish();
    let any = "{ waive = \"any\" }";
    let keys = ["tdx.mrtd", "tdx.rtmr0", "tdx.rtmr1", "tdx.rtmr2"];
    let more = ["tdx.rtmr3", "tdx.rtmr3.events", "models", "nonce"];
    let changes: Vec<(&str, &str)> = keys.iter().chain(&more).map(|key| (*key, any)).collect();
    let policy = Policy::parse(&edit(&template(Tee::Tdx), &changes)).unwrap();
    let roots = Roots::pinned()
        .with_simulated_pem(world.root_pem().as_bytes())
        .unwrap();
    let verdict = check(&minted.file(), &policy, &roots, &auditor(), at(&minted));
    accepted_and_named(&verdict);
    assert!(verdict.words().contains("RTMR0"));
    let bundle = Bundle::parse(&minted.file()).unwrap();
    for evidence in &bundle.evidence {
        let file = evidence.to_file();
        accepted_and_named(&appraise(&file, &policy, &roots, None, at(&minted)));
    }
}
