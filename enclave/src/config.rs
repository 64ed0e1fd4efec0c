//! The enclave's settings: one TOML file, every key checked, the whole of it hashed.
//!
//! Nothing that shapes behaviour enters the process without a digest: the effective settings
//! (defaults filled in) and the command line's arguments become one JCS object, whose digest is the
//! keyset's `config` (formats.md §2). The environment is not read.

mod address;
mod quotes;

use std::{path::PathBuf, time::Duration};

use serde_json::{Map, Value, json};
use touchstone_formats::{digest::Digest, guarantee::GuaranteeSet};
use touchstone_settings::Section;

pub use address::Address;
pub use quotes::{KernelQuotes, QuoteSourceConfig};
pub use touchstone_settings::ConfigError;

/// What an address looks like, for errors.
const ADDRESS: &str = "\"tcp://<ip>:<port>\" or \"vsock://[<cid>]:<port>\"";

/// Everything that can be set. `enclave.example.toml` documents each key.
#[derive(Debug, Clone)]
pub struct Config {
    /// The operator's word for this enclave: the keyset's `name`, the receipts' `iss`.
    pub name: String,
    /// Prefix of the log's origin (formats.md §6).
    pub log_prefix: String,
    /// Threads that serve requests.
    pub threads: usize,
    /// Sockets.
    pub listen: Listen,
    /// Keyset lifetime and rotation.
    pub keyset: KeysetConfig,
    /// What callers get and may ask for.
    pub answers: Answers,
    /// Where quotes come from.
    pub quote: QuoteConfig,
    /// When the log is sealed.
    pub seal: SealConfig,
    /// Bounds on what callers and the host can make the enclave hold.
    pub limits: Limits,
    /// ONNX Runtime.
    pub runtime: RuntimeConfig,
    /// The model repository.
    pub models: ModelsConfig,
    /// What the process may ask of the kernel.
    pub sandbox: SandboxConfig,
    /// Log output.
    pub log: LogConfig,
}

/// The listeners.
#[derive(Debug, Clone)]
pub struct Listen {
    /// What the host relays from callers.
    pub public: Address,
    /// What the host alone uses.
    pub control: Address,
    /// Where TLS ends inside the enclave; nowhere if absent.
    pub tls: Option<Address>,
}

/// Keyset lifetime and rotation.
#[derive(Debug, Clone)]
pub struct KeysetConfig {
    /// Seconds from `not_before` to `not_after`.
    pub lifetime_seconds: u64,
    /// Seconds before `not_after` at which the next keyset is made.
    pub rotate_before_seconds: u64,
}

/// What callers get and may ask for.
#[derive(Debug, Clone)]
pub struct Answers {
    /// The guarantees of a request that asks for none.
    pub default_guarantees: GuaranteeSet,
    /// Longest `Prefer: wait=` that is honoured, in seconds.
    pub max_wait_seconds: u64,
}

/// Where quotes come from.
#[derive(Debug, Clone)]
pub struct QuoteConfig {
    /// The source.
    pub source: QuoteSourceConfig,
    /// Longest time for one quote.
    pub timeout: Duration,
    /// How many further tries a `busy` or `failed` answer gets before the source counts as failing.
    pub retries: u32,
    /// How many requests for `quoted` may wait for their quote.
    pub queue: usize,
    /// How many TLS connections may wait for their session's quote.
    pub sessions: usize,
}

/// When the log is sealed.
#[derive(Debug, Clone)]
pub struct SealConfig {
    /// Longest time that a receipt waits for a seal that nobody asked for; at most 10 s.
    pub interval: Duration,
    /// Most entries in one seal.
    pub max_entries: usize,
}

