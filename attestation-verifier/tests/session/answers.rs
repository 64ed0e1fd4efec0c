//! Kept answers: what bound the connection that they came over.

use attestation_verifier::exchange::SessionRecord;
use attestation_verifier::verdict::Outcome;
use attestation_verifier::{Binding, Bound, Policy, check, check_session_record};
use touchstone_formats::{Digest, Purpose};
use touchstone_testkit::mint::{Exchange, World};

use crate::bundles::Case;
use crate::support::{Scene, tls_world};

const EXPORTER: (&str, &str) = ("answers", "{ expect = \"tls-exporter\" }");

/// An honest answer of this world, which came over an attested connection to the world `over`.
fn case(world: &World, over: &World) -> Case {
    let minted = world.mint(Exchange::json(1)).finish();
    let bound = Scene::of(over.clone()).holds().bound();
    Case::new(world, minted).caller(|c| c.session = Some(bound))
}

/// The same keyset's sister, with the same TLS key and other settings.
fn sister() -> World {
    let mut world = tls_world();
    world.keyset.config = Digest::of(b"other settings");
    world
}

fn pin(world: &World) -> SessionRecord {
    let scene = Scene::of(world.clone());
    let record = scene.holds().record(&scene.caller, scene.at.time).unwrap();
    SessionRecord {
        exporter: None,
        evidence: None,
        ..record
    }
}

/// A connection is accepted by evidence, too: its verdict says what a host can do with ACPI tables.
#[test]
fn a_connection_that_is_accepted_names_the_hosts_code() {
    let scene = Scene::new();
    let session = scene.holds();
    let record = session.record(&scene.caller, scene.at.time).unwrap();
    let policy = Policy::parse(&scene.policy_text()).unwrap();
    let again = check_session_record(&record, &policy, &scene.roots, scene.at, true);
    for verdict in [&session.verdict, &again.verdict] {
        assert_eq!(verdict.exit(), 0, "{}", verdict.words());
        let ear = attestation_verifier::ear::ear(verdict).to_string();
        for text in [verdict.words(), verdict.to_json(), ear] {
            assert!(text.contains("BadAML"), "{text}");
        }
    }
}

#[test]
fn an_answer_of_the_connections_own_enclave_is_bound() {
    let world = tls_world();
    let verdict = case(&world, &world).policy(&world, &[EXPORTER]).holds();
    assert_eq!(verdict.binding(), Binding::TlsExporter);
    let json = verdict.to_json();
    assert!(json.contains("\"covers\":[\"request\",\"response\",\"inputs\",\"outputs\",\"nonce\"],\"binding\":\"tls-exporter\","), "{json}");
    assert!(verdict.words().contains("\nbinding: tls-exporter\n"));
    // And where nothing is demanded, it is said.
    assert_eq!(case(&world, &world).holds().binding(), Binding::TlsExporter);
}

#[test]
fn an_answer_of_another_keyset_is_not() {
    let (world, other) = (tls_world(), sister());
    let verdict = case(&world, &other).holds();
    assert_eq!(verdict.binding(), Binding::None);
    assert!(verdict.words().contains("\nbinding: none\n"));
    let waived = verdict.checks.find("session.binding").unwrap();
    assert_eq!(waived.result, Outcome::Waived);
    assert_eq!(waived.found, "none");
    let refused = case(&world, &other).policy(&world, &[EXPORTER]);
    let verdict = refused.refused(4, "session.binding");
    assert_eq!(
        verdict.checks.find("session.binding").unwrap().result,
        Outcome::Fail
    );
}

#[test]
fn what_the_policy_demands_must_be_there() {
    let world = tls_world();
    case(&world, &world).policy(&world, &[EXPORTER]).holds();
    let without = || case(&world, &world).caller(|c| c.session = None);
    let verdict = without()
        .policy(&world, &[EXPORTER])
        .refused(4, "session.binding");
    let check = verdict.checks.find("session.binding").unwrap();
    assert_eq!(check.result, Outcome::NotEvaluated);
    // The judgement of a connection that was refused binds nothing.
    let refused = Scene::of(world.clone())
        .with(|s| s.quoted.exporter = [0; 32])
        .judge()
        .bound();
    assert_eq!(refused, Bound::default());
    let case = without().caller(|c| c.session = Some(refused));
    case.policy(&world, &[EXPORTER])
        .refused(4, "session.binding");
    // Nothing is demanded.
    assert_eq!(without().holds().binding(), Binding::None);
    let any = ("answers", "{ expect = [\"none\", \"tls-exporter\"] }");
    without().policy(&world, &[any]).holds();
    let only = ("answers", "{ expect = \"spki-pin\" }");
    self::case(&world, &world)
        .policy(&world, &[only])
        .refused(4, "session.binding");
}

