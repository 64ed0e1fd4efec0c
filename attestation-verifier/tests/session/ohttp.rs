//! Requests that are sealed to a keyset's key (formats.md §13): the key's evidence before anything is sealed, what is kept of it,
//! and answers that came that way.

use attestation_verifier::ohttp::{ConnectionRecord, OhttpRecord};
use attestation_verifier::{
    Binding, Policy, SessionVerdict, Verifier, check_ohttp, check_ohttp_record, check_session,
};
use serde_json::Value;
use touchstone_formats::report_data::bind_boot;
use touchstone_formats::text::Base64Bytes;
use touchstone_formats::{Digest, Purpose};
use touchstone_testkit::mint::{Exchange, World};
use touchstone_testkit::mutate::{for_each_bit_flip_of, truncations};

use crate::bundles::Case;
use crate::support::{Scene, assert_refused, tls_world};
use crate::warm;

const NONCE: [u8; 32] = [7; 32];
const SEALED: (&str, &str) = ("answers", "{ expect = \"ohttp-key\" }");

fn ohttp_world() -> World {
    let mut world = tls_world();
    world.keyset.ohttp_keys = Some(Base64Bytes(b"application/ohttp-keys".to_vec()));
    world
}

/// The honest scene, whose quote is boot evidence for the caller's nonce and whose policy takes either binding.
fn scene() -> Scene {
    of(ohttp_world())
}

fn of(world: World) -> Scene {
    Scene::of(world)
        .with(|s| {
            s.purpose = Purpose::Boot;
            s.bind = Some(bind_boot());
        })
        .policy("binding", "{ expect = [\"tls-exporter\", \"ohttp-key\"] }")
}

fn judge(scene: &Scene) -> SessionVerdict {
    judge_file(scene, &scene.answer())
}

fn judge_file(scene: &Scene, file: &[u8]) -> SessionVerdict {
    let policy = Policy::parse(&scene.policy_text()).expect("a policy that stands");
    let (collateral, roots) = (scene.collateral.as_ref(), &scene.roots);
    let (at, simulated) = (scene.at, scene.expect_simulated);
    let session = check_ohttp(file, &NONCE, collateral, &policy, roots, at, simulated);
    warm::alike(&session.verdict, &policy, roots, |verifier| {
        let again = verifier.check_ohttp(file, &NONCE, collateral, at, simulated);
        assert_eq!(again, session);
        again.verdict
    });
    session
}

#[track_caller]
fn holds(scene: &Scene) -> SessionVerdict {
    let session = judge(scene);
    let words = session.verdict.words();
    assert_eq!(session.verdict.exit(), 0, "{words}");
    assert_eq!(session.verdict.binding(), Binding::OhttpKey);
    assert_eq!(session.bound().binding(), Binding::OhttpKey);
    assert_eq!(session.bound().keyset(), Some(scene.world.keyset.digest()));
    assert_eq!(session.keyset(), Some(&scene.world.keyset));
    assert!(words.contains("\nbinding: ohttp-key\n"), "{words}");
    session
}

fn record(scene: &Scene) -> OhttpRecord {
    let record = holds(scene).ohttp_record(&NONCE, scene.at.time);
    record.expect("what holds can be kept")
}

#[test]
fn a_key_with_evidence_for_the_callers_nonce_holds() {
    holds(&scene());
    // A policy that says nothing of connections takes what it always took.
    let honest = scene();
    let text = honest.policy_text();
    let (head, rest) = text.split_once("[session]").unwrap();
    let (_, platforms) = rest.split_once("[[platform]]").unwrap();
    let policy = Policy::parse(&format!("{head}[[platform]]{platforms}")).unwrap();
    let collateral = honest.collateral.as_ref();
    let file = honest.answer();
    let session = check_ohttp(
        &file,
        &NONCE,
        collateral,
        &policy,
        &honest.roots,
        honest.at,
        true,
    );
    assert_refused(&session, 4, "session.binding");
    assert_eq!(session.verdict.binding(), Binding::OhttpKey);
}

