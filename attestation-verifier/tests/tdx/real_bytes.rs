//! Real quotes and Intel's own collateral: what is genuine is found so, and no bit of it can be changed.

use std::collections::BTreeMap;
use std::sync::Mutex;

use attestation_verifier::Roots;
use attestation_verifier::authenticate::intel::PartKind;
use attestation_verifier::parse::tdx::{PckCa, SgxType, TcbStatus, TdVersion};
use attestation_verifier::verdict::Outcome;
use touchstone_formats::evidence::{Collateral, Evidence, TdxCollateral};
use touchstone_testkit::fixtures;

use crate::support::{
    V4_TIME, V5_TIME, collateral, decided, evidence, file, seen, trimmed, v4, v5, words,
};

/// A range of bits that may change unnoticed, with the reason. There is none: every byte of a quote is signed, or part of a
/// signature, or has one value.
const EXCEPTIONS: &[(std::ops::Range<usize>, &str)] = &[];

#[test]
fn the_committed_quotes_are_authentic() {
    for (evidence, time, version, td) in [
        (v4(), V4_TIME, 4, TdVersion::V1_0),
        (v5(), V5_TIME, 5, TdVersion::V1_5),
    ] {
        let (checks, authentic) = seen(&evidence, &Roots::pinned(), time);
        let authentic = authentic.unwrap_or_else(|| panic!("{}", words(&checks)));
        assert!(checks.hold(), "{}", words(&checks));
        for id in [
            "tdx.format",
            "tdx.pck.extensions",
            "tdx.collateral",
            "tdx.chain.root",
            "tdx.chain.signature",
            "tdx.chain.constraints",
            "tdx.chain.validity",
            "tdx.chain.crl_signature",
            "tdx.chain.revoked",
            "tdx.qe.signature",
            "tdx.qe.binding",
            "tdx.signature",
            "tdx.qe.identity",
            "tdx.tcb_info.signature",
            "tdx.tcb_info.fmspc",
            "tdx.qe_identity.signature",
            "tdx.collateral.validity",
        ] {
            let result = checks.find(id).map(|check| check.result);
            assert_eq!(result, Some(Outcome::Pass), "{id}");
        }
        let quote = authentic.quote();
        assert_eq!((quote.version, quote.report.version), (version, td));
        assert_eq!(authentic.root().name, "Intel SGX Root CA");
        assert!(!authentic.root().simulated);
        let pck = authentic.pck();
        assert_eq!(pck.ca, Some(PckCa::Platform));
        assert_eq!(pck.sgx_type, SgxType::Scalable);
        assert_eq!(pck.fmspc, authentic.tcb_info().fmspc);
        assert!(pck.platform_instance_id.is_some());
        assert_eq!(pck.configuration.unwrap().smt_enabled, Some(true));
        // Byte for byte the same levels for SGX's components as in CPUSVN, on every platform so far.
        assert_eq!(pck.cpu_svn, pck.comp_svn);
        let names: Vec<(&str, PartKind)> = authentic
            .windows()
            .iter()
            .map(|part| (part.name, part.kind))
            .collect();
        assert_eq!(
            names,
            [
                ("the PCK certificate", PartKind::Certificate),
                ("the PCK CA", PartKind::Certificate),
                ("the root", PartKind::Certificate),
                ("the TCB signing certificate", PartKind::Certificate),
                ("the PCK revocation list", PartKind::Crl),
                ("the root's revocation list", PartKind::Crl),
                ("TCB info", PartKind::Signed),
                ("QE identity", PartKind::Signed),
            ]
        );
        assert!(authentic.windows().iter().all(|p| p.window.holds(time)));
    }
}

