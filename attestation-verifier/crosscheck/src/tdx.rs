//! TDX: genuine and simulated quotes with their collateral, mutated, before Touchstone, `dcap-qvl` and `tdx-quote`.
//!
//! What Touchstone's strict template accepts without a waiver of anything that `dcap-qvl` has an opinion about, `dcap-qvl` accepts; what
//! Touchstone finds authentic, `tdx-quote` finds signed.

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
use touchstone_testkit::intel::{Configuration, IsvLevel, PckCa, Pki, PkiKeys, oid, sgx_extension};
use touchstone_testkit::machine::{TdxMachine, TeeMachine as _};
use touchstone_testkit::tdx::{QE_REPORT_LENGTH, Quote, TdReport};
use touchstone_testkit::x509::{Certificate, Crl, Extension};

use crate::random::Random;
use crate::run::{Excuse, Mutant, Other};
use crate::snp::{change, subtract};

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

/// What mutants start from.
struct Honest {
    case: Case,
    /// None of genuine evidence: nobody else has its keys.
    machine: Option<TdxMachine>,
}

fn honest() -> &'static [Honest] {
    static HONEST: OnceLock<Vec<Honest>> = OnceLock::new();
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
fn genuine() -> Honest {
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
    let all = honest();
    let honest = random.pick(all);
    let other = &random.pick(all).case;
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
            collateral(random, &mut case, other),
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
            platform(random, machine, &mut case),
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

fn fields(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let mut quote = machine.report(DATA);
    let mut what = String::new();
    for _ in 0..=random.below(2) {
        what += field(random, &mut quote);
        what += ", ";
    }
    case.quote = machine.sign(&quote);
    what
}

fn field(random: &mut Random, quote: &mut Quote) -> &'static str {
    let Quote {
        header,
        report,
        qe_report,
        ..
    } = quote;
    match random.below(36) {
        0 => {
            header.version = random.below(7) as u16;
            "version"
        }
        1 => {
            header.attestation_key_type = random.number() as u16;
            "attestation key type"
        }
        2 => {
            header.tee_type = random.number() as u32;
            "TEE type"
        }
        3 => {
            random.scribble(&mut header.reserved);
            "reserved of the header"
        }
        4 => {
            random.scribble(&mut header.qe_vendor_id);
            "QE vendor"
        }
        5 => {
            random.scribble(&mut header.user_data);
            "user data"
        }
        6 | 7 => {
            random.scribble(&mut report.tee_tcb_svn);
            "TEE_TCB_SVN"
        }
        8 => {
            random.scribble(&mut report.mr_seam);
            "MRSEAM"
        }
        9 => {
            random.scribble(&mut report.mr_signer_seam);
            "MRSIGNERSEAM"
        }
        10 => {
            random.scribble(&mut report.seam_attributes);
            "SEAMATTRIBUTES"
        }
        11..14 => {
            report.td_attributes ^= random.number();
            "TDATTRIBUTES"
        }
        14 | 15 => {
            report.xfam ^= random.number();
            "XFAM"
        }
        16 => {
            random.scribble(&mut report.mr_td);
            "MRTD"
        }
        17 => {
            random.scribble(&mut report.mr_config_id);
            "MRCONFIGID"
        }
        18 => {
            random.scribble(&mut report.mr_owner);
            "MROWNER"
        }
        19 => {
            random.scribble(&mut report.mr_owner_config);
            "MROWNERCONFIG"
        }
        20 => {
            let place = random.below(4);
            random.scribble(&mut report.rtmr[place]);
            "RTMR"
        }
        21 => {
            random.scribble(&mut report.report_data);
            "REPORTDATA"
        }
        22 => {
            if let Some(more) = &mut report.v1_5 {
                random.scribble(&mut more.tee_tcb_svn_2);
            }
            "TEE_TCB_SVN_2"
        }
        23 => {
            if let Some(more) = &mut report.v1_5 {
                random.scribble(&mut more.mr_service_td);
            }
            "MRSERVICETD"
        }
        24 => {
            random.scribble(&mut qe_report.cpu_svn);
            "CPUSVN of the QE"
        }
        25 => {
            qe_report.misc_select = random.number() as u32;
            "MISCSELECT"
        }
        26 => {
            random.scribble(&mut qe_report.attributes);
            "ATTRIBUTES of the QE"
        }
        27 => {
            random.scribble(&mut qe_report.mr_enclave);
            "MRENCLAVE of the QE"
        }
        28 => {
            random.scribble(&mut qe_report.mr_signer);
            "MRSIGNER of the QE"
        }
        29 => {
            qe_report.isv_prod_id = random.number() as u16;
            "ISVPRODID"
        }
        30 | 31 => {
            qe_report.isv_svn = random.below(14) as u16;
            "ISVSVN"
        }
        32 => {
            let length = random.below(70);
            quote.qe_auth_data = (0..length).map(|_| random.byte()).collect();
            "authentication data"
        }
        33 => {
            quote.certification_type = random.below(9) as u16;
            "certification type"
        }
        34 => {
            quote.pck_type = random.below(9) as u16;
            "PCK type"
        }
        _ => pem(random, &mut quote.pck_chain),
    }
}

