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

use serde_json::Value;
use touchstone_formats::evidence::{Collateral, Evidence, Tee};

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
    /// The endorsement key's certificate and what its extensions say; absent collateral is none.
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
    let mut parsed = Parsed {
        report: report?,
        vek: None,
        chain: Vec::new(),
        crls: Vec::new(),
    };
    let Some(Collateral::SevSnp(collateral)) = &evidence.collateral else {
        return checks.hold().then_some(parsed);
    };
    if let Some(der) = &collateral.vek {
        match Certificate::parse(der) {
            Err(error) => malformed(checks, "snp.collateral", format!("vek: {error}")),
            Ok(certificate) => match VekExtensions::read(&certificate) {
                Ok(extensions) => {
                    checks.pass("snp.vek.extensions", Value::Null, Value::Null);
                    parsed.vek = Some((certificate, extensions));
                }
                Err(error) => malformed(checks, "snp.vek.extensions", error.to_string()),
            },
        }
    }
    for (index, der) in collateral.chain.iter().enumerate() {
        match Certificate::parse(der) {
            Ok(certificate) => parsed.chain.push(certificate),
            Err(error) => malformed(checks, "snp.collateral", format!("chain[{index}]: {error}")),
        }
    }
    for (index, der) in collateral.crls.iter().enumerate() {
        match Crl::parse(der) {
            Ok(crl) => parsed.crls.push(crl),
            Err(error) => malformed(checks, "snp.collateral", format!("crls[{index}]: {error}")),
        }
    }
    checks.hold().then_some(parsed)
}

pub(crate) fn malformed(checks: &mut Checks, id: &'static str, reason: String) {
    checks.fail(id, Fault::Malformed, Value::Null, Value::Null, reason);
}
