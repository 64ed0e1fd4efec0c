//! The simulated platform as a test image's kernel module sees it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sev::firmware::host::{CertTableEntry, CertType};
use touchstone_testkit::amd::Product;
use touchstone_testkit::machine::{Endorsement, Machine};
use touchstone_testkit::platform::{
    Fault, PlatformConfig, PlatformHandle, Protocol, SimulatedPlatform,
};
use touchstone_testkit::snp::Report;

const AT: u64 = 1_790_000_000;
/// What a report's signature covers. The signature itself is another one each time.
const SIGNED: usize = 0x2a0;

fn start() -> (tempfile::TempDir, PlatformHandle) {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(Product::Genoa, 5, AT);
    let mut config = PlatformConfig::new(folder.path().join("vm.sock_9000"), machine);
    config.protocol = Protocol::Guest;
    (folder, SimulatedPlatform::start(config).unwrap())
}

/// All that is answered to this, until the end or until nothing more comes.
fn say(socket: &Path, report_data: &[u8]) -> Vec<u8> {
    say_within(socket, report_data, Duration::from_secs(20))
}

/// The same, if it begins to come within so long.
fn say_within(socket: &Path, report_data: &[u8], patience: Duration) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(report_data).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                return answer;
            }
        }
        let rest = Some(Duration::from_millis(500));
        stream.set_read_timeout(rest).unwrap();
    }
}

/// The two blobs of a whole answer, and nothing after them.
fn blobs(answer: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (quote, rest) = blob(answer)?;
    let (certificates, rest) = blob(rest)?;
    rest.is_empty().then_some((quote, certificates))
}

fn blob(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (blob, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((blob.to_vec(), rest))
}

#[test]
fn a_quote_comes_with_amds_certificate_table() {
    let (_folder, platform) = start();
    let (quote, table) = blobs(&say(platform.socket(), &[7; 64])).unwrap();
    let expected = platform.machine().quote([7; 64]);
    assert!(quote.len() == expected.len() && quote[..SIGNED] == expected[..SIGNED]);
    // As another library reads it.
    let entries = CertTableEntry::vec_bytes_to_cert_table(&mut table.clone()).unwrap();
    let files = platform.machine().collateral();
    let found: Vec<_> = entries
        .iter()
        .map(|e| (e.cert_type.clone(), e.data.clone()))
        .collect();
    let expected = [
        (CertType::VCEK, files.vek),
        (CertType::ASK, files.chain[0].clone()),
    ];
    assert_eq!(found, expected);

    platform.change(|machine| {
        machine.endorsement = Endorsement::Vlek {
            csp_id: "CN=cc-x.simulated.invalid".into(),
        };
        machine.reissue();
    });
    let (_, table) = blobs(&say(platform.socket(), &[7; 64])).unwrap();
    let entries = CertTableEntry::vec_bytes_to_cert_table(&mut table.clone()).unwrap();
    assert_eq!(entries[0].cert_type, CertType::VLEK);
    let counters = platform.counters();
    assert_eq!(
        (counters.requests, counters.quotes, counters.faults),
        (2, 2, 0)
    );
}

#[test]
fn every_fault_is_what_its_name_says() {
    let (_folder, platform) = start();
    let honest = platform.machine().quote([7; 64]);
    for fault in Fault::ALL {
        platform.set_fault(fault, Some(1));
        let patience = match fault {
            Fault::Hang => Duration::from_millis(500),
            _ => Duration::from_secs(20),
        };
        let answer = say_within(platform.socket(), &[7; 64], patience);
        let whole = blobs(&answer);
        match fault {
            Fault::Busy => assert!(whole.unwrap().0.is_empty()),
            Fault::Fail | Fault::WrongTee | Fault::WrongVersion | Fault::Hang => {
                assert!(answer.is_empty(), "{fault:?}");
            }
            Fault::Lie => {
                let report = Report::from_bytes(&whole.unwrap().0).unwrap();
                assert_eq!(report.report_data, [!7; 64]);
            }
            Fault::Garbage => assert_eq!(whole.unwrap().0, [0xff; 1184]),
            Fault::Close => assert!(whole.is_none() && answer.len() > 500),
            Fault::Truncate => {
                let (quote, _) = whole.unwrap();
                assert!(quote.len() == honest.len() - 100 && quote[..SIGNED] == honest[..SIGNED]);
            }
            Fault::Flood => assert!(answer.len() > 8 << 20),
        }
        assert_eq!(
            blobs(&say(platform.socket(), &[7; 64])).unwrap().0.len(),
            honest.len()
        );
    }
    assert_eq!(platform.counters().faults, Fault::ALL.len() as u64);
}

#[test]
fn half_a_question_is_no_question() {
    let (_folder, platform) = start();
    let mut stream = UnixStream::connect(platform.socket()).unwrap();
    stream.write_all(&[7; 63]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty());
    assert_eq!(
        (platform.counters().malformed, platform.counters().requests),
        (1, 0)
    );
}

#[test]
fn the_program_reports_the_registers_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vm.sock_9000");
    let program = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simulated-platform"));
        command.arg("--socket").arg(&socket);
        command.arg("--dir").arg(folder.path().join("platform"));
        command.args(["--tee", "tdx"]).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let registers = [0xb0u8, 0xb1, 0xb2, 0xb3].map(|byte| hex::encode([byte; 48]));
    let mrtd = hex::encode([0xd7; 48]);
    let mut told = vec!["--measurement".to_owned(), mrtd.clone()];
    for (n, value) in registers.iter().enumerate() {
        told.extend(["--rtmr".into(), format!("{n}={value}")]);
    }
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    let mut running = program(&[&["--protocol", "guest"], &told[..]].concat());
    while !socket.exists() {
        assert!(running.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    let (quote, certificates) = blobs(&say(&socket, &[7; 64])).unwrap();
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(certificates.is_empty());
    let quote = hex::encode(quote);
    assert!(quote.contains(&mrtd) && quote.contains(&registers.concat()));

    // The agents' protocol has an event log, which would not replay to them.
    std::fs::remove_file(&socket).unwrap();
    let refused = program(&told).wait_with_output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && said.contains("--rtmr with --protocol agent"),
        "{said}"
    );
}
