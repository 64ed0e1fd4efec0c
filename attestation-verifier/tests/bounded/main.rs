//! Bounded work (formats.md, conventions): evidence of the shapes that cost most within the format's limits takes at most 20
//! signature checks and 8 MiB beside its own file. How long it takes is printed, not judged: machines differ, and `scripts/bench verify` says it of a
//! release build.
#![allow(unsafe_code, reason = "an allocator that counts is one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use attestation_verifier::{At, Policy, Roots, Verifier, appraise};
use touchstone_testkit::worst::{self, AT, Worst};

/// Signature checks, of one evidence object.
const MOST_CHECKS: u64 = 20;
/// Bytes allocated at one time.
const MOST_BYTES: usize = 8 << 20;
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

/// Within all bounds, and ends as it has to.
fn bounded(worst: &Worst) {
    let file = worst.evidence.to_file();
    let template = attestation_verifier::policy::template(worst.evidence.tee);
    let policy = Policy::parse(&template).unwrap();
    let roots = Roots::pinned().with_simulated_pem(worst.root_pem.as_bytes());
    let roots = roots.unwrap();
    let at = At {
        time: AT,
        asserted: false,
    };
    let before = LIVE.get();
    PEAK.set(before);
    let start = Instant::now();
    let verdict = appraise(&file, &policy, &roots, None, at);
    let spent = start.elapsed();
    let bytes = PEAK.get() - before;
    // A verifier that is kept counts what the function does not tell; nothing is known to it.
    let verifier = Verifier::new(policy, roots);
    verifier.appraise(&file, None, at);
    let work = verifier.work();
    let checks = work.signatures + work.remembered;
    let name = worst.name;
    println!(
        "{name}: {} KiB of evidence, {checks} signature checks, {} KiB, {:.1} ms, exit {} {}",
        file.len() >> 10,
        bytes >> 10,
        spent.as_secs_f64() * 1e3,
        verdict.exit(),
        verdict.deciding().unwrap_or_default(),
    );
    assert_eq!(verdict.exit(), worst.exit, "{name}");
    assert!(checks <= MOST_CHECKS, "{name}: {checks} signature checks");
    assert!(bytes <= MOST_BYTES, "{name}: {bytes} bytes");
}

#[test]
fn snp_evidence_at_its_limits() {
    worst::snp().iter().for_each(bounded);
}

#[test]
fn tdx_evidence_at_its_limits() {
    worst::tdx().iter().for_each(bounded);
}

/// Roots that the caller named, all of one name: each could have signed, and each is asked.
#[test]
fn roots_of_one_name() {
    worst::roots_of_one_name().iter().for_each(bounded);
}
