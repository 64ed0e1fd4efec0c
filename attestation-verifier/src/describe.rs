//! Reports, certificates and revocation lists in words, field by field, for `touchstone show`.
//!
//! Nothing here is judged: what is shown may be forged in every field.

use std::fmt::{Display, Write as _};

use touchstone_formats::text::hex_encode;

use crate::dates::rfc3339;
use crate::parse::cert::{CRL_SIGN, CertError, Certificate, KEY_CERT_SIGN, PublicKey};
use crate::parse::crl::Crl;
use crate::parse::snp::{Report, ReportError, TcbBytes, platform_info, policy};
use crate::parse::vek::{VekExtensions, VekIdentity, VekTcb, is_amd};

/// A report's fields, one a line, with offsets (AMD 56860, table ATTESTATION_REPORT).
///
/// # Errors
/// The bytes are no well-formed report.
pub fn snp_report(bytes: &[u8]) -> Result<String, ReportError> {
    let report = Report::parse(bytes)?;
    let mut out = Lines::new("SEV-SNP attestation report (nothing in it is verified here)");
    out.at(0x000, "VERSION", report.version());
    out.at(0x004, "GUEST_SVN", report.guest_svn());
    let (major, minor) = report.policy_abi();
    let bits = names(report.policy(), POLICY_BITS);
    out.at(
        0x008,
        "POLICY",
        format!("0x{:x}: ABI from {major}.{minor}; {bits}", report.policy()),
    );
    out.at(0x010, "FAMILY_ID", hex_encode(&report.family_id()));
    out.at(0x020, "IMAGE_ID", hex_encode(&report.image_id()));
    let vmpl = match report.vmpl() {
        u32::MAX => "4294967295: the host asked for this report".to_owned(),
        level => level.to_string(),
    };
    out.at(0x030, "VMPL", vmpl);
    out.at(0x034, "SIGNATURE_ALGO", "1: ECDSA P-384 with SHA-384");
    out.at(0x038, "CURRENT_TCB", tcb(&report, report.current_tcb()));
    let bits = names(report.platform_info(), PLATFORM_BITS);
    out.at(
        0x040,
        "PLATFORM_INFO",
        format!("0x{:x}: {bits}", report.platform_info()),
    );
    let mut key = format!("signed by {}", report.signing_key().word());
    if report.author_key_enabled() {
        key.push_str(", author key present");
    }
    if report.chip_key_masked() {
        key.push_str(", MASK_CHIP_KEY: not signed");
    }
    out.at(
        0x048,
        "KEY_INFO",
        format!("0x{:x}: {key}", report.key_info()),
    );
    out.at(0x050, "REPORT_DATA", hex_encode(&report.report_data()));
    out.at(0x090, "MEASUREMENT", hex_encode(&report.measurement()));
    out.at(0x0c0, "HOST_DATA", hex_encode(&report.host_data()));
    out.at(0x0e0, "ID_KEY_DIGEST", hex_encode(&report.id_key_digest()));
    out.at(
        0x110,
        "AUTHOR_KEY_DIGEST",
        hex_encode(&report.author_key_digest()),
    );
    out.at(0x140, "REPORT_ID", hex_encode(&report.report_id()));
    let agent = match report.report_id_ma() {
        [0xff, rest @ ..] if rest.iter().all(|&b| b == 0xff) => {
            "all ones: no migration agent".into()
        }
        id => hex_encode(&id),
    };
    out.at(0x160, "REPORT_ID_MA", agent);
    out.at(0x180, "REPORTED_TCB", tcb(&report, report.reported_tcb()));
    if let Some(cpuid) = report.cpuid() {
        let name = cpuid.variant().unwrap_or("unknown");
        let (family, model, stepping) = (cpuid.family, cpuid.model, cpuid.stepping);
        let words =
            format!("family 0x{family:02x} model 0x{model:02x} stepping {stepping}: {name}");
        out.at(0x188, "CPUID", words);
    }
    let chip_id = match report.chip_id() {
        id if id == [0; 64] => "all zero: masked".to_owned(),
        id => hex_encode(&id),
    };
    out.at(0x1a0, "CHIP_ID", chip_id);
    out.at(0x1e0, "COMMITTED_TCB", tcb(&report, report.committed_tcb()));
    out.at(0x1e8, "CURRENT version", report.current_firmware());
    out.at(0x1ec, "COMMITTED version", report.committed_firmware());
    out.at(0x1f0, "LAUNCH_TCB", tcb(&report, report.launch_tcb()));
    if let (Some(launch), Some(current)) =
        (report.launch_mitigations(), report.current_mitigations())
    {
        out.at(0x1f8, "LAUNCH_MIT_VECTOR", format!("0x{launch:x}"));
        out.at(0x200, "CURRENT_MIT_VECTOR", format!("0x{current:x}"));
    }
    let signature = report.signature();
    let (r, s) = signature.split_at(48);
    out.at(0x2a0, "SIGNATURE r", hex_encode(r));
    out.at(0x2e8, "SIGNATURE s", hex_encode(s));
    Ok(out.text)
}

const POLICY_BITS: &[(u32, &str)] = &[
    (policy::SMT, "SMT"),
    (policy::MIGRATE_MA, "MIGRATE_MA"),
    (policy::DEBUG, "DEBUG"),
    (policy::SINGLE_SOCKET, "SINGLE_SOCKET"),
    (policy::CXL, "CXL_ALLOW"),
    (policy::MEM_AES_256_XTS, "MEM_AES_256_XTS"),
    (policy::RAPL_DIS, "RAPL_DIS"),
    (policy::CIPHERTEXT_HIDING, "CIPHERTEXT_HIDING"),
    (policy::PAGE_SWAP_DISABLE, "PAGE_SWAP_DISABLE"),
];