/// Another way of writing a chain, or a chain with something around it.
fn pem(random: &mut Random, chain: &mut Vec<u8>) -> &'static str {
    let replace = |chain: &mut Vec<u8>, from: &str, to: &str| {
        let text = String::from_utf8_lossy(chain).replace(from, to);
        *chain = text.into_bytes();
    };
    match random.below(9) {
        0 => {
            replace(chain, "\n", "\r\n");
            "PEM with CRLF"
        }
        1 => {
            chain.pop();
            "PEM without its last byte"
        }
        2 => {
            chain.push(random.byte());
            "PEM with a byte after it"
        }
        3 => {
            chain.insert(0, b'\n');
            "PEM with a line before it"
        }
        4 => {
            replace(
                chain,
                "-----END CERTIFICATE-----\n",
                "-----END CERTIFICATE-----\n\n",
            );
            "PEM with empty lines"
        }
        5 => {
            // The root's certificate is the last one.
            let text = String::from_utf8_lossy(chain).into_owned();
            if let Some(at) = text.rfind("-----BEGIN") {
                chain.truncate(at);
            }
            "PEM without the root"
        }
        6 => {
            let copy = chain.clone();
            chain.pop();
            chain.extend(copy);
            "PEM twice"
        }
        7 => {
            replace(
                chain,
                "-----BEGIN CERTIFICATE-----\n",
                "a comment\n-----BEGIN CERTIFICATE-----\n",
            );
            "PEM with comments"
        }
        _ => random.damage(chain, b"-----BEGIN CERTIFICATE-----"),
    }
}

/// Any bytes of what is signed, reserved ones too; lengths that are not true.
fn patches(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let mut quote = machine.report(DATA);
    let mut what = String::new();
    for _ in 0..=random.below(2) {
        let enclave = random.one_in(3);
        let end = if enclave {
            QE_REPORT_LENGTH
        } else {
            quote.to_be_signed().len()
        };
        let at = random.below(end);
        let bytes: Vec<u8> = (0..1 + random.below(4.min(end - at)))
            .map(|_| random.byte())
            .collect();
        let whose = if enclave { "QE report" } else { "quote" };
        what += &format!("{} at {at:#x} of the {whose}, ", hex::encode(&bytes));
        let patches = if enclave {
            &mut quote.qe_report.patches
        } else {
            &mut quote.patches
        };
        patches.push((at, bytes));
    }
    if random.one_in(6) {
        let lengths = &mut quote.lengths;
        let by = *random.pick(&[-1i64, 1, 2, 64, -64]);
        let told = |length: usize| (length as i64 + by) as u32;
        match random.below(2) {
            0 => lengths.pck_chain = Some(told(quote.pck_chain.len())),
            _ => lengths.qe_auth_data = Some(told(quote.qe_auth_data.len()) as u16),
        }
        what += "a length that is not true";
    }
    case.quote = machine.sign(&quote);
    what
}

/// The order of P-256, little-endian.
const ORDER: &str = "512563fcc2cab9f3849e17a7adfae6bcffffffffffffffff00000000ffffffff";

