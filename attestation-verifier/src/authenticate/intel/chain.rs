//! The chains PCK ← PCK CA ← root and TCB signing ← root, and the revocation lists of the CA and of the root
//! (Intel SGX PCK Certificate and CRL Profile; RFC 5280 §6 as far as these certificates need it).

use std::sync::Arc;

use serde_json::{Value, json};
use touchstone_formats::evidence::Tee;
use touchstone_formats::text::hex_encode;

use super::{Part, PartKind};
use crate::authenticate::{Window, issued};
use crate::crypto::Budget;
use crate::dates::rfc3339;
use crate::parse::cert::{CRL_SIGN, Certificate, DIGITAL_SIGNATURE, PublicKey};
use crate::parse::crl::Crl;
use crate::parse::tdx::{Parsed, PckCa, TdxParts};
use crate::roots::{Anchor, Roots};
use crate::verdict::{Checks, Fault};

const PCK: &str = "the PCK certificate";
const CA: &str = "the PCK CA";
const ROOT: &str = "the root";
const SIGNER: &str = "the TCB signing certificate";
const PCK_CRL: &str = "the PCK revocation list";
const ROOT_CRL: &str = "the root's revocation list";

/// Certificates that name each other; the root is a trusted one.
pub(super) struct Path<'a> {
    pub(super) pck: &'a Certificate,
    /// Which CA the PCK's certificate says issued it.
    kind: Option<PckCa>,
    /// The PCK CA's certificate in the quote.
    ca: &'a Certificate,
    /// The one that came with its revocation list, if that is another.
    list_ca: Option<&'a Certificate>,
    pub(super) anchor: &'a Anchor,
    /// Who signed TCB info and QE identity: one certificate or two, or none if neither came.
    signers: Vec<&'a Certificate>,
}

/// Finds the paths to one root. Certificates that came with the evidence are never roots: where a chain goes on to a root, that
/// has to be the very certificate that is trusted, so that nothing unverified rides along.
pub(super) fn find<'a>(
    parsed: &'a Parsed,
    roots: &'a Roots,
    budget: &mut Budget<'_>,
    checks: &mut Checks,
) -> Option<Path<'a>> {
    let id = "tdx.chain.root";
    let [pck, ca, above @ ..] = parsed.quote.pck_chain.as_ref() else {
        let reason = "the quote's chain lacks the PCK CA's certificate";
        checks.fail(id, Fault::NotAuthentic, Value::Null, Value::Null, reason);
        return None;
    };
    let named: Vec<&Anchor> = roots
        .of(Tee::Tdx)
        .filter(|anchor| anchor.certificate.subject == ca.issuer)
        .collect();
    // Several of one name: the caller named a root that is called like another. The one that signed is meant.
    let signed =
        |anchor: &&&Anchor| named.len() == 1 || issued(&anchor.certificate, ca.into(), budget);
    let Some(anchor) = named.iter().find(signed).or(named.first()).copied() else {
        let names: Vec<&str> = roots
            .of(Tee::Tdx)
            .map(|a| a.certificate.subject_cn.as_str())
            .collect();
        let issuer = ca.issuer_words();
        let reason =
            format!("the PCK CA's certificate was issued by {issuer:?}, which is no trusted root");
        checks.fail(id, Fault::NotAuthentic, json!(names), issuer, reason);
        return None;
    };
    let mut signers: Vec<&Certificate> = Vec::new();
    let mut tops: Vec<&Certificate> = above.iter().collect();
    let texts = [
        parsed.parts.tcb_info.as_ref().map(|text| &text.chain),
        parsed.parts.qe_identity.as_ref().map(|text| &text.chain),
    ];
    for chain in texts.into_iter().flatten() {
        if let Some((signer, above)) = chain.split_first() {
            if !signers.contains(&signer.as_ref()) {
                signers.push(signer);
            }
            tops.extend(above.iter().map(Arc::as_ref));
        }
    }
    let mut list_chain = parsed.parts.pck_crl_chain.iter().map(Arc::as_ref);
    let list_ca = list_chain.next().filter(|other| *other != ca);
    tops.extend(list_chain);
    let root = &anchor.certificate;
    if let Some(other) = tops.iter().find(|top| top.der() != root.der()) {
        let reason = "a certificate stands in the root's place that is not the trusted root";
        let found = other.subject_words();
        let expected = root.subject_words();
        checks.fail(id, Fault::NotAuthentic, expected, found, reason);
        return None;
    }
    let name = root.subject_cn.as_str();
    checks.pass_because(id, Value::Null, name, anchor.kind());
    Some(Path {
        pck,
        kind: parsed.pck.ca,
        ca,
        list_ca,
        anchor,
        signers,
    })
}

