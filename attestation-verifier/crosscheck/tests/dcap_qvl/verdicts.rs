//! dcap-qvl beside whole verdicts: on simulated machines under the strict template, and on real evidence.

use attestation_verifier::{At, Policy, Roots, appraise};
use dcap_qvl::verify::QuoteVerifier;
use serde_json::json;
use touchstone_formats::evidence::{Collateral, Evidence};
use touchstone_testkit::fixtures;

use crate::checks_case::{
    Case, brief, case, joined, measured, pinned, strict, strict_v4, tolerated, undefined,
};
use crate::simulated::v4;
use crate::support::template;
use crate::table::rows;

/// What it says of evidence.
fn judged(
    verifier: &QuoteVerifier,
    evidence: &Evidence,
    at: u64,
) -> Result<dcap_qvl::verify::VerifiedReport, String> {
    let Some(Collateral::Tdx(own)) = &evidence.collateral else {
        panic!("no collateral")
    };
    verifier
        .verify(&evidence.quote, &crate::theirs(own), at)
        .map_err(|error| format!("{error:#}"))
}

/// What it says of the same quote, collateral, root and time.
fn theirs(case: &Case) -> Result<String, String> {
    let verifier = QuoteVerifier::new(case.scene.machine.pki.root_der());
    judged(&verifier, &case.evidence(), case.scene.time).map(|report| report.status)
}

/// It accepts all that holds here, and says the same of it.
#[test]
fn what_holds_a_second_verifier_accepts() {
    for (case, status) in [
        (strict(), "UpToDate"),
        (strict_v4(), "UpToDate"),
        (undefined(), "UpToDate"),
        (pinned(), "UpToDate"),
        (measured(), "UpToDate"),
        (tolerated(), "OutOfDate"),
        (brief(), "UpToDate"),
        (joined(), "UpToDate"),
    ] {
        let verdict = case.judge();
        assert_eq!(verdict.exit(), 6, "{}", verdict.words());
        assert_eq!(theirs(&case).as_deref(), Ok(status));
        assert_eq!(verdict.context.platform["tcb"]["status"], status);
    }
}

/// Statuses of the platform and of TDX module or quoting enclave together: the same word as the second verifier's, and accepted by
/// the strict template only if both are up to date.
#[test]
fn statuses_converge_as_a_second_verifier_says() {
    const ALL: [&str; 6] = [
        "UpToDate",
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
    ];
    let mut compared = 0;
    for platform in ALL {
        for other in ["UpToDate", "OutOfDate"] {
            for module in [true, false] {
                let mut case = strict();
                case.scene.machine.tcb_info.set_status(platform, &[]);
                if module {
                    let identities = &mut case.scene.machine.tcb_info.tdx_module_identities;
                    identities[1].tcb_levels[0].tcb_status = other.into();
                } else {
                    case.scene.machine.qe_identity.set_status(other, &[]);
                }
                let verdict = case.judge();
                let status = verdict.context.platform["tcb"]["status"].clone();
                let name = format!("{platform}, {other}, module {module}");
                assert_eq!(theirs(&case).map(Into::into), Ok(status.clone()), "{name}");
                let expected = if status == "UpToDate" { 6 } else { 4 };
                assert_eq!(verdict.exit(), expected, "{name}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 24);
}

/// A module of major version 0 has no levels of its own: its versions are the platform's first TDX components.
#[test]
fn the_first_tdx_module_is_judged_with_the_platform() {
    for (isvsvn, exit, status) in [(13, 6, "UpToDate"), (12, 4, "OutOfDate")] {
        let mut case = case(v4());
        case.report(|r| (r.tee_tcb_svn[0], r.tee_tcb_svn[1]) = (isvsvn, 0));
        case.scene.machine.tcb_info.tdx_module_identities.clear();
        let verdict = case.judge();
        assert_eq!(verdict.exit(), exit, "{}", verdict.words());
        assert_eq!(verdict.context.platform["tcb"]["status"], status);
        assert_eq!(theirs(&case).as_deref(), Ok(status));
    }
}

/// Real evidence that holds here once a policy expects what was found (`every_case_of_the_table` of the verifier's own tests),
/// and what it says of it when it refuses it, whoever asks.
const REAL: [(&str, Option<&str>); 7] = [
    ("tdx/dcapqvl-tdx-v4", None),
    ("tdx/go-tdx-guest-v5", None),
    ("tdx/oak-tdx", None),
    ("tdx/automata-v4", None),
    ("tdx/azure-td-quote", Some("sept_ve_disable")),
    ("tdx/trustee-quote4", Some("debug")),
    ("tdx/automata-v5", Some("service")),
];

/// It accepts what is accepted here, and finds the same status and advisories.
#[test]
fn real_evidence_is_of_the_same_status() {
    let Some(root) = fixtures::evidence() else {
        return fixtures::skipped(
            "real_evidence_is_of_the_same_status",
            "no evidence fixtures",
        );
    };
    let policy = Policy::parse(&template()).unwrap();
    let mut compared = 0;
    for row in rows(&root) {
        let Some((name, refused)) = REAL.iter().find(|(name, _)| *name == row.name) else {
            continue;
        };
        compared += 1;
        let judged = judged(&QuoteVerifier::new_prod(), &row.evidence, row.time);
        if let Some(why) = refused {
            let error = judged.expect_err(name).to_lowercase();
            assert!(error.contains(why), "{name}: {error}");
            continue;
        }
        let judged = judged.unwrap_or_else(|error| panic!("{name}: {error}"));
        let at = At {
            time: row.time,
            asserted: true,
        };
        let file = row.evidence.to_file();
        let verdict = appraise(&file, &policy, &Roots::pinned(), None, at);
        let tcb = &verdict.context.platform["tcb"];
        assert_eq!(tcb["status"], judged.status, "{name}");
        let mut advisories = judged.advisory_ids;
        advisories.sort_unstable();
        assert_eq!(tcb["advisories"], json!(advisories), "{name}");
    }
    assert_eq!(compared, REAL.len());
}
