//! Real reports, bit by bit. `testdata/snp` is enough for it; where the other fixtures are at
//! hand, reports of versions 3 and 5 and one under a VLEK are taken apart too.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::common::{as_found, evidence, file, judged, pem_file, template, testdata, with};
use attestation_verifier::parse::cert::Certificate;
use attestation_verifier::parse::vek::{VekExtensions, VekIdentity};
use attestation_verifier::product::Product;
use attestation_verifier::verdict::Outcome;
use attestation_verifier::{At, Policy, Roots, Verdict, describe, judge};
use touchstone_formats::evidence::Evidence;
use touchstone_testkit::fixtures;

/// 2026-01-15.
const THEN: u64 = 1_768_435_200;

/// A flipped bit that may go unnoticed, with the reason. There is none: every byte of a report is
/// either signed, or part of the signature, or must be zero.
const EXCEPTIONS: &[(usize, &str)] = &[];

/// The committed report (version 2, Milan) with what it needs, and a policy under which it holds.
fn committed() -> (Evidence, String, u64) {
    let folder = testdata().join("sev-8.0.0");
    let report = hex::decode(file(folder.join("report_milan.hex"))).unwrap();
    let vek = file(folder.join("vcek_milan.der"));
    let evidence = evidence(
        &report,
        &vek,
        &pem_file(&folder.join("cert_chain_milan")),
        &[],
    );
    let policy = loosened(&evidence, THEN);
    (evidence, policy, THEN)
}

/// The template with whatever refuses this evidence replaced by what was found.
fn loosened(evidence: &Evidence, time: u64) -> String {
    let roots = Roots::pinned();
    let strict = judged(evidence, &template(), &roots, time);
    assert_eq!(
        (strict.exit(), strict.deciding()),
        (5, Some("snp.chain.crl"))
    );
    let mut policy = with(
        &template(),
        "snp.chain.crl",
        "{ waive = \"none is at hand\" }",
    );
    for check in strict.checks.iter().filter(|c| c.refuses()) {
        if check.id != "snp.chain.crl" {
            policy = as_found(&policy, &strict, &check.id);
        }
    }
    let verdict = judged(evidence, &policy, &roots, time);
    assert_eq!(verdict.exit(), 0, "{}", verdict.words());
    policy
}

/// Judges many changes of one evidence object, on all processors.
fn all<T: Sync>(
    items: &[T],
    evidence: &Evidence,
    policy: &str,
    time: u64,
    change: impl Fn(&T, &mut Evidence) + Sync,
    see: impl Fn(&T, &Verdict) + Sync,
) {
    let policy: Policy = crate::common::policy(policy);
    let roots = Roots::pinned();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for chunk in items.chunks(items.len().div_ceil(threads)) {
            let (policy, roots, change, see) = (&policy, &roots, &change, &see);
            scope.spawn(move || {
                for item in chunk {
                    let mut evidence = evidence.clone();
                    change(item, &mut evidence);
                    let at = At {
                        time,
                        asserted: true,
                    };
                    let judged = judge(&evidence, policy, roots, None, at, None);
                    let context = attestation_verifier::verdict::Context::default();
                    see(item, &Verdict::new(judged.checks, context, at));
                }
            });
        }
    });
}

fn every_flip_is_refused(name: &str, evidence: &Evidence, policy: &str, time: u64) {
    let bits: Vec<usize> = (0..evidence.quote.len() * 8).collect();
    assert_eq!(bits.len(), 9_472);
    let accepted = Mutex::new(Vec::new());
    let deciding = Mutex::new(BTreeMap::<(u8, String), u32>::new());
    all(
        &bits,
        evidence,
        policy,
        time,
        |bit, evidence| evidence.quote[bit / 8] ^= 1 << (bit % 8),
        |bit, verdict| match verdict.deciding() {
            None => accepted.lock().unwrap().push(*bit),
            Some(id) => {
                let key = (verdict.exit(), id.to_owned());
                *deciding.lock().unwrap().entry(key).or_default() += 1;
                let byte = bit / 8;
                // Bytes that a widely used library leaves out of what it verifies.
                if matches!(byte, 58..=61 | 386..=389 | 482..=485 | 498..=501) {
                    assert_eq!(verdict.exit(), 2, "{name}: bit {bit}");
                }
                // Behind r and s nothing is signed, and everything must be zero.
                if (0x2d0..0x2e8).contains(&byte) || byte >= 0x318 {
                    assert_eq!((verdict.exit(), id), (2, "snp.format"), "{name}: bit {bit}");
                }
                // Identity and claims: the signature stands first, whatever else fails.
                if (0x50..0x180).contains(&byte) || (0x2a0..0x2d0).contains(&byte) {
                    assert_eq!(
                        (verdict.exit(), id),
                        (3, "snp.signature"),
                        "{name}: bit {bit}"
                    );
                }
            }
        },
    );
    let mut accepted = accepted.into_inner().unwrap();
    accepted.sort_unstable();
    let expected: Vec<usize> = EXCEPTIONS.iter().map(|(bit, _)| *bit).collect();
    assert_eq!(
        accepted, expected,
        "{name}: accepted, or an exception that is not used"
    );
    let deciding = deciding.into_inner().unwrap();
    assert!(
        deciding.keys().all(|(exit, _)| matches!(exit, 2 | 3)),
        "{name}: {deciding:?}"
    );
}

