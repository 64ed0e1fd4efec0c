//! Verdicts: what they say, and what follows from waivers, several platforms and unusual evidence.

use crate::common::{at, template, with};
use crate::simulated::{CSP, NOW, Scene, genoa, milan, pinned, turin, vlek};
use attestation_verifier::policy::{Form, check_ids};
use attestation_verifier::verdict::{Class, Fault, Outcome, refusal};
use touchstone_formats::evidence::Tee;

/// A failed floor is the operator's to mend, a narrow rule the caller's own, a lie nobody's.
#[test]
fn classes() {
    let class = |change: fn(&mut Scene)| {
        let mut scene = genoa();
        change(&mut scene);
        scene.judge().conclusion.class
    };
    assert_eq!(class(|_| {}), None);
    assert_eq!(
        class(|s| s.report(|r| r.launch_tcb[7] = 1)),
        Some(Class::Operations)
    );
    assert_eq!(class(|s| s.report(|r| r.vmpl = 1)), Some(Class::Policy));
    assert_eq!(
        class(|s| s.collateral(|_, f| f.crls.clear())),
        Some(Class::Retry)
    );
    assert_eq!(
        class(|s| s.machine.vek.not_after = NOW - 1),
        Some(Class::Operations)
    );
    assert_eq!(
        class(|s| s.machine.report.chip_id[0] ^= 1),
        Some(Class::Tamper)
    );
    assert_eq!(class(|s| s.machine.report.version = 9), Some(Class::Tamper));
}

#[test]
fn waivers_end() {
    let id = "snp.policy.debug";
    let until = |scene: &mut Scene, until: &str| {
        scene.set(
            id,
            &format!("{{ waive = \"a test guest\", until = \"{until}\" }}"),
        );
    };
    // NOW is 2026-09-21: the last day counts whole.
    for (day, exit) in [("2026-09-21", 6), ("2026-09-22", 6), ("2026-09-20", 4)] {
        let mut scene = genoa();
        scene.report(|r| r.policy |= 1 << 19);
        until(&mut scene, day);
        let verdict = scene.judge();
        assert_eq!(verdict.exit(), exit, "{day}");
        let check = verdict.checks.find(id).unwrap();
        assert_eq!(check.found, true);
        if exit == 4 {
            assert_eq!(verdict.deciding(), Some(id));
            assert!(check.reason.contains("ended"), "{}", check.reason);
        } else {
            assert_eq!(check.result, Outcome::Waived);
            let json: serde_json::Value = serde_json::from_str(&verdict.to_json()).unwrap();
            let waivers = json["waivers"].as_array().unwrap();
            let waiver = waivers.iter().find(|w| w["id"] == id).unwrap();
            assert_eq!(waiver["reason"], "a test guest");
            assert_eq!(waiver["until"], day);
        }
    }
    // A waiver that ended fails also where what it waived would be right: there is no expectation.
    let mut scene = genoa();
    until(&mut scene, "2026-09-20");
    assert_eq!(scene.judge().deciding(), Some(id));
    // So does the age of collateral.
    let mut scene = genoa();
    scene.policy = with(
        &scene.policy,
        "collateral_age_seconds",
        "{ waive = \"archive\", until = \"2026-09-20\" }",
    );
    let verdict = scene.judge();
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (5, Some("snp.collateral.age"))
    );
}

/// The evidence has to satisfy one platform whole; two halves are none.
#[test]
fn several_platforms() {
    let mut scene = genoa();
    let (head, platform) = scene.policy.split_once("[[platform]]").unwrap();
    let (head, platform) = (head.to_owned(), platform.to_owned());
    let good = |p: &str| format!("[[platform]]{p}\n");
    let wrong_vmpl = with(&good(&platform), "snp.vmpl", "{ expect = [1] }");
    let wrong_product = with(&good(&platform), "snp.product", "{ expect = \"Turin\" }");
    let twice_wrong = with(&wrong_product, "snp.vmpl", "{ expect = [1] }");

    scene.policy = format!("{head}{twice_wrong}{wrong_vmpl}{wrong_product}");
    let verdict = scene.judge();
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (4, Some("snp.vmpl")),
        "the nearest is shown"
    );
    assert_eq!(verdict.context.platform["policy_platform"], 2);

    scene.policy = format!("{head}{twice_wrong}{}{wrong_vmpl}", good(&platform));
    let verdict = scene.judge();
    assert_eq!(verdict.exit(), 6, "{}", verdict.words());
    assert_eq!(verdict.context.platform["policy_platform"], 2);
}

