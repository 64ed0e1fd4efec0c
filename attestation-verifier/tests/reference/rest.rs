//! Evidence by itself, kept bundles under notices, and what other relying parties read.

use attestation_verifier::ear::ear;
use attestation_verifier::explain::explain;
use attestation_verifier::verdict::Outcome;
use attestation_verifier::{Verdict, judge};
use serde_json::json;
use touchstone_formats::{Digest, Purpose};
use touchstone_testkit::machine::{Machine, TdxMachine};

use crate::support::{Listed, Scene};

fn appraised<M: Listed>(scene: &Scene<M>) -> Verdict {
    let evidence = scene.world.evidence(Purpose::Boot, None, Digest::ZERO);
    scene
        .verifier()
        .appraise(&evidence.to_file(), None, scene.at)
}

fn evidence_alone<M: Listed>() {
    let scene = Scene::<M>::new();
    let verdict = appraised(&scene);
    // A simulated platform.
    assert_eq!(verdict.exit(), 6, "{}", verdict.words());
    assert_eq!(verdict.context.release["release"], "1.4.2");
    for (deciding, change) in [
        (
            "manifest.present",
            (|s| s.given = false) as fn(&mut Scene<M>),
        ),
        ("manifest.threshold", |s| s.signed_by = vec![0]),
        ("manifest.os_binding", |s| {
            s.platform()["os_binding"] = json!("none")
        }),
        (M::KEYS[0], |s| {
            s.platform()["measurements"] = json!([M::other(0x42)])
        }),
    ] {
        let verdict = appraised(&scene.clone().with(change));
        assert_eq!(verdict.deciding(), Some(deciding), "{}", verdict.words());
    }
    // What is not authentic has the checks of a manifest too, none of them evaluated.
    let mut evidence = scene.world.evidence(Purpose::Boot, None, Digest::ZERO);
    evidence.quote[100] ^= 1;
    let verdict = scene
        .verifier()
        .appraise(&evidence.to_file(), None, scene.at);
    assert_eq!(verdict.exit(), 3);
    let check = verdict.checks.find("manifest.platform").unwrap();
    assert_eq!(check.result, Outcome::NotEvaluated);
    assert!(check.refuses());
}

#[test]
fn evidence_by_itself_obeys_the_manifest() {
    evidence_alone::<Machine>();
    evidence_alone::<TdxMachine>();
}

/// One object judged without a verdict: it is not accepted by a policy whose manifest is not there.
#[test]
fn one_object_is_not_accepted_without_a_manifest() {
    let scene = Scene::<Machine>::new();
    let evidence = scene.world.evidence(Purpose::Boot, None, Digest::ZERO);
    let judged = judge(
        &evidence,
        &scene.policy(),
        &scene.roots(),
        None,
        scene.at,
        Some("boot"),
    );
    assert!(!judged.checks.hold());
    let judged = scene
        .verifier()
        .judge(&evidence, None, scene.at, Some("boot"));
    assert!(judged.checks.hold());
    assert_eq!(judged.release["release"], "1.4.2");
}

#[test]
fn other_relying_parties_read_the_release() {
    let scene = Scene::<Machine>::new();
    let claims = |verdict: &Verdict| ear(verdict)["submods"]["sev-snp"].clone();
    let holds = claims(&scene.holds());
    assert_eq!(holds["touchstone_verdict"]["release"]["release"], "1.4.2");
    // The template waives what says which image it is.
    assert_eq!(holds["ear_trustworthiness_vector"]["executables"], -33);
    for (change, claim, value) in [
        (
            (|s| s.platform()["os_binding"] = json!("none")) as fn(&mut Scene<Machine>),
            "executables",
            96,
        ),
        (
            |s| s.platform()["quote_source"] = json!("shared-agent"),
            "executables",
            96,
        ),
        (
            |s| s.platform()["minimum_tcb"]["Genoa"]["snp"] = json!(255),
            "hardware",
            96,
        ),
        // Not the platform's fault: nothing is said of its software.
        (|s| s.given = false, "executables", 0),
    ] {
        let verdict = scene.clone().with(change).judge();
        assert_eq!(
            claims(&verdict)["ear_trustworthiness_vector"][claim],
            value,
            "{}",
            verdict.words()
        );
    }
}

#[test]
fn each_check_is_explained() {
    let verdict = Scene::<Machine>::new().with(|s| s.given = false).judge();
    let explained = explain(&verdict);
    let own = explained
        .checks
        .iter()
        .filter(|told| told.id.starts_with("manifest."));
    assert!(own.clone().count() > 10);
    for told in own {
        assert!(
            !told.summary.is_empty() && !told.why.is_empty(),
            "{}",
            told.id
        );
    }
    let first = &explained.checks[0];
    assert_eq!(first.id, "manifest.present");
    assert!(first.advice.as_ref().unwrap().contains("--manifest FILE"));
}
