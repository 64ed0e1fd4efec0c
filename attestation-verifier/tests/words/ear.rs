//! EARs: affirmed is only what every check of it passed for.

use attestation_verifier::ear::{Claim, PROFILE, RULES, Stands, ear, stands_for};
use attestation_verifier::policy::{check_ids, fixed_checks};
use attestation_verifier::{Roots, Verdict, check};
use serde_json::{Value, json};
use touchstone_formats::Tee;

use crate::support::*;

/// The one appraisal, and that the whole has the members of draft-ietf-rats-ear.
#[track_caller]
fn appraisal(verdict: &Verdict, label: &str) -> Value {
    let ear = ear(verdict);
    assert_eq!(ear["eat_profile"], PROFILE);
    assert_eq!(ear["iat"], json!(verdict.at.unwrap().time));
    assert!(ear["ear_verifier_id"]["build"].is_string());
    assert!(ear["ear_verifier_id"]["developer"].is_string());
    let submods = ear["submods"].as_object().unwrap();
    assert_eq!(submods.keys().collect::<Vec<_>>(), [label]);
    assert_eq!(ear["ear_status"], submods[label]["ear_status"]);
    let vector = submods[label]["ear_trustworthiness_vector"]
        .as_object()
        .unwrap();
    assert_eq!(vector.len(), 8);
    for never in ["file-system", "storage-opaque", "sourced-data"] {
        assert_eq!(vector[never], 0, "nothing here stands for {never}");
    }
    submods[label].clone()
}

fn value(appraisal: &Value, claim: Claim) -> i64 {
    appraisal["ear_trustworthiness_vector"][claim.name()]
        .as_i64()
        .unwrap()
}

/// A verdict as if the vendor were real: the mint can make no chip of AMD's.
fn genuine(mut verdict: Verdict) -> Verdict {
    verdict.context.simulated = false;
    verdict
}

#[test]
fn each_claim_is_affirmed_and_each_waiver_warns_in_its_own() {
    let world = world();
    let minted = mint(&world, |m| m);
    let strict = judge(&world, &minted, &nothing_waived(&world));
    assert_eq!(strict.exit(), 0, "{}", strict.words());
    let affirmed = appraisal(&genuine(strict), "sev-snp");
    for claim in Claim::ALL {
        assert_eq!(value(&affirmed, claim), i64::from(claim.affirmed()));
    }
    let template = appraisal(
        &genuine(judge(&world, &minted, &policy(&world, &[]))),
        "sev-snp",
    );
    assert_eq!(template["ear_status"], "warning");
    // The template waives chips, names and mitigations; debug and the like it expects.
    assert_eq!(value(&template, Claim::InstanceIdentity), -33);
    assert_eq!(value(&template, Claim::Executables), -33);
    assert_eq!(value(&template, Claim::Hardware), -33);
    assert_eq!(value(&template, Claim::RuntimeOpaque), 2);
    assert_eq!(value(&template, Claim::Configuration), 2);
}

#[test]
fn the_whole_is_affirming_only_without_a_waiver() {
    let world = world();
    let minted = mint(&world, |m| m);
    let mut verdict = genuine(judge(&world, &minted, &nothing_waived(&world)));
    assert_eq!(ear(&verdict)["ear_status"], "affirming");
    verdict
        .checks
        .waived("receipt.nonce", Value::Null, "why not", None);
    assert_eq!(ear(&verdict)["ear_status"], "warning");
}

#[test]
fn simulated_hardware_is_never_affirmed() {
    let world = world();
    let minted = mint(&world, |m| m);
    let policy = nothing_waived(&world);
    let expected = appraisal(&judge(&world, &minted, &policy), "sev-snp");
    assert_eq!(expected["ear_status"], "warning");
    assert_eq!(value(&expected, Claim::Hardware), -34);
    assert_eq!(value(&expected, Claim::RuntimeOpaque), -34);
    let mut comparison = auditor();
    comparison.expect_simulated = false;
    comparison.nonce = minted.claims.nonce.clone();
    let verdict = check(
        &minted.file(),
        &policy,
        &roots(&world),
        &comparison,
        at(&minted),
    );
    assert_eq!(verdict.exit(), 6);
    let unexpected = appraisal(&verdict, "sev-snp");
    assert_eq!(unexpected["ear_status"], "contraindicated");
    assert_eq!(value(&unexpected, Claim::Hardware), 97);
    assert_eq!(value(&unexpected, Claim::Executables), 3);
}

