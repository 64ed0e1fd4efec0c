//! Parsing: bytes to fields, with every rule of form and no judgement.
//!
//! What parses is well-formed, nothing more: none of it is trusted before
//! [`crate::authenticate`] has seen it.

pub mod cert;
pub mod crl;
pub(crate) mod der;
pub mod json;
pub mod pem;
pub mod snp;
pub mod tdx;
pub mod vek;

use std::sync::Arc;

use serde_json::Value;
use touchstone_formats::evidence::{Collateral, Evidence, SnpCollateral, Tee};

use crate::known::Known;
use crate::verdict::{Checks, Fault};
use cert::Certificate;
use crl::Crl;
use snp::Report;
use vek::VekExtensions;

/// SEV-SNP evidence all of whose parts are well-formed. It can only be made by [`parse`], and only be
/// used by [`crate::authenticate::authenticate`].
#[derive(Clone, Debug)]
pub struct Parsed {
    pub(crate) report: Report,
    pub(crate) parts: Arc<SnpParts>,
    /// The parts were not known before.
    pub(crate) fresh: bool,
}

/// AMD's collateral; absent collateral is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct SnpParts {
    /// The endorsement key's certificate and what its extensions say.
    pub(crate) vek: Option<(Certificate, VekExtensions)>,
    pub(crate) chain: Vec<Certificate>,
    pub(crate) crls: Vec<Crl>,
}

impl Parsed {
    /// The report, of which nothing is proven.
    pub fn report(&self) -> &Report {
        &self.report
    }
}

/// Parses SEV-SNP evidence. `None`, with the checks that say why, if any part is malformed.
pub fn parse(evidence: &Evidence, checks: &mut Checks) -> Option<Parsed> {
    parse_known(evidence, &Known::nothing(), checks)
}

/// The same for a verifier that may have read the collateral before.
pub(crate) fn parse_known(
    evidence: &Evidence,
    known: &Known,
    checks: &mut Checks,
) -> Option<Parsed> {
    if evidence.tee != Tee::SevSnp {
        let reason = "evidence of this kind is not judged as SEV-SNP";
        checks.fail(
            "snp.format",
            Fault::Malformed,
            "sev-snp",
            evidence.tee.name(),
            reason,
        );
        return None;
    }
    let report = match Report::parse(&evidence.quote) {
        Ok(report) => {
            checks.pass("snp.format", Value::Null, Value::Null);
            Some(report)
        }
        Err(error) => {
            malformed(checks, "snp.format", error.to_string());
            None
        }
    };
    if evidence.event_log.is_some() {
        let reason = "no SEV-SNP report binds an event log: not looked at, and it achieves nothing";
        checks.unconsidered("evidence.event_log", reason);
    }
    let report = report?;
    let (parts, fresh) = match &evidence.collateral {
        Some(Collateral::SevSnp(collateral)) => match known.snp(collateral) {
            Some(parts) => {
                if parts.vek.is_some() {
                    checks.pass("snp.vek.extensions", Value::Null, Value::Null);
                }
                (parts, false)
            }
            None => (Arc::new(SnpParts::read(collateral, checks)), true),
        },
        Some(Collateral::Tdx(_)) | None => (Arc::default(), false),
    };
    checks.hold().then_some(Parsed {
        report,
        parts,
        fresh,
    })
}

impl SnpParts {
    /// What is well-formed of it; the checks say what is not.
    fn read(collateral: &SnpCollateral, checks: &mut Checks) -> SnpParts {
        let mut parts = SnpParts::default();
        if let Some(der) = &collateral.vek {
            match Certificate::parse(der) {
                Err(error) => malformed(checks, "snp.collateral", format!("vek: {error}")),
                Ok(certificate) => match VekExtensions::read(&certificate) {
                    Ok(extensions) => {
                        checks.pass("snp.vek.extensions", Value::Null, Value::Null);
                        parts.vek = Some((certificate, extensions));
                    }
                    Err(error) => malformed(checks, "snp.vek.extensions", error.to_string()),
                },
            }
        }
        for (index, der) in collateral.chain.iter().enumerate() {
            match Certificate::parse(der) {
                Ok(certificate) => parts.chain.push(certificate),
                Err(error) => {
                    malformed(checks, "snp.collateral", format!("chain[{index}]: {error}"));
                }
            }
        }
        for (index, der) in collateral.crls.iter().enumerate() {
            match Crl::parse(der) {
                Ok(crl) => parts.crls.push(crl),
                Err(error) => {
                    malformed(checks, "snp.collateral", format!("crls[{index}]: {error}"));
                }
            }
        }
        parts
    }
}

pub(crate) fn malformed(checks: &mut Checks, id: &'static str, reason: String) {
    checks.fail(id, Fault::Malformed, Value::Null, Value::Null, reason);
}
