//! Reports, certificates and revocation lists in words, as text: [`crate::fields`] has their fields.
//!
//! Nothing here is judged: what is shown may be forged in every field.

use crate::fields::{self, Malformed};

/// A report's fields, one a line, with offsets (AMD 56860, table ATTESTATION_REPORT).
///
/// # Errors
/// The bytes are no well-formed report.
pub fn snp_report(bytes: &[u8]) -> Result<String, Malformed> {
    fields::snp_report(bytes).map(|report| report.to_string())
}

/// A certificate's fields, one a line; the vendor's extensions by name if it has them.
///
/// # Errors
/// The bytes are no well-formed certificate.
pub fn certificate(der: &[u8]) -> Result<String, Malformed> {
    fields::certificate(der).map(|certificate| certificate.to_string())
}

/// A revocation list's fields, one a line.
///
/// # Errors
/// The bytes are no well-formed revocation list.
pub fn crl(der: &[u8]) -> Result<String, Malformed> {
    fields::crl(der).map(|crl| crl.to_string())
}
