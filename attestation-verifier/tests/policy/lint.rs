//! Lint: what accepts anything is refused, what is weak is said, and nothing else.

use attestation_verifier::policy::{Level, Lint, Profile, lint, template};
use touchstone_formats::evidence::Tee;
use touchstone_testkit::policy::edit;

use crate::{AT, TEES, keys, parse};

fn linted(text: &str) -> Lint {
    lint(&parse(text), AT)
}

/// Keys with a finding of this level.
fn keys_at(found: &Lint, level: Level) -> Vec<&str> {
    let findings = found.findings.iter().filter(|f| f.level == level);
    findings.map(|f| f.key.as_str()).collect()
}

#[test]
fn the_template_is_fit_and_has_no_weakness() {
    for tee in TEES {
        let found = linted(&template(tee));
        assert!(found.fit());
        assert_eq!(keys_at(&found, Level::Weak), [""; 0], "{tee}");
        assert_eq!(found.not_protected.len(), 3);
        assert_eq!(found.weakest.len(), 3);
        for part in &found.weakest {
            assert!(part.accepts.iter().all(|a| !a.words.is_empty()), "{part:?}");
        }
    }
}

/// Whatever is waived, the finding is about that rule and no other, and no rule that says which software
/// runs or whether the host may look in can be waived unrefused.
#[test]
fn waivers_are_told_one_by_one() {
    for (tee, refused) in [
        (
            Tee::SevSnp,
            &[
                "snp.measurement",
                "snp.policy.debug",
                "snp.vmpl",
                "snp.tcb.reported",
            ][..],
        ),
        (
            Tee::Tdx,
            &[
                "tdx.mrtd",
                "tdx.rtmr1",
                "tdx.rtmr2",
                "tdx.attributes.debug",
                "tdx.tcb.status",
            ],
        ),
    ] {
        let text = template(tee);
        let before = linted(&text);
        for key in keys(&text) {
            let waived = edit(
                &text,
                &[(&key, "{ waive = \"a test\", until = \"2030-01-01\" }")],
            );
            let found = linted(&waived);
            let heavy: Vec<&str> = keys_at(&found, Level::Refuse);
            let expected = refused.contains(&key.as_str()) || key == "models";
            assert_eq!(!found.fit(), expected, "{key}");
            assert!(
                heavy.iter().all(|k| k.ends_with(&key)) && heavy.len() < 2,
                "{key}: {heavy:?}"
            );
            let weak = keys_at(&found, Level::Weak);
            assert!(weak.iter().all(|k| k.ends_with(&key)), "{key}: {weak:?}");
            let listed = found.waived.iter().find(|w| w.key.ends_with(&key));
            let listed = listed.unwrap_or_else(|| panic!("{key} is not listed"));
            assert_eq!(
                (
                    listed.reason.as_str(),
                    listed.until.as_deref(),
                    listed.ended
                ),
                ("a test", Some("2030-01-01"), false)
            );
            assert_eq!(found.not_protected.len(), 3, "{key}");
            if expected {
                // The worst gap comes first among what is not protected.
                assert_ne!(found.not_protected[0], before.not_protected[0], "{key}");
            }
        }
    }
}

