//! What both kinds of platform have in common: one observation for every check id, one comparison for every form
//! of expectation, and what follows from a waiver.

use serde_json::Value;

use crate::At;
use crate::authenticate::Window;
use crate::dates::rfc3339;
use crate::policy::{CheckSpec, Expect, Platform, Rule, Waiver};
use crate::reference::{Ruling, listed as listed_by_manifest};
use crate::verdict::{Checks, Fault};

/// What is genuine, as the checks of a policy see it.
pub(super) trait Observed {
    /// What is found for one check.
    type Seen;

    /// What is found for a check. `None` if this version has no way to tell: the check is then not evaluated, which refuses.
    fn observe(&self, id: &str, time: u64) -> Option<Self::Seen>;

    /// What was found, in the form that `expect` takes.
    fn value(seen: Self::Seen) -> Value;

    /// Whether it is as expected; in words why (empty if there is nothing to say).
    fn compare(spec: &CheckSpec, expected: &Expect, seen: &Self::Seen) -> Result<String, String>;

    /// What it means if it is not.
    fn fault(spec: &CheckSpec, seen: Option<&Self::Seen>) -> Fault;
}

/// Makes every check of a platform, in the order of the policy's table, behind those that there are.
pub(super) fn by_rules<O: Observed>(
    genuine: &O,
    platform: &Platform,
    ruling: Option<&Ruling>,
    at: At,
    checks: &mut Checks,
) {
    for (spec, rule) in platform.rules() {
        let seen = genuine.observe(spec.id, at.time);
        match (rule, seen) {
            (Rule::Waive(waiver), seen) if waiver.holds_at(at.time) => {
                let found = seen.map_or(Value::Null, O::value);
                checks.waived(spec.id, found, waiver.reason.clone(), waiver.until.clone());
            }
            (Rule::Waive(waiver), seen) => {
                let fault = O::fault(spec, None);
                let found = seen.map_or(Value::Null, O::value);
                checks.fail(spec.id, fault, Value::Null, found, ended(waiver));
            }
            (Rule::Expect(expected), None) => {
                let reason = "this version has no way to evaluate it";
                checks.not_evaluated(spec.id, Fault::Policy, expected.to_value(), reason);
            }
            (Rule::Expect(Expect::Manifest), Some(seen)) => {
                listed_by_manifest(ruling, checks, spec.id, O::value(seen), at);
            }
            (Rule::Expect(expected), Some(seen)) => {
                let value = expected.to_value();
                match O::compare(spec, expected, &seen) {
                    Ok(reason) => checks.pass_because(spec.id, value, O::value(seen), reason),
                    Err(reason) => {
                        let fault = O::fault(spec, Some(&seen));
                        checks.fail(spec.id, fault, value, O::value(seen), reason);
                    }
                }
            }
        }
    }
}

fn ended(waiver: &Waiver) -> String {
    let until = waiver.until.as_deref().unwrap_or_default();
    format!("the policy's waiver ended on {until} ({})", waiver.reason)
}

/// What most checks find.
pub(super) enum Plain {
    Flag(bool),
    Number(u64),
    Text(String),
    Crl(CrlState),
}

impl Plain {
    /// In the form `expect` takes.
    pub(super) fn value(self) -> Value {
        match self {
            Plain::Flag(flag) => flag.into(),
            Plain::Number(number) => number.into(),
            Plain::Text(text) => text.into(),
            Plain::Crl(crl) => crl.state.into(),
        }
    }

    pub(super) fn compare(&self, spec: &CheckSpec, expected: &Expect) -> Result<String, String> {
        match (expected, self) {
            (Expect::Flag(expected), Plain::Flag(found)) if expected == found => Ok(String::new()),
            (Expect::Flag(expected), Plain::Flag(found)) => {
                let summary = spec.summary.trim_end_matches('.');
                Err(format!(
                    "{summary}: found {found}, the policy expects {expected}"
                ))
            }
            (Expect::Numbers(list), Plain::Number(found)) => {
                listed(list.contains(found), list.is_empty())
            }
            (Expect::Words(list), Plain::Text(found)) => {
                listed(list.contains(found), list.is_empty())
            }
            (Expect::Number(floor), Plain::Number(found)) if found >= floor => Ok(String::new()),
            (Expect::Number(floor), Plain::Number(found)) => {
                Err(format!("{found} is below the policy's floor, {floor}"))
            }
            (Expect::Word(expected), Plain::Crl(found)) if expected == found.state => {
                Ok(String::new())
            }
            (Expect::Word(_), Plain::Crl(found)) => Err(found.reason.clone()),
            _ => Err(MISFIT.to_owned()),
        }
    }
}

/// Forms are fixed by the table of checks; a mismatch must not pass.
pub(super) const MISFIT: &str = "the policy's expectation does not fit this check";

/// Whether something is in a list of the policy's.
pub(super) fn listed(right: bool, empty: bool) -> Result<String, String> {
    match (right, empty) {
        (true, _) => Ok(String::new()),
        (false, true) => Err("the policy's list is empty: it accepts none".to_owned()),
        (false, false) => Err("not in the policy's list".to_owned()),
    }
}

/// How the revocation lists stand.
pub(super) struct CrlState {
    /// `current`, `missing`, `expired` or `not-yet-valid`.
    pub(super) state: &'static str,
    /// Why it is not `current`, which is all that a policy may expect; empty if it is.
    pub(super) reason: String,
}

impl CrlState {
    pub(super) fn current() -> CrlState {
        CrlState {
            state: "current",
            reason: String::new(),
        }
    }

    pub(super) fn missing(reason: &str) -> CrlState {
        CrlState {
            state: "missing",
            reason: reason.to_owned(),
        }
    }

    pub(super) fn fault(&self) -> Fault {
        match self.state {
            "missing" => Fault::CollateralMissing,
            _ => Fault::CollateralExpired,
        }
    }
}

/// Windows in words, one after the other.
pub(super) fn windows(windows: impl Iterator<Item = Window>, between: &str) -> String {
    let words: Vec<String> = windows.map(Window::words).collect();
    words.join(between)
}

/// Whether the rule about revocation lists lets them be missing, and so lets them be old.
pub(super) fn waived(rule: Option<&Rule<Expect>>, time: u64) -> bool {
    matches!(rule, Some(Rule::Waive(waiver)) if waiver.holds_at(time))
}

/// `answer.collateral_age_seconds`: `what` was issued at `issued` and is young enough.
pub(super) fn age(
    id: &'static str,
    what: &str,
    issued: u64,
    rule: &Rule<u64>,
    time: u64,
    checks: &mut Checks,
) {
    let found = time.saturating_sub(issued);
    match rule {
        Rule::Expect(most) if found <= *most => checks.pass(id, *most, found),
        Rule::Expect(most) => {
            let last = rfc3339(issued.saturating_add(*most));
            let reason = format!(
                "{what} is older than the policy allows, in seconds; it is young enough until {last}"
            );
            checks.fail(id, Fault::CollateralExpired, *most, found, reason);
        }
        Rule::Waive(waiver) if waiver.holds_at(time) => {
            checks.waived(id, found, waiver.reason.clone(), waiver.until.clone());
        }
        Rule::Waive(waiver) => {
            let fault = Fault::CollateralExpired;
            checks.fail(id, fault, Value::Null, found, ended(waiver));
        }
    }
}