#[test]
fn fields_are_read_where_they_stand() {
    let evidence = v5();
    let (_, authentic) = seen(&evidence, &Roots::pinned(), V5_TIME);
    let authentic = authentic.unwrap();
    let (raw, report) = (&evidence.quote, authentic.report());
    // Header 48, body type and size 6.
    let at = |offset: usize, length: usize| raw[54 + offset..54 + offset + length].to_vec();
    assert_eq!(report.tee_tcb_svn.to_vec(), at(0, 16));
    assert_eq!(report.mr_seam.to_vec(), at(16, 48));
    assert_eq!(report.mr_signer_seam.to_vec(), at(64, 48));
    assert_eq!(report.seam_attributes.to_vec(), at(112, 8));
    assert_eq!(report.td_attributes.to_le_bytes().to_vec(), at(120, 8));
    assert_eq!(report.xfam.to_le_bytes().to_vec(), at(128, 8));
    assert_eq!(report.mr_td.to_vec(), at(136, 48));
    assert_eq!(report.mr_config_id.to_vec(), at(184, 48));
    assert_eq!(report.mr_owner.to_vec(), at(232, 48));
    assert_eq!(report.mr_owner_config.to_vec(), at(280, 48));
    for (n, rtmr) in report.rtmr.iter().enumerate() {
        assert_eq!(rtmr.to_vec(), at(328 + 48 * n, 48));
    }
    assert_eq!(report.report_data.to_vec(), at(520, 64));
    assert_eq!(report.tee_tcb_svn_2.unwrap().to_vec(), at(584, 16));
    assert_eq!(report.mr_service_td.unwrap().to_vec(), at(600, 48));
    assert_eq!(authentic.quote().signed, raw[..54 + 648]);
    assert_eq!(authentic.quote().user_data.to_vec(), raw[28..48]);

    let info = authentic.tcb_info();
    assert_eq!(hex::encode(info.fmspc), "90c06f000000");
    assert_eq!(info.tcb_evaluation_data_number, 18);
    assert_eq!(info.tdx_module.mrsigner, [0; 48]);
    assert_eq!(info.tdx_module.attributes_mask, [0xff; 8]);
    let modules: Vec<(&str, usize)> = info
        .tdx_module_identities
        .iter()
        .map(|identity| (identity.id.as_str(), identity.levels.len()))
        .collect();
    assert_eq!(modules, [("TDX_03", 1), ("TDX_01", 3)]);
    assert_eq!(info.levels.len(), 3);
    let first = &info.levels[0];
    assert_eq!(first.sgx_svn[..8], [3, 3, 2, 2, 4, 1, 0, 5]);
    assert_eq!(first.tdx_svn[..4], [5, 0, 3, 0]);
    assert_eq!((first.pce_svn, first.status), (13, TcbStatus::UpToDate));
    assert_eq!(first.tcb_date, 1_731_456_000);
    assert!(first.advisories.is_empty());
    assert!(
        info.levels[1..]
            .iter()
            .all(|level| !level.advisories.is_empty())
    );
    let qe = authentic.qe_identity();
    assert_eq!((qe.isvprodid, qe.levels[0].isvsvn), (2, 4));
    assert_eq!((qe.miscselect, qe.miscselect_mask), (0, u32::MAX));
    assert_eq!(authentic.quote().qe_report.mrsigner(), qe.mrsigner);
    assert_eq!(authentic.quote().qe_report.isvsvn(), 7);
}

/// Many changes of one evidence object, on all processors; those that were accepted, and how the others were refused.
fn changed<T: Sync + Clone + Send>(
    items: &[T],
    evidence: &Evidence,
    time: u64,
    change: impl Fn(&T, &mut Evidence) + Sync,
) -> (Vec<T>, BTreeMap<(u8, String), usize>) {
    let roots = Roots::pinned();
    let accepted = Mutex::new(Vec::new());
    let refused = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for chunk in items.chunks(items.len().div_ceil(threads)) {
            let (roots, change, accepted, refused) = (&roots, &change, &accepted, &refused);
            scope.spawn(move || {
                for item in chunk {
                    let mut evidence = evidence.clone();
                    change(item, &mut evidence);
                    let (checks, authentic) = seen(&evidence, roots, time);
                    assert_eq!(authentic.is_some(), checks.hold());
                    if checks.hold() {
                        accepted.lock().unwrap().push(item.clone());
                    } else {
                        *refused.lock().unwrap().entry(decided(&checks)).or_default() += 1;
                    }
                }
            });
        }
    });
    (
        accepted.into_inner().unwrap(),
        refused.into_inner().unwrap(),
    )
}

