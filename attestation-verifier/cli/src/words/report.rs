//! A raw SEV-SNP attestation report, field by field (AMD 56860, ATTESTATION_REPORT).

use anyhow::Result;
use attestation_verifier::parse::snp::{Report, TcbBytes, platform_info, policy};
use attestation_verifier::product::Product;
use touchstone_formats::text::hex_encode;

use super::Page;

/// Adds the description of a report; refuses what is none.
pub(super) fn snp(page: &mut Page, bytes: &[u8]) -> Result<()> {
    let report = Report::parse(bytes)?;
    page.under("SEV-SNP attestation report", |page| {
        fields(page, &report);
        Ok(())
    })
}

fn fields(page: &mut Page, report: &Report) {
    let product = report.product();
    page.field("version", report.version());
    page.maybe("product, by CPUID", product);
    page.field("signing key", report.signing_key().word());
    page.field("chip id", hex_encode(&report.chip_id()));
    page.field("measurement", hex_encode(&report.measurement()));
    page.field("report data", hex_encode(&report.report_data()));
    page.field("host data", hex_encode(&report.host_data()));
    page.field("VMPL", report.vmpl());
    page.field("guest SVN", report.guest_svn());
    page.field("family id", hex_encode(&report.family_id()));
    page.field("image id", hex_encode(&report.image_id()));
    page.field("id key digest", hex_encode(&report.id_key_digest()));
    page.field("author key digest", hex_encode(&report.author_key_digest()));
    page.field("report id", hex_encode(&report.report_id()));
    page.field(
        "report id of migration agent",
        hex_encode(&report.report_id_ma()),
    );

    let (major, minor) = report.policy_abi();
    page.field("guest policy", format!("0x{:x}", report.policy()));
    page.indent += 1;
    page.field("ABI at least", format!("{major}.{minor}"));
    for (name, bit) in [
        ("SMT allowed", policy::SMT),
        ("migration agent allowed", policy::MIGRATE_MA),
        ("debugging allowed", policy::DEBUG),
        ("single socket", policy::SINGLE_SOCKET),
        ("CXL allowed", policy::CXL),
        ("AES-256-XTS required", policy::MEM_AES_256_XTS),
        ("RAPL off required", policy::RAPL_DIS),
        ("ciphertext hiding required", policy::CIPHERTEXT_HIDING),
        ("page swap disabled", policy::PAGE_SWAP_DISABLE),
    ] {
        page.field(name, report.policy_bit(bit));
    }
    page.indent -= 1;

    page.field("platform", format!("0x{:x}", report.platform_info()));
    page.indent += 1;
    for (name, bit) in [
        ("SMT on", platform_info::SMT),
        ("TSME on", platform_info::TSME),
        ("ECC memory", platform_info::ECC),
        ("RAPL off", platform_info::RAPL_DIS),
        ("ciphertext hiding on", platform_info::CIPHERTEXT_HIDING),
        ("memory aliases checked", platform_info::ALIAS_CHECK),
        ("SEV-TIO on", platform_info::TIO),
    ] {
        page.field(name, report.platform_bit(bit));
    }
    page.indent -= 1;

    for (name, bytes) in [
        ("reported TCB", report.reported_tcb()),
        ("committed TCB", report.committed_tcb()),
        ("launch TCB", report.launch_tcb()),
        ("current TCB", report.current_tcb()),
    ] {
        page.field(name, tcb(bytes, product));
    }
    page.field("current firmware", report.current_firmware());
    page.field("committed firmware", report.committed_firmware());
    page.maybe(
        "launch mitigations",
        report.launch_mitigations().map(|v| format!("0x{v:x}")),
    );
    page.maybe(
        "current mitigations",
        report.current_mitigations().map(|v| format!("0x{v:x}")),
    );
}

/// Components where the product, and with it the layout, is known; the bytes as they are else.
fn tcb(bytes: TcbBytes, product: Option<Product>) -> String {
    let Some(tcb) = product.and_then(|product| bytes.read(product)) else {
        return hex_encode(&bytes.0);
    };
    let fmc = tcb
        .fmc
        .map(|fmc| format!("fmc {fmc}, "))
        .unwrap_or_default();
    let (bootloader, tee, snp, microcode) = (tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode);
    format!("{fmc}bootloader {bootloader}, tee {tee}, snp {snp}, microcode {microcode}")
}
