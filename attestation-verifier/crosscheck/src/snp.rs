//! SEV-SNP: genuine and simulated reports, mutated, before Touchstone and `sev`.
//!
//! "Accepted" means parsed and authenticated: what a policy then says of a genuine report is no business of `sev`'s.

use std::path::Path;
use std::sync::OnceLock;

use attestation_verifier::authenticate::authenticate;
use attestation_verifier::parse::parse;
use attestation_verifier::{Checks, Roots};
use sev::certs::snp::{Certificate as Theirs, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;
use touchstone_formats::{Collateral, Evidence, SnpCollateral, Tee};
use touchstone_testkit::amd::{Extension, Pki, PkiKeys, Product, oid};
use touchstone_testkit::machine::{Endorsement, Machine};
use touchstone_testkit::snp::{
    REPORT_LENGTH, Report, SIGNATURE_PART, SIGNED_LENGTH, platform_info,
};

use crate::mutate::{Honest, change, patch, several, subtract};
use crate::random::Random;
use crate::run::{Excuse, Mutant, Other};

/// When the simulated machines are judged.
const NOW: u64 = 1_790_000_000;

/// Evidence, and by what it is judged.
#[derive(Clone)]
struct Case {
    name: String,
    quote: Vec<u8>,
    collateral: SnpCollateral,
    roots: &'static Roots,
    ark: Vec<u8>,
    at: u64,
}

fn honest() -> &'static [Honest<Case, Machine>] {
    static HONEST: OnceLock<Vec<Honest<Case, Machine>>> = OnceLock::new();
    HONEST.get_or_init(|| {
        let mut all = vec![genuine()];
        for product in Product::ALL {
            let pki = Pki::with_keys(product, NOW, PkiKeys::shared("vendor"));
            let pem = pki.ark_pem();
            let roots = Roots::pinned()
                .with_simulated_pem(pem.as_bytes())
                .expect("the simulated root");
            let ark = roots
                .anchors()
                .last()
                .expect("that root")
                .certificate
                .der()
                .to_vec();
            let roots: &'static Roots = Box::leak(Box::new(roots));
            let vlek = Endorsement::Vlek {
                csp_id: "CN=cc-x.simulated.invalid".into(),
            };
            let kinds = [
                (2, Endorsement::Vcek),
                (3, Endorsement::Vcek),
                (5, Endorsement::Vcek),
                (5, vlek),
            ];
            for (version, endorsement) in kinds {
                let name = format!("{product} v{version} {endorsement:?}");
                let mut report = Report::new(product, version);
                if version == 2 {
                    // Reserved there.
                    report.platform_info &= !platform_info::ALIAS_CHECK_COMPLETE;
                }
                let machine = Machine::under(pki.clone(), report, endorsement);
                let files = machine.collateral();
                let case = Case {
                    name,
                    quote: machine.quote([0x42; 64]),
                    collateral: SnpCollateral {
                        vek: Some(files.vek),
                        chain: files.chain,
                        crls: files.crls,
                    },
                    roots,
                    ark: ark.clone(),
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

/// A report of a Milan's, and AMD's own chain.
fn genuine() -> Honest<Case, Machine> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/snp/sev-8.0.0");
    let read =
        |name: &str| std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let quote = hex::decode(read("report_milan.hex").trim_ascii()).expect("hexadecimal");
    let pem = read("cert_chain_milan");
    let chain: Vec<Vec<u8>> = std::str::from_utf8(&pem)
        .expect("PEM")
        .split_inclusive("-----END CERTIFICATE-----")
        .filter_map(|block| Theirs::from_pem(block.as_bytes()).ok())
        .map(|certificate| certificate.to_der().expect("DER"))
        .collect();
    let [ask, ark] = <[Vec<u8>; 2]>::try_from(chain).expect("two certificates");
    let case = Case {
        name: "a genuine Milan".into(),
        quote,
        collateral: SnpCollateral {
            vek: Some(read("vcek_milan.der")),
            chain: vec![ask],
            crls: Vec::new(),
        },
        roots: Box::leak(Box::new(Roots::pinned())),
        ark,
        // Its certificate is of 2022.
        at: 1_767_225_600,
    };
    Honest {
        case,
        machine: None,
    }
}

impl Case {
    fn evidence(&self) -> Evidence {
        Evidence {
            purpose: None,
            nonce: None,
            tee: Tee::SevSnp,
            quote: self.quote.clone(),
            collateral: Some(Collateral::SevSnp(self.collateral.clone())),
            event_log: None,
        }
    }

    /// Out of its validity is accepted here: `sev` looks at no dates.
    fn touchstone(&self) -> Result<(), String> {
        let mut checks = Checks::new();
        let parsed = parse(&self.evidence(), &mut checks);
        match parsed.and_then(|parsed| authenticate(parsed, self.roots, self.at, &mut checks)) {
            Some(_) => Ok(()),
            None => Err(format!("{:?}", checks.deciding())),
        }
    }

    fn sev(&self) -> Result<(), String> {
        let words = |e: std::io::Error| e.to_string();
        let read = |der: &[u8]| Theirs::from_der(der).map_err(words);
        let root = |der: &&Vec<u8>| **der != self.ark;
        let ask = self
            .collateral
            .chain
            .iter()
            .find(root)
            .ok_or("no intermediate")?;
        let chain = Chain {
            ca: ca::Chain {
                ark: read(&self.ark)?,
                ask: read(ask)?,
            },
            vek: read(self.collateral.vek.as_ref().ok_or("no VEK")?)?,
        };
        let report = AttestationReport::from_bytes(&self.quote).map_err(words)?;
        (&chain, &report).verify().map_err(words)
    }
}

/// All that are honest are accepted by both: nothing else that is compared here would mean anything.
///
/// # Panics
/// When one is not.
pub fn both_accept_what_is_honest() {
    for Honest { case, .. } in honest() {
        case.touchstone()
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        case.sev().unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
}

/// A mutant.
pub fn mutant(random: &mut Random) -> Mutant<'static> {
    let (honest, other) = Honest::two(random, honest());
    let mut case = honest.case.clone();
    let (kind, what) = match (random.below(100), &honest.machine) {
        (0..35, _) => (
            "report, not signed again",
            random.damage(&mut case.quote, &other.quote).into(),
        ),
        (35..60, Some(machine)) => (
            "fields of a report, signed again",
            fields(random, machine, &mut case),
        ),
        (60..72, Some(machine)) => (
            "bytes of a report, signed again",
            patches(random, machine, &mut case),
        ),
        (72..80, _) => ("signature of a report", signature(random, &mut case.quote)),
        (80..88, _) => (
            "certificates, not signed again",
            certificates(random, &mut case, other),
        ),
        (88..92, Some(machine)) => (
            "certificates, signed again",
            reissued(random, machine, &mut case),
        ),
        (92..94, Some(machine)) => (
            "revocation list, signed again",
            list(random, machine, &mut case),
        ),
        (94.., _) => ("parts exchanged", exchanged(random, &mut case, other)),
        _ => (
            "report, not signed again",
            random.damage(&mut case.quote, &other.quote).into(),
        ),
    };
    let cpuid = hex::encode(case.quote.get(0x188..0x18b).unwrap_or_default());
    let what = format!("{what} of {}, now with CPUID {cpuid}", case.name);
    let unchanged = case.quote == honest.case.quote && case.collateral == honest.case.collateral;
    let accepted = case.touchstone().is_ok();
    let (asked, kept) = (case.clone(), case);
    let sev = Other {
        judge: "sev",
        accepted,
        ask: Box::new(move || asked.sev()),
    };
    Mutant {
        kind,
        what,
        unchanged,
        others: vec![sev],
        file: Box::new(move || kept.evidence().to_file()),
    }
}

/// Kinds of which some have to be accepted.
pub const MUST_ACCEPT: [&str; 5] = [
    "fields of a report, signed again",
    "bytes of a report, signed again",
    "signature of a report",
    "certificates, signed again",
    "revocation list, signed again",
];

fn fields(random: &mut Random, machine: &Machine, case: &mut Case) -> String {
    let mut report = machine.report.clone();
    report.report_data = [0x42; 64];
    let what = several(random, 3, |random| field(random, &mut report).into());
    case.quote = report.sign(&machine.key);
    what
}

fn field(random: &mut Random, report: &mut Report) -> &'static str {
    let version = |random: &mut Random| std::array::from_fn(|_| random.byte());
    match random.below(30) {
        0 => {
            report.version = random.number() as u32;
            "VERSION"
        }
        1 => {
            report.guest_svn = random.number() as u32;
            "GUEST_SVN"
        }
        2 | 3 => {
            report.policy ^= random.number();
            "POLICY"
        }
        4 => {
            random.scribble(&mut report.family_id);
            "FAMILY_ID"
        }
        5 => {
            random.scribble(&mut report.image_id);
            "IMAGE_ID"
        }
        6 => {
            report.vmpl = random.number() as u32;
            "VMPL"
        }
        7 => {
            report.signature_algo = random.number() as u32;
            "SIGNATURE_ALGO"
        }
        8 => {
            random.scribble(&mut report.current_tcb);
            "CURRENT_TCB"
        }
        9 | 10 => {
            report.platform_info ^= random.number();
            "PLATFORM_INFO"
        }
        11 | 12 => {
            report.flags ^= random.number() as u32;
            "FLAGS"
        }
        13 => {
            random.scribble(&mut report.report_data);
            "REPORT_DATA"
        }
        14 => {
            random.scribble(&mut report.measurement);
            "MEASUREMENT"
        }
        15 => {
            random.scribble(&mut report.host_data);
            "HOST_DATA"
        }
        16 => {
            random.scribble(&mut report.id_key_digest);
            "ID_KEY_DIGEST"
        }
        17 => {
            random.scribble(&mut report.author_key_digest);
            "AUTHOR_KEY_DIGEST"
        }
        18 => {
            random.scribble(&mut report.report_id);
            "REPORT_ID"
        }
        19 => {
            random.scribble(&mut report.report_id_ma);
            "REPORT_ID_MA"
        }
        20 => {
            random.scribble(&mut report.reported_tcb);
            "REPORTED_TCB"
        }
        21 => {
            random.scribble(&mut report.cpuid);
            "CPUID"
        }
        22 => {
            random.scribble(&mut report.chip_id);
            "CHIP_ID"
        }
        23 => {
            random.scribble(&mut report.committed_tcb);
            "COMMITTED_TCB"
        }
        24 => {
            report.current_version = version(random);
            "CURRENT_VERSION"
        }
        25 => {
            report.committed_version = version(random);
            "COMMITTED_VERSION"
        }
        26 => {
            random.scribble(&mut report.launch_tcb);
            "LAUNCH_TCB"
        }
        27 => {
            report.launch_mit_vector = random.number();
            "LAUNCH_MIT_VECTOR"
        }
        28 => {
            report.current_mit_vector = random.number();
            "CURRENT_MIT_VECTOR"
        }
        _ => {
            report.version = *random.pick(&[2, 3, 4, 5, 6]);
            "VERSION"
        }
    }
}

/// Any bytes, reserved ones too.
fn patches(random: &mut Random, machine: &Machine, case: &mut Case) -> String {
    let mut report = machine.report.clone();
    let what = several(random, 3, |random| {
        patch(random, SIGNED_LENGTH, &mut report.patches)
    });
    case.quote = report.sign(&machine.key);
    what
}

/// The order of P-384, little-endian.
const ORDER: &str = "7329c5cc6a19ecec7aa7b048b20d1a58df2d37f4814d63c7ffffffffffffffffffffffffffffffffffffffffffffffff";

/// Signatures that are another way of writing the same, or nothing at all.
fn signature(random: &mut Random, quote: &mut [u8]) -> String {
    let order = hex::decode(ORDER).expect("hexadecimal");
    let (r, s) = (SIGNED_LENGTH, SIGNED_LENGTH + SIGNATURE_PART);
    let part = |quote: &[u8], at: usize| quote[at..at + 48].to_vec();
    match random.below(9) {
        0 => {
            // (r, n − s) verifies wherever (r, s) does.
            let negated = subtract(&order, &part(quote, s));
            quote[s..s + 48].copy_from_slice(&negated);
            "n − s".into()
        }
        1 => {
            let (one, two) = (part(quote, r), part(quote, s));
            quote[r..r + 48].copy_from_slice(&two);
            quote[s..s + 48].copy_from_slice(&one);
            "r and s exchanged".into()
        }
        2 => {
            let at = *random.pick(&[r, s]);
            quote[at..at + 48].fill(0);
            "a zero".into()
        }
        3 => {
            let at = *random.pick(&[r, s]);
            quote[at..at + 48].copy_from_slice(&order);
            "n".into()
        }
        4 => {
            let at = *random.pick(&[r, s]);
            let negated = subtract(&order, &part(quote, at));
            quote[at..at + 48].copy_from_slice(&negated);
            "one of them negated".into()
        }
        5 => {
            let at = *random.pick(&[r, s]) + 48 + random.below(24);
            quote[at] = random.byte();
            format!("padding at {at:#x}")
        }
        6 => {
            let at = s + SIGNATURE_PART + random.below(REPORT_LENGTH - s - SIGNATURE_PART);
            quote[at] = random.byte();
            format!("reserved at {at:#x}")
        }
        7 => {
            quote[r..r + 48].reverse();
            quote[s..s + 48].reverse();
            "big-endian".into()
        }
        _ => {
            random.scribble(&mut quote[r..]);
            "anything".into()
        }
    }
}

fn certificates(random: &mut Random, case: &mut Case, other: &Case) -> String {
    let theirs = &other.collateral;
    let ours = &mut case.collateral;
    let (name, how) = match random.below(if ours.crls.is_empty() { 2 } else { 3 }) {
        0 => {
            let vek = ours.vek.as_mut().expect("honest");
            (
                "VEK",
                random.damage(vek, theirs.vek.as_ref().expect("honest")),
            )
        }
        1 => (
            "intermediate",
            random.damage(&mut ours.chain[0], &theirs.chain[0]),
        ),
        _ => {
            let other = theirs.crls.first().unwrap_or(&theirs.chain[0]);
            ("revocation list", random.damage(&mut ours.crls[0], other))
        }
    };
    format!("{name}: {how}")
}

fn reissued(random: &mut Random, machine: &Machine, case: &mut Case) -> String {
    let keys = &machine.pki.keys;
    let vlek = !matches!(machine.endorsement, Endorsement::Vcek);
    let (issuer, intermediate) = match vlek {
        true => (&keys.asvk, &machine.pki.asvk),
        false => (&keys.ask, &machine.pki.ask),
    };
    if random.one_in(5) {
        let mut certificate = intermediate.clone();
        let what = change(random, &mut certificate);
        case.collateral.chain = vec![certificate.sign(&keys.ark)];
        return format!("intermediate: {what}");
    }
    let mut certificate = machine.vek.clone();
    let what = change(random, &mut certificate);
    case.collateral.vek = Some(certificate.sign(issuer));
    format!("VEK: {what}")
}

fn list(random: &mut Random, machine: &Machine, case: &mut Case) -> String {
    let mut crl = machine.crl.clone();
    let what = match random.below(6) {
        0 => {
            let length = 1 + random.below(20);
            crl.revoke(&(0..length).map(|_| random.byte()).collect::<Vec<u8>>());
            "another revoked"
        }
        1 => {
            crl.this_update = random.number() % (1 << 33);
            "thisUpdate"
        }
        2 => {
            crl.next_update = random.one_in(2).then_some(random.number() % (1 << 33));
            "nextUpdate"
        }
        3 => {
            crl.version = *random.pick(&[None, Some(0), Some(1), Some(2)]);
            "version"
        }
        4 => {
            let critical = random.one_in(2);
            crl.extensions
                .push(Extension::new(oid::CRL_POINTS, critical, vec![5, 0]));
            "extension"
        }
        _ => {
            crl.revoke(&machine.vek.serial);
            "the VEK revoked"
        }
    };
    case.collateral.crls = vec![crl.sign(&machine.pki.keys.ark)];
    what.into()
}

fn exchanged(random: &mut Random, case: &mut Case, other: &Case) -> String {
    let what = match random.below(7) {
        0 => {
            case.quote.clone_from(&other.quote);
            "quote"
        }
        1 => {
            case.collateral.vek.clone_from(&other.collateral.vek);
            "VEK"
        }
        2 => {
            case.collateral.chain.clone_from(&other.collateral.chain);
            "chain"
        }
        3 => {
            case.collateral.crls.clone_from(&other.collateral.crls);
            "revocation lists"
        }
        4 => {
            case.collateral.clone_from(&other.collateral);
            "collateral"
        }
        5 => {
            case.collateral.chain.push(case.ark.clone());
            "root added to the chain"
        }
        _ => {
            // Another root is no change to the evidence: something else goes with it. The pinned ones are always there.
            case.roots = other.roots;
            if case.at == NOW {
                case.ark.clone_from(&other.ark);
            }
            case.collateral.chain.clone_from(&other.collateral.chain);
            "root and chain"
        }
    };
    format!("{what} of {}", other.name)
}

/// Kinds of which none may be.
pub const MUST_REFUSE: [&str; 2] = ["report, not signed again", "certificates, not signed again"];

/// Where `sev` refuses what Touchstone accepts.
pub const EXCUSES: &[Excuse] = &[
    Excuse {
        judge: "sev",
        reason: "without a CHIP_ID it cannot tell a report of version 2 from Turin's; the product is the certificate's here, and a \
                 masked CHIP_ID is the policy's to refuse (snp.chip_id.masked)",
        fits: |f| f.said.starts_with("MASK_CHIP_ID is enabled"),
    },
    Excuse {
        judge: "sev",
        reason: "of family 0x1A it knows models up to 0x11; AMD's numbers for Turin go to 0x1F",
        fits: |f| {
            f.what.contains("now with CPUID 1a1") && f.said.starts_with("processor is not of know")
        },
    },
];
