//! What the quote's own signatures say: the PCK signed the quoting enclave's report, which binds the attestation key, which signed
//! the quote (Intel TDX DCAP Quoting Library API, A.3.8); and the enclave is the one that Intel describes.

use serde_json::Value;
use touchstone_formats::text::hex_encode;

use crate::crypto::{Budget, Signed, sha256};
use crate::parse::cert::PublicKey;
use crate::parse::tdx::quote::{QeReport, Quote};
use crate::parse::tdx::tcb::QeIdentity;
use crate::verdict::{Checks, Fault};

/// `tdx.qe.signature`, `tdx.qe.binding`, `tdx.signature`.
pub(super) fn signatures(quote: &Quote, budget: &mut Budget<'_>, checks: &mut Checks) {
    let mut check = |id: &'static str, right: bool, reason: &str| {
        if right {
            checks.pass(id, Value::Null, Value::Null);
        } else {
            checks.fail(id, Fault::NotAuthentic, Value::Null, Value::Null, reason);
        }
    };
    let pck = quote.pck_chain.first().map(|certificate| &certificate.key);
    let signed = match pck {
        Some(PublicKey::P256(point)) => {
            let signed = Signed::once(quote.qe_report.raw(), &quote.qe_report_signature);
            budget.p256_sha256(point, signed)
        }
        _ => false,
    };
    let reason = "the PCK did not sign this report of the quoting enclave";
    check("tdx.qe.signature", signed, reason);

    let mut bound = quote.attestation_key.to_vec();
    bound.extend_from_slice(&quote.qe_auth_data);
    let mut report_data = [0; 64];
    for (to, from) in report_data.iter_mut().zip(sha256(&bound)) {
        *to = from;
    }
    let reason = "the quoting enclave's REPORTDATA is not SHA-256 of this key and authentication data, then zeros";
    let right = quote.qe_report.report_data() == report_data;
    check("tdx.qe.binding", right, reason);

    let mut point = vec![4];
    point.extend_from_slice(&quote.attestation_key);
    let signed = budget.p256_sha256(&point, Signed::once(&quote.signed, &quote.signature));
    let reason = "the attestation key did not sign these bytes";
    check("tdx.signature", signed, reason);
}

/// `tdx.qe.identity`: everything but the security version, which the appraisal compares with the levels.
pub(super) fn identity(report: &QeReport, identity: &QeIdentity, checks: &mut Checks) {
    let id = "tdx.qe.identity";
    let mut masked = report.attributes();
    for (byte, mask) in masked.iter_mut().zip(identity.attributes_mask) {
        *byte &= mask;
    }
    let misc = report.miscselect() & identity.miscselect_mask;
    let hex = |bytes: &[u8]| Value::from(hex_encode(bytes));
    let (field, expected, found) = if identity.mrsigner != report.mrsigner() {
        let found = hex(&report.mrsigner());
        ("MRSIGNER", hex(&identity.mrsigner), found)
    } else if identity.isvprodid != report.isvprodid() {
        let found = report.isvprodid().into();
        ("ISVPRODID", identity.isvprodid.into(), found)
    } else if identity.attributes != masked {
        let expected = hex(&identity.attributes);
        ("ATTRIBUTES under its mask", expected, hex(&masked))
    } else if identity.miscselect != misc {
        let expected = identity.miscselect.into();
        ("MISCSELECT under its mask", expected, misc.into())
    } else {
        return checks.pass(id, Value::Null, Value::Null);
    };
    let reason = format!("{field} is another than Intel's quoting enclave has");
    checks.fail(id, Fault::NotAuthentic, expected, found, reason);
}
