//! Manifests as the source of reference values: which of those at hand counts, and what it says of evidence.
//!
//! A policy that expects `"manifest"` is judged with a [`Ruling`]: the one manifest that counts at the time of judgement, or why
//! none does. Then everything that expected `"manifest"` is not evaluated, which refuses; nothing stands in for
//! a manifest that is missing. A policy without `[manifest]` has no ruling, and no trace of one in its verdicts.

mod measured;
mod release;
mod select;

use std::sync::Arc;

use serde_json::{Value, json};
use touchstone_formats::{Attachment, Digest};

use crate::At;
use crate::manifest::{Accepted, Authentic, Demand, Manifest};
use crate::policy::Policy;
use crate::verdict::{Checks, Fault};
pub(crate) use measured::{Measured, Registers, listed, not_placed, place};
pub(crate) use release::{model_names, object as release_object, software_words};
use select::Candidate;

/// Manifests that somebody holds who judges, and what he accepted before.
///
/// Of several the highest version counts that is authentic, has the name that the policy demands, and is no step back from
/// `known`. A bundle's own counts if it is higher than any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifests {
    /// Manifest files (docs/manifests.md), 64 at most: what comes after is not looked at.
    pub files: Vec<Vec<u8>>,
    /// The highest versions accepted so far.
    pub known: Accepted,
}

/// Files of [`Manifests`] that are looked at.
const MAX_FILES: usize = 64;

/// The attachment of a bundle that is a manifest.
pub(crate) const ATTACHMENT: &str = "touchstone/manifest/1";

/// Manifests, read once under a policy: nothing in it depends on time.
#[derive(Debug, Default)]
pub(crate) struct Given {
    candidates: Vec<Candidate>,
    known: Accepted,
}

impl Given {
    /// Reads manifests under a policy; none are looked at where it asks for none.
    pub(crate) fn new(policy: &Policy, manifests: &Manifests) -> Given {
        let Some(demand) = &policy.manifest else {
            return Given::default();
        };
        let files = manifests.files.iter().take(MAX_FILES);
        let known = manifests.known.clone();
        Given {
            candidates: files
                .map(|file| Candidate::read(file, demand, &known))
                .collect(),
            known,
        }
    }

    /// What counts at this time of these, and of a bundle's attachments. None where the policy asks for no manifest.
    pub(crate) fn ruling(
        &self,
        policy: &Policy,
        attachments: &[Attachment],
        at: At,
    ) -> Option<Ruling> {
        let demand = policy.manifest.as_ref()?;
        let attached = attachments
            .iter()
            .position(|attachment| attachment.kind() == ATTACHMENT);
        let candidate = attached
            .and_then(|place| attachments.get(place))
            .map(|attachment| Candidate::attached(attachment, demand, &self.known));
        let all: Vec<&Candidate> = self.candidates.iter().chain(&candidate).collect();
        let chosen = select::choose(&all, demand, &self.known, at);
        let by_attachment = candidate.is_some() && chosen.place == Some(self.candidates.len());
        Some(Ruling::new(chosen, attached, by_attachment, demand))
    }
}

/// The manifest that counts in one judgement, or why none does.
#[derive(Debug)]
pub(crate) struct Ruling {
    checks: Checks,
    used: Result<Arc<Authentic>, String>,
    /// The manifest's content and whose signatures stand under it.
    identity: Option<Digest>,
    /// The place among the bundle's attachments of one that is a manifest.
    attached: Option<usize>,
    /// That one counts.
    by_attachment: bool,
}

impl Ruling {
    fn new(
        chosen: select::Chosen,
        attached: Option<usize>,
        by_attachment: bool,
        demand: &Demand,
    ) -> Ruling {
        let used = match (chosen.authentic, chosen.checks.deciding()) {
            (Some(authentic), None) => Ok(authentic),
            (_, Some(check)) => Err(format!(
                "no manifest can be used ({}: {})",
                check.id, check.reason
            )),
            (None, None) => Err(format!("there is no manifest {}", demand.name)),
        };
        let identity = used.as_ref().ok().map(|authentic| {
            let text = json!([authentic.digest(), authentic.signed_by()]);
            Digest::of(text.to_string().as_bytes())
        });
        Ruling {
            checks: chosen.checks,
            used,
            identity,
            attached,
            by_attachment,
        }
    }

    /// The checks of the manifest itself.
    pub(crate) fn checks(&self) -> &Checks {
        &self.checks
    }

    /// The manifest, or why none can be used.
    pub(crate) fn used(&self) -> Result<&Arc<Authentic>, &str> {
        self.used.as_ref().map_err(String::as_str)
    }

    /// What the manifest says.
    pub(crate) fn manifest(&self) -> Result<&Manifest, &str> {
        self.used().map(|authentic| authentic.manifest())
    }

    /// What tells two rulings apart under one policy at one time.
    pub(crate) fn identity(&self) -> Option<Digest> {
        self.identity
    }

    /// How a bundle's attachment of the manifest's type fared.
    pub(crate) fn attachment(&self, place: usize, id: String, checks: &mut Checks) {
        let (true, Ok(authentic)) = (self.attached == Some(place), self.used()) else {
            let reason = match self.attached == Some(place) {
                true => "it is no manifest that can be used; the checks manifest.* say why",
                false => "one manifest of a bundle is looked at, the first",
            };
            checks.unconsidered(id, reason);
            return;
        };
        let version = authentic.manifest().version;
        if self.by_attachment {
            let reason = format!("the manifest that this is judged by, version {version}");
            checks.pass_because(id, Value::Null, Value::Null, reason);
        } else {
            let reason =
                format!("not used: you gave version {version}, and this is not a higher one");
            checks.unconsidered(id, reason);
        }
    }
}

/// Says of something that expects a manifest's word that there is none.
pub(crate) fn without(checks: &mut Checks, id: &'static str, why: &str) {
    checks.not_evaluated(id, Fault::Policy, json!("manifest"), why);
}

/// What is said where nobody could have given a manifest.
pub(crate) const NONE_GIVEN: &str = "this judgement was given no manifest";
