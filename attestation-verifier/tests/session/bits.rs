//! Lies that are not signed again: truncations, flipped bits and edits of the answer.

use attestation_verifier::Policy;
use touchstone_testkit::mutate::{for_each_bit_flip_of, json_mutants, truncations};

use crate::support::Scene;

#[test]
fn every_truncation_of_an_answer_is_malformed() {
    let scene = Scene::new();
    scene.holds();
    let policy = Policy::parse(&scene.policy_text()).unwrap();
    let file = scene.answer();
    for short in truncations(&file) {
        let verdict = scene.judge_by(&policy, short).verdict;
        let found = (verdict.exit(), verdict.deciding());
        assert_eq!(found, (2, Some("session.format")), "{} bytes", short.len());
    }
    for (add, len) in [(b'\n', 1), (b' ', 5 << 20)] {
        let mut long = file.clone();
        long.extend(std::iter::repeat_n(add, len));
        let verdict = scene.judge_by(&policy, &long).verdict;
        assert_eq!(verdict.deciding(), Some("session.format"));
    }
}

#[test]
fn flipped_bits_of_an_answer_are_refused() {
    let scene = Scene::new();
    scene.holds();
    let policy = Policy::parse(&scene.policy_text()).unwrap();
    let file = scene.answer();
    let (mut flips, mut malformed) = (0, 0);
    for_each_bit_flip_of(&file, (0..file.len() * 8).step_by(5), |bit, mutant| {
        let session = scene.judge_by(&policy, mutant);
        let verdict = &session.verdict;
        assert!(
            matches!(verdict.exit(), 2..=5),
            "bit {bit}: {}",
            verdict.words()
        );
        assert_eq!(session.keyset(), None);
        flips += 1;
        malformed += usize::from(verdict.deciding() == Some("session.format"));
    });
    assert!(flips > 3_000, "{flips}");
    // Neither form alone nor signatures alone refuse them all.
    assert!(
        malformed > 100 && malformed < flips - 100,
        "{malformed} of {flips}"
    );
}

#[test]
fn every_edit_of_the_json_is_refused() {
    let scene = Scene::new();
    scene.holds();
    let policy = Policy::parse(&scene.policy_text()).unwrap();
    let mutants = json_mutants(&scene.answer(), &[]);
    assert!(mutants.len() > 100, "{}", mutants.len());
    for mutant in mutants {
        let verdict = scene.judge_by(&policy, &mutant.file).verdict;
        let (pointer, edit) = (&mutant.pointer, &mutant.edit);
        assert!(matches!(verdict.exit(), 2..=5), "{pointer} {edit:?}");
    }
}