const PLATFORM_BITS: &[(u32, &str)] = &[
    (platform_info::SMT, "SMT_EN"),
    (platform_info::TSME, "TSME_EN"),
    (platform_info::ECC, "ECC_EN"),
    (platform_info::RAPL_DIS, "RAPL_DIS"),
    (
        platform_info::CIPHERTEXT_HIDING,
        "CIPHERTEXT_HIDING_DRAM_EN",
    ),
    (platform_info::ALIAS_CHECK, "ALIAS_CHECK_COMPLETE"),
    (platform_info::TIO, "TIO_EN"),
];

fn names(field: u64, bits: &[(u32, &str)]) -> String {
    let set: Vec<&str> = bits
        .iter()
        .filter(|(bit, _)| field >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect();
    if set.is_empty() {
        "none set".to_owned()
    } else {
        set.join(" ")
    }
}

/// A TCB version; without CPUID fields its layout is not known, and only the bytes are shown.
fn tcb(report: &Report, bytes: TcbBytes) -> String {
    let raw = hex_encode(&bytes.0);
    match report.product().and_then(|product| bytes.read(product)) {
        Some(tcb) => format!("{raw}: {}", levels(tcb)),
        None => {
            format!("{raw} (the layout depends on the product, which this report does not name)")
        }
    }
}

fn levels(tcb: VekTcb) -> String {
    let fmc = tcb.fmc.map(|fmc| format!("fmc {fmc} ")).unwrap_or_default();
    let VekTcb {
        bootloader,
        tee,
        snp,
        microcode,
        ..
    } = tcb;
    format!("{fmc}bootloader {bootloader} tee {tee} snp {snp} microcode {microcode}")
}

/// A certificate's fields, one a line; AMD's extensions by name if it has them.
///
/// # Errors
/// The bytes are no well-formed certificate.
pub fn certificate(der: &[u8]) -> Result<String, CertError> {
    let certificate = Certificate::parse(der)?;
    let mut out = Lines::new("Certificate (nothing in it is verified here)");
    out.line("subject", &certificate.subject_words);
    out.line("issuer", &certificate.issuer_words);
    out.line("serial", hex_encode(&certificate.serial));
    out.line("valid from", rfc3339(certificate.not_before));
    out.line("valid to", rfc3339(certificate.not_after));
    out.line(
        "key",
        match &certificate.key {
            PublicKey::Rsa(_) => "RSA".to_owned(),
            PublicKey::P384(point) => format!("P-384 {}", hex_encode(point)),
            PublicKey::P256(point) => format!("P-256 {}", hex_encode(point)),
            PublicKey::Other => "of a kind that neither vendor uses".to_owned(),
        },
    );
    out.line(
        "signature",
        if certificate.signed_with_pss_sha384 {
            "RSASSA-PSS with SHA-384"
        } else {
            "not RSASSA-PSS with SHA-384"
        },
    );
    if let Some((ca, length)) = certificate.basic_constraints {
        let length = length
            .map(|n| format!(", path length {n}"))
            .unwrap_or_default();
        out.line("basicConstraints", format!("CA {ca}{length}"));
    }
    if let Some(usage) = certificate.key_usage {
        let mut words = format!("0x{usage:x}");
        for (bit, name) in [(KEY_CERT_SIGN, " keyCertSign"), (CRL_SIGN, " cRLSign")] {
            if usage & bit != 0 {
                words.push_str(name);
            }
        }
        out.line("keyUsage", words);
    }
    if !certificate
        .extensions
        .iter()
        .any(|extension| is_amd(&extension.oid))
    {
        return Ok(out.text);
    }
    match VekExtensions::read(&certificate) {
        Ok(amd) => {
            out.line("productName", &amd.product_name);
            out.line("TCB", levels(amd.tcb));
            match amd.identity {
                VekIdentity::Chip(hwid) => out.line("hwID", hex_encode(&hwid)),
                VekIdentity::Provider(csp) => out.line("cspID", csp),
            }
        }
        Err(error) => out.line("AMD's extensions", format!("malformed: {error}")),
    }
    Ok(out.text)
}

/// A revocation list's fields, one a line.
///
/// # Errors
/// The bytes are no well-formed revocation list.
pub fn crl(der: &[u8]) -> Result<String, CertError> {
    let crl = Crl::parse(der)?;
    let mut out = Lines::new("Certificate revocation list (nothing in it is verified here)");
    out.line("issuer", &crl.issuer_words);
    out.line("thisUpdate", rfc3339(crl.this_update));
    out.line("nextUpdate", rfc3339(crl.next_update));
    let serials: Vec<String> = crl
        .revoked
        .iter()
        .map(|serial| hex_encode(serial))
        .collect();
    let serials = if serials.is_empty() {
        "none".to_owned()
    } else {
        serials.join(" ")
    };
    out.line("revoked serials", serials);
    Ok(out.text)
}

struct Lines {
    text: String,
}

impl Lines {
    fn new(title: &str) -> Lines {
        Lines {
            text: format!("{title}\n"),
        }
    }

    fn line(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.text, "  {name:<20} {}", OneLine(&value.to_string()));
    }

    fn at(&mut self, offset: u32, name: &str, value: impl Display) {
        let _ = writeln!(self.text, "  0x{offset:03x} {name:<20} {value}");
    }
}

/// Names come from whoever made the certificate: no control character of theirs reaches a terminal.
struct OneLine<'a>(&'a str);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| {
            if c.is_control() {
                write!(f, "{}", c.escape_default())
            } else {
                f.write_char(c)
            }
        })
    }
}
