//! `session.json`: what is kept of a connection, read again and judged again.

use attestation_verifier::exchange::SessionRecord;
use attestation_verifier::{At, Binding, Policy, SessionVerdict, check_session_record};
use touchstone_formats::Digest;
use touchstone_testkit::mutate::{
    Edit, edit_json, for_each_bit_flip_of, json_mutants, truncations,
};

use crate::support::{Scene, assert_refused};

/// The record of the honest connection, opened now.
fn record(scene: &Scene) -> SessionRecord {
    let session = scene.holds();
    session.record(&scene.caller, scene.at.time).unwrap()
}

/// The record of a caller who noted the TLS key alone.
fn pinned(scene: &Scene) -> SessionRecord {
    SessionRecord {
        exporter: None,
        evidence: None,
        ..record(scene)
    }
}

fn judge(scene: &Scene, record: &SessionRecord) -> SessionVerdict {
    let policy = Policy::parse(&scene.policy_text()).unwrap();
    check_session_record(record, &policy, &scene.roots, scene.at, true)
}

#[track_caller]
fn holds(scene: &Scene, record: &SessionRecord, binding: Binding) -> SessionVerdict {
    let session = judge(scene, record);
    let words = session.verdict.words();
    assert_eq!(session.verdict.exit(), 0, "{words}");
    assert_eq!(session.verdict.binding(), binding);
    assert_eq!(session.bound().binding(), binding);
    assert_eq!(session.bound().keyset(), Some(record.keyset.digest()));
    session
}

#[test]
fn a_record_reads_back_and_holds_as_the_connection_did() {
    let scene = Scene::new();
    for record in [record(&scene), pinned(&scene)] {
        let file = record.to_file().unwrap();
        assert_eq!(file.last(), Some(&b'\n'));
        assert_eq!(SessionRecord::parse(&file).unwrap(), record);
    }
    let session = holds(&scene, &record(&scene), Binding::TlsExporter);
    assert_eq!(session.keyset(), Some(&scene.world.keyset));
    assert_eq!(session.bound(), scene.holds().bound());
}

#[test]
fn records_of_another_form_are_malformed() {
    let scene = Scene::new();
    let good = record(&scene).to_file().unwrap();
    let pin = pinned(&scene).to_file().unwrap();
    for file in [&good, &pin] {
        SessionRecord::parse(file).unwrap();
        for short in truncations(file).rev().step_by(7) {
            assert!(SessionRecord::parse(short).is_err());
        }
    }
    let null = || Edit::Replace(serde_json::Value::Null);
    let text = |text: String| Edit::Replace(text.into());
    for (pointer, edit) in [
        ("/exporter", null()),
        ("/evidence", null()),
        ("/exporter", Edit::Delete),
        ("/nonce", null()),
        ("/nonce", text("07".repeat(31))),
        ("/nonce", text("07".repeat(33))),
        ("/nonce", text("0A".repeat(32))),
        ("/exporter", text("09".repeat(31))),
        ("/tls_spki_sha256", text("00".repeat(31))),
        ("/opened_at", text("1790000000".into())),
        ("/opened_at", Edit::Replace((-1).into())),
        ("/v", text("touchstone/session-record/2".into())),
        ("/v", text("touchstone/session/1".into())),
        ("/keyset", Edit::Insert),
        ("/nonce", Edit::Insert),
    ] {
        let file = edit_json(&good, pointer, &edit);
        assert!(SessionRecord::parse(&file).is_err(), "{pointer} {edit:?}");
    }
    // Evidence and exporter, or neither.
    for pointer in ["/exporter", "/evidence"] {
        let file = edit_json(&pin, pointer, &text("09".repeat(32)));
        assert!(SessionRecord::parse(&file).is_err(), "{pointer}");
    }
    for half in [
        SessionRecord {
            exporter: None,
            ..record(&scene)
        },
        SessionRecord {
            evidence: None,
            ..record(&scene)
        },
    ] {
        assert!(SessionRecord::parse(&half.to_file().unwrap()).is_err());
        assert_refused(&judge(&scene, &half), 2, "session.format");
    }
    assert!(SessionRecord::parse(&vec![b' '; (4 << 20) + 1]).is_err());
}

#[test]
fn flipped_bits_of_a_record_say_something_else_or_nothing() {
    let scene = Scene::new();
    let file = record(&scene).to_file().unwrap();
    let mut parsed = 0;
    for_each_bit_flip_of(&file, (0..file.len() * 8).step_by(7), |bit, mutant| {
        let Ok(record) = SessionRecord::parse(mutant) else {
            return;
        };
        parsed += 1;
        assert_eq!(record.to_file().unwrap(), mutant, "bit {bit}");
    });
    assert!(parsed > 1_000, "{parsed}");
}

