//! A verifier that is kept, and bundles that have evidence in common.

use attestation_verifier::{At, Policy, Verifier, check};
use touchstone_testkit::mint::Exchange;

use crate::support::{Case, comparison, logged, world};

#[test]
fn bundles_that_share_evidence_cost_their_receipts() {
    let world = world();
    let first = logged(&world).finish();
    // Another exchange whose bundle has the first one's boot evidence.
    let boot = first.bundle.evidence[0].clone();
    let second = world
        .mint(Exchange::json(2))
        .evidence(|all| all[0] = boot)
        .finish();
    let (first, second) = (Case::new(&world, first), Case::new(&world, second));
    let policy = Policy::parse(&first.policy).unwrap();
    let verifier = Verifier::new(policy.clone(), first.roots.clone());
    let judge = |case: &Case, at: At| {
        let before = verifier.work();
        let warm = verifier.check(&case.file, &case.comparison, at);
        let cold = check(&case.file, &policy, &case.roots, &case.comparison, at);
        assert_eq!(warm.to_json(), cold.to_json());
        assert_eq!(warm.exit(), 0, "{}", warm.words());
        let work = verifier.work();
        (
            work.signatures - before.signatures,
            work.judgements_remembered - before.judgements_remembered,
        )
    };
    // Three of collateral, two reports, one checkpoint.
    assert_eq!(judge(&first, first.at), (6, 0));
    // The boot evidence is the first one's; the checkpoint and its evidence are new.
    assert_eq!(judge(&second, first.at), (2, 0));
    assert_eq!(judge(&second, first.at), (0, 2));
    // A second later it is all judged again, with nothing to verify.
    let later = At {
        time: first.at.time + 1,
        ..first.at
    };
    assert_eq!(judge(&first, later), (0, 0));
}

/// Lies made of what is known: evidence, receipt, proof and openings of two honest bundles, all exchanged.
#[test]
fn parts_of_two_honest_bundles() {
    let world = world();
    let pair = [1, 2].map(|n| {
        world
            .mint(Exchange::json(n).requiring("logged quoted"))
            .finish()
    });
    let cases = pair.clone().map(|minted| Case::new(&world, minted));
    let policy = Policy::parse(&cases[0].policy).unwrap();
    let verifier = Verifier::new(policy.clone(), cases[0].roots.clone());
    let judge = |file: &[u8], which: usize| {
        let held = comparison(&pair[which].exchange);
        let at = cases[0].at;
        let warm = verifier.check(file, &held, at);
        let cold = check(file, &policy, &cases[0].roots, &held, at);
        assert_eq!(warm.to_json(), cold.to_json());
        warm.exit()
    };
    for which in [0, 1] {
        assert_eq!(judge(&cases[which].file, which), 0);
    }
    for mask in 1..32_u32 {
        let mut mixed = pair[0].bundle.clone();
        let theirs = &pair[1].bundle;
        if mask & 1 != 0 {
            mixed.receipt = theirs.receipt.clone();
        }
        if mask & 2 != 0 {
            mixed.proof = theirs.proof.clone();
        }
        if mask & 4 != 0 {
            mixed.openings = theirs.openings;
        }
        if mask & 8 != 0 {
            mixed.evidence[1] = theirs.evidence[1].clone();
        }
        if mask & 16 != 0 {
            mixed.evidence[2] = theirs.evidence[2].clone();
        }
        for which in [0, 1] {
            let holds = judge(&mixed.to_file(), which) == 0;
            assert_eq!(holds, mask == 31 && which == 1, "{mask} {which}");
        }
    }
}
