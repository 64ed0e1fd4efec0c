//! What binds evidence to receipt, keyset and checkpoint, with reports signed by a genuine chip.

use touchstone_formats::report_data::{bind_boot, bind_receipt};
use touchstone_formats::{Collateral, Digest, Evidence, Purpose, SnpCollateral};
use touchstone_testkit::mint::{Exchange, World};

use crate::support::{Case, all_refused, logged, quoted, world};

/// The evidence object of one purpose.
fn of(all: &mut [Evidence], purpose: Purpose) -> &mut Evidence {
    all.iter_mut()
        .find(|e| e.purpose == Some(purpose))
        .expect("evidence of this purpose")
}

fn collateral(evidence: &mut Evidence) -> &mut SnpCollateral {
    match &mut evidence.collateral {
        Some(Collateral::SevSnp(collateral)) => collateral,
        other => panic!("SEV-SNP collateral, not {other:?}"),
    }
}

#[test]
fn every_evidence_object_has_to_stand() {
    use Purpose::{Boot, Checkpoint, Receipt};
    all_refused(
        quoted,
        &[
            ("boot over other data", 3, "evidence.report_data", |m| {
                m.report(|p, r| r.report_data[63] ^= u8::from(p == Boot))
            }),
            (
                "checkpoint over other data",
                3,
                "evidence.report_data",
                |m| m.report(|p, r| r.report_data[0] ^= u8::from(p == Checkpoint)),
            ),
            ("receipt over other data", 3, "evidence.report_data", |m| {
                m.report(|p, r| r.report_data[31] ^= u8::from(p == Receipt))
            }),
            ("boot of a debuggable guest", 4, "snp.policy.debug", |m| {
                m.report(|p, r| r.policy |= u64::from(p == Boot) << 19)
            }),
            (
                "checkpoint of a debuggable guest",
                4,
                "snp.policy.debug",
                |m| m.report(|p, r| r.policy |= u64::from(p == Checkpoint) << 19),
            ),
            (
                "receipt of a debuggable guest",
                4,
                "snp.policy.debug",
                |m| m.report(|p, r| r.policy |= u64::from(p == Receipt) << 19),
            ),
            ("boot of another image", 4, "snp.measurement", |m| {
                m.report(|p, r| r.measurement[0] ^= u8::from(p == Boot))
            }),
            ("receipt of another image", 4, "snp.measurement", |m| {
                m.report(|p, r| r.measurement[0] ^= u8::from(p == Receipt))
            }),
            (
                "boot quote as checkpoint quote",
                3,
                "evidence.report_data",
                |m| m.evidence(|all| of(all, Checkpoint).quote = of(all, Boot).quote.clone()),
            ),
            (
                "checkpoint quote as boot quote",
                3,
                "evidence.report_data",
                |m| m.evidence(|all| of(all, Boot).quote = of(all, Checkpoint).quote.clone()),
            ),
            (
                "boot quote as receipt quote",
                3,
                "evidence.report_data",
                |m| m.evidence(|all| of(all, Receipt).quote = of(all, Boot).quote.clone()),
            ),
            ("a nonce on boot evidence", 3, "evidence.nonce", |m| {
                m.evidence(|all| of(all, Boot).nonce = Some(vec![1; 32]))
            }),
            ("a nonce on checkpoint evidence", 3, "evidence.nonce", |m| {
                m.evidence(|all| of(all, Checkpoint).nonce = Some(vec![1; 32]))
            }),
            (
                "another nonce on receipt evidence",
                3,
                "evidence.nonce",
                |m| m.evidence(|all| of(all, Receipt).nonce = Some(vec![1; 32])),
            ),
            ("no nonce on receipt evidence", 3, "evidence.nonce", |m| {
                m.evidence(|all| of(all, Receipt).nonce = None)
            }),
            ("a receipt about another nonce", 3, "evidence.nonce", |m| {
                m.claims(|c| c.nonce = Some(vec![2; 32]))
            }),
            ("session evidence", 2, "bundle.format", |m| {
                m.evidence(|all| of(all, Boot).purpose = Some(Purpose::Session))
            }),
            ("evidence of another system", 2, "bundle.format", |m| {
                m.evidence(|all| of(all, Boot).purpose = None)
            }),
            ("two of one purpose", 2, "bundle.format", |m| {
                m.evidence(|all| of(all, Boot).purpose = Some(Checkpoint))
            }),
            ("no checkpoint evidence", 4, "guarantees.stated", |m| {
                m.purposes(&[Boot, Receipt])
            }),
            ("no receipt evidence", 4, "guarantees.stated", |m| {
                m.purposes(&[Boot, Checkpoint])
            }),
            ("no evidence", 4, "guarantees.stated", |m| m.purposes(&[])),
            ("no collateral on one object", 5, "snp.collateral", |m| {
                m.evidence(|all| of(all, Receipt).collateral = None)
            }),
            ("no certificate on one object", 5, "snp.collateral", |m| {
                m.evidence(|all| collateral(of(all, Boot)).vek = None)
            }),
            (
                "no revocation list on one object",
                5,
                "snp.chain.crl",
                |m| m.evidence(|all| collateral(of(all, Boot)).crls.clear()),
            ),
        ],
    );
}

