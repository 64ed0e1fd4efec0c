//! No step back, and what a policy demands.

use attestation_verifier::manifest::{Accepted, Authentic, Demand, Refused, Rollback};
use serde_json::json;

use super::support::*;

fn version(version: u64) -> Authentic {
    let mut predicate = predicate();
    predicate["version"] = json!(version);
    authentic(&predicate)
}

#[test]
fn versions_go_up_alone() {
    let mut state = Accepted::default();
    let (old, current, new) = (version(17), version(18), version(19));
    assert_eq!(state.accept(&current), Ok(true));
    assert_eq!(state.version("touchstone-enclave"), Some(18));
    assert_eq!(state.accept(&current), Ok(false), "nothing new");
    assert!(matches!(
        state.check(&old),
        Err(Rollback::Older {
            found: 17,
            accepted: 18,
            ..
        })
    ));
    assert_eq!(state.accept(&old), Ok(false));
    assert_eq!(state.version("touchstone-enclave"), Some(18), "unchanged");
    assert_eq!(state.check(&new), Ok(()));
    assert_eq!(state.accept(&new), Ok(true));
    assert!(matches!(state.check(&current), Err(Rollback::Older { .. })));
    // Another manifest has versions of its own.
    let mut other = predicate();
    other["name"] = json!("another");
    other["version"] = json!(1);
    assert_eq!(state.accept(&authentic(&other)), Ok(true));
    let file = state.to_file().unwrap();
    assert_eq!(Accepted::parse(&file), Ok(state));
}

#[test]
fn two_memories_are_the_higher_of_both() {
    let of = |seen: &Authentic| {
        let mut state = Accepted::default();
        state.accept(seen).unwrap();
        state
    };
    let (old, current) = (of(&version(17)), of(&version(18)));
    let mut state = old.clone();
    assert_eq!(state.merge(&current), Ok(true));
    assert_eq!(state, current);
    assert_eq!(state.merge(&old), Ok(false));
    assert_eq!(state.merge(&Accepted::default()), Ok(false));
    // Of one version the one that was there stays: the other is refused.
    let mut second = predicate();
    second["models"] = json!([]);
    assert_eq!(state.merge(&of(&authentic(&second))), Ok(false));
    assert_eq!(state, current);
    let mut other = predicate();
    other["name"] = json!("another");
    assert_eq!(state.merge(&of(&authentic(&other))), Ok(true));
    assert_eq!(state.version("another"), Some(18));
    assert_eq!(state.version("touchstone-enclave"), Some(18));
    let file = state.to_file().unwrap();
    assert_eq!(Accepted::parse(&file), Ok(state));
}

#[test]
fn of_one_version_there_is_one_manifest() {
    let mut state = Accepted::default();
    state.accept(&version(18)).unwrap();
    assert_eq!(
        state.check(&version(18)),
        Ok(()),
        "signed by another, but the same"
    );
    let mut other = predicate();
    other["models"] = json!([]);
    assert!(matches!(
        state.check(&authentic(&other)),
        Err(Rollback::Other { version: 18, .. })
    ));
}

#[test]
fn a_damaged_state_is_none() {
    let mut state = Accepted::default();
    state.accept(&version(18)).unwrap();
    let file = state.to_file().unwrap();
    assert!(Accepted::parse(&file).is_ok());
    for length in 0..file.len() {
        assert!(Accepted::parse(&file[..length]).is_err(), "{length}");
    }
    let text = String::from_utf8(file).unwrap();
    for (from, to) in [
        ("manifest-state/1", "manifest-state/2"),
        ("\"version\":18", "\"version\":0"),
        ("\"version\":18", "\"version\":18,\"x\":1"),
        ("touchstone-enclave", ""),
        ("{\"manifests\"", "{ \"manifests\""),
    ] {
        let damaged = text.replace(from, to);
        assert_ne!(damaged, text);
        assert!(Accepted::parse(damaged.as_bytes()).is_err(), "{damaged}");
    }
    let entry = text.split('[').nth(1).unwrap().split(']').next().unwrap();
    let twice = text.replace(entry, &format!("{entry},{entry}"));
    assert!(Accepted::parse(twice.as_bytes()).is_err());
}

#[test]
fn a_policy_names_manifest_signers_and_threshold() {
    let (a, b) = (key(), key());
    let (a, b) = (a.public.to_pem(), b.public.to_pem());
    let signer = |name: &str, key: &str| {
        format!("[[manifest.signer]]\nname = \"{name}\"\nkey = \"\"\"{key}\"\"\"\n")
    };
    let head = "[manifest]\nname = \"touchstone-enclave\"\nminimum_version = 18\nthreshold = 2\n";
    let two = signer("alice", &a) + &signer("bob", &b);
    let whole = format!("{head}{two}");
    let demand = Demand::from_policy(&whole).unwrap();
    assert_eq!(demand.signers.keys().len(), 2);
    assert_eq!(demand.refuses(version(18).manifest()), []);
    let minimum = 18;
    assert_eq!(
        demand.refuses(version(17).manifest()),
        [Refused::Version { found: 17, minimum }]
    );
    let mut other = predicate();
    other["name"] = json!("another");
    let refused = demand.refuses(authentic(&other).manifest());
    assert_eq!(
        refused.iter().map(Refused::id).collect::<Vec<_>>(),
        ["manifest.name"]
    );
    for (policy, says) in [
        (String::new(), "manifest is missing"),
        ("manifest = 1".into(), "a table"),
        ("[manifest".into(), "not TOML"),
        (head.to_owned(), "manifest.signer is missing"),
        (
            whole.replace("threshold = 2", "threshold = 0"),
            "expected 1 to 2",
        ),
        (
            whole.replace("threshold = 2", "threshold = 3"),
            "expected 1 to 2",
        ),
        (whole.replace("threshold = 2", "threshold = -1"), "a number"),
        (
            whole.replace("threshold = 2\n", ""),
            "manifest.threshold is missing",
        ),
        (
            whole.replace("minimum_version = 18\n", ""),
            "minimum_version is missing",
        ),
        (
            whole.replace("minimum_version = 18", "minimum_version = \"18\""),
            "a number",
        ),
        (
            whole.replace("\"touchstone-enclave\"", "\"\""),
            "manifest.name",
        ),
        (
            whole.replace(head, &format!("{head}extra = 1\n")),
            "not a key",
        ),
        (whole.replace("\"bob\"", "\"alice\""), "named twice"),
        (
            format!("{head}{}{}", signer("alice", &a), signer("bob", &a)),
            "the same key",
        ),
        (whole.replace("\"bob\"", "\"bob\"\nextra = 1"), "not a key"),
        (whole.replace("BEGIN PUBLIC", "BEGIN EC"), "PEM"),
    ] {
        let error = Demand::from_policy(&policy).expect_err(says).to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
}
