//! What a verdict says of a platform beside its checks: a description, and what no check shows.

use serde_json::Value;
use touchstone_formats::text::hex_encode;

use super::snp::Facts;
use crate::authenticate::vek::tcb_value;
use crate::authenticate::{Authentic, Root};
use crate::parse::snp::{TcbBytes, platform_info};
use crate::parse::vek::VekIdentity;
use crate::product::Product;
use crate::verdict::object;

/// The `platform` member of a verdict. Everything in it is signed by the endorsement key or says which key
/// that is. Without `root` nothing of it is proven, and what only certificates say is null.
pub(super) fn describe(facts: &Facts<'_>, root: Option<&Root>) -> Value {
    let report = facts.report;
    let tcb = |tcb: TcbBytes| {
        let read = facts.product.and_then(|product| tcb.read(product));
        read.map_or(Value::Null, tcb_value)
    };
    let csp = match facts.identity {
        Some(VekIdentity::Provider(csp)) => csp.as_str().into(),
        Some(VekIdentity::Chip(_)) | None => Value::Null,
    };
    let cpuid = report.cpuid().map(|cpuid| {
        object([
            ("family", cpuid.family.into()),
            ("model", cpuid.model.into()),
            ("stepping", cpuid.stepping.into()),
        ])
    });
    object([
        ("tee", "sev-snp".into()),
        ("report_version", report.version().into()),
        ("product", facts.product.map(Product::name).into()),
        ("variant", facts.variant().into()),
        ("cpuid", cpuid.into()),
        ("chip_id", hex_encode(&report.chip_id()).into()),
        ("signing_key", report.signing_key().word().into()),
        ("csp", csp),
        ("root", root.map(|root| root.name.as_str()).into()),
        ("simulated", root.map(|root| root.simulated).into()),
        (
            "tcb",
            object([
                ("reported", tcb(report.reported_tcb())),
                ("committed", tcb(report.committed_tcb())),
                ("launch", tcb(report.launch_tcb())),
                ("current", tcb(report.current_tcb())),
            ]),
        ),
        (
            "firmware",
            object([
                ("current", report.current_firmware().to_string().into()),
                ("committed", report.committed_firmware().to_string().into()),
            ]),
        ),
        ("vmpl", report.vmpl().into()),
        ("guest_svn", report.guest_svn().into()),
        ("host_data", hex_encode(&report.host_data()).into()),
        ("report_id", hex_encode(&report.report_id()).into()),
    ])
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
        "ACPI tables (BadAML): the host writes them, the launch digest does not cover them, and the guest's kernel runs the \
         code that is in them, which can read and write the guest's memory. Only a kernel that confines such code keeps the host \
         out; whether this one does follows from the software that MEASUREMENT names.",
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
