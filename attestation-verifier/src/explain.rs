//! Verdicts in words: check by check what was asked, expected and found, why it matters, where it is
//! specified, and what to do about a refusal.
//!
//! Everything said about a check comes from the tables that policies are read by ([`crate::policy::check_ids`],
//! [`crate::policy::fixed_checks`]); what a failure means comes from the verdict. Nothing is judged here.

mod catalogue;
mod file;
mod words;

use serde::Serialize;
use serde_json::Value;

use crate::dates::rfc3339;
use crate::verdict::{Class, Outcome, Verdict, Word};
pub use catalogue::{About, about, all, near};
pub use file::VerdictFileError;

/// A verdict, explained (`touchstone/explanation/1`).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The format: `touchstone/explanation/1`.
    pub v: &'static str,
    /// The word of the verdict.
    pub verdict: Word,
    /// Its exit code.
    pub exit: u8,
    /// What to do about a refusal.
    pub class: Option<Class>,
    /// Id of the check that the verdict rests on, if it refuses.
    pub deciding: Option<String>,
    /// Whether some evidence stands under a root that the caller named.
    pub simulated: bool,
    /// Time of judgement, RFC 3339.
    pub at: Option<String>,
    /// The verdict was read from a file: it is repeated here, nothing was judged again.
    pub from_file: bool,
    /// Every check: those that refuse first, the deciding one at their head; then those that are only listed, the
    /// waived ones, those that passed.
    pub checks: Vec<Told>,
    /// What no check shows, a sentence each.
    pub residual_risks: Vec<String>,
}

/// One check of a verdict, with what is known about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// Stable id.
    pub id: String,
    /// Purpose of the evidence object it is about.
    pub evidence: Option<String>,
    /// How it ended.
    pub result: Outcome,
    /// Whether it refuses: it failed, or is required and was not evaluated.
    pub refuses: bool,
    /// What was expected, as a policy writes it.
    pub expected: Value,
    /// What was found, as a policy writes it.
    pub found: Value,
    /// What the verdict says of this case.
    pub reason: String,
    /// What is checked.
    pub summary: String,
    /// Why it matters.
    pub why: String,
    /// Where it is specified.
    pub source: String,
    /// What kind of refusal it is; none where it does not refuse.
    pub class: Option<Class>,
    /// What to do about it; none where it does not refuse.
    pub advice: Option<String>,
}

/// Explains a verdict.
pub fn explain(verdict: &Verdict) -> Explanation {
    let deciding = verdict.deciding();
    let told = verdict.checks.iter().map(|check| {
        let class = check.fault.and_then(|fault| fault.class());
        let refuses = check.refuses();
        Told::new(Given {
            id: &check.id,
            evidence: check.evidence,
            result: check.result,
            refuses,
            expected: check.expected.clone(),
            found: check.found.clone(),
            reason: &check.reason,
            class: class.filter(|_| refuses),
        })
    });
    Explanation {
        v: V,
        verdict: verdict.conclusion.word,
        exit: verdict.exit(),
        class: verdict.conclusion.class,
        deciding: deciding.map(str::to_owned),
        simulated: verdict.context.simulated,
        at: verdict.at.map(|at| rfc3339(at.time)),
        from_file: false,
        checks: ordered(told.collect(), deciding),
        residual_risks: verdict.context.residual_risks.clone(),
    }
}

const V: &str = "touchstone/explanation/1";

/// What a verdict says of a check.
struct Given<'a> {
    id: &'a str,
    evidence: Option<&'a str>,
    result: Outcome,
    refuses: bool,
    expected: Value,
    found: Value,
    reason: &'a str,
    class: Option<Class>,
}

impl Told {
    fn new(given: Given) -> Told {
        let about = about(given.id);
        let text = |part: fn(&About) -> &str| {
            about
                .as_ref()
                .map_or_else(String::new, |a| part(a).to_owned())
        };
        Told {
            id: given.id.to_owned(),
            evidence: given.evidence.map(str::to_owned),
            result: given.result,
            refuses: given.refuses,
            expected: given.expected,
            found: given.found,
            reason: given.reason.to_owned(),
            summary: text(|a| &a.summary),
            why: text(|a| &a.why),
            source: text(|a| &a.source),
            class: given.class,
            advice: given
                .refuses
                .then(|| catalogue::advice(given.id, given.result, given.class).to_owned()),
        }
    }
}

/// What refuses comes first, and the deciding check before all.
fn ordered(mut checks: Vec<Told>, deciding: Option<&str>) -> Vec<Told> {
    // A verdict on a bundle has one check of an id for each evidence object: the first that refuses decides.
    let first = checks
        .iter()
        .position(|told| told.refuses && Some(told.id.as_str()) == deciding);
    let place = |told: &Told| match told.result {
        Outcome::Fail if told.refuses => 1,
        _ if told.refuses => 2,
        Outcome::Fail | Outcome::NotEvaluated => 3,
        Outcome::Waived => 4,
        Outcome::Pass => 5,
    };
    let mut order: Vec<(u8, Told)> = checks
        .drain(..)
        .enumerate()
        .map(|(n, told)| (if Some(n) == first { 0 } else { place(&told) }, told))
        .collect();
    order.sort_by_key(|(place, _)| *place);
    order.into_iter().map(|(_, told)| told).collect()
}
