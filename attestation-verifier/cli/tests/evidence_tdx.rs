//! `evidence tdx` and `appraise` on real hardware's quotes: every TDX row of EXPECTED.tsv, with the exit code under
//! the strict template, and whether anything but a weaker template makes it hold.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Run, touchstone, touchstone_in};
use touchstone_testkit::fixtures;
use touchstone_testkit::policy::edit;

/// A row of EXPECTED.tsv.
struct Row {
    case: String,
    folder: PathBuf,
    collateral: Option<PathBuf>,
    at: String,
    strict: i32,
    needs: String,
}

fn rows(test: &str) -> Vec<Row> {
    let Some(root) = fixtures::evidence() else {
        fixtures::skipped(test, "no real evidence (TOUCHSTONE_FIXTURES)");
        return Vec::new();
    };
    let table = std::fs::read_to_string(root.join("EXPECTED.tsv")).expect("EXPECTED.tsv");
    let mut rows = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("tdx/")) {
        let columns: Vec<&str> = line.split('\t').collect();
        let folder = root.join(columns[0]);
        // `its own`, `none`, a path, or a folder with words after it.
        let collateral = match columns[2].split(' ').next().unwrap() {
            "its" => Some(folder.join("collateral.json")),
            "none" => None,
            path if path.ends_with(".json") => Some(root.join("tdx").join(path)),
            other => Some(root.join("tdx").join(other).join("collateral.json")),
        };
        let at = match columns[3] {
            "any" => "2026-01-15T00:00:00Z",
            at => at,
        };
        rows.push(Row {
            case: columns[0].to_owned(),
            folder,
            collateral,
            at: at.to_owned(),
            strict: columns[4].parse().expect("an exit code"),
            needs: columns[5].to_owned(),
        });
    }
    assert!(rows.len() >= 13, "{} rows", rows.len());
    rows
}

fn make_evidence(row: &Row, out: &Path) -> Run {
    let quote = row.folder.join("quote.bin");
    let mut args = vec![
        "evidence".into(),
        "tdx".into(),
        "--quote".into(),
        quote.display().to_string(),
    ];
    if let Some(collateral) = &row.collateral {
        args.extend(["--collateral".into(), collateral.display().to_string()]);
    }
    for log in ["CCEL_data", "getquote.json"] {
        let log = row.folder.join(log);
        if log.exists() {
            args.extend(["--event-log".into(), log.display().to_string()]);
        }
    }
    args.extend(["-o".into(), out.display().to_string()]);
    touchstone(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Checks that say who somebody's TD is, and not how safe.
fn identifies(id: &str) -> bool {
    let names = [
        "tdx.mrtd",
        "tdx.rtmr",
        "tdx.event_log",
        "tdx.mr_config_id",
        "tdx.mr_owner",
        "tdx.tcb.evaluation_number",
    ];
    names.iter().any(|name| id.starts_with(name))
}

#[test]
fn real_quotes_are_judged_as_expected() {
    let test = "real_quotes_are_judged_as_expected";
    let work = tempfile::tempdir().unwrap();
    let evidence = work.path().join("evidence.json");
    let template = touchstone(&["policy", "init", "--tee", "tdx"]).stdout;
    let mut held = Vec::new();
    for row in rows(test) {
        let made = make_evidence(&row, &evidence);
        if row.strict == 2 {
            assert_eq!(
                (made.code, row.needs.as_str()),
                (2, "never"),
                "{}: {}",
                row.case,
                made.stderr
            );
            assert!(made.stderr.contains("quote.bin"), "{}", made.stderr);
            continue;
        }
        assert_eq!(made.code, 0, "{}: {}", row.case, made.stderr);
        let judge = |changes: &BTreeMap<String, String>| {
            let list: Vec<(&str, &str)> = changes
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect();
            std::fs::write(work.path().join("p.toml"), edit(&template, &list)).unwrap();
            let args = [
                "appraise",
                "evidence.json",
                "--policy",
                "p.toml",
                "--at",
                &row.at,
                "--json",
            ];
            touchstone_in(work.path(), &args)
        };
        let strict = judge(&BTreeMap::new());
        let deciding = strict.verdict()["deciding"].clone();
        assert_eq!(
            strict.code, row.strict,
            "{}: {deciding}: {}",
            row.case, strict.stderr
        );

        // Whatever the policy has to say against it is expected as found or waived, as long as that changes anything.
        let mut changes = BTreeMap::new();
        let end = loop {
            let run = judge(&changes);
            let verdict = run.verdict();
            let checks = verdict["checks"].as_array().unwrap();
            let failed: Vec<&Value> = checks.iter().filter(|c| c["result"] == "fail").collect();
            let mut more = false;
            for check in failed {
                let id = check["id"].as_str().unwrap();
                if !template.contains(&format!("\n\"{id}\" = ")) {
                    continue;
                }
                let value = match &check["found"] {
                    Value::Null | Value::Object(_) => "{ waive = \"another's archive\" }".into(),
                    _ if id == "tdx.tcb.grace" => {
                        "{ waive = \"another's archive\", until = \"2030-01-01\" }".into()
                    }
                    found => format!("{{ expect = {found} }}"),
                };
                more |= changes.insert(id.to_owned(), value).is_none();
            }
            if !more {
                break run;
            }
        };
        let verdict = end.verdict();
        match row.needs.as_str() {
            "never" | "-" => assert_ne!(end.code, 0, "{}", row.case),
            // What it takes is not said, only that the template refuses it.
            "not needed" => {}
            needs => {
                assert_eq!(
                    end.code, 0,
                    "{}: {}: {}",
                    row.case, verdict["deciding"], end.stderr
                );
                assert_eq!(verdict["simulated"], false);
                held.push(row.case.clone());
                let other: Vec<&str> = changes
                    .keys()
                    .map(String::as_str)
                    .filter(|id| !identifies(id))
                    .collect();
                let expected: &[&str] = match needs.split(';').next().unwrap() {
                    "measurements as found" => &[],
                    "status" => &["tdx.tcb.advisories", "tdx.tcb.grace", "tdx.tcb.status"],
                    // A platform of the same family at the same level as the one before.
                    "SEPT_VE_DISABLE" => &[
                        "tdx.attributes.sept_ve_disable",
                        "tdx.tcb.advisories",
                        "tdx.tcb.grace",
                        "tdx.tcb.status",
                    ],
                    other => panic!("{other}"),
                };
                assert_eq!(other, expected, "{}", row.case);
            }
        }
    }
    assert!(held.is_empty() || held.len() == 5, "{held:?}");
}
