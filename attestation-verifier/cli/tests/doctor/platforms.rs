//! What the strict policy says to platforms that are as they should be, and to those that are not.

use std::collections::BTreeSet;

use touchstone_formats::evidence::quote_report_data;
use touchstone_testkit::amd::Product;
use touchstone_testkit::events::event_type;
use touchstone_testkit::machine::{Endorsement, Machine, TdxMachine, TeeMachine};
use touchstone_testkit::platform::Fault;
use touchstone_testkit::snp::{Report, platform_info, policy};
use touchstone_testkit::tdx::{TdReport, attributes};

use crate::running::{AT, Diagnosis, NOW, Place};
use crate::support::touchstone_in;

fn set(ids: &[&str], proven: bool) -> BTreeSet<(String, bool)> {
    ids.iter().map(|id| ((*id).to_owned(), proven)).collect()
}

/// What the strict policy leaves to its owner is neither passed nor failed.
#[track_caller]
fn leaves_open(diagnosis: &Diagnosis, ids: &[&str]) {
    let list = diagnosis.json["quote"]["not_applicable"]
        .as_array()
        .unwrap();
    for id in ids {
        assert!(list.iter().any(|entry| entry["id"] == *id), "{id}");
        let checks = diagnosis.json["checks"].as_array().unwrap();
        assert!(checks.iter().all(|check| check["id"] != *id), "{id}");
    }
}

#[test]
fn a_good_sev_snp_platform() {
    let place = Place::new(Machine::strict(NOW));
    let found = place.with_collateral();
    assert_eq!(
        (found.exit(), found.deciding()),
        (6, None),
        "{}",
        found.words
    );
    let quote = &found.json["quote"];
    assert_eq!(quote["chain"], "verified");
    assert_eq!(quote["collateral"], "folder");
    assert_eq!(quote["simulated"], true);
    assert_eq!(quote["platform"]["product"], "Genoa");
    assert!(found.words.contains("SIMULATED"));
    assert_eq!(found.json["source"], "quote-agent");
    let measurement = hex::encode(place.platform.machine().report.measurement);
    assert_eq!(quote["measurement"], measurement.as_str());
    leaves_open(
        &found,
        &[
            "snp.measurement",
            "receipt.*",
            "keyset.*",
            "log.*",
            "session.*",
        ],
    );
    assert_eq!(found.check("snp.policy.debug")["result"], "pass");
    assert_eq!(found.check("snp.signature")["result"], "pass");
    assert_eq!(found.check("snp.chip_id")["result"], "waived");
    for (guarantee, deliverable) in [
        ("signed", "yes"),
        ("logged", "yes"),
        ("quoted", "yes"),
        ("recomputed", "no"),
        ("proven", "no"),
    ] {
        assert_eq!(found.guarantee(guarantee), deliverable);
    }
    let risks = quote["residual_risks"].to_string();
    assert!(risks.contains("ACPI"), "{risks}");
}

#[test]
fn a_good_tdx_platform() {
    for machine in [
        TdxMachine::strict(NOW),
        TdxMachine::new(4, TdReport::v1_0(), NOW),
    ] {
        let place = Place::new(machine);
        let found = place.with_collateral();
        assert_eq!(
            (found.exit(), found.deciding()),
            (6, None),
            "{}",
            found.words
        );
        assert_eq!(found.json["quote"]["tee"], "tdx");
        assert_eq!(found.json["quote"]["platform"]["event_log"], "replayed");
        assert_eq!(found.check("tdx.tcb.status")["result"], "pass");
        assert_eq!(found.check("tdx.event_log")["result"], "pass");
        leaves_open(&found, &["tdx.mrtd", "tdx.rtmr0", "tdx.rtmr1", "tdx.rtmr2"]);
    }
}

