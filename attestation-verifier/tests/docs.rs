//! `docs/checks.md` says what the code does: its tables are made from the code's own.
//!
//! After a change of the tables run this test once with `TOUCHSTONE_WRITE_DOCS=1`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use attestation_verifier::policy::{CheckSpec, check_ids, fixed_checks};
use touchstone_formats::evidence::Tee;

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/checks.md")
}

/// One table cell.
fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

fn exit(spec: &CheckSpec) -> &'static str {
    if spec.id.ends_with(".chain.crl") {
        "5"
    } else {
        "4"
    }
}

fn policy_table(tee: Tee) -> String {
    let mut out = String::from(
        "| id | holds if | `expect` takes | template | exit | class | source |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for spec in check_ids(tee) {
        let class = match (spec.id, spec.operations) {
            ("snp.chain.crl" | "tdx.chain.crl", _) => "retry, operations",
            (_, true) => "operations",
            (_, false) => "policy",
        };
        let template = match spec.id {
            id if id.starts_with("snp.tcb.") && spec.template.len() > 100 => {
                "floors of every product, below".to_owned()
            }
            _ if spec.template.contains(&"0".repeat(96)) => "48 zero bytes".to_owned(),
            _ => format!("`{}`", cell(spec.template)),
        };
        let _ = writeln!(
            out,
            "| `{}` | {} {} | {} | {template} | {} | {class} | {} |",
            spec.id,
            cell(spec.summary),
            cell(spec.why),
            cell(&spec.form.words()),
            exit(spec),
            cell(spec.source)
        );
    }
    out
}

fn fixed_table() -> String {
    let mut out = String::from("| id | holds if | exit | source |\n| --- | --- | --- | --- |\n");
    for check in fixed_checks() {
        let (id, summary) = (check.id, cell(check.summary));
        let _ = writeln!(
            out,
            "| `{id}` | {summary} | {} | {} |",
            check.exit,
            cell(check.source)
        );
    }
    out
}

/// Puts a table between its two markers.
fn put(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = text.split_once(&begin).expect("the marker that begins");
    let (_, after) = rest.split_once(&end).expect("the marker that ends");
    format!("{before}{begin}{table}{end}{after}")
}

#[test]
fn the_document_has_the_codes_tables() {
    let text = std::fs::read_to_string(document()).unwrap();
    let right = put(&text, "checks of a policy", &policy_table(Tee::SevSnp));
    let right = put(
        &right,
        "checks of a policy for TDX",
        &policy_table(Tee::Tdx),
    );
    let right = put(&right, "checks that are always made", &fixed_table());
    if std::env::var_os("TOUCHSTONE_WRITE_DOCS").is_some() {
        std::fs::write(document(), right).unwrap();
        return;
    }
    assert!(
        text == right,
        "docs/checks.md is out of date: see the head of tests/docs.rs"
    );
}

/// Keys of a policy's `[answer]` and `[session]` that comparing and linting name, and that are no checks' ids.
const KEYS: [&str; 11] = [
    "answer.require",
    "answer.nonce",
    "answer.fresh_seconds",
    "answer.models",
    "answer.configs",
    "answer.keyset_span_seconds",
    "answer.collateral_age_seconds",
    "session.answers",
    "session.name",
    "manifest.minimum_version",
    "manifest.signer",
];

/// What looks like an id in the command, in clients and in the collateral's code, and is none: an example of an origin, and files.
const NO_IDS: [&str; 3] = ["log.example", "policy.toml", "response.bin"];

/// Every check id that a verdict can hold, whoever makes it, is in one of the tables, and in one only.
#[test]
fn every_id_in_the_source_is_documented() {
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for id in [Tee::SevSnp, Tee::Tdx]
        .into_iter()
        .flat_map(check_ids)
        .map(|s| s.id)
        .chain(fixed_checks().iter().map(|c| c.id))
    {
        assert!(known.insert(id), "{id} twice");
    }
    let mut written = BTreeSet::new();
    for folder in ["src", "cli/src", "client/src", "collateral/src"] {
        ids_in(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            &mut written,
        );
    }
    assert!(written.len() > 100, "{}", written.len());
    for id in &written {
        assert!(
            known.contains(id.as_str())
                || KEYS.contains(&id.as_str())
                || NO_IDS.contains(&id.as_str()),
            "{id} is written by the source, and documented nowhere"
        );
    }
    for id in known.iter().filter(|id| !id.ends_with(".*")) {
        assert!(
            written.contains(*id),
            "{id} is documented, and made nowhere"
        );
    }
    for none in NO_IDS {
        assert!(
            written.contains(none),
            "{none} is an exception from nothing"
        );
    }
}

/// Strings that look like check ids.
///
/// The tables themselves are no place where an id is made.
fn ids_in(folder: &Path, ids: &mut BTreeSet<String>) {
    const FAMILIES: [&str; 28] = [
        "usage",
        "ohttp.",
        "advisories.",
        "collateral.",
        "expect.",
        "response.",
        "measure.",
        "model.",
        "oms.",
        "show.",
        "verdict.",
        "snp.",
        "bundle.",
        "receipt.",
        "keyset.",
        "log.",
        "guarantees.",
        "opening.",
        "compare.",
        "evidence.",
        "tdx.",
        "root.",
        "session.",
        "connection.",
        "answer.",
        "policy.",
        "manifest.",
        "quote.",
    ];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let table = [
            "policy/fixed",
            "policy/spec",
            "explain/catalogue.rs",
            "doctor/advice.rs",
        ];
        if table.iter().any(|table| path.ends_with(table)) {
            continue;
        }
        if path.is_dir() {
            ids_in(&path, ids);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            // Unit tests stand at the end of a file, and may name checks that there are not.
            let (text, _) = text.split_once("#[cfg(test)]\nmod ").unwrap_or((&text, ""));
            for piece in text.split('"').skip(1).step_by(1) {
                let plain = piece
                    .bytes()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.'));
                let family = FAMILIES.iter().any(|family| piece.starts_with(family));
                // A prefix to compare with, or a file's name, is no id.
                if plain
                    && family
                    && !piece.ends_with('.')
                    && !piece.ends_with(".json")
                    && !piece.ends_with(".onnx")
                {
                    ids.insert(piece.to_owned());
                }
            }
        }
    }
}

/// A simulated platform goes the way of a real one: between bytes and verdict nothing asks which it is.
#[test]
fn nothing_asks_whether_it_is_simulated() {
    let mut sources = Vec::new();
    for stage in ["parse", "authenticate", "appraise", "events"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src")
            .join(stage);
        files(&folder, &mut sources);
    }
    assert!(sources.len() > 25, "{}", sources.len());
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| line.contains("simulated")) {
            let asks = ["if ", "match ", "&&", "||", " !", ".then"]
                .iter()
                .any(|w| line.contains(w));
            assert!(
                !asks || line.trim_start().starts_with("//"),
                "{}: {line}",
                path.display()
            );
        }
    }
}

/// All files of a folder and the folders in it.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}
