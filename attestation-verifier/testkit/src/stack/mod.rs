//! The whole of Touchstone as separate processes, for end-to-end tests: a simulated platform in this process, the real `enclave`
//! and `host` programs on loopback, and the real `touchstone` command.
//!
//! The programs are looked for in the folder that `TOUCHSTONE_BIN_DIR` names, else beside the running test
//! (`target/debug` for `target/debug/deps/some_test`); they must have been built before. ONNX Runtime's library is the file that
//! `TOUCHSTONE_ONNXRUNTIME` names, else `target/onnxruntime/libonnxruntime.so` of the workspace. A test whose needs are not met
//! prints `SKIPPED: …` and passes; everything that goes wrong later panics with the programs' last words.
//!
//! ```no_run
//! use touchstone_testkit::stack::StackBuilder;
//!
//! let Some(stack) = StackBuilder::new().model("digits_mlp_plain").start("a test of mine") else { return };
//! let ready = stack.host().get("/v2/health/ready");
//! assert_eq!(ready.status, 200);
//! ```

mod builder;
mod http;
mod process;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use builder::{StackBuilder, onnxruntime, programs};
pub use http::{Client, Response};
pub use process::Process;
use touchstone_formats::{Digest, ModelFile, ModelManifest};

use builder::Needs;

use crate::fixtures;
use crate::machine::{Machine, TeeMachine};
use crate::platform::{PlatformConfig, PlatformHandle, SimulatedPlatform};

/// Longest time from the start of a program until it serves. Debug builds load slowly on busy machines.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A running stack. Dropping it kills the programs and removes the folder.
#[derive(Debug)]
pub struct Stack<M = Machine> {
    /// The platform: latency, faults and counters.
    pub platform: PlatformHandle<M>,
    programs: PathBuf,
    enclave_process: Option<Process>,
    host_process: Option<Process>,
    addresses: Addresses,
    enclave_settings: BTreeMap<String, String>,
    host_settings: BTreeMap<String, String>,
    folder: tempfile::TempDir,
}

#[derive(Clone, Copy, Debug)]
struct Addresses {
    enclave_public: SocketAddr,
    enclave_control: SocketAddr,
    enclave_tls: SocketAddr,
    host: Option<SocketAddr>,
}

impl<M: TeeMachine> Stack<M> {
    fn start(wanted: StackBuilder<M>, needs: Needs) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("touchstone-")
            .tempdir()
            .expect("a temporary folder");
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock after 1970")
            .as_secs();
        let machine = wanted.machine.unwrap_or_else(|| M::strict(at));
        machine
            .write_to(&folder.path().join("platform"))
            .expect("the platform's files");
        let mut config = PlatformConfig::new(folder.path().join("agent.sock"), machine);
        config.latency = wanted.latency;
        let platform = SimulatedPlatform::start(config).expect("the platform's socket");

        let repository = folder.path().join("models");
        std::fs::create_dir_all(&repository).expect("the model repository");
        for (name, version, file) in &wanted.models {
            let version = repository.join(name).join(version);
            std::fs::create_dir_all(&version).expect("a model's folder");
            std::fs::copy(file, version.join("model.onnx")).expect("a model's file");
        }

        let mut settings: BTreeMap<String, String> = BTreeMap::new();
        let mut set = |key: &str, value: String| settings.insert(key.into(), value);
        set("name", quoted("enclave.test"));
        set("log_prefix", quoted("enclave.test/log"));
        set("listen.public", quoted("tcp://127.0.0.1:0"));
        set("listen.control", quoted("tcp://127.0.0.1:0"));
        set("listen.tls", quoted("tcp://127.0.0.1:0"));
        if !wanted.enclave.contains_key("quote.source") {
            set("quote.agent", quoted(platform.socket()));
        }
        set("runtime.library", quoted(&needs.runtime));
        set("runtime.sha256", quoted(sha256_of(&needs.runtime)));
        set("models.repository", quoted(&repository));
        // Whatever is tested with it is tested confined.
        set("sandbox.seccomp", "true".into());
        settings.extend(wanted.enclave);

