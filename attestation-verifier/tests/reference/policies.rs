//! Policies that expect what a manifest lists: which stand, how they compare, and the least that they accept.

use attestation_verifier::policy::{Level, Relation, diff, lint};
use attestation_verifier::{Policy, Verifier};
use touchstone_testkit::machine::{Machine, TdxMachine};
use touchstone_testkit::mint::World;

use crate::support::{Listed, Scene};

#[test]
fn a_policy_and_its_table_belong_together() {
    fn both<M: Listed>() {
        let scene = Scene::<M>::new();
        let (text, table) = (scene.policy_text(), scene.table());
        let error = |text: &str| Policy::parse(text).unwrap_err().to_string();
        assert!(Policy::parse(&text).is_ok());
        let without = error(&text.replacen(&table, "", 1));
        assert!(
            without.contains("answer.models expects \"manifest\", and there is no [manifest]"),
            "{without}"
        );
        let mut waived: Vec<(&str, &str)> = M::KEYS
            .iter()
            .map(|key| (*key, "{ waive = \"any software\" }"))
            .collect();
        let any = "{ waive = \"any\" }";
        waived.extend([("models", any), ("configs", any)]);
        let unused = error(&touchstone_testkit::policy::edit(&text, &waived));
        assert!(unused.contains("nothing expects \"manifest\""), "{unused}");
        // One of them is enough for each other.
        for kept in waived
            .iter()
            .map(|(key, _)| *key)
            .filter(|key| !M::KEYS.contains(key))
        {
            let rest: Vec<(&str, &str)> = waived
                .iter()
                .copied()
                .filter(|(key, _)| *key != kept)
                .collect();
            let text = touchstone_testkit::policy::edit(&text, &rest);
            assert!(Policy::parse(&text).is_ok(), "{kept}");
            assert!(
                Policy::parse(&text.replacen(&table, "", 1)).is_err(),
                "{kept}"
            );
        }
        for (from, to, says) in [
            ("threshold = 2", "threshold = 0", "threshold 0"),
            ("threshold = 2", "threshold = 4", "threshold 4"),
            ("name = \"bob\"", "name = \"alice\"", "named twice"),
            (
                "minimum_version = 12\n",
                "",
                "manifest.minimum_version is missing",
            ),
            (
                "threshold = 2",
                "threshold = 2\nlog = 1",
                "\"log\" is not a key",
            ),
        ] {
            assert!(text.contains(from));
            let error = error(&text.replacen(from, to, 1));
            assert!(error.contains(says), "{error}");
        }
        let keys: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("key = "))
            .collect();
        let twice = error(&text.replacen(keys[1], keys[0], 1));
        assert!(twice.contains("have the same key"), "{twice}");
        let scalar = format!("manifest = 1\n{}", text.replacen(&table, "", 1));
        assert!(error(&scalar).contains("manifest is 1; expected a table"));
    }
    both::<Machine>();
    both::<TdxMachine>();
}

#[test]
fn only_what_a_manifest_lists_can_be_expected_of_it() {
    let text = Scene::<Machine>::new().policy_text();
    let edit = |text: &str, key, value| touchstone_testkit::policy::edit(text, &[(key, value)]);
    let manifest = "{ expect = \"manifest\" }";
    for key in [
        "snp.host_data",
        "snp.chip_id",
        "snp.product",
        "snp.policy.debug",
        "nonce",
    ] {
        assert!(Policy::parse(&edit(&text, key, manifest)).is_err(), "{key}");
    }
    let listed = edit(&text, "snp.measurement", "{ expect = [\"manifest\"] }");
    assert!(Policy::parse(&listed).is_err());
    let text = Scene::<TdxMachine>::new().policy_text();
    for key in ["tdx.rtmr3", "tdx.mr_owner", "tdx.module.measurement"] {
        assert!(Policy::parse(&edit(&text, key, manifest)).is_err(), "{key}");
    }
    // All of a measurement, or nothing of it.
    for key in TdxMachine::KEYS {
        for other in ["{ expect = [] }", "{ waive = \"any\" }"] {
            let error = Policy::parse(&edit(&text, key, other))
                .unwrap_err()
                .to_string();
            assert!(error.contains(key), "{error}");
            assert!(
                error.contains("a measurement is matched as a whole"),
                "{error}"
            );
        }
    }
}

/// What is not left to the manifest is judged as ever, with a manifest or without.
#[test]
fn a_policy_may_leave_the_models_alone_to_a_manifest() {
    let scene = Scene::<Machine>::new();
    let own = format!(
        "{{ expect = {:?} }}",
        hex::encode(scene.world.machine.report.measurement)
    );
    let scene = scene.with(|s| {
        s.changes.push(("snp.measurement", own));
        s.predicate["releases"] = serde_json::json!([]);
    });
    let verdict = scene.holds();
    assert_eq!(verdict.context.release["release"], serde_json::Value::Null);
    assert_eq!(verdict.context.release["manifest"], "touchstone-enclave");
    assert!(verdict.checks.find("manifest.platform").is_none());
    let words = verdict.words();
    let line =
        "software: manifest touchstone-enclave (signed by 2 of 3), model digits-model version 1\n";
    assert!(words.contains(line), "{words}");
    scene
        .clone()
        .with(|s| s.given = false)
        .refused(5, "manifest.present");
    let models = serde_json::json!([]);
    scene
        .with(|s| s.predicate["models"] = models)
        .refused(4, "receipt.model");
}