/// Bounds on what callers and the host can make the enclave hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest request body, in bytes.
    pub body_bytes: usize,
    /// Most bytes of request bodies and of answers that wait or are being taken, over all connections.
    pub buffered_bytes: usize,
    /// Longest request head (request line and header fields), in bytes.
    pub header_bytes: usize,
    /// Most header fields in a request.
    pub headers: usize,
    /// Longest time for a request head, idle time between requests included.
    pub header_timeout: Duration,
    /// Longest time for a request body.
    pub body_timeout: Duration,
    /// Longest time that a caller may take nothing of its answer.
    pub write_timeout: Duration,
    /// Most connections on the public listener, and as many on the one for TLS.
    pub connections: usize,
    /// Most connections on the control listener.
    pub control_connections: usize,
    /// Most requests being inferred or waiting for a session.
    pub in_flight: usize,
    /// Most sealed requests (Oblivious HTTP) under one keyset's key; 0: none are taken, and keysets have no such key.
    pub ohttp_requests: usize,
    /// Most bytes of receipts that wait for a seal or for the host's acknowledgement.
    pub unacknowledged_bytes: usize,
    /// Longest time that a drain waits for seals and acknowledgements.
    pub drain: Duration,
}

/// ONNX Runtime.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// The shared library's file.
    pub library: PathBuf,
    /// SHA-256 that the file must have.
    pub sha256: Digest,
}

/// The model repository.
#[derive(Debug, Clone)]
pub struct ModelsConfig {
    /// The repository's folder.
    pub repository: PathBuf,
    /// Seconds between looks at the folder; 0: only SIGHUP reloads.
    pub reload_seconds: u64,
    /// Sessions of a model that says nothing itself.
    pub sessions: usize,
    /// Requests that may wait for a session of one model.
    pub waiting: usize,
    /// Longest wait for a session.
    pub acquire_timeout: Duration,
}

/// What the process may ask of the kernel.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// Whether it confines itself to the system calls that it needs.
    pub seccomp: bool,
}

/// Log output.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// A `tracing` filter, such as `info` or `enclave=debug`.
    pub filter: String,
    /// Whether lines are JSON.
    pub json: bool,
}

impl Config {
    /// Reads and checks a settings file.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key, what was found and what is expected.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut root = Section::parse(text)?;
        let cores = std::thread::available_parallelism().map_or(4, std::num::NonZero::get);

        let name = root.text("name", None, 1..=256)?;
        let log_prefix = root.text("log_prefix", None, 1..=200)?;
        check_log_prefix(&log_prefix)?;
        let threads = root.size("threads", cores, 1..=1024)?;

        let mut listen = root.section("listen")?;
        let listen_config = Listen {
            public: listen.parsed("public", ADDRESS, |text| text.parse().ok())?,
            control: listen.parsed("control", ADDRESS, |text| text.parse().ok())?,
            tls: listen.optional("tls", ADDRESS, |text| text.parse().ok())?,
        };
        listen.finish()?;

        let mut keyset = root.section("keyset")?;
        let lifetime_seconds = keyset.integer("lifetime_seconds", 86_400, 2..=31_536_000)?;
        let rotate_before_seconds = keyset.integer(
            "rotate_before_seconds",
            (lifetime_seconds / 24).max(1),
            1..=lifetime_seconds - 1,
        )?;
        keyset.finish()?;

        let mut answers = root.section("answers")?;
        let words = answers.text("default_guarantees", Some("logged signed"), 1..=256)?;
        let default_guarantees =
            GuaranteeSet::parse_words(&words).map_err(|error| ConfigError::Value {
                key: "answers.default_guarantees".into(),
                found: format!("{words:?} ({error})"),
                expected: "guarantees out of: logged quoted signed, separated by spaces".into(),
            })?;
        if let Some(name) = crate::admission::undeliverable(&default_guarantees) {
            return Err(ConfigError::Value {
                key: "answers.default_guarantees".into(),
                found: format!("{words:?} ({name})"),
                expected: "guarantees out of: logged quoted signed, separated by spaces".into(),
            });
        }
        let answers_config = Answers {
            default_guarantees,
            max_wait_seconds: answers.integer("max_wait_seconds", 30, 0..=300)?,
        };
        answers.finish()?;