impl<'a> Path<'a> {
    fn certificates(&self) -> impl Iterator<Item = (&'static str, &'a Certificate)> {
        let root = &self.anchor.certificate;
        let signers = self.signers.clone().into_iter();
        [(PCK, self.pck), (CA, self.ca), (ROOT, root)]
            .into_iter()
            .chain(self.list_ca.map(|ca| (CA, ca)))
            .chain(signers.map(|signer| (SIGNER, signer)))
    }

    fn cas(&self) -> impl Iterator<Item = &'a Certificate> {
        [self.ca].into_iter().chain(self.list_ca)
    }

    /// Signatures, and what issuing certificates must be.
    pub(super) fn check(&self, budget: &mut Budget<'_>, checks: &mut Checks) {
        let id = "tdx.chain.signature";
        let root = &self.anchor.certificate;
        let own = [
            (
                "the root did not sign the PCK CA's certificate",
                self.ca,
                root,
            ),
            (
                "the PCK CA did not sign the PCK certificate",
                self.pck,
                self.ca,
            ),
        ];
        let list_ca = self.list_ca.map(|ca| {
            let reason = "the root did not sign the certificate of the revocation list's CA";
            (reason, ca, root)
        });
        let signers = self.signers.iter().map(|signer| {
            let reason = "the quote's root did not sign the TCB signing certificate";
            (reason, *signer, root)
        });
        let mut signed = true;
        for (reason, subject, issuer) in own.into_iter().chain(list_ca).chain(signers) {
            if !issued(issuer, subject.into(), budget) {
                signed = false;
                let found = subject.subject_words();
                checks.fail(id, Fault::NotAuthentic, Value::Null, found, reason);
            }
        }
        if signed {
            checks.pass(id, Value::Null, Value::Null);
        }
        let id = "tdx.chain.constraints";
        match self.constraints() {
            Ok(()) => checks.pass(id, Value::Null, Value::Null),
            Err((reason, subject)) => {
                let found = subject.subject_words();
                checks.fail(id, Fault::NotAuthentic, Value::Null, found, reason);
            }
        }
    }

    /// Names, basicConstraints, keyUsage, critical extensions (RFC 5280 §6.1.3, §6.1.4). The root was looked at when it was
    /// trusted. The root signs certificates of more than one kind: only the names tell them apart, as in Intel's own library.
    fn constraints(&self) -> Result<(), (&'static str, &'a Certificate)> {
        if self.pck.issuer != self.ca.subject {
            return Err(("issued by another name than the PCK CA's", self.pck));
        }
        if self.kind.is_none() {
            let reason =
                "its issuer is called neither SGX PCK Processor CA nor SGX PCK Platform CA";
            return Err((reason, self.ca));
        }
        if let Some(ca) = self.cas().find(|ca| !ca.may_sign_certificates()) {
            let reason = "not a CA with keyCertSign (basicConstraints, keyUsage)";
            return Err((reason, ca));
        }
        // The same CA, certified again; any other is none of ours.
        fn identity(ca: &Certificate) -> (&[u8], &[u8], &PublicKey) {
            (&ca.issuer, &ca.subject, &ca.key)
        }
        let ours = identity(self.ca);
        if let Some(other) = self.list_ca.filter(|ca| identity(ca) != ours) {
            let reason = "pck_crl_issuer_chain is of another CA than the quote's";
            return Err((reason, other));
        }
        if !self.pck.subject_cn.contains("SGX PCK Certificate") {
            return Err(("not called a PCK certificate", self.pck));
        }
        for signer in &self.signers {
            if signer.issuer != self.anchor.certificate.subject {
                return Err(("issued by another name than the root's", signer));
            }
            if !signer.subject_cn.contains("SGX TCB Signing") {
                return Err(("not called a TCB signing certificate", signer));
            }
        }
        for leaf in self.signers.iter().chain([&self.pck]) {
            if leaf.may_sign_certificates() || matches!(leaf.basic_constraints, Some((true, _))) {
                return Err(("a CA where none belongs", leaf));
            }
            if !leaf.key_may(DIGITAL_SIGNATURE) {
                return Err(("a key that may not sign (keyUsage)", leaf));
            }
        }
        let mut all = self.certificates();
        match all.find(|(_, c)| c.unknown_critical().is_some()) {
            None => Ok(()),
            Some((_, certificate)) => {
                Err(("a critical extension that is not understood", certificate))
            }
        }
    }

    /// Every certificate is valid at the time of judgement; if not, says when all would be.
    pub(super) fn validity(&self, time: u64, parts: &mut Vec<Part>, checks: &mut Checks) {
        let own: Vec<Part> = self
            .certificates()
            .map(|(name, certificate)| Part {
                name,
                kind: PartKind::Certificate,
                window: Window {
                    from: certificate.not_before,
                    to: certificate.not_after,
                },
            })
            .collect();
        super::valid("tdx.chain.validity", &own, time, checks);
        parts.extend(own);
    }

    /// Each revocation list is its issuer's own, understood, and lists none of these certificates. Pushes when each of them is good;
    /// whether one must be there, and be current, is the policy's to say (`tdx.chain.crl`). What is revoked stays revoked, also in
    /// a list that is out of date.
    pub(super) fn revocation(
        &self,
        collateral: &TdxParts,
        budget: &mut Budget<'_>,
        parts: &mut Vec<Part>,
        checks: &mut Checks,
    ) {
        let root = &self.anchor.certificate;
        let under_root = self.cas().map(|ca| (CA, ca)).chain([(ROOT, root)]);
        let under_root = under_root.chain(self.signers.iter().map(|signer| (SIGNER, *signer)));
        let lists = [
            (PCK_CRL, &collateral.pck_crl, self.ca, vec![(PCK, self.pck)]),
            (ROOT_CRL, &collateral.root_crl, root, under_root.collect()),
        ];
        let (mut sent, mut genuine, mut clear) = (0, 0, 0);
        for (name, crl, issuer, listed) in lists {
            let Some(crl) = crl else {
                continue;
            };
            sent += 1;
            if !own(name, crl, issuer, budget, checks) {
                continue;
            }
            genuine += 1;
            if !none_revoked(name, crl, &listed, checks) {
                continue;
            }
            clear += 1;
            parts.push(Part {
                name,
                kind: PartKind::Crl,
                // Good strictly before nextUpdate (formats.md §7, "Time").
                window: Window {
                    from: crl.this_update,
                    to: crl.next_update.saturating_sub(1),
                },
            });
        }
        // Where fewer are left than before, a check said why.
        for (id, before, left) in [
            ("tdx.chain.crl_signature", sent, genuine),
            ("tdx.chain.revoked", genuine, clear),
        ] {
            if left == 2 {
                checks.pass(id, Value::Null, Value::Null);
            } else if left == before {
                let reason = "not both revocation lists are there and genuine: see tdx.chain.crl";
                checks.unconsidered(id, reason);
            }
        }
    }
}

