//! Hosts to test: in this process, or as processes.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use host::{Host, config::Config};
use tempfile::TempDir;

use crate::enclave::Id;

/// A folder for one test's store, collateral and settings.
pub struct Place {
    pub folder: TempDir,
    pub public: SocketAddr,
    pub control: SocketAddr,
    pub tls: Option<SocketAddr>,
    /// More lines of the settings, for `[enclave]` and for `[limits]`.
    pub enclave: &'static str,
    pub limits: &'static str,
    /// `[enclaves.NAME]` tables that stand in place of the addresses above.
    pub enclaves: String,
    /// Tables of other names.
    pub more: String,
}

impl Place {
    /// For several enclaves: name, public and control listener, and TLS listener.
    pub fn several(enclaves: &[(&str, SocketAddr, SocketAddr, Option<SocketAddr>)]) -> Self {
        let mut place = Self::new(enclaves[0].1, enclaves[0].2);
        for (name, public, control, tls) in enclaves {
            place.enclaves += &format!(
                "[enclaves.{name}]\npublic = \"tcp://{public}\"\ncontrol = \"tcp://{control}\"\n"
            );
            if let Some(tls) = tls {
                place.enclaves += &format!("tls = \"tcp://{tls}\"\n");
            }
        }
        place
    }

    pub fn new(public: SocketAddr, control: SocketAddr) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            public,
            control,
            tls: None,
            enclave: "",
            limits: "",
            enclaves: String::new(),
            more: String::new(),
        }
    }

    pub fn with(self, enclave: &'static str, limits: &'static str) -> Self {
        Self {
            enclave,
            limits,
            ..self
        }
    }

    pub fn with_tls(self, tls: SocketAddr) -> Self {
        Self {
            tls: Some(tls),
            ..self
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store.sqlite")
    }

    /// Waits until the host's store has a note of this promise, which outlives the host; panics after twenty seconds.
    pub async fn until_noted(&self, id: Id) {
        let db = rusqlite::Connection::open(self.store()).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        // One of many in its round.
        let noted = "SELECT 1 FROM notes WHERE instr(ids, ?1) > 0";
        let mut noted = db.prepare(noted).unwrap();
        while !noted.exists([&id[..]]).unwrap() {
            assert!(Instant::now() < end, "never noted");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn settings(&self) -> String {
        let (store, collateral) = (self.store(), self.path("collateral"));
        let manifest = self.path("manifest.jsonl");
        let tls = self.tls.map(|tls| format!("tls = \"tcp://{tls}\""));
        let (public, control) = (self.public, self.control);
        let one = match self.enclaves.is_empty() {
            true => format!("public = \"tcp://{public}\"\ncontrol = \"tcp://{control}\"\n"),
            false => String::new(),
        };
        format!(
            "listen = \"tcp://127.0.0.1:0\"\nthreads = 2\n\
             [enclave]\nhealth_interval_ms = 50\n{one}{}\n{}\n{}\n\
             [store]\npath = {store:?}\n[collateral]\nfolder = {collateral:?}\npoll_ms = 20\n\
             [manifest]\nfile = {manifest:?}\npoll_ms = 20\n\
             [limits]\n{}\n[log]\nfilter = \"host=debug\"\n{}",
            tls.unwrap_or_default(),
            self.enclave,
            self.enclaves,
            self.limits,
            self.more
        )
    }

    /// A host in this process.
    pub async fn start(&self) -> Host {
        Host::start(&Config::parse(&self.settings()).unwrap())
            .await
            .unwrap()
    }

    /// A host as a process.
    pub fn spawn(&self) -> Process {
        let file = self.path("host.toml");
        std::fs::write(&file, self.settings()).unwrap();
        Process::spawn(&file)
    }
}

/// A host as a process. Killed when dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    address: Option<SocketAddr>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    pub fn spawn(settings: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_host"))
            .arg("--config")
            .arg(settings)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = None;
        for line in lines.by_ref().map_while(Result::ok) {
            log.lock().unwrap().push_str(&format!("{line}\n"));
            let text = line.split_once("listening address=").map(|(_, rest)| rest);
            let json = line
                .contains("\"listening\"")
                .then(|| line.split_once("\"address\":\""))
                .flatten()
                .map(|(_, rest)| rest);
            if let Some(rest) = text.or(json) {
                let found = rest.split([' ', '"']).next();
                address = found.and_then(|address| address.parse().ok());
                break;
            }
        }
        let writing = log.clone();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                writing.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Self {
            child,
            log,
            address,
            reader: Some(reader),
        }
    }

    /// Where it listens; fails the test when it does not.
    pub fn address(&self) -> SocketAddr {
        self.address
            .unwrap_or_else(|| panic!("the host did not start: {}", self.log()))
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log has this so many times: it comes through a pipe, later than what it is about. Panics after twenty
    /// seconds.
    pub fn until_logged(&self, text: &str, times: usize) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.log().matches(text).count() < times {
            assert!(Instant::now() < end, "never {text:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL: nothing is flushed, nothing is said.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM. Gives the exit code and the log.
    pub fn terminate(self) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait()
    }

    /// Waits for the end. Gives the exit code and the log.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        self.reader.take().unwrap().join().unwrap();
        (code, self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
