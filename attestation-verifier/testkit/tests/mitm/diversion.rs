//! A diversion to another genuine enclave. No binding tells the two apart: what they are has to be pinned.

use std::sync::Arc;

use touchstone_testkit::amd::VekKey;
use touchstone_testkit::mint::World;
use touchstone_testkit::mitm::{Lie, ManInTheMiddle, Server, Upstream};

use crate::common::{EITHER, caller, nothing_was_sent, own, world};

/// An enclave of the same vendor and software, and what else is changed.
fn another(change: impl FnOnce(&mut World)) -> World {
    let mut other = world();
    other.machine.report.chip_id = [0xd1; 64];
    other.machine.key = VekKey::p384();
    change(&mut other);
    other.machine.reissue();
    other
}

fn diverted_to(other: World) -> ManInTheMiddle {
    let mut config = own(Lie::Divert);
    config.other = Some(Upstream::Own(Arc::new(Server::over(other, Lie::None))));
    ManInTheMiddle::start(config).unwrap()
}

/// Whoever pins `changes` refuses `other` by `check`, and is served by the enclave that he means.
fn is_refused(test: &str, changes: &[(&str, &str)], other: World, check: &str) {
    let Some(caller) = caller(test, &[changes, &EITHER].concat()) else {
        return;
    };
    let honest = ManInTheMiddle::start(own(Lie::None)).unwrap();
    caller.is_answered(&honest, "digits", &[]);
    caller.is_answered_sealed(&honest, "digits", &[]);
    let middle = diverted_to(other);
    // Over attested TLS, and sealed.
    for asked in [
        caller.ask(&middle, "digits", &[]),
        caller.ask_sealed(&middle, "digits", &[]),
    ] {
        let found = (asked.exit, asked.deciding.as_str());
        assert_eq!(found, (4, check), "{}", asked.words);
    }
    nothing_was_sent(middle.record(), Lie::Divert);
}

/// Documented, and said in every verdict of such a policy: a residual risk.
#[test]
fn a_policy_that_pins_no_enclave_accepts_any_genuine_one() {
    let test = "a_policy_that_pins_no_enclave_accepts_any_genuine_one";
    let Some(caller) = caller(test, &[("snp.host_data", "{ waive = \"any\" }")]) else {
        return;
    };
    let middle = diverted_to(another(|other| {
        other.machine.report.host_data = [0xd1; 32];
        other.keyset.name = "other.example".into();
    }));
    caller.is_answered(&middle, "digits", &[]);
    went_elsewhere(&middle);
}

fn went_elsewhere(middle: &ManInTheMiddle) {
    assert!(middle.record().connections().iter().all(|seen| {
        seen.notes
            .iter()
            .any(|note| note.contains("another enclave"))
    }));
}

/// So it is with sealed requests: the key is another genuine enclave's, and the verdict says that it could be. Whoever pins one is
/// told nothing of the kind.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_question_is_answered_by_any_genuine_enclave_unless_one_is_pinned() {
    let test = "a_sealed_question_is_answered_by_any_genuine_enclave_unless_one_is_pinned";
    let chip = hex::encode(world().machine.report.chip_id);
    let chip = format!("{{ expect = [\"{chip}\"] }}");
    for (pin, unpinned) in [
        (("snp.host_data", "{ waive = \"any\" }"), true),
        (("snp.chip_id", chip.as_str()), false),
    ] {
        let Some(caller) = caller(test, &[&[pin], &EITHER[..]].concat()) else {
            return;
        };
        let middle = match unpinned {
            true => diverted_to(another(|_| {})),
            false => ManInTheMiddle::start(own(Lie::None)).unwrap(),
        };
        caller.is_answered_sealed(&middle, "digits", &[]);
        let client = caller.sealing_builder(&middle).connect().await.unwrap();
        let session = client.session().unwrap();
        let risks = &session.verdict.context.residual_risks;
        let said = |risk: &String| risk.contains("another enclave that satisfies the same policy");
        assert_eq!(risks.iter().any(said), unpinned, "{risks:?}");
        if unpinned {
            went_elsewhere(&middle);
        }
    }
}

#[test]
fn a_diversion_is_refused_by_the_chip() {
    let chip = hex::encode(world().machine.report.chip_id);
    let chip = format!("{{ expect = [\"{chip}\"] }}");
    let test = "a_diversion_is_refused_by_the_chip";
    is_refused(
        test,
        &[("snp.chip_id", &chip)],
        another(|_| {}),
        "snp.chip_id",
    );
}

#[test]
fn a_diversion_is_refused_by_the_host_data() {
    let own = hex::encode(world().machine.report.host_data);
    let pinned = format!("{{ expect = [\"{own}\"] }}");
    let other = another(|other| other.machine.report.host_data = [0xd1; 32]);
    let test = "a_diversion_is_refused_by_the_host_data";
    is_refused(test, &[("snp.host_data", &pinned)], other, "snp.host_data");
}

#[test]
fn a_diversion_is_refused_by_the_name() {
    let other = another(|other| other.keyset.name = "other.example".into());
    let test = "a_diversion_is_refused_by_the_name";
    let pinned = [("name", "{ expect = [\"enclave.example\"] }")];
    is_refused(test, &pinned, other, "keyset.name");
}