#[test]
fn a_platform_with_everything_waived_is_refused_as_such() {
    for tee in TEES {
        let text = template(tee);
        let at = text.find("[platform.checks]").unwrap();
        let platform: String = text[at..]
            .lines()
            .map(|line| match line.split_once(" = { ") {
                Some((key, _)) if !line.starts_with('#') => {
                    format!("{key} = {{ waive = \"all\", until = \"2030-01-01\" }}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        let found = linted(&format!("{}{platform}", &text[..at]));
        assert!(!found.fit());
        assert!(
            keys_at(&found, Level::Refuse).contains(&"platform[1]"),
            "{tee}"
        );
    }
}

#[test]
fn weak_values_are_told() {
    for (tee, key, value, level) in [
        (
            Tee::SevSnp,
            "snp.product",
            "{ expect = [\"Milan\", \"Genoa\"] }",
            Level::Weak,
        ),
        (Tee::SevSnp, "snp.vmpl", "{ expect = [0, 1] }", Level::Weak),
        (
            Tee::SevSnp,
            "snp.vmpl",
            "{ expect = 4294967295 }",
            Level::Refuse,
        ),
        (
            Tee::SevSnp,
            "snp.signing_key",
            "{ expect = [\"vcek\", \"vlek\"] }",
            Level::Weak,
        ),
        (
            Tee::SevSnp,
            "snp.policy.migrate_ma",
            "{ expect = true }",
            Level::Weak,
        ),
        (
            Tee::SevSnp,
            "binding",
            "{ expect = [\"none\", \"tls-exporter\"] }",
            Level::Weak,
        ),
        (
            Tee::SevSnp,
            "keyset_span_seconds",
            "{ expect = 2592001 }",
            Level::Weak,
        ),
        (
            Tee::SevSnp,
            "collateral_age_seconds",
            "{ expect = 7776001 }",
            Level::Weak,
        ),
        (Tee::SevSnp, "require", "\"signed\"", Level::Weak),
        (
            Tee::Tdx,
            "tdx.tcb.status",
            "{ expect = [\"UpToDate\", \"OutOfDate\"] }",
            Level::Weak,
        ),
        (
            Tee::Tdx,
            "tdx.attributes.debug",
            "{ expect = true }",
            Level::Refuse,
        ),
        (
            Tee::Tdx,
            "tdx.attributes.sept_ve_disable",
            "{ expect = false }",
            Level::Weak,
        ),
        (
            Tee::Tdx,
            "tdx.tcb.evaluation_number",
            "{ expect = 0 }",
            Level::Weak,
        ),
        (
            Tee::Tdx,
            "tdx.module.attributes",
            "{ expect = \"0100000000000000\" }",
            Level::Weak,
        ),
        (
            Tee::Tdx,
            "tdx.rtmr1",
            &format!("{{ expect = {:?} }}", "0".repeat(96)),
            Level::Weak,
        ),
    ] {
        let text = template(tee);
        let told = |text: &str| {
            let found = linted(text);
            found
                .findings
                .iter()
                .any(|f| f.key.ends_with(key) && f.level == level)
        };
        assert!(told(&edit(&text, &[(key, value)])), "{key} = {value}");
        assert!(!told(&text), "{key}: the twin");
    }
}

/// What expects something and asks for nothing, or nearly: each beside a twin that asks for a little more.
#[test]
fn disguises_are_told() {
    let floors = |snp: u8, microcode: u8| {
        format!(
            "{{ expect = {{ Milan = {{ bootloader = 9, tee = 9, snp = 0, microcode = 0 }}, \
             Genoa = {{ bootloader = 9, tee = 9, snp = {snp}, microcode = {microcode} }} }} }}"
        )
    };
    let genoa = ("snp.product", "{ expect = \"Genoa\" }");
    let (any_microcode, old_microcode, old_snp, good) = (
        floors(23, 0),
        floors(23, 83),
        floors(22, 84),
        floors(23, 84),
    );
    let late = (
        "tdx.tcb.status",
        "{ expect = [\"UpToDate\", \"OutOfDate\"] }",
    );
    let vlek = ("snp.signing_key", "{ expect = \"vlek\" }");
    let unpinned = ("tdx.rtmr3", "{ waive = \"a test\" }");
    let ones = "f".repeat(64);
    let agent = format!("{{ expect = [{ones:?}, {:?}] }}", "a".repeat(64));
    let no_agent = format!("{{ expect = [{ones:?}] }}");
    let zero = format!("{{ expect = {:?} }}", "0".repeat(96));
    let some = format!("{{ expect = {:?} }}", "1".repeat(96));
    // AT is the 28th of May 2026.
    for (tee, given, key, disguise, twin, level) in [
        (
            Tee::SevSnp,
            genoa,
            "snp.tcb.reported",
            &*any_microcode,
            &*good,
            Level::Refuse,
        ),
        (
            Tee::SevSnp,
            genoa,
            "snp.tcb.reported",
            &old_microcode,
            &good,
            Level::Weak,
        ),
        (
            Tee::SevSnp,
            genoa,
            "snp.tcb.committed",
            &old_snp,
            &good,
            Level::Weak,
        ),
        (
            Tee::SevSnp,
            genoa,
            "snp.tcb.launch",
            &old_microcode,
            &good,
            Level::Weak,
        ),
        (
            Tee::SevSnp,
            genoa,
            "snp.report_id_ma",
            &agent,
            &no_agent,
            Level::Weak,
        ),
        (
            Tee::SevSnp,
            vlek,
            "snp.vlek.csp",
            "{ waive = \"a test\" }",
            "{ expect = \"AWS\" }",
            Level::Weak,
        ),
        (
            Tee::SevSnp,
            genoa,
            "snp.mitigation.launch",
            "{ expect = \"0x0\" }",
            "{ expect = \"0x1\" }",
            Level::Note,
        ),
        (
            Tee::SevSnp,
            genoa,
            "snp.family_id",
            "{ waive = \"a test\", until = \"2999-12-31\" }",
            "{ waive = \"a test\", until = \"2028-05-01\" }",
            Level::Note,
        ),
        (
            Tee::Tdx,
            late,
            "tdx.tcb.grace",
            "{ expect = \"2026-12-31\" }",
            "{ expect = \"2026-07-31\" }",
            Level::Weak,
        ),
        (
            Tee::Tdx,
            late,
            "tdx.tcb.grace",
            "{ waive = \"a test\", until = \"2026-12-31\" }",
            "{ waive = \"a test\", until = \"2026-07-31\" }",
            Level::Weak,
        ),
        (
            Tee::Tdx,
            late,
            "tdx.tcb.evaluation_number",
            "{ expect = 16 }",
            "{ expect = 17 }",
            Level::Weak,
        ),
        (Tee::Tdx, late, "tdx.rtmr2", &zero, &some, Level::Weak),
        (
            Tee::Tdx,
            unpinned,
            "tdx.rtmr3.events",
            "{ expect = [\"app-id=*\", \"compose-hash=*\"] }",
            "{ expect = [\"app-id=*\", \"compose-hash=00\"] }",
            Level::Refuse,
        ),
    ] {
        let told = |value: &str| {
            let found = linted(&edit(&template(tee), &[given, (key, value)]));
            let mut findings = found.findings.iter();
            findings.any(|f| f.key.ends_with(key) && f.level == level)
        };
        assert!(told(disguise), "{key} = {disguise}");
        assert!(!told(twin), "{key} = {twin}: the twin");
    }
    // A grace is nobody's where nothing out of date is accepted; a provider's name where no VLEK is.
    for (tee, key, value) in [
        (Tee::Tdx, "tdx.tcb.grace", "{ expect = \"2999-12-31\" }"),
        (Tee::SevSnp, "snp.vlek.csp", "{ waive = \"a test\" }"),
    ] {
        let found = linted(&edit(&template(tee), &[(key, value)]));
        assert_eq!(keys_at(&found, Level::Weak), [""; 0], "{key}");
    }
}

/// RTMR3 by its value or by its events: one of the two will do.
#[test]
fn what_is_started_later_has_to_be_known_one_way() {
    let waive = "{ waive = \"a test\" }";
    let fit = |changes: &[(&str, &str)]| linted(&edit(&template(Tee::Tdx), changes)).fit();
    assert!(fit(&[("tdx.rtmr3", waive)]));
    assert!(fit(&[("tdx.rtmr3.events", waive)]));
    assert!(!fit(&[("tdx.rtmr3", waive), ("tdx.rtmr3.events", waive)]));
}

#[test]
fn a_policy_is_held_to_the_profile_it_names() {
    for tee in TEES {
        let text = Profile::Serve.text(tee, AT);
        assert_eq!(keys_at(&linted(&text), Level::Weak), [""; 0]);
        let weaker = edit(&text, &[("fresh_seconds", "{ expect = 7200 }")]);
        assert_eq!(
            keys_at(&linted(&weaker), Level::Weak),
            ["answer.fresh_seconds"]
        );
        let stricter = edit(&text, &[("fresh_seconds", "{ expect = 60 }")]);
        assert_eq!(keys_at(&linted(&stricter), Level::Weak), [""; 0]);
        // What it leaves to fill in may be filled in.
        let model = format!("{{ expect = {:?} }}", "ab".repeat(32));
        let filled = edit(&text, &[("models", &model)]);
        assert_eq!(keys_at(&linted(&filled), Level::Weak), [""; 0]);
        // A name that is nobody's is held to nothing.
        let own = weaker.replace("serve/1", "mine/7");
        assert_eq!(keys_at(&linted(&own), Level::Weak), [""; 0]);
    }
}
