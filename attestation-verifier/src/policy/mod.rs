//! Policies: every check named, each with an expectation or a waiver that says why.
//!
//! A policy has no default. [`Policy::parse`] refuses a key that is missing, a key it does not
//! know, an expectation of the wrong form and a waiver without a reason, so that nothing is ever
//! unchecked because somebody forgot it.

mod by_manifest;
mod demand;
mod diff;
mod fixed;
mod lint;
mod parse;
mod profile;
mod rules;
pub mod spec;
mod template;

use touchstone_formats::evidence::Tee;
use touchstone_formats::guarantee::GuaranteeSet;

use crate::manifest;
use crate::session::Binding;

pub use by_manifest::by_manifest;
pub use diff::{Diff, Difference, Relation, diff};
pub use fixed::{FixedCheck, fixed_checks};
pub use lint::{Aspect, Finding, Level, Lint, Waived, Weakest, lint};
pub use parse::PolicyError;
pub use profile::{EXPLORE_DAYS, Profile};
pub use rules::{Digests, Expect, Floor, Floors, Rule, Waiver};
pub(crate) use spec::EventPattern;
pub use spec::{CheckSpec, Form, check_ids};
pub use template::template;

/// A policy, as its file says it.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What it was made from, for people (`serve/1`).
    pub profile: String,
    /// What an answer's receipt has to satisfy.
    pub answer: AnswerPolicy,
    /// What connections have to satisfy. A policy may come without: then a connection must be bound by
    /// `tls-exporter` before anything is sent on it, and no binding is asked of kept answers.
    pub session: Option<SessionPolicy>,
    /// Which manifest, signed by whom, says what is accepted wherever the policy expects `"manifest"`; there if, and only
    /// if, it does so somewhere.
    pub manifest: Option<manifest::Demand>,
    /// Platforms; evidence must satisfy one of them whole. Never empty.
    pub platforms: Vec<Platform>,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`PolicyError`] names the key, what was found and what was expected; all of them are
    /// exit 1 (check `policy.file`).
    pub fn parse(toml: &str) -> Result<Policy, PolicyError> {
        parse::policy(toml)
    }
}

/// `[answer]`: what a receipt has to satisfy, whatever platform made it.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerPolicy {
    /// Guarantees the caller demands (closed under implication).
    pub require: GuaranteeSet,
    /// `expect = "present"`: the caller's own nonce must be in the receipt.
    pub nonce: Rule<Present>,
    /// How old `iat` may be at the time of judgement, seconds.
    pub fresh_seconds: Rule<u64>,
    /// Model digests that are accepted.
    pub models: Rule<Digests>,
    /// Configuration digests that are accepted. Those of a manifest are the model's own there.
    pub configs: Rule<Digests>,
    /// Longest lifetime (`not_after − not_before`) of a keyset, seconds.
    pub keyset_span_seconds: Rule<u64>,
    /// How old collateral (a CRL's `thisUpdate`) may be at the time of judgement, seconds.
    pub collateral_age_seconds: Rule<u64>,
}

/// The one word that `answer.nonce` may expect: `"present"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present;

/// `[session]`: what a connection, and the enclave at its end, have to satisfy.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionPolicy {
    /// What must bind a connection before anything is sent on it.
    pub binding: Rule<Vec<Binding>>,
    /// What must have bound the connection that a kept answer came over.
    pub answers: Rule<Vec<Binding>>,
    /// Keyset names that are accepted, of connections and of answers. The name is the operator's word.
    pub name: Rule<Vec<String>>,
}

/// `[[platform]]`: one kind of platform that is accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Platform {
    /// The kind of TEE.
    pub tee: Tee,
    /// One rule for every check of that TEE, in the order of [`check_ids`].
    rules: Vec<(&'static CheckSpec, Rule<Expect>)>,
}

impl Platform {
    /// All rules, in the order of [`check_ids`].
    pub fn rules(&self) -> &[(&'static CheckSpec, Rule<Expect>)] {
        &self.rules
    }

    /// Whether the manifest says which launch measurements are accepted: of TDX all four, or none.
    pub fn by_manifest(&self) -> bool {
        let listed = |(_, rule): &(_, Rule<Expect>)| *rule == Rule::Expect(Expect::Manifest);
        self.rules.iter().any(listed)
    }

    /// The rule of one check id; `None` only for ids that this TEE has no check for.
    pub fn rule(&self, id: &str) -> Option<&Rule<Expect>> {
        self.rules
            .iter()
            .find(|(spec, _)| spec.id == id)
            .map(|(_, rule)| rule)
    }
}
