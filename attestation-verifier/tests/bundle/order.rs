//! Several faults at once: "the first that applies, in this order: 1, 2, 3, 5, 4, 6, 0".

use touchstone_testkit::mint::{Exchange, Mint, World};

use crate::support::{Case, Lie, logged, world};

/// One fault for each exit code, each re-signed, each about another part of the bundle.
const FAULTS: [(u8, Lie); 4] = [
    (2, |m| m.note_text(|t| t.push_str("extension\n"))),
    (3, |m| m.receipt_seed([9; 32])),
    (5, |m| m.collateral(|_, c| c.crls.clear())),
    (4, |m| m.report(|_, r| r.policy |= 1 << 19)),
];

fn with(world: &World, set: u8) -> Mint<'_> {
    FAULTS
        .iter()
        .enumerate()
        .filter(|(n, _)| set >> n & 1 == 1)
        .fold(logged(world), |mint, (_, (_, fault))| fault(mint))
}

#[test]
fn of_several_faults_the_first_in_order_decides() {
    let world = world();
    for set in 0u8..16 {
        let first = FAULTS.iter().enumerate().find(|(n, _)| set >> n & 1 == 1);
        let expected = first.map_or(0, |(_, (exit, _))| *exit);
        let case = Case::new(&world, with(&world, set).finish());
        assert_eq!(case.judge().exit(), expected, "set {set:04b}");
        // A mistake of the caller's comes before everything but a bundle that cannot be read.
        if set & 1 == 0 {
            let case = case.caller(|c| {
                let twice = c.inputs.as_ref().unwrap()[0].clone();
                c.inputs.as_mut().unwrap().push(twice);
            });
            assert_eq!(case.judge().exit(), 1, "set {set:04b} and usage");
        }
    }
}

#[test]
fn a_fault_comes_before_being_simulated() {
    let world = world();
    let case = Case::new(&world, logged(&world).finish()).caller(|c| c.expect_simulated = false);
    assert_eq!(case.judge().exit(), 6);
    case.caller(|c| c.nonce = Some(vec![0; 32]))
        .refused(4, "receipt.nonce");
}

#[test]
fn everything_that_can_be_checked_is_checked() {
    let world = world();
    let minted = world
        .mint(Exchange::json(1))
        .receipt_seed([9; 32])
        .log_seed([8; 32])
        .finish();
    let case = Case::new(&world, minted).caller(|c| c.nonce = Some(vec![0; 32]));
    let verdict = case.refused(3, "receipt.signature");
    for id in [
        "receipt.signature",
        "receipt.nonce",
        "log.signature",
        "guarantees.stated",
    ] {
        assert!(verdict.checks.find(id).is_some_and(|c| c.refuses()), "{id}");
    }
    assert!(verdict.context.achieved.is_empty());
}