/// These bits of a quote, one at a time; a share of them has to be decided by each of these checks.
fn flips_are_refused(name: &str, evidence: &Evidence, time: u64, bits: &[usize]) {
    let mut evidence = evidence.clone();
    // The revocation lists stay as they are, and would be most of the work: no quote is refused for want of them here.
    (own(&mut evidence).pck_crl, own(&mut evidence).root_ca_crl) = (None, None);
    let (checks, _) = seen(&evidence, &Roots::pinned(), time);
    assert!(checks.hold(), "{name}: {}", words(&checks));
    let (accepted, refused) = changed(bits, &evidence, time, |bit, evidence| {
        evidence.quote[bit / 8] ^= 1 << (bit % 8);
    });
    let excepted = |bit: &usize| EXCEPTIONS.iter().any(|(range, _)| range.contains(bit));
    let beside: Vec<&usize> = accepted.iter().filter(|bit| !excepted(bit)).collect();
    assert!(beside.is_empty(), "{name}: accepted {beside:?}");
    for (range, reason) in EXCEPTIONS {
        let used = accepted.iter().any(|bit| range.contains(bit));
        assert!(
            used,
            "{name}: the exception {range:?} is not used: {reason}"
        );
    }
    assert!(
        refused.keys().all(|(exit, _)| matches!(exit, 2 | 3)),
        "{name}: {refused:?}"
    );
    // Each kind of bytes is held by the check that is there for it.
    for (id, percent) in [
        ("tdx.format", 40),
        ("tdx.chain.signature", 12),
        ("tdx.signature", 12),
        ("tdx.chain.root", 7),
        ("tdx.pck.extensions", 7),
        ("tdx.qe.signature", 5),
        ("tdx.qe.binding", 1),
    ] {
        let of =
            |((_, found), count): (&(u8, String), &usize)| if found == id { *count } else { 0 };
        let count: usize = refused.iter().map(of).sum();
        assert!(
            count * 100 >= bits.len() * percent,
            "{name}: {id}: {refused:?}"
        );
    }
}

#[test]
fn every_flip_of_the_committed_quote_v4() {
    let evidence = v4();
    let bits: Vec<usize> = (0..evidence.quote.len() * 8).collect();
    assert_eq!(bits.len(), 39_488);
    flips_are_refused("v4", &evidence, V4_TIME, &bits);
}

/// One bit of every byte, and every bit of what version 5 has of its own: header, body type, sizes, the body's end.
#[test]
fn flips_of_the_committed_quote_v5() {
    let evidence = v5();
    let own = |byte: usize| byte < 54 || (54 + 584..54 + 648 + 4).contains(&byte);
    let bits: Vec<usize> = (0..evidence.quote.len() * 8)
        .filter(|bit| own(bit / 8) || bit % 8 == (bit / 8) % 8)
        .collect();
    flips_are_refused("v5", &evidence, V5_TIME, &bits);
}

#[test]
fn every_truncation_and_every_extension_is_malformed() {
    for (evidence, time) in [(v4(), V4_TIME), (v5(), V5_TIME)] {
        let lengths: Vec<usize> = (0..evidence.quote.len()).collect();
        let (accepted, refused) = changed(&lengths, &evidence, time, |length, evidence| {
            evidence.quote.truncate(*length);
        });
        assert!(accepted.is_empty(), "{accepted:?}");
        let all = BTreeMap::from([((2, "tdx.format".to_owned()), lengths.len())]);
        assert_eq!(refused, all);
        for tail in [&[0][..], &[0; 70], b"\n", b"text"] {
            let mut longer = evidence.clone();
            longer.quote.extend_from_slice(tail);
            let (checks, _) = seen(&longer, &Roots::pinned(), time);
            assert_eq!(decided(&checks), (2, "tdx.format".to_owned()));
        }
    }
}

