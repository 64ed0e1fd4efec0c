//! The real programs together on a simulated TDX machine: platform, enclave, host, and the command that judges.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use touchstone_testkit::events::event_type;
use touchstone_testkit::machine::{TdxMachine, TeeMachine};
use touchstone_testkit::stack::{Stack, StackBuilder};
use touchstone_testkit::tdx::{TdReport, attributes};

const MODEL: &str = "digits_mlp_plain";

type TdxStack = Stack<TdxMachine>;

/// Asks the digits model about its held-out rows, over attested TLS; gives what the command said.
fn ask(stack: &TdxStack, policy: &Path, folder: &str) -> Output {
    stack.ask(MODEL, policy, folder, &["--require", "logged quoted"])
}

/// Exit code and deciding check.
fn check<M: TeeMachine>(
    stack: &Stack<M>,
    policy: &Path,
    folder: &str,
    more: &[&str],
) -> (i32, Value) {
    let policy = policy.display().to_string();
    let arguments = ["check", folder, "--policy", &policy, "--json"];
    let output = stack.touchstone([&arguments[..], more].concat());
    let verdict: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap_or(-1), verdict)
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_answer_from_a_td_proves_itself_and_a_changed_one_does_not() {
    let test = "an_answer_from_a_td_proves_itself_and_a_changed_one_does_not";
    let Some(stack) = StackBuilder::tdx().model(MODEL).start(test) else {
        return;
    };
    let policy = stack.policy("policy.toml", &[]);
    let asked = ask(&stack, &policy, "answer");
    assert!(asked.status.success(), "{}", words(&asked));
    let root = stack.root().display().to_string();
    let trusted = ["--trust-simulated-root", root.as_str()];
    let (exit, verdict) = check(&stack, &policy, "answer", &trusted);
    assert_eq!(exit, 6, "{verdict:#}");
    assert_eq!(verdict["simulated"], true);
    assert_eq!(verdict["binding"], "tls-exporter");
    let achieved = serde_json::json!(["logged", "quoted", "signed"]);
    assert_eq!(verdict["achieved"], achieved);
    // Without its root it is not authentic.
    let (exit, verdict) = check(&stack, &policy, "answer", &[]);
    let deciding = verdict["deciding"].as_str();
    assert_eq!((exit, deciding), (3, Some("tdx.chain.root")));

    let file = stack.folder().join("answer/response.bin");
    let mut response = std::fs::read(&file).unwrap();
    let last = response.len() - 3;
    response[last] ^= 1;
    std::fs::write(&file, &response).unwrap();
    let (exit, verdict) = check(&stack, &policy, "answer", &trusted);
    let deciding = verdict["deciding"].as_str();
    assert_eq!((exit, deciding), (3, Some("compare.response")));
}

