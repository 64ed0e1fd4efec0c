//! What a verdict says of a platform beside its checks: a description, and what no check shows.

use serde_json::{Value, json};
use touchstone_formats::text::hex_encode;

use crate::authenticate::Authentic;
use crate::authenticate::vek::tcb_value;
use crate::parse::snp::{TcbBytes, platform_info};
use crate::parse::vek::VekIdentity;
use crate::product::Product;

/// The `platform` member of a verdict. Everything in it is signed by the endorsement key or says which key
/// that is.
pub(super) fn describe(authentic: &Authentic) -> Value {
    let report = authentic.report();
    let tcb = |tcb: TcbBytes| tcb.read(authentic.product()).map_or(Value::Null, tcb_value);
    let (chip_id, csp) = match &authentic.vek().identity {
        VekIdentity::Chip(_) => (json!(hex_encode(&report.chip_id())), Value::Null),
        VekIdentity::Provider(csp) => (json!(hex_encode(&report.chip_id())), json!(csp)),
    };
    json!({
        "tee": "sev-snp",
        "report_version": report.version(),
        "product": authentic.product().name(),
        "variant": authentic.variant(),
        "cpuid": report.cpuid().map(|c| json!({
            "family": c.family, "model": c.model, "stepping": c.stepping
        })),
        "chip_id": chip_id,
        "signing_key": report.signing_key().word(),
        "csp": csp,
        "root": authentic.root().name,
        "simulated": authentic.root().simulated,
        "tcb": {
            "reported": tcb(report.reported_tcb()),
            "committed": tcb(report.committed_tcb()),
            "launch": tcb(report.launch_tcb()),
            "current": tcb(report.current_tcb()),
        },
        "firmware": {
            "current": report.current_firmware().to_string(),
            "committed": report.committed_firmware().to_string(),
        },
        "vmpl": report.vmpl(),
        "guest_svn": report.guest_svn(),
        "host_data": hex_encode(&report.host_data()),
        "report_id": hex_encode(&report.report_id()),
    })
}

/// What no bit of a report can show, a sentence each.
pub(super) fn residual_risks(authentic: &Authentic) -> Vec<String> {
    let mut risks: Vec<&str> = authentic.root().note.into_iter().collect();
    risks.push(
        "Physical access: a report does not show whether something sits on the memory bus. Interposers \
         (Battering RAM and TEE.fail, 2025) read and replay encrypted memory, and can bring out what signs reports.",
    );
    risks.push(
        "Injected interrupts and exceptions (HECKLER, WeSee): whether the guest's kernel withstands a hostile \
         hypervisor follows from the software that MEASUREMENT names, and from no bit of the report.",
    );
    risks.push(
        "ACPI tables and other configuration that the host provides at boot are not in the launch digest: the \
         guest's software has to treat them as hostile.",
    );
    risks.push(
        "MEASUREMENT covers what its builder put under it. Where that is firmware alone, nothing here speaks of \
         the operating system and programs above it.",
    );
    if authentic.report().platform_bit(platform_info::SMT) {
        risks.push(
            "SMT is on: a sibling thread shares caches, predictors and parts of the core with the guest.",
        );
    }
    if authentic.product() == Product::Milan {
        risks.push(
            "Milan: the seed of a chip's endorsement keys was extracted by software alone in 2026 \
             (arXiv 2605.12990). Who has done it to one chip signs what he likes for that chip.",
        );
    }
    if matches!(authentic.vek().identity, VekIdentity::Provider(_)) {
        risks.push(
            "VLEK: the report shows whose machine it was, not which; the provider's key signs for all of them.",
        );
    }
    risks.into_iter().map(str::to_owned).collect()
}
