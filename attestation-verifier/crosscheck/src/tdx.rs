//! TDX: genuine and simulated quotes with their collateral, mutated, before Touchstone, `dcap-qvl` and `tdx-quote`.
//!
//! What Touchstone's strict template accepts without a waiver of anything that `dcap-qvl` has an opinion about, `dcap-qvl` accepts; what
//! Touchstone finds authentic, `tdx-quote` finds signed.

mod collateral;
mod platform;
mod quote;

use std::path::Path;
use std::sync::OnceLock;

use attestation_verifier::authenticate::intel::authenticate;
use attestation_verifier::parse::cert::PublicKey;
use attestation_verifier::parse::tdx::{Quote as Parsed, parse};
use attestation_verifier::policy::template;
use attestation_verifier::{At, Checks, Policy, Roots, judge};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;
use serde_json::Value;
use touchstone_formats::evidence::{EventLog, TdxCollateral};
use touchstone_formats::text::HexBytes;
use touchstone_formats::{Collateral, Evidence, Tee};
use touchstone_testkit::intel::{PckCa, Pki, PkiKeys};
use touchstone_testkit::machine::{TdxMachine, TeeMachine as _};
use touchstone_testkit::tdx::TdReport;

use crate::mutate::Honest;
use crate::random::Random;
use crate::run::{Excuse, Mutant, Other};
use collateral::{chains, damaged, levels, lists, texts};
use platform::{described, reissued};
use quote::{fields, patches, signatures};

/// When the simulated machines are judged.
const NOW: u64 = 1_790_000_000;
/// REPORTDATA of every quote.
const DATA: [u8; 64] = [0x42; 64];

#[derive(Clone)]
struct Case {
    name: String,
    quote: Vec<u8>,
    collateral: TdxCollateral,
    event_log: Option<EventLog>,
    roots: &'static Roots,
    root: Vec<u8>,
    at: u64,
}

fn honest() -> &'static [Honest<Case, TdxMachine>] {
    static HONEST: OnceLock<Vec<Honest<Case, TdxMachine>>> = OnceLock::new();
    HONEST.get_or_init(|| {
        let pki = Pki::with_keys(NOW, PkiKeys::shared("vendor"));
        let pem = pki.root_pem();
        let roots = Roots::pinned()
            .with_simulated_pem(pem.as_bytes())
            .expect("the simulated root");
        let roots: &'static Roots = Box::leak(Box::new(roots));
        let mut all = vec![genuine()];
        for (version, report) in [
            (4, TdReport::v1_0()),
            (5, TdReport::v1_0()),
            (5, TdReport::v1_5()),
        ] {
            for ca in PckCa::ALL {
                let mut machine = TdxMachine::under(pki.clone(), version, report.clone());
                machine.ca = ca;
                if ca == PckCa::Processor {
                    machine.platform = machine.platform.of_processor_ca();
                }
                machine.reissue();
                let body = if report.v1_5.is_some() { "1.5" } else { "1.0" };
                let case = Case {
                    name: format!("v{version}, {body}, {} CA", ca.name()),
                    quote: machine.quote(DATA),
                    collateral: machine.collateral(),
                    event_log: machine.event_log(),
                    roots,
                    root: pki.root_der(),
                    at: NOW,
                };
                all.push(Honest {
                    case,
                    machine: Some(machine),
                });
            }
        }
        all
    })
}

