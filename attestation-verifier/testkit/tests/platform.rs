//! The simulated platform as its clients see it: the protocol, the queue, every fault.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use attestation_verifier::parse::tdx::{Quote, TdReport};
use attestation_verifier::policy::template;
use attestation_verifier::{At, Policy, Roots, appraise};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use touchstone_formats::evidence::{Collateral, Evidence, TdxCollateral, Tee};
use touchstone_formats::text::HexBytes;
use touchstone_testkit::amd::{Product, Tcb};
use touchstone_testkit::events::event_type;
use touchstone_testkit::machine::{Endorsement, Machine, TdxMachine, TeeMachine as _};
use touchstone_testkit::platform::{Fault, PlatformConfig, PlatformHandle, SimulatedPlatform};
use touchstone_testkit::snp::Report;
use x509_parser::prelude::{FromDer, X509Certificate};

const AT: u64 = 1_790_000_000;
const V: &str = "touchstone/quote-agent/1";

#[test]
fn quotes_are_signed_reports_over_the_report_data() {
    let (_folder, platform) = start(Duration::ZERO);
    let mut client = Client::connect(platform.socket());
    for n in 0..3u8 {
        let report_data = [n; 64];
        let quote = quote(&client.ask(&report_data));
        assert_eq!(quote[0x50..0x90], report_data);
        assert_signed(&quote, &platform.machine());
    }
    let counters = platform.counters();
    assert_eq!(
        (
            counters.connections,
            counters.requests,
            counters.quotes,
            counters.faults
        ),
        (1, 3, 3, 0)
    );
}

#[test]
fn the_machine_can_change_under_a_running_enclave() {
    let (_folder, platform) = start(Duration::ZERO);
    let mut client = Client::connect(platform.socket());
    let before = quote(&client.ask(&[1; 64]));
    platform.change(|machine| {
        machine.report.measurement = [0xee; 48];
        let tcb = Tcb {
            snp: 3,
            ..Product::Genoa.high_tcb()
        };
        machine.report.reported_tcb = tcb.to_bytes(Product::Genoa);
        machine.endorsement = Endorsement::Vlek {
            csp_id: "CN=cc-x.simulated.invalid".into(),
        };
        machine.reissue();
    });
    let after = Report::from_bytes(&quote(&client.ask(&[1; 64]))).unwrap();
    assert_ne!(
        Report::from_bytes(&before).unwrap().measurement,
        after.measurement
    );
    assert_eq!(after.measurement, [0xee; 48]);
    assert_eq!(after.flags, 1 << 2);
    let files = platform.machine().collateral();
    let (_, vlek) = X509Certificate::from_der(&files.vek).unwrap();
    let (_, asvk) = X509Certificate::from_der(&files.chain[0]).unwrap();
    assert_eq!(vlek.issuer(), asvk.subject());
    assert!(asvk.subject().to_string().contains("SIM-SEV-VLEK-Genoa"));
}

#[test]
fn one_quote_at_a_time_each_with_its_latency() {
    let latency = Duration::from_millis(100);
    let (_folder, platform) = start(latency);
    let began = Instant::now();
    std::thread::scope(|s| {
        for n in 0..4u8 {
            let socket = platform.socket();
            s.spawn(move || quote(&Client::connect(socket).ask(&[n; 64])));
        }
    });
    assert!(began.elapsed() >= 4 * latency, "{:?}", began.elapsed());
    assert!(
        platform.counters().peak_waiting > 1,
        "the requests did not overlap"
    );

    platform.set_latency(Duration::ZERO);
    // The quickest of several: any one may have to wait for the processor.
    let quickest = (0..10).map(|_| {
        let began = Instant::now();
        quote(&Client::connect(platform.socket()).ask(&[9; 64]));
        began.elapsed()
    });
    assert!(quickest.min().unwrap() < latency);
}

