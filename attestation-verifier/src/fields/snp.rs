//! SEV-SNP attestation reports (AMD 56860, table ATTESTATION_REPORT).

use touchstone_formats::text::hex_encode;

use super::{Malformed, Structure, names};
use crate::parse::snp::{Report, ReportError, TcbBytes, platform_info, policy};
use crate::parse::vek::VekTcb;

/// A report's fields.
///
/// # Errors
/// The bytes are no well-formed report.
pub fn snp_report(bytes: &[u8]) -> Result<Structure, Malformed> {
    let report = Report::parse(bytes).map_err(|error| place(bytes, &error))?;
    let mut out = Structure::new(
        "SEV-SNP attestation report",
        "AMD 56860, table ATTESTATION_REPORT",
    );
    out.at(0x000, "VERSION", report.version());
    out.at(0x004, "GUEST_SVN", report.guest_svn());
    let (major, minor) = report.policy_abi();
    let bits = names(report.policy(), POLICY_BITS);
    out.at_means(
        0x008,
        "POLICY",
        format!("0x{:x}", report.policy()),
        format!("ABI from {major}.{minor}; {bits}"),
    );
    out.at(0x010, "FAMILY_ID", hex_encode(&report.family_id()));
    out.at(0x020, "IMAGE_ID", hex_encode(&report.image_id()));
    match report.vmpl() {
        u32::MAX => out.at_means(0x030, "VMPL", u32::MAX, "the host asked for this report"),
        level => out.at(0x030, "VMPL", level),
    }
    out.at_means(0x034, "SIGNATURE_ALGO", 1, "ECDSA P-384 with SHA-384");
    tcb(
        &mut out,
        0x038,
        "CURRENT_TCB",
        &report,
        report.current_tcb(),
    );
    out.at_means(
        0x040,
        "PLATFORM_INFO",
        format!("0x{:x}", report.platform_info()),
        names(report.platform_info(), PLATFORM_BITS),
    );
    let mut key = format!("signed by {}", report.signing_key().word());
    if report.author_key_enabled() {
        key.push_str(", author key present");
    }
    if report.chip_key_masked() {
        key.push_str(", MASK_CHIP_KEY: not signed");
    }
    out.at_means(0x048, "KEY_INFO", format!("0x{:x}", report.key_info()), key);
    out.at(0x050, "REPORT_DATA", hex_encode(&report.report_data()));
    out.at(0x090, "MEASUREMENT", hex_encode(&report.measurement()));
    out.at(0x0c0, "HOST_DATA", hex_encode(&report.host_data()));
    out.at(0x0e0, "ID_KEY_DIGEST", hex_encode(&report.id_key_digest()));
    let author = hex_encode(&report.author_key_digest());
    out.at(0x110, "AUTHOR_KEY_DIGEST", author);
    out.at(0x140, "REPORT_ID", hex_encode(&report.report_id()));
    let agent = report.report_id_ma();
    if agent == [0xff; 32] {
        out.at_means(
            0x160,
            "REPORT_ID_MA",
            hex_encode(&agent),
            "no migration agent",
        );
    } else {
        out.at(0x160, "REPORT_ID_MA", hex_encode(&agent));
    }
    tcb(
        &mut out,
        0x180,
        "REPORTED_TCB",
        &report,
        report.reported_tcb(),
    );
    if let Some(cpuid) = report.cpuid() {
        let (family, model, stepping) = (cpuid.family, cpuid.model, cpuid.stepping);
        let name = cpuid.variant().unwrap_or("unknown");
        out.at(0x188, "CPUID_FAM_ID", format!("0x{family:02x}"));
        out.at_means(0x189, "CPUID_MOD_ID", format!("0x{model:02x}"), name);
        out.at(0x18a, "CPUID_STEP", stepping);
    }
    let chip_id = report.chip_id();
    if chip_id == [0; 64] {
        out.at_means(0x1a0, "CHIP_ID", hex_encode(&chip_id), "masked");
    } else {
        out.at(0x1a0, "CHIP_ID", hex_encode(&chip_id));
    }
    tcb(
        &mut out,
        0x1e0,
        "COMMITTED_TCB",
        &report,
        report.committed_tcb(),
    );
    out.at(0x1e8, "CURRENT version", report.current_firmware());
    out.at(0x1ec, "COMMITTED version", report.committed_firmware());
    tcb(&mut out, 0x1f0, "LAUNCH_TCB", &report, report.launch_tcb());
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
    Ok(out)
}

/// Where a report goes wrong.
fn place(bytes: &[u8], error: &ReportError) -> Malformed {
    let (offset, field) = match error {
        ReportError::Length { .. } => (bytes.len().min(1184), "length"),
        ReportError::Version { .. } => (0x000, "VERSION"),
        ReportError::Algorithm { .. } => (0x034, "SIGNATURE_ALGO"),
        ReportError::ReservedByte { offset, .. } => (*offset, "reserved"),
        ReportError::ReservedBit { field, .. } => (offset_of(field), *field),
        ReportError::PolicyBit17 { .. } => (0x008, "POLICY"),
        ReportError::SigningKey { .. } => (0x048, "KEY_INFO"),
        ReportError::Product { .. } => (0x188, "CPUID_FAM_ID"),
        ReportError::SignatureNumber { offset, .. } => (*offset, "SIGNATURE"),
    };
    Malformed {
        what: "SEV-SNP report",
        offset: Some(offset),
        field: field.to_owned(),
        reason: error.to_string(),
    }
}

/// Where a field with reserved bits begins.
fn offset_of(field: &str) -> usize {
    match field {
        "POLICY" => 0x008,
        "PLATFORM_INFO" => 0x040,
        "KEY_INFO" => 0x048,
        "CURRENT_TCB" => 0x038,
        "REPORTED_TCB" => 0x180,
        "COMMITTED_TCB" => 0x1e0,
        "LAUNCH_TCB" => 0x1f0,
        _ => 0,
    }
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

/// A TCB version; without CPUID fields its layout is not known, and only the bytes are shown.
fn tcb(out: &mut Structure, offset: usize, name: &str, report: &Report, bytes: TcbBytes) {
    let raw = hex_encode(&bytes.0);
    match report.product().and_then(|product| bytes.read(product)) {
        Some(tcb) => out.at_means(offset, name, raw, levels(tcb)),
        None => {
            let why = "the layout depends on the product, which this report does not name";
            out.at_means(offset, name, raw, why);
        }
    }
}

pub(super) fn levels(tcb: VekTcb) -> String {
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
