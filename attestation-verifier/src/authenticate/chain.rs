//! The chain VCEK ← ASK ← ARK, or VLEK ← ASVK ← ARK, and the ARK's revocation list
//! (AMD 57230; RFC 5280 §6 as far as three certificates need it).

use serde_json::{Value, json};
use touchstone_formats::evidence::Tee;
use touchstone_formats::text::hex_encode;

use super::{Window, issued, missing};
use crate::crypto::Budget;
use crate::parse::cert::{CRL_SIGN, Certificate};
use crate::parse::crl::Crl;
use crate::roots::{Anchor, Roots};
use crate::verdict::{Checks, Fault};

/// Revocation lists that one evidence object may bring: AMD publishes two per root.
const MOST_CRLS: usize = 4;

/// Three certificates that name each other; the root is a trusted one.
pub(super) struct Path<'a> {
    pub(super) vek: &'a Certificate,
    pub(super) intermediate: &'a Certificate,
    pub(super) anchor: &'a Anchor,
}

/// Finds the path. Certificates that came with the evidence are never roots: an entry that *is* a trusted root is
/// passed over, and what is left has to be the one intermediate, so that nothing unverified rides along.
pub(super) fn find<'a>(
    vek: &'a Certificate,
    chain: &'a [Certificate],
    roots: &'a Roots,
    budget: &mut Budget<'_>,
    checks: &mut Checks,
) -> Option<Path<'a>> {
    let id = "snp.chain.root";
    let mut others = chain
        .iter()
        .filter(|certificate| !roots.hold(Tee::SevSnp, certificate.der()));
    let Some(intermediate) = others.next() else {
        missing(
            checks,
            "the intermediate certificate (ASK or ASVK) is missing",
        );
        return None;
    };
    if let Some(more) = others.next() {
        let reason = "a certificate beside the one intermediate, and no trusted root";
        let found = more.subject_words();
        checks.fail(id, Fault::NotAuthentic, Value::Null, found, reason);
        return None;
    }
    let named: Vec<&Anchor> = roots
        .of(Tee::SevSnp)
        .filter(|anchor| anchor.certificate.subject == intermediate.issuer)
        .collect();
    // Several of one name: the caller named a root that is called like another. The one that signed is meant.
    let signed = |anchor: &&&Anchor| {
        named.len() == 1 || issued(&anchor.certificate, intermediate.into(), budget)
    };
    let Some(anchor) = named.iter().find(signed).or(named.first()).copied() else {
        let names: Vec<&str> = roots
            .of(Tee::SevSnp)
            .map(|a| a.certificate.subject_cn.as_str())
            .collect();
        let issuer = intermediate.issuer_words();
        let reason = format!("the intermediate was issued by {issuer:?}, which is no trusted root");
        checks.fail(id, Fault::NotAuthentic, json!(names), issuer, reason);
        return None;
    };
    let name = anchor.certificate.subject_cn.as_str();
    checks.pass_because(id, Value::Null, name, anchor.kind());
    Some(Path {
        vek,
        intermediate,
        anchor,
    })
}