#[test]
fn lies_about_the_key_are_refused_by_name() {
    type Lie = (&'static str, u8, &'static str, fn(&mut Scene));
    let lies: [Lie; 9] = [
        (
            "the host's own key in the keyset",
            3,
            "evidence.report_data",
            |s| {
                s.answered = |a| a.keyset.ohttp_keys = Some(Base64Bytes(b"the host's".to_vec()));
            },
        ),
        ("a keyset without such a key", 3, "session.ohttp_key", |s| {
            s.world.keyset.ohttp_keys = None;
        }),
        (
            "the key taken out of the keyset",
            3,
            "session.ohttp_key",
            |s| {
                s.answered = |a| a.keyset.ohttp_keys = None;
            },
        ),
        (
            "evidence that was made for another nonce",
            3,
            "session.nonce",
            |s| {
                s.quoted.nonce = [8; 32];
            },
        ),
        (
            "the same under the caller's label",
            3,
            "evidence.report_data",
            |s| {
                s.quoted.nonce = [8; 32];
                s.answered = |a| a.evidence.nonce = Some(NONCE.to_vec());
            },
        ),
        (
            "an enclave's first boot evidence, for nobody",
            3,
            "session.nonce",
            |s| {
                s.answered = |a| a.evidence.nonce = None;
            },
        ),
        ("evidence of a TLS session", 2, "evidence.purpose", |s| {
            s.purpose = Purpose::Session;
        }),
        ("a keyset whose life is over", 4, "keyset.lifetime", |s| {
            s.world.keyset.not_after = s.at.time - 1;
        }),
        ("a bind of something else", 3, "evidence.report_data", |s| {
            s.bind = Some(Digest::ZERO);
        }),
    ];
    for (what, exit, deciding, lie) in lies {
        holds(&scene());
        let session = judge(&scene().with(lie));
        let found = (session.verdict.exit(), session.verdict.deciding());
        assert_eq!(found, (exit, Some(deciding)), "{what}");
        assert_refused(&session, exit, deciding);
        assert_eq!(session.ohttp_record(&NONCE, 0), None, "{what}");
    }
}

/// Boot evidence says nothing of a TLS connection, nor evidence of a session of a key.
#[test]
fn neither_stands_in_for_the_other() {
    let honest = scene();
    let policy = Policy::parse(&honest.policy_text()).unwrap();
    let (collateral, roots) = (honest.collateral.as_ref(), &honest.roots);
    let (file, at) = (honest.answer(), honest.at);
    let session = check_session(&file, &honest.caller, collateral, &policy, roots, at, true);
    assert_refused(&session, 2, "evidence.purpose");
}

#[test]
fn the_policy_says_which_binding_will_do() {
    let exporter = || scene().policy("binding", "{ expect = \"tls-exporter\" }");
    assert_refused(&judge(&exporter()), 4, "session.binding");
    holds(&scene().policy("binding", "{ expect = \"ohttp-key\" }"));
    let tls = Scene::of(ohttp_world()).policy("binding", "{ expect = \"ohttp-key\" }");
    tls.refused(4, "session.binding");
    tls.policy("binding", "{ expect = \"tls-exporter\" }")
        .holds();
}

#[test]
fn no_changed_answer_holds() {
    let honest = scene();
    holds(&honest);
    let policy = Policy::parse(&honest.policy_text()).unwrap();
    let file = honest.answer();
    let (collateral, roots, at) = (honest.collateral.as_ref(), &honest.roots, honest.at);
    let judged = |file: &[u8]| {
        let session = check_ohttp(file, &NONCE, collateral, &policy, roots, at, true);
        session.verdict.exit()
    };
    let length = file.len();
    for_each_bit_flip_of(&file, (0..length).step_by(11), |_, mutant| {
        assert_ne!(judged(mutant), 0);
    });
    for short in truncations(&file).rev().step_by(17) {
        assert_eq!(judged(short), 2);
    }
}

