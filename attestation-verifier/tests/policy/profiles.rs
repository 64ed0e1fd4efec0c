//! Profiles: whole policies, each of them what it says.

use attestation_verifier::Policy;
use attestation_verifier::policy::{
    EXPLORE_DAYS, Profile, Relation, check_ids, diff, lint, template,
};
use touchstone_formats::evidence::Tee;

use crate::{AT, TEES, parse};

#[test]
fn every_profile_stands_with_every_check_named() {
    for tee in TEES {
        for profile in Profile::ALL {
            let text = profile.text(tee, AT);
            let policy = parse(&text);
            assert_eq!(policy.profile, profile.versioned());
            assert_eq!(Profile::from_versioned(&policy.profile), Some(profile));
            assert_eq!(policy.platforms.len(), 1);
            assert_eq!(policy.platforms[0].rules().len(), check_ids(tee).len());
            for line in text.lines().filter(|line| line.starts_with('#')) {
                assert!(line.chars().count() <= 112, "{line}");
            }
        }
    }
    assert_eq!(Profile::from_versioned("serve/2"), None);
}

#[test]
fn profiles_are_as_strict_as_they_say() {
    for tee in TEES {
        let strict = parse(&template(tee));
        for (profile, expected) in [
            (Profile::Explore, Relation::Looser),
            (Profile::Audit, Relation::Looser),
            (Profile::Serve, Relation::Stricter),
            (Profile::Trade, Relation::Stricter),
        ] {
            let policy = parse(&profile.text(tee, AT));
            assert_eq!(
                diff(&strict, &policy, AT).relation,
                expected,
                "{profile:?} {tee}"
            );
        }
        let of = |profile: Profile| parse(&profile.text(tee, AT));
        assert_eq!(
            diff(&of(Profile::Serve), &of(Profile::Trade), AT).relation,
            Relation::Stricter
        );
    }
}

/// Reference values are the author's to fill in: what the template leaves open stays open in every profile, or is waived aloud.
#[test]
fn no_profile_brings_a_reference_value() {
    for tee in TEES {
        let open = |policy: &Policy| lint(policy, AT).accepts_none;
        let template = open(&parse(&template(tee)));
        assert!(template.len() >= 2, "{template:?}");
        for profile in [Profile::Serve, Profile::Audit, Profile::Trade] {
            let own = open(&parse(&profile.text(tee, AT)));
            assert!(
                template.iter().all(|key| own.contains(key)),
                "{profile:?}: {own:?}"
            );
        }
        let explore = parse(&Profile::Explore.text(tee, AT));
        assert_eq!(open(&explore), [""; 0]);
    }
}

#[test]
fn what_explore_waives_ends_by_itself() {
    for tee in TEES {
        let text = Profile::Explore.text(tee, AT);
        let policy = parse(&text);
        let ended = |days: u64| {
            let found = lint(&policy, AT + days * 86_400);
            let ended = found.waived.iter().filter(|w| w.ended).count();
            (ended, found.fit())
        };
        assert_eq!(ended(EXPLORE_DAYS), (0, false));
        let (after, fit) = ended(EXPLORE_DAYS + 1);
        assert!(after >= 3 && fit, "{after} ended");
        // The others are the same whenever they are written.
        for profile in [Profile::Serve, Profile::Audit, Profile::Trade] {
            assert_eq!(profile.text(tee, 0), profile.text(tee, AT));
        }
    }
    // A time at the end of the calendar is no reason to panic.
    parse(&Profile::Explore.text(Tee::SevSnp, u64::MAX));
}