/// A quote of version 4 with Intel's collateral of the time.
fn genuine() -> Honest<Case, TdxMachine> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/tdx/dcap-qvl-0.7.1");
    let read =
        |name: &str| std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut quote = read("tdx_quote");
    // Its source put zeros behind it.
    let length = u32::from_le_bytes(quote[632..636].try_into().expect("4 bytes"));
    quote.truncate(636 + length as usize);
    let json: Value = serde_json::from_slice(&read("tdx_quote_collateral.json")).expect("JSON");
    let text = |name: &str| json[name].as_str().expect(name).to_owned();
    let bytes = |name: &str| Some(HexBytes(hex::decode(text(name)).expect(name)));
    let roots = Roots::pinned();
    let intel = roots.anchors().iter().find(|anchor| anchor.tee == Tee::Tdx);
    let case = Case {
        name: "a genuine quote".into(),
        quote,
        collateral: TdxCollateral {
            tcb_info: Some(text("tcb_info")),
            tcb_info_signature: bytes("tcb_info_signature"),
            tcb_info_issuer_chain: Some(text("tcb_info_issuer_chain")),
            qe_identity: Some(text("qe_identity")),
            qe_identity_signature: bytes("qe_identity_signature"),
            qe_identity_issuer_chain: Some(text("qe_identity_issuer_chain")),
            pck_crl: bytes("pck_crl"),
            pck_crl_issuer_chain: Some(text("pck_crl_issuer_chain")),
            root_ca_crl: bytes("root_ca_crl"),
        },
        event_log: None,
        root: intel.expect("Intel's root").certificate.der().to_vec(),
        roots: Box::leak(Box::new(roots)),
        // 2025-07-01.
        at: 1_751_328_000,
    };
    Honest {
        case,
        machine: None,
    }
}

/// The strict template, in which only that is waived of which `dcap-qvl` has no opinion.
fn policy() -> &'static Policy {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    POLICY.get_or_init(|| {
        let changes: Vec<(&str, &str)> = NO_OPINION
            .iter()
            .map(|id| (*id, "{ waive = \"dcap-qvl does not look at it\" }"))
            .collect();
        let text = touchstone_testkit::policy::edit(&template(Tee::Tdx), &changes);
        Policy::parse(&text).expect("the template")
    })
}

/// Checks of ours that `dcap-qvl` has nothing of.
const NO_OPINION: &[&str] = &[
    "tdx.module.measurement",
    "tdx.attributes.perfmon",
    "tdx.attributes.key_locker",
    "tdx.attributes.pks",
    "tdx.xfam.fixed",
    "tdx.xfam",
    "tdx.mrtd",
    "tdx.rtmr0",
    "tdx.rtmr1",
    "tdx.rtmr2",
    "tdx.rtmr3",
    "tdx.event_log",
    "tdx.mr_config_id",
    "tdx.mr_owner",
    "tdx.mr_owner_config",
    "tdx.platform.instance",
    "tdx.platform.fmspc",
    "tdx.platform.ca",
    "tdx.platform.integrity",
    "tdx.platform.smt",
    "tdx.platform.dynamic",
    "tdx.platform.cached_keys",
    "tdx.tcb.evaluation_number",
];

impl Case {
    fn evidence(&self) -> Evidence {
        Evidence {
            purpose: None,
            nonce: None,
            tee: Tee::Tdx,
            quote: self.quote.clone(),
            collateral: Some(Collateral::Tdx(self.collateral.clone())),
            event_log: self.event_log.clone(),
        }
    }

    /// Out of its validity is authentic.
    fn authentic(&self) -> bool {
        let mut checks = Checks::new();
        let parsed = parse(&self.evidence(), &mut checks);
        parsed
            .is_some_and(|parsed| authenticate(parsed, self.roots, self.at, &mut checks).is_some())
    }

    fn touchstone(&self) -> Result<(), String> {
        let at = At {
            time: self.at,
            asserted: false,
        };
        let judged = judge(&self.evidence(), policy(), self.roots, None, at, None);
        match judged.checks.hold() {
            true => Ok(()),
            false => Err(format!("{:?}", judged.checks.deciding())),
        }
    }

    fn dcap_qvl(&self) -> Result<(), String> {
        let theirs = as_theirs(&self.collateral)?;
        let verified = QuoteVerifier::new(self.root.clone()).verify(&self.quote, &theirs, self.at);
        let verified = verified.map_err(|e| format!("{e:#}"))?;
        match verified.status.as_str() {
            "UpToDate" => Ok(()),
            status => Err(format!("status {status}")),
        }
    }

