//! Quote agents that fail, lie and flood.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use ring::digest::{SHA256, SHA512, digest};
use touchstone_testkit::machine::{Machine, TeeMachine};
use touchstone_testkit::platform::Fault;

use crate::running::{NOW, Place, doctor};

#[test]
fn every_fault_of_an_agent_is_told() {
    let place = Place::new(Machine::strict(NOW));
    for fault in Fault::ALL {
        place.platform.set_fault(fault, None);
        let found = place.doctor(&["--timeout", "1"]);
        let (state, exit, id) = match fault {
            Fault::Busy | Fault::Fail | Fault::Hang => ("failed", 7, "quote.source"),
            Fault::Lie => ("wrong-report-data", 3, "evidence.report_data"),
            Fault::Garbage
            | Fault::Close
            | Fault::WrongTee
            | Fault::Truncate
            | Fault::Flood
            | Fault::WrongVersion => ("malformed", 2, "quote.answer"),
        };
        assert_eq!(found.source("quote-agent")["state"], state, "{fault:?}");
        assert_eq!(
            (found.exit(), found.deciding()),
            (exit, Some(id)),
            "{fault:?}"
        );
        assert!(found.json["quote"].is_null(), "{fault:?}");
        assert_eq!(found.guarantee("signed"), "no");
    }
    // The same agent when it behaves.
    place.platform.clear_fault();
    assert_eq!(place.with_collateral().exit(), 6);
}

/// Answers one line to one request.
fn answering(socket: &Path, answer: Vec<u8>) -> std::thread::JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap())
            .read_line(&mut line)
            .unwrap();
        let _ = stream.write_all(&answer);
    })
}

#[test]
fn what_agents_say_is_bounded_and_harmless() {
    let long = "\u{1b}[31m\u{202e}A".repeat(200_000);
    let message = serde_json::to_string(&long).unwrap();
    let v = r#""v":"touchstone/quote-agent/1""#;
    for (answer, exit) in [
        (
            format!(r#"{{{v},"error":"failed","message":{message}}}"#),
            7,
        ),
        (format!(r#"{{{v},{message}:1}}"#), 2),
        (format!(r#"{{{v},"tee":{message},"quote":"AAAA"}}"#), 2),
        (
            format!(
                r#"{{{v},"tee":"sev-snp","quote":"{}"}}"#,
                "A".repeat(1 << 20)
            ),
            2,
        ),
        ("[".repeat(1 << 20), 2),
        (String::new(), 2),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let thread = answering(
            &folder.path().join("agent.sock"),
            (answer + "\n").into_bytes(),
        );
        let found = doctor(folder.path(), &["--root", ".", "--agent", "agent.sock"]);
        thread.join().unwrap();
        assert_eq!(found.exit(), exit, "{}", found.words);
        let said = found.source("quote-agent")["found"].as_str().unwrap();
        assert!(said.chars().count() <= 400, "{}", said.len());
        assert!(found.words.len() < 10_000, "{}", found.words.len());
        assert!(!found.words.contains(['\u{1b}', '\u{202e}']));
    }
}

/// Each run asks over other bytes, which are those of docs/formats.md §3, and of no purpose of an enclave's.
#[test]
fn report_data_is_fresh_and_of_no_purpose() {
    let place = Place::new(Machine::strict(NOW));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let found = place.doctor(&[]);
        let nonce = hex::decode(found.json["nonce"].as_str().unwrap()).unwrap();
        assert_eq!(nonce.len(), 32);
        let nonce = hex::encode(digest(&SHA256, &nonce));
        let text = format!("touchstone/doctor/v1\nnonce sha256:{nonce}\n");
        let expected = hex::encode(digest(&SHA512, text.as_bytes()));
        assert_eq!(found.json["report_data"], expected.as_str());
        assert!(seen.insert(expected));
    }
}