        let mut quote = root.section("quote")?;
        let quote_config = QuoteConfig {
            source: QuoteSourceConfig::read(&mut quote)?,
            timeout: quote.milliseconds("timeout_ms", 10_000, 1..=120_000)?,
            retries: quote.integer("retries", 3, 0..=100)? as u32,
            queue: quote.size("queue", 64, 1..=65_536)?,
            sessions: quote.size("sessions", 64, 1..=65_536)?,
        };
        quote.finish()?;

        let mut seal = root.section("seal")?;
        let seal_config = SealConfig {
            interval: seal.milliseconds("interval_ms", 10_000, 1..=10_000)?,
            max_entries: seal.size("max_entries", 4_096, 16..=65_536)?,
        };
        seal.finish()?;

        let mut limits = root.section("limits")?;
        let body_bytes = limits.size("body_bytes", 16 << 20, 1_024..=1 << 30)?;
        let limits_config = Limits {
            body_bytes,
            buffered_bytes: limits.size(
                "buffered_bytes",
                (256 << 20).max(body_bytes),
                body_bytes..=1 << 40,
            )?,
            header_bytes: limits.size("header_bytes", 16 << 10, 8_192..=1 << 20)?,
            headers: limits.size("headers", 100, 16..=1_024)?,
            header_timeout: limits.milliseconds("header_timeout_ms", 30_000, 10..=3_600_000)?,
            body_timeout: limits.milliseconds("body_timeout_ms", 30_000, 10..=3_600_000)?,
            write_timeout: limits.milliseconds("write_timeout_ms", 30_000, 10..=3_600_000)?,
            connections: limits.size("connections", 8_192, 1..=1_000_000)?,
            control_connections: limits.size("control_connections", 32, 1..=1_024)?,
            in_flight: limits.size("in_flight", 4_096, 1..=1_000_000)?,
            ohttp_requests: limits.size("ohttp_requests", 900_000, 0..=100_000_000)?,
            unacknowledged_bytes: limits.size(
                "unacknowledged_bytes",
                256 << 20,
                65_536..=1 << 40,
            )?,
            drain: limits.milliseconds("drain_ms", 30_000, 0..=3_600_000)?,
        };
        limits.finish()?;

        let mut runtime = root.section("runtime")?;
        let runtime_config = RuntimeConfig {
            library: runtime.required_path("library")?,
            sha256: runtime.parsed("sha256", "a SHA-256: 64 lower-case hex digits", |text| {
                Digest::from_hex(text).ok()
            })?,
        };
        runtime.finish()?;

        let mut models = root.section("models")?;
        let models_config = ModelsConfig {
            repository: models.required_path("repository")?,
            reload_seconds: models.integer("reload_seconds", 0, 0..=86_400)?,
            sessions: models.size("sessions", cores.min(256), 1..=256)?,
            waiting: models.size("waiting", 4_096, 0..=1_000_000)?,
            acquire_timeout: models.milliseconds("acquire_timeout_ms", 10_000, 1..=600_000)?,
        };
        models.finish()?;

        let mut sandbox = root.section("sandbox")?;
        let sandbox_config = SandboxConfig {
            seccomp: sandbox.boolean("seccomp", false)?,
        };
        sandbox.finish()?;

