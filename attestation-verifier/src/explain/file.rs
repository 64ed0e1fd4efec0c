//! Explaining a verdict that was kept in a file (`touchstone check --json > verdict.json`).
//!
//! Such a file is somebody's word and no proof: it is repeated, never judged. It has only to be a verdict and
//! not to contradict itself, so that the exit code that is repeated is the one its checks lead to.

use serde::Deserialize;
use serde_json::Value;
use touchstone_formats::Tee;
use touchstone_formats::limits::MAX_BUNDLE;

use super::catalogue::about;
use super::{Explanation, Given, Told, V, ordered};
use crate::policy::{CheckSpec, check_ids};
use crate::verdict::{Class, Outcome, Word};

/// Why a file is no verdict.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VerdictFileError {
    /// Longer than a bundle may be.
    #[error("verdict: {found} bytes, at most {limit} are allowed")]
    TooLong {
        /// Its length.
        found: usize,
        /// The bound.
        limit: usize,
    },
    /// Not JSON, or not of the form of a verdict.
    #[error("verdict: {0}")]
    Form(String),
    /// Two members say different things.
    #[error("verdict: {member} is {found}, expected {expected}")]
    Contradiction {
        /// The member.
        member: &'static str,
        /// What it says.
        found: String,
        /// What follows from the others.
        expected: String,
    },
}

#[derive(Deserialize)]
struct Wire {
    v: String,
    verdict: String,
    exit: u8,
    simulated: bool,
    class: Option<String>,
    deciding: Option<String>,
    at: Option<String>,
    checks: Vec<WireCheck>,
    residual_risks: Vec<String>,
}

#[derive(Deserialize)]
struct WireCheck {
    id: String,
    result: String,
    expected: Value,
    found: Value,
    reason: String,
    evidence: Option<String>,
}

impl Explanation {
    /// Explains a verdict in a file. Classes of checks that did not decide are told from what is known about them, since a
    /// verdict does not carry them.
    ///
    /// # Errors
    /// No verdict (`touchstone/verdict/1`), or one that contradicts itself.
    pub fn of_file(bytes: &[u8]) -> Result<Explanation, VerdictFileError> {
        if bytes.len() > MAX_BUNDLE {
            let (found, limit) = (bytes.len(), MAX_BUNDLE);
            return Err(VerdictFileError::TooLong { found, limit });
        }
        let wire: Wire =
            serde_json::from_slice(bytes).map_err(|e| VerdictFileError::Form(e.to_string()))?;
        wire.consistent()?;
        let (word, class) = (wire.word(), wire.class()?);
        let deciding = wire.deciding.as_deref();
        let mut checks = Vec::with_capacity(wire.checks.len());
        for check in &wire.checks {
            let result = outcome(&check.result)?;
            // A verdict does not say which of its checks are only listed: those of a policy never are.
            let required = spec(&check.id).is_some() || deciding == Some(check.id.as_str());
            let refuses = result == Outcome::Fail || (result == Outcome::NotEvaluated && required);
            let own = match deciding {
                Some(id) if id == check.id => class,
                _ => known_class(&check.id),
            };
            checks.push(Told::new(Given {
                id: &check.id,
                evidence: check.evidence.as_deref(),
                result,
                refuses,
                expected: check.expected.clone(),
                found: check.found.clone(),
                reason: &check.reason,
                class: own.filter(|_| refuses),
            }));
        }
        Ok(Explanation {
            v: V,
            verdict: word,
            exit: wire.exit,
            class,
            deciding: wire.deciding.clone(),
            simulated: wire.simulated,
            at: wire.at.clone(),
            from_file: true,
            checks: ordered(checks, deciding),
            residual_risks: wire.residual_risks,
        })
    }
}

impl Wire {
    fn consistent(&self) -> Result<(), VerdictFileError> {
        let contradiction = |member, found: &dyn ToString, expected: &str| {
            Err(VerdictFileError::Contradiction {
                member,
                found: found.to_string(),
                expected: expected.to_owned(),
            })
        };
        if self.v != "touchstone/verdict/1" {
            return contradiction("v", &self.v, "touchstone/verdict/1");
        }
        let word = match self.exit {
            0 | 6 => "holds",
            1 => "usage",
            2 => "malformed",
            3 => "not-authentic",
            4 => "refused",
            5 => "collateral",
            _ => return contradiction("exit", &self.exit, "0 to 6"),
        };
        if self.verdict != word {
            return contradiction("verdict", &self.verdict, word);
        }
        let failed = |check: &&WireCheck| check.result == "fail";
        let refuses = word != "holds";
        if self.exit == 6 && !self.simulated {
            return contradiction("exit", &6, "0, for a platform that is not simulated");
        }
        if !refuses && let Some(check) = self.checks.iter().find(failed) {
            let expected = format!("a refusal, since {} failed", check.id);
            return contradiction("verdict", &self.verdict, &expected);
        }
        let decides = |id: &String| {
            let mut own = self.checks.iter().filter(|check| check.id == *id);
            own.any(|check| check.result == "fail" || check.result == "not-evaluated")
        };
        match &self.deciding {
            None if refuses => contradiction("deciding", &"null", "the check that refuses"),
            Some(id) if !refuses => contradiction("deciding", id, "null, since it holds"),
            Some(id) if !decides(id) => {
                contradiction("deciding", id, "a check of the list that refuses")
            }
            _ => Ok(()),
        }
    }

    fn word(&self) -> Word {
        match self.exit {
            0 | 6 => Word::Holds,
            1 => Word::Usage,
            2 => Word::Malformed,
            3 => Word::NotAuthentic,
            5 => Word::Collateral,
            _ => Word::Refused,
        }
    }

    fn class(&self) -> Result<Option<Class>, VerdictFileError> {
        let class = match self.class.as_deref() {
            None => None,
            Some("retry") => Some(Class::Retry),
            Some("operations") => Some(Class::Operations),
            Some("policy") => Some(Class::Policy),
            Some("tamper") => Some(Class::Tamper),
            Some(other) => {
                return Err(VerdictFileError::Contradiction {
                    member: "class",
                    found: other.to_owned(),
                    expected: "retry, operations, policy or tamper".to_owned(),
                });
            }
        };
        Ok(class)
    }
}

fn outcome(word: &str) -> Result<Outcome, VerdictFileError> {
    Ok(match word {
        "pass" => Outcome::Pass,
        "fail" => Outcome::Fail,
        "waived" => Outcome::Waived,
        "not-evaluated" => Outcome::NotEvaluated,
        other => {
            return Err(VerdictFileError::Contradiction {
                member: "result",
                found: other.to_owned(),
                expected: "pass, fail, waived or not-evaluated".to_owned(),
            });
        }
    })
}

/// The policy's entry of this id.
fn spec(id: &str) -> Option<&'static CheckSpec> {
    [Tee::SevSnp, Tee::Tdx]
        .into_iter()
        .flat_map(check_ids)
        .find(|spec| spec.id == id)
}

/// The class of a failure, as far as the id tells it.
fn known_class(id: &str) -> Option<Class> {
    if let Some(spec) = spec(id) {
        return Some(if spec.operations {
            Class::Operations
        } else {
            Class::Policy
        });
    }
    match about(id)?.exit.split(", ").next()? {
        "2" | "3" => Some(Class::Tamper),
        "5" => Some(Class::Operations),
        "4" => Some(Class::Policy),
        _ => None,
    }
}
