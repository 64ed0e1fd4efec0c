//! How a model is run: its `settings.toml`, and the configuration object that is hashed
//! (formats.md §5).

use serde::Deserialize;
use serde_json::{Map, Value, json};
use touchstone_formats::{config, digest::Digest};

use crate::runtime::Runtime;

/// How far the runtime rewrites a graph before it runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimization {
    /// The graph as it is written.
    None,
    /// Rewrites that keep the meaning exactly.
    Basic,
    /// And fusions of nodes.
    Extended,
    /// And memory layouts that suit the CPU.
    All,
}

/// Whether independent nodes of a graph may run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Execution {
    /// One node after the other.
    Sequential,
    /// On `inter_threads` threads.
    Parallel,
}

/// A model's settings. Every member but `sessions` shapes the answer, or might, and is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Sessions in the pool, 1 to 256: requests that run at once.
    pub sessions: usize,
    /// Graph optimisation.
    pub optimization: Optimization,
    /// Execution mode.
    pub execution: Execution,
    /// Threads inside one node, 1 to 64. More than one lost under load.
    pub intra_threads: usize,
    /// Threads across nodes, 1 to 64; 1 unless `execution` is parallel.
    pub inter_threads: usize,
    /// Whether the runtime keeps freed memory for the next run (faster, never shrinks).
    pub arena: bool,
    /// Whether the runtime remembers memory layouts by input shape (callers who vary the shape
    /// make it remember many).
    pub memory_pattern: bool,
}

/// `settings.toml`. Every key is optional; unknown ones are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sessions: Option<usize>,
    optimization: Option<Optimization>,
    execution: Option<Execution>,
    intra_threads: Option<usize>,
    inter_threads: Option<usize>,
    arena: Option<bool>,
    memory_pattern: Option<bool>,
}

impl Settings {
    /// What holds for a model without a `settings.toml`.
    pub fn new(sessions: usize) -> Self {
        Self {
            sessions,
            optimization: Optimization::All,
            execution: Execution::Sequential,
            intra_threads: 1,
            inter_threads: 1,
            arena: true,
            memory_pattern: false,
        }
    }

    /// These settings with those that `toml` gives instead.
    ///
    /// # Errors
    /// In words: an unknown key, a value out of its range.
    pub fn overridden(self, toml: &str) -> Result<Self, String> {
        let file: File = toml::from_str(toml).map_err(|e| e.to_string().trim_end().to_owned())?;
        let settings = Self {
            sessions: file.sessions.unwrap_or(self.sessions),
            optimization: file.optimization.unwrap_or(self.optimization),
            execution: file.execution.unwrap_or(self.execution),
            intra_threads: file.intra_threads.unwrap_or(self.intra_threads),
            inter_threads: file.inter_threads.unwrap_or(self.inter_threads),
            arena: file.arena.unwrap_or(self.arena),
            memory_pattern: file.memory_pattern.unwrap_or(self.memory_pattern),
        };
        for (key, value, most) in [
            ("sessions", settings.sessions, 256),
            ("intra_threads", settings.intra_threads, 64),
            ("inter_threads", settings.inter_threads, 64),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("{key} is {value}, expected 1 to {most}"));
            }
        }
        if settings.execution == Execution::Sequential && settings.inter_threads != 1 {
            return Err(format!(
                "inter_threads is {} while execution is \"sequential\"; expected 1",
                settings.inter_threads
            ));
        }
        Ok(settings)
    }

    /// The `touchstone/config/1` object and its digest.
    ///
    /// # Errors
    /// None in practice: the object holds text and small integers.
    pub fn config_object(
        &self,
        runtime: &Runtime,
    ) -> touchstone_formats::Result<(Map<String, Value>, Digest)> {
        let switch = |on: bool| if on { "on" } else { "off" };
        let members = [
            ("v", json!(config::VERSION)),
            ("runtime", json!(measurements::onnxruntime::NAME)),
            ("version", json!(runtime.version())),
            ("build", json!(runtime.build_info())),
            ("library_sha256", json!(runtime.library_digest())),
            ("execution_provider", json!("CPUExecutionProvider")),
            ("cpu_features", json!(runtime.cpu_features())),
            (
                "optimization",
                json!(match self.optimization {
                    Optimization::None => "none",
                    Optimization::Basic => "basic",
                    Optimization::Extended => "extended",
                    Optimization::All => "all",
                }),
            ),
            (
                "execution_mode",
                json!(match self.execution {
                    Execution::Sequential => "sequential",
                    Execution::Parallel => "parallel",
                }),
            ),
            ("intra_op_threads", json!(self.intra_threads)),
            ("inter_op_threads", json!(self.inter_threads)),
            ("spinning", json!("off")),
            ("deterministic_compute", json!("on")),
            ("flush_denormals", json!("off")),
            ("prepacking", json!("on")),
            ("arena", json!(switch(self.arena))),
            ("memory_pattern", json!(switch(self.memory_pattern))),
            ("batching", json!("none")),
            // Room for tokenizers, templates and label maps, each by digest.
            ("preprocessing", json!([])),
            ("postprocessing", json!([])),
        ];
        let object: Map<String, Value> = members
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let digest = config::config_digest(&object)?;
        Ok((object, digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_override_what_they_name_and_nothing_else() {
        let base = Settings::new(3);
        assert_eq!(
            base.clone().overridden("").expect("an empty file is fine"),
            base
        );
        let given = "optimization = \"basic\"\nsessions = 2\narena = false\n";
        let expected = Settings {
            sessions: 2,
            optimization: Optimization::Basic,
            arena: false,
            ..base.clone()
        };
        assert_eq!(
            base.clone().overridden(given).expect("known keys"),
            expected
        );
        let parallel = "execution = \"parallel\"\ninter_threads = 2\n";
        assert_eq!(
            base.clone()
                .overridden(parallel)
                .expect("parallel")
                .inter_threads,
            2
        );

        for (bad, says) in [
            ("optimisation = \"all\"", "unknown field `optimisation`"),
            ("optimization = \"most\"", "unknown variant `most`"),
            ("sessions = 0", "sessions is 0, expected 1 to 256"),
            ("sessions = 257", "sessions is 257"),
            (
                "intra_threads = 65",
                "intra_threads is 65, expected 1 to 64",
            ),
            (
                "inter_threads = 2",
                "inter_threads is 2 while execution is \"sequential\"",
            ),
            ("sessions = -1", "sessions"),
            ("sessions = \"2\"", "sessions"),
            ("sessions = 2\nsessions = 3", "duplicate key"),
        ] {
            let error = base.clone().overridden(bad).expect_err(bad);
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
