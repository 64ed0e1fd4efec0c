//! Real evidence that is not committed, and what EXPECTED.tsv says of it. A second opinion on it is in `crosscheck/tests/dcap_qvl`.
//!
//! Every case is judged under the strict template and under a policy that differs from it in exactly the
//! checks that the table below names. That both the exit code and the set of refusing checks are compared
//! keeps "loosened" from growing.

use std::collections::BTreeMap;

use attestation_verifier::Roots;
use attestation_verifier::dates::parse_rfc3339;
use touchstone_testkit::fixtures;

use crate::policy::{as_found, judged, refusing, strict_value};
use crate::support::{V4_TIME, V5_TIME, collateral, evidence, file, template, v4, v5, with};
use crate::table::{Row, rows, stripped};

/// What can be measured: the template accepts none.
const MEASURED: [&str; 4] = ["tdx.mrtd", "tdx.rtmr0", "tdx.rtmr1", "tdx.rtmr2"];

/// A row of EXPECTED.tsv: checks that refuse under the strict template beside [`MEASURED`], and whether the evidence
/// holds once each of them expects what was found. Rows that are not here never get as far as a policy.
const REFUSING: &[(&str, &[&str], bool)] = &[
    ("tdx/dcapqvl-tdx-v4", &[], true),
    ("tdx/go-tdx-guest-v5", &[], true),
    ("tdx/oak-tdx", &[], true),
    (
        "tdx/automata-v4",
        &["tdx.tcb.advisories", "tdx.tcb.grace", "tdx.tcb.status"],
        true,
    ),
    (
        "tdx/azure-td-quote",
        &[
            "tdx.attributes.sept_ve_disable",
            "tdx.tcb.advisories",
            "tdx.tcb.grace",
            "tdx.tcb.status",
        ],
        true,
    ),
    (
        "tdx/trustee-quote4",
        &["tdx.attributes.debug", "tdx.tcb.evaluation_number"],
        true,
    ),
    (
        "tdx/automata-v5",
        &[
            "tdx.mr_service_td",
            "tdx.tcb.advisories",
            "tdx.tcb.grace",
            "tdx.tcb.status",
        ],
        true,
    ),
    ("tdx/dcapqvl-tdx-outdated", NO_LEVEL, false),
    ("tdx/dcapqvl-tappd", NO_LEVEL_EVENTS, false),
    ("tdx/trustee-quote5", NO_LEVEL_SERVICE, false),
];
const NO_LEVEL: &[&str] = &[
    "tdx.tcb.advisories",
    "tdx.tcb.grace",
    "tdx.tcb.level",
    "tdx.tcb.status",
];
const NO_LEVEL_EVENTS: &[&str] = &[
    "tdx.rtmr3",
    "tdx.rtmr3.events",
    "tdx.tcb.advisories",
    "tdx.tcb.grace",
    "tdx.tcb.level",
    "tdx.tcb.status",
];
const NO_LEVEL_SERVICE: &[&str] = &[
    "tdx.mr_service_td",
    "tdx.tcb.advisories",
    "tdx.tcb.grace",
    "tdx.tcb.level",
    "tdx.tcb.status",
];

/// The rest: exit code and deciding check, whatever the policy.
const BEFORE: &[(&str, u8, &str)] = &[
    ("tdx/go-tdx-guest-spr-e4", 2, "tdx.format"),
    ("tdx/dstack-lite", 5, "tdx.collateral"),
    ("tdx/dcapqvl-sgx-v3", 2, "tdx.format"),
];