#[test]
fn a_failure_contraindicates_its_own_claim() {
    type Change = fn(&mut touchstone_testkit::snp::Report);
    let world = world();
    let cases: [(&str, Claim, Change); 5] = [
        ("snp.policy.debug", Claim::RuntimeOpaque, |r| {
            r.policy |= 1 << 19
        }),
        ("snp.measurement", Claim::Executables, |r| {
            r.measurement[0] ^= 1
        }),
        ("snp.tcb.launch", Claim::Hardware, |r| r.launch_tcb = [0; 8]),
        ("snp.host_data", Claim::Configuration, |r| {
            r.host_data[0] = 1
        }),
        ("snp.chip_id", Claim::InstanceIdentity, |_| ()),
    ];
    for (id, broken, change) in cases {
        let minted = mint(&world, |m| m.report(move |_, r| change(r)));
        let other_chip = format!("{{ expect = [\"{}\"] }}", "ab".repeat(64));
        let strict = match id {
            "snp.chip_id" => policy(&world, &[("snp.chip_id", &other_chip)]),
            _ => nothing_waived(&world),
        };
        let verdict = genuine(judge(&world, &minted, &strict));
        assert_eq!((verdict.exit(), verdict.deciding()), (4, Some(id)));
        let appraisal = appraisal(&verdict, "sev-snp");
        assert_eq!(appraisal["ear_status"], "contraindicated", "{id}");
        for claim in Claim::ALL {
            let found = value(&appraisal, claim);
            if claim == broken {
                assert_eq!(found, i64::from(claim.contraindicated()), "{id}");
            } else if id != "snp.chip_id" {
                assert_eq!(found, i64::from(claim.affirmed()), "{id}: {}", claim.name());
            }
        }
        assert_eq!(appraisal["touchstone_verdict"]["deciding"], id);
    }
}

#[test]
fn evidence_that_proves_nothing_affirms_nothing() {
    let world = world();
    let policy = nothing_waived(&world);
    // Not authentic: 99 everywhere.
    let minted = mint(&world, |m| m.report(|_, r| r.report_data[0] ^= 1));
    let verdict = judge(&world, &minted, &policy);
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (3, Some("evidence.report_data"))
    );
    let crypto = appraisal(&verdict, "sev-snp");
    assert_eq!(crypto["ear_status"], "contraindicated");
    assert!(Claim::ALL.iter().all(|c| value(&crypto, *c) == 99));
    // A root that nobody named.
    let minted = mint(&world, |m| m);
    let verdict = check(
        &minted.file(),
        &policy,
        &Roots::pinned(),
        &auditor(),
        at(&minted),
    );
    assert_eq!(verdict.exit(), 3);
    assert!(
        Claim::ALL
            .iter()
            .all(|c| value(&appraisal(&verdict, "platform"), *c) == 99)
    );
    // Malformed: elements that cannot be evaluated.
    let minted = mint(&world, |m| m.evidence(|all| all[0].quote[0] = 9));
    let verdict = judge(&world, &minted, &policy);
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (2, Some("snp.format"))
    );
    let malformed = appraisal(&verdict, "platform");
    assert_eq!(malformed["ear_status"], "contraindicated");
    assert!(Claim::ALL.iter().all(|c| value(&malformed, *c) == 1));
    // No collateral: nothing was evaluated, and nothing is said against it.
    let minted = mint(&world, |m| {
        m.evidence(|all| all.iter_mut().for_each(|e| e.collateral = None))
    });
    let verdict = judge(&world, &minted, &policy);
    assert_eq!(verdict.exit(), 5, "{}", verdict.words());
    let missing = appraisal(&verdict, "platform");
    assert_eq!(missing["ear_status"], "none");
    assert!(Claim::ALL.iter().all(|c| value(&missing, *c) == 0));
    // A usage error judged nothing at all, and has no time.
    let usage = attestation_verifier::verdict::usage("usage", "no such file");
    let ear = ear(&usage);
    assert_eq!(ear["ear_status"], "none");
    assert!(ear.get("iat").is_none());
}

