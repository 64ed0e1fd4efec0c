//! The receipt under its keyset, and its claims against the policy (formats.md §2, §4, §5, §7).

use serde_json::{Value, json};
use touchstone_formats::text::hex_encode;

use super::{CLOCK_AHEAD, Judging, rule};
use crate::dates::rfc3339;
use crate::keyset;
use crate::manifest::Manifest;
use crate::policy::Digests;
use crate::reference::{NONE_GIVEN, Ruling, model_names, without};
use crate::verdict::{Checks, Fault};

/// How the caller's nonce was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NonceCheck {
    /// Compared with the caller's, and equal.
    Compared,
    /// Not compared, and the policy expects it to be.
    Missing,
    /// Not compared, and it need not be; or refused already.
    Settled,
}

impl Judging<'_> {
    /// Signature and claims 1 and -65601: whether this keyset made this receipt.
    pub(super) fn receipt_under_keyset(&self, checks: &mut Checks) -> bool {
        let (receipt, keyset) = (&self.parts.receipt, &self.parts.bundle.keyset);
        let key = hex_encode(&keyset.receipt_key.0);
        let signed = receipt.verify(&keyset.receipt_key.0);
        if signed {
            checks.pass("receipt.signature", key.clone(), key);
        } else {
            checks.fail(
                "receipt.signature",
                Fault::NotAuthentic,
                key,
                Value::Null,
                "the receipt is not signed by the keyset's receipt_key",
            );
        }
        let expected = json!({ "name": keyset.name, "digest": self.parts.keyset_digest });
        let claims = &receipt.claims;
        let found = json!({ "name": claims.iss, "digest": claims.keyset_digest });
        let named = expected == found;
        if named {
            checks.pass("receipt.keyset", expected, found);
        } else {
            let reason = "the receipt names another keyset than the one in the bundle";
            checks.fail(
                "receipt.keyset",
                Fault::NotAuthentic,
                expected,
                found,
                reason,
            );
        }
        signed && named
    }

    /// The keyset's lifetime holds `iat`, and is no longer than the policy allows; its name is one of the policy's.
    pub(super) fn keyset_lifetime(&self, checks: &mut Checks) {
        let keyset = &self.parts.bundle.keyset;
        let iat = self.parts.receipt.claims.iat;
        let expected = json!([rfc3339(keyset.not_before), rfc3339(keyset.not_after)]);
        if (keyset.not_before..=keyset.not_after).contains(&iat) {
            checks.pass("keyset.lifetime", expected, rfc3339(iat));
        } else {
            let reason = "the receipt was not made within its keyset's lifetime";
            checks.fail(
                "keyset.lifetime",
                Fault::Platform,
                expected,
                rfc3339(iat),
                reason,
            );
        }
        keyset::span(checks, keyset, self.policy, self.at);
        keyset::name(checks, keyset, self.policy, self.at);
    }

    /// Status, times, model and configuration.
    pub(super) fn claims(&self, checks: &mut Checks) {
        let claims = &self.parts.receipt.claims;
        let answer = &self.policy.answer;

        let expected = self.comparison.expected_status;
        if claims.status == expected {
            checks.pass("receipt.status", expected, claims.status);
        } else {
            let reason = match (claims.status, expected) {
                (0, _) => "the receipt is for an answer, not for the refusal that was expected",
                (_, 0) => "the receipt is for a refusal, not for an answer",
                _ => "the receipt is for another refusal than the one expected",
            };
            checks.fail(
                "receipt.status",
                Fault::Policy,
                expected,
                claims.status,
                reason,
            );
        }

        let latest = self.at.time.saturating_add(CLOCK_AHEAD);
        if claims.iat <= latest {
            checks.pass("receipt.clock", rfc3339(latest), rfc3339(claims.iat));
        } else {
            let reason = "the receipt is dated after the time of judgement";
            let (latest, found) = (rfc3339(latest), rfc3339(claims.iat));
            checks.fail("receipt.clock", Fault::Platform, latest, found, reason);
        }

        let id = "receipt.fresh";
        let age = self.at.time.saturating_sub(claims.iat);
        rule(
            checks,
            id,
            &answer.fresh_seconds,
            self.at,
            json!(age),
            |checks, &most, found| {
                if age <= most {
                    checks.pass(id, most, found);
                } else {
                    let reason = "the receipt is older than the policy allows, in seconds";
                    checks.fail(id, Fault::Policy, most, found, reason);
                }
            },
        );

        for (id, list, digest, what) in [
            (
                "receipt.model",
                &answer.models,
                claims.model_digest,
                "model",
            ),
            (
                "receipt.config",
                &answer.configs,
                claims.config_digest,
                "configuration",
            ),
        ] {
            let found = json!(digest);
            rule(checks, id, list, self.at, found, |checks, list, found| {
                // §4: a refusal may have resolved none; `receipt.status` says whether one will do.
                if digest.is_none() && claims.status != 0 {
                    return checks.unconsidered(id, format!("a refusal that resolved no {what}"));
                }
                let verdict = match list {
                    Digests::These(list) => match digest.is_some_and(|d| list.contains(&d)) {
                        true => Ok(String::new()),
                        false => Err(format!("the policy does not accept this {what}")),
                    },
                    Digests::Manifest => match self.manifest() {
                        Err(why) => return without(checks, id, why),
                        Ok(manifest) => self.in_manifest(manifest, id),
                    },
                };
                match verdict {
                    Ok(reason) => checks.pass_because(id, list.to_value(), found, reason),
                    Err(reason) => {
                        checks.fail(id, Fault::Policy, list.to_value(), found, reason);
                    }
                }
            });
        }
        if claims.payment.is_some() {
            checks.unconsidered("receipt.payment", "this version does not evaluate payments");
        }
    }

    /// What the manifest that counts says.
    fn manifest(&self) -> Result<&Manifest, &str> {
        self.by.ruling.map_or(Err(NONE_GIVEN), Ruling::manifest)
    }

    /// Whether the manifest has the receipt's model, or its configuration as one of that very model's.
    fn in_manifest(&self, manifest: &Manifest, id: &str) -> Result<String, String> {
        let claims = &self.parts.receipt.claims;
        let called = format!("{}, version {}", manifest.name, manifest.version);
        let model = claims
            .model_digest
            .and_then(|digest| manifest.model(&digest));
        let Some(model) = model else {
            return Err(format!("the model is not in the manifest {called}"));
        };
        let name = format!("{} version {}", model.name, model.version);
        let config = claims.config_digest;
        if id != "receipt.config" || config.is_some_and(|config| model.has_config(&config)) {
            return Ok(format!("{name}, by the manifest {called}"));
        }
        Err(format!(
            "the manifest {called} does not list this configuration for {name}"
        ))
    }

    /// The caller's nonce, which shows that the receipt is not older than the question.
    pub(super) fn nonce(&self, checks: &mut Checks) -> NonceCheck {
        let id = "receipt.nonce";
        let claimed = self.parts.receipt.claims.nonce.as_deref();
        let found = claimed.map_or(Value::Null, |n| json!(hex_encode(n)));
        // The caller's own nonce is compared whatever the policy says.
        if let Some(own) = self.comparison.nonce.as_deref() {
            let expected = hex_encode(own);
            if claimed == Some(own) {
                checks.pass(id, expected, found);
                return NonceCheck::Compared;
            }
            let reason = match claimed {
                Some(_) => "the receipt carries somebody else's nonce",
                None => "the receipt carries no nonce, and you sent one",
            };
            checks.fail(id, Fault::Dishonest, expected, found, reason);
            return NonceCheck::Settled;
        }
        let mut outcome = NonceCheck::Settled;
        rule(
            checks,
            id,
            &self.policy.answer.nonce,
            self.at,
            found,
            |checks, _, found| {
                if claimed.is_none() {
                    let reason = "the receipt carries no nonce; it may be older than the question";
                    checks.fail(id, Fault::Policy, "present", found, reason);
                    return;
                }
                outcome = NonceCheck::Missing;
                let reason = "present, and not compared: your own nonce was not given";
                checks.pass_because(id, "present", found, reason);
            },
        );
        outcome
    }

    /// The catalog, if the bundle has it, and what the verdict says about the model.
    pub(super) fn model(&self, checks: &mut Checks) -> Value {
        let claims = &self.parts.receipt.claims;
        let (epoch, digest) = claims.catalog;
        let mut names = Vec::new();
        if let Some(catalog) = &self.parts.bundle.catalog {
            let pair = (claims.model_digest, claims.config_digest);
            let served = catalog.models.iter().filter(|m| {
                pair.0.is_some_and(|d| d == m.model_digest)
                    && pair.1.is_none_or(|d| d == m.config_digest)
            });
            names = served
                .map(|m| json!({ "name": m.name, "version": m.version }))
                .collect();
            let expected =
                json!({ "keyset": claims.keyset_digest, "epoch": epoch, "digest": digest });
            let found = json!({
                "keyset": catalog.keyset_digest, "epoch": catalog.epoch, "digest": catalog.digest(),
            });
            let reason = if expected != found {
                Some("the catalog is not the one that was in force")
            } else if names.is_empty() && pair.0.is_some() {
                Some("the catalog does not hold the receipt's model and configuration")
            } else {
                None
            };
            match reason {
                None => checks.pass("receipt.catalog", expected, found),
                Some(reason) => {
                    let fault = Fault::NotAuthentic;
                    checks.fail("receipt.catalog", fault, expected, found, reason);
                }
            }
        } else {
            checks.unconsidered("receipt.catalog", "no catalog in the bundle");
        }
        let mut model = json!({
            "model_digest": claims.model_digest,
            "config_digest": claims.config_digest,
            // The operator's word, within this keyset.
            "served_as": names,
            "status": claims.status,
            "receipt": self.parts.receipt.id(),
            "sequence": claims.sequence,
            "issued_at": rfc3339(claims.iat),
            "keyset": self.parts.keyset_digest,
            "keyset_name": claims.iss,
        });
        model_names(self.by.ruling, claims.model_digest, &mut model);
        model
    }
}
