//! What a stack is to be like, and whether what it needs is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Stack;
use crate::fixtures;
use crate::machine::{Machine, TdxMachine, TeeMachine};

/// What a stack is to be like.
#[derive(Debug)]
pub struct StackBuilder<M = Machine> {
    pub(super) machine: Option<M>,
    pub(super) latency: Duration,
    pub(super) models: Vec<(String, String, PathBuf)>,
    pub(super) enclave: BTreeMap<String, String>,
    pub(super) host: BTreeMap<String, String>,
    pub(super) start_host: bool,
}

impl Default for StackBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl StackBuilder {
    /// A Genoa with reports of version 5, certificates valid now, no latency, no models, all settings at their defaults.
    pub fn new() -> Self {
        Self::empty()
    }
}

impl StackBuilder<TdxMachine> {
    /// As [`StackBuilder::new`], on a TDX machine with quotes of version 5.
    pub fn tdx() -> Self {
        Self::empty()
    }
}

impl<M: TeeMachine> StackBuilder<M> {
    fn empty() -> Self {
        Self {
            machine: None,
            latency: Duration::ZERO,
            models: Vec::new(),
            enclave: BTreeMap::new(),
            host: BTreeMap::new(),
            start_host: true,
        }
    }

    /// Runs on this machine.
    #[must_use]
    pub fn machine(mut self, machine: M) -> Self {
        self.machine = Some(machine);
        self
    }

    /// How long a quote takes.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Serves one of the project's own test models as version 1.
    #[must_use]
    pub fn model(self, name: &str) -> Self {
        let file = fixtures::test_data().join(format!("models/{name}/1/model.onnx"));
        self.model_file(name, "1", &file)
    }

    /// Serves a copy of this ONNX file under this name and version.
    #[must_use]
    pub fn model_file(mut self, name: &str, version: &str, file: &Path) -> Self {
        self.models.push((name.into(), version.into(), file.into()));
        self
    }

    /// Sets one of the enclave's settings: dotted key, TOML value (`"answers.default_guarantees"`, `"\"signed\""`).
    #[must_use]
    pub fn enclave(mut self, key: &str, value: &str) -> Self {
        self.enclave.insert(key.into(), value.into());
        self
    }

    /// Sets one of the host's settings.
    #[must_use]
    pub fn host(mut self, key: &str, value: &str) -> Self {
        self.host.insert(key.into(), value.into());
        self
    }

    /// Starts no host: the test plays the host itself.
    #[must_use]
    pub fn without_host(mut self) -> Self {
        self.start_host = false;
        self
    }

    /// Starts everything and waits until it serves. `None`, with a line on stderr, when something that a test may lack is not there: the
    /// programs, ONNX Runtime, the models.
    ///
    /// # Panics
    /// When anything else goes wrong.
    pub fn start(self, test: &str) -> Option<Stack<M>> {
        let needs = match Needs::find(&self) {
            Ok(needs) => needs,
            Err(why) => {
                fixtures::skipped(test, &why);
                return None;
            }
        };
        Some(Stack::start(self, needs))
    }
}

/// What must be there before anything is started.
pub(super) struct Needs {
    pub(super) programs: PathBuf,
    pub(super) runtime: PathBuf,
}

impl Needs {
    fn find<M>(wanted: &StackBuilder<M>) -> Result<Self, String> {
        let programs = programs();
        let mut names = vec!["enclave", "touchstone"];
        names.extend(wanted.start_host.then_some("host"));
        for name in names {
            let path = programs.join(name);
            if !path.is_file() {
                return Err(format!(
                    "no {}: build it first, or set TOUCHSTONE_BIN_DIR",
                    path.display()
                ));
            }
        }
        let runtime = onnxruntime().ok_or(
            "no ONNX Runtime: run scripts/fetch-onnxruntime, or set TOUCHSTONE_ONNXRUNTIME",
        )?;
        for (name, _, file) in &wanted.models {
            if !file.is_file() {
                return Err(format!("no file for the model {name}: {}", file.display()));
            }
        }
        Ok(Self { programs, runtime })
    }
}

/// The folder of the built programs.
pub fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("TOUCHSTONE_BIN_DIR") {
        return PathBuf::from(folder);
    }
    let own = std::env::current_exe().expect("a program knows its own file");
    let folder = own.parent().unwrap_or(Path::new("."));
    // Tests lie in a folder of their own beside the programs.
    match folder.parent() {
        Some(above) if folder.ends_with("deps") => above.to_path_buf(),
        _ => folder.to_path_buf(),
    }
}

/// ONNX Runtime's shared library, if it is there.
pub fn onnxruntime() -> Option<PathBuf> {
    let path = match std::env::var_os("TOUCHSTONE_ONNXRUNTIME") {
        Some(path) => PathBuf::from(path),
        None => fixtures::workspace_root().join("target/onnxruntime/libonnxruntime.so"),
    };
    path.is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let wanted = StackBuilder::new().model_file("m", "1", Path::new("/nowhere/model.onnx"));
        let why = Needs::find(&wanted).err().unwrap();
        assert!(why.starts_with("no "), "{why}");
    }
}