#[test]
fn every_fault_is_what_its_name_says_and_ends() {
    let (_folder, platform) = start(Duration::ZERO);
    for fault in Fault::ALL {
        platform.set_fault(fault, Some(1));
        let mut client = Client::connect(platform.socket());
        client.send(&[7; 64]);
        match fault {
            Fault::Busy => assert_eq!(client.answer()["error"], "busy"),
            Fault::Fail => assert_eq!(client.answer()["error"], "failed"),
            Fault::Hang => {
                client
                    .stream()
                    .set_read_timeout(Some(Duration::from_millis(200)))
                    .unwrap();
                assert!(client.0.fill_buf().is_err(), "it answered");
            }
            Fault::Lie => {
                let quote = quote(&client.answer());
                assert_ne!(quote[0x50..0x90], [7; 64]);
                assert_signed(&quote, &platform.machine());
            }
            Fault::Garbage => {
                let line = client.line();
                assert!(line.ends_with(b"\n") && serde_json::from_slice::<Value>(&line).is_err());
            }
            Fault::Close => {
                let line = client.line();
                assert!(!line.is_empty() && !line.ends_with(b"\n"));
            }
            Fault::WrongTee => assert_eq!(client.answer()["tee"], "tdx"),
            Fault::Truncate => assert!(quote(&client.answer()).len() < 1184),
            Fault::Flood => {
                let mut long = Vec::new();
                client
                    .0
                    .by_ref()
                    .take(5 << 20)
                    .read_to_end(&mut long)
                    .unwrap();
                assert!(long.len() == 5 << 20 && !long.contains(&b'\n'));
            }
            Fault::WrongVersion => assert_ne!(client.answer()["v"], V),
        }
        // Then as before: on the same connection where that is still in step, and on a new one.
        if matches!(fault, Fault::Busy | Fault::Fail) {
            assert_eq!(quote(&client.ask(&[8; 64]))[0x50..0x90], [8; 64]);
        }
        drop(client);
        let quote = quote(&Client::connect(platform.socket()).ask(&[8; 64]));
        assert_eq!(quote[0x50..0x90], [8; 64], "after {fault:?}");
        assert_eq!(quote.len(), 1184);
        assert_signed(&quote, &platform.machine());
    }
    assert_eq!(platform.counters().faults, Fault::ALL.len() as u64);
}

#[test]
fn requests_that_are_malformed_are_refused_and_end_the_connection() {
    let (_folder, platform) = start(Duration::ZERO);
    let hex = "ab".repeat(64);
    let lines = [
        "{}".to_owned(),
        "quote please".to_owned(),
        json!({"v": "touchstone/quote-agent/2", "report_data": hex}).to_string(),
        json!({"v": V, "report_data": hex.to_uppercase()}).to_string(),
        json!({"v": V, "report_data": &hex[2..]}).to_string(),
        json!({"v": V, "report_data": hex, "vmpl": 1}).to_string(),
    ];
    for (n, line) in lines.iter().enumerate() {
        let mut client = Client::connect(platform.socket());
        client
            .stream()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
        assert_eq!(client.answer()["error"], "failed", "{line}");
        assert!(client.line().is_empty(), "{line}");
        assert_eq!(platform.counters().malformed, n as u64 + 1);
    }
    assert_eq!(platform.counters().requests, 0);
    assert!(quote(&Client::connect(platform.socket()).ask(&[0xab; 64])).len() == 1184);
}

#[test]
fn the_control_file_is_obeyed_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("fault");
    let mut config = PlatformConfig::new(folder.path().join("agent.sock"), machine());
    config.control_file = Some(control.clone());
    let platform = SimulatedPlatform::start(config).unwrap();
    let mut client = Client::connect(platform.socket());
    let mut kinds = |n: usize| -> Vec<bool> {
        (0..n)
            .map(|_| client.ask(&[1; 64])["error"] == "busy")
            .collect()
    };
    assert_eq!(kinds(1), [false]);
    std::fs::write(&control, "busy:2\n").unwrap();
    assert_eq!(kinds(3), [true, true, false]);
    std::fs::write(&control, "busy").unwrap();
    assert_eq!(kinds(2), [true, true]);
    std::fs::write(&control, "nonsense").unwrap();
    assert_eq!(kinds(1), [true], "nonsense changes nothing");
    std::fs::write(&control, "none").unwrap();
    assert_eq!(kinds(1), [false]);
}

