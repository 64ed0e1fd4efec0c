//! Certificates and revocation lists of both vendors (RFC 5280; AMD 57230; Intel SGX PCK Certificate and CRL Profile).

use touchstone_formats::text::hex_encode;

use super::snp::levels;
use super::{Malformed, Structure};
use crate::dates::rfc3339;
use crate::parse::cert::{CRL_SIGN, CertError, Certificate, KEY_CERT_SIGN, PublicKey};
use crate::parse::crl::Crl;
use crate::parse::tdx::PckExtensions;
use crate::parse::vek::{VekExtensions, VekIdentity, is_amd};

/// The OID of Intel's SGX extensions.
const INTEL_SGX: &str = "1.2.840.113741.1.13.1";

/// A certificate's fields; the vendor's extensions by name if it has them.
///
/// # Errors
/// The bytes are no well-formed certificate.
pub fn certificate(der: &[u8]) -> Result<Structure, Malformed> {
    let parsed = Certificate::parse(der).map_err(|e| malformed("certificate", e))?;
    Ok(of(&parsed))
}

/// A revocation list's fields.
///
/// # Errors
/// The bytes are no well-formed revocation list.
pub fn crl(der: &[u8]) -> Result<Structure, Malformed> {
    let crl = Crl::parse(der).map_err(|e| malformed("revocation list", e))?;
    let mut out = Structure::new("Certificate revocation list", "RFC 5280 §5");
    out.field("issuer", crl.issuer_words());
    out.field("thisUpdate", rfc3339(crl.this_update));
    out.field("nextUpdate", rfc3339(crl.next_update));
    out.field("revoked", crl.revoked.len());
    for serial in &crl.revoked {
        out.field("userCertificate", hex_encode(serial));
    }
    Ok(out)
}

fn malformed(what: &'static str, error: CertError) -> Malformed {
    let field = match &error {
        CertError::Twice(name) => name.clone(),
        CertError::Missing(name) => (*name).to_owned(),
        CertError::Extension { name, .. } => name.clone(),
        CertError::Der(_) | CertError::Form(_) => "DER".to_owned(),
    };
    Malformed {
        what,
        offset: None,
        field,
        reason: error.to_string(),
    }
}

/// The fields of a certificate that was read.
pub(super) fn of(certificate: &Certificate) -> Structure {
    let mut out = Structure::new("Certificate", "RFC 5280 §4");
    out.field("subject", certificate.subject_words());
    out.field("issuer", certificate.issuer_words());
    out.field("serial", hex_encode(&certificate.serial));
    out.field("notBefore", rfc3339(certificate.not_before));
    out.field("notAfter", rfc3339(certificate.not_after));
    out.field(
        "key",
        match &certificate.key {
            PublicKey::Rsa(_) => "RSA".to_owned(),
            PublicKey::P384(point) => format!("P-384 {}", hex_encode(point)),
            PublicKey::P256(point) => format!("P-256 {}", hex_encode(point)),
            PublicKey::Other => "of another kind than AMD's and Intel's".to_owned(),
        },
    );
    let algorithm = match (
        certificate.signed_with_pss_sha384,
        certificate.signed_with_ecdsa_sha256,
    ) {
        (true, _) => "RSASSA-PSS with SHA-384",
        (_, true) => "ECDSA with SHA-256",
        _ => "neither RSASSA-PSS with SHA-384 nor ECDSA with SHA-256",
    };
    out.field("signatureAlgorithm", algorithm);
    if let Some((ca, length)) = certificate.basic_constraints {
        let length = length
            .map(|n| format!(", path length {n}"))
            .unwrap_or_default();
        out.field("basicConstraints", format!("CA {ca}{length}"));
    }
    if let Some(usage) = certificate.key_usage {
        let mut words = format!("0x{usage:x}");
        for (bit, name) in [(KEY_CERT_SIGN, " keyCertSign"), (CRL_SIGN, " cRLSign")] {
            if usage & bit != 0 {
                words.push_str(name);
            }
        }
        out.field("keyUsage", words);
    }
    let extensions = &certificate.extensions;
    if extensions.iter().any(|extension| is_amd(&extension.oid)) {
        out.parts.push(amd(certificate));
    }
    if extensions
        .iter()
        .any(|extension| extension.name() == INTEL_SGX)
    {
        out.parts.push(intel(certificate));
    }
    out
}

fn amd(certificate: &Certificate) -> Structure {
    let mut out = Structure::new("AMD's extensions", "AMD 57230");
    match VekExtensions::read(certificate) {
        Ok(amd) => {
            out.field("productName", &amd.product_name);
            out.field("TCB", levels(amd.tcb));
            match amd.identity {
                VekIdentity::Chip(hwid) => out.field("hwID", hex_encode(&hwid)),
                VekIdentity::Provider(csp) => out.field("cspID", csp),
            }
        }
        Err(error) => out.field("malformed", error),
    }
    out
}

fn intel(certificate: &Certificate) -> Structure {
    let source = "Intel SGX PCK Certificate and CRL Profile";
    let mut out = Structure::new("SGX Extensions", source);
    match PckExtensions::read(certificate) {
        Ok(pck) => {
            out.field("PPID", hex_encode(&pck.ppid));
            out.field("TCB Component SVNs", hex_encode(&pck.comp_svn));
            out.field("PCESVN", pck.pce_svn);
            out.field("CPUSVN", hex_encode(&pck.cpu_svn));
            out.field("PCE-ID", hex_encode(&pck.pce_id));
            out.field("FMSPC", hex_encode(&pck.fmspc));
            out.field("SGX Type", pck.sgx_type.word());
            if let Some(id) = &pck.platform_instance_id {
                out.field("Platform Instance ID", hex_encode(id));
            }
            if let Some(configuration) = &pck.configuration {
                let word =
                    |flag: Option<bool>| flag.map_or("not said".to_owned(), |f| f.to_string());
                let dynamic = word(configuration.dynamic_platform);
                out.field("Dynamic Platform", dynamic);
                out.field("Cached Keys", word(configuration.cached_keys));
                out.field("SMT Enabled", word(configuration.smt_enabled));
            }
        }
        Err(error) => out.field("malformed", error),
    }
    out
}