/// Signatures that are another way of writing the same, or nothing at all.
fn signatures(random: &mut Random, quote: &mut [u8]) -> String {
    // The quote's signature is behind the body and its length, the enclave's behind key, type, size and the report.
    let body = match quote[0] {
        4 => 636,
        _ => 58 + u32::from_le_bytes(quote[50..54].try_into().expect("4 bytes")) as usize,
    };
    let enclave = random.one_in(2);
    let at = body
        + if enclave {
            64 + 64 + 6 + QE_REPORT_LENGTH
        } else {
            0
        };
    let whose = if enclave { "QE report" } else { "quote" };
    let order = hex::decode(ORDER).expect("hexadecimal");
    let half = at + 32 * random.below(2);
    let negated = |quote: &[u8], at: usize| {
        let number: Vec<u8> = quote[at..at + 32].iter().rev().copied().collect();
        let mut negated = subtract(&order, &number);
        negated.reverse();
        negated
    };
    let how = match random.below(7) {
        // (r, n − s) verifies wherever (r, s) does.
        0 | 1 => {
            let other = negated(quote, at + 32);
            quote[at + 32..at + 64].copy_from_slice(&other);
            "n − s"
        }
        2 => {
            let other = negated(quote, half);
            quote[half..half + 32].copy_from_slice(&other);
            "one of them negated"
        }
        3 => {
            quote[half..half + 32].fill(0);
            "a zero"
        }
        4 => {
            let big: Vec<u8> = order.iter().rev().copied().collect();
            quote[half..half + 32].copy_from_slice(&big);
            "n"
        }
        5 => {
            quote[at..at + 64].rotate_left(32);
            "r and s exchanged"
        }
        _ => {
            random.scribble(&mut quote[at..at + 64]);
            "anything"
        }
    };
    format!("{how} in that of the {whose}")
}

fn collateral(random: &mut Random, case: &mut Case, other: &Case) -> String {
    let (ours, theirs) = (&mut case.collateral, &other.collateral);
    let texts = [
        ("tcb_info", &mut ours.tcb_info, &theirs.tcb_info),
        ("qe_identity", &mut ours.qe_identity, &theirs.qe_identity),
    ];
    let files = [
        (
            "tcb_info_signature",
            &mut ours.tcb_info_signature,
            &theirs.tcb_info_signature,
        ),
        (
            "qe_identity_signature",
            &mut ours.qe_identity_signature,
            &theirs.qe_identity_signature,
        ),
        ("pck_crl", &mut ours.pck_crl, &theirs.pck_crl),
        ("root_ca_crl", &mut ours.root_ca_crl, &theirs.root_ca_crl),
    ];
    let place = random.below(6);
    if let Some((name, own, other)) = texts.into_iter().nth(place) {
        let mut bytes = own.take().expect("honest").into_bytes();
        let how = random.damage(&mut bytes, other.as_ref().expect("honest").as_bytes());
        *own = Some(String::from_utf8_lossy(&bytes).into_owned());
        return format!("{name}: {how}");
    }
    let (name, own, other) = files.into_iter().nth(place - 2).expect("six of them");
    let how = random.damage(
        &mut own.as_mut().expect("honest").0,
        &other.as_ref().expect("honest").0,
    );
    format!("{name}: {how}")
}

/// Issuers' chains, around which nothing is signed, and parts that are not there.
fn chains(random: &mut Random, case: &mut Case) -> String {
    let own = &mut case.collateral;
    if random.one_in(4) {
        let texts = [
            &mut own.tcb_info,
            &mut own.qe_identity,
            &mut own.tcb_info_issuer_chain,
        ];
        let files = [
            &mut own.tcb_info_signature,
            &mut own.pck_crl,
            &mut own.root_ca_crl,
        ];
        let place = random.below(6);
        match texts.into_iter().nth(place) {
            Some(text) => *text = None,
            None => *files.into_iter().nth(place - 3).expect("six of them") = None,
        }
        return format!("without part {place}");
    }
    let chains = [
        ("tcb_info_issuer_chain", &mut own.tcb_info_issuer_chain),
        (
            "qe_identity_issuer_chain",
            &mut own.qe_identity_issuer_chain,
        ),
        ("pck_crl_issuer_chain", &mut own.pck_crl_issuer_chain),
    ];
    let (name, chain) = chains
        .into_iter()
        .nth(random.below(3))
        .expect("three of them");
    if random.one_in(8) {
        *chain = None;
        return format!("without {name}");
    }
    let mut bytes = chain.take().expect("honest").into_bytes();
    let how = pem(random, &mut bytes);
    *chain = Some(String::from_utf8_lossy(&bytes).into_owned());
    format!("{name}: {how}")
}

const STATUSES: [&str; 9] = [
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
    "Uptodate",
    "",
];

/// Times that are near to that of the judgement, and others.
fn time(random: &mut Random) -> u64 {
    match random.below(3) {
        0 => NOW + random.below(4) as u64 - 2,
        1 => NOW - 86_400 * random.below(400) as u64,
        _ => NOW + 86_400 * random.below(400) as u64,
    }
}