#[test]
fn verdicts_say_what_they_found() {
    let verdict = genoa().judge();
    let json: serde_json::Value = serde_json::from_str(&verdict.to_json()).unwrap();
    let members: Vec<&str> = json
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut expected = vec![
        "v",
        "verdict",
        "exit",
        "simulated",
        "class",
        "at",
        "time_vouched_by",
        "achieved",
        "required",
        "covers",
        "binding",
        "checks",
        "platform",
        "measurement",
        "model",
        "waivers",
        "residual_risks",
        "deciding",
    ];
    let mut members_sorted = members.clone();
    members_sorted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(members_sorted, expected);
    assert_eq!(json["v"], "touchstone/verdict/1");
    assert_eq!(json["verdict"], "holds");
    assert_eq!(json["exit"], 6);
    assert_eq!(json["binding"], "none");
    assert_eq!(json["simulated"], true);
    assert_eq!(json["class"], serde_json::Value::Null);
    assert_eq!(json["at"], "2026-09-21T14:13:20Z");
    assert_eq!(json["time_vouched_by"], "clock");
    assert_eq!(json["measurement"], hex::encode([0x5a; 48]));
    assert_eq!(json["platform"]["product"], "Genoa");
    assert_eq!(json["platform"]["tcb"]["reported"]["snp"], 0x1d);
    assert!(
        json["residual_risks"][0]
            .as_str()
            .unwrap()
            .starts_with("SIMULATED")
    );

    // Every check of the policy is in the list, whatever happened before it came to be.
    let ids: Vec<&str> = check_ids(Tee::SevSnp).iter().map(|spec| spec.id).collect();
    let changes: [fn(&mut Scene); 4] = [
        |_| {},
        |s| s.machine.report.version = 9,
        |s| s.machine.report.chip_id[0] ^= 1,
        |s| s.collateral(|_, f| f.chain.clear()),
    ];
    for change in changes {
        let mut scene = genoa();
        change(&mut scene);
        let verdict = scene.judge();
        for id in &ids {
            let checks = verdict.checks.iter().filter(|c| c.id == *id);
            assert_eq!(checks.count(), 1, "{id}");
        }
        // What is not authentic is not shown as if it were.
        let authentic = matches!(verdict.exit(), 6);
        assert_eq!(verdict.context.measurement.is_some(), authentic);
        assert_eq!(verdict.context.platform.is_null(), !authentic);
        // A reason stands beside everything that refuses.
        for check in verdict.checks.iter().filter(|c| c.refuses()) {
            assert!(!check.reason.is_empty(), "{}", check.id);
        }
    }
}

/// What a verdict found, copied into a policy, is what that policy expects: for every check.
#[test]
fn found_is_what_expect_takes() {
    for honest in [genoa, turin, milan, pinned] {
        let mut scene = honest();
        let verdict = scene.judge();
        for spec in check_ids(Tee::SevSnp) {
            // A VCEK has no provider.
            if spec.id == "snp.vlek.csp" {
                continue;
            }
            // Reports of version 3 have no mitigation vectors.
            if spec.form == Form::Mask && scene.machine.report.version < 5 {
                continue;
            }
            scene.policy = crate::common::as_found(&scene.policy, &verdict, spec.id);
        }
        let copied = scene.judge();
        assert_eq!(copied.exit(), 6, "{}", copied.words());
        let waived = copied
            .checks
            .iter()
            .filter(|c| c.result == Outcome::Waived)
            .count();
        assert_eq!(
            waived,
            if scene.machine.report.version < 5 {
                2
            } else {
                0
            }
        );
    }
    let mut scene = vlek();
    let verdict = scene.judge();
    scene.policy = crate::common::as_found(&scene.policy, &verdict, "snp.vlek.csp");
    assert!(scene.policy.contains(&format!("{{ expect = \"{CSP}\" }}")));
    assert_eq!(scene.judge().exit(), 6);
}

/// Evidence of a kind that the policy has no platform for is refused by what comes first.
#[test]
fn a_report_is_no_quote() {
    let mut evidence = crate::common::evidence(&[0; 48], &[], &[], &[]);
    evidence.tee = Tee::Tdx;
    evidence.collateral = None;
    let policy = crate::common::policy(&template());
    let roots = attestation_verifier::Roots::pinned();
    let verdict =
        attestation_verifier::appraise(&evidence.to_file(), &policy, &roots, None, at(NOW));
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (2, Some("tdx.format"))
    );
}

/// Without collateral there is something to wait for; malformed files are told apart from it.
#[test]
fn evidence_files() {
    let policy = crate::common::policy(&template());
    let roots = attestation_verifier::Roots::pinned();
    let judge = |file: &[u8]| attestation_verifier::appraise(file, &policy, &roots, None, at(NOW));
    let scene = genoa();
    let mut evidence = crate::common::evidence(&scene.machine.quote([0; 64]), &[], &[], &[]);
    evidence.collateral = None;
    let file = evidence.to_file();
    let verdict = judge(&file);
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (5, Some("snp.collateral"))
    );
    assert_eq!(verdict.conclusion.class, Some(Class::Retry));
    for bad in [
        &b""[..],
        b"{}\n",
        b"nonsense",
        &file[..file.len() - 1],
        &[file.clone(), b" ".to_vec()].concat(),
    ] {
        let verdict = judge(bad);
        assert_eq!(
            (verdict.exit(), verdict.deciding()),
            (2, Some("evidence.format"))
        );
    }
}

/// What clients make of what happens before there is anything to judge.
#[test]
fn a_refusal_is_a_verdict_of_one_check() {
    let at = Some(attestation_verifier::At {
        time: 1_790_000_000,
        asserted: false,
    });
    for (fault, exit, word, class) in [
        (Fault::Usage, 1, "usage", None),
        (Fault::Malformed, 2, "malformed", Some("tamper")),
        (Fault::NotAuthentic, 3, "not-authentic", Some("tamper")),
        (Fault::NotYet, 4, "refused", Some("retry")),
        (Fault::Policy, 4, "refused", Some("policy")),
    ] {
        let verdict = refusal("connection.late", fault, "no answer in time", at);
        assert_eq!(verdict.deciding(), Some("connection.late"));
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!(json["exit"], exit);
        assert_eq!(json["verdict"], word);
        assert_eq!(json["class"], serde_json::json!(class));
        assert_eq!(json["at"], "2026-09-21T14:13:20Z");
        assert_eq!(json["binding"], "none");
        assert!(
            verdict
                .words()
                .contains("connection.late: no answer in time")
        );
    }
}