#[test]
fn stopping_frees_the_socket_and_only_stale_sockets_are_replaced() {
    let (folder, platform) = start(Duration::ZERO);
    let socket = platform.socket().to_owned();
    let mut open = Client::connect(&socket);
    quote(&open.ask(&[1; 64]));
    let second = SimulatedPlatform::start(PlatformConfig::new(socket.clone(), machine()));
    assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    platform.stop();
    assert!(!socket.exists());
    assert!(
        open.line().is_empty(),
        "the connection outlived the platform"
    );

    // A socket that a killed process left behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let again = SimulatedPlatform::start(PlatformConfig::new(socket.clone(), machine())).unwrap();
    quote(&Client::connect(again.socket()).ask(&[1; 64]));

    let file = folder.path().join("precious");
    std::fs::write(&file, "text").unwrap();
    let error = SimulatedPlatform::start(PlatformConfig::new(file.clone(), machine())).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "text");
}

#[test]
fn the_program_serves_and_writes_what_host_and_verifier_need() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, socket) = (
        folder.path().join("platform"),
        folder.path().join("agent.sock"),
    );
    let mut program = Command::new(env!("CARGO_BIN_EXE_simulated-platform"))
        .args([
            "--product",
            "Turin",
            "--report-version",
            "3",
            "--latency-ms",
            "0",
            "--fault",
            "busy:1",
        ])
        .args([
            "--measurement",
            &"cd".repeat(48),
            "--host-data",
            &"01".repeat(32),
        ])
        .arg("--socket")
        .arg(&socket)
        .arg("--dir")
        .arg(&dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(program.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, format!("SIMULATED Turin on {}\n", socket.display()));

    let mut client = Client::connect(&socket);
    assert_eq!(client.ask(&[2; 64])["error"], "busy");
    let quote = quote(&client.ask(&[2; 64]));
    let report = Report::from_bytes(&quote).unwrap();
    assert_eq!(
        (report.version, report.measurement, report.host_data),
        (3, [0xcd; 48], [1; 32])
    );

    let read = |path: &str| std::fs::read(dir.join(path)).unwrap();
    let vek = read("collateral/vek.der");
    assert_signed_by(&quote, &vek);
    let (_, vek) = X509Certificate::from_der(&vek).unwrap();
    let ask = read("collateral/chain/ask.der");
    let (_, ask) = X509Certificate::from_der(&ask).unwrap();
    let (_, root) = x509_parser::pem::parse_x509_pem(&read("root.pem"))
        .map(|(r, p)| (r.to_vec(), p))
        .unwrap();
    let root = root.parse_x509().unwrap();
    assert_eq!(vek.issuer(), ask.subject());
    assert_eq!(ask.issuer(), root.subject());
    let crl = read("collateral/crls/ark.der");
    let (_, crl) = x509_parser::revocation_list::CertificateRevocationList::from_der(&crl).unwrap();
    assert_eq!(crl.issuer(), root.subject());
    assert!(
        String::from_utf8(read("collateral/README"))
            .unwrap()
            .starts_with("SIMULATED")
    );

    kill(&mut program);
    assert!(!socket.exists());
}

#[test]
fn the_program_explains_itself_and_its_errors() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_simulated-platform"))
            .args(arguments)
            .output()
            .unwrap()
    };
    let help = run(&["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.status.success() && text.contains("Example:") && text.contains("SIMULATED"),
        "{text}"
    );
    for (bad, hint) in [
        (["--product", "Rome"], "expected Milan, Genoa or Turin"),
        (["--measurement", "abcd"], "expected 96 hex digits, found 4"),
        (["--report-version", "4"], "expected 2, 3 or 5"),
        (["--fault", "sulk"], "unknown fault \"sulk\""),
        (["--policy", "xyz"], "invalid digit"),
    ] {
        let output = run(&[&["--socket", "/nowhere/x", "--dir", "/nowhere"][..], &bad].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && text.contains(hint),
            "{bad:?}: {text}"
        );
    }
}

