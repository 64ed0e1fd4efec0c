//! Appraisal: what a genuine piece of evidence says, against a policy.

mod platform;
pub mod snp;

use serde_json::Value;
use subtle::ConstantTimeEq;
use touchstone_formats::evidence::{Evidence, Tee};
use touchstone_formats::text::hex_encode;

use crate::authenticate::{Authentic, authenticate};
use crate::parse::parse;
use crate::policy::fixed_checks;
use crate::verdict::{Checks, Context, Fault, Verdict};
use crate::{At, Policy, Roots};

/// What judging one evidence object gave.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// All checks about it. It is accepted if, and only if, these [`Checks::hold`].
    pub checks: Checks,
    /// The chain ends at a root that the caller named.
    pub simulated: bool,
    /// What the platform says of itself: product, chip id, TCB, … Null unless it is authentic.
    pub platform: Value,
    /// Launch measurement, lower-case hex; none unless it is authentic.
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
    let mut judged = Judged {
        checks: about.map_or_else(Checks::new, Checks::about),
        ..Judged::default()
    };
    if evidence.tee == Tee::Tdx {
        let reason = "this version cannot judge TDX evidence";
        judged
            .checks
            .not_evaluated("tdx.supported", Fault::Policy, Value::Null, reason);
        return judged;
    }
    let checks = &mut judged.checks;
    let Some(parsed) = parse(evidence, checks) else {
        not_reached(policy, "the evidence is malformed", checks);
        return judged;
    };
    let found = parsed.report().report_data();
    let authentic = authenticate(parsed, roots, at.time, checks);
    bound(&found, report_data, about.is_some(), checks);
    let Some(authentic) = authentic else {
        not_reached(policy, "the evidence was not authenticated", checks);
        return judged;
    };
    let (place, own) = best(&authentic, policy, at, about);
    checks.extend(own);
    judged.simulated = authentic.root().simulated;
    judged.platform = platform::describe(&authentic);
    if let (Value::Object(platform), true) = (&mut judged.platform, policy.platforms.len() > 1) {
        // Which [[platform]] of the policy the checks are about, from 1.
        platform.insert("policy_platform".into(), place.into());
    }
    judged.measurement = Some(hex_encode(&authentic.report().measurement()));
    judged.residual_risks = platform::residual_risks(&authentic);
    judged
}

/// Appraises against every platform of the policy: the first that is satisfied whole, else the one with the
/// fewest checks that refuse. Returns its place, from 1, and its checks.
fn best(
    authentic: &Authentic,
    policy: &Policy,
    at: At,
    about: Option<&'static str>,
) -> (usize, Checks) {
    let age = &policy.answer.collateral_age_seconds;
    let all = policy
        .platforms
        .iter()
        .enumerate()
        .filter(|(_, p)| p.tee == Tee::SevSnp);
    let appraised = all.map(|(i, p)| (i + 1, snp::appraise(authentic, p, age, at, about)));
    let refusing = |checks: &Checks| checks.list().iter().filter(|c| c.refuses()).count();
    appraised
        .min_by_key(|(_, checks)| refusing(checks))
        .unwrap_or_else(|| {
            let mut checks = about.map_or_else(Checks::new, Checks::about);
            let reason = "the policy has no platform of this kind";
            checks.not_evaluated("policy.platform", Fault::Policy, "sev-snp", reason);
            (0, checks)
        })
}

/// REPORT_DATA is what it must be, all 64 bytes, compared in constant time.
fn bound(found: &[u8; 64], expected: Option<&[u8; 64]>, bundle: bool, checks: &mut Checks) {
    let id = "evidence.report_data";
    let Some(expected) = expected else {
        if !bundle {
            let reason = "you gave no report data: this evidence is bound to nothing of yours";
            checks.unconsidered(id, reason);
        }
        return;
    };
    let (want, have) = (hex_encode(expected), hex_encode(found));
    if bool::from(expected.ct_eq(found)) {
        checks.pass(id, want, have);
    } else {
        let reason = "REPORT_DATA is another: a quote for something else, or replayed";
        checks.fail(id, Fault::NotAuthentic, want, have, reason);
    }
}

/// Every check is named in the verdict, also when nothing got that far. Only what came before decides.
fn not_reached(policy: &Policy, why: &str, checks: &mut Checks) {
    for fixed in fixed_checks().iter().filter(|fixed| fixed.required_of_snp) {
        if checks.find(fixed.id).is_none() {
            checks.not_evaluated(fixed.id, Fault::Policy, Value::Null, why);
        }
    }
    let Some(platform) = policy.platforms.iter().find(|p| p.tee == Tee::SevSnp) else {
        return;
    };
    for (spec, rule) in platform.rules() {
        let expected = rule.expected().map_or(Value::Null, |e| e.to_value());
        checks.not_evaluated(spec.id, Fault::Policy, expected, why);
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
    let judged = match Evidence::parse(evidence_file) {
        Ok(evidence) => {
            let mut judged = judge(&evidence, policy, roots, report_data, at, None);
            let mut checks = Checks::new();
            checks.pass("evidence.format", Value::Null, Value::Null);
            checks.extend(std::mem::take(&mut judged.checks));
            judged.checks = checks;
            judged
        }
        Err(error) => {
            let mut judged = Judged::default();
            let reason = error.to_string();
            let id = "evidence.format";
            judged
                .checks
                .fail(id, Fault::Malformed, Value::Null, Value::Null, reason);
            judged
        }
    };
    let mut residual_risks = judged.residual_risks;
    if report_data.is_none() {
        residual_risks.push(
            "REPORT_DATA was compared with nothing: the evidence may be a replay, made for somebody else."
                .to_owned(),
        );
    }
    if at.asserted {
        residual_risks
            .push("Time asserted by you; a key broken since could have made this.".to_owned());
    }
    let covers = if report_data.is_some() {
        vec!["report_data".to_owned()]
    } else {
        Vec::new()
    };
    let context = Context {
        simulated: judged.simulated,
        platform: judged.platform,
        measurement: judged.measurement,
        covers,
        residual_risks,
        ..Context::default()
    };
    Verdict::new(judged.checks, context, at)
}
