//! Which manifest counts: the checks of the file itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use touchstone_formats::Attachment;

use super::ATTACHMENT;
use crate::At;
use crate::dates::rfc3339;
use crate::manifest::{Accepted, Authentic, CLOCK_SKEW, Demand, NotAuthentic};
use crate::verdict::{Checks, Fault};

/// The checks that do not depend on time, in the order in which a file has to pass them.
const STAGES: [&str; 5] = [
    "manifest.format",
    "manifest.signature",
    "manifest.threshold",
    "manifest.name",
    "manifest.version",
];

/// Why a file does not count.
#[derive(Clone, Debug)]
struct Problem {
    /// Place in [`STAGES`].
    stage: usize,
    fault: Fault,
    reason: String,
}

impl Problem {
    fn new(id: &str, fault: Fault, reason: String) -> Problem {
        Problem {
            stage: STAGES.iter().position(|stage| *stage == id).unwrap_or(0),
            fault,
            reason,
        }
    }
}

/// A file, and what is to be said of it whatever the time.
#[derive(Debug)]
pub(super) struct Candidate {
    authentic: Option<Arc<Authentic>>,
    signed_by: Vec<String>,
    problem: Option<Problem>,
}

impl Candidate {
    pub(super) fn read(file: &[u8], demand: &Demand, known: &Accepted) -> Candidate {
        Candidate::of(Authentic::read(file, &demand.signers), demand, known)
    }

    /// Reads the manifest that a bundle has with it.
    pub(super) fn attached(
        attachment: &Attachment,
        demand: &Demand,
        known: &Accepted,
    ) -> Candidate {
        #[derive(Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wire {
            manifest: String,
            r#type: String,
        }
        // Canonical already, as the whole bundle is.
        match serde_json::from_str::<Wire>(attachment.json()) {
            Ok(wire) => Candidate::read(wire.manifest.as_bytes(), demand, known),
            Err(error) => {
                let reason = format!("attachment {ATTACHMENT}: {error}");
                Candidate {
                    authentic: None,
                    signed_by: Vec::new(),
                    problem: Some(Problem::new("manifest.format", Fault::Malformed, reason)),
                }
            }
        }
    }

    fn of(read: Result<Authentic, NotAuthentic>, demand: &Demand, known: &Accepted) -> Candidate {
        let authentic = match read {
            Ok(authentic) => authentic,
            Err(error) => {
                let problem = Problem::new(error.id(), error.fault(), error.to_string());
                return Candidate {
                    authentic: None,
                    signed_by: match error {
                        NotAuthentic::BelowThreshold { signed_by, .. } => signed_by,
                        _ => Vec::new(),
                    },
                    problem: Some(problem),
                };
            }
        };
        let refused = demand.refuses(authentic.manifest()).into_iter().next();
        let refused = refused
            .map(|refused| Problem::new(refused.id(), Fault::Policy, refused.to_string()))
            .or_else(|| {
                let rollback = known.check(&authentic).err()?;
                let reason = rollback.to_string();
                Some(Problem::new("manifest.version", Fault::Policy, reason))
            });
        Candidate {
            signed_by: authentic.signed_by().to_vec(),
            authentic: Some(Arc::new(authentic)),
            problem: refused,
        }
    }

    fn version(&self) -> u64 {
        let authentic = self.authentic.as_ref();
        authentic.map_or(0, |authentic| authentic.manifest().version)
    }

    /// How far it came.
    fn stage(&self) -> usize {
        let problem = self.problem.as_ref();
        problem.map_or(STAGES.len(), |problem| problem.stage)
    }
}

/// The file that counts, with the checks of it.
pub(super) struct Chosen {
    pub(super) checks: Checks,
    /// It, as far as it is authentic.
    pub(super) authentic: Option<Arc<Authentic>>,
    /// Its place among all.
    pub(super) place: Option<usize>,
}

