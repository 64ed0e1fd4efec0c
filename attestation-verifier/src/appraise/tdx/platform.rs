//! What a verdict says of a TDX platform beside its checks.

use serde_json::Value;
use touchstone_formats::text::hex_encode;

use super::{Facts, Genuine};
use crate::dates::rfc3339;
use crate::parse::tdx::pck::{PckCa, SgxType};
use crate::parse::tdx::quote::TdVersion;
use crate::verdict::object;

/// The `platform` member of a verdict. All of it is signed: by the quote's chain, or by Intel in the collateral. Without
/// collateral nothing of it is proven, and what only collateral says is null.
pub(in crate::appraise) fn describe(facts: &Facts<'_>) -> Value {
    let (quote, report, pck) = (facts.quote, &facts.quote.report, facts.pck);
    let root = facts.collateral.map(|genuine| genuine.authentic.root());
    let hex = |bytes: &[u8]| Value::from(hex_encode(bytes));
    let [isvsvn, major, ..] = report.tee_tcb_svn;
    let configuration = pck.configuration.as_ref().map(|configuration| {
        object([
            ("dynamic_platform", configuration.dynamic_platform.into()),
            ("cached_keys", configuration.cached_keys.into()),
            ("smt_enabled", configuration.smt_enabled.into()),
        ])
    });
    object([
        ("tee", "tdx".into()),
        ("quote_version", quote.version.into()),
        ("body", report.version.name().into()),
        ("root", root.map(|root| root.name.as_str()).into()),
        ("simulated", root.map(|root| root.simulated).into()),
        ("ca", pck.ca.map(PckCa::word).into()),
        ("fmspc", hex(&pck.fmspc)),
        ("ppid", hex(&pck.ppid)),
        (
            "instance_id",
            pck.platform_instance_id.map(|id| hex(&id)).into(),
        ),
        ("memory", pck.sgx_type.word().into()),
        ("configuration", configuration.into()),
        ("tcb", tcb(facts)),
        (
            "module",
            object([
                ("measurement", hex(&report.mr_seam)),
                ("major", major.into()),
                ("isvsvn", isvsvn.into()),
            ]),
        ),
        (
            "quoting_enclave",
            object([("isvsvn", quote.qe_report.isvsvn().into())]),
        ),
        (
            "td_attributes",
            format!("0x{:x}", report.td_attributes).into(),
        ),
        ("xfam", format!("0x{:x}", report.xfam).into()),
        ("rtmr", report.rtmr.iter().map(|rtmr| hex(rtmr)).collect()),
        ("mr_config_id", hex(&report.mr_config_id)),
        ("mr_owner", hex(&report.mr_owner)),
        ("mr_owner_config", hex(&report.mr_owner_config)),
        ("event_log", facts.log.state().into()),
    ])
}

fn tcb(facts: &Facts<'_>) -> Value {
    let (report, pck) = (&facts.quote.report, facts.pck);
    let genuine = facts.collateral;
    let hex = |bytes: &[u8]| Value::from(hex_encode(bytes));
    let standing = genuine.and_then(|genuine| genuine.standing.as_ref().ok());
    let evaluation = genuine.map(|g| g.authentic.tcb_info().tcb_evaluation_data_number);
    let level = |part: &super::tcb::Part| {
        object([
            ("of", part.name.into()),
            ("status", part.status.word().into()),
            ("date", rfc3339(part.date).into()),
            ("advisories", part.advisories.as_slice().into()),
        ])
    };
    let advisories = standing.map(|s| s.advisories.iter().map(String::as_str).collect::<Value>());
    let levels = standing.map(|s| s.parts.iter().map(level).collect::<Value>());
    object([
        ("status", standing.map(|s| s.status.word()).into()),
        ("advisories", advisories.into()),
        ("levels", levels.into()),
        ("evaluation_number", evaluation.into()),
        ("sgx", hex(&pck.comp_svn)),
        ("pce_svn", pck.pce_svn.into()),
        ("tdx", hex(&report.tee_tcb_svn)),
        ("tdx_now", report.tee_tcb_svn_2.map(|svn| hex(&svn)).into()),
    ])
}

/// What no bit of a quote can show, a sentence each.
pub(in crate::appraise) fn residual_risks(genuine: &Genuine) -> Vec<String> {
    let authentic = &genuine.authentic;
    let (report, pck) = (authentic.report(), authentic.pck());
    let mut risks: Vec<&str> = authentic.root().note.into_iter().collect();
    risks.push(
        "Physical access: a quote does not show whether something sits on the memory bus. Interposers (WireTap and \
         TEE.fail, 2025) read encrypted memory, and brought out keys that sign quotes: who has done it to one platform \
         signs what he likes for that platform.",
    );
    risks.push(
        "Injected interrupts and exceptions (HECKLER): whether the TD's kernel withstands a hostile hypervisor follows from \
         the software that is measured, and from no bit of the quote.",
    );
    risks.push(
        "ACPI tables (BadAML): the host writes them, and the TD's kernel runs the code that is in them, which can read and write \
         the TD's memory. Firmware measures them into RTMR0, if it does: a policy that lists RTMR0 accepts the tables that its \
         values were taken with, and whoever took them vouches for those; one that waives it accepts any.",
    );
    risks.push(
        "MRTD covers the firmware. Operating system and programs are in RTMR0 to RTMR3 as far as what runs before them \
         measures them; nothing here speaks of the rest.",
    );
    let [_, rtmr1, rtmr2, _] = &report.rtmr;
    if [rtmr1, rtmr2].iter().all(|rtmr| **rtmr == [0; 48]) {
        risks
            .push("RTMR1 and RTMR2 are zero: no boot loader, kernel or command line was measured.");
    }
    if report.version == TdVersion::V1_0 {
        risks.push(
            "The quote's body is of TDX 1.0: it does not say whether a service TD is bound, nor which TDX module runs now.",
        );
    }
    if pck.sgx_type != SgxType::ScalableWithIntegrity {
        risks.push("The platform's memory has no cryptographic integrity.");
    }
    let configuration = pck.configuration.as_ref();
    if configuration.and_then(|c| c.smt_enabled) == Some(true) {
        risks.push(
            "SMT is on: a sibling thread shares caches, predictors and parts of the core with the TD.",
        );
    }
    if configuration.and_then(|c| c.cached_keys) == Some(true) {
        risks.push("Intel's registration service keeps this platform's root keys.");
    }
    risks.into_iter().map(str::to_owned).collect()
}
