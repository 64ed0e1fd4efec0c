//! Authentication: is this what AMD's hardware made, as far as signatures can tell? ([`intel`] asks the same of Intel's.)
//!
//! No policy decides anything here, and nothing can be waived. [`authenticate`] takes a
//! [`Parsed`] and gives an [`Authentic`], which can be had in no other way:
//!
//! ```compile_fail
//! # use attestation_verifier::{At, Checks, parse::Parsed, policy::{Platform, Rule}};
//! # fn f(parsed: &Parsed, platform: &Platform, age: &Rule<u64>, at: At) -> Checks {
//! // Appraising what was only parsed does not compile.
//! attestation_verifier::appraise::snp::appraise(parsed, platform, age, at, None)
//! # }
//! ```
//!
//! ```
//! # use attestation_verifier::{At, Checks, authenticate::Authentic, policy::{Platform, Rule}};
//! # fn f(authentic: &Authentic, platform: &Platform, age: &Rule<u64>, at: At) -> Checks {
//! // Appraising what was authenticated does.
//! attestation_verifier::appraise::snp::appraise(authentic, platform, age, at, None)
//! # }
//! ```

mod chain;
pub mod intel;
pub(crate) mod vek;

use serde_json::{Value, json};
use touchstone_formats::text::hex_encode;

use crate::crypto::{Budget, Signed};
use crate::dates::rfc3339;
use crate::known::Known;
use crate::parse::cert::{Certificate, PublicKey};
use crate::parse::crl::Crl;
use crate::parse::snp::{Report, SigningKey};
use crate::parse::vek::{VekExtensions, VekIdentity};
use crate::parse::{Parsed, SnpParts};
use crate::product::Product;
use crate::roots::Roots;
use crate::verdict::{Checks, Fault};

/// Evidence whose every signature and binding holds, up to a trusted root. What it says is what
/// the platform said; whether that is good enough is for [`mod@crate::appraise`] to say.
#[derive(Clone, Debug)]
pub struct Authentic {
    report: Report,
    vek: VekExtensions,
    product: Product,
    root: Root,
    revocation: Vec<Window>,
}

/// The root that the chain ends in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its common name.
    pub name: String,
    /// Named by the caller, not pinned.
    pub simulated: bool,
    /// What a verdict has to say of it.
    pub note: Option<&'static str>,
}

/// From when to when something is good, Unix seconds, the last one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First second.
    pub from: u64,
    /// Last second.
    pub to: u64,
}

impl Window {
    /// Whether a time lies in it.
    pub fn holds(self, time: u64) -> bool {
        (self.from..=self.to).contains(&time)
    }

    /// In words.
    pub fn words(self) -> String {
        format!("{} to {}", rfc3339(self.from), rfc3339(self.to))
    }
}

impl Authentic {
    /// The report.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What the endorsement key's certificate says.
    pub fn vek(&self) -> &VekExtensions {
        &self.vek
    }

    /// The product that report, certificate and root agree upon.
    pub fn product(&self) -> Product {
        self.product
    }

    /// The part whose TCB floors apply: the product, or a variant of it. A report of version 2
    /// cannot say, and then it is the product.
    pub fn variant(&self) -> &'static str {
        let variant = self.report.cpuid().and_then(|cpuid| cpuid.variant());
        variant.unwrap_or(self.product.name())
    }

    /// The root that the chain ends in.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Validity of each revocation list that the root signed and that revokes none of these
    /// certificates.
    pub fn revocation(&self) -> &[Window] {
        &self.revocation
    }
}

/// Verifies signatures and bindings of evidence at a time (Unix seconds). All checks run that can. `None`
/// if one of them shows that the evidence is not authentic, or if collateral is missing; certificates outside their
/// validity are reported (exit 5) and the rest is judged all the same.
pub fn authenticate(
    parsed: Parsed,
    roots: &Roots,
    time: u64,
    checks: &mut Checks,
) -> Option<Authentic> {
    authenticate_known(parsed, roots, time, &Known::nothing(), checks)
}