#[test]
fn a_bundle_that_proves_nothing_is_bound_to_nothing() {
    let world = tls_world();
    let bound = case(&world, &world).comparison.session;
    let lies = [
        (
            3,
            "receipt.signature",
            world.mint(Exchange::json(1)).receipt_seed([9; 32]),
        ),
        (
            4,
            "guarantees.stated",
            world.mint(Exchange::json(1)).purposes(&[]),
        ),
        (
            5,
            "snp.collateral",
            world
                .mint(Exchange::json(1))
                .evidence(|all| all[0].collateral = None),
        ),
    ];
    for (exit, deciding, lie) in lies {
        let case = Case::new(&world, lie.finish()).caller(|c| c.session = bound);
        let verdict = case.policy(&world, &[EXPORTER]).refused(exit, deciding);
        assert_eq!(verdict.binding(), Binding::None);
    }
    // Boot evidence alone proves the keyset: bound, though not sealed yet.
    let early = world.mint(Exchange::json(1)).purposes(&[Purpose::Boot]);
    let case = Case::new(&world, early.finish()).caller(|c| c.session = bound);
    let verdict = case
        .policy(&world, &[EXPORTER])
        .refused(4, "guarantees.stated");
    assert_eq!(verdict.binding(), Binding::TlsExporter);
}

#[test]
fn a_noted_key_is_worth_what_the_bundles_evidence_makes_of_it() {
    let world = tls_world();
    let judged = |record: &SessionRecord, over: &World| {
        let case = case(over, over);
        let policy = Policy::parse(&case.policy).unwrap();
        let session = check_session_record(record, &policy, &case.roots, case.at, true);
        assert_eq!(session.bound().binding(), Binding::SpkiPin);
        case.caller(|c| c.session = Some(session.bound()))
    };
    let either = [("answers", "{ expect = [\"spki-pin\", \"tls-exporter\"] }")];
    let verdict = judged(&pin(&world), &world).policy(&world, &either).holds();
    assert_eq!(verdict.binding(), Binding::SpkiPin);
    judged(&pin(&world), &world)
        .policy(&world, &[EXPORTER])
        .refused(4, "session.binding");
    // A bundle whose keyset has another key, or none.
    for key in [Some(Digest::of(b"another key")), None] {
        let mut other = tls_world();
        other.keyset.tls_spki_sha256 = key;
        let minted = other.mint(Exchange::json(1)).finish();
        let bound = judged(&pin(&world), &world).comparison.session;
        let case = Case::new(&other, minted).caller(|c| c.session = bound);
        assert_eq!(case.holds().binding(), Binding::None);
        case.policy(&other, &either).refused(4, "session.binding");
    }
    // A record that claims the bundle's keyset without having seen its key.
    let mut lie = pin(&world);
    lie.tls_spki_sha256 = Digest::of(b"the relay's key");
    let case = case(&world, &world);
    let policy = Policy::parse(&case.policy).unwrap();
    let session = check_session_record(&lie, &policy, &case.roots, case.at, true);
    assert_eq!(session.verdict.deciding(), Some("session.tls_key"));
    assert_eq!(session.bound(), Bound::default());
}

#[test]
fn at_an_asserted_time_no_connection_is_judged() {
    let world = tls_world();
    let asserted = |changes: &[(&str, &str)]| {
        let mut case = case(&world, &world).policy(&world, changes);
        case.holds();
        case.at.asserted = true;
        case
    };
    assert_eq!(asserted(&[]).holds().binding(), Binding::None);
    let verdict = asserted(&[EXPORTER]).refused(4, "session.binding");
    let check = verdict.checks.find("session.binding").unwrap();
    assert!(check.reason.contains("your own clock"), "{}", check.reason);
}

#[test]
fn names_are_accepted_or_not() {
    let world = tls_world();
    let named = |name: &str| case(&world, &world).policy(&world, &[("name", name)]);
    named("{ expect = \"enclave.example\" }").holds();
    named("{ expect = [\"a.example\", \"enclave.example\"] }").holds();
    named("{ expect = [\"a.example\"] }").refused(4, "keyset.name");
    named("{ expect = [] }").refused(4, "keyset.name");
}

/// Policies of others have no such table: bundles are judged by them as before.
#[test]
fn a_policy_without_the_table_asks_nothing_of_answers() {
    let world = tls_world();
    let mut case = case(&world, &world).caller(|c| c.session = None);
    let (head, rest) = case.policy.split_once("[session]").unwrap();
    let (_, platforms) = rest.split_once("[[platform]]").unwrap();
    case.policy = format!("{head}[[platform]]{platforms}");
    let verdict = case.holds();
    assert_eq!(verdict.binding(), Binding::None);
    for id in ["session.binding", "keyset.name"] {
        let check = verdict.checks.find(id).unwrap();
        assert_eq!(
            (check.result, check.refuses()),
            (Outcome::NotEvaluated, false)
        );
    }
    // A connection that was judged is shown all the same.
    let bound = Scene::of(world).holds().bound();
    case.comparison.session = Some(bound);
    let policy = Policy::parse(&case.policy).unwrap();
    let verdict = check(&case.file, &policy, &case.roots, &case.comparison, case.at);
    assert_eq!(
        (verdict.exit(), verdict.binding()),
        (0, Binding::TlsExporter)
    );
}
