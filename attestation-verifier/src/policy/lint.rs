//! What a policy would accept at the least, said in words before somebody relies on it.
//!
//! A policy that stands may still accept anything: every check may be waived. [`lint`] finds the
//! rules that leave nothing of what a verdict is for, says the weakest platform and software that
//! the policy accepts, and names three things that it does not protect from: its own gaps first,
//! then what no policy can close.

mod disguise;
mod gaps;
mod weakest;

use serde::Serialize;
use touchstone_formats::evidence::Tee;

use super::demand::{Demand, who_signs};
use super::diff::{Relation, answer_rules, platform_rules};
use super::{Platform, Policy, Profile};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The policy accepts anything: a verdict under it shows nothing of what it seems to.
    Refuse,
    /// A known weakness is accepted.
    Weak,
    /// Worth knowing.
    Note,
}

/// Something that a policy's author should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub level: Level,
    /// The rule it is about, with its table: `answer.models`, `platform[1].snp.vmpl`.
    pub key: String,
    /// What follows from that rule, in a sentence.
    pub words: String,
}

/// A check that is waived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waived {
    /// The rule, with its table.
    pub key: String,
    /// The policy's reason.
    pub reason: String,
    /// Last day on which it waives; none = no end.
    pub until: Option<String>,
    /// Its last day has passed: the check now refuses everything.
    pub ended: bool,
}

/// The least that one part of a policy accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Weakest {
    /// `answer`, `connection`, or `platform[1]`.
    pub part: String,
    /// The kind of platform; none for the others.
    pub tee: Option<Tee>,
    /// Each aspect and what is accepted of it.
    pub accepts: Vec<Aspect>,
}

/// One aspect of what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Aspect {
    /// Which: `software`, `debugging`, …
    pub aspect: &'static str,
    /// What is accepted of it, in words.
    pub words: String,
}

/// What [`lint`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lint {
    /// What the policy says it was made from.
    pub profile: String,
    /// What was found, the heaviest first.
    pub findings: Vec<Finding>,
    /// The least that the policy accepts, part by part.
    pub weakest: Vec<Weakest>,
    /// Rules that nothing can satisfy: lists to fill in, waivers that have ended.
    pub accepts_none: Vec<String>,
    /// Every check that is waived.
    pub waived: Vec<Waived>,
    /// Three things that the policy does not protect from.
    pub not_protected: Vec<&'static str>,
}

impl Lint {
    /// Whether the policy is fit to judge by: nothing in it accepts anything.
    pub fn fit(&self) -> bool {
        self.findings.iter().all(|f| f.level != Level::Refuse)
    }
}

/// One part's demands, by key.
struct Part {
    /// `answer`, `session` or `platform[1]`; keys of `[answer]` and `[session]` have it in their name.
    name: String,
    tee: Option<Tee>,
    demands: Vec<(&'static str, Demand)>,
    /// The time of linting, Unix seconds.
    at: u64,
}

impl Part {
    fn platform(index: usize, platform: &Platform, who: &str, at: u64) -> Part {
        Part {
            name: format!("platform[{}]", index + 1),
            tee: Some(platform.tee),
            demands: platform_rules(platform, at)
                .map(|(id, demand)| (id, demand.signed_by(who)))
                .collect(),
            at,
        }
    }

    /// A key with its table, as messages name it.
    fn key(&self, id: &str) -> String {
        match self.tee {
            Some(_) => format!("{}.{id}", self.name),
            None => id.to_owned(),
        }
    }

