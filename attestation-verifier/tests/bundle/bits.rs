//! Lies that are not signed again: every truncation, every flipped bit, every edit of the JSON.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use attestation_verifier::{Policy, Verdict, check};
use touchstone_formats::Purpose;
use touchstone_testkit::mutate::{json_mutants, truncations};

use crate::support::{Case, logged, quoted, world};

/// Judges the mutants 0 to `count` on all processors; every one must be refused.
fn all_refused(case: &Case, count: usize, mutant: impl Fn(usize) -> Vec<u8> + Sync) {
    let policy = Policy::parse(&case.policy).unwrap();
    let judge =
        |file: &[u8]| -> Verdict { check(file, &policy, &case.roots, &case.comparison, case.at) };
    assert_eq!(judge(&case.file).exit(), 0, "the twin holds");
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            // Some at a time, so that threads do not fight over the counter.
            let start = next.fetch_add(64, Ordering::Relaxed);
            if start >= count {
                return;
            }
            for n in start..(start + 64).min(count) {
                let file = mutant(n);
                assert_ne!(file, case.file, "mutant {n} is none");
                let verdict = judge(&file);
                assert!(
                    matches!(verdict.exit(), 2..=5),
                    "mutant {n} was accepted: {}",
                    verdict.words()
                );
                assert!(verdict.deciding().is_some());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(4, usize::from) {
            scope.spawn(work);
        }
    });
}

fn flipped(file: &[u8], bit: usize) -> Vec<u8> {
    let mut out = file.to_vec();
    out[bit / 8] ^= 1 << (bit % 8);
    out
}

/// The smallest logged bundle that holds: one evidence object.
#[test]
fn every_flipped_bit_of_a_bundle_is_refused() {
    let world = world();
    let minted = logged(&world).purposes(&[Purpose::Checkpoint]).finish();
    let case = Case::new(&world, minted);
    all_refused(&case, case.file.len() * 8, |bit| flipped(&case.file, bit));
}

/// All three evidence objects; the parts they share with the smaller bundle are flipped there.
#[test]
fn flipped_bits_of_a_quoted_bundle_are_refused() {
    const STEP: usize = 61;
    let world = world();
    let case = Case::new(&world, quoted(&world).finish());
    all_refused(&case, case.file.len() * 8 / STEP, |n| {
        flipped(&case.file, n * STEP)
    });
}

#[test]
fn every_flipped_bit_of_a_receipt_is_refused() {
    let world = world();
    let minted = logged(&world).purposes(&[Purpose::Checkpoint]).finish();
    let case = Case::new(&world, minted);
    let bundle = &case.minted.bundle;
    all_refused(&case, bundle.receipt.len() * 8, |bit| {
        let mut bundle = bundle.clone();
        bundle.receipt = flipped(&bundle.receipt, bit);
        bundle.to_file()
    });
    all_refused(&case, bundle.receipt.len(), |length| {
        let mut bundle = bundle.clone();
        bundle.receipt.truncate(length);
        bundle.to_file()
    });
}

#[test]
fn every_truncation_of_a_bundle_is_malformed() {
    let world = world();
    let case = Case::new(&world, quoted(&world).finish());
    case.holds();
    let policy = Policy::parse(&case.policy).unwrap();
    for short in truncations(&case.file) {
        let verdict = check(short, &policy, &case.roots, &case.comparison, case.at);
        let found = (verdict.exit(), verdict.deciding());
        assert_eq!(found, (2, Some("bundle.format")), "{} bytes", short.len());
    }
}

/// Members deleted, doubled, renamed, preceded by unknown ones, replaced by near ones.
#[test]
fn every_edit_of_the_json_is_refused() {
    let world = world();
    let case = Case::new(
        &world,
        quoted(&world)
            .bundle(|b| b.view = Some("{\"n\":1}".into()))
            .finish(),
    );
    // What may be left out is left out by `skip`: a bundle without its catalog holds.
    let skip = |pointer: &str, file: &[u8]| {
        matches!(pointer, "/catalog" | "/view")
            && serde_json::from_slice::<serde_json::Value>(file)
                .unwrap()
                .pointer(pointer)
                .is_none()
            || pointer.starts_with("/evidence/") && pointer.len() == "/evidence/0".len()
    };
    let mutants: Vec<_> = json_mutants(&case.file, &["/view/n"])
        .into_iter()
        .filter(|m| !(skip(&m.pointer, &m.file) || m.pointer == "/view"))
        .collect();
    assert!(mutants.len() > 500, "{}", mutants.len());
    all_refused(&case, mutants.len(), |n| mutants[n].file.clone());
}

#[test]
fn the_view_is_ignored() {
    let world = world();
    for view in ["{}", "[1,2]", "\"text\"", "{\"n\":1}", "null"] {
        let minted = logged(&world)
            .bundle(|b| b.view = Some(view.into()))
            .finish();
        Case::new(&world, minted).holds();
    }
}

#[test]
fn more_than_the_bound_is_not_even_parsed() {
    let world = world();
    let case = Case::new(&world, logged(&world).finish());
    case.holds();
    case.clone()
        .file(|f| f.resize(5 << 20, b' '))
        .refused(2, "bundle.format");
    case.clone()
        .file(|f| f.push(b'\n'))
        .refused(2, "bundle.format");
    case.clone().file(Vec::clear).refused(2, "bundle.format");
    let deep = format!("{}{}\n", "[".repeat(1 << 20), "]".repeat(1 << 20));
    case.file(|f| *f = deep.into_bytes())
        .refused(2, "bundle.format");
}