/// Chooses: of those that count the highest version, the first of equals; where none does, the one that came furthest, for
/// its reason.
pub(super) fn choose(all: &[&Candidate], demand: &Demand, known: &Accepted, at: At) -> Chosen {
    let mut checks = Checks::new();
    let rank = |candidate: &Candidate| (candidate.stage(), candidate.version());
    let mut furthest: Option<(usize, &Candidate)> = None;
    for (place, next) in all.iter().enumerate() {
        if furthest.is_none_or(|(_, best)| rank(next) > rank(best)) {
            furthest = Some((place, next));
        }
    }
    let Some((place, best)) = furthest else {
        let reason = format!(
            "no manifest {} came with what is judged, and you gave none",
            demand.name
        );
        let fault = Fault::CollateralMissing;
        checks.not_evaluated("manifest.present", fault, json!(demand.name), reason);
        for id in STAGES.into_iter().chain(["manifest.validity"]) {
            checks.not_evaluated(id, Fault::Policy, Value::Null, MISSING);
        }
        return Chosen {
            checks,
            authentic: None,
            place: None,
        };
    };
    checks.pass("manifest.present", json!(demand.name), all.len());
    let problem = best.problem.clone().or_else(|| two_of_one(best, all));
    for (stage, id) in STAGES.into_iter().enumerate() {
        let (expected, found) = said(id, best, demand, known);
        match &problem {
            Some(problem) if problem.stage < stage => {
                checks.not_evaluated(id, Fault::Policy, expected, UNREACHED);
            }
            Some(problem) if problem.stage == stage => {
                checks.fail(id, problem.fault, expected, found, problem.reason.clone());
            }
            _ => checks.pass(id, expected, found),
        }
    }
    validity(&mut checks, best, problem.is_some(), at);
    Chosen {
        checks,
        authentic: best.authentic.clone(),
        place: Some(place),
    }
}

const MISSING: &str = "there is no manifest";
const UNREACHED: &str = "the manifest was refused before this";

/// Of one version there is one manifest. Two that count with different content: its signers signed both.
fn two_of_one(best: &Candidate, all: &[&Candidate]) -> Option<Problem> {
    let own = best.authentic.as_ref()?;
    let counting = all.iter().filter(|other| other.problem.is_none());
    let other = counting
        .filter_map(|other| other.authentic.as_ref())
        .find(|other| {
            other.manifest().version == own.manifest().version && other.digest() != own.digest()
        })?;
    let reason = format!(
        "there are two manifests of version {}, {} and {}: their signers signed both",
        own.manifest().version,
        own.digest(),
        other.digest()
    );
    Some(Problem::new("manifest.version", Fault::Policy, reason))
}

/// What is expected and found for one check.
fn said(id: &str, best: &Candidate, demand: &Demand, known: &Accepted) -> (Value, Value) {
    let manifest = best.authentic.as_ref().map(|a| a.manifest());
    match id {
        "manifest.signature" => {
            let names = demand.signers.keys().iter().map(|signer| &signer.name);
            (json!(names.collect::<Vec<_>>()), json!(best.signed_by))
        }
        "manifest.threshold" => (
            json!(demand.signers.threshold()),
            json!(best.signed_by.len()),
        ),
        "manifest.name" => (json!(demand.name), json!(manifest.map(|m| &m.name))),
        "manifest.version" => {
            let accepted = known.version(&demand.name).unwrap_or(0);
            let least = demand.minimum_version.max(accepted);
            (json!(least), json!(manifest.map(|m| m.version)))
        }
        _ => (Value::Null, Value::Null),
    }
}

/// `manifest.validity`: it counts at the time of judgement.
fn validity(checks: &mut Checks, best: &Candidate, refused: bool, at: At) {
    let id = "manifest.validity";
    let (Some(authentic), false) = (&best.authentic, refused) else {
        checks.not_evaluated(id, Fault::Policy, Value::Null, UNREACHED);
        return;
    };
    let manifest = authentic.manifest();
    let from = rfc3339(manifest.issued.saturating_sub(CLOCK_SKEW));
    let window = json!([from, rfc3339(manifest.not_after)]);
    match authentic.validity(at.time) {
        Ok(()) => checks.pass(id, window, rfc3339(at.time)),
        Err(error) => {
            let (fault, found) = (Fault::CollateralExpired, rfc3339(at.time));
            checks.fail(id, fault, window, found, error.to_string());
        }
    }
}