/// Each machine is genuine, and none of them gets a question.
#[test]
fn a_td_that_the_policy_does_not_accept_is_not_asked() {
    type Lie = (&'static str, fn(&mut TdxMachine));
    let lies: [Lie; 4] = [
        ("tdx.attributes.debug", |m| {
            m.report.report.td_attributes |= attributes::DEBUG;
        }),
        ("tdx.tcb.status", |m| {
            m.tcb_info.set_status("OutOfDate", &[])
        }),
        ("tdx.rtmr3", |m| {
            m.measure(3, event_type::EVENT_TAG, b"something else");
        }),
        ("tdx.mrtd", |m| m.report.report.mr_td = [0; 48]),
    ];
    let test = "a_td_that_the_policy_does_not_accept_is_not_asked";
    let honest = TdxMachine::new(4, TdReport::v1_0(), now());
    for (deciding, lie) in lies {
        let mut machine = honest.clone();
        lie(&mut machine);
        let builder = StackBuilder::tdx().machine(machine).model(MODEL);
        let Some(stack) = builder.start(test) else {
            return;
        };
        // What the caller knows of the image is what an honest machine measures.
        let expected: Vec<(&str, String)> = honest
            .reference_values()
            .into_iter()
            .map(|(key, value)| (key, format!("{{ expect = [{value:?}] }}")))
            .collect();
        let expected: Vec<(&str, &str)> = expected.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let policy = stack.policy("policy.toml", &expected);
        let asked = ask(&stack, &policy, "answer");
        let words = words(&asked);
        assert_eq!(asked.status.code(), Some(4), "{deciding}: {words}");
        assert!(words.contains(&format!("because {deciding}: ")), "{words}");
        assert!(!stack.folder().join("answer/response.bin").exists());
    }
}

/// One host in front of an SEV-SNP guest and a TD, whose vsock a VMM offers as a Unix socket: each answers those whose policy is for it, and what it answered is judged by
/// its own platform's collateral.
#[test]
fn one_host_serves_both_kinds() {
    let test = "one_host_serves_both_kinds";
    let snp = StackBuilder::new().model(MODEL).without_host();
    let Some(mut snp) = snp.start(test) else {
        return;
    };
    let td = StackBuilder::tdx().model(MODEL).without_host();
    let Some(td) = td.start(test) else {
        return;
    };
    snp.join(&[&td]);
    let socket = snp.folder().join("td.sock");
    let ports = [
        td.enclave_public().address(),
        td.enclave_control().address(),
        td.enclave_tls(),
    ];
    offer_vsock(&socket, ports);
    for (port, listener) in ["public", "control", "tls"].iter().enumerate() {
        let address = format!("\"vsock+unix://{}:{}\"", socket.display(), 8000 + port);
        snp.set_host(&format!("enclaves.e1.{listener}"), &address);
    }
    // The TD's collateral alone, to begin with: it is what a caller of a TD is given.
    let folder = snp.folder().join("both");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(td.collateral().join("tdx.json"), folder.join("tdx.json")).unwrap();
    snp.set_host("collateral.folder", &format!("{folder:?}"));
    snp.start_host();
    let given = snp.host().get("/v1/collateral");
    assert_eq!(given.status, 200);
    let of_td = td.folder().join("collateral.json");
    std::fs::write(&of_td, &given.body).unwrap();
    // With the guest's beside it, that is given.
    copy_into(&snp.collateral(), &folder);
    let began = Instant::now();
    while snp.host().get("/v1/collateral").body == given.body {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }

    let url = snp.https_url();
    let of_td = of_td.display().to_string();
    // A connection comes to whichever has its turn; a caller of one kind refuses the other and tries again.
    let ask = |kind: usize, name: &str| match kind {
        0 => snp.ask_at(&url, MODEL, &snp.policy("p.toml", &[]), name, &[]),
        _ => {
            let more = ["--collateral", of_td.as_str()];
            td.ask_at(&url, MODEL, &td.policy("p.toml", &[]), name, &more)
        }
    };
    for (kind, other) in [(0, "tdx.chain.root"), (1, "snp.chain.root")] {
        let name = (0..10)
            .map(|attempt| format!("answer-{attempt}"))
            .find(|name| {
                let asked = ask(kind, name);
                if !asked.status.success() {
                    let words = words(&asked);
                    assert_eq!(asked.status.code(), Some(3), "{words}");
                    assert!(words.contains(&format!("because {other}: ")), "{words}");
                }
                asked.status.success()
            });
        let name = name.expect("an answer in ten attempts");
        let (exit, verdict) = match kind {
            0 => judged(&snp, &name),
            _ => judged(&td, &name),
        };
        assert_eq!(exit, 6, "{verdict:#}");
    }
}

/// What a VMM does that offers a guest's vsock as a Unix socket: `CONNECT <port>`, `OK <number>`, and then bytes. Ports 8000, 8001
/// and 8002 lead to these addresses.
fn offer_vsock(socket: &Path, addresses: [SocketAddr; 3]) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || pass_on(stream, addresses));
        }
    });
}

fn pass_on(stream: UnixStream, addresses: [SocketAddr; 3]) -> std::io::Result<()> {
    let mut line = Vec::new();
    // Byte by byte: what follows the line is not this function's.
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        (&stream).read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&line);
    let port: usize = line
        .trim_end()
        .strip_prefix("CONNECT ")
        .unwrap()
        .parse()
        .unwrap();
    let guest = TcpStream::connect(addresses[port - 8000])?;
    (&stream).write_all(b"OK 1073741824\n")?;
    let (mut from, mut to) = (stream.try_clone()?, guest.try_clone()?);
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    let _ = std::io::copy(&mut &guest, &mut &stream);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = up.join();
    Ok(())
}

fn judged<M: TeeMachine>(stack: &Stack<M>, answer: &str) -> (i32, Value) {
    let root = stack.root().display().to_string();
    let trusted = ["--trust-simulated-root", root.as_str()];
    check(stack, &stack.folder().join("p.toml"), answer, &trusted)
}

/// All that is in a folder, into another.
fn copy_into(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_into(&path, &copy),
            false => drop(std::fs::copy(&path, &copy).unwrap()),
        }
    }
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}
