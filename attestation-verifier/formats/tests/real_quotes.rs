//! REPORT_DATA and event logs of real quotes, where the collection of real evidence is at hand.

use std::path::{Path, PathBuf};
use touchstone_formats::Tee;
use touchstone_formats::evidence::{EventLog, quote_report_data};
use touchstone_formats::text::{Base64Bytes, hex_encode};

/// The folder that `TOUCHSTONE_FIXTURES` names, else `../shared/fixtures` beside the workspace.
fn fixtures(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TOUCHSTONE_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: {test}: no folder of fixtures");
    None
}

#[test]
fn report_data_is_found_in_every_layout() {
    let Some(folder) = fixtures("report_data_is_found_in_every_layout") else {
        return;
    };
    let read = |path: &str| std::fs::read(folder.join(path)).unwrap();
    for (path, start) in [
        ("tdx/automata-v4/quote.bin", 568),
        ("tdx/trustee-quote4/quote.bin", 568),
        ("tdx/automata-v5/quote.bin", 574),
        ("tdx/go-tdx-guest-v5/quote.bin", 574),
    ] {
        let quote = read(path);
        let found = quote_report_data(Tee::Tdx, &quote).unwrap();
        assert_eq!(found, quote[start..start + 64], "{path}");
        assert_eq!(quote_report_data(Tee::SevSnp, &quote), None);
    }
    // An SGX quote is none of ours.
    assert_eq!(
        quote_report_data(Tee::Tdx, &read("tdx/dcapqvl-sgx-v3/quote.bin")),
        None
    );
    // dstack says beside the quote what it asked for.
    let answer: serde_json::Value =
        serde_json::from_slice(&read("tdx/dstack-lite/getquote.json")).unwrap();
    let quote = read("tdx/dstack-lite/quote.bin");
    assert_eq!(
        hex_encode(&quote_report_data(Tee::Tdx, &quote).unwrap()),
        answer["report_data"].as_str().unwrap()
    );
    let report = read("snp/trustee-milan-v2/report.bin");
    assert_eq!(
        quote_report_data(Tee::SevSnp, &report).unwrap(),
        report[0x50..0x90]
    );
}

#[test]
fn a_real_event_log_is_trimmed() {
    let Some(folder) = fixtures("a_real_event_log_is_trimmed") else {
        return;
    };
    // One mebibyte as the ACPI table describes it, most of it padding.
    let data = std::fs::read(folder.join("tdx/trustee-quote4/CCEL_data")).unwrap();
    let log = EventLog {
        format: "ccel".into(),
        data: Base64Bytes(data),
    };
    assert_eq!((log.data.0.len(), log.trimmed().len()), (1 << 20, 5756));
    log.check().unwrap();
}
