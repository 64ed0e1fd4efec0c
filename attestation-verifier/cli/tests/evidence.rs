//! `evidence` and `appraise` on real hardware's reports, and on files that are none.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Run, policy, touchstone, touchstone_in};
use touchstone_testkit::fixtures;
use touchstone_testkit::machine::Machine;
use touchstone_testkit::snp::Report;

/// The SNP rows of EXPECTED.tsv that have a report, with the time to judge at.
fn real_reports(test: &str) -> Vec<(PathBuf, String)> {
    let Some(root) = fixtures::evidence() else {
        fixtures::skipped(test, "no real evidence (TOUCHSTONE_FIXTURES)");
        return Vec::new();
    };
    let table = std::fs::read_to_string(root.join("EXPECTED.tsv")).expect("EXPECTED.tsv");
    let mut rows = Vec::new();
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let folder = root.join(columns[0]);
        if columns[0].starts_with("snp/") && folder.join("report.bin").exists() {
            assert_eq!(columns[4], "5", "{line}");
            rows.push((folder, columns[3].to_owned()));
        }
    }
    assert!(rows.len() >= 10, "{} rows", rows.len());
    rows
}

/// Every chain file there is: the command has to find out which certificate issued the VEK.
fn make_evidence(folder: &Path, out: &Path) -> Run {
    let amd = folder.parent().unwrap().join("_amd");
    let mut args: Vec<String> = vec!["evidence".into(), "sev-snp".into(), "--report".into()];
    args.push(folder.join("report.bin").display().to_string());
    args.extend(["--vek".into(), folder.join("vek.der").display().to_string()]);
    for product in ["milan", "genoa", "turin"] {
        for file in [
            format!("{product}_ask_ark_asvk.pem"),
            format!("ask_ark_{product}_vlek.pem"),
        ] {
            args.extend(["--chain".into(), amd.join(file).display().to_string()]);
        }
    }
    args.extend(["-o".into(), out.display().to_string()]);
    touchstone(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn real_reports_are_genuine_once_the_policy_says_what_they_are() {
    let work = tempfile::tempdir().unwrap();
    for (folder, at) in real_reports("real_reports_are_genuine_once_the_policy_says_what_they_are")
    {
        let evidence = work.path().join("evidence.json");
        let made = make_evidence(&folder, &evidence);
        assert_eq!(made.code, 0, "{}: {}", folder.display(), made.stderr);
        let judge = |policy: &str| {
            std::fs::write(work.path().join("p.toml"), policy).unwrap();
            touchstone_in(
                work.path(),
                &[
                    "appraise",
                    "evidence.json",
                    "--policy",
                    "p.toml",
                    "--at",
                    &at,
                    "--json",
                ],
            )
        };
        // No CRL is among the files, and that is what the strict template says first.
        judge(&policy(&[])).refused(5, "snp.chain.crl");
        // Whatever the policy has to say against it is copied from the verdict, until it holds.
        let no_crl = "{ waive = \"no CRL in this archive\" }".to_owned();
        let mut changes = BTreeMap::from([("snp.chain.crl".to_owned(), no_crl)]);
        loop {
            let list: Vec<(&str, &str)> = changes
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect();
            let run = judge(&policy(&list));
            let verdict = run.verdict();
            if run.code == 0 {
                assert_eq!(verdict["simulated"], false);
                assert_eq!(verdict["measurement"].as_str().unwrap().len(), 96);
                assert!(
                    changes.len() > 1,
                    "{}: a real report held by chance",
                    folder.display()
                );
                break;
            }
            assert_eq!(run.code, 4, "{}: {}", folder.display(), run.stderr);
            let failed = verdict["checks"].as_array().unwrap().iter();
            let failed: Vec<&Value> = failed.filter(|c| c["result"] == "fail").collect();
            for check in failed {
                let id = check["id"].as_str().unwrap().to_owned();
                // Floors and identities of somebody else's machine are expected as found; what only a
                // weaker policy could accept is waived.
                let value = match &check["found"] {
                    Value::Null | Value::Object(_) => {
                        "{ waive = \"another's archive\" }".to_owned()
                    }
                    found => format!("{{ expect = {found} }}"),
                };
                let before = changes.insert(id.clone(), value.clone());
                assert_ne!(
                    before.as_deref(),
                    Some(value.as_str()),
                    "{id} still refuses"
                );
            }
        }
    }
}

#[test]
fn one_bit_of_a_real_report_is_enough() {
    let rows = real_reports("one_bit_of_a_real_report_is_enough");
    let work = tempfile::tempdir().unwrap();
    for (folder, at) in rows.into_iter().take(2) {
        let evidence = work.path().join("evidence.json");
        assert_eq!(make_evidence(&folder, &evidence).code, 0);
        let report = std::fs::read(folder.join("report.bin")).unwrap();
        let file = std::fs::read_to_string(&evidence).unwrap();
        let base64 = |bytes: &[u8]| touchstone_formats::text::base64_encode(bytes);
        assert!(file.contains(&base64(&report)));
        std::fs::write(work.path().join("p.toml"), policy(&[])).unwrap();
        // The bytes at which a widely used library does not notice, and one of the measurement.
        for byte in [58, 61, 386, 389, 482, 485, 498, 501, 0x90] {
            let mut lie = report.clone();
            lie[byte] ^= 1;
            let lie = file.replace(&base64(&report), &base64(&lie));
            std::fs::write(work.path().join("lie.json"), lie).unwrap();
            let args = [
                "appraise", "lie.json", "--policy", "p.toml", "--at", &at, "--json",
            ];
            let run = touchstone_in(work.path(), &args);
            run.verdict();
            assert!(matches!(run.code, 2 | 3), "byte {byte}: {}", run.stderr);
        }
    }
}

/// A simulated machine's report and collateral as files.
fn machine_files(folder: &Path) -> Machine {
    let now = 1_790_000_000;
    let machine = Machine::new(touchstone_testkit::amd::Product::Genoa, 5, now);
    machine.write_to(folder).unwrap();
    std::fs::write(folder.join("report.bin"), machine.quote([7; 64])).unwrap();
    machine
}

const MAKE: [&str; 12] = [
    "evidence",
    "sev-snp",
    "--report",
    "report.bin",
    "--vek",
    "collateral/vek.der",
    "--chain",
    "collateral/chain/ask.der",
    "--crl",
    "collateral/crls/ark.der",
    "-o",
    "evidence.json",
];

#[test]
fn simulated_evidence_needs_its_root_and_its_report_data() {
    let work = tempfile::tempdir().unwrap();
    let machine = machine_files(work.path());
    assert_eq!(touchstone_in(work.path(), &MAKE).code, 0);
    let measurement = format!(
        "{{ expect = \"{}\" }}",
        hex::encode(machine.report.measurement)
    );
    std::fs::write(
        work.path().join("p.toml"),
        policy(&[("snp.measurement", &measurement)]),
    )
    .unwrap();
    let judge = |more: &[&str]| {
        let mut args = vec!["appraise", "evidence.json", "--policy", "p.toml", "--json"];
        args.extend(["--at", "2026-09-21T14:13:20Z"]);
        args.extend(more);
        touchstone_in(work.path(), &args)
    };
    let data = "07".repeat(64);
    let other = "08".repeat(64);
    let root = ["--trust-simulated-root", "root.pem"];
    assert_eq!(
        judge(&[&root[..], &["--report-data", &data]].concat()).verdict()["exit"],
        6
    );
    judge(&[&root[..], &["--report-data", &other]].concat()).refused(3, "evidence.report_data");
    judge(&["--report-data", &data]).refused(3, "snp.chain.root");
    // Other systems' evidence binds something we do not know: allowed here, never in a bundle.
    assert_eq!(judge(&root).verdict()["exit"], 6);
    let missing = judge(&[&root[..], &["--at", "2026-09-21T14:13:20Z"]].concat());
    assert_eq!(missing.code, 1, "an option given twice");
}

#[test]
fn certificates_come_as_der_or_pem_in_any_company() {
    let work = tempfile::tempdir().unwrap();
    let machine = machine_files(work.path());
    let pem = touchstone_testkit::amd::pem;
    let ask = std::fs::read(work.path().join("collateral/chain/ask.der")).unwrap();
    let chain = [machine.pki.ark_der(), machine.pki.asvk_der(), ask];
    let all: String = chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
    std::fs::write(work.path().join("all.pem"), all).unwrap();
    let crl = std::fs::read(work.path().join("collateral/crls/ark.der")).unwrap();
    std::fs::write(work.path().join("crl.pem"), pem("X509 CRL", &crl)).unwrap();
    let vek = std::fs::read(work.path().join("collateral/vek.der")).unwrap();
    std::fs::write(work.path().join("vek.pem"), pem("CERTIFICATE", &vek)).unwrap();

    assert_eq!(touchstone_in(work.path(), &MAKE).code, 0);
    let der = std::fs::read(work.path().join("evidence.json")).unwrap();
    let mut args = MAKE;
    (args[5], args[7], args[9]) = ("vek.pem", "all.pem", "crl.pem");
    let run = touchstone_in(work.path(), &args);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let pem = std::fs::read(work.path().join("evidence.json")).unwrap();
    assert!(
        pem == der,
        "the same evidence, the root and the other intermediate left out"
    );
}

#[test]
fn files_that_are_something_else_are_malformed_and_named() {
    let work = tempfile::tempdir().unwrap();
    machine_files(work.path());
    assert_eq!(touchstone_in(work.path(), &MAKE).code, 0);
    let honest = std::fs::read(work.path().join("report.bin")).unwrap();
    let with = |tail: &[u8]| [&honest[..], tail].concat();
    std::fs::write(work.path().join("padded.bin"), with(&[0; 100])).unwrap();
    std::fs::write(work.path().join("text.bin"), with(b"text")).unwrap();
    std::fs::write(work.path().join("short.bin"), &honest[1..]).unwrap();
    std::fs::write(work.path().join("long.bin"), with(&[0; 8193])).unwrap();
    let mut args = MAKE;
    args[3] = "padded.bin";
    assert_eq!(
        touchstone_in(work.path(), &args).code,
        0,
        "appended zero bytes are stripped"
    );
    for (place, file) in [
        (3, "text.bin"),
        (3, "short.bin"),
        (3, "long.bin"),
        (5, "report.bin"),
        (7, "collateral/crls/ark.der"),
        (9, "collateral/vek.der"),
    ] {
        let mut args = MAKE;
        args[place] = file;
        let run = touchstone_in(work.path(), &args);
        assert_eq!(run.code, 2, "{file}: {}", run.stderr);
        assert!(run.stderr.contains(file), "{}", run.stderr);
    }
    let mut args = MAKE;
    args[3] = "missing.bin";
    let run = touchstone_in(work.path(), &args);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("missing.bin"));
}

#[test]
fn show_describes_reports_certificates_and_evidence() {
    let work = tempfile::tempdir().unwrap();
    let machine = machine_files(work.path());
    touchstone_in(work.path(), &MAKE);
    std::fs::write(work.path().join("policy.toml"), policy(&[])).unwrap();
    let measurement = hex::encode(machine.report.measurement);
    for (file, says) in [
        ("report.bin", measurement.as_str()),
        ("evidence.json", measurement.as_str()),
        ("collateral/vek.der", "SEV-VCEK"),
        ("collateral/chain/ask.der", "SIM-SEV-Genoa"),
        ("collateral/crls/ark.der", "revocation list"),
        ("root.pem", "SIM-ARK-Genoa"),
        ("policy.toml", "snp.policy.debug: false"),
    ] {
        let run = touchstone_in(work.path(), &["show", file]);
        assert_eq!(run.code, 0, "{file}: {}", run.stderr);
        assert!(run.stdout.contains(says), "{file}: {}", run.stdout);
    }
    for (file, bytes) in [
        ("zeros", vec![0; 1184]),
        ("text", b"hello\n".to_vec()),
        ("json", b"{\"a\":1}\n".to_vec()),
        ("empty", Vec::new()),
        (
            "short",
            Report::new(touchstone_testkit::amd::Product::Genoa, 3).to_bytes()[1..].to_vec(),
        ),
    ] {
        std::fs::write(work.path().join(file), bytes).unwrap();
        let run = touchstone_in(work.path(), &["show", file]);
        assert_eq!(run.code, 2, "{file}: {}", run.stdout);
        assert!(run.stderr.contains(file));
    }
}