        let mut log = root.section("log")?;
        let filter = log.text("filter", Some("info"), 1..=1_024)?;
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter) {
            return Err(ConfigError::Value {
                key: "log.filter".into(),
                found: format!("{filter:?} ({error})"),
                expected: "a tracing filter such as \"info\" or \"enclave=debug\"".into(),
            });
        }
        let log_config = LogConfig {
            filter,
            json: log.choice("format", "text", &["text", "json"])? == "json",
        };
        log.finish()?;
        root.finish()?;

        Ok(Self {
            name,
            log_prefix,
            threads,
            listen: listen_config,
            keyset: KeysetConfig {
                lifetime_seconds,
                rotate_before_seconds,
            },
            answers: answers_config,
            quote: quote_config,
            seal: seal_config,
            limits: limits_config,
            runtime: runtime_config,
            models: models_config,
            sandbox: sandbox_config,
            log: log_config,
        })
    }

    /// The object that the keyset's `config` is the digest of: every effective setting, and the
    /// arguments of the command line. Times are in the unit that the key names.
    pub fn object(&self, arguments: &[String]) -> Map<String, Value> {
        let ms = |duration: Duration| duration.as_millis() as u64;
        let mut quote = self.quote.source.object();
        for (key, value) in [
            ("timeout_ms", ms(self.quote.timeout)),
            ("retries", self.quote.retries.into()),
            ("queue", self.quote.queue as u64),
            ("sessions", self.quote.sessions as u64),
        ] {
            quote.insert(key.into(), value.into());
        }
        let object = json!({
            "v": "touchstone/enclave-config/1",
            "arguments": arguments,
            "name": self.name,
            "log_prefix": self.log_prefix,
            "threads": self.threads,
            "listen": {
                "public": self.listen.public.to_string(),
                "control": self.listen.control.to_string(),
                "tls": self.listen.tls.map(|address| address.to_string()),
            },
            "keyset": {
                "lifetime_seconds": self.keyset.lifetime_seconds,
                "rotate_before_seconds": self.keyset.rotate_before_seconds,
            },
            "answers": {
                "default_guarantees": self.answers.default_guarantees.to_string(),
                "max_wait_seconds": self.answers.max_wait_seconds,
            },
            "quote": quote,
            "seal": { "interval_ms": ms(self.seal.interval), "max_entries": self.seal.max_entries },
            "limits": {
                "body_bytes": self.limits.body_bytes,
                "buffered_bytes": self.limits.buffered_bytes,
                "header_bytes": self.limits.header_bytes,
                "headers": self.limits.headers,
                "header_timeout_ms": ms(self.limits.header_timeout),
                "body_timeout_ms": ms(self.limits.body_timeout),
                "write_timeout_ms": ms(self.limits.write_timeout),
                "connections": self.limits.connections,
                "control_connections": self.limits.control_connections,
                "in_flight": self.limits.in_flight,
                "ohttp_requests": self.limits.ohttp_requests,
                "unacknowledged_bytes": self.limits.unacknowledged_bytes,
                "drain_ms": ms(self.limits.drain),
            },
            "runtime": { "library": path_text(&self.runtime.library), "sha256": self.runtime.sha256.to_string() },
            "models": {
                "repository": path_text(&self.models.repository),
                "reload_seconds": self.models.reload_seconds,
                "sessions": self.models.sessions,
                "waiting": self.models.waiting,
                "acquire_timeout_ms": ms(self.models.acquire_timeout),
            },
            // The format has no booleans.
            "sandbox": { "seccomp": self.sandbox.seccomp.to_string() },
            "log": { "filter": self.log.filter, "format": if self.log.json { "json" } else { "text" } },
        });
        match object {
            Value::Object(map) => map,
            _ => unreachable!("written as an object above"),
        }
    }
}

/// Paths come out of TOML, which is UTF-8.
fn path_text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A key name in a signed note holds neither white space nor `+` (c2sp.org/signed-note), and the
/// origin is `prefix/hex`, so the prefix must not end in `/`.
fn check_log_prefix(prefix: &str) -> Result<(), ConfigError> {
    let bad = prefix
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || c == '+');
    if bad || prefix.starts_with('/') || prefix.ends_with('/') {
        return Err(ConfigError::Value {
            key: "log_prefix".into(),
            found: format!("{prefix:?}"),
            expected: "a schema-less URL such as \"enclave.example/log\": no white space, no '+', no '/' at either end"
                .into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
