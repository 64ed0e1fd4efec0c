//! What two policies differ in, check by check: which of the two asks for more.
//!
//! A change of a policy is compared by what can satisfy it, not by its text: lists are sets, floors and
//! ages have a direction, a waiver is the loosest there is, and one past its last day accepts nothing.

use std::fmt;

use serde::Serialize;
use touchstone_formats::evidence::Tee;

use super::demand::Demand;
use super::{Expect, Platform, Policy, Rule, SessionPolicy};
use crate::session::Binding;

/// How the second of two policies (or of two rules) stands to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// The same things satisfy both.
    Same,
    /// The second asks for more: what satisfies it satisfies the first as well (of a check that is
    /// yes or no: it asks for the safer answer).
    Stricter,
    /// The second asks for less.
    Looser,
    /// Neither: each accepts something that the other refuses.
    Incomparable,
}

impl Relation {
    /// The relation of two demands that are both made, each related like this.
    #[must_use]
    pub fn and(self, other: Relation) -> Relation {
        match (self, other) {
            (Relation::Same, other) => other,
            (this, Relation::Same) => this,
            (this, other) if this == other => this,
            _ => Relation::Incomparable,
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Relation::Same => "same",
            Relation::Stricter => "stricter",
            Relation::Looser => "looser",
            Relation::Incomparable => "incomparable",
        })
    }
}

/// One key of a policy that the two have otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The key: `answer.models`, `snp.vmpl`, or `platform` for a platform that only one has.
    pub key: String,
    /// Which `[[platform]]` of the first and of the second policy this is about, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<(Option<usize>, Option<usize>)>,
    /// How the second stands to the first.
    pub relation: Relation,
    /// What the first asks for, in words.
    pub before: String,
    /// What the second asks for, in words.
    pub after: String,
    /// What changes, where that says more than the two by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
}

/// What two policies differ in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// How the second policy as a whole stands to the first.
    pub relation: Relation,
    /// Every key that differs, in the order of the policies. A waiver whose words alone changed is
    /// among them, as [`Relation::Same`].
    pub differences: Vec<Difference>,
}

/// Compares two policies at a time (unix seconds), at which a waiver may have ended.
///
/// The whole is [`Relation::Stricter`] if every platform that the second accepts is one that the first
/// accepts, and no demand on answers and connections is looser. (Several platforms of the first that
/// only together cover one of the second are not seen as covering it: then it is incomparable.)
pub fn diff(first: &Policy, second: &Policy, at: u64) -> Diff {
    let mut differences = Vec::new();
    let mut relation = Relation::Same;
    let rows = answer_rules(first, at)
        .into_iter()
        .zip(answer_rules(second, at));
    for ((key, a), (_, b)) in rows {
        relation = relation.and(compare(key, None, &a, &b, &mut differences));
    }
    // Where only one has it, what expects a manifest differs, and says so.
    if let (Some(a), Some(b)) = (&first.manifest, &second.manifest) {
        for ((key, a), (_, b)) in Demand::of_manifest(a).iter().zip(&Demand::of_manifest(b)) {
            relation = relation.and(compare(key, None, a, b, &mut differences));
        }
    }
    let platforms = platforms(&first.platforms, &second.platforms, at, &mut differences);
    Diff {
        relation: relation.and(platforms),
        differences,
    }
}

/// Relation of two demands; a difference is added where they are not written alike.
fn compare(
    key: &str,
    platform: Option<(Option<usize>, Option<usize>)>,
    a: &Demand,
    b: &Demand,
    differences: &mut Vec<Difference>,
) -> Relation {
    let relation = a.relation(b);
    let (before, after) = (a.words(), b.words());
    if relation != Relation::Same || before != after {
        differences.push(Difference {
            key: key.to_owned(),
            platform,
            relation,
            before,
            after,
            change: a.change(b),
        });
    }
    relation
}

/// The demands of `[answer]` and `[session]`, by key. Two policies give the same keys in the same order.
pub(super) fn answer_rules(policy: &Policy, at: u64) -> Vec<(&'static str, Demand)> {
    let answer = &policy.answer;
    // A policy without [session] behaves like this one (formats.md §10).
    let absent;
    let session = match &policy.session {
        Some(session) => session,
        None => {
            let unasked = || super::Waiver {
                reason: "the policy has no [session]".into(),
                until: None,
            };
            absent = SessionPolicy {
                binding: Rule::Expect(vec![Binding::TlsExporter]),
                answers: Rule::Waive(unasked()),
                name: Rule::Waive(unasked()),
            };
            &absent
        }
    };
    let bindings =
        |list: &Vec<Binding>| Expect::Words(list.iter().map(ToString::to_string).collect());
    vec![
        ("answer.require", Demand::all_of(answer.require.names())),
        (
            "answer.nonce",
            Demand::of(&answer.nonce, at, |_| Expect::Word("present".into())),
        ),
        (
            "answer.fresh_seconds",
            Demand::at_most(&answer.fresh_seconds, at),
        ),
        ("answer.models", Demand::digests(&answer.models, at)),
        ("answer.configs", Demand::digests(&answer.configs, at)),
        (
            "answer.keyset_span_seconds",
            Demand::at_most(&answer.keyset_span_seconds, at),
        ),
        (
            "answer.collateral_age_seconds",
            Demand::at_most(&answer.collateral_age_seconds, at),
        ),
        (
            "session.binding",
            Demand::of(&session.binding, at, bindings),
        ),
        (
            "session.answers",
            Demand::of(&session.answers, at, bindings),
        ),
        (
            "session.name",
            Demand::of(&session.name, at, |list| Expect::Words(list.clone())),
        ),
    ]
}