fn level(random: &mut Random, levels: &mut Vec<IsvLevel>) -> &'static str {
    let place = random.below(levels.len());
    match random.below(5) {
        0 => {
            levels[place].isvsvn = random.below(14) as u16;
            "ISVSVN of a level"
        }
        1 => {
            levels[place].tcb_status = (*random.pick(&STATUSES)).into();
            "status of a level"
        }
        2 => {
            levels[place].tcb_date = time(random);
            "date of a level"
        }
        3 => {
            levels.remove(place);
            "without a level"
        }
        _ => {
            levels.reverse();
            "levels in another order"
        }
    }
}

/// TCB info and QE identity that say something else.
fn levels(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let sign = |text: &str| Some(HexBytes(machine.pki.keys.tcb_signing.sign(text.as_bytes())));
    if random.one_in(3) {
        let mut identity = machine.qe_identity.clone();
        let what = match random.below(12) {
            0 => {
                identity.id = (*random.pick(&["QE", "QVE", "TD_QE ", ""])).into();
                "id"
            }
            1 => {
                identity.version = random.below(5) as u32;
                "version"
            }
            2 => {
                identity.issue_date = time(random);
                "issueDate"
            }
            3 => {
                identity.next_update = time(random);
                "nextUpdate"
            }
            4 => {
                random.scribble(&mut identity.miscselect);
                "miscselect"
            }
            5 => {
                random.scribble(&mut identity.miscselect_mask);
                "miscselectMask"
            }
            6 => {
                random.scribble(&mut identity.attributes);
                "attributes"
            }
            7 => {
                random.scribble(&mut identity.attributes_mask);
                "attributesMask"
            }
            8 => {
                random.scribble(&mut identity.mrsigner);
                "mrsigner"
            }
            9 => {
                identity.isvprodid = random.below(5) as u16;
                "isvprodid"
            }
            10 => {
                identity.tcb_evaluation_data_number = random.number() as u32;
                "tcbEvaluationDataNumber"
            }
            _ => level(random, &mut identity.tcb_levels),
        };
        let text = identity.to_json();
        case.collateral.qe_identity_signature = sign(&text);
        case.collateral.qe_identity = Some(text);
        return format!("QE identity: {what}");
    }
    let mut info = machine.tcb_info.clone();
    let place = random.below(info.tcb_levels.len());
    let what = match random.below(20) {
        0 => {
            info.id = (*random.pick(&["SGX", "tdx", ""])).into();
            "id"
        }
        1 => {
            info.version = random.below(5) as u32;
            "version"
        }
        2 => {
            info.issue_date = time(random);
            "issueDate"
        }
        3 => {
            info.next_update = time(random);
            "nextUpdate"
        }
        4 => {
            random.scribble(&mut info.fmspc);
            "fmspc"
        }
        5 => {
            random.scribble(&mut info.pce_id);
            "pceId"
        }
        6 => {
            info.tcb_type = random.below(3) as u32;
            "tcbType"
        }
        7 => {
            info.tdx_module = None;
            "without tdxModule"
        }
        8 => {
            if let Some(module) = &mut info.tdx_module {
                random.scribble(&mut module.mrsigner);
            }
            "mrsigner of tdxModule"
        }
        9 => {
            if let Some(module) = &mut info.tdx_module {
                random.scribble(&mut module.attributes);
                random.scribble(&mut module.attributes_mask);
            }
            "attributes of tdxModule"
        }
        10 => {
            info.tdx_module_identities.clear();
            "without tdxModuleIdentities"
        }
        11 => {
            let identities = &mut info.tdx_module_identities;
            let place = random.below(identities.len());
            let module = &mut identities[place];
            match random.below(4) {
                0 => {
                    module.id =
                        (*random.pick(&["TDX_01", "TDX_03", "TDX_1", "tdx_01", "TDX_FF"])).into()
                }
                1 => random.scribble(&mut module.mrsigner),
                2 => random.scribble(&mut module.attributes),
                _ => random.scribble(&mut module.attributes_mask),
            }
            "a module identity"
        }
        12 => {
            let identities = &mut info.tdx_module_identities;
            let place = random.below(identities.len());
            level(random, &mut identities[place].tcb_levels)
        }
        13 => {
            let tcb = &mut info.tcb_levels[place].tcb;
            let components = match random.below(2) {
                0 => &mut tcb.sgxtcbcomponents,
                _ => &mut tcb.tdxtcbcomponents,
            };
            let component = random.below(components.len());
            components[component].svn = random.below(16) as u8;
            "a component of a level"
        }
        14 => {
            info.tcb_levels[place].tcb.pcesvn = random.below(16) as u16;
            "pcesvn of a level"
        }
        15 => {
            info.tcb_levels[place].tcb_status = (*random.pick(&STATUSES)).into();
            "status of a level"
        }
        16 => {
            info.tcb_levels.reverse();
            "levels in another order"
        }
        17 => {
            info.tcb_levels.remove(place);
            "without a level"
        }
        18 => {
            info.tcb_levels[place].advisories = vec!["INTEL-SA-00001".into()];
            "an advisory of a level"
        }
        _ => {
            info.tcb_evaluation_data_number = random.number() as u32;
            "tcbEvaluationDataNumber"
        }
    };
    let text = info.to_json();
    case.collateral.tcb_info_signature = sign(&text);
    case.collateral.tcb_info = Some(text);
    format!("TCB info: {what}")
}