/// The list was issued by this CA, and nothing in it turns its meaning around.
fn own(
    name: &str,
    crl: &Crl,
    issuer: &Certificate,
    budget: &mut Budget<'_>,
    checks: &mut Checks,
) -> bool {
    let mut fail = |found: &str, reason: &str| {
        let id = "tdx.chain.crl_signature";
        let expected = issuer.subject_words();
        let reason = format!("{name} {reason}");
        checks.fail(id, Fault::NotAuthentic, expected, found, reason);
        false
    };
    if crl.issuer != issuer.subject {
        fail(&crl.issuer_words(), "is another issuer's")
    } else if !issuer.key_may(CRL_SIGN) {
        fail(
            &crl.issuer_words(),
            "is of a CA that may not sign any (keyUsage)",
        )
    } else if !issued(issuer, crl.into(), budget) {
        fail(&crl.issuer_words(), "is not signed by its issuer")
    } else if let Some(extension) = &crl.critical {
        fail(
            &extension.name(),
            "has a critical extension that is not understood",
        )
    } else {
        true
    }
}

fn none_revoked(
    name: &str,
    crl: &Crl,
    listed: &[(&str, &Certificate)],
    checks: &mut Checks,
) -> bool {
    let Some((which, certificate)) = listed.iter().find(|(_, c)| crl.revoked.contains(&c.serial))
    else {
        return true;
    };
    let serial = hex_encode(&certificate.serial);
    let reason = format!(
        "{which} is revoked by {name} of {}",
        rfc3339(crl.this_update)
    );
    let id = "tdx.chain.revoked";
    checks.fail(id, Fault::NotAuthentic, Value::Null, serial, reason);
    false
}
