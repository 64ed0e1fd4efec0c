//! The program itself: settings, signals, exit codes.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use hyper::Method;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    net::TcpStream,
    time::timeout,
};
use touchstone_formats::digest::Digest;

use super::{
    agent::serve_quotes,
    follower::Follower,
    onnx,
    support::{Client, library, until},
    tls::Connection,
};

const ENCLAVE: &str = env!("CARGO_BIN_EXE_enclave");

fn write_config(folder: &Path, library: &Path, more: &str) -> std::path::PathBuf {
    let sha256 = Digest::of(&std::fs::read(library).unwrap());
    let text = format!(
        r#"
name = "enclave.test"
log_prefix = "enclave.test/log"
threads = 2
{more}
[listen]
public = "tcp://127.0.0.1:0"
control = "tcp://127.0.0.1:0"
tls = "tcp://127.0.0.1:0"
[quote]
agent = "{folder}/agent.sock"
[runtime]
library = "{library}"
sha256 = "{sha256}"
[models]
repository = "{folder}/models"
[sandbox]
seccomp = true
[log]
format = "json"
"#,
        folder = folder.display(),
        library = library.display(),
    );
    let path = folder.join("enclave.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn write_model(folder: &Path, name: &str, model: &[u8]) {
    let folder = folder.join("models").join(name).join("1");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("model.onnx"), model).unwrap();
}

type LogLines = Lines<BufReader<tokio::process::ChildStderr>>;

/// Starts the program, which ends with what is given; its log.
fn start(config: &Path) -> (tokio::process::Child, LogLines) {
    let mut child = tokio::process::Command::new(ENCLAVE)
        .arg("--config")
        .arg(config)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    (child, lines)
}

/// Waits until the program has ended, and well.
async fn ends_well(mut child: tokio::process::Child) {
    let status = tokio::time::timeout(Duration::from_secs(20), child.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "{status}");
}

/// Waits for a log line with this message; gives its fields.
async fn line(lines: &mut LogLines, message: &str) -> serde_json::Value {
    let found = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["fields"]["message"] == message {
                return line["fields"].clone();
            }
        }
        panic!("the program ended without saying {message:?}");
    };
    tokio::time::timeout(Duration::from_secs(20), found)
        .await
        .unwrap_or_else(|_| panic!("no line {message:?} in 20 s"))
}

