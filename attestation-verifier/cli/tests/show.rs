//! `show`: every kind of file field by field, as words and as JSON, and nothing that controls a terminal.

mod support;

use serde_json::Value;
use support::{Run, touchstone_in};
use touchstone_formats::Evidence;
use touchstone_testkit::machine::TdxMachine;
use touchstone_testkit::mint::World;
use touchstone_testkit::tdx::TdReport;

/// Shows bytes, as words or with more options.
fn show(bytes: &[u8], more: &[&str]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), bytes).unwrap();
    touchstone_in(folder.path(), &[&["show", "file"], more].concat())
}

fn json(bytes: &[u8]) -> Value {
    let run = show(bytes, &["--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 1);
    let value: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        (value["v"].as_str(), &value["judged"]),
        (Some("touchstone/show/1"), &Value::Bool(false))
    );
    value
}

/// The first line of this name, anywhere.
fn find<'a>(parts: &'a Value, name: &str) -> Option<&'a Value> {
    parts.as_array()?.iter().find_map(|line| {
        if line["name"] == name {
            return Some(line);
        }
        find(line.get("parts")?, name)
    })
}

#[test]
fn reports_and_quotes_field_by_field() {
    let report = World::new(1).machine.quote([9; 64]);
    let words = show(&report, &[]).stdout;
    assert!(words.contains("0x000 VERSION              5\n"), "{words}");
    assert!(words.contains(": ABI from 0.0; SMT\n"), "{words}");
    assert!(words.ends_with("Nothing of this has been judged.\n"));
    let value = json(&report);
    let data = find(&value["parts"], "REPORT_DATA").unwrap();
    assert_eq!(data["offset"], 0x50);
    assert_eq!(data["value"], "09".repeat(64));

    for (version, td, offset) in [(4, TdReport::v1_0(), 568), (5, TdReport::v1_5(), 574)] {
        let quote = TdxMachine::new(version, td, World::AT).quote([5; 64]);
        let value = json(&quote);
        let data = find(&value["parts"], "REPORTDATA").unwrap();
        assert_eq!(
            (&data["offset"], &data["value"]),
            (&offset.into(), &"05".repeat(64).into())
        );
        assert!(find(&value["parts"], "FMSPC").is_some());
        let words = show(&quote, &[]).stdout;
        assert!(
            words.contains("TDATTRIBUTES") && words.contains("SEPT_VE_DISABLE"),
            "{words}"
        );
    }
}

#[test]
fn what_is_malformed_is_named_by_byte_and_field() {
    let mut report = World::new(1).machine.quote([9; 64]);
    report[0x29f] = 1;
    let run = show(&report, &["--json"]);
    run.refused(2, "show.format");
    assert!(
        run.stderr.contains("file") && run.stderr.contains("byte 0x29f, reserved"),
        "{}",
        run.stderr
    );
    let mut quote = TdxMachine::new(5, TdReport::v1_5(), World::AT).quote([5; 64]);
    quote.push(1);
    let run = show(&quote, &["--json"]);
    run.refused(2, "show.format");
    assert!(
        run.stderr
            .contains(&format!("byte 0x{:03x}, quote", quote.len() - 1)),
        "{}",
        run.stderr
    );
    quote.pop();
    assert_eq!(show(&quote, &[]).code, 0);
}

/// Quotes and reports as most sources give them; `evidence` strips the same.
#[test]
fn zero_bytes_that_a_source_appended_are_passed_over() {
    let report = World::new(1).machine.quote([9; 64]);
    let quote = |version, td| TdxMachine::new(version, td, World::AT).quote([5; 64]);
    for bytes in [
        report,
        quote(4, TdReport::v1_0()),
        quote(5, TdReport::v1_5()),
    ] {
        let plain = show(&bytes, &[]).stdout;
        let padded = |zeros: usize| show(&[&bytes[..], &vec![0; zeros]].concat(), &[]);
        for zeros in [1, 70, 8192] {
            let run = padded(zeros);
            assert_eq!(run.code, 0, "{}", run.stderr);
            let line = format!("Zero bytes after its end: {zeros}\n");
            assert_eq!(run.stdout, line + &plain);
        }
        assert_eq!(padded(8193).code, 2);
    }
}

#[test]
fn evidence_bundles_and_verdicts() {
    let world = World::new(1);
    let minted = world.exchange();
    let value = json(&minted.file());
    let bundle = find(&value["parts"], "A bundle").unwrap();
    assert_eq!(
        find(&bundle["parts"], "Evidence objects").unwrap()["value"],
        "2"
    );
    assert_eq!(
        find(&bundle["parts"], "MEASUREMENT").unwrap()["offset"],
        0x90
    );
    assert_eq!(
        find(&bundle["parts"], "keyset").unwrap()["value"],
        minted.bundle.keyset.digest().to_string()
    );
    let evidence: &Evidence = &minted.bundle.evidence[0];
    let words = show(&evidence.to_file(), &[]).stdout;
    for part in [
        "Attestation evidence\n",
        "  TEE: sev-snp\n",
        "productName: Genoa",
        "thisUpdate: ",
        "0x090 MEASUREMENT",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
}

/// Names in certificates, keysets and notices are their makers'.
#[test]
fn nothing_shown_controls_a_terminal() {
    let mut world = World::new(1);
    world.keyset.name = "a\u{1b}[2Jb\nHOLDS".into();
    let minted = world.exchange();
    let words = show(&minted.file(), &[]).stdout;
    assert!(words.contains("a\\u{1b}[2Jb\\nHOLDS"), "{words}");
    assert!(!words.contains('\u{1b}') && !words.contains("\nHOLDS"));
}