#[test]
fn any_one_purpose_is_enough_for_signed() {
    let world = world();
    for purpose in [Purpose::Boot, Purpose::Checkpoint, Purpose::Receipt] {
        let exchange = Exchange::json(1).requiring("signed");
        let minted = world.mint(exchange).sealed().purposes(&[purpose]).finish();
        let policy = [("require", "[\"signed\"]")];
        let verdict = Case::new(&world, minted).policy(&world, &policy).holds();
        assert!(verdict.context.achieved.contains(&"signed".to_owned()));
    }
}

#[test]
fn quotes_of_other_keysets_receipts_and_checkpoints_are_refused() {
    let world = world();
    Case::new(&world, quoted(&world).finish()).holds();
    // The same chip, the same image: only the binding differs.
    let mut other = world.clone();
    other.keyset.config = Digest::of(b"other settings");
    let foreign_boot = other.evidence(Purpose::Boot, None, bind_boot());
    let minted = quoted(&world)
        .evidence(|all| *of(all, Purpose::Boot) = foreign_boot)
        .finish();
    Case::new(&world, minted).refused(3, "evidence.report_data");

    let second = world
        .mint(Exchange::json(2).requiring("logged quoted"))
        .finish();
    let nonce = Exchange::json(1).nonce;
    let foreign_receipt = world.evidence(
        Purpose::Receipt,
        nonce,
        bind_receipt(&second.bundle.receipt),
    );
    let minted = quoted(&world)
        .evidence(|all| *of(all, Purpose::Receipt) = foreign_receipt)
        .finish();
    Case::new(&world, minted).refused(3, "evidence.report_data");

    let mut seals = second.bundle.evidence.clone();
    let foreign_seal = of(&mut seals, Purpose::Checkpoint).clone();
    let minted = quoted(&world)
        .evidence(|all| *of(all, Purpose::Checkpoint) = foreign_seal)
        .finish();
    Case::new(&world, minted).refused(3, "evidence.report_data");
}

#[test]
fn a_keyset_beside_the_quote_is_worthless() {
    // A thief's keyset around honest evidence: everything in it is signed by keys he holds.
    let world = world();
    let honest = logged(&world).finish();
    let mut thief = world.clone();
    thief.keyset = World::new(2).keyset;
    (thief.receipt_seed, thief.log_seed) = (World::new(2).receipt_seed, World::new(2).log_seed);
    Case::new(&thief, logged(&thief).finish()).holds();
    let minted = logged(&thief)
        .evidence(|all| *all = honest.bundle.evidence.clone())
        .finish();
    Case::new(&thief, minted).refused(3, "evidence.report_data");
}

#[test]
fn a_simulated_platform_needs_its_root_and_says_so() {
    let world = world();
    let case = || Case::new(&world, logged(&world).finish());
    assert!(case().holds().context.simulated);
    let verdict = case().caller(|c| c.expect_simulated = false).judge();
    assert_eq!((verdict.exit(), verdict.deciding()), (6, None));
    let json = serde_json::to_value(&verdict).unwrap();
    assert_eq!(
        (&json["verdict"], &json["simulated"]),
        (&"holds".into(), &true.into())
    );
    let mut without = case();
    without.roots = attestation_verifier::Roots::pinned();
    without.refused(3, "snp.chain.root");
}

#[test]
fn a_report_is_no_quote() {
    let world = world();
    let minted = logged(&world).evidence(|all| {
        let boot = of(all, Purpose::Boot);
        (boot.tee, boot.collateral) = (touchstone_formats::Tee::Tdx, None);
    });
    Case::new(&world, minted.finish()).refused(2, "tdx.format");
}

#[test]
fn evidence_about_different_platforms_is_pointed_out() {
    const SENTENCE: &str = "the evidence objects describe different platforms";
    let world = world();
    let notes = |minted, changes: &[(&str, &str)]| {
        let verdict = Case::new(&world, minted).policy(&world, changes).holds();
        let risks = &verdict.context.residual_risks;
        risks.iter().filter(|r| r.starts_with(SENTENCE)).count()
    };
    assert_eq!(notes(quoted(&world).finish(), &[]), 0);
    let other = [0xa5; 48];
    let both = [
        hex::encode(world.machine.report.measurement),
        hex::encode(other),
    ];
    let both = format!("{{ expect = {both:?} }}");
    let minted = quoted(&world)
        .report(|p, r| {
            if p == Purpose::Receipt {
                r.measurement = other;
            }
        })
        .finish();
    assert_eq!(notes(minted, &[("snp.measurement", &both)]), 1);
}

#[test]
fn an_event_log_beside_a_report_is_listed() {
    let world = world();
    let log = touchstone_formats::EventLog {
        format: "ccel".into(),
        data: touchstone_formats::text::Base64Bytes(vec![1, 2, 3]),
    };
    let minted = logged(&world)
        .evidence(|all| all[0].event_log = Some(log))
        .finish();
    let verdict = Case::new(&world, minted).holds();
    assert!(
        verdict
            .checks
            .find("evidence.event_log")
            .is_some_and(|c| !c.refuses())
    );
}