/// A lie about the answer, on a platform that is well: the platform is affirmed, the whole is not.
#[test]
fn what_is_not_about_the_platform_decides_the_status_alone() {
    let world = world();
    let minted = mint(&world, |m| m);
    let mut comparison = auditor();
    comparison.nonce = Some(vec![0; 32]);
    let verdict = check(
        &minted.file(),
        &nothing_waived(&world),
        &roots(&world),
        &comparison,
        at(&minted),
    );
    assert_eq!(verdict.deciding(), Some("receipt.nonce"));
    let appraisal = appraisal(&genuine(verdict), "sev-snp");
    assert_eq!(appraisal["ear_status"], "contraindicated");
    assert_eq!(value(&appraisal, Claim::Hardware), 2);
}

#[test]
fn every_check_of_a_platform_counts_for_something() {
    for tee in [Tee::SevSnp, Tee::Tdx] {
        for spec in check_ids(tee) {
            let stands = stands_for(spec.id);
            assert!(stands.is_some(), "{} counts for no claim", spec.id);
        }
        for claim in Claim::ALL.iter().filter(|_| !check_ids(tee).is_empty()) {
            let mut own = check_ids(tee).iter();
            assert!(
                own.any(|spec| stands_for(spec.id) == Some(Stands::For(*claim))),
                "{tee}: no check stands for {}",
                claim.name()
            );
        }
    }
    for check in fixed_checks() {
        let about_platform = check.id.starts_with("snp.") || check.id.starts_with("tdx.");
        assert_eq!(
            stands_for(check.id).is_some(),
            about_platform
                || [
                    "evidence.format",
                    "evidence.purpose",
                    "evidence.nonce",
                    "evidence.report_data",
                    "advisories.notice",
                    "manifest.platform",
                    "manifest.os_binding",
                    "manifest.quote_source",
                    "manifest.tcb",
                ]
                .contains(&check.id),
            "{}",
            check.id
        );
        if check.id.starts_with("snp.") {
            assert_eq!(
                stands_for(check.id),
                Some(Stands::Foundation),
                "{}",
                check.id
            );
        }
    }
}

/// The table in docs/auditors.md is the code's. Run once with `TOUCHSTONE_WRITE_DOCS=1` after a change.
#[test]
fn the_table_is_documented() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/auditors.md");
    let text = std::fs::read_to_string(&path).expect("docs/auditors.md");
    let mut table = String::from(
        "| claim | affirmed as | contraindicated as | checks |\n| --- | --- | --- | --- |\n",
    );
    let ids = |wanted: Stands| {
        let own = RULES.iter().filter(|(_, stands)| *stands == wanted);
        own.map(|(rule, _)| format!("`{rule}`"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    for claim in Claim::ALL {
        table += &format!(
            "| `{}` | {} | {} | {} |\n",
            claim.name(),
            claim.affirmed(),
            claim.contraindicated(),
            ids(Stands::For(claim))
        );
    }
    table += &format!(
        "| all of them | | 99, malformed: 1 | {} |\n",
        ids(Stands::Foundation)
    );
    let (begin, end) = (
        "<!-- claims of an EAR -->\n",
        "<!-- end of claims of an EAR -->",
    );
    let (before, rest) = text.split_once(begin).expect("the marker that begins");
    let (found, after) = rest.split_once(end).expect("the marker that ends");
    if std::env::var_os("TOUCHSTONE_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(
        found, table,
        "docs/auditors.md: run with TOUCHSTONE_WRITE_DOCS=1"
    );
}
