//! Connections obey the manifest before anything is sent on them.

use attestation_verifier::{Binding, Connection, SessionVerdict};
use serde_json::json;
use touchstone_formats::report_data::bind_session;
use touchstone_formats::{CollateralFile, Digest, Purpose, SessionAnswer};
use touchstone_testkit::machine::{Machine, TdxMachine};

use crate::support::{Listed, Scene};

fn scene<M: Listed>() -> Scene<M> {
    Scene::<M>::new().with(|s| {
        s.world.keyset.tls_spki_sha256 = Some(Digest::of(b"SubjectPublicKeyInfo"));
    })
}

fn judge<M: Listed>(scene: &Scene<M>) -> (SessionVerdict, Connection) {
    let caller = Connection {
        nonce: [7; 32],
        exporter: [9; 32],
        tls_spki_sha256: scene.world.keyset.tls_spki_sha256.unwrap(),
    };
    let bind = bind_session(caller.tls_spki_sha256, &caller.exporter);
    let nonce = Some(caller.nonce.to_vec());
    let mut evidence = scene.world.evidence(Purpose::Session, nonce, bind);
    let collateral = CollateralFile {
        tee: M::TEE,
        collateral: evidence.collateral.take().unwrap(),
    };
    let answer = SessionAnswer {
        keyset: scene.world.keyset.clone(),
        evidence,
    };
    let verifier = scene.verifier();
    let judge = || {
        verifier.check_session(
            &answer.to_file(),
            &caller,
            Some(&collateral),
            scene.at,
            true,
        )
    };
    let session = judge();
    assert_eq!(judge(), session);
    assert_eq!(judge(), session);
    (session, caller)
}

fn refused<M: Listed>(scene: Scene<M>, exit: u8, deciding: &str) {
    let (session, caller) = judge(&scene);
    let verdict = &session.verdict;
    let found = (verdict.exit(), verdict.deciding());
    assert_eq!(found, (exit, Some(deciding)), "{}", verdict.words());
    assert_eq!(session.record(&caller, scene.at.time), None);
    assert_eq!(verdict.binding(), Binding::None);
}

fn connections<M: Listed>() {
    let honest = scene::<M>();
    let (session, caller) = judge(&honest);
    let verdict = &session.verdict;
    assert_eq!(verdict.exit(), 0, "{}", verdict.words());
    assert_eq!(verdict.binding(), Binding::TlsExporter);
    assert_eq!(verdict.context.release["release"], "1.4.2");
    assert!(
        verdict
            .words()
            .contains("software: enclave 1.4.2 (signed by 2 of 3)\n"),
        "{}",
        verdict.words()
    );
    // What was kept of it is judged by the manifest too.
    let record = session.record(&caller, honest.at.time).unwrap();
    let again = |scene: &Scene<M>| {
        let verdict = scene
            .verifier()
            .check_session_record(&record, scene.at, true)
            .verdict;
        (verdict.exit(), verdict.deciding().map(str::to_owned))
    };
    assert_eq!(again(&honest), (0, None));
    let none = honest.clone().with(|s| s.given = false);
    assert_eq!(again(&none), (5, Some("manifest.present".into())));

    refused(none, 5, "manifest.present");
    let with = |change: &dyn Fn(&mut Scene<M>)| scene::<M>().with(change);
    refused(with(&|s| s.signed_by = vec![0]), 4, "manifest.threshold");
    refused(with(&|s| s.signed_by = vec![3]), 3, "manifest.signature");
    refused(with(&|s| s.minimum_version = 19), 4, "manifest.version");
    let ended = json!("2026-09-02T00:00:00Z");
    refused(
        with(&|s| s.predicate["not_after"] = ended.clone()),
        5,
        "manifest.validity",
    );
    refused(
        with(&|s| s.platform()["os_binding"] = json!("none")),
        4,
        "manifest.os_binding",
    );
    refused(
        with(&|s| s.platform()["measurements"] = json!([M::other(0x42)])),
        4,
        M::KEYS[0],
    );
}

#[test]
fn connections_obey_the_manifest() {
    connections::<Machine>();
    connections::<TdxMachine>();
}
