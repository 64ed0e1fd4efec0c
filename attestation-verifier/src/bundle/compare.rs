//! Openings, and the comparison with what the caller holds (formats.md §4, "Commitments").
//!
//! The receipt commits to digests under salts that only the caller was given. An opening (salt
//! and digest) that reproduces its commitment shows which digest the enclave committed to; the
//! caller's own bytes must have that digest. Without an opening nothing can be compared.

use serde_json::{Value, json};
use touchstone_formats::commitment::commit;
use touchstone_formats::{Digest, Opening, Role};

use super::Judging;
use super::receipt::NonceCheck;
use crate::exchange::tensors;
use crate::verdict::{Checks, Fault};

/// One commitment of the receipt, its opening in the bundle, and the ids of their checks.
struct Committed {
    role: Role,
    opening_id: &'static str,
    compare_id: &'static str,
    commitment: Option<Digest>,
    opening: Option<Opening>,
}

impl Judging<'_> {
    /// Runs the comparison; returns what the verdict covers.
    pub(super) fn compare(&self, checks: &mut Checks, nonce: NonceCheck) -> Vec<String> {
        let claims = &self.parts.receipt.claims;
        let openings = &self.parts.bundle.openings;
        let held = self.comparison;
        let mut covers = Vec::new();

        for role in Role::ALL {
            let (opening_id, compare_id) = ids(role);
            let commitment = match role {
                Role::Request => Some(claims.request),
                Role::Response => Some(claims.response),
                Role::Inputs => claims.inputs,
                Role::Outputs => claims.outputs,
            };
            let opening = openings.of(role);
            let committed = Committed {
                role,
                opening_id,
                compare_id,
                commitment,
                opening,
            };
            let opened = committed.open(checks);
            let own = match role {
                Role::Request => held.request.as_ref().map(|r| Ok(r.digest())),
                Role::Response => held.response.as_ref().map(|r| Ok(r.digest())),
                Role::Inputs => held.inputs.as_deref().map(tensors),
                Role::Outputs => held.outputs.as_deref().map(tensors),
            };
            let equal = match own {
                None => false,
                Some(Ok(own)) => {
                    self.agrees_with_record(checks, role, compare_id)
                        && committed.compare(checks, opened, own)
                }
                Some(Err(error)) => {
                    let reason = format!("the tensors you gave: {error}");
                    checks.fail(compare_id, Fault::Usage, Value::Null, Value::Null, reason);
                    false
                }
            };
            if equal {
                covers.push(role.name().to_owned());
            }
        }
        if nonce == NonceCheck::Compared {
            covers.push("nonce".to_owned());
        }
        self.coverage(checks, &covers, nonce);
        covers
    }

    /// The caller's record of the request has to agree with the request that is compared.
    fn agrees_with_record(&self, checks: &mut Checks, role: Role, id: &'static str) -> bool {
        let held = self.comparison;
        let (Role::Request, Some(request), Some(expected)) =
            (role, &held.request, held.request_sha256)
        else {
            return true;
        };
        let found = Digest::of(&request.body);
        if found == expected {
            return true;
        }
        let reason = "the request you gave is not the one your record says was sent";
        let (expected, found) = (expected.to_string(), found.to_string());
        checks.fail(id, Fault::NotAuthentic, expected, found, reason);
        false
    }

    /// A receipt that was not compared with the request and the answer it is about, and with the
    /// nonce where the policy expects one, is refused unless the caller judges the receipt alone.
    fn coverage(&self, checks: &mut Checks, covers: &[String], nonce: NonceCheck) {
        let id = "compare.coverage";
        let has = |name: &str| covers.iter().any(|c| c == name);
        let mut missing = Vec::new();
        if !has("request") && !has("inputs") {
            missing.push("the request");
        }
        if !has("response") && !has("outputs") {
            missing.push("the answer");
        }
        if nonce == NonceCheck::Missing {
            missing.push("your nonce");
        }
        let reason = format!("not compared with {}", missing.join(", "));
        if missing.is_empty() {
            checks.pass(id, Value::Null, json!(covers));
        } else if self.comparison.receipt_only {
            checks.unconsidered(id, format!("{reason}: you judge the receipt alone"));
        } else {
            checks.not_evaluated(id, Fault::Policy, Value::Null, reason);
        }
    }
}

impl Committed {
    /// The digest that the enclave committed to, if the opening shows it.
    fn open(&self, checks: &mut Checks) -> Option<Digest> {
        let opening = self.opening?;
        let found = commit(self.role, &opening.salt, &opening.digest);
        let expected = self.commitment.map_or(Value::Null, |c| json!(c));
        if self.commitment == Some(found) {
            checks.pass(self.opening_id, expected, json!(found));
            return Some(opening.digest);
        }
        let reason = match self.commitment {
            Some(_) => "the opening does not reproduce the receipt's commitment",
            None => "the receipt has no such commitment to open",
        };
        checks.fail(
            self.opening_id,
            Fault::NotAuthentic,
            expected,
            json!(found),
            reason,
        );
        None
    }

    /// Whether what the caller holds is what the enclave committed to.
    fn compare(&self, checks: &mut Checks, opened: Option<Digest>, own: Digest) -> bool {
        let (id, name) = (self.compare_id, self.role.name());
        let Some(opened) = opened else {
            let reason = format!("the bundle has no opening that shows the {name} digest");
            checks.not_evaluated(id, Fault::Policy, Value::Null, reason);
            return false;
        };
        let (expected, found) = (opened.to_string(), own.to_string());
        if opened == own {
            checks.pass(id, expected, found);
            return true;
        }
        let reason = format!("the {name} you gave is not the one this receipt is about");
        checks.fail(id, Fault::NotAuthentic, expected, found, reason);
        false
    }
}

fn ids(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Request => ("opening.request", "compare.request"),
        Role::Response => ("opening.response", "compare.response"),
        Role::Inputs => ("opening.inputs", "compare.inputs"),
        Role::Outputs => ("opening.outputs", "compare.outputs"),
    }
}
