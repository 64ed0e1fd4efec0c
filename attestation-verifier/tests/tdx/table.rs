//! The table of real evidence that is not committed, EXPECTED.tsv.

use std::path::Path;

use attestation_verifier::dates::parse_rfc3339;
use touchstone_formats::evidence::Evidence;

use crate::support::{V5_TIME, collateral, evidence, file};

/// A row of EXPECTED.tsv.
pub struct Row {
    /// Its folder.
    pub name: String,
    /// Quote and collateral.
    pub evidence: Evidence,
    /// Time of judgement.
    pub time: u64,
    /// Exit code under the strict template.
    pub exit: u8,
}

/// A quote without the zeros that a source appended; one with anything else behind its end stays as it is.
pub fn stripped(quote: Vec<u8>) -> Vec<u8> {
    let mut short = quote.clone();
    while short.last() == Some(&0) {
        short.pop();
    }
    // The end of a PCK chain is a zero byte or a new line, so that a byte too many may have gone.
    (0..=1)
        .map(|zeros| [short.clone(), vec![0; zeros]].concat())
        .find(|quote| attestation_verifier::parse::tdx::Quote::parse(quote).is_ok())
        .unwrap_or(quote)
}

/// The rows of TDX.
pub fn rows(root: &Path) -> Vec<Row> {
    let table = std::fs::read_to_string(root.join("EXPECTED.tsv")).unwrap();
    let rows = table.lines().skip(1).filter(|row| row.starts_with("tdx/"));
    rows.map(|row| {
        let columns: Vec<&str> = row.split('\t').collect();
        let [name, _, beside, at, exit, ..] = columns[..] else {
            panic!("{row}")
        };
        let beside = match beside.split(' ').next().unwrap() {
            "none" => None,
            "its" => Some(format!("{name}/collateral.json")),
            path if path.contains('/') => Some(format!("tdx/{path}")),
            folder => Some(format!("tdx/{folder}/collateral.json")),
        };
        let beside = beside.map(|path| collateral(&file(root.join(path))));
        let quote = stripped(file(root.join(name).join("quote.bin")));
        Row {
            name: name.to_owned(),
            evidence: evidence(quote, beside),
            time: parse_rfc3339(at).unwrap_or(V5_TIME),
            exit: exit.parse().unwrap(),
        }
    })
    .collect()
}
