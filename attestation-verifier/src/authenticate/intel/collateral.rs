//! TCB info and QE identity: signed by Intel over the very bytes, about this platform, and valid now (Intel PCS API v4).

use serde_json::Value;
use touchstone_formats::text::hex_encode;

use super::{Part, PartKind, valid};
use crate::authenticate::Window;
use crate::crypto::Budget;
use crate::parse::cert::PublicKey;
use crate::parse::tdx::pck::PckExtensions;
use crate::parse::tdx::tcb::TcbInfo;
use crate::parse::tdx::{Parsed, Signed};
use crate::verdict::{Checks, Fault, object};

/// `tdx.tcb_info.signature`, `tdx.tcb_info.fmspc`, `tdx.qe_identity.signature`, `tdx.collateral.validity`.
pub(super) fn check(
    parsed: &Parsed,
    time: u64,
    budget: &mut Budget<'_>,
    parts: &mut Vec<Part>,
    checks: &mut Checks,
) {
    let mut own = Vec::new();
    if let Some(text) = &parsed.parts.tcb_info {
        signature("tdx.tcb_info.signature", text, budget, checks);
        about(&text.value, &parsed.pck, checks);
        own.push(part(
            "TCB info",
            text.value.issue_date,
            text.value.next_update,
        ));
    }
    if let Some(text) = &parsed.parts.qe_identity {
        signature("tdx.qe_identity.signature", text, budget, checks);
        own.push(part(
            "QE identity",
            text.value.issue_date,
            text.value.next_update,
        ));
    }
    if !own.is_empty() {
        valid("tdx.collateral.validity", &own, time, checks);
    }
    parts.extend(own);
}

/// Good strictly before nextUpdate (formats.md §7, "Time").
fn part(name: &'static str, issued: u64, next: u64) -> Part {
    Part {
        name,
        kind: PartKind::Signed,
        window: Window {
            from: issued,
            to: next.saturating_sub(1),
        },
    }
}

/// The signer's key signed the text. That the signer is Intel's is for the chain to show.
fn signature<T>(id: &'static str, text: &Signed<T>, budget: &mut Budget<'_>, checks: &mut Checks) {
    let signed = match text.chain.first().map(|signer| &signer.key) {
        Some(PublicKey::P256(point)) => budget.p256_sha256(point, text.signed()),
        _ => false,
    };
    if signed {
        checks.pass(id, Value::Null, Value::Null);
    } else {
        let reason = "the TCB signing key did not sign these bytes";
        checks.fail(id, Fault::NotAuthentic, Value::Null, Value::Null, reason);
    }
}

/// TCB info is for the family and the PCE that the PCK certificate names.
fn about(info: &TcbInfo, pck: &PckExtensions, checks: &mut Checks) {
    let id = "tdx.tcb_info.fmspc";
    let shown = |fmspc: &[u8], pce_id: &[u8]| {
        object([
            ("fmspc", hex_encode(fmspc).into()),
            ("pce_id", hex_encode(pce_id).into()),
        ])
    };
    let expected = shown(&pck.fmspc, &pck.pce_id);
    let found = shown(&info.fmspc, &info.pce_id);
    if expected == found {
        checks.pass(id, expected, found);
    } else {
        let reason = "TCB info of another family of platforms than the PCK certificate names";
        checks.fail(id, Fault::NotAuthentic, expected, found, reason);
    }
}
