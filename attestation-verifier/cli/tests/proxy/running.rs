//! A proxy under test, and whom it talks to.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use touchstone_testkit::mitm::{Config, Lie, ManInTheMiddle, Server, Upstream};

use crate::client::{Connection, Response};
use crate::support::{policy_for, touchstone};

/// Numbers that stand nowhere but in a question and its answer, which is the same numbers.
pub const SECRET: [f32; 4] = [1234.5678, -8765.432, 3.25e-7, 424_242.4];
pub const INFER: &str = "/v2/models/digits/infer";
/// Long enough for a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// The secret as it travels in the binary extension.
pub fn secret() -> Vec<u8> {
    SECRET.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// A binary question, and its Inference-Header-Content-Length.
pub fn binary() -> (Vec<u8>, String) {
    let head = br#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}]}"#;
    ([&head[..], &secret()].concat(), head.len().to_string())
}

/// A JSON question with these parameters.
pub fn json(parameters: &str) -> Vec<u8> {
    let data: Vec<String> = SECRET.iter().map(f32::to_string).collect();
    format!(
        r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,4],"data":[{}]}}],"parameters":{parameters}}}"#,
        data.join(",")
    )
    .into_bytes()
}

/// Asks in the binary encoding.
pub fn ask(connection: &mut Connection) -> Response {
    let (body, length) = binary();
    let headers = [
        ("Content-Type", "application/octet-stream"),
        ("Inference-Header-Content-Length", length.as_str()),
    ];
    connection.send("POST", INFER, &headers, &body)
}

/// A liar (or an honest server) with what a proxy needs to be started before it.
pub struct World {
    pub liar: ManInTheMiddle,
    pub server: Arc<Server>,
    pub folder: tempfile::TempDir,
}

impl World {
    pub fn new(lie: Lie) -> World {
        World::with(lie, &[], |_| {})
    }

    pub fn with(lie: Lie, policy: &[(&str, &str)], change: impl FnOnce(&mut Config)) -> World {
        let server = Arc::new(Server::new(lie));
        let mut config = Config::before(Upstream::Own(server.clone()), lie);
        change(&mut config);
        let folder = tempfile::tempdir().unwrap();
        server.write_to(folder.path()).unwrap();
        let policy = policy_for(server.world(), policy);
        std::fs::write(folder.path().join("policy.toml"), policy).unwrap();
        World {
            liar: ManInTheMiddle::start(config).unwrap(),
            server,
            folder,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The arguments of a proxy before this server.
    pub fn arguments(&self) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        [
            "--listen",
            "127.0.0.1:0",
            "--server",
            &format!("https://{}", self.liar.address()),
            "--policy",
            &text(self.path("policy.toml")),
            "--keep",
            &text(self.path("kept")),
            "--trust-simulated-root",
            &text(self.path("root.pem")),
            "--expect-simulated",
            "--json-log",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// A proxy that listens.
    pub fn proxy(&self, more: &[&str]) -> Proxy {
        let mut arguments = self.arguments();
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        Proxy::start(&arguments, &self.path("kept"))
            .unwrap_or_else(|(code, stderr)| panic!("the proxy ended with {code}:\n{stderr}"))
    }

    /// How often something was told to clients before it was encrypted: how many answers were made.
    pub fn made(&self, part: &[u8]) -> bool {
        let seen = self.liar.record().connections();
        seen.iter()
            .any(|seen| touchstone_testkit::mitm::contains(&seen.told, part))
    }
}

/// A running proxy. Dropping it kills it.
pub struct Proxy {
    pub address: SocketAddr,
    pub kept: PathBuf,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// Starts one, with `--json-log`, and waits until it listens; else gives its exit code and what it said.
    pub fn start(arguments: &[String], kept: &Path) -> Result<Proxy, (i32, String)> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_touchstone"))
            .arg("proxy")
            .args(arguments)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the command starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (log, ended) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let (lines, end) = (log.clone(), ended.clone());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
            end.store(true, Ordering::SeqCst);
        });
        let mut proxy = Proxy {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            kept: kept.to_owned(),
            child,
            log,
            ended,
        };
        let listening = proxy.until(|proxy| {
            let lines = proxy.events("listening");
            let ended = proxy.ended.load(Ordering::SeqCst);
            (ended || !lines.is_empty()).then(|| lines.first().cloned())
        });
        match listening {
            Some(line) => {
                proxy.address = line["address"].as_str().unwrap().parse().unwrap();
                Ok(proxy)
            }
            None => Err((proxy.code(), proxy.said())),
        }
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Everything on stderr so far.
    pub fn said(&self) -> String {
        let log = self.log.lock().unwrap().join("\n");
        assert!(!log.contains("panicked"), "{log}");
        log
    }

    /// The log's lines about one kind of event.
    pub fn events(&self, event: &str) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        log.iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["event"] == event)
            .collect()
    }

    /// The lines about answers, when there are so many.
    pub fn answers(&self, number: usize) -> Vec<Value> {
        self.until(|proxy| Some(proxy.events("answer")).filter(|lines| lines.len() >= number))
    }

    /// `status.json`.
    pub fn status(&self) -> Value {
        let status = self
            .connect()
            .send("GET", "/touchstone/status.json", &[], b"");
        assert_eq!(status.status, 200);
        status.json()
    }

    /// Kept folders of verified answers.
    pub fn verified(&self) -> Vec<PathBuf> {
        let days = folders(&self.kept);
        let days = days.iter().filter(|day| {
            let name = day.file_name().unwrap().to_str().unwrap();
            name != "refused" && name != ".writing"
        });
        days.flat_map(|day| folders(day)).collect()
    }

    /// Kept folders of what did not verify.
    pub fn refused(&self) -> Vec<PathBuf> {
        let days = folders(&self.kept.join("refused"));
        days.iter().flat_map(|day| folders(day)).collect()
    }

    /// Waits for something.
    #[track_caller]
    pub fn until<T>(&self, mut what: impl FnMut(&Proxy) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = what(self) {
                return found;
            }
            assert!(began.elapsed() < LONG, "it never came:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(done.expect("kill runs").success());
    }

    /// Waits for the end; the exit code.
    pub fn code(&mut self) -> i32 {
        let status = self.child.wait().expect("an end");
        while !self.ended.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        status.code().expect("an exit code, no signal")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folders in a folder, in order.
pub fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

/// `touchstone check` on a kept folder: exit code and verdict.
pub fn check(folder: &Path, policy: &Path, root: &Path) -> (i32, Value) {
    let run = touchstone(&[
        "check",
        folder.to_str().unwrap(),
        "--policy",
        policy.to_str().unwrap(),
        "--trust-simulated-root",
        root.to_str().unwrap(),
        "--expect-simulated",
        "--json",
    ]);
    (run.code, serde_json::from_str(&run.stdout).unwrap())
}
