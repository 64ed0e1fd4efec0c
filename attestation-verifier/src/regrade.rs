//! Old bundles judged again under a signed list of notices (`touchstone/advisories/1`, docs/formats.md):
//! "Genoa below this microcode is not trusted since that day".
//!
//! A notice says something about the *platform* that a bundle's evidence proves. It never makes a verdict
//! better: the bundle is judged by the policy as ever, and a notice that applies adds a check that fails.

mod facts;
mod list;

use serde_json::{Value, json};
use touchstone_formats::{Bundle, Purpose, Receipt};

use crate::bundle::check_by;
use crate::dates::rfc3339;
use crate::exchange::Comparison;
use crate::known::Known;
use crate::verdict::{Checks, Fault, Verdict};
use crate::verifier::By;
use crate::{At, Policy, Roots};
use facts::Facts;
pub use list::{Advisories, AdvisoriesError, ListContent, Notice, SIGNED_LIST_LIMIT};

/// Id of the check that a notice fails.
pub const NOTICE: &str = "advisories.notice";

/// A bundle judged without the notices and with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Regraded {
    /// The verdict of the policy alone.
    pub before: Verdict,
    /// The verdict under the notices too.
    pub after: Verdict,
    /// When the receipt says it was made (Unix seconds), by the guest's own clock.
    pub issued_at: Option<u64>,
    /// Ids of the notices that apply, in the order of the list.
    pub notices: Vec<String>,
}

/// Judges a bundle file again. A pure function, as [`crate::check`] is; it costs about twice as much.
pub fn regrade(
    bundle_file: &[u8],
    advisories: &Advisories,
    policy: &Policy,
    roots: &Roots,
    comparison: &Comparison,
    at: At,
) -> Regraded {
    let known = Known::new();
    let by = By::new(policy, roots, &known);
    regrade_by(bundle_file, advisories, by, comparison, at)
}

/// [`regrade`], by what is known and manifests that were given.
pub(crate) fn regrade_by(
    bundle_file: &[u8],
    advisories: &Advisories,
    by: By<'_>,
    comparison: &Comparison,
    at: At,
) -> Regraded {
    let before = check_by(bundle_file, by, comparison, at);
    let mut checks = before.checks.clone();
    let mut context = before.context.clone();
    let issued_at = receipt_time(bundle_file);
    let mut notices: Vec<String> = Vec::new();
    if let (Ok(bundle), Some(issued_at)) = (Bundle::parse(bundle_file), issued_at) {
        for evidence in &bundle.evidence {
            let about = evidence.purpose.map_or(Purpose::Boot.name(), Purpose::name);
            // Not bound here: `check` has recomputed REPORT_DATA, and its checks stand in the verdict.
            let judged = by.judge(evidence, None, at, Some(about));
            // Without an authentic platform there is nothing to apply a notice to, and the verdict refuses already.
            let Some(facts) = Facts::of(&judged.platform) else {
                continue;
            };
            let mut own = Checks::about(about);
            let applied = apply(advisories, &facts, issued_at, &mut own);
            checks.extend(own);
            for id in applied {
                if !notices.contains(&id) {
                    notices.push(id);
                }
            }
        }
    }
    if advisories
        .notices()
        .iter()
        .any(|n| n.not_trusted_since.is_some())
    {
        context.residual_risks.push(
            "Whether a notice with a date applies follows from the time that the receipt states, which is the guest's own \
             word: whoever broke a platform can date back what he makes on it. Notices without a date do not depend on it."
                .to_owned(),
        );
    }
    let after = Verdict::new(checks, context, at);
    Regraded {
        before,
        after,
        issued_at,
        notices,
    }
}

/// When the receipt of a bundle says it was made, Unix seconds; nothing of it is verified. None if the file holds
/// no receipt that can be read.
pub fn receipt_time(bundle_file: &[u8]) -> Option<u64> {
    let bundle = Bundle::parse(bundle_file).ok()?;
    Some(Receipt::parse(&bundle.receipt).ok()?.claims.iat)
}

/// Makes the check of every notice that is about this kind of platform; gives the ids of those that apply.
fn apply(
    advisories: &Advisories,
    facts: &Facts,
    issued_at: u64,
    checks: &mut Checks,
) -> Vec<String> {
    let mut applied = Vec::new();
    let mut earlier = Vec::new();
    for notice in advisories.notices() {
        match facts.matches(notice) {
            Ok(None) => {}
            Ok(Some(because)) => {
                let since = notice.not_trusted_since;
                if since.is_some_and(|since| issued_at < since) {
                    earlier.push(notice.id.clone());
                    continue;
                }
                applied.push(notice.id.clone());
                let since = since.map_or_else(
                    || "whenever it was made".to_owned(),
                    |since| format!("since {}", rfc3339(since)),
                );
                let reason = format!(
                    "notice {}: {} ({because}; not trusted {since}; source: {})",
                    notice.id, notice.words, notice.source
                );
                checks.fail(
                    NOTICE,
                    Fault::Platform,
                    Value::Null,
                    json!(notice.id),
                    reason,
                );
            }
            Err(missing) => {
                let reason = format!(
                    "notice {} asks for {missing}, which this platform's description does not have",
                    notice.id
                );
                checks.not_evaluated(NOTICE, Fault::Platform, Value::Null, reason);
            }
        }
    }
    if applied.is_empty() && checks.hold() {
        let reason = if earlier.is_empty() {
            format!("no notice of version {} applies", advisories.version())
        } else {
            format!(
                "the receipt states a time before the day of every notice that fits ({})",
                earlier.join(", ")
            )
        };
        checks.pass_because(NOTICE, Value::Null, Value::Null, reason);
    }
    applied
}
