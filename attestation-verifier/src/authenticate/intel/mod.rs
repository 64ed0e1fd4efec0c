//! Authentication of TDX evidence: is this what Intel's hardware and Intel's service made, as far as signatures can tell?
//!
//! Checks made here, none of which can be waived. Exit 3: `tdx.chain.root`, `tdx.chain.signature`, `tdx.chain.constraints`,
//! `tdx.chain.crl_signature`, `tdx.chain.revoked`, `tdx.qe.signature`, `tdx.qe.binding`, `tdx.signature`, `tdx.qe.identity`,
//! `tdx.tcb_info.signature`, `tdx.tcb_info.fmspc`, `tdx.qe_identity.signature`. Exit 5: `tdx.collateral` (something is missing),
//! `tdx.chain.validity`, `tdx.collateral.validity`.

mod chain;
mod collateral;
mod quoting;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::authenticate::{Root, Window, outdated};
use crate::crypto::Budget;
use crate::dates::rfc3339;
use crate::known::Known;
use crate::parse::tdx::pck::PckExtensions;
use crate::parse::tdx::quote::{Quote, TdReport};
use crate::parse::tdx::tcb::{QeIdentity, TcbInfo};
use crate::parse::tdx::{Parsed, PckChain, Signed};
use crate::roots::Roots;
use crate::verdict::{Checks, Fault};

/// TDX evidence whose every signature and binding holds, up to a trusted root. What it says is what the platform and
/// Intel said; whether that is good enough is for [`mod@crate::appraise`] to say.
#[derive(Clone, Debug)]
pub struct AuthenticTdx {
    quote: Quote,
    pck: PckExtensions,
    tcb_info: Arc<Signed<TcbInfo>>,
    qe_identity: Arc<Signed<QeIdentity>>,
    root: Root,
    parts: Vec<Part>,
}

/// What kind of thing a [`Part`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// A certificate: its window is the whole of its life, often many years.
    Certificate,
    /// A revocation list: from thisUpdate until the second before nextUpdate.
    Crl,
    /// TCB info or an enclave's identity: from issueDate until the second before nextUpdate.
    Signed,
}

/// One piece of collateral, and when it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is, for people and for `found` of a check: `the PCK certificate`, `the PCK CA`, `the root`, `the TCB signing
    /// certificate`, `the PCK revocation list`, `the root's revocation list`, `TCB info`, `QE identity`.
    pub name: &'static str,
    /// Certificate, revocation list or signed text.
    pub kind: PartKind,
    /// When it is good.
    pub window: Window,
}

impl AuthenticTdx {
    /// The quote.
    pub fn quote(&self) -> &Quote {
        &self.quote
    }

    /// The TD's report.
    pub fn report(&self) -> &TdReport {
        &self.quote.report
    }

    /// What the PCK certificate says.
    pub fn pck(&self) -> &PckExtensions {
        &self.pck
    }

    /// The quote's chain and what it says.
    pub(crate) fn pck_chain(&self) -> PckChain {
        PckChain {
            certificates: Arc::clone(&self.quote.pck_chain),
            pck: self.pck.clone(),
        }
    }

    /// TCB info, of this platform's FMSPC and PCE id.
    pub fn tcb_info(&self) -> &TcbInfo {
        &self.tcb_info.value
    }

    /// The quoting enclave's identity; the quote's QE matches it but for its ISVSVN, which is compared with the levels.
    pub fn qe_identity(&self) -> &QeIdentity {
        &self.qe_identity.value
    }

    /// The root that all chains end in.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Every piece of collateral and when it is good. Revocation lists stand here only if they came with the evidence,
    /// each signed by its CA and revoking nothing that was relied upon: both are there if both kinds came.
    pub fn windows(&self) -> &[Part] {
        &self.parts
    }
}

/// Verifies signatures and bindings of evidence at a time (Unix seconds). All checks run that can. `None` if one of
/// them shows that the evidence is not authentic, or if TCB info or QE identity is missing; what is outside its validity is reported
/// (exit 5) and the rest is judged all the same.
pub fn authenticate(
    parsed: Parsed,
    roots: &Roots,
    time: u64,
    checks: &mut Checks,
) -> Option<AuthenticTdx> {
    authenticate_known(parsed, roots, time, &Known::nothing(), checks)
}

/// The same for a verifier that may have verified some of the signatures before.
pub(crate) fn authenticate_known(
    parsed: Parsed,
    roots: &Roots,
    time: u64,
    known: &Known,
    checks: &mut Checks,
) -> Option<AuthenticTdx> {
    let mut budget = Budget::new(known);
    let collateral = Arc::clone(&parsed.parts);
    let mut parts = Vec::new();
    let before = checks.len();
    if collateral.missing.is_empty() {
        checks.pass("tdx.collateral", Value::Null, Value::Null);
    } else {
        let missing = json!(collateral.missing);
        let reason = format!("missing: {}", collateral.missing.join(", "));
        let fault = Fault::CollateralMissing;
        checks.fail("tdx.collateral", fault, missing, Value::Null, reason);
    }
    let path = chain::find(&parsed, roots, &mut budget, checks);
    if let Some(path) = &path {
        path.check(&mut budget, checks);
        path.validity(time, &mut parts, checks);
        path.revocation(&collateral, &mut budget, &mut parts, checks);
    }
    quoting::signatures(&parsed.quote, &mut budget, checks);
    if let Some(text) = &collateral.qe_identity {
        quoting::identity(&parsed.quote.qe_report, &text.value, checks);
    }
    collateral::check(&parsed, time, &mut budget, &mut parts, checks);

    let anchor = path?.anchor;
    let root = Root {
        name: anchor.certificate.subject_cn.clone(),
        simulated: anchor.simulated,
        note: anchor.note(),
    };
    if checks
        .iter()
        .skip(before)
        .any(|c| c.refuses() && !outdated(c.fault))
    {
        return None;
    }
    Some(AuthenticTdx {
        quote: parsed.quote,
        pck: parsed.pck,
        tcb_info: collateral.tcb_info.clone()?,
        qe_identity: collateral.qe_identity.clone()?,
        root,
        parts,
    })
}

/// Every part is valid at the time of judgement; if not, says when all would be.
fn valid(id: &'static str, parts: &[Part], time: u64, checks: &mut Checks) {
    let common = Window {
        from: parts
            .iter()
            .map(|p| p.window.from)
            .max()
            .unwrap_or(u64::MAX),
        to: parts.iter().map(|p| p.window.to).min().unwrap_or(0),
    };
    let found = rfc3339(time);
    let Some(part) = parts.iter().find(|part| !part.window.holds(time)) else {
        return checks.pass(id, common.words(), found);
    };
    let name = part.name;
    let (expected, reason) = if common.from <= common.to {
        let words = common.words();
        let reason = format!("{name} is not valid at this time; all of it holds from {words}");
        (words, reason)
    } else {
        let own = part.window.words();
        let reason = format!("{name} is valid from {own}, and all of it together at no time");
        (own, reason)
    };
    checks.fail(id, Fault::CollateralExpired, expected, found, reason);
}