    /// Whose the first certificate of the chain is, the chain itself must say: it knows Intel's root alone.
    fn tdx_quote(&self) -> Result<(), String> {
        let quote = tdx_quote::Quote::from_bytes(&self.quote).map_err(|e| format!("{e:?}"))?;
        let parsed = Parsed::parse(&self.quote).map_err(|e| e.to_string())?;
        let Some(PublicKey::P256(point)) = parsed.pck_chain.first().map(|c| &c.key) else {
            return Err("no PCK".into());
        };
        let pck = tdx_quote::VerifyingKey::from_sec1_bytes(point).map_err(|e| format!("{e:?}"))?;
        quote.verify_with_pck(&pck).map_err(|e| format!("{e:?}"))
    }
}

/// Collateral as `dcap-qvl` takes it.
///
/// # Errors
/// A member is missing.
pub fn as_theirs(ours: &TdxCollateral) -> Result<QuoteCollateralV3, String> {
    let missing = || "collateral is missing".to_owned();
    let text = |text: &Option<String>| text.clone().ok_or_else(missing);
    let bytes = |bytes: &Option<HexBytes>| bytes.as_ref().map(|b| b.0.clone()).ok_or_else(missing);
    Ok(QuoteCollateralV3 {
        pck_crl_issuer_chain: text(&ours.pck_crl_issuer_chain)?,
        root_ca_crl: bytes(&ours.root_ca_crl)?,
        pck_crl: bytes(&ours.pck_crl)?,
        tcb_info_issuer_chain: text(&ours.tcb_info_issuer_chain)?,
        tcb_info: text(&ours.tcb_info)?,
        tcb_info_signature: bytes(&ours.tcb_info_signature)?,
        qe_identity_issuer_chain: text(&ours.qe_identity_issuer_chain)?,
        qe_identity: text(&ours.qe_identity)?,
        qe_identity_signature: bytes(&ours.qe_identity_signature)?,
        pck_certificate_chain: None,
    })
}

/// All that are honest are accepted by all, version 5 aside, which `tdx-quote` cannot read.
///
/// # Panics
/// When one is not.
pub fn all_accept_what_is_honest() {
    for Honest { case, .. } in honest() {
        assert!(case.authentic(), "{}", case.name);
        case.touchstone()
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        case.dcap_qvl()
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        if case.quote[0] == 4 {
            case.tdx_quote()
                .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        }
    }
}

/// Kinds of which some have to be accepted.
pub const MUST_ACCEPT: [&str; 8] = [
    "fields of a quote, signed again",
    "bytes of a quote, signed again",
    "signatures of a quote",
    "TCB info and QE identity, signed again",
    "texts, signed again",
    "certificates, signed again",
    "revocation lists, signed again",
    "platform, certified again",
];

/// A mutant.
pub fn mutant(random: &mut Random) -> Mutant<'static> {
    let (honest, other) = Honest::two(random, honest());
    let mut case = honest.case.clone();
    let (kind, what) = match (random.below(100), &honest.machine) {
        (20..36, Some(machine)) => (
            "fields of a quote, signed again",
            fields(random, machine, &mut case),
        ),
        (36..44, Some(machine)) => (
            "bytes of a quote, signed again",
            patches(random, machine, &mut case),
        ),
        (44..51, _) => ("signatures of a quote", signatures(random, &mut case.quote)),
        (51..58, _) => (
            "collateral, not signed again",
            damaged(random, &mut case, other),
        ),
        (58..61, _) => ("chains and parts of collateral", chains(random, &mut case)),
        (61..72, Some(machine)) => (
            "TCB info and QE identity, signed again",
            levels(random, machine, &mut case),
        ),
        (72..81, Some(machine)) => ("texts, signed again", texts(random, machine, &mut case)),
        (81..87, Some(machine)) => (
            "certificates, signed again",
            reissued(random, machine, &mut case),
        ),
        (87..91, Some(machine)) => (
            "revocation lists, signed again",
            lists(random, machine, &mut case),
        ),
        (91..96, Some(machine)) => (
            "platform, certified again",
            described(random, machine, &mut case),
        ),
        (96.., _) => ("parts exchanged", exchanged(random, &mut case, other)),
        _ => (
            "quote, not signed again",
            random.damage(&mut case.quote, &other.quote).into(),
        ),
    };
    let version = case.quote.first().copied().unwrap_or_default();
    let what = format!("{what} of {}, now of version {version}", case.name);
    let unchanged = case.quote == honest.case.quote && case.collateral == honest.case.collateral;
    let held = case.touchstone().is_ok();
    let authentic = held || case.authentic();
    let case = std::sync::Arc::new(case);
    let [one, two, kept] = [case.clone(), case.clone(), case];
    Mutant {
        kind,
        what,
        unchanged,
        others: vec![
            Other {
                judge: "dcap-qvl",
                accepted: held,
                ask: Box::new(move || one.dcap_qvl()),
            },
            Other {
                judge: "tdx-quote",
                accepted: authentic,
                ask: Box::new(move || two.tdx_quote()),
            },
        ],
        file: Box::new(move || kept.evidence().to_file()),
    }
}