#[test]
fn every_flip_of_the_committed_report() {
    let (evidence, policy, time) = committed();
    every_flip_is_refused("committed", &evidence, &policy, time);
}

#[test]
fn every_truncation_of_the_committed_report() {
    let (evidence, policy, time) = committed();
    let lengths: Vec<usize> = (0..evidence.quote.len()).collect();
    all(
        &lengths,
        &evidence,
        &policy,
        time,
        |length, evidence| evidence.quote.truncate(*length),
        |length, verdict| {
            let decided = (verdict.exit(), verdict.deciding());
            assert_eq!(decided, (2, Some("snp.format")), "{length} bytes");
        },
    );
}

/// No byte of the certificates can be changed either: what is not signed has one encoding.
#[test]
fn flips_and_truncations_of_the_committed_certificates() {
    use touchstone_formats::evidence::{Collateral, SnpCollateral};
    fn snp(evidence: &mut Evidence) -> &mut SnpCollateral {
        match &mut evidence.collateral {
            Some(Collateral::SevSnp(collateral)) => collateral,
            _ => panic!("SNP collateral"),
        }
    }
    let (mut evidence, policy, time) = committed();
    // The root that is sent along is passed over while it is the trusted one; leave it out.
    snp(&mut evidence).chain.retain(|der| {
        !Roots::pinned()
            .anchors()
            .iter()
            .any(|a| a.certificate.der() == der)
    });
    assert_eq!(snp(&mut evidence).chain.len(), 1);
    let vek = snp(&mut evidence).vek.clone().unwrap();
    let ask = snp(&mut evidence).chain[0].clone();
    let refused = |what: &'static str| {
        move |item: &usize, verdict: &Verdict| {
            assert!(
                matches!(verdict.exit(), 2 | 3 | 5),
                "{what} {item}: {}",
                verdict.words()
            );
            assert!(verdict.deciding().is_some());
        }
    };
    // Every bit of what is not signed, around TBS and signature; of those, one bit of every byte.
    let chosen = |der: &[u8]| -> Vec<usize> {
        let algorithm = der.len() - 512 - 90..der.len() - 512;
        (0..der.len() * 8)
            .filter(|bit| {
                let byte = bit / 8;
                byte < 8 || algorithm.contains(&byte) || bit % 8 == byte % 8
            })
            .collect()
    };
    let bits = chosen(&vek);
    all(
        &bits,
        &evidence,
        &policy,
        time,
        |bit, e| {
            snp(e).vek.as_mut().unwrap()[bit / 8] ^= 1 << (bit % 8);
        },
        refused("vek bit"),
    );
    let bits = chosen(&ask);
    all(
        &bits,
        &evidence,
        &policy,
        time,
        |bit, e| {
            snp(e).chain[0][bit / 8] ^= 1 << (bit % 8);
        },
        refused("ask bit"),
    );
    let lengths: Vec<usize> = (0..vek.len()).collect();
    all(
        &lengths,
        &evidence,
        &policy,
        time,
        |n, e| {
            snp(e).vek.as_mut().unwrap().truncate(*n);
        },
        refused("vek length"),
    );
    let lengths: Vec<usize> = (0..ask.len()).collect();
    all(
        &lengths,
        &evidence,
        &policy,
        time,
        |n, e| snp(e).chain[0].truncate(*n),
        refused("ask length"),
    );
}