/// The parts of collateral that are bytes or text, and how to reach them.
type Part = (&'static str, fn(&mut TdxCollateral) -> &mut dyn Bytes);

trait Bytes {
    fn read(&self) -> Vec<u8>;
    fn write(&mut self, bytes: Vec<u8>);
}

impl Bytes for Option<String> {
    fn read(&self) -> Vec<u8> {
        self.clone().unwrap().into_bytes()
    }
    fn write(&mut self, bytes: Vec<u8>) {
        // What is no text cannot be evidence; what is put in its place is none of the flips.
        *self = Some(String::from_utf8(bytes).unwrap_or_default());
    }
}

impl Bytes for Option<touchstone_formats::text::HexBytes> {
    fn read(&self) -> Vec<u8> {
        self.clone().unwrap().0
    }
    fn write(&mut self, bytes: Vec<u8>) {
        *self = Some(touchstone_formats::text::HexBytes(bytes));
    }
}

const PARTS: [Part; 9] = [
    ("tcb_info", |c| &mut c.tcb_info),
    ("tcb_info_signature", |c| &mut c.tcb_info_signature),
    ("tcb_info_issuer_chain", |c| &mut c.tcb_info_issuer_chain),
    ("qe_identity", |c| &mut c.qe_identity),
    ("qe_identity_signature", |c| &mut c.qe_identity_signature),
    ("qe_identity_issuer_chain", |c| {
        &mut c.qe_identity_issuer_chain
    }),
    ("pck_crl", |c| &mut c.pck_crl),
    ("pck_crl_issuer_chain", |c| &mut c.pck_crl_issuer_chain),
    ("root_ca_crl", |c| &mut c.root_ca_crl),
];

fn own(evidence: &mut Evidence) -> &mut TdxCollateral {
    match &mut evidence.collateral {
        Some(Collateral::Tdx(collateral)) => collateral,
        _ => panic!("TDX collateral"),
    }
}

/// One bit of every byte of every member, another one in each byte, and every truncation.
#[test]
fn flips_and_truncations_of_the_committed_collateral() {
    let mut honest = v4();
    for (name, part) in PARTS {
        let bytes = part(own(&mut honest)).read();
        let bits: Vec<usize> = (0..bytes.len()).map(|byte| byte * 8 + byte % 8).collect();
        let (accepted, refused) = changed(&bits, &honest, V4_TIME, |bit, evidence| {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            part(own(evidence)).write(bytes);
        });
        assert!(accepted.is_empty(), "{name}: bits {accepted:?}");
        let exits = |refused: &BTreeMap<(u8, String), usize>| {
            refused.keys().all(|(exit, _)| matches!(exit, 2 | 3))
        };
        assert!(exits(&refused), "{name}: {refused:?}");
        let lengths: Vec<usize> = (0..bytes.len()).collect();
        let (mut accepted, refused) = changed(&lengths, &honest, V4_TIME, |length, evidence| {
            part(own(evidence)).write(bytes[..*length].to_vec());
        });
        accepted.sort_unstable();
        // A chain may end before the root, and the last line without its end.
        let end = b"-----END CERTIFICATE-----";
        let mut ends: Vec<usize> = Vec::new();
        for length in 0..bytes.len() {
            let cut = bytes[..length]
                .strip_suffix(b"\n")
                .unwrap_or(&bytes[..length]);
            if name.ends_with("chain") && cut.ends_with(end) {
                ends.push(length);
            }
        }
        assert_eq!(accepted, ends, "{name}: lengths");
        assert!(exits(&refused), "{name}: {refused:?}");
    }
}

/// Every quote at hand: which are well-formed, and what stops the others.
#[test]
fn every_quote_at_hand() {
    let Some(root) = fixtures::evidence() else {
        return fixtures::skipped("every_quote_at_hand", "no evidence fixtures");
    };
    let root = root.join("tdx");
    // Quote, whose collateral, when, exit code and deciding check of parse and authenticate.
    let cases = [
        ("dcapqvl-tdx-v4", "dcapqvl-tdx-v4", 1_751_328_000, 0, ""),
        (
            "go-tdx-guest-v5",
            "dcapqvl-tdx-outdated",
            1_772_323_200,
            0,
            "",
        ),
        (
            "oak-tdx",
            "collateral-00806f050000-2025-06",
            1_750_377_600,
            0,
            "",
        ),
        (
            "oak-tdx",
            "collateral-00806f050000-2025-10",
            1_761_955_200,
            0,
            "",
        ),
        (
            "automata-v4",
            "collateral-00806f050000-2025-06",
            1_750_377_600,
            0,
            "",
        ),
        (
            "azure-td-quote",
            "collateral-00806f050000-2025-06",
            1_750_377_600,
            0,
            "",
        ),
        (
            "trustee-quote4",
            "go-tdx-guest-spr-e4",
            1_687_651_200,
            0,
            "",
        ),
        ("automata-v5", "dcapqvl-tdx-outdated", 1_772_323_200, 0, ""),
        (
            "dcapqvl-tdx-outdated",
            "dcapqvl-tdx-outdated",
            1_772_323_200,
            0,
            "",
        ),
        ("dcapqvl-tappd", "dcapqvl-tdx-v4", 1_751_328_000, 0, ""),
        (
            "trustee-quote5",
            "dcapqvl-tdx-outdated",
            1_772_323_200,
            0,
            "",
        ),
        // Another family's collateral, and none.
        (
            "oak-tdx",
            "dcapqvl-tdx-v4",
            1_751_328_000,
            3,
            "tdx.tcb_info.fmspc",
        ),
        ("dstack-lite", "", 1_772_323_200, 5, "tdx.collateral"),
        // Too early and too late.
        (
            "dcapqvl-tdx-v4",
            "dcapqvl-tdx-v4",
            1_577_836_800,
            5,
            "tdx.chain.validity",
        ),
        (
            "dcapqvl-tdx-v4",
            "dcapqvl-tdx-v4",
            1_753_000_000,
            5,
            "tdx.collateral.validity",
        ),
        (
            "oak-tdx",
            "collateral-00806f050000-2025-06",
            1_748_995_200,
            5,
            "tdx.collateral.validity",
        ),
    ];
    for (name, from, time, exit, deciding) in cases {
        let quote = trimmed(file(root.join(name).join("quote.bin")));
        let own =
            (!from.is_empty()).then(|| collateral(&file(root.join(from).join("collateral.json"))));
        let (checks, authentic) = seen(&evidence(quote, own), &Roots::pinned(), time);
        assert_eq!(
            decided(&checks),
            (exit, deciding.to_owned()),
            "{name} with {from}: {}",
            words(&checks)
        );
        // What is out of date is authentic all the same.
        let outdated = exit == 5 && !from.is_empty();
        assert_eq!(
            authentic.is_some(),
            exit == 0 || outdated,
            "{name} with {from}"
        );
    }
    for (name, reason) in [
        ("go-tdx-guest-spr-e4", "39 bytes after the end of the quote"),
        ("dcapqvl-sgx-v3", "the version is 3; expected 4 or 5"),
    ] {
        let quote = file(root.join(name).join("quote.bin"));
        let own = collateral(&file(root.join(name).join("collateral.json")));
        let (checks, authentic) =
            seen(&evidence(quote, Some(own)), &Roots::pinned(), 1_750_377_600);
        assert!(authentic.is_none());
        assert_eq!(decided(&checks), (2, "tdx.format".to_owned()), "{name}");
        assert_eq!(checks.find("tdx.format").unwrap().reason, reason);
    }
}