/// The same for a verifier that may have verified some of the signatures before.
pub(crate) fn authenticate_known(
    parsed: Parsed,
    roots: &Roots,
    time: u64,
    known: &Known,
    checks: &mut Checks,
) -> Option<Authentic> {
    let Parsed { report, parts, .. } = parsed;
    let SnpParts { vek, chain, crls } = parts.as_ref();
    let mut budget = Budget::new(known);

    let Some((certificate, extensions)) = vek else {
        missing(checks, "the endorsement key's certificate (vek) is missing");
        return None;
    };
    let Some(path) = chain::find(certificate, chain, roots, &mut budget, checks) else {
        signature(&report, &certificate.key, &mut budget, checks);
        return None;
    };
    checks.pass("snp.collateral", Value::Null, Value::Null);

    let genuine = path.check(&mut budget, checks);
    path.validity(time, checks);
    let revocation = path.revocation(crls, &mut budget, checks);
    signature(&report, &certificate.key, &mut budget, checks);
    let product = vek::bindings(&report, extensions, &path, checks);

    let authentic = genuine && checks.iter().all(|c| !c.refuses() || outdated(c.fault));
    authentic.then_some(Authentic {
        report,
        vek: extensions.clone(),
        product: product?,
        root: Root {
            name: path.anchor.certificate.subject_cn.clone(),
            simulated: path.anchor.simulated,
            note: path.anchor.note(),
        },
        revocation,
    })
}

/// What an issuer signed: a certificate or a revocation list.
pub(crate) struct Issued<'a> {
    signed: Signed<'a>,
    pss_sha384: bool,
    ecdsa_sha256: bool,
}

impl<'a> From<&'a Certificate> for Issued<'a> {
    fn from(certificate: &'a Certificate) -> Issued<'a> {
        Issued {
            signed: certificate.signed(),
            pss_sha384: certificate.signed_with_pss_sha384,
            ecdsa_sha256: certificate.signed_with_ecdsa_sha256,
        }
    }
}

impl<'a> From<&'a Crl> for Issued<'a> {
    fn from(crl: &'a Crl) -> Issued<'a> {
        Issued {
            signed: crl.signed(),
            pss_sha384: crl.signed_with_pss_sha384,
            ecdsa_sha256: crl.signed_with_ecdsa_sha256,
        }
    }
}

/// Whether the issuer's key signed it, with the one algorithm that its vendor uses for keys of that kind.
pub(crate) fn issued(issuer: &Certificate, issued: Issued<'_>, budget: &mut Budget<'_>) -> bool {
    match &issuer.key {
        PublicKey::Rsa(key) => issued.pss_sha384 && budget.rsa_pss_sha384(key, issued.signed),
        PublicKey::P256(point) => {
            issued.ecdsa_sha256 && budget.p256_sha256_der(point, issued.signed)
        }
        PublicKey::P384(_) | PublicKey::Other => false,
    }
}

/// Faults that leave the evidence authentic.
fn outdated(fault: Option<Fault>) -> bool {
    fault.is_none_or(|fault| fault == Fault::CollateralExpired)
}

fn missing(checks: &mut Checks, reason: &str) {
    let expected = json!(["vek", "chain"]);
    checks.fail(
        "snp.collateral",
        Fault::CollateralMissing,
        expected,
        Value::Null,
        reason,
    );
}

/// The report's signature, over the bytes as they were received.
fn signature(report: &Report, key: &PublicKey, budget: &mut Budget<'_>, checks: &mut Checks) {
    let id = "snp.signature";
    let fail = |checks: &mut Checks, reason: &str| {
        checks.fail(id, Fault::NotAuthentic, Value::Null, Value::Null, reason);
    };
    if report.signing_key() == SigningKey::None || report.chip_key_masked() {
        return fail(
            checks,
            "the report says that it is not signed (SIGNING_KEY, MASK_CHIP_KEY)",
        );
    }
    let PublicKey::P384(point) = key else {
        return fail(checks, "the endorsement key is not on P-384");
    };
    if budget.p384_sha384(point, report.signed_part(), &report.signature()) {
        checks.pass(id, Value::Null, Value::Null);
    } else {
        fail(checks, "the endorsement key did not sign these bytes");
    }
}

/// Short form of an identity, for people.
pub(crate) fn identity_value(identity: &VekIdentity) -> Value {
    match identity {
        VekIdentity::Chip(hwid) => json!(hex_encode(hwid)),
        VekIdentity::Provider(csp) => json!(csp),
    }
}
