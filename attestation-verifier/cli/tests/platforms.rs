//! docs/platforms.md names default checks that platforms fail: held to the verdicts on real evidence.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use attestation_verifier::explain;
use support::{touchstone, touchstone_in};
use touchstone_formats::Digest;
use touchstone_testkit::fixtures;

/// What everybody has to fill in, and what nobody publishes beside evidence.
const LEFT_OUT: [&str; 6] = [
    "snp.measurement",
    "snp.chain.crl",
    "tdx.mrtd",
    "tdx.rtmr0",
    "tdx.rtmr1",
    "tdx.rtmr2",
];

/// The rows of a table between its markers, without its head.
fn rows(page: &str, name: &str) -> Vec<Vec<String>> {
    let (_, rest) = page.split_once(&format!("<!-- {name} -->\n")).unwrap();
    let (table, _) = rest.split_once(&format!("<!-- end of {name} -->")).unwrap();
    let cells = |row: &str| {
        let row = row.trim().trim_start_matches('|').trim_end_matches('|');
        row.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    table.lines().skip(2).map(cells).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn page() -> String {
    fs::read_to_string(fixtures::workspace_root().join("docs/platforms.md")).unwrap()
}

#[test]
fn every_check_that_is_named_exists() {
    let page = page();
    let platforms = rows(&page, "platforms");
    assert!(platforms.len() >= 10, "{}", platforms.len());
    let named = platforms
        .iter()
        .map(|row| &row[5])
        .chain(
            rows(&page, "real evidence")
                .iter()
                .map(|row| &row[2])
                .cloned()
                .collect::<Vec<_>>()
                .iter(),
        )
        .flat_map(|cell| quoted(cell))
        .collect::<BTreeSet<String>>();
    assert!(named.len() > 15, "{named:?}");
    for id in named {
        assert!(explain::about(&id).is_some(), "{id} is no check");
    }
}

/// Makes an evidence file of a fixture.
fn make(root: &Path, name: &str, collateral: &str, out: &Path) {
    let folder = root.join(name);
    let path = |file: &str| folder.join(file).display().to_string();
    let mut args: Vec<String> = vec!["evidence".into()];
    if name.starts_with("snp/") {
        args.extend(["sev-snp".into(), "--report".into(), path("report.bin")]);
        args.extend(["--vek".into(), path("vek.der")]);
        for chain in fs::read_dir(root.join("snp/_amd")).unwrap() {
            let chain = chain.unwrap().path().display().to_string();
            args.extend(["--chain".into(), chain]);
        }
    } else {
        args.extend(["tdx".into(), "--quote".into(), path("quote.bin")]);
        let file = match collateral.split(' ').next().unwrap() {
            "its" => folder.join("collateral.json"),
            file if file.ends_with(".json") => root.join("tdx").join(file),
            folder => root.join("tdx").join(folder).join("collateral.json"),
        };
        args.extend(["--collateral".into(), file.display().to_string()]);
    }
    args.extend(["-o".into(), out.display().to_string()]);
    let run = touchstone(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(run.code, 0, "{name}: {}", run.stderr);
}

#[test]
fn real_evidence_fails_the_checks_that_the_page_names() {
    let test = "real_evidence_fails_the_checks_that_the_page_names";
    let Some(root) = fixtures::evidence() else {
        fixtures::skipped(test, "no real evidence (TOUCHSTONE_FIXTURES)");
        return;
    };
    let expected = fs::read_to_string(root.join("EXPECTED.tsv")).unwrap();
    let cases: BTreeMap<&str, Vec<&str>> = expected
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .map(|columns| (columns[0], columns))
        .collect();
    let page = page();
    let platforms: BTreeMap<String, BTreeSet<String>> = rows(&page, "platforms")
        .into_iter()
        .map(|row| (row[0].clone(), quoted(&row[5])))
        .collect();
    let work = tempfile::tempdir().unwrap();
    for tee in ["sev-snp", "tdx"] {
        let made = ["policy", "init", "--tee", tee, "-o", &format!("{tee}.toml")];
        assert_eq!(touchstone_in(work.path(), &made).code, 0);
    }
    // What an enclave would have asked for.
    let asked = "5a".repeat(64);
    let mut seen = BTreeSet::new();
    for row in rows(&page, "real evidence") {
        let name = quoted(&row[0]).into_iter().next().unwrap();
        let case = &cases[name.as_str()];
        let out = work.path().join("evidence.json");
        let _ = fs::remove_file(&out);
        make(&root, &name, case[2], &out);
        let tee = if name.starts_with("snp/") {
            "sev-snp"
        } else {
            "tdx"
        };
        let (policy, azure) = (format!("{tee}.toml"), row[1].starts_with("Azure"));
        let mut args = vec![
            "appraise",
            "evidence.json",
            "--policy",
            &policy,
            "--at",
            case[3],
            "--json",
        ];
        if azure {
            args.extend(["--report-data", &asked]);
        }
        let verdict = touchstone_in(work.path(), &args).verdict();
        let found: BTreeSet<String> = verdict["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["result"] == "fail")
            .map(|check| check["id"].as_str().unwrap().to_owned())
            .filter(|id| !LEFT_OUT.contains(&id.as_str()))
            .collect();
        assert_eq!(found, quoted(&row[2]), "{name}");
        // It is authentic all the same: nothing fails but with exit 4, 5 for lack of revocation lists, and 3 for
        // REPORT_DATA that is not what was asked for.
        match verdict["exit"].as_i64().unwrap() {
            3 => assert_eq!(verdict["deciding"], "evidence.report_data", "{name}"),
            exit => assert!(!azure && [4, 5].contains(&exit), "{name}: {exit}"),
        }
        // What a platform fails by how it is made, its evidence fails.
        if let Some(made) = platforms.get(&row[1]) {
            assert!(made.is_subset(&found), "{name}: {made:?} {found:?}");
            seen.insert(row[1].clone());
        }
    }
    assert!(seen.len() >= 5, "{seen:?}");
}

/// Why `evidence.report_data` cannot hold on Azure: REPORT_DATA is the hash of the paravisor's own text.
#[test]
fn azures_report_data_is_of_the_paravisors_text() {
    let test = "azures_report_data_is_of_the_paravisors_text";
    let Some(root) = fixtures::evidence() else {
        fixtures::skipped(test, "no real evidence (TOUCHSTONE_FIXTURES)");
        return;
    };
    for (folder, blob) in [
        ("snp/azure-genoa", "hcl_report.bin"),
        ("snp/azure-v0", "hcl_report.bin"),
        ("snp/azure-hcl-raw", "hcl-report.bin"),
    ] {
        let blob = fs::read(root.join(folder).join(blob)).unwrap();
        let report = fs::read(root.join(folder).join("report.bin")).unwrap();
        assert!(
            blob.starts_with(b"HCLA") && blob[0x20..].starts_with(&report),
            "{folder}"
        );
        let text = &blob[0x20 + report.len()..];
        let start = text.windows(2).position(|w| w == b"{\"").unwrap();
        let end = text.iter().rposition(|byte| *byte == b'}').unwrap();
        let hash = Digest::of(&text[start..=end]);
        assert_eq!(report[0x50..0x70], hash.0, "{folder}");
        assert_eq!(report[0x70..0x90], [0; 32], "{folder}");
        // VMPL 0 is the paravisor's.
        assert_eq!(report[0x30..0x34], [0; 4], "{folder}");
    }
}