impl Path<'_> {
    fn certificates(&self) -> [(&'static str, &Certificate); 3] {
        [
            ("the endorsement key's certificate", self.vek),
            ("the intermediate", self.intermediate),
            ("the root", &self.anchor.certificate),
        ]
    }

    /// Signatures, and what issuing certificates must be.
    pub(super) fn check(&self, budget: &mut Budget<'_>, checks: &mut Checks) -> bool {
        let id = "snp.chain.signature";
        let links = [
            (
                "the root did not sign the intermediate",
                self.intermediate,
                &self.anchor.certificate,
            ),
            (
                "the intermediate did not sign the endorsement key's certificate",
                self.vek,
                self.intermediate,
            ),
        ];
        let mut signed = true;
        for (reason, subject, issuer) in links {
            if !issued(issuer, subject.into(), budget) {
                signed = false;
                let found = subject.subject_words();
                checks.fail(id, Fault::NotAuthentic, Value::Null, found, reason);
            }
        }
        if signed {
            checks.pass(id, Value::Null, Value::Null);
        }
        let id = "snp.chain.constraints";
        match self.constraints() {
            Ok(()) => checks.pass(id, Value::Null, Value::Null),
            Err((reason, subject)) => {
                let found = subject.subject_words();
                checks.fail(id, Fault::NotAuthentic, Value::Null, found, reason);
                signed = false;
            }
        }
        signed
    }

    /// Names, basicConstraints, keyUsage, critical extensions (RFC 5280 §6.1.3, §6.1.4). The root was looked at
    /// when it was trusted.
    fn constraints(&self) -> Result<(), (&'static str, &Certificate)> {
        let (vek, intermediate) = (self.vek, self.intermediate);
        if vek.issuer != intermediate.subject {
            return Err(("issued by another name than the intermediate's", vek));
        }
        if !intermediate.may_sign_certificates() {
            return Err((
                "not a CA with keyCertSign (basicConstraints, keyUsage)",
                intermediate,
            ));
        }
        if vek.may_sign_certificates() || matches!(vek.basic_constraints, Some((true, _))) {
            return Err(("an endorsement key's certificate that is a CA", vek));
        }
        if let Some((_, certificate)) = self
            .certificates()
            .into_iter()
            .find(|(_, c)| c.unknown_critical().is_some())
        {
            return Err(("a critical extension that is not understood", certificate));
        }
        Ok(())
    }

    /// Every certificate is valid at the time of judgement; if not, says when all would be.
    pub(super) fn validity(&self, time: u64, checks: &mut Checks) {
        let id = "snp.chain.validity";
        let window = |c: &Certificate| Window {
            from: c.not_before,
            to: c.not_after,
        };
        let all = self
            .certificates()
            .map(|(_, certificate)| window(certificate));
        let common = Window {
            from: all.iter().map(|w| w.from).max().unwrap_or(u64::MAX),
            to: all.iter().map(|w| w.to).min().unwrap_or(0),
        };
        let outside = self
            .certificates()
            .into_iter()
            .find(|(_, c)| !window(c).holds(time));
        let found = crate::dates::rfc3339(time);
        match outside {
            None => checks.pass(id, common.words(), found),
            Some((name, certificate)) => {
                let reason = if common.from <= common.to {
                    format!(
                        "{name} is not valid at this time; the chain holds from {}",
                        common.words()
                    )
                } else {
                    let own = window(certificate).words();
                    format!("{name} is valid from {own}, and the chain at no time")
                };
                checks.fail(id, Fault::CollateralExpired, common.words(), found, reason);
            }
        }
    }

    /// Every revocation list is the root's own, understood, and lists none of these certificates. Returns when each
    /// of them is good; whether one must be there, and be current, is the policy's to say (`snp.chain.crl`). What is
    /// revoked stays revoked, also in a list that is out of date.
    pub(super) fn revocation(
        &self,
        crls: &[Crl],
        budget: &mut Budget<'_>,
        checks: &mut Checks,
    ) -> Vec<Window> {
        let id = "snp.chain.revoked";
        if crls.is_empty() {
            checks.unconsidered(
                id,
                "no revocation list came with the evidence: see snp.chain.crl",
            );
            return Vec::new();
        }
        let mut windows = Vec::new();
        let fail = |checks: &mut Checks, found: Value, reason: &str| {
            checks.fail(id, Fault::NotAuthentic, Value::Null, found, reason);
        };
        if crls.len() > MOST_CRLS {
            fail(
                checks,
                json!(crls.len()),
                "more revocation lists than a root publishes",
            );
            return windows;
        }
        for (index, crl) in crls.iter().enumerate() {
            let issuer = || json!(crl.issuer_words());
            let root = &self.anchor.certificate;
            if crls
                .iter()
                .take(index)
                .any(|before| before.der() == crl.der())
            {
                fail(checks, issuer(), "the same revocation list twice");
            } else if crl.issuer != root.subject {
                fail(
                    checks,
                    issuer(),
                    "a revocation list of another issuer than the root",
                );
            } else if root.key_usage.is_some_and(|usage| usage & CRL_SIGN == 0) {
                fail(
                    checks,
                    issuer(),
                    "a root that may not sign revocation lists (keyUsage)",
                );
            } else if !issued(root, crl.into(), budget) {
                fail(
                    checks,
                    issuer(),
                    "a revocation list that the root did not sign",
                );
            } else if let Some(extension) = &crl.critical {
                let name = json!(extension.name());
                fail(
                    checks,
                    name,
                    "a critical extension of a revocation list that is not understood",
                );
            } else if let Some((name, certificate)) = self
                .certificates()
                .into_iter()
                .find(|(_, c)| crl.revoked.contains(&c.serial))
            {
                let serial = json!(hex_encode(&certificate.serial));
                fail(checks, serial, &format!("{name} is revoked"));
            } else {
                // Good strictly before nextUpdate (formats.md §7, "Time").
                windows.push(Window {
                    from: crl.this_update,
                    to: crl.next_update.saturating_sub(1),
                });
            }
        }
        if windows.len() == crls.len() {
            checks.pass(id, Value::Null, Value::Null);
        }
        windows
    }
}