#[test]
fn every_case_of_the_table() {
    let Some(root) = fixtures::evidence() else {
        return fixtures::skipped("tdx every_case_of_the_table", "no evidence fixtures");
    };
    let loosened: BTreeMap<&str, (&[&str], bool)> = REFUSING
        .iter()
        .map(|(name, ids, holds)| (*name, (*ids, *holds)))
        .collect();
    let before: BTreeMap<&str, (u8, &str)> = BEFORE
        .iter()
        .map(|(name, exit, id)| (*name, (*exit, *id)))
        .collect();
    let mut seen = 0;
    for row in rows(&root) {
        seen += 1;
        let strict = judged(&row.evidence, &template(), &Roots::pinned(), row.time);
        assert_eq!(strict.exit(), row.exit, "{}: {}", row.name, strict.words());
        if let Some((exit, id)) = before.get(row.name.as_str()) {
            assert_eq!(
                (strict.exit(), strict.deciding()),
                (*exit, Some(*id)),
                "{}",
                row.name
            );
            continue;
        }
        let (own, holds) = loosened[row.name.as_str()];
        case(&row, own, holds);
    }
    assert_eq!(seen, REFUSING.len() + BEFORE.len());
}

fn case(row: &Row, own: &[&str], holds: bool) {
    let name = &row.name;
    let judge = |policy: &str| judged(&row.evidence, policy, &Roots::pinned(), row.time);
    let strict = judge(&template());
    let mut expected = MEASURED.to_vec();
    expected.extend(own);
    expected.sort_unstable();
    assert_eq!(refusing(&strict), expected, "{name}: {}", strict.words());
    if !holds {
        assert_eq!(strict.deciding(), Some("tdx.tcb.level"), "{name}");
        // Waiving all there is does not help.
        let mut policy = template();
        for id in expected.iter().filter(|id| **id != "tdx.tcb.level") {
            policy = with(
                &policy,
                id,
                "{ waive = \"all of it\", until = \"2999-12-31\" }",
            );
        }
        let verdict = judge(&policy);
        assert_eq!(refusing(&verdict), ["tdx.tcb.level"], "{name}");
        return;
    }
    let mut policy = template();
    for id in &expected {
        policy = as_found(&policy, &strict, id);
    }
    let loose = judge(&policy);
    assert_eq!(loose.exit(), 0, "{name}: {}", loose.words());
    assert!(!loose.context.simulated);
    // None of it is there by luck: without any one of them it is refused, by that very check.
    for id in &expected {
        let verdict = judge(&with(&policy, id, &strict_value(id)));
        assert_eq!(refusing(&verdict), [*id], "{name}");
    }
}

#[test]
fn the_committed_quote_holds() {
    let row = Row {
        name: "committed v4".into(),
        evidence: v4(),
        time: V4_TIME,
        exit: 4,
    };
    case(&row, &[], true);
    let row = Row {
        name: "committed v5".into(),
        evidence: v5(),
        time: V5_TIME,
        exit: 4,
    };
    case(&row, NO_LEVEL, false);
}

#[test]
fn the_collateral_of_two_months_gives_one_verdict() {
    let Some(root) = fixtures::evidence() else {
        return fixtures::skipped(
            "the_collateral_of_two_months_gives_one_verdict",
            "no fixtures",
        );
    };
    let quote = stripped(file(root.join("tdx/oak-tdx/quote.bin")));
    for (folder, at, exit, deciding) in [
        ("2025-06", "2025-06-20T00:00:00Z", 4, "tdx.mrtd"),
        ("2025-10", "2025-11-01T00:00:00Z", 4, "tdx.mrtd"),
        (
            "2025-06",
            "2025-11-01T00:00:00Z",
            5,
            "tdx.collateral.validity",
        ),
        (
            "2025-10",
            "2025-06-20T00:00:00Z",
            5,
            "tdx.collateral.validity",
        ),
    ] {
        let path = format!("tdx/collateral-00806f050000-{folder}/collateral.json");
        let own = collateral(&file(root.join(path)));
        let evidence = evidence(quote.clone(), Some(own));
        let time = parse_rfc3339(at).unwrap();
        let verdict = judged(&evidence, &template(), &Roots::pinned(), time);
        assert_eq!(
            (verdict.exit(), verdict.deciding()),
            (exit, Some(deciding)),
            "{folder} {at}"
        );
    }
}
