//! Every judgement a test makes, made again by a verifier that has judged everything this process judged before under the same
//! policy and roots: honest twins and lies in whatever order the tests run. What it says has to be the same, byte for byte.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use attestation_verifier::{At, Policy, Roots, Verdict, Verifier, appraise, judge};
use touchstone_formats::Evidence;

/// Verifiers, by everything that makes a difference between two.
static ALL: Mutex<Option<HashMap<String, Arc<Verifier>>>> = Mutex::new(None);

/// The verifier of this policy and these roots.
pub fn verifier(policy: &Policy, roots: &Roots) -> Arc<Verifier> {
    let ders: Vec<&[u8]> = roots
        .anchors()
        .iter()
        .map(|anchor| anchor.certificate.der())
        .collect();
    let key = format!("{policy:?} {ders:?}");
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let all = all.get_or_insert_default();
    if all.len() > 200 {
        all.clear();
    }
    let make = || Arc::new(Verifier::new(policy.clone(), roots.clone()));
    Arc::clone(all.entry(key).or_insert_with(make))
}

/// The same verdict, whatever the verifier knows: three times, because what it accepts it keeps the second time.
#[track_caller]
pub fn alike(cold: &Verdict, policy: &Policy, roots: &Roots, judge: impl Fn(&Verifier) -> Verdict) {
    names_the_hosts_code(cold);
    let verifier = verifier(policy, roots);
    for time in ["first", "second", "third"] {
        let warm = judge(&verifier);
        assert_eq!(warm.to_json(), cold.to_json(), "the {time} time");
        assert_eq!(warm, *cold, "the {time} time");
    }
}

/// No verdict accepts evidence without saying that the host's ACPI tables hold code that the guest runs (SECURITY.md).
#[track_caller]
fn names_the_hosts_code(verdict: &Verdict) {
    let accepted = matches!(verdict.exit(), 0 | 6) && !verdict.context.platform.is_null();
    let risks = &verdict.context.residual_risks;
    let named = risks.iter().any(|risk| risk.contains("BadAML"));
    assert!(named || !accepted, "{}", verdict.words());
}

/// The same verdict on an evidence file from a verifier and from the function; its exit code.
#[allow(dead_code, reason = "not every test binary judges evidence alone")]
#[track_caller]
pub fn appraised_alike(verifier: &Verifier, evidence: &Evidence, at: At) -> u8 {
    let file = evidence.to_file();
    let cold = appraise(&file, verifier.policy(), verifier.roots(), None, at);
    let warm = verifier.appraise(&file, None, at);
    assert_eq!(warm.to_json(), cold.to_json());
    warm.exit()
}

/// The same judgement of evidence about a receipt from a verifier and from the function; whether it is accepted.
#[allow(dead_code, reason = "not every test binary judges evidence alone")]
#[track_caller]
pub fn judged_alike(
    verifier: &Verifier,
    evidence: &Evidence,
    report_data: Option<&[u8; 64]>,
    at: At,
) -> bool {
    let (policy, roots) = (verifier.policy(), verifier.roots());
    let about = Some("receipt");
    let cold = judge(evidence, policy, roots, report_data, at, about);
    let warm = verifier.judge(evidence, report_data, at, about);
    assert_eq!(warm.checks, cold.checks);
    assert_eq!(warm.platform, cold.platform);
    assert_eq!(warm.simulated, cold.simulated);
    assert_eq!(warm.measurement, cold.measurement);
    assert_eq!(warm.release, cold.release);
    assert_eq!(warm.residual_risks, cold.residual_risks);
    warm.checks.hold()
}