#[test]
fn a_record_reads_back_and_holds_as_the_key_did() {
    let scene = scene();
    let record = record(&scene);
    let file = record.to_file().unwrap();
    assert_eq!(OhttpRecord::parse(&file).unwrap(), record);
    let kept = ConnectionRecord::Ohttp(record.clone());
    assert_eq!(ConnectionRecord::parse(&file).unwrap(), kept);
    for short in truncations(&file).rev().step_by(7) {
        assert!(ConnectionRecord::parse(short).is_err());
    }
    let policy = Policy::parse(&scene.policy_text()).unwrap();
    let judge =
        |record: &OhttpRecord| check_ohttp_record(record, &policy, &scene.roots, scene.at, true);
    let session = judge(&record);
    assert_eq!(session.verdict.exit(), 0, "{}", session.verdict.words());
    assert_eq!(session.bound(), holds(&scene).bound());
    let lie = |change: fn(&mut OhttpRecord), exit, deciding| {
        let mut record = record.clone();
        change(&mut record);
        assert_refused(&judge(&record), exit, deciding);
    };
    lie(
        |r| r.ohttp_keys_sha256 = Digest::ZERO,
        3,
        "session.ohttp_key",
    );
    lie(|r| r.nonce = [9; 32], 3, "session.nonce");
    lie(|r| r.keyset.ohttp_keys = None, 3, "session.ohttp_key");
    lie(
        |r| r.keyset.config = Digest::ZERO,
        3,
        "evidence.report_data",
    );
    lie(|r| r.opened_at += 301, 4, "session.clock");
    lie(
        |r| r.evidence.purpose = Some(Purpose::Session),
        2,
        "evidence.purpose",
    );
    lie(|r| r.evidence.collateral = None, 5, "snp.collateral");
    // A record of a TLS connection is read as one.
    let tls = Scene::of(ohttp_world());
    let tls = tls.holds().record(&tls.caller, tls.at.time).unwrap();
    let file = tls.to_file().unwrap();
    let read = ConnectionRecord::parse(&file).unwrap();
    assert_eq!(read, ConnectionRecord::Tls(tls));
    assert!(OhttpRecord::parse(&file).is_err());
}

#[test]
fn an_answer_that_came_sealed_is_bound() {
    let honest = ohttp_world();
    let answer = |over: World| {
        let minted = honest.mint(Exchange::json(1)).finish();
        let bound = holds(&of(over)).bound();
        Case::new(&honest, minted)
            .caller(|c| c.session = Some(bound))
            .policy(&honest, &[SEALED])
    };
    assert_eq!(answer(ohttp_world()).holds().binding(), Binding::OhttpKey);
    let mut sister = ohttp_world();
    sister.keyset.config = Digest::of(b"other settings");
    let verdict = answer(sister).refused(4, "session.binding");
    assert_eq!(verdict.binding(), Binding::None);
    // Not what this policy asks for.
    let exporter = ("answers", "{ expect = \"tls-exporter\" }");
    answer(ohttp_world())
        .policy(&honest, &[exporter])
        .refused(4, "session.binding");
    // An answer in the open is bound by nothing.
    answer(ohttp_world())
        .caller(|c| c.session = None)
        .refused(4, "session.binding");
}

/// Every member of a kept record, changed, taken out, or beside one that is not known: none is there for nothing.
#[test]
fn every_member_of_a_record_counts() {
    let scene = scene();
    let record = record(&scene);
    let policy = Policy::parse(&scene.policy_text()).unwrap();
    let judge = |file: &[u8]| {
        let Ok(ConnectionRecord::Ohttp(record)) = ConnectionRecord::parse(file) else {
            return None;
        };
        let session = check_ohttp_record(&record, &policy, &scene.roots, scene.at, true);
        Some((session.verdict.exit(), session.bound()))
    };
    let held = holds(&scene).bound();
    let whole: Value = serde_json::from_slice(&record.to_file().unwrap()).unwrap();
    let file = |value: &Value| [value.to_string().as_bytes(), b"\n"].concat();
    assert_eq!(judge(&file(&whole)), Some((0, held)));
    let mut places = Vec::new();
    places_of(&whole, String::new(), &mut places);
    assert!(places.len() >= 28, "{places:?}");
    let mut unnoticed = Vec::new();
    for place in &places {
        for (n, mutant) in mutants_of(&whole, place).into_iter().enumerate() {
            assert_ne!(mutant, whole, "{place}");
            if judge(&file(&mutant)).is_some_and(|(exit, _)| exit == 0) {
                unnoticed.push(format!("{place} {n}"));
            }
        }
    }
    // When he was given it is the caller's own word: a second earlier or later it was alive as well.
    assert_eq!(unnoticed, ["/opened_at 0", "/opened_at 1"]);
}