/// Other ways of writing a text, and what is no JSON.
const REWRITTEN: &[(&str, &str)] = &[
    ("{", "{ "),
    (":", " : "),
    (",", ",\n"),
    ("{", "{\"unknown\":[{}],"),
    ("{", "{\"id\":\"TDX\","),
    ("{", "{\"version\":3,"),
    ("Z\"", ".000Z\""),
    ("Z\"", "+00:00\""),
    ("Z\"", "z\""),
    ("Z\"", "\""),
    ("T", " "),
    ("\"version\":3", "\"version\":3.0"),
    ("\"version\":3", "\"version\":\"3\""),
    ("\"version\":2", "\"version\":2e0"),
    ("\"svn\":", "\"svn\":0"),
    ("\"svn\":", "\"svn\":-"),
    ("\"svn\":", "\"svn\":1"),
    ("\"svn\":4", "\"svn\":260"),
    ("\"pcesvn\":", "\"pcesvn\":7777"),
    ("\"isvsvn\":", "\"isvsvn\":+"),
    ("\"id\":", "\"ID\":"),
    ("\"tcbLevels\"", "\"tcblevels\""),
    ("\"tcbLevels\":[", "\"tcbLevels\":[null,"),
    ("\"mrsigner\":\"", "\"mrsigner\":\"00"),
    ("\"attributes\":\"0", "\"attributes\":\"+"),
    ("\"fmspc\":\"F0", "\"fmspc\":\"f0"),
    ("UpToDate", "\\u0055pToDate"),
    ("UpToDate", "UpToDate "),
    ("null", "\"\""),
    ("}", "},"),
    ("]", ",]"),
];

/// Intel's signer signs another text.
fn texts(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let own = &mut case.collateral;
    let (name, text, signature) = match random.below(2) {
        0 => ("TCB info", &mut own.tcb_info, &mut own.tcb_info_signature),
        _ => (
            "QE identity",
            &mut own.qe_identity,
            &mut own.qe_identity_signature,
        ),
    };
    let old = text.as_ref().expect("honest");
    let (new, how) = match random.below(8) {
        0 => {
            let mut bytes = old.clone().into_bytes();
            let how = random.damage(&mut bytes, b"{\"id\":\"TDX\"}");
            (String::from_utf8_lossy(&bytes).into_owned(), how.to_owned())
        }
        1 => (
            format!("{old}{}", random.pick(&[" ", "\n", "\0", "{}", ","])),
            "something after it".into(),
        ),
        2 => (
            format!("{}{old}", random.pick(&[" ", "\n", "\u{feff}"])),
            "something before it".into(),
        ),
        _ => {
            let (from, to) = random.pick(REWRITTEN);
            let new = match random.one_in(2) {
                true => old.replace(from, to),
                false => old.replacen(from, to, 1 + random.below(3)),
            };
            (new, format!("{from:?} → {to:?}"))
        }
    };
    *signature = Some(HexBytes(machine.pki.keys.tcb_signing.sign(new.as_bytes())));
    *text = Some(new);
    format!("{name}: {how}")
}

fn reissued(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let mut machine = machine.clone();
    let (name, certificate): (_, &mut Certificate) = match random.below(4) {
        0 | 1 => ("PCK", &mut machine.pck),
        2 => match machine.ca {
            PckCa::Platform => ("Platform CA", &mut machine.pki.platform_ca),
            PckCa::Processor => ("Processor CA", &mut machine.pki.processor_ca),
        },
        _ => ("TCB signing", &mut machine.pki.tcb_signing),
    };
    let what = change(random, certificate);
    (case.quote, case.collateral) = (machine.quote(DATA), machine.collateral());
    format!("{name}: {what}")
}