#[test]
fn a_tdx_machine_gives_quotes_with_their_event_log() {
    let folder = tempfile::tempdir().unwrap();
    let machine = TdxMachine::strict(AT);
    let config = PlatformConfig::new(folder.path().join("agent.sock"), machine);
    let platform = SimulatedPlatform::start(config).unwrap();
    let mut client = Client::connect(platform.socket());
    let before = tdx_quote(&client.ask(&[3; 64]));
    judged_of(&before, &platform.machine()).unwrap();
    platform.change(|machine| machine.measure(3, event_type::EVENT_TAG, b"an application"));
    let answer = client.ask(&[3; 64]);
    let report = judged_of(&tdx_quote(&answer), &platform.machine()).unwrap();
    assert_eq!(report.report_data, [3; 64]);
    assert_eq!(report.rtmr[3], platform.machine().events.replay(3));
    assert_ne!(report.rtmr[3], [0; 48]);
    assert_eq!(answer["event_log"]["format"], "ccel");
    let log = answer["event_log"]["data"].as_str().unwrap();
    let log = STANDARD.decode(log).unwrap();
    assert!(log.ends_with(b"an application"));

    platform.set_fault(Fault::WrongTee, Some(1));
    assert_eq!(client.ask(&[3; 64])["tee"], "sev-snp");
    platform.set_fault(Fault::Lie, Some(1));
    let lie = tdx_quote(&client.ask(&[3; 64]));
    let report = judged_of(&lie, &platform.machine()).unwrap();
    assert_eq!(report.report_data, [!3; 64]);
    platform.set_fault(Fault::Truncate, Some(1));
    let short = tdx_quote(&client.ask(&[3; 64]));
    let refused = judged_of(&short, &platform.machine()).unwrap_err();
    assert!(refused.contains("tdx.format"), "{refused}");
}