fn signal(child: &tokio::process::Child, name: &str) {
    let id = child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", name, &id])
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_from_start_to_drain() {
    let Some(library) = library("a_life_from_start_to_drain") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &library, "");
    write_model(folder.path(), "reciprocal", &onnx::reciprocal());
    serve_quotes(&folder.path().join("agent.sock"));
    let (mut child, mut lines) = start(&config);
    let mut address = async |name| {
        let fields = line(&mut lines, "listening").await;
        assert_eq!(fields["name"], name);
        let address = fields["address"]
            .as_str()
            .unwrap()
            .strip_prefix("tcp://")
            .unwrap()
            .to_owned();
        address.parse::<std::net::SocketAddr>().unwrap()
    };
    let (public, control) = (address("public").await, address("control").await);
    let tls = address("tls").await;
    assert_ne!(tls.port(), 0);
    line(&mut lines, "keyset in force").await;

    let mut client = Client::new(public).await;
    assert_eq!(client.infer(&[("prefer", "wait=5")]).await.status, 200);
    // Settings and arguments are what the keyset's `config` is the digest of.
    let keyset = client.get("/v1/keyset").await.json();
    let object = client
        .get(&format!(
            "/v1/objects/{}",
            keyset["config"].as_str().unwrap()
        ))
        .await
        .json();
    assert_eq!(
        object["arguments"],
        serde_json::json!(["--config", config.to_str().unwrap()])
    );
    assert_eq!(object["name"], "enclave.test");
    let software = client
        .get(&format!(
            "/v1/objects/{}",
            keyset["software"].as_str().unwrap()
        ))
        .await;
    let printed = Command::new(ENCLAVE)
        .arg("--build-statement")
        .output()
        .unwrap()
        .stdout;
    assert_eq!([&software.body[..], b"\n"].concat(), printed);

    // SIGHUP reads the models again.
    write_model(folder.path(), "negation", &onnx::negation());
    signal(&child, "HUP");
    assert_eq!(line(&mut lines, "catalog changed").await["epoch"], 1);
    assert_eq!(client.get("/v2/models/negation").await.status, 200);

    // SIGTERM seals everything and waits for the host to take it.
    assert_eq!(
        client
            .infer(&[("touchstone", "require=(signed)")])
            .await
            .status,
        200
    );
    signal(&child, "TERM");
    line(&mut lines, "draining").await;
    let mut follower = Follower::new(control).await;
    while !follower.logs.values().any(|log| log.closed) {
        follower.fetch(1).await;
    }
    assert_eq!(follower.log().receipts.len(), 2);
    assert_eq!(follower.log().catalogs.len(), 2);
    assert!(
        child.try_wait().unwrap().is_none(),
        "it waits for the acknowledgement"
    );
    follower.acknowledge().await;
    ends_well(child).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confined_process_serves_every_model_over_sessions() {
    let test = "a_confined_process_serves_every_model_over_sessions";
    let Some(library) = library(test) else { return };
    // What runs this test may be confined itself.
    let filters_of = |status: &str| -> u32 {
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp_filters:"));
        count.map_or(0, |count| count.trim().parse().unwrap())
    };
    let own = filters_of(&std::fs::read_to_string("/proc/self/status").unwrap());
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/models");
    for (setting, filters) in [("seccomp = true", 2), ("seccomp = false", 0)] {
        let folder = tempfile::tempdir().unwrap();
        let config = write_config(folder.path(), &library, "");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("seccomp = true", setting)).unwrap();
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&shipped).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let model = std::fs::read(shipped.join(&name).join("1/model.onnx")).unwrap();
            write_model(folder.path(), &name, &model);
            names.push(name);
        }
        assert!(names.len() >= 5, "{names:?}");
        serve_quotes(&folder.path().join("agent.sock"));
        let (child, mut lines) = start(&config);
        for name in ["public", "control"] {
            assert_eq!(line(&mut lines, "listening").await["name"], name);
        }
        let fields = line(&mut lines, "listening").await;
        let tls = fields["address"].as_str().unwrap()["tcp://".len()..].parse();
        line(&mut lines, "keyset in force").await;

        let mut connection = Connection::attested(tls.unwrap()).await;
        for name in &names {
            let about = connection.client.get(&format!("/v2/models/{name}")).await;
            let input = about.json()["inputs"][0].clone();
            let shape: Vec<u64> = input["shape"]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_u64().unwrap_or(1))
                .collect();
            let zeros = vec![0; shape.iter().product::<u64>() as usize];
            let body = serde_json::json!({"inputs": [{
                "name": input["name"], "datatype": input["datatype"], "shape": shape, "data": zeros,
            }]});
            let path = format!("/v2/models/{name}/infer");
            let headers = [
                ("prefer", "wait=5"),
                ("touchstone", "require=(logged signed)"),
            ];
            let reply = connection
                .client
                .send(Method::POST, &path, &headers, body.to_string())
                .await;
            assert_eq!(reply.status, 200, "{setting}: {name}: {reply:?}");
        }
        // Every thread of it is confined, or none.
        let threads = format!("/proc/{}/task", child.id().unwrap());
        let mut seen = 0;
        for thread in std::fs::read_dir(threads).unwrap() {
            let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            assert_eq!(filters_of(&status), own + filters, "{setting}: {status}");
            seen += 1;
        }
        assert!(seen > 2, "{seen} threads");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_does_not_hold_the_end_up_for_ever() {
    let test = "what_is_not_acknowledged_does_not_hold_the_end_up_for_ever";
    let Some(library) = library(test) else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &library, "limits.drain_ms = 300");
    write_model(folder.path(), "reciprocal", &onnx::reciprocal());
    serve_quotes(&folder.path().join("agent.sock"));
    let (child, mut lines) = start(&config);
    line(&mut lines, "keyset in force").await;
    signal(&child, "INT");
    line(
        &mut lines,
        "not everything was sealed and acknowledged in time; the rest is lost",
    )
    .await;
    ends_well(child).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_connections_leave_files_for_the_host_and_for_quotes() {
    let test = "callers_connections_leave_files_for_the_host_and_for_quotes";
    let Some(library) = library(test) else { return };
    // A soft limit, which the enclave raises; and one that cannot be raised, with too little for what is set.
    for (limit, connections) in [("-S -n 100", None), ("-n 220", Some(62))] {
        let folder = tempfile::tempdir().unwrap();
        let config = write_config(folder.path(), &library, "limits.connections = 500");
        write_model(folder.path(), "reciprocal", &onnx::reciprocal());
        serve_quotes(&folder.path().join("agent.sock"));
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")])
            .args([ENCLAVE, "--config"])
            .arg(&config)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = async || {
            let fields = line(&mut lines, "listening").await;
            let address = fields["address"].as_str().unwrap();
            let address: SocketAddr = address["tcp://".len()..].parse().unwrap();
            address
        };
        let (public, control, tls) = (address().await, address().await, address().await);
        if let Some(connections) = connections {
            let warning = "fewer files may be open than limits.connections asks for: fewer connections are taken";
            let fields = line(&mut lines, warning).await;
            assert_eq!(fields["connections"], connections, "{limit}");
        }
        line(&mut lines, "keyset in force").await;
        let mut flood = Vec::new();
        for n in 0..400 {
            let at = if n % 2 == 0 { tls } else { public };
            flood.push(TcpStream::connect(at).await.unwrap());
        }
        // The enclave closes those beyond its limit as soon as it comes to them, and holds as many as there are.
        let mut follower = Follower::new(control).await;
        let held = connections.map_or(400, |connections| 2 * connections);
        let closed = async |flood: &mut [TcpStream]| {
            let mut closed = 0;
            for stream in flood {
                let mut byte = [0];
                let read = timeout(Duration::from_millis(1), stream.read(&mut byte));
                closed += usize::from(read.await.is_ok());
            }
            closed
        };
        until("those beyond the limit are closed", async || {
            closed(&mut flood).await >= 400 - held
        })
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(closed(&mut flood).await, 400 - held, "{limit}");
        // A few callers less, and the next is served, with a quote.
        if connections.is_some() {
            flood.truncate(100);
        }
        let answered = async {
            // As soon as the enclave has noticed that they are gone; until then it closes this one too.
            let reply = loop {
                let mut client = Client::new(public).await;
                match client.try_infer(&[("prefer", "wait=5")]).await {
                    Ok(reply) => break reply,
                    Err(error) => assert!(connections.is_some(), "{limit}: {error}"),
                }
            };
            assert_eq!(reply.status, 200, "{limit}: {reply:?}");
            follower.until_sealed(1).await;
        };
        let answered = timeout(Duration::from_secs(30), answered).await;
        answered.unwrap_or_else(|_| panic!("{limit}: no answer"));
        // It is logged, and not once for each of them.
        child.kill().await.unwrap();
        let mut warnings = 0;
        while let Some(line) = lines.next_line().await.unwrap() {
            warnings += usize::from(line.contains("too many connections"));
        }
        let expected = if connections.is_some() { 2..=20 } else { 0..=0 };
        assert!(expected.contains(&warnings), "{limit}: {warnings}");
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(ENCLAVE).args(arguments).output().unwrap()
}

#[test]
fn what_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enclave.toml");
    let at = path.to_str().unwrap();
    let fails = |text: Option<&str>, words: &[&str]| {
        match text {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => drop(std::fs::remove_file(&path)),
        }
        let output = run(&["--config", at]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "{said:?} without {word:?}");
        }
    };
    fails(None, &["enclave.toml", "No such file"]);
    fails(Some("name = "), &["not a TOML file"]);
    fails(Some("name = 7"), &["`name`", "found 7", "expected"]);
    // Settings that stand, about things that do not.
    let digest = Digest::ZERO;
    let settings = format!(
        "name = \"n\"\nlog_prefix = \"l\"\nlisten.public = \"tcp://127.0.0.1:0\"\nlisten.control = \"tcp://127.0.0.1:0\"\n\
         quote.agent = \"/nowhere\"\nruntime.library = \"/no/library.so\"\nruntime.sha256 = \"{digest}\"\nmodels.repository = \"/no/models\"\n"
    );
    fails(Some(&settings), &["ONNX Runtime", "/no/library.so"]);
    if let Some(library) = library("what_cannot_start_says_why") {
        let wrong = settings.replace("/no/library.so", library.to_str().unwrap());
        fails(Some(&wrong), &["SHA-256", &digest.to_string()]);
        let sha256 = Digest::of(&std::fs::read(&library).unwrap()).to_string();
        let no_models = wrong.replace(&digest.to_string(), &sha256);
        fails(Some(&no_models), &["model repository", "/no/models"]);
    }
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["--config", at, "--more"]).status.code(), Some(2));
}
