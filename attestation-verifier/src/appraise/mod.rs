//! Appraisal: what a genuine piece of evidence says, against a policy.

use serde_json::Value;
use touchstone_formats::evidence::Evidence;

use crate::verdict::{Checks, Context, Fault, Verdict};
use crate::{At, Policy, Roots};

/// What judging one evidence object gave.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// All checks about it. It is accepted if, and only if, these [`Checks::hold`].
    pub checks: Checks,
    /// The chain ends at a root that the caller named.
    pub simulated: bool,
    /// What the platform says of itself: product, chip id, TCB, … (null if it cannot be told).
    pub platform: Value,
    /// Launch measurement, lower-case hex.
    pub measurement: Option<String>,
    /// What no check can show, a sentence each.
    pub residual_risks: Vec<String>,
}

/// Judges one evidence object: parse, authenticate, appraise.
///
/// `report_data`: what the 64 bytes must be; `None` only where the caller binds it to nothing
/// (`touchstone appraise` without `--report-data`), and the checks then say so. `about` labels
/// the checks with the evidence object they are about (`boot`, `checkpoint`, `receipt`).
pub fn judge(
    evidence: &Evidence,
    policy: &Policy,
    roots: &Roots,
    report_data: Option<&[u8; 64]>,
    at: At,
    about: Option<&'static str>,
) -> Judged {
    let _ = (evidence, policy, roots, report_data, at);
    let mut checks = about.map_or_else(Checks::new, Checks::about);
    checks.not_evaluated("snp.format", Fault::Malformed, Value::Null, "not built yet");
    Judged {
        checks,
        ..Judged::default()
    }
}

/// Judges an evidence file (`touchstone appraise`).
pub fn appraise(
    evidence_file: &[u8],
    policy: &Policy,
    roots: &Roots,
    report_data: Option<&[u8; 64]>,
    at: At,
) -> Verdict {
    let _ = (evidence_file, policy, roots, report_data);
    let mut checks = Checks::new();
    checks.not_evaluated(
        "evidence.format",
        Fault::Malformed,
        Value::Null,
        "not built yet",
    );
    Verdict::new(checks, Context::default(), at)
}
