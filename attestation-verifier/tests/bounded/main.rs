//! Bounded work (formats.md, conventions): evidence of the shapes that cost most within the format's limits takes at most 20
//! signature checks and 8 MiB beside its own file. How long it takes is printed, not judged: machines differ.
#![allow(unsafe_code, reason = "an allocator that counts is one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use attestation_verifier::{At, Policy, Roots, Verifier, appraise};
use touchstone_formats::evidence::{Collateral, Evidence, SnpCollateral, TdxCollateral, Tee};
use touchstone_formats::text::HexBytes;
use touchstone_testkit::machine::{Machine, TdxMachine, TeeMachine};
use touchstone_testkit::tdx::TdReport;
use touchstone_testkit::x509::pem;

const NOW: u64 = 1_790_000_000;
/// Signature checks, of one evidence object.
const MOST_CHECKS: u64 = 20;
/// Bytes allocated at one time.
const MOST_BYTES: usize = 8 << 20;
/// Collateral within the limit of 1 MiB, with room for what is beside it.
const BULK: usize = 1_030_000;

/// Counts what the thread has allocated, and the most it had.
struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn add(bytes: usize) {
    // A thread that ends frees after its counters are gone.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn sub(bytes: usize) {
    let _ = LIVE.try_with(|live| live.set(live.get().saturating_sub(bytes)));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        sub(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there while one is copied to the other.
        add(size);
        let moved = unsafe { System.realloc(pointer, layout, size) };
        sub(layout.size());
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What one judgement took: signature checks, bytes at the most, exit code.
fn judged(name: &str, evidence: &Evidence, policy: &Policy, roots: &Roots) -> (u64, usize, u8) {
    let file = evidence.to_file();
    let at = At {
        time: NOW,
        asserted: false,
    };
    let before = LIVE.get();
    PEAK.set(before);
    let start = Instant::now();
    let verdict = appraise(&file, policy, roots, None, at);
    let spent = start.elapsed();
    let bytes = PEAK.get() - before;
    // A verifier that is kept counts what the function does not tell; nothing is known to it.
    let verifier = Verifier::new(policy.clone(), roots.clone());
    verifier.appraise(&file, None, at);
    let work = verifier.work();
    let checks = work.signatures + work.remembered;
    println!(
        "{name}: {} KiB of evidence, {checks} signature checks, {} KiB, {:.1} ms, exit {} {}",
        file.len() >> 10,
        bytes >> 10,
        spent.as_secs_f64() * 1e3,
        verdict.exit(),
        verdict.deciding().unwrap_or_default(),
    );
    (checks, bytes, verdict.exit())
}

/// Within all bounds; the exit code.
#[track_caller]
fn bounded(name: &str, evidence: &Evidence, policy: &Policy, roots: &Roots) -> u8 {
    let (checks, bytes, exit) = judged(name, evidence, policy, roots);
    assert!(checks <= MOST_CHECKS, "{name}: {checks} signature checks");
    assert!(bytes <= MOST_BYTES, "{name}: {bytes} bytes");
    exit
}

fn policy(tee: Tee) -> Policy {
    Policy::parse(&attestation_verifier::policy::template(tee)).unwrap()
}

fn trusting(pem: &str) -> Roots {
    Roots::pinned().with_simulated_pem(pem.as_bytes()).unwrap()
}

fn evidence(tee: Tee, quote: Vec<u8>, collateral: Collateral) -> Evidence {
    Evidence {
        purpose: None,
        nonce: None,
        tee,
        quote,
        collateral: Some(collateral),
        event_log: None,
    }
}

/// A list of this many entries, none of them ours.
fn long(crl: &mut touchstone_testkit::x509::Crl, entries: usize) {
    for n in 0..entries {
        crl.revoke(&(0x40_0000 + n as u32).to_be_bytes());
    }
}

/// As many entries as make a signed list this long.
fn entries(crl: &touchstone_testkit::x509::Crl, bytes: usize) -> usize {
    let mut longer = crl.clone();
    long(&mut longer, 1000);
    let each = (longer.to_be_signed().len() - crl.to_be_signed().len()) / 1000 + 1;
    bytes / each
}

#[test]
fn snp_evidence_at_its_limits() {
    let machine = Machine::strict(NOW);
    let roots = trusting(&machine.root_pem());
    let policy = policy(Tee::SevSnp);
    let own = machine.collateral();
    let with = |change: &dyn Fn(&mut SnpCollateral)| {
        let mut collateral = SnpCollateral {
            vek: Some(own.vek.clone()),
            chain: own.chain.clone(),
            crls: own.crls.clone(),
        };
        change(&mut collateral);
        let quote = machine.quote([0; 64]);
        evidence(Tee::SevSnp, quote, Collateral::SevSnp(collateral))
    };
    let list = |bytes: usize, n: u64| {
        let mut crl = machine.crl.clone();
        crl.this_update -= n;
        let count = entries(&crl, bytes);
        long(&mut crl, count);
        crl.sign(&machine.pki.keys.ark)
    };
    // The template accepts no measurement: all else has to hold for these to be what costs most.
    assert_eq!(bounded("SNP, honest", &with(&|_| {}), &policy, &roots), 4);
    let one = with(&|c| c.crls = vec![list(BULK, 0)]);
    assert_eq!(bounded("SNP, one list of 1 MiB", &one, &policy, &roots), 4);
    let four = with(&|c| c.crls = (0..4).map(|n| list(BULK / 4, n)).collect());
    assert_eq!(bounded("SNP, four lists", &four, &policy, &roots), 4);
    let sixteen = with(&|c| c.crls = (0..16).map(|n| list(BULK / 16, n)).collect());
    assert_eq!(bounded("SNP, sixteen lists", &sixteen, &policy, &roots), 3);
    let chain = with(&|c| c.chain = vec![own.chain[0].clone(); 16]);
    assert_eq!(
        bounded("SNP, sixteen intermediates", &chain, &policy, &roots),
        3
    );
    // Certificates of many extensions: as long as they are read, and longer.
    let wide = |count: u32| {
        let mut wide = machine.clone();
        wide.vek.extensions.extend((0..count).map(|n| {
            let oid = format!("1.3.6.1.4.1.311.{n}");
            touchstone_testkit::x509::Extension::new(&oid, false, vec![0x05, 0x00])
        }));
        wide.collateral().vek
    };
    let vek = wide(800);
    assert!((12 << 10..16 << 10).contains(&vek.len()), "{}", vek.len());
    let many = with(&|c| {
        c.vek = Some(vek.clone());
        c.chain = vec![vek.clone(); 16];
        c.crls = vec![list(BULK - 17 * vek.len(), 0)];
    });
    let name = "SNP, seventeen certificates of many extensions";
    assert_eq!(bounded(name, &many, &policy, &roots), 3);
    let vek = wide(20_000);
    let wide = with(&|c| c.vek = Some(vek.clone()));
    assert_eq!(
        bounded("SNP, a long certificate", &wide, &policy, &roots),
        2
    );
    let mut crl = machine.crl.clone();
    crl.extensions.extend((0..40_000).map(|n| {
        let oid = format!("1.3.6.1.4.1.311.{n}");
        touchstone_testkit::x509::Extension::new(&oid, false, vec![0x05, 0x00])
    }));
    let crl = crl.sign(&machine.pki.keys.ark);
    let extended = with(&|c| c.crls = vec![crl.clone()]);
    let name = "SNP, a list of many extensions";
    assert_eq!(bounded(name, &extended, &policy, &roots), 2);
}

#[test]
fn tdx_evidence_at_its_limits() {
    let machine = TdxMachine::strict(NOW);
    let roots = trusting(&machine.root_pem());
    let policy = policy(Tee::Tdx);
    let with = |change: &dyn Fn(&mut TdxCollateral)| {
        let mut collateral = machine.collateral();
        change(&mut collateral);
        let quote = machine.quote([0; 64]);
        evidence(Tee::Tdx, quote, Collateral::Tdx(collateral))
    };
    assert_eq!(bounded("TDX, honest", &with(&|_| {}), &policy, &roots), 4);
    let long_list = |which: fn(&TdxMachine) -> &touchstone_testkit::x509::Crl, bytes: usize| {
        let mut crl = which(&machine).clone();
        let count = entries(&crl, bytes);
        long(&mut crl, count);
        crl
    };
    let pck = long_list(|m| &m.pck_crl, BULK - 60_000).sign(machine.pki.ca_key(machine.ca));
    let one = with(&|c| c.pck_crl = Some(HexBytes(pck.clone())));
    assert_eq!(bounded("TDX, a list of 1 MiB", &one, &policy, &roots), 4);
    let root = long_list(|m| &m.root_crl, BULK / 2).sign(&machine.pki.keys.root);
    let pck = long_list(|m| &m.pck_crl, BULK / 2 - 60_000).sign(machine.pki.ca_key(machine.ca));
    let two = with(&|c| {
        c.root_ca_crl = Some(HexBytes(root.clone()));
        c.pck_crl = Some(HexBytes(pck.clone()));
    });
    assert_eq!(bounded("TDX, two lists", &two, &policy, &roots), 4);
    // TCB info of as many levels as are read.
    let mut levels = machine.clone();
    let level = levels.tcb_info.tcb_levels[0].clone();
    levels.tcb_info.tcb_levels = vec![level; 100];
    let collateral = levels.collateral();
    let text = with(&|c| *c = collateral.clone());
    bounded("TDX, a hundred levels", &text, &policy, &roots);
    // Text that is no TCB info, as long as the collateral may be.
    let text = with(&|c| c.tcb_info = Some("[".repeat(BULK - 60_000)));
    assert_eq!(bounded("TDX, brackets", &text, &policy, &roots), 2);
    let chain = pem("CERTIFICATE", &machine.pki.root_der()).repeat(400);
    let text = with(&|c| c.pck_crl_issuer_chain = Some(chain.clone()));
    assert_eq!(bounded("TDX, a chain of 400", &text, &policy, &roots), 2);
    // An event log of 1 MiB.
    let mut log = machine.events.clone();
    let event = log.events[0].clone();
    log.events = vec![event; 8_000];
    let mut logged = with(&|_| {});
    logged.event_log = Some(log.to_evidence());
    bounded("TDX, eight thousand events", &logged, &policy, &roots);
    let mut both = one.clone();
    both.event_log = Some(log.to_evidence());
    bounded(
        "TDX, a list of 1 MiB and eight thousand events",
        &both,
        &policy,
        &roots,
    );
}

/// Roots that the caller named, all of one name: each could have signed, and each is asked.
#[test]
fn roots_of_one_name() {
    let machine = TdxMachine::new(5, TdReport::v1_5(), NOW);
    let roots = trusting(&machine.root_pem());
    let policy = policy(Tee::Tdx);
    let honest = evidence(
        Tee::Tdx,
        machine.quote([0; 64]),
        Collateral::Tdx(machine.collateral()),
    );
    bounded("TDX, one root", &honest, &policy, &roots);
    let mut pem = machine.root_pem();
    for name in ["bounded 1", "bounded 2", "bounded 3"] {
        let keys = touchstone_testkit::intel::PkiKeys::shared(name);
        pem += &touchstone_testkit::intel::Pki::with_keys(NOW, keys).root_pem();
    }
    bounded(
        "TDX, four roots of one name",
        &honest,
        &policy,
        &trusting(&pem),
    );
}
