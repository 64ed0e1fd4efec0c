//! Bundles minted on a TDX machine: every quote in them is good under another verifier and over the right report data,
//! and lies are signed again.

use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};
use touchstone_formats::report_data::{bind_boot, bind_checkpoint, bind_receipt, report_data};
use touchstone_formats::{Bundle, Collateral, Digest, Evidence, Purpose, Tee, TlogProof};
use touchstone_testkit::events::event_type;
use touchstone_testkit::machine::TdxMachine;
use touchstone_testkit::mint::{Exchange, Minted, World};

use crate::theirs;

type TdxWorld = World<TdxMachine>;

/// What dcap-qvl says of an evidence object.
fn judge(world: &TdxWorld, evidence: &Evidence) -> Result<VerifiedReport, String> {
    let Some(Collateral::Tdx(collateral)) = &evidence.collateral else {
        panic!("collateral of TDX");
    };
    QuoteVerifier::new(world.machine.pki.root_der())
        .verify(&evidence.quote, &theirs(collateral), world.at)
        .map_err(|e| format!("{e:#}"))
}

fn expected_report_data(bundle: &Bundle, evidence: &Evidence) -> [u8; 64] {
    let purpose = evidence.purpose.unwrap();
    let bind = match purpose {
        Purpose::Boot => bind_boot(),
        Purpose::Receipt => bind_receipt(&bundle.receipt),
        Purpose::Checkpoint => {
            let proof = TlogProof::parse(bundle.proof.as_ref().unwrap()).unwrap();
            bind_checkpoint(&proof.note.text)
        }
        Purpose::Session => panic!("no session stands in a bundle"),
    };
    let nonce = evidence.nonce.as_deref();
    report_data(purpose, bundle.keyset.digest(), nonce, bind)
}

fn mint(world: &TdxWorld) -> touchstone_testkit::mint::Mint<'_, TdxMachine> {
    world.mint(Exchange::json(1).requiring("logged quoted"))
}

#[test]
fn honest_bundles_carry_good_quotes() {
    let mut measured = TdxWorld::tdx(1);
    measured
        .machine
        .measure(3, event_type::EVENT_TAG, b"an application");
    for world in [TdxWorld::tdx(1), measured] {
        let minted = mint(&world).finish();
        let bundle = Bundle::parse(&minted.file()).unwrap();
        let purposes: Vec<_> = bundle.evidence.iter().map(|e| e.purpose.unwrap()).collect();
        assert_eq!(
            purposes,
            [Purpose::Boot, Purpose::Checkpoint, Purpose::Receipt]
        );
        for evidence in &bundle.evidence {
            assert_eq!(evidence.tee, Tee::Tdx);
            let report = judge(&world, evidence).unwrap().report;
            let report = report.as_td10().unwrap();
            assert_eq!(report.report_data, expected_report_data(&bundle, evidence));
            assert_eq!(report.rt_mr3, world.machine.events.replay(3));
            let log = evidence.event_log.as_ref().unwrap();
            assert_eq!(log.data.0, world.machine.events.to_ccel());
        }
        assert_eq!(minted.root_pem.matches("BEGIN").count(), 1);
    }
}

#[test]
fn session_evidence_is_made_as_any_other() {
    let world = TdxWorld::tdx(4);
    let nonce = Some(vec![7; 32]);
    let evidence = world.evidence(Purpose::Session, nonce.clone(), Digest::of(b"bind"));
    let report = judge(&world, &evidence).unwrap().report;
    let expected = report_data(
        Purpose::Session,
        world.keyset.digest(),
        nonce.as_deref(),
        Digest::of(b"bind"),
    );
    assert_eq!(report.as_td10().unwrap().report_data, expected);
}

#[test]
fn lies_are_signed_again() {
    let world = TdxWorld::tdx(1);
    let first = |minted: &Minted| judge(&world, &minted.bundle.evidence[0]);
    let lie = mint(&world).report(|_, quote| quote.report.mr_td = [9; 48]);
    let lie = lie.finish();
    let judged = first(&lie).unwrap();
    assert_eq!(judged.report.as_td10().unwrap().mr_td, [9; 48]);

    let lie = mint(&world).report(|purpose, quote| {
        if purpose == Purpose::Boot {
            quote.report.report_data[0] ^= 1;
        }
    });
    let lie = lie.finish();
    let [boot, checkpoint, _] = &lie.bundle.evidence[..] else {
        panic!("three of them");
    };
    for (evidence, right) in [(boot, false), (checkpoint, true)] {
        let report = judge(&world, evidence).unwrap().report;
        let found = report.as_td10().unwrap().report_data;
        let expected = expected_report_data(&lie.bundle, evidence);
        assert_eq!(found == expected, right);
    }

    let stale = mint(&world).collateral(|_, collateral| {
        let mut tcb_info = world.machine.tcb_info.clone();
        tcb_info.set_status("OutOfDate", &["INTEL-SA-99009"]);
        let text = tcb_info.to_json();
        collateral.tcb_info_signature = Some(touchstone_formats::text::HexBytes(
            world.machine.pki.sign_json(&text),
        ));
        collateral.tcb_info = Some(text);
    });
    assert_eq!(first(&stale.finish()).unwrap().status, "OutOfDate");
}