/// The demands of a platform, by check id, in the order of the table of checks.
pub(super) fn platform_rules(
    platform: &Platform,
    at: u64,
) -> impl Iterator<Item = (&'static str, Demand)> {
    let rules = platform.rules().iter();
    rules.map(move |(spec, rule)| {
        (
            spec.id,
            Demand::of(rule, at, Expect::clone).of_check(spec.id),
        )
    })
}

/// Relation of two sets of platforms, of which evidence has to satisfy one whole.
fn platforms(
    first: &[Platform],
    second: &[Platform],
    at: u64,
    differences: &mut Vec<Difference>,
) -> Relation {
    // Every platform beside every other: 64 of each at most, by the bounds of policies.
    let demands = |platforms: &[Platform]| -> Vec<Vec<(&'static str, Demand)>> {
        platforms
            .iter()
            .map(|p| platform_rules(p, at).collect())
            .collect()
    };
    let (demands_a, demands_b) = (demands(first), demands(second));
    let mut table = Vec::new();
    for (i, (a, x)) in first.iter().zip(&demands_a).enumerate() {
        for (j, (b, y)) in second.iter().zip(&demands_b).enumerate() {
            if a.tee != b.tee {
                continue;
            }
            let relations = || x.iter().zip(y).map(|((_, x), (_, y))| x.relation(y));
            let whole = relations().fold(Relation::Same, Relation::and);
            let differing = relations().filter(|r| *r != Relation::Same).count();
            table.push((differing, i, j, whole));
        }
    }
    let relation = |i: usize, j: usize| {
        let cell = table.iter().find(|(_, a, b, _)| (*a, *b) == (i, j));
        cell.map(|(_, _, _, relation)| *relation)
    };
    let covers = |relation: Option<Relation>, wider: Relation| {
        relation == Some(Relation::Same) || relation == Some(wider)
    };
    let all_kept = (0..first.len())
        .all(|i| (0..second.len()).any(|j| covers(relation(i, j), Relation::Looser)));
    let none_new = (0..second.len())
        .all(|j| (0..first.len()).any(|i| covers(relation(i, j), Relation::Stricter)));

    // For reading: each platform beside the one it has most in common with.
    let mut nearest: Vec<(usize, usize, usize)> = table
        .iter()
        .map(|&(differing, i, j, _)| (differing, i, j))
        .collect();
    nearest.sort_unstable();
    let mut partner: Vec<Option<usize>> = vec![None; first.len()];
    for (_, i, j) in nearest {
        if !partner.contains(&Some(j))
            && let Some(slot @ None) = partner.get_mut(i)
        {
            *slot = Some(j);
        }
    }
    for (i, (a, x)) in first.iter().zip(&demands_a).enumerate() {
        let pair = partner.get(i).copied().flatten();
        let Some((j, y)) = pair.and_then(|j| Some((j, demands_b.get(j)?))) else {
            differences.push(alone(a.tee, Some(i + 1), None));
            continue;
        };
        for ((key, x), (_, y)) in x.iter().zip(y) {
            let place = Some((Some(i + 1), Some(j + 1)));
            compare(key, place, x, y, differences);
        }
    }
    for (j, b) in second.iter().enumerate() {
        if !partner.contains(&Some(j)) {
            differences.push(alone(b.tee, None, Some(j + 1)));
        }
    }
    match (all_kept, none_new) {
        (true, true) => Relation::Same,
        (true, false) => Relation::Looser,
        (false, true) => Relation::Stricter,
        (false, false) => Relation::Incomparable,
    }
}

/// A platform that only one of the policies has.
fn alone(tee: Tee, first: Option<usize>, second: Option<usize>) -> Difference {
    let words = |there: bool| {
        if there {
            format!("a platform of kind {tee}")
        } else {
            "no such platform".to_owned()
        }
    };
    Difference {
        key: "platform".into(),
        platform: Some((first, second)),
        relation: if first.is_some() {
            Relation::Stricter
        } else {
            Relation::Looser
        },
        before: words(first.is_some()),
        after: words(second.is_some()),
        change: None,
    }
}
