//! Policies for TDX: loosened one check at a time, and refused where they do not stand.

use attestation_verifier::policy::{Form, Policy, PolicyError, check_ids};
use attestation_verifier::verdict::Verdict;
use attestation_verifier::{At, Roots, appraise};
use touchstone_formats::evidence::{Evidence, Tee};

use crate::support::{template, with};
use crate::warm;

/// The template's value of a check.
pub fn strict_value(id: &str) -> String {
    let start = format!("\"{id}\" = ");
    let template = template();
    let mut lines = template
        .lines()
        .filter_map(|line| line.strip_prefix(&start));
    lines
        .next()
        .unwrap_or_else(|| panic!("no check {id}"))
        .to_owned()
}

/// The policy with one check's expectation replaced by what a verdict found, copied as it is.
pub fn as_found(policy: &str, verdict: &Verdict, id: &str) -> String {
    let check = verdict.checks.find(id);
    let found = &check.unwrap_or_else(|| panic!("no check {id}")).found;
    assert!(!found.is_null(), "{id} found nothing");
    with(policy, id, &format!("{{ expect = {found} }}"))
}

/// Parses a policy that has to be right.
pub fn parsed(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

/// Judges an evidence file as the command would, under a time said by the caller.
pub fn judged(evidence: &Evidence, policy: &str, roots: &Roots, time: u64) -> Verdict {
    let at = At {
        time,
        asserted: true,
    };
    let (file, policy) = (evidence.to_file(), parsed(policy));
    let verdict = appraise(&file, &policy, roots, None, at);
    warm::alike(&verdict, &policy, roots, |verifier| {
        verifier.appraise(&file, None, at)
    });
    verdict
}

/// Ids of the checks that refuse, sorted.
pub fn refusing(verdict: &Verdict) -> Vec<&str> {
    let checks = verdict.checks.iter();
    let mut ids: Vec<&str> = checks
        .filter(|c| c.refuses())
        .map(|c| c.id.as_ref())
        .collect();
    ids.sort_unstable();
    ids
}

#[test]
fn the_template_parses_and_names_every_check_once() {
    let policy = parsed(&template());
    let [platform] = &policy.platforms[..] else {
        panic!("one platform")
    };
    assert_eq!(platform.tee, Tee::Tdx);
    let named: Vec<&str> = platform.rules().iter().map(|(spec, _)| spec.id).collect();
    let known: Vec<&str> = check_ids(Tee::Tdx).iter().map(|spec| spec.id).collect();
    assert_eq!(named, known);
    assert!(known.len() > 30);
    assert!(
        !template().contains("snp."),
        "nothing in it is about another kind of platform"
    );
}

#[test]
fn no_check_may_be_left_out() {
    for spec in check_ids(Tee::Tdx) {
        let start = format!("\"{}\" = ", spec.id);
        let text: String = template()
            .lines()
            .filter(|line| !line.starts_with(&start))
            .map(|line| format!("{line}\n"))
            .collect();
        match Policy::parse(&text) {
            Err(PolicyError::Missing { key }) => {
                assert_eq!(key, format!("platform[1].checks.\"{}\"", spec.id));
            }
            other => panic!("without {}: {other:?}", spec.id),
        }
    }
}

#[test]
fn no_check_of_another_kind_of_platform_stands() {
    for id in [
        "snp.measurement",
        "tdx.measurement",
        "tdx.tcb.level",
        "tdx.signature",
    ] {
        let text = format!("{}\n\"{id}\" = {{ waive = \"no\" }}\n", template());
        match Policy::parse(&text) {
            Err(PolicyError::Unknown { key }) => assert!(key.contains(id), "{key}"),
            other => panic!("{id}: {other:?}"),
        }
    }
}

/// Each form that only TDX has: what stands, and what does not.
#[test]
fn expectations_have_their_form() {
    let digest = "ab".repeat(48);
    let long = format!("{}=", "n".repeat(65));
    let good = [
        ("tdx.xfam", "\"0x602e7\""),
        ("tdx.xfam", "[\"0xe7\", \"0x0\"]"),
        ("tdx.tcb.grace", "\"none\""),
        ("tdx.tcb.grace", "\"2027-02-28\""),
        ("tdx.tcb.status", "[]"),
        (
            "tdx.tcb.status",
            "[\"UpToDate\", \"OutOfDateConfigurationNeeded\"]",
        ),
        ("tdx.rtmr3.events", "\"app-id=\""),
        (
            "tdx.rtmr3.events",
            "[\"compose-hash=00ff\", \"instance-id=*\"]",
        ),
        ("tdx.rtmr3.events", &format!("\"sha384:{digest}\"")),
        ("tdx.event_log", "\"replayed\""),
    ];
    for (id, value) in good {
        parsed(&with(&template(), id, &format!("{{ expect = {value} }}")));
    }
    let bad = [
        ("tdx.xfam", "\"602e7\""),
        ("tdx.xfam", "\"0x0602e7\""),
        ("tdx.xfam", "\"0x602E7\""),
        ("tdx.xfam", "396007"),
        ("tdx.xfam", "\"0x10000000000000000\""),
        ("tdx.tcb.grace", "\"never\""),
        ("tdx.tcb.grace", "\"2027-02-29\""),
        ("tdx.tcb.grace", "[\"2027-02-28\"]"),
        ("tdx.tcb.grace", "30"),
        ("tdx.tcb.status", "\"Revoked\""),
        ("tdx.tcb.status", "[\"UpToDate\", \"Revoked\"]"),
        ("tdx.tcb.status", "\"uptodate\""),
        ("tdx.tcb.advisories", "[\"\"]"),
        ("tdx.rtmr3.events", "\"compose-hash\""),
        ("tdx.rtmr3.events", "\"compose-hash=0\""),
        ("tdx.rtmr3.events", "\"compose-hash=0G\""),
        ("tdx.rtmr3.events", "\"compose-hash=AB\""),
        ("tdx.rtmr3.events", "\"compose:hash=00\""),
        ("tdx.rtmr3.events", "\"=00\""),
        ("tdx.rtmr3.events", "\"sha384:00\""),
        ("tdx.rtmr3.events", &format!("\"{long}\"")),
        ("tdx.event_log", "\"mismatch\""),
        ("tdx.platform.smt", "true"),
        ("tdx.mrtd", "\"00\""),
        ("tdx.platform.instance", "\"00\""),
    ];
    for (id, value) in bad {
        match Policy::parse(&with(&template(), id, &format!("{{ expect = {value} }}"))) {
            Err(PolicyError::Value { key, .. }) => assert!(key.contains(id), "{id}: {key}"),
            other => panic!("{id} = {value}: {other:?}"),
        }
    }
}

/// What is tolerated until a day is not tolerated for ever by way of a waiver.
#[test]
fn a_grace_is_waived_until_a_day_only() {
    let days: Vec<&str> = check_ids(Tee::Tdx)
        .iter()
        .filter(|spec| spec.form == Form::Day)
        .map(|spec| spec.id)
        .collect();
    assert_eq!(days, ["tdx.tcb.grace"]);
    let waived = |until: &str| {
        with(
            &template(),
            days[0],
            &format!("{{ waive = \"later\"{until} }}"),
        )
    };
    parsed(&waived(", until = \"2027-01-01\""));
    match Policy::parse(&waived("")) {
        Err(PolicyError::Value { key, expected, .. }) => {
            assert!(key.contains("tdx.tcb.grace"), "{key}");
            assert!(expected.contains("until"), "{expected}");
        }
        other => panic!("{other:?}"),
    }
}

/// Two kinds of platform in one policy: evidence is judged by its own.
#[test]
fn a_policy_may_have_both_kinds_of_platform() {
    let snp = attestation_verifier::policy::template(Tee::SevSnp);
    let (_, platform) = snp.split_once("[[platform]]").expect("a platform");
    let both = format!("{}\n[[platform]]{platform}", template());
    let tees: Vec<Tee> = parsed(&both).platforms.iter().map(|p| p.tee).collect();
    assert_eq!(tees, [Tee::Tdx, Tee::SevSnp]);

    let evidence = crate::support::v4();
    let verdict = judged(&evidence, &both, &Roots::pinned(), crate::support::V4_TIME);
    assert_eq!(verdict.context.platform["policy_platform"], 1);
    assert!(verdict.checks.iter().all(|c| !c.id.starts_with("snp.")));
    let verdict = judged(&evidence, &snp, &Roots::pinned(), crate::support::V4_TIME);
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (4, Some("policy.platform"))
    );
}