        let mut stack = Self {
            platform,
            programs: needs.programs,
            enclave_process: None,
            host_process: None,
            addresses: Addresses {
                enclave_public: unknown(),
                enclave_control: unknown(),
                enclave_tls: unknown(),
                host: None,
            },
            enclave_settings: settings,
            host_settings: BTreeMap::new(),
            folder,
        };
        let mut set = |key: &str, value: String| stack.host_settings.insert(key.into(), value);
        set("listen", quoted("tcp://127.0.0.1:0"));
        set(
            "store.path",
            quoted(stack.folder.path().join("store/receipts.sqlite")),
        );
        set(
            "collateral.folder",
            quoted(stack.folder.path().join("platform/collateral")),
        );
        stack.host_settings.extend(wanted.host);
        stack.start_enclave();
        if wanted.start_host {
            stack.start_host();
        }
        stack
    }

    /// The folder of everything that belongs to this stack; gone when the stack is dropped.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The simulated root's file, for `--trust-simulated-root`.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("platform/root.pem")
    }

    /// The enclave's model repository.
    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    /// The host's collateral folder.
    pub fn collateral(&self) -> PathBuf {
        self.folder.path().join("platform/collateral")
    }

    /// A client of the host, which is what callers talk to.
    ///
    /// # Panics
    /// When the stack has no host.
    pub fn host(&self) -> Client {
        Client::new(self.addresses.host.expect("this stack has no host"))
    }

    /// The host's address as a URL of its own HTTP, which the host can read.
    ///
    /// # Panics
    /// When the stack has no host.
    pub fn url(&self) -> String {
        format!("http://{}", self.host().address())
    }

    /// The host's address as a URL of attested TLS into the enclave.
    ///
    /// # Panics
    /// When the stack has no host.
    pub fn https_url(&self) -> String {
        format!("https://{}", self.host().address())
    }

    /// The enclave's TLS listener, which the host passes TLS to.
    pub fn enclave_tls(&self) -> SocketAddr {
        self.addresses.enclave_tls
    }

    /// A client of the enclave's public listener.
    pub fn enclave_public(&self) -> Client {
        Client::new(self.addresses.enclave_public)
    }

    /// A client of the enclave's control listener, as the host is one.
    pub fn enclave_control(&self) -> Client {
        Client::new(self.addresses.enclave_control)
    }

    /// The enclave's process: signals, log, memory.
    ///
    /// # Panics
    /// When it was stopped.
    pub fn enclave_process(&self) -> &Process {
        self.enclave_process
            .as_ref()
            .expect("the enclave was stopped")
    }

    /// The host's process.
    ///
    /// # Panics
    /// When it was stopped.
    pub fn host_process(&self) -> &Process {
        self.host_process.as_ref().expect("the host was stopped")
    }

    /// Changes a setting of the enclave for its next start.
    pub fn set_enclave(&mut self, key: &str, value: &str) {
        self.enclave_settings.insert(key.into(), value.into());
    }

    /// Changes a setting of the host for its next start.
    pub fn set_host(&mut self, key: &str, value: &str) {
        self.host_settings.insert(key.into(), value.into());
    }

    /// Kills the enclave as a crash would (SIGKILL).
    pub fn kill_enclave(&mut self) {
        drop(self.enclave_process.take());
    }

    /// Kills the host as a crash would (SIGKILL).
    pub fn kill_host(&mut self) {
        drop(self.host_process.take());
    }

    /// Starts the enclave (again: then at the addresses it had, with new keys), and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_enclave(&mut self) {
        let file = self.write_settings("enclave.toml", &self.enclave_settings);
        let process = Process::start(
            "enclave",
            Command::new(self.programs.join("enclave"))
                .arg("--config")
                .arg(file),
        );
        let address =
            |name: &str| address_in(&process.wait_for_line(&["listening", name], START_LIMIT));
        self.addresses.enclave_public = address("public");
        self.addresses.enclave_control = address("control");
        self.addresses.enclave_tls = address("tls");
        // The host knows these addresses from now on, and the enclave keeps them when it is started again.
        for (key, address) in [
            ("listen.public", self.addresses.enclave_public),
            ("listen.control", self.addresses.enclave_control),
            ("listen.tls", self.addresses.enclave_tls),
        ] {
            self.enclave_settings
                .insert(key.into(), quoted(format!("tcp://{address}")));
        }
        wait_until_ready(&process, self.enclave_public());
        self.enclave_process = Some(process);
    }

    /// From its next start on the host of this stack has several enclaves: this stack's own, and those of these others. Their
    /// names are `e0`, `e1`, …. Where they are on other machines their collateral has to be put into this host's folder.
    pub fn join<N: TeeMachine>(&mut self, others: &[&Stack<N>]) {
        let own = self.listeners();
        let all = std::iter::once(own).chain(others.iter().map(|other| other.listeners()));
        for (number, listeners) in all.enumerate() {
            for (listener, address) in listeners {
                let key = format!("enclaves.e{number}.{listener}");
                self.host_settings
                    .insert(key, quoted(format!("tcp://{address}")));
            }
        }
    }

    fn listeners(&self) -> [(&'static str, SocketAddr); 3] {
        [
            ("public", self.addresses.enclave_public),
            ("control", self.addresses.enclave_control),
            ("tls", self.addresses.enclave_tls),
        ]
    }

    /// Starts the host (again: then at the address it had), and waits until it relays.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_host(&mut self) {
        let several = self
            .host_settings
            .keys()
            .any(|key| key.starts_with("enclaves."));
        for (listener, address) in self.listeners().into_iter().filter(|_| !several) {
            self.host_settings
                .entry(format!("enclave.{listener}"))
                .or_insert_with(|| quoted(format!("tcp://{address}")));
        }
        let file = self.write_settings("host.toml", &self.host_settings);
        let process = Process::start(
            "host",
            Command::new(self.programs.join("host"))
                .arg("--config")
                .arg(file),
        );
        let address = address_in(&process.wait_for_line(&["listening"], START_LIMIT));
        self.addresses.host = Some(address);
        self.host_settings
            .insert("listen".into(), quoted(format!("tcp://{address}")));
        wait_until_ready(&process, self.host());
        self.host_process = Some(process);
    }

    /// Runs the `touchstone` command to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn touchstone<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        Command::new(self.programs.join("touchstone"))
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .expect("touchstone runs")
    }

    /// Asks a shipped model whose input is `X` about its held-out rows, over attested TLS, with the simulated root named and these options
    /// beside; what comes of it goes to `folder`. Gives what the command said.
    ///
    /// # Panics
    /// When the command cannot be started.
    pub fn ask(&self, model: &str, policy: &Path, folder: &str, more: &[&str]) -> Output {
        self.ask_at(&self.https_url(), model, policy, folder, more)
    }

    /// [`Self::ask`] at another address, such as the host's plain HTTP.
    ///
    /// # Panics
    /// When the command cannot be started.
    pub fn ask_at(
        &self,
        url: &str,
        model: &str,
        policy: &Path,
        folder: &str,
        more: &[&str],
    ) -> Output {
        let input = fixtures::test_data().join(format!("held-out/{model}_x.npy"));
        let input = format!("X={}", input.display());
        let policy = policy.display().to_string();
        let root = self.root().display().to_string();
        let mut arguments = vec!["ask", url, model, "--input", &input, "--policy", &policy];
        arguments.extend(["-o", folder, "--trust-simulated-root", &root]);
        arguments.extend(more);
        self.touchstone(arguments)
    }

    /// Writes a policy: the strict template that `touchstone policy init` gives, with this stack's measurements and models, and
    /// these changes on top ([`crate::policy::edit`]). Gives its path.
    ///
    /// # Panics
    /// When there is no template, or a change does not fit it.
    pub fn policy(&self, name: &str, changes: &[(&str, &str)]) -> PathBuf {
        let template = self.touchstone(["policy", "init", "--tee", M::TEE.name()]);
        assert!(
            template.status.success(),
            "{}",
            String::from_utf8_lossy(&template.stderr)
        );
        let template = String::from_utf8(template.stdout).expect("a policy is text");
        let mut models: Vec<String> = Vec::new();
        for file in files_named("model.onnx", &self.repository()) {
            models.push(model_digest(&file).to_string());
        }
        let mut honest = vec![("models", format!("{{ expect = {models:?} }}"))];
        for (key, value) in self.platform.machine().reference_values() {
            honest.push((key, format!("{{ expect = [{value:?}] }}")));
        }
        let honest: Vec<(&str, &str)> = honest
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        let text = crate::policy::edit(&crate::policy::edit(&template, &honest), changes);
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a policy file");
        path
    }

    fn write_settings(&self, name: &str, settings: &BTreeMap<String, String>) -> PathBuf {
        // Keys without a dot first: after a dotted one TOML would still take them, but people read these files too.
        let mut lines: Vec<String> = settings
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        lines.sort_by_key(|line| line.split(' ').next().is_some_and(|key| key.contains('.')));
        let path = self.folder.path().join(name);
        std::fs::write(&path, lines.concat()).expect("a settings file");
        path
    }
}

