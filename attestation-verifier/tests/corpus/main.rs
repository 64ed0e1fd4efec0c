//! The published corpus (`testdata/corpus`), case by case. The tests that sign its cases write it; what is committed
//! was signed once, so that others judge the very same bytes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use attestation_verifier::Roots;
use attestation_verifier::dates::parse_rfc3339;
use attestation_verifier::policy::{check_ids, fixed_checks};
use touchstone_formats::evidence::{Evidence, Tee};

#[allow(dead_code)]
mod case;
/// Judgements again, by a verifier that knows what was judged before.
#[path = "../common/warm.rs"]
mod warm;

use case::{Case, Expected, Inputs, word};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/corpus")
}

fn cases(of: &Path, found: &mut Vec<(PathBuf, Case)>) {
    for entry in fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            cases(&path, found);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let case =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            found.push((path, case));
        }
    }
}

fn all() -> Vec<(PathBuf, Case)> {
    let mut found = Vec::new();
    cases(&folder().join("cases"), &mut found);
    found
}

fn inputs(case: &Case) -> Inputs {
    let mut file = touchstone_formats::jcs::to_vec(&case.evidence).unwrap();
    file.push(b'\n');
    let read = |path: &String| fs::read(folder().join(path)).unwrap();
    let roots = case.simulated_roots.as_ref().map(read);
    Inputs {
        evidence: Evidence::parse(&file).unwrap(),
        policy: String::from_utf8(read(&case.policy)).unwrap(),
        roots: roots.map_or(Roots::pinned(), |pem| {
            Roots::pinned().with_simulated_pem(&pem).unwrap()
        }),
        report_data: case.report_data.as_ref().map(|text| {
            let bytes = hex::decode(text).unwrap();
            bytes.try_into().unwrap()
        }),
        time: parse_rfc3339(&case.at).unwrap(),
    }
}

#[test]
fn every_case_comes_out_as_it_says() {
    let mut wrong = Vec::new();
    for (path, case) in all() {
        assert_eq!(case.v, "touchstone/corpus/1", "{}", path.display());
        let verdict = inputs(&case).judge();
        let found = Expected {
            verdict: word(&verdict),
            exit: verdict.exit(),
            deciding: verdict.deciding().map(str::to_owned),
        };
        if found != case.expected {
            wrong.push(format!("{} ({}): {found:?}", path.display(), case.says));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// No check goes without a case in which it decides.
#[test]
fn every_check_decides_a_case() {
    let cases = all();
    let deciding: BTreeSet<&str> = cases
        .iter()
        .filter_map(|(_, case)| case.expected.deciding.as_deref())
        .collect();
    for spec in [Tee::SevSnp, Tee::Tdx].into_iter().flat_map(check_ids) {
        assert!(deciding.contains(spec.id), "no case about {}", spec.id);
    }
    let of_evidence = |id: &str| id.starts_with("snp.") || id.starts_with("tdx.");
    for check in fixed_checks().iter().filter(|check| of_evidence(check.id)) {
        assert!(deciding.contains(check.id), "no case about {}", check.id);
    }
    assert!(cases.len() >= 300, "only {} cases", cases.len());
}