#[test]
fn every_flip_of_other_real_reports() {
    let Some(root) = fixtures::evidence() else {
        return fixtures::skipped("every_flip_of_other_real_reports", "no evidence fixtures");
    };
    for (name, chain, time) in [
        ("oak-genoa_oc", "genoa_ask.pem", THEN),
        ("dstack-milan", "milan_ask.pem", 1_782_864_000),
        ("trustee-vlek", "ask_ark_milan_vlek.pem", 1_748_736_000),
    ] {
        let folder = root.join("snp").join(name);
        let chain = pem_file(&root.join("snp/_amd").join(chain));
        let evidence = evidence(
            &file(folder.join("report.bin")),
            &file(folder.join("vek.der")),
            &chain,
            &[],
        );
        let policy = loosened(&evidence, time);
        every_flip_is_refused(name, &evidence, &policy, time);
    }
}

#[test]
fn the_committed_report_holds_when_loosened() {
    let (evidence, policy, time) = committed();
    let verdict = judged(&evidence, &policy, &Roots::pinned(), time);
    assert_eq!(verdict.exit(), 0);
    assert!(!verdict.context.simulated);
    let platform = &verdict.context.platform;
    assert_eq!(platform["product"], "Milan");
    assert_eq!(platform["root"], "ARK-Milan");
    let passed = |id: &str| verdict.checks.find(id).unwrap().result == Outcome::Pass;
    for id in [
        "snp.format",
        "snp.signature",
        "snp.chain.signature",
        "snp.chain.root",
        "snp.chain.constraints",
        "snp.chain.validity",
        "snp.vek.extensions",
        "snp.vek.hwid",
        "snp.vek.tcb",
        "snp.vek.key",
        "snp.vek.product",
    ] {
        assert!(passed(id), "{id}");
    }
}

/// AMD's Turin certificate: 8 bytes of hwID, an FMC level, and a chain to the pinned Turin root.
#[test]
fn the_committed_turin_certificate() {
    let folder = testdata().join("sev-8.0.0");
    let vek = file(folder.join("vcek_turin.der"));
    let extensions = VekExtensions::read(&Certificate::parse(&vek).unwrap()).unwrap();
    assert_eq!(extensions.product, Product::Turin);
    assert_eq!(extensions.tcb.fmc, Some(0));
    assert!(matches!(&extensions.identity, VekIdentity::Chip(hwid) if hwid.len() == 8));
    // No report of this chip is known. With another chip's the chain still verifies, and nothing else does.
    let (mut evidence, _, time) = committed();
    if let Some(touchstone_formats::evidence::Collateral::SevSnp(collateral)) =
        &mut evidence.collateral
    {
        collateral.vek = Some(vek.clone());
        collateral.chain = pem_file(&folder.join("cert_chain_turin"));
    }
    let verdict = judged(&evidence, &template(), &Roots::pinned(), time);
    let result = |id: &str| verdict.checks.find(id).unwrap().result;
    for id in [
        "snp.chain.root",
        "snp.chain.signature",
        "snp.chain.constraints",
        "snp.chain.validity",
    ] {
        assert_eq!(result(id), Outcome::Pass, "{id}: {}", verdict.words());
    }
    assert_eq!(
        (verdict.exit(), result("snp.signature")),
        (2, Outcome::Fail)
    );
    // In Turin's layout, bytes of this report's TCBs are reserved and not zero: version 2 cannot tell before.
    assert_eq!(verdict.deciding(), Some("snp.vek.tcb"));
}

#[test]
fn descriptions_name_every_field() {
    let (evidence, _, _) = committed();
    let words = describe::snp_report(&evidence.quote).unwrap();
    for line in [
        "0x000 VERSION              2",
        "0x008 POLICY               0x30000: ABI from 0.0; SMT",
        "0x030 VMPL                 0",
        "ffffffff: no migration agent",
        "0x1e8 CURRENT version      1.52.4",
    ] {
        assert!(words.contains(line), "{line}\n{words}");
    }
    let folder = testdata().join("sev-8.0.0");
    let words = describe::certificate(&file(folder.join("vcek_milan.der"))).unwrap();
    assert!(words.contains("Milan-B0"), "{words}");
    assert!(
        words.contains("bootloader 3 tee 0 snp 8 microcode 115"),
        "{words}"
    );
    let words = describe::certificate(&pem_file(&folder.join("cert_chain_milan"))[1]).unwrap();
    assert!(words.contains("keyCertSign cRLSign"), "{words}");
    assert!(describe::snp_report(&evidence.quote[1..]).is_err());
    assert!(describe::certificate(b"").is_err());
    assert!(describe::crl(b"").is_err());
}