/// What parses and differs says something else; where that is about the connection, it does not hold.
#[test]
fn every_edit_of_a_record_is_refused() {
    let scene = Scene::new();
    let file = record(&scene).to_file().unwrap();
    holds(&scene, &record(&scene), Binding::TlsExporter);
    let mutants = json_mutants(&file, &["/evidence/collateral"]);
    assert!(mutants.len() > 100, "{}", mutants.len());
    for mutant in mutants {
        let Ok(record) = SessionRecord::parse(&mutant.file) else {
            continue;
        };
        // A second later is as good.
        if mutant.pointer == "/opened_at" {
            continue;
        }
        let verdict = judge(&scene, &record).verdict;
        let (pointer, edit) = (&mutant.pointer, &mutant.edit);
        assert!(matches!(verdict.exit(), 2..=5), "{pointer} {edit:?}");
    }
}

#[test]
fn lies_in_a_record_are_refused() {
    let scene = Scene::new();
    let honest = record(&scene);
    holds(&scene, &honest, Binding::TlsExporter);
    let lie = |change: fn(&mut SessionRecord), exit, deciding| {
        let mut record = honest.clone();
        change(&mut record);
        assert_refused(&judge(&scene, &record), exit, deciding);
    };
    lie(|r| r.nonce[0] ^= 1, 3, "session.nonce");
    lie(|r| r.exporter = Some([0; 32]), 3, "evidence.report_data");
    lie(|r| r.tls_spki_sha256 = Digest::ZERO, 3, "session.tls_key");
    lie(|r| r.keyset.tls_spki_sha256 = None, 3, "session.tls_key");
    lie(
        |r| r.keyset.config = Digest::ZERO,
        3,
        "evidence.report_data",
    );
    lie(
        |r| r.evidence.as_mut().unwrap().collateral = None,
        5,
        "snp.collateral",
    );
    lie(|r| r.opened_at = r.keyset.not_after + 1, 4, "session.clock");
    lie(
        |r| r.opened_at = r.keyset.not_before - 301,
        4,
        "keyset.lifetime",
    );
}

#[test]
fn a_record_is_about_when_the_connection_was_opened() {
    let scene = Scene::new();
    let honest = record(&scene);
    let mut later = scene.clone();
    // Two days on the keyset is dead; it was not then, and the revocation list is still good.
    later.at.time += 2 * 86_400;
    assert!(later.at.time > honest.keyset.not_after);
    later.refused(4, "keyset.lifetime");
    holds(&later, &honest, Binding::TlsExporter);
    let mut dead = honest.clone();
    dead.opened_at = honest.keyset.not_after + 1;
    assert_refused(&judge(&later, &dead), 4, "keyset.lifetime");

    let mut ahead = honest.clone();
    ahead.opened_at = scene.at.time + 300;
    holds(&scene, &ahead, Binding::TlsExporter);
    ahead.opened_at += 1;
    assert_refused(&judge(&scene, &ahead), 4, "session.clock");

    let mut asserted = scene.clone();
    asserted.at = At {
        asserted: true,
        ..scene.at
    };
    assert_refused(&judge(&asserted, &honest), 4, "session.clock");
}

#[test]
fn a_key_that_was_noted_gives_spki_pin_and_proves_no_keyset() {
    let scene = Scene::new();
    let pin = pinned(&scene);
    let session = holds(&scene, &pin, Binding::SpkiPin);
    assert_eq!(session.keyset(), None, "nothing proved it");
    assert_eq!(session.verdict.context.measurement, None);
    let risks = &session.verdict.context.residual_risks;
    assert!(risks.iter().any(|r| r.starts_with("No evidence was kept")));

    let mut other = pin.clone();
    other.tls_spki_sha256 = Digest::of(b"another key");
    assert_refused(&judge(&scene, &other), 3, "session.tls_key");
    let mut none = pin;
    none.keyset.tls_spki_sha256 = None;
    assert_refused(&judge(&scene, &none), 3, "session.tls_key");
}

/// A record is held against what the policy says of answers, not of connections to be made.
#[test]
fn the_policy_says_what_must_have_bound_the_connection_of_an_answer() {
    let scene = Scene::new();
    let (attested, pin) = (record(&scene), pinned(&scene));
    let answers = |value: &str| Scene::new().policy("answers", value);
    let exporter = answers("{ expect = \"tls-exporter\" }");
    holds(&exporter, &attested, Binding::TlsExporter);
    let refused = judge(&exporter, &pin);
    assert_refused(&refused, 4, "session.binding");
    assert_eq!(refused.verdict.binding(), Binding::SpkiPin);
    let either = answers("{ expect = [\"tls-exporter\", \"spki-pin\"] }");
    holds(&either, &attested, Binding::TlsExporter);
    holds(&either, &pin, Binding::SpkiPin);
    let connections = Scene::new().policy("binding", "{ expect = [] }");
    connections.refused(4, "session.binding");
    holds(&connections, &attested, Binding::TlsExporter);
}