    fn demand(&self, id: &str) -> Option<&Demand> {
        let found = self.demands.iter().find(|(key, _)| *key == id);
        found.map(|(_, demand)| demand)
    }
}

/// Lints a policy at a time (unix seconds), at which a waiver may have ended.
pub fn lint(policy: &Policy, at: u64) -> Lint {
    let signers = policy.manifest.as_ref().map(|demand| &demand.signers);
    let who = signers.map_or_else(String::new, who_signs);
    let rules = answer_rules(policy, at).into_iter();
    let mut answer = Part {
        name: "answer".into(),
        tee: None,
        demands: rules
            .map(|(id, demand)| (id, demand.signed_by(&who)))
            .collect(),
        at,
    };
    if let Some(demand) = &policy.manifest {
        answer.demands.extend(Demand::of_manifest(demand));
    }
    let platforms = policy.platforms.iter().enumerate();
    let platforms: Vec<Part> = platforms
        .map(|(i, p)| Part::platform(i, p, &who, at))
        .collect();
    let parts = || std::iter::once(&answer).chain(&platforms);

    let (mut findings, mut unmet) = (Vec::new(), Vec::new());
    for part in parts() {
        gaps::of_part(part, &mut findings);
        disguise::of_part(part, &mut findings);
        accepts_none(part, &mut findings, &mut unmet);
    }
    drift(policy, at, &mut findings);
    findings.sort_by_key(|finding| finding.level);

    let waived = parts().flat_map(|part| {
        part.demands.iter().filter_map(|(id, demand)| {
            let (waiver, ended) = match demand {
                Demand::Waived(waiver) => (waiver, false),
                Demand::Ended(waiver) => (waiver, true),
                Demand::Expected(_) => return None,
            };
            Some(Waived {
                key: part.key(id),
                reason: waiver.reason.clone(),
                until: waiver.until.clone(),
                ended,
            })
        })
    });
    Lint {
        profile: policy.profile.clone(),
        accepts_none: unmet,
        waived: waived.collect(),
        weakest: parts().flat_map(weakest::of_part).collect(),
        not_protected: gaps::not_protected(&answer, &platforms),
        findings,
    }
}

/// Rules that nothing can satisfy: no danger, and seldom what somebody wants.
fn accepts_none(part: &Part, findings: &mut Vec<Finding>, keys: &mut Vec<String>) {
    for (id, demand) in &part.demands {
        if !demand.accepts_nothing() {
            continue;
        }
        let words = match demand {
            Demand::Ended(waiver) => format!(
                "Its waiver ended on {}: it refuses everything.",
                waiver.until.as_deref().unwrap_or_default()
            ),
            _ => {
                "Its list is empty: it accepts none. Put in what you found out for yourself.".into()
            }
        };
        keys.push(part.key(id));
        findings.push(Finding {
            level: Level::Note,
            key: part.key(id),
            words,
        });
    }
}

/// Where a policy that says it was made from a profile asks for less than that profile does. What a profile
/// leaves for its author to fill in is not compared.
fn drift(policy: &Policy, at: u64, findings: &mut Vec<Finding>) {
    let Some(profile) = Profile::from_versioned(&policy.profile) else {
        return;
    };
    let mut told = |key: String, before: &Demand, after: &Demand| {
        let than = match before.relation(after) {
            _ if before.accepts_nothing() => return,
            Relation::Same | Relation::Stricter => return,
            Relation::Looser => "looser than",
            Relation::Incomparable => "otherwise than",
        };
        let (of, before, after) = (profile.versioned(), before.words(), after.words());
        let words = format!(
            "It is {than} in {of}, which the policy says it was made from: there {before}, here {after}."
        );
        findings.push(Finding {
            level: Level::Weak,
            key,
            words,
        });
    };
    for (index, platform) in policy.platforms.iter().enumerate() {
        let Ok(original) = Policy::parse(&profile.text(platform.tee, at)) else {
            continue;
        };
        // What is the policy's own and not a platform's is said once.
        if index == 0 {
            let (before, after) = (answer_rules(&original, at), answer_rules(policy, at));
            for ((id, before), (_, after)) in before.iter().zip(&after) {
                told((*id).to_owned(), before, after);
            }
        }
        let own = Part::platform(index, platform, "", at);
        for (id, before) in original
            .platforms
            .iter()
            .flat_map(|p| platform_rules(p, at))
        {
            if let Some(after) = own.demand(id) {
                told(own.key(id), &before, after);
            }
        }
    }
}