fn scene(change: impl FnOnce(&mut Scene<Machine>)) -> Policy {
    Scene::<Machine>::new().with(change).policy()
}

#[test]
fn policies_compare_by_whose_signatures_are_enough() {
    let two_of_three = Scene::<Machine>::new().policy_text();
    let carol = two_of_three
        .find("[[manifest.signer]]\nname = \"carol\"")
        .unwrap();
    let end = two_of_three.find("\n[[platform]]").unwrap();
    let two_of_two = format!("{}{}", &two_of_three[..carol], &two_of_three[end..]);
    let renamed = two_of_three.replacen("\"carol\"", "\"dora\"", 1);
    let changed = |from: &str, to: &str| two_of_three.replacen(from, to, 1);
    use Relation::{Incomparable, Looser, Same, Stricter};
    for (other, key, relation) in [
        (two_of_two.clone(), "manifest.signer", Stricter),
        (
            changed("threshold = 2", "threshold = 1"),
            "manifest.signer",
            Looser,
        ),
        (
            changed("threshold = 2", "threshold = 3"),
            "manifest.signer",
            Stricter,
        ),
        (renamed, "manifest.signer", Same),
        (
            changed("minimum_version = 12", "minimum_version = 11"),
            "manifest.minimum_version",
            Looser,
        ),
        (
            changed("minimum_version = 12", "minimum_version = 13"),
            "manifest.minimum_version",
            Stricter,
        ),
        (
            changed("touchstone-enclave", "toy"),
            "manifest.name",
            Incomparable,
        ),
    ] {
        let (a, b) = (
            Policy::parse(&two_of_three).unwrap(),
            Policy::parse(&other).unwrap(),
        );
        let found = diff(&a, &b, World::AT);
        let keys: Vec<&str> = found.differences.iter().map(|d| d.key.as_str()).collect();
        assert_eq!((found.relation, keys), (relation, vec![key]));
        let back = match relation {
            Stricter => Looser,
            Looser => Stricter,
            other => other,
        };
        assert_eq!(diff(&b, &a, World::AT).relation, back, "{key}");
        assert_eq!(diff(&a, &a, World::AT).relation, Same);
    }
    // A key added: whoever has it and one other is enough now.
    let (a, b) = (
        Policy::parse(&two_of_two).unwrap(),
        Policy::parse(&two_of_three).unwrap(),
    );
    let found = diff(&a, &b, World::AT);
    assert_eq!(found.relation, Looser);
    let row = &found.differences[0];
    assert_eq!(
        (row.before.as_str(), row.after.as_str()),
        ("2 of 2: alice and bob", "2 of 3: alice, bob and carol")
    );
    assert_eq!(row.change.as_deref(), Some("also counts carol"));
    // A list and a manifest: neither is within the other.
    let listed = scene(|s| {
        s.changes.push((
            "snp.measurement",
            "{ expect = [\"".to_owned() + &"ab".repeat(48) + "\"] }",
        ))
    });
    let found = diff(&listed, &b, World::AT);
    assert_eq!(found.relation, Incomparable);
    assert_eq!(found.differences[0].after, "whatever a manifest lists");
}

#[test]
fn lint_says_whose_word_is_taken() {
    let words = |policy: &Policy| {
        let found = lint(policy, World::AT);
        assert!(found.fit());
        let software = found
            .weakest
            .iter()
            .flat_map(|w| &w.accepts)
            .find(|a| a.aspect == "software");
        let signed: Vec<String> = found
            .findings
            .iter()
            .filter(|f| f.key.starts_with("manifest."))
            .map(|f| format!("{:?} {}", f.level, f.key))
            .collect();
        (software.unwrap().words.clone(), signed)
    };
    let (software, found) = words(&scene(|_| {}));
    assert_eq!(software, "whatever 2 of alice, bob and carol sign");
    assert_eq!(found, Vec::<String>::new());
    let (software, _) = words(&scene(|s| s.threshold = 3));
    assert_eq!(software, "whatever alice, bob and carol sign");
    let (software, found) = words(&scene(|s| (s.threshold, s.minimum_version) = (1, 1)));
    assert_eq!(software, "whatever 1 of alice, bob and carol signs");
    let [weak, note] = [Level::Weak, Level::Note];
    let expected = [
        format!("{weak:?} manifest.signer"),
        format!("{note:?} manifest.minimum_version"),
    ];
    assert_eq!(found, expected);
}

/// Who judges without a verifier gives no manifest, and is refused.
#[test]
fn without_a_manifest_nothing_stands_in_for_it() {
    let scene = Scene::<TdxMachine>::new();
    let minted = scene.mint().finish();
    let comparison = crate::support::comparison(&minted);
    let (policy, roots) = (scene.policy(), scene.roots());
    let verdict =
        attestation_verifier::check(&minted.file(), &policy, &roots, &comparison, scene.at);
    assert_eq!(
        verdict.deciding(),
        Some("manifest.present"),
        "{}",
        verdict.words()
    );
    let bare = Verifier::new(policy, roots).check(&minted.file(), &comparison, scene.at);
    assert_eq!(bare, verdict);
    for key in
        TdxMachine::KEYS
            .iter()
            .chain(&["manifest.platform", "manifest.tcb", "receipt.model"])
    {
        let check = verdict.checks.find(key).unwrap();
        assert!(check.refuses(), "{key}");
        assert!(
            check.reason.contains("no manifest"),
            "{key}: {}",
            check.reason
        );
    }
}