fn exchanged(random: &mut Random, case: &mut Case, other: &Case) -> String {
    let (ours, theirs) = (&mut case.collateral, &other.collateral);
    let what = match random.below(8) {
        0 => {
            case.quote.clone_from(&other.quote);
            "quote"
        }
        1 => {
            ours.clone_from(theirs);
            "collateral"
        }
        2 => {
            ours.tcb_info.clone_from(&theirs.tcb_info);
            ours.tcb_info_signature
                .clone_from(&theirs.tcb_info_signature);
            "TCB info"
        }
        3 => {
            ours.qe_identity.clone_from(&theirs.qe_identity);
            ours.qe_identity_signature
                .clone_from(&theirs.qe_identity_signature);
            "QE identity"
        }
        4 => {
            ours.pck_crl.clone_from(&theirs.pck_crl);
            ours.pck_crl_issuer_chain
                .clone_from(&theirs.pck_crl_issuer_chain);
            "PCK CRL"
        }
        5 => {
            ours.root_ca_crl.clone_from(&ours.pck_crl);
            "PCK CRL for the root's"
        }
        6 => {
            ours.pck_crl_issuer_chain
                .clone_from(&ours.tcb_info_issuer_chain);
            "TCB signing chain for the PCK CA's"
        }
        _ => {
            ours.tcb_info_issuer_chain
                .clone_from(&theirs.pck_crl_issuer_chain);
            "PCK CA's chain for the TCB signing one"
        }
    };
    format!("{what} of {}", other.name)
}

/// Kinds of which none may be.
pub const MUST_REFUSE: [&str; 2] = ["quote, not signed again", "collateral, not signed again"];

/// Where another judge refuses what Touchstone accepts.
pub const EXCUSES: &[Excuse] = &[
    Excuse {
        judge: "tdx-quote",
        reason: "of version 5 it takes 48 + 648 bytes for what is signed, without the six of the body's type and size",
        fits: |f| f.what.ends_with("of version 5") && f.said == "Verification",
    },
    Excuse {
        judge: "dcap-qvl",
        reason: "it takes 32 bytes of authentication data alone; the length is the quoting enclave's to choose (A.3.7), and all \
                 of it is bound by the enclave's report",
        fits: |f| f.said == "Invalid QE auth data length",
    },
    Excuse {
        judge: "dcap-qvl",
        reason: "it needs pck_crl_issuer_chain; the list is held against the PCK CA's certificate of the quote, which is enough",
        fits: |f| {
            f.what.contains("without pck_crl_issuer_chain") && f.said == "collateral is missing"
        },
    },
    Excuse {
        judge: "dcap-qvl",
        reason: "webpki wants CRLNumber and authorityKeyIdentifier in a list (RFC 5280 §5.2.1, §5.2.3), of which neither changes \
                 what the list says",
        fits: |f| f.what.contains("no extensions") && f.said.ends_with("CRL: MalformedExtensions"),
    },
    Excuse {
        judge: "dcap-qvl",
        reason: "webpki reads the reasons of entries, also of certificates that nothing here relies upon",
        fits: |f| {
            f.what.contains("for a reason") && f.said.ends_with("CRL: UnsupportedRevocationReason")
        },
    },
];