/// The quote that was judged, for who fetches collateral for it elsewhere.
#[test]
fn the_quote_can_be_kept() {
    let place = Place::new(TdxMachine::strict(NOW));
    let found = place.doctor(&["-o", "evidence.json"]);
    assert_eq!(found.json["wrote"], "evidence.json");
    let file = std::fs::read(place.folder.path().join("evidence.json")).unwrap();
    let evidence = touchstone_formats::Evidence::parse(&file).unwrap();
    assert!(evidence.purpose.is_none() && evidence.event_log.is_some());
    let kept = quote_report_data(evidence.tee, &evidence.quote).unwrap();
    assert_eq!(found.json["report_data"], hex::encode(kept));
    let args = [
        "collateral",
        "status",
        "evidence.json",
        "--folder",
        "collateral",
    ];
    let more = ["--trust-simulated-root", "root.pem", "--at", AT, "--json"];
    let run = touchstone_in(place.folder.path(), &[&args[..], &more].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    // Where nothing is given nothing is written.
    place.platform.set_fault(Fault::Lie, None);
    let found = place.doctor(&["-o", "other.json"]);
    assert!(found.json["wrote"].is_null());
    assert!(!place.folder.path().join("other.json").exists());
}

/// Without certificates nothing is called genuine; what the quote says of itself is told as that.
#[test]
fn without_collateral_nothing_is_proven() {
    let place = Place::new(Machine::strict(NOW));
    let found = place.doctor(&["--trust-simulated-root", "root.pem"]);
    assert_eq!(
        (found.exit(), found.deciding()),
        (5, Some("snp.collateral"))
    );
    assert_eq!(found.json["quote"]["chain"], "not-checked");
    assert_eq!(found.json["quote"]["collateral"], serde_json::Value::Null);
    assert_eq!(found.failed(), set(&["snp.collateral"], false));
    let debug = found.check("snp.policy.debug");
    assert_eq!(
        (&debug["result"], &debug["proven"]),
        (&"pass".into(), &false.into())
    );
    let list = found.check("snp.chain.crl");
    assert_eq!(
        (&list["result"], &list["refuses"]),
        (&"not-evaluated".into(), &true.into())
    );
    assert!(found.words.contains("NOT CHECKED"), "{}", found.words);
    assert!(
        !found.words.to_lowercase().contains("genuine"),
        "{}",
        found.words
    );
    assert_eq!(found.guarantee("signed"), "unknown");
    assert_eq!(found.json["quote"]["platform"]["product"], "Genoa");
    assert_eq!(
        found.json["quote"]["platform"]["root"],
        serde_json::Value::Null
    );

    let place = Place::new(TdxMachine::strict(NOW));
    let found = place.doctor(&["--trust-simulated-root", "root.pem"]);
    assert_eq!(
        (found.exit(), found.deciding()),
        (5, Some("tdx.collateral"))
    );
    assert_eq!(found.json["quote"]["chain"], "not-checked");
    assert_eq!(found.check("tdx.attributes.debug")["proven"], false);
    assert_eq!(found.check("tdx.tcb.status")["result"], "not-evaluated");
    assert!(
        !found.words.to_lowercase().contains("genuine"),
        "{}",
        found.words
    );
}

#[test]
fn a_root_that_nobody_named_is_refused() {
    for (found, id) in [
        (
            Place::new(Machine::strict(NOW)).doctor(&["--folder", "collateral"]),
            "snp.chain.root",
        ),
        (
            Place::new(TdxMachine::strict(NOW)).doctor(&["--folder", "collateral"]),
            "tdx.chain.root",
        ),
    ] {
        assert_eq!(
            (found.exit(), found.deciding()),
            (3, Some(id)),
            "{}",
            found.words
        );
        assert_eq!(found.json["quote"]["chain"], "refused");
        assert_eq!(found.guarantee("signed"), "no");
    }
}

fn genoa(change: impl FnOnce(&mut Report)) -> Machine {
    let mut machine = Machine::strict(NOW);
    change(&mut machine.report);
    machine.reissue();
    machine
}

fn tdx(change: impl FnOnce(&mut TdxMachine)) -> TdxMachine {
    let mut machine = TdxMachine::strict(NOW);
    change(&mut machine);
    machine
}

/// Each fault is named by its checks, those and no others, with advice; with collateral as proven, without as claimed.
#[test]
fn faults_of_sev_snp_platforms_are_named() {
    let old = |r: &mut Report| {
        // SNP firmware 20, below every floor (AMD 57230: byte 6 of a TCB of Genoa's).
        for tcb in [
            &mut r.current_tcb,
            &mut r.reported_tcb,
            &mut r.committed_tcb,
            &mut r.launch_tcb,
        ] {
            tcb[6] = 20;
        }
    };
    let cases: Vec<(Machine, &[&str])> = vec![
        (genoa(|r| r.policy |= policy::DEBUG), &["snp.policy.debug"]),
        (
            genoa(|r| r.policy |= policy::MIGRATE_MA),
            &["snp.policy.migrate_ma"],
        ),
        (genoa(|r| r.policy &= !policy::SMT), &["snp.policy.smt"]),
        (
            genoa(|r| r.platform_info &= !platform_info::SMT),
            &["snp.platform.smt"],
        ),
        (
            genoa(|r| r.platform_info &= !platform_info::ECC),
            &["snp.platform.ecc"],
        ),
        (
            genoa(|r| r.platform_info &= !platform_info::ALIAS_CHECK_COMPLETE),
            &["snp.platform.alias_check"],
        ),
        (Machine::new(Product::Milan, 5, NOW), &["snp.product"]),
        (
            genoa(old),
            &["snp.tcb.reported", "snp.tcb.committed", "snp.tcb.launch"],
        ),
        (genoa(|r| r.launch_tcb[6] = 20), &["snp.tcb.launch"]),
        (
            genoa(|r| r.current_version[0] += 1),
            &["snp.tcb.provisional"],
        ),
        (genoa(|r| r.vmpl = 1), &["snp.vmpl"]),
        (genoa(|r| r.host_data = [1; 32]), &["snp.host_data"]),
        (genoa(|r| r.report_id_ma = [1; 32]), &["snp.report_id_ma"]),
        (genoa(|r| r.chip_id = [0; 64]), &["snp.chip_id.masked"]),
    ];
    for (machine, ids) in cases {
        let place = Place::new(machine);
        let found = place.with_collateral();
        assert_eq!(found.exit(), 4, "{ids:?}: {}", found.words);
        assert!(ids.contains(&found.deciding().unwrap()));
        assert_eq!(found.failed(), set(ids, true), "{ids:?}");
        assert_eq!(found.guarantee("signed"), "refused");
        let bare = place.doctor(&[]);
        assert_eq!((bare.exit(), bare.deciding()), (5, Some("snp.collateral")));
        let expected = [ids, &["snp.collateral"]].concat();
        assert_eq!(bare.failed(), set(&expected, false), "{ids:?}");
    }
    // Whose key it is only the certificate says.
    let mut machine = Machine::strict(NOW);
    machine.endorsement = Endorsement::Vlek {
        csp_id: "CN=cc-x.simulated.invalid".into(),
    };
    machine.reissue();
    let place = Place::new(machine);
    let found = place.with_collateral();
    assert_eq!(
        found.failed(),
        set(&["snp.signing_key", "snp.vlek.csp"], true)
    );
    let bare = place.doctor(&[]);
    assert_eq!(
        bare.failed(),
        set(&["snp.signing_key", "snp.collateral"], false)
    );
    assert_eq!(bare.check("snp.vlek.csp")["result"], "not-evaluated");
    // A report of version 2 does not say which product it is of.
    let mut machine = Machine::new(Product::Genoa, 2, NOW);
    machine.report.platform_info = platform_info::SMT;
    let place = Place::new(machine);
    assert!(
        place
            .with_collateral()
            .failed()
            .contains(&("snp.version".into(), true))
    );
    let bare = place.doctor(&[]);
    assert!(bare.failed().contains(&("snp.version".into(), false)));
    for id in ["snp.product", "snp.tcb.reported"] {
        assert_eq!(bare.check(id)["result"], "not-evaluated", "{id}");
    }
}

#[test]
fn faults_of_tdx_platforms_are_named() {
    let attribute = |bit: u64| tdx(|m| m.report.report.td_attributes ^= bit);
    let cases: Vec<(TdxMachine, &[&str])> = vec![
        (attribute(attributes::DEBUG), &["tdx.attributes.debug"]),
        (
            attribute(attributes::SEPT_VE_DISABLE),
            &["tdx.attributes.sept_ve_disable"],
        ),
        (
            attribute(attributes::MIGRATABLE),
            &["tdx.attributes.migratable"],
        ),
        (attribute(attributes::PERFMON), &["tdx.attributes.perfmon"]),
        (attribute(1 << 5), &["tdx.attributes.others"]),
        (
            tdx(|m| m.report.report.mr_config_id = [1; 48]),
            &["tdx.mr_config_id"],
        ),
        (
            tdx(|m| m.measure(3, event_type::EVENT_TAG, b"something")),
            &["tdx.rtmr3", "tdx.rtmr3.events"],
        ),
        (
            tdx(|m| m.report.report.rtmr[1] = [9; 48]),
            &["tdx.event_log"],
        ),
    ];
    for (machine, ids) in cases {
        let place = Place::new(machine);
        let found = place.with_collateral();
        assert_eq!(found.exit(), 4, "{ids:?}: {}", found.words);
        assert_eq!(found.failed(), set(ids, true), "{ids:?}");
        let bare = place.doctor(&["--trust-simulated-root", "root.pem"]);
        assert_eq!((bare.exit(), bare.deciding()), (5, Some("tdx.collateral")));
        let expected = [ids, &["tdx.collateral"]].concat();
        assert_eq!(bare.failed(), set(&expected, false), "{ids:?}");
    }
    // What Intel says of a level is in the collateral.
    let place = Place::new(tdx(|m| {
        m.tcb_info.set_status("OutOfDate", &["INTEL-SA-00001"]);
    }));
    let found = place.with_collateral();
    let expected = ["tdx.tcb.status", "tdx.tcb.advisories", "tdx.tcb.grace"];
    assert_eq!(found.failed(), set(&expected, true), "{}", found.words);
    assert_eq!(found.exit(), 4);
}

/// Collateral that is out of date, or lacks its revocation lists, is 5; which of them, and what to do, is said.
#[test]
fn collateral_that_does_not_do() {
    let place = Place::new(Machine::strict(NOW));
    let list = place.folder.path().join("collateral/crls/ark.der");
    std::fs::remove_file(list).unwrap();
    let found = place.with_collateral();
    assert_eq!((found.exit(), found.deciding()), (5, Some("snp.chain.crl")));
    assert_eq!(found.json["quote"]["chain"], "verified");
    // Of the right kind of platform, and of another machine.
    let other = Place::new(Machine::strict(NOW));
    let foreign = other.folder.path().join("collateral");
    let args = ["--folder", foreign.to_str().unwrap()];
    let found = place.doctor(&[&args[..], &["--trust-simulated-root", "root.pem"]].concat());
    assert_eq!(found.exit(), 3, "{}", found.words);
}