/// A record of one kind is not read as one of the other, and does for no policy that asks for the other.
#[test]
fn records_of_one_kind_do_not_pass_for_the_other() {
    let sealed = ConnectionRecord::Ohttp(record(&scene()));
    let tls = || Scene::of(ohttp_world());
    let opened = tls().holds().record(&tls().caller, tls().at.time).unwrap();
    let opened = ConnectionRecord::Tls(opened);
    let cases: [(&dyn Fn() -> Scene, _, _, _); 2] = [
        (&scene, &sealed, "ohttp-key", "tls-exporter"),
        (&tls, &opened, "tls-exporter", "ohttp-key"),
    ];
    for (scene, record, own, other) in cases {
        let mut file: Value = serde_json::from_slice(&record.to_file().unwrap()).unwrap();
        let kinds = ["touchstone/ohttp-record/1", "touchstone/session-record/1"];
        let kind = kinds.iter().position(|kind| file["v"] == *kind).unwrap();
        file["v"] = kinds[1 - kind].into();
        assert!(ConnectionRecord::parse(format!("{file}\n").as_bytes()).is_err());
        file["v"] = kinds[kind].into();
        let read = ConnectionRecord::parse(format!("{file}\n").as_bytes());
        assert_eq!(&read.unwrap(), record);

        let judge = |accepted: &str| {
            let scene = scene().policy("answers", format!("{{ expect = \"{accepted}\" }}"));
            let policy = Policy::parse(&scene.policy_text()).unwrap();
            let verifier = Verifier::new(policy, scene.roots.clone());
            verifier.check_connection_record(record, scene.at, true)
        };
        assert_eq!(judge(own).verdict.exit(), 0);
        assert_refused(&judge(other), 4, "session.binding");
    }
}

/// Where the values are, as JSON pointers; objects before what is in them.
fn places_of(value: &Value, place: String, places: &mut Vec<String>) {
    places.push(place.clone());
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                places_of(member, format!("{place}/{name}"), places);
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                places_of(item, format!("{place}/{n}"), places);
            }
        }
        _ => {}
    }
}

/// What a liar can make of the value at this place.
fn mutants_of(whole: &Value, place: &str) -> Vec<Value> {
    let with = |value: Value| {
        let mut mutant = whole.clone();
        *mutant.pointer_mut(place).unwrap() = value;
        mutant
    };
    match whole.pointer(place).unwrap() {
        Value::Object(members) => {
            let mut mutants: Vec<_> = members
                .keys()
                .map(|name| {
                    let mut fewer = members.clone();
                    fewer.remove(name);
                    with(fewer.into())
                })
                .collect();
            let mut more = members.clone();
            more.insert("zzz".into(), 1.into());
            mutants.push(with(more.into()));
            mutants
        }
        Value::Array(items) => {
            let doubled = [&items[..], &items[..]].concat();
            vec![with(doubled.into()), with(Value::Array(Vec::new()))]
        }
        Value::Number(n) => [n.as_u64().unwrap() + 1, n.as_u64().unwrap() - 1]
            .map(|n| with(n.into()))
            .into(),
        Value::String(text) => {
            let chars: Vec<char> = text.chars().collect();
            let at = [0, chars.len() / 2, chars.len().saturating_sub(1)];
            let mut mutants = vec![with("".into()), with(format!("{text}0").into())];
            for at in at.into_iter().filter(|at| *at < chars.len()) {
                let mut other = chars.clone();
                other[at] = if other[at] == '1' { '2' } else { '1' };
                mutants.push(with(other.into_iter().collect::<String>().into()));
            }
            mutants.retain(|mutant| mutant != whole);
            mutants
        }
        Value::Bool(b) => vec![with((!b).into())],
        Value::Null => vec![with(1.into())],
    }
}
