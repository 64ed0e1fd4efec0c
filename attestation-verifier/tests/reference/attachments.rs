//! Manifests that a bundle has with it: they prove themselves, or are of no use.

use attestation_verifier::verdict::Outcome;
use serde_json::json;
use touchstone_testkit::machine::{Machine, TdxMachine};

use crate::support::{Listed, Scene, attached};

/// The bundle has the manifest with it, and the caller gave none.
fn alone<M: Listed>() -> Scene<M> {
    Scene::<M>::new().with(|s| {
        s.given = false;
        s.attachments = vec![attached(&s.manifest())];
    })
}

fn used<M: Listed>() {
    let verdict = alone::<M>().holds();
    assert_eq!(verdict.context.release["release"], "1.4.2");
    let check = verdict.checks.find("attachment.0").unwrap();
    assert_eq!(check.result, Outcome::Pass);
    assert_eq!(
        check.reason,
        "the manifest that this is judged by, version 18"
    );
    // Without it the same bundle is refused.
    let none = alone::<M>().with(|s| s.attachments.clear());
    none.refused(5, "manifest.present");
}

#[test]
fn an_attached_manifest_is_used() {
    used::<Machine>();
    used::<TdxMachine>();
}

#[test]
fn an_attached_manifest_proves_itself() {
    type Lie = fn(&mut Scene<Machine>);
    let lies: &[(&str, u8, &str, Lie)] = &[
        ("no file", 2, "manifest.format", |s| {
            s.attachments = vec![attached(b"{}")]
        }),
        ("no text", 2, "manifest.format", |s| {
            s.attachments =
                vec![json!({ "manifest": 1, "type": "touchstone/manifest/1" }).to_string()]
        }),
        ("a member more", 2, "manifest.format", |s| {
            let text = String::from_utf8(s.manifest()).unwrap();
            s.attachments = vec![
                json!({ "also": 1, "manifest": text, "type": "touchstone/manifest/1" }).to_string(),
            ]
        }),
        ("by a stranger", 3, "manifest.signature", |s| {
            s.signed_by = vec![3];
            s.attachments = vec![attached(&s.manifest())]
        }),
        ("by too few", 4, "manifest.threshold", |s| {
            s.signed_by = vec![0];
            s.attachments = vec![attached(&s.manifest())]
        }),
        ("rolled back", 4, "manifest.version", |s| {
            let mut newer = s.predicate.clone();
            newer["version"] = json!(19);
            s.known = s.accepted(&newer);
        }),
        ("a second one, which is right", 2, "manifest.format", |s| {
            s.attachments.insert(0, attached(b"{}"));
        }),
        ("of another type", 5, "manifest.present", |s| {
            let text = String::from_utf8(s.manifest()).unwrap();
            s.attachments =
                vec![json!({ "manifest": text, "type": "touchstone/manifest/2" }).to_string()]
        }),
    ];
    alone::<Machine>().holds();
    for (name, exit, deciding, lie) in lies {
        let verdict = alone::<Machine>().with(lie).judge();
        let found = (verdict.exit(), verdict.deciding());
        assert_eq!(
            found,
            (*exit, Some(*deciding)),
            "{name}\n{}",
            verdict.words()
        );
    }
}

/// The caller's own counts unless the attached one is newer. One that lies takes nothing from the caller's.
#[test]
fn the_callers_own_prevails() {
    let scene = Scene::<Machine>::new();
    let version = |n: u64, release: &str| {
        let mut other = scene.predicate.clone();
        other["version"] = json!(n);
        other["releases"][0]["release"] = json!(release);
        attached(&scene.signed(&other))
    };
    let with = |attachment: String| {
        let verdict = scene
            .clone()
            .with(|s| s.attachments = vec![attachment])
            .holds();
        let release = verdict.context.release["release"]
            .as_str()
            .unwrap()
            .to_owned();
        let check = verdict.checks.find("attachment.0").unwrap();
        (release, check.result, check.reason.clone())
    };
    let unused = "not used: you gave version 18, and this is not a higher one".to_owned();
    let own = ("1.4.2".to_owned(), Outcome::NotEvaluated, unused);
    assert_eq!(with(version(17, "old")), own);
    assert_eq!(with(attached(&scene.manifest())), own);
    assert_eq!(with(attached(b"junk")), own);
    let stranger = scene.clone().with(|s| s.signed_by = vec![3]).manifest();
    assert_eq!(with(attached(&stranger)), own);
    let (release, result, _) = with(version(19, "new"));
    assert_eq!((release.as_str(), result), ("new", Outcome::Pass));
    // Its signers signed two of one version: neither is believed.
    let scene = scene
        .clone()
        .with(|s| s.attachments = vec![version(18, "other")]);
    scene.refused(4, "manifest.version");
}

/// A policy that asks for no manifest looks at none.
#[test]
fn who_asks_for_none_looks_at_none() {
    let scene = alone::<Machine>();
    let minted = scene.mint().finish();
    let expect = |value: String| format!("{{ expect = {value:?} }}");
    let model = &scene.world.models[0];
    let text = scene.policy_text().replacen(&scene.table(), "", 1);
    let text = touchstone_testkit::policy::edit(
        &text,
        &[
            (
                "snp.measurement",
                &expect(hex::encode(scene.world.machine.report.measurement)),
            ),
            ("models", &expect(model.model_digest.to_string())),
            ("configs", &expect(model.config_digest.to_string())),
        ],
    );
    let policy = attestation_verifier::Policy::parse(&text).unwrap();
    let comparison = crate::support::comparison(&minted);
    let judge = |manifests: &attestation_verifier::Manifests| {
        attestation_verifier::Verifier::new(policy.clone(), scene.roots())
            .with_manifests(manifests)
            .check(&minted.file(), &comparison, scene.at)
    };
    let verdict = judge(&Default::default());
    assert_eq!(verdict.exit(), 0, "{}", verdict.words());
    let json = verdict.to_json();
    assert!(!json.contains("\"manifest."), "{json}");
    assert!(!json.contains("\"release\""), "{json}");
    let check = verdict.checks.find("attachment.0").unwrap();
    assert_eq!(check.reason, "a manifest, and the policy asks for none");
    // Whatever is given.
    let given = attestation_verifier::Manifests {
        files: vec![scene.manifest(), b"junk".to_vec()],
        known: Default::default(),
    };
    assert_eq!(judge(&given), verdict);
    let free = attestation_verifier::check(
        &minted.file(),
        &policy,
        &scene.roots(),
        &comparison,
        scene.at,
    );
    assert_eq!(free, verdict);
}
