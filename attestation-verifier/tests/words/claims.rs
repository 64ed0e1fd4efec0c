//! What evidence says of itself before there is collateral: the same as once it is proven, as far as it goes, and no verdict.

use std::collections::BTreeSet;

use attestation_verifier::appraise::claimed;
use attestation_verifier::policy::template;
use attestation_verifier::verdict::Outcome;
use attestation_verifier::{At, Policy, Roots, judge};
use serde_json::Value;
use touchstone_formats::evidence::{Collateral, Evidence, Tee};
use touchstone_testkit::machine::{Machine, TdxMachine, TeeMachine};
use touchstone_testkit::snp::policy::DEBUG;
use touchstone_testkit::tdx::attributes;

const NOW: u64 = 1_790_000_000;
const AT: At = At {
    time: NOW,
    asserted: false,
};

fn evidence<M: TeeMachine>(machine: &M, collateral: Option<Collateral>) -> Evidence {
    Evidence {
        purpose: None,
        nonce: None,
        tee: M::TEE,
        quote: machine.quote([7; 64]),
        collateral,
        event_log: machine.event_log(),
    }
}

/// Claims are what the same evidence is found to be when all of it is proven; but for these, which only collateral says.
#[track_caller]
fn agrees<M: TeeMachine>(machine: &M, unknown: &[&str]) {
    let policy = Policy::parse(&template(M::TEE)).unwrap();
    let roots = Roots::pinned()
        .with_simulated_pem(machine.root_pem().as_bytes())
        .unwrap();
    let collateral = M::evidence_collateral(machine.attached());
    let whole = evidence(machine, Some(collateral));
    let judged = judge(&whole, &policy, &roots, Some(&[7; 64]), AT, None);
    assert_eq!(judged.platform["simulated"], true);
    for evidence in [&whole, &evidence(machine, None)] {
        let claims = claimed(evidence, &policy, AT).unwrap();
        let mut open = BTreeSet::new();
        for claim in &claims.checks {
            let proven = judged.checks.find(&claim.id).unwrap();
            if claim.result == Outcome::NotEvaluated {
                open.insert(claim.id.as_ref());
                continue;
            }
            assert_eq!(claim, proven);
        }
        assert_eq!(open, unknown.iter().copied().collect());
        assert_eq!(Some(&claims.measurement), judged.measurement.as_ref());
        for unproven in ["root", "simulated"] {
            assert_eq!(claims.platform[unproven], Value::Null);
        }
    }
}

#[test]
fn claims_are_what_is_found_once_all_is_proven() {
    let mut machine = Machine::strict(NOW);
    agrees(&machine, &["snp.chain.crl"]);
    machine.report.policy |= DEBUG;
    machine.report.vmpl = 3;
    agrees(&machine, &["snp.chain.crl"]);
    let unknown = [
        "tdx.chain.crl",
        "tdx.tcb.evaluation_number",
        "tdx.tcb.status",
        "tdx.tcb.advisories",
        "tdx.tcb.grace",
    ];
    let mut machine = TdxMachine::strict(NOW);
    agrees(&machine, &unknown);
    machine.report.report.td_attributes = attributes::DEBUG;
    machine.report.report.rtmr[3] = [3; 48];
    agrees(&machine, &unknown);
}

#[test]
fn nothing_is_claimed_by_what_is_no_quote() {
    let policy = Policy::parse(&template(Tee::SevSnp)).unwrap();
    let mut good = evidence(&Machine::strict(NOW), None);
    assert!(claimed(&good, &policy, AT).is_some());
    let of_tdx = Policy::parse(&template(Tee::Tdx)).unwrap();
    assert!(claimed(&good, &of_tdx, AT).is_none());
    good.quote.truncate(1183);
    assert!(claimed(&good, &policy, AT).is_none());
    good.tee = Tee::Tdx;
    assert!(claimed(&good, &of_tdx, AT).is_none());
}
