//! Appraisal: what a genuine piece of evidence says, against a policy.

mod claimed;
mod platform;
mod rules;
pub mod snp;
pub mod tdx;

pub use claimed::{Claims, claimed};

use std::sync::Arc;

use serde_json::Value;
use subtle::ConstantTimeEq;
use touchstone_formats::evidence::{Collateral, Evidence, Tee};
use touchstone_formats::text::hex_encode;

use crate::authenticate::{Authentic, Root, authenticate_known, intel};
use crate::known::{Judgement, Known};
use crate::parse::{parse_known, tdx as parse_tdx};
use crate::policy::{Platform, Rule, fixed_checks};
use crate::reference::{Measured, Ruling, not_placed, place};
use crate::verdict::{Checks, Context, Fault, Verdict};
use crate::verifier::By;
use crate::{At, Policy, Roots};

/// What judging one evidence object gave.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// All checks about it. It is accepted if, and only if, these [`Checks::hold`].
    pub checks: Checks,
    /// The chain ends at a root that the caller named.
    pub simulated: bool,
    /// What the platform says of itself: product, chip id, TCB, … Null unless it is authentic.
    pub platform: Arc<Value>,
    /// Launch measurement, lower-case hex; none unless it is authentic.
    pub measurement: Option<String>,
    /// The release and platform that this is, by the manifest; null where none says so.
    pub release: Value,
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
    let known = Known::nothing();
    By::new(policy, roots, &known).ruled(&[], at, |by| by.judge(evidence, report_data, at, about))
}

impl By<'_> {
    /// [`judge`], by what is known.
    pub(crate) fn judge(
        self,
        evidence: &Evidence,
        report_data: Option<&[u8; 64]>,
        at: At,
        about: Option<&'static str>,
    ) -> Judged {
        let manifest = self.ruling.and_then(Ruling::identity);
        let by = Judgement {
            report_data,
            at,
            about,
            manifest,
        };
        let sight = match self.known.judged(evidence, &by) {
            Ok(judged) => return judged,
            Err(sight) => sight,
        };
        let mut judged = judge_anew(evidence, self, report_data, at, about);
        self.known.keep_judged(sight, evidence, by, &mut judged);
        judged
    }
}

/// Checks that are made of one evidence object, about: room for them.
const MOST_CHECKS: usize = 72;

fn judge_anew(
    evidence: &Evidence,
    by: By<'_>,
    report_data: Option<&[u8; 64]>,
    at: At,
    about: Option<&'static str>,
) -> Judged {
    let policy = by.policy;
    let mut judged = Judged {
        checks: about
            .map_or_else(Checks::new, Checks::about)
            .with_room(MOST_CHECKS),
        ..Judged::default()
    };
    let checks = &mut judged.checks;
    let bound = |found: &[u8; 64], checks: &mut Checks| {
        bound(found, report_data, about.is_some(), checks);
    };
    let genuine = match evidence.tee {
        Tee::SevSnp => snp_evidence(evidence, by, at, bound, checks),
        Tee::Tdx => tdx_evidence(evidence, by, at, bound, checks),
    };
    let genuine = match genuine {
        Ok(genuine) => genuine,
        Err(why) => {
            not_reached(policy, evidence.tee, why, checks);
            return judged;
        }
    };
    let (place, own, release) = best(genuine.as_ref(), by, evidence.tee, at, about);
    checks.extend(own);
    judged.release = release;
    judged.simulated = genuine.root().simulated;
    let mut platform = genuine.describe();
    if let (Value::Object(platform), true) = (&mut platform, policy.platforms.len() > 1) {
        // Which [[platform]] of the policy the checks are about, from 1.
        platform.insert("policy_platform".into(), place.into());
    }
    judged.platform = Arc::new(platform);
    judged.measurement = Some(hex_encode(&genuine.measurement()));
    judged.residual_risks = genuine.residual_risks();
    judged
}

/// Evidence of either kind that is authentic.
trait Genuine: Measured {
    /// The checks of one platform of a policy. `age` is `answer.collateral_age_seconds`.
    fn appraise(
        &self,
        platform: &Platform,
        age: &Rule<u64>,
        ruling: Option<&Ruling>,
        at: At,
        about: Option<&'static str>,
    ) -> Checks;
    fn root(&self) -> &Root;
    fn measurement(&self) -> [u8; 48];
    /// The `platform` member of a verdict.
    fn describe(&self) -> Value;
    fn residual_risks(&self) -> Vec<String>;
}

/// What is authentic, or why nothing is.
type Reached = Result<Box<dyn Genuine>, &'static str>;

const MALFORMED: &str = "the evidence is malformed";
const NOT_AUTHENTIC: &str = "the evidence was not authenticated";

fn snp_evidence(
    evidence: &Evidence,
    by: By<'_>,
    at: At,
    bound: impl Fn(&[u8; 64], &mut Checks),
    checks: &mut Checks,
) -> Reached {
    let parsed = parse_known(evidence, by.known, checks).ok_or(MALFORMED)?;
    let found = parsed.report().report_data();
    let fresh = parsed.fresh.then(|| Arc::clone(&parsed.parts));
    let authentic = authenticate_known(parsed, by.roots, at.time, by.known, checks);
    bound(&found, checks);
    let authentic = authentic.ok_or(NOT_AUTHENTIC)?;
    if let (Some(parts), Some(Collateral::SevSnp(collateral))) = (fresh, &evidence.collateral) {
        by.known.keep_snp(collateral, parts, evidence.size());
    }
    Ok(Box::new(authentic))
}