fn lists(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let root = random.one_in(2);
    let mut crl: Crl = match root {
        true => machine.root_crl.clone(),
        false => machine.pck_crl.clone(),
    };
    let serials = [
        &machine.pck.serial,
        &machine.pki.ca(machine.ca).serial,
        &machine.pki.tcb_signing.serial,
        &machine.pki.root.serial,
    ];
    let what = match random.below(8) {
        0 => {
            let serial: Vec<u8> = (0..1 + random.below(20)).map(|_| random.byte()).collect();
            crl.revoke(&serial);
            "another revoked"
        }
        1 => {
            crl.revoke(*random.pick(&serials));
            "one of these revoked"
        }
        2 => {
            crl.revoke(*random.pick(&serials));
            let entry = crl.revoked.last_mut().expect("just pushed");
            entry.reason = Some(random.below(12) as u8);
            "one of these revoked for a reason"
        }
        3 => {
            crl.this_update = time(random);
            "thisUpdate"
        }
        4 => {
            crl.next_update = (!random.one_in(4)).then(|| time(random));
            "nextUpdate"
        }
        5 => {
            crl.version = *random.pick(&[None, Some(0), Some(1), Some(2)]);
            "version"
        }
        6 => {
            let critical = random.one_in(2);
            crl.extensions
                .push(Extension::new("2.5.29.28", critical, vec![0x30, 0]));
            "extension"
        }
        _ => {
            crl.extensions.clear();
            "no extensions"
        }
    };
    let own = &mut case.collateral;
    match root {
        true => own.root_ca_crl = Some(HexBytes(crl.sign(&machine.pki.keys.root))),
        false => own.pck_crl = Some(HexBytes(crl.sign(machine.pki.ca_key(machine.ca)))),
    }
    format!(
        "{}: {what}",
        if root { "the root's" } else { "the PCK CA's" }
    )
}

/// A platform that Intel describes otherwise: in what its certificate says, or in how.
fn platform(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let mut machine = machine.clone();
    let sgx = &mut machine.platform;
    if random.one_in(3) {
        let mut entries = sgx.entries();
        let place = random.below(entries.len());
        let what = match random.below(5) {
            0 => {
                let entry = entries.remove(place);
                format!("without {}", entry.oid)
            }
            1 => {
                let entry = entries[place].clone();
                let what = format!("{} twice", entry.oid);
                entries.push(entry);
                what
            }
            2 => {
                entries.reverse();
                "another order".into()
            }
            3 => {
                random.damage(&mut entries[place].value, &[5, 0]);
                format!("value of {}", entries[place].oid)
            }
            _ => {
                let mut unknown = entries[place].clone();
                unknown.oid = format!("{}.99", oid::SGX);
                entries.insert(place, unknown);
                "an unknown one".into()
            }
        };
        *machine.pck.extension_mut(oid::SGX) = sgx_extension(&entries);
        case.quote = machine.quote(DATA);
        return format!("entries: {what}");
    }
    let what = match random.below(8) {
        0 => {
            random.scribble(&mut sgx.ppid);
            "PPID"
        }
        1 => {
            let component = random.below(16);
            sgx.set_svn(component, random.below(16) as u8);
            "a component"
        }
        2 => {
            random.scribble(&mut sgx.comp_svn);
            "components, not CPUSVN"
        }
        3 => {
            sgx.pce_svn = random.below(20) as u16;
            "PCESVN"
        }
        4 => {
            random.scribble(&mut sgx.fmspc);
            "FMSPC"
        }
        5 => {
            sgx.sgx_type = random.below(5) as u8;
            "SGX type"
        }
        6 => {
            sgx.platform_instance_id = random.one_in(2).then_some([7; 16]);
            "instance"
        }
        _ => {
            let mut flag = || *random.pick(&[None, Some(false), Some(true)]);
            let [dynamic_platform, cached_keys, smt_enabled] = [flag(), flag(), flag()];
            let configuration = Configuration {
                dynamic_platform,
                cached_keys,
                smt_enabled,
            };
            sgx.configuration = random
                .one_in(3)
                .then_some(configuration)
                .or(sgx.configuration);
            "configuration"
        }
    };
    machine.pck = machine
        .pki
        .pck(&machine.pck_key, machine.ca, &machine.platform);
    case.quote = machine.quote(DATA);
    what.into()
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