#[test]
fn the_program_is_a_tdx_machine_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, socket) = (
        folder.path().join("platform"),
        folder.path().join("agent.sock"),
    );
    let keys = folder.path().join("keys");
    let mut roots = Vec::new();
    for version in ["4", "5"] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_simulated-platform"))
            .args(["--tee", "tdx", "--latency-ms", "0"])
            .args(["--quote-version", version, "--event", "app"])
            .args(["--measurement", &"cd".repeat(48)])
            .args(["--tcb-status", "OutOfDate"])
            .args([Path::new("--keys"), &keys])
            .args([Path::new("--socket"), &socket])
            .args([Path::new("--dir"), &dir])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(program.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, format!("SIMULATED TDX on {}\n", socket.display()));
        let quote = tdx_quote(&Client::connect(&socket).ask(&[2; 64]));
        assert_eq!(quote[..2], [version.as_bytes()[0] - b'0', 0]);

        let read = |path: &str| std::fs::read(dir.join(path)).unwrap();
        let values: Value = serde_json::from_slice(&read("reference-values.json")).unwrap();
        assert_eq!(values["tdx.mrtd"], "cd".repeat(48));
        let collateral = collateral(&serde_json::from_slice(&read("collateral/tdx.json")).unwrap());
        let root = String::from_utf8(read("root.pem")).unwrap();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let (report, status) = judged(&quote, collateral, &root, now.as_secs()).unwrap();
        assert_eq!(status, "OutOfDate");
        assert_eq!(report.mr_td, [0xcd; 48]);
        assert_ne!(report.rtmr[3], [0; 48]);
        roots.push(root);
        kill(&mut program);
    }
    assert_eq!(roots[0], roots[1], "--keys kept the root");
    let wrong = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_simulated-platform"))
            .args(["--socket", "/nowhere/x", "--dir", "/nowhere"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(wrong(&["--tee", "tdx", "--product", "Genoa"]).contains("options of SEV-SNP"));
    assert!(wrong(&["--quote-version", "4"]).contains("options of TDX"));
    assert!(wrong(&["--tee", "sgx"]).contains("sev-snp, tdx"));
}

fn kill(program: &mut std::process::Child) {
    let pid = program.id().to_string();
    let done = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(done.unwrap().success());
    assert!(program.wait().unwrap().success());
}

fn tdx_quote(answer: &Value) -> Vec<u8> {
    assert_eq!(answer["tee"], "tdx", "{answer}");
    STANDARD.decode(answer["quote"].as_str().unwrap()).unwrap()
}

/// By the verifier, under this root: what the quote says, and the status of its platform.
fn judged(
    quote: &[u8],
    collateral: TdxCollateral,
    root_pem: &str,
    at: u64,
) -> Result<(TdReport, Value), String> {
    let evidence = Evidence {
        purpose: None,
        nonce: None,
        tee: Tee::Tdx,
        quote: quote.to_vec(),
        collateral: Some(Collateral::Tdx(collateral)),
        event_log: None,
    };
    let policy = Policy::parse(&template(Tee::Tdx)).unwrap();
    let roots = Roots::pinned().with_simulated_pem(root_pem.as_bytes());
    let at = At {
        time: at,
        asserted: false,
    };
    let verdict = appraise(&evidence.to_file(), &policy, &roots.unwrap(), None, at);
    // No policy was made for this machine: what it is refuses with 4.
    if verdict.exit() != 4 {
        return Err(verdict.words());
    }
    let quote = Quote::parse(quote).map_err(|e| e.to_string())?;
    Ok((
        quote.report,
        verdict.context.platform["tcb"]["status"].clone(),
    ))
}

/// The quote of a running platform, under the machine's collateral and root.
fn judged_of(quote: &[u8], machine: &TdxMachine) -> Result<TdReport, String> {
    judged(quote, machine.collateral(), &machine.root_pem(), AT).map(|(report, _)| report)
}

/// Collateral out of the platform's file.
fn collateral(json: &Value) -> TdxCollateral {
    let text = |name: &str| Some(json[name].as_str().unwrap().to_owned());
    let bytes = |name: &str| Some(HexBytes(hex::decode(json[name].as_str().unwrap()).unwrap()));
    TdxCollateral {
        tcb_info: text("tcb_info"),
        tcb_info_signature: bytes("tcb_info_signature"),
        tcb_info_issuer_chain: text("tcb_info_issuer_chain"),
        qe_identity: text("qe_identity"),
        qe_identity_signature: bytes("qe_identity_signature"),
        qe_identity_issuer_chain: text("qe_identity_issuer_chain"),
        pck_crl: bytes("pck_crl"),
        pck_crl_issuer_chain: text("pck_crl_issuer_chain"),
        root_ca_crl: bytes("root_ca_crl"),
    }
}

fn machine() -> Machine {
    Machine::new(Product::Genoa, 5, AT)
}

fn start(latency: Duration) -> (tempfile::TempDir, PlatformHandle) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = PlatformConfig::new(folder.path().join("agent.sock"), machine());
    config.latency = latency;
    (folder, SimulatedPlatform::start(config).unwrap())
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket)
            .unwrap_or_else(|e| panic!("{}: {e}", PathBuf::from(socket).display()));
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Self(BufReader::new(stream))
    }

    fn stream(&mut self) -> &mut UnixStream {
        self.0.get_mut()
    }

    fn send(&mut self, report_data: &[u8; 64]) {
        let request = json!({"v": V, "report_data": hex::encode(report_data)});
        self.stream()
            .write_all(format!("{request}\n").as_bytes())
            .unwrap();
    }

    fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).unwrap();
        line
    }

    fn answer(&mut self) -> Value {
        serde_json::from_slice(&self.line()).unwrap()
    }

    fn ask(&mut self, report_data: &[u8; 64]) -> Value {
        self.send(report_data);
        self.answer()
    }
}

fn quote(answer: &Value) -> Vec<u8> {
    assert_eq!(answer["v"], V, "{answer}");
    assert_eq!(answer["tee"], "sev-snp", "{answer}");
    STANDARD.decode(answer["quote"].as_str().unwrap()).unwrap()
}

fn assert_signed(quote: &[u8], machine: &Machine) {
    assert_signed_by(quote, &machine.collateral().vek);
}

/// Under the key in the certificate, by another library than the one that signed.
fn assert_signed_by(quote: &[u8], vek: &[u8]) {
    let (_, certificate) = X509Certificate::from_der(vek).unwrap();
    let big_endian = |at: usize| {
        quote[at..at + 48]
            .iter()
            .rev()
            .copied()
            .collect::<Vec<u8>>()
    };
    let signature = [big_endian(0x2a0), big_endian(0x2a0 + 72)].concat();
    let key = &certificate.public_key().subject_public_key.data;
    ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P384_SHA384_FIXED, key)
        .verify(&quote[..0x2a0], &signature)
        .unwrap();
}