/// A TOML string.
fn quoted(text: impl AsRef<OsStr>) -> String {
    let text = text.as_ref().to_str().expect("a path that is UTF-8");
    // TOML's basic strings escape as JSON does.
    serde_json::Value::from(text).to_string()
}

/// The digest of a model that is one file (formats.md §5).
///
/// # Panics
/// When the file cannot be read.
pub fn model_digest(file: &Path) -> Digest {
    let bytes = std::fs::read(file).expect("a model's file");
    let file = ModelFile {
        name: "model.onnx".into(),
        sha256: Digest::of(&bytes),
        size: bytes.len() as u64,
    };
    ModelManifest::new(vec![file])
        .expect("one file, the entry")
        .digest()
}

/// All files of this name below a folder, in order.
fn files_named(name: &str, folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files_named(name, &path)),
            false => found.extend((path.file_name() == Some(OsStr::new(name))).then_some(path)),
        }
    }
    found.sort();
    found
}

fn sha256_of(file: &Path) -> String {
    Digest::of(&std::fs::read(file).expect("the runtime's library")).to_string()
}

fn unknown() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The `address` in a log line, with or without `tcp://` and quotes.
fn address_in(line: &str) -> SocketAddr {
    let after = line.split("address").nth(1).unwrap_or_default();
    let start = after
        .find(|c: char| matches!(c, '0'..='9' | '['))
        .unwrap_or(after.len());
    let rest = &after[start..];
    let end = rest.find(|c: char| !matches!(c, '0'..='9' | 'a'..='f' | '.' | ':' | '[' | ']'));
    let address = &rest[..end.unwrap_or(rest.len())];
    address
        .parse()
        .unwrap_or_else(|_| panic!("no address in the log line {line:?}"))
}

fn wait_until_ready(process: &Process, client: Client) {
    let began = Instant::now();
    loop {
        if matches!(client.try_get("/v2/health/ready"), Ok(answer) if answer.status == 200) {
            return;
        }
        process.assert_running();
        assert!(
            began.elapsed() < START_LIMIT,
            "{} is not ready:\n{}",
            process.name(),
            process.tail()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_log_lines() {
        let line = "2026-11-21T00:00:00Z  INFO enclave::run: listening name=\"public\" address=tcp://127.0.0.1:40123";
        assert_eq!(address_in(line), SocketAddr::from(([127, 0, 0, 1], 40123)));
        assert_eq!(
            address_in("listening address=127.0.0.1:80 enclave=tcp://127.0.0.1:39645"),
            SocketAddr::from(([127, 0, 0, 1], 80))
        );
        assert_eq!(
            address_in("{\"address\":\"tcp://[::1]:80\"}").to_string(),
            "[::1]:80"
        );
    }

    #[test]
    fn settings_are_toml_strings() {
        assert_eq!(quoted("/a \"b\"\\c"), r#""/a \"b\"\\c""#);
    }
}