fn tdx_evidence(
    evidence: &Evidence,
    by: By<'_>,
    at: At,
    bound: impl Fn(&[u8; 64], &mut Checks),
    checks: &mut Checks,
) -> Reached {
    let mut parsed =
        parse_tdx::parse_known(evidence, by.known, by.roots, checks).ok_or(MALFORMED)?;
    let found = parsed.report().report_data;
    let fresh = parsed.fresh.then(|| Arc::clone(&parsed.parts));
    let fresh_pem = parsed.fresh_pem.take();
    let authentic = intel::authenticate_known(parsed, by.roots, at.time, by.known, checks);
    bound(&found, checks);
    let authentic = authentic.ok_or(NOT_AUTHENTIC)?;
    if let (Some(parts), Some(Collateral::Tdx(collateral))) = (fresh, &evidence.collateral) {
        by.known.keep_tdx(collateral, parts, evidence.size());
    }
    if let Some(pem) = fresh_pem {
        by.known.keep_pck(pem, authentic.pck_chain());
    }
    Ok(Box::new(tdx::Genuine::of(authentic, evidence)))
}

impl Genuine for Authentic {
    fn appraise(
        &self,
        platform: &Platform,
        age: &Rule<u64>,
        ruling: Option<&Ruling>,
        at: At,
        about: Option<&'static str>,
    ) -> Checks {
        snp::appraise_by(self, platform, age, ruling, at, about)
    }

    fn root(&self) -> &Root {
        self.root()
    }

    fn measurement(&self) -> [u8; 48] {
        self.report().measurement()
    }

    fn describe(&self) -> Value {
        platform::describe(&snp::Facts::of(self), Some(self.root()))
    }

    fn residual_risks(&self) -> Vec<String> {
        platform::residual_risks(self)
    }
}

impl Genuine for tdx::Genuine {
    fn appraise(
        &self,
        platform: &Platform,
        age: &Rule<u64>,
        ruling: Option<&Ruling>,
        at: At,
        about: Option<&'static str>,
    ) -> Checks {
        self.appraise(platform, age, ruling, at, about)
    }

    fn root(&self) -> &Root {
        self.authentic.root()
    }

    fn measurement(&self) -> [u8; 48] {
        self.authentic.report().mr_td
    }

    fn describe(&self) -> Value {
        tdx::platform::describe(&self.facts())
    }

    fn residual_risks(&self) -> Vec<String> {
        tdx::platform::residual_risks(self)
    }
}

/// Appraises against every platform of the policy: the first that is satisfied whole, else the one with the
/// fewest checks that refuse. Returns its place, from 1, its checks, and the release that it is by the manifest.
fn best(
    genuine: &dyn Genuine,
    by: By<'_>,
    tee: Tee,
    at: At,
    about: Option<&'static str>,
) -> (usize, Checks, Value) {
    let policy = by.policy;
    let age = &policy.answer.collateral_age_seconds;
    let all = policy
        .platforms
        .iter()
        .enumerate()
        .filter(|(_, p)| p.tee == tee);
    let appraised = all.map(|(i, p)| {
        let checks = genuine.appraise(p, age, by.ruling, at, about);
        let placed = place(by.ruling, genuine, p, checks, at, about);
        (i + 1, placed.checks, placed.release)
    });
    let refusing = |checks: &Checks| checks.iter().filter(|c| c.refuses()).count();
    appraised
        .min_by_key(|(_, checks, _)| refusing(checks))
        .unwrap_or_else(|| {
            let mut checks = about.map_or_else(Checks::new, Checks::about);
            let reason = "the policy has no platform of this kind";
            checks.not_evaluated("policy.platform", Fault::Policy, tee.name(), reason);
            (0, checks, Value::Null)
        })
}

/// The check of [`bound`].
pub(crate) const BOUND: &str = "evidence.report_data";

/// REPORT_DATA is what it must be, all 64 bytes, compared in constant time.
pub(crate) fn bound(
    found: &[u8; 64],
    expected: Option<&[u8; 64]>,
    bundle: bool,
    checks: &mut Checks,
) {
    let id = BOUND;
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
fn not_reached(policy: &Policy, tee: Tee, why: &str, checks: &mut Checks) {
    let all = fixed_checks().iter();
    for fixed in all.filter(|fixed| fixed.required_of == Some(tee)) {
        if checks.find(fixed.id).is_none() {
            checks.not_evaluated(fixed.id, Fault::Policy, Value::Null, why);
        }
    }
    let Some(platform) = policy.platforms.iter().find(|p| p.tee == tee) else {
        return;
    };
    for (spec, rule) in platform.rules() {
        let expected = rule.expected().map_or(Value::Null, |e| e.to_value());
        checks.not_evaluated(spec.id, Fault::Policy, expected, why);
    }
    if platform.by_manifest() {
        not_placed(checks, why);
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
    let known = Known::nothing();
    appraise_by(
        evidence_file,
        By::new(policy, roots, &known),
        report_data,
        at,
    )
}

/// [`appraise`], by what is known.
pub(crate) fn appraise_by(
    evidence_file: &[u8],
    by: By<'_>,
    report_data: Option<&[u8; 64]>,
    at: At,
) -> Verdict {
    let mut manifest = None;
    let judged = match Evidence::parse(evidence_file) {
        Ok(evidence) => {
            let mut checks = Checks::new();
            checks.pass("evidence.format", Value::Null, Value::Null);
            let mut judged = by.ruled(&[], at, |by| {
                manifest = by.begin(&mut checks);
                by.judge(&evidence, report_data, at, None)
            });
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
        release: judged.release,
        manifest,
        covers,
        residual_risks,
        ..Context::default()
    };
    Verdict::new(judged.checks, context, at)
}
