//! The host's settings: one TOML file, every key checked, nothing read from the environment.

mod doubts;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use touchstone_settings::Section;

use crate::address::Address;

pub use touchstone_settings::ConfigError;

/// What an address of the enclave looks like, for errors.
const ADDRESS: &str =
    "\"tcp://<ip>:<port>\", \"vsock://<cid>:<port>\" or \"vsock+unix://<path>:<port>\"";

const FORWARDERS: &str = "IP addresses, with commas between them";

fn forwarders(text: &str) -> Option<Vec<IpAddr>> {
    let addresses = text
        .split(',')
        .map(|address| address.trim().parse().map(|ip: IpAddr| ip.to_canonical()));
    addresses.collect::<Result<_, _>>().ok()
}

/// Everything that can be set. `host.example.toml` documents each key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where callers come in; port 0 lets the system choose one.
    pub listen: SocketAddr,
    /// Threads that relay requests.
    pub threads: usize,
    /// How long to wait for an enclave, whichever it is.
    pub enclave: Patience,
    /// The enclaves: one at least.
    pub enclaves: Vec<Enclave>,
    /// What is kept.
    pub store: Store,
    /// What makes quotes verifiable.
    pub collateral: Collateral,
    /// What the software is said to be.
    pub manifest: Manifest,
    /// Bundles served.
    pub receipts: Receipts,
    /// Bounds on what callers can make the host hold.
    pub limits: Limits,
    /// What is the operator's.
    pub operation: Operation,
    /// Log output.
    pub log: Log,
}

/// How long to wait for an enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Longest time for a connection to be made.
    pub connect_timeout: Duration,
    /// Longest time from the end of a request to the head of its answer.
    pub answer_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Time between two looks at an enclave's health.
    pub health_interval: Duration,
}

/// An enclave's name here, and its listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enclave {
    /// What the settings, the log, the store and the metrics call it.
    pub name: String,
    /// What callers' requests are relayed to.
    pub public: Address,
    /// What the host pulls from.
    pub control: Address,
    /// Where callers' TLS ends: their bytes are passed on unread. `None`: TLS is not passed on.
    pub tls: Option<Address>,
}

/// Name of the enclave whose listeners stand in `[enclave]`.
pub const ONLY: &str = "enclave";
/// Most enclaves of one host.
const MAX_ENCLAVES: usize = 64;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The SQLite file.
    pub path: PathBuf,
    /// Most receipts promised to callers and not yet stored that are remembered.
    pub pending: usize,
}

/// What makes quotes verifiable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collateral {
    /// Folder with certificates and revocation lists; `None`: bundles go without.
    pub folder: Option<PathBuf>,
    /// Time between two looks at the folder.
    pub poll: Duration,
}

/// What the software is said to be, by whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The manifest file (docs/manifests.md); `None`: none is served.
    pub file: Option<PathBuf>,
    /// Time between two looks at the file.
    pub poll: Duration,
}

/// Bundles served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipts {
    /// Longest `Prefer: wait=` that is honoured.
    pub max_wait: Duration,
    /// After this time a receipt that is not stored counts as overdue.
    pub overdue: Duration,
}

/// Bounds on what callers can make the host hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most connections of callers.
    pub connections: usize,
    /// Most files that connections take: one each, and TLS two.
    pub files: usize,
    /// Most connections of one client.
    pub client_connections: usize,
    /// Most requests being relayed.
    pub in_flight: usize,
    /// Most requests of one client under way, to the host itself too.
    pub client_in_flight: usize,
    /// Addresses that say in `X-Forwarded-For` for whom they ask, and are believed.
    pub trusted_forwarders: Vec<IpAddr>,
    /// Most bytes of request bodies held in memory.
    pub buffered_bytes: usize,
    /// Longest request head, in bytes.
    pub header_bytes: usize,
    /// Most header fields in a request.
    pub headers: usize,
    /// Longest request body, in bytes.
    pub body_bytes: u64,
    /// Longest time from the first byte of a head to its last.
    pub header_timeout: Duration,
    /// Longest time from the end of a head to the last byte of its body.
    pub body_timeout: Duration,
    /// Longest time from the first byte of a TLS connection until both sides have spoken and the caller
    /// again.
    pub handshake_timeout: Duration,
    /// Longest time between requests, and without progress of an answer.
    pub idle_timeout: Duration,
    /// Longest time that a shutdown waits for requests under way.
    pub drain: Duration,
}

/// What is the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Where figures and status are to be had; port 0 lets the system choose one. `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// The Unix socket that takes orders; `None`: none does.
    pub socket: Option<PathBuf>,
}

/// Log output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter, such as `info` or `host=debug`.
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

        let listen = root.parsed("listen", "\"tcp://<ip>:<port>\"", |text| {
            text.strip_prefix("tcp://")?.parse().ok()
        })?;
        let threads = root.size("threads", cores.min(1_024), 1..=1_024)?;

        let (enclave, enclaves) = enclaves(&mut root)?;

        let mut section = root.section("store")?;
        let store = Store {
            path: section.required_path("path")?,
            pending: section.size("pending", 1_000_000, 1..=100_000_000)?,
        };
        section.finish()?;

        let mut section = root.section("collateral")?;
        let collateral = Collateral {
            folder: section.path("folder")?,
            poll: section.milliseconds("poll_ms", 1_000, 10..=3_600_000)?,
        };
        section.finish()?;

        let mut section = root.section("manifest")?;
        let manifest = Manifest {
            file: section.path("file")?,
            poll: section.milliseconds("poll_ms", 1_000, 10..=3_600_000)?,
        };
        section.finish()?;

        let mut section = root.section("receipts")?;
        let receipts = Receipts {
            max_wait: Duration::from_secs(section.integer("max_wait_seconds", 30, 0..=300)?),
            overdue: Duration::from_secs(section.integer("overdue_seconds", 60, 1..=86_400)?),
        };
        section.finish()?;

        let mut section = root.section("limits")?;
        let limits = Limits {
            connections: section.size("connections", 8_192, 1..=1_000_000)?,
            files: usize::MAX >> 4,
            client_connections: section.size("client_connections", 1_024, 1..=1_000_000)?,
            in_flight: section.size("in_flight", 4_096, 1..=1_000_000)?,
            client_in_flight: section.size("client_in_flight", 512, 1..=1_000_000)?,
            trusted_forwarders: section
                .optional("trusted_forwarders", FORWARDERS, forwarders)?
                .unwrap_or_default(),
            buffered_bytes: section.size("buffered_bytes", 256 << 20, 1 << 20..=1 << 40)?,
            header_bytes: section.size("header_bytes", 32 << 10, 8_192..=1 << 20)?,
            headers: section.size("headers", 100, 16..=1_024)?,
            body_bytes: section.integer("body_bytes", 64 << 20, 1_024..=1 << 40)?,
            header_timeout: section.milliseconds("header_timeout_ms", 10_000, 10..=3_600_000)?,
            body_timeout: section.milliseconds("body_timeout_ms", 60_000, 10..=3_600_000)?,
            handshake_timeout: section.milliseconds(
                "handshake_timeout_ms",
                10_000,
                10..=3_600_000,
            )?,
            idle_timeout: section.milliseconds("idle_timeout_ms", 60_000, 10..=3_600_000)?,
            drain: section.milliseconds("drain_ms", 10_000, 0..=3_600_000)?,
        };
        section.finish()?;

        let mut section = root.section("operation")?;
        let operation = Operation {
            listen: section.optional("listen", "\"tcp://<ip>:<port>\"", |text| {
                text.strip_prefix("tcp://")?.parse().ok()
            })?,
            socket: section.path("socket")?,
        };
        section.finish()?;
        distinct(listen, operation.listen, &enclaves)?;

        let mut section = root.section("log")?;
        let filter = section.text("filter", Some("info"), 0..=1_024)?;
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter) {
            return Err(ConfigError::Value {
                key: "log.filter".into(),
                found: format!("{filter:?} ({error})"),
                expected: "a tracing filter such as \"info\" or \"host=debug\"".into(),
            });
        }
        let log = Log {
            filter,
            json: section.choice("format", "text", &["text", "json"])? == "json",
        };
        section.finish()?;
        root.finish()?;

        Ok(Self {
            listen,
            threads,
            enclave,
            enclaves,
            store,
            collateral,
            manifest,
            receipts,
            limits,
            operation,
            log,
        })
    }

    /// Bounds the files that connections take to what may be open. Gives that number if it is less than `limits` ask for.
    pub fn fit_open_files(&mut self, files: Option<u64>) -> Option<usize> {
        let files = usize::try_from(files?).unwrap_or(usize::MAX);
        let sides = match self.enclaves.iter().any(|enclave| enclave.tls.is_some()) {
            true => 2,
            false => 1,
        };
        // Of what there is, requests take a quarter at most: the rest of them waits for its turn.
        let own = OWN_FILES
            .saturating_add(8 * self.enclaves.len())
            .saturating_add(4 * self.threads);
        let in_flight = self.limits.in_flight.min(files / 4);
        let left = files.saturating_sub(own).saturating_sub(in_flight).max(1);
        self.limits.files = left;
        (left < sides * self.limits.connections).then_some(left)
    }
}

/// The settings in effect, each with its key, as they could stand in a file.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &Path| format!("{:?}", path.display().to_string());
        let ms = |time: Duration| time.as_millis();
        writeln!(f, "listen = \"tcp://{}\"", self.listen)?;
        writeln!(f, "threads = {}", self.threads)?;
        writeln!(f, "\n[enclave]")?;
        let Patience {
            connect_timeout,
            answer_timeout,
            idle_timeout,
            health_interval,
        } = &self.enclave;
        writeln!(f, "connect_timeout_ms = {}", ms(*connect_timeout))?;
        writeln!(f, "answer_timeout_ms = {}", ms(*answer_timeout))?;
        writeln!(f, "idle_timeout_ms = {}", ms(*idle_timeout))?;
        writeln!(f, "health_interval_ms = {}", ms(*health_interval))?;
        for enclave in &self.enclaves {
            if self.enclaves.len() > 1 || enclave.name != ONLY {
                writeln!(f, "\n[enclaves.{}]", enclave.name)?;
            }
            writeln!(f, "public = \"{}\"", enclave.public)?;
            writeln!(f, "control = \"{}\"", enclave.control)?;
            if let Some(tls) = &enclave.tls {
                writeln!(f, "tls = \"{tls}\"")?;
            }
        }
        writeln!(f, "\n[store]\npath = {}", path(&self.store.path))?;
        writeln!(f, "pending = {}", self.store.pending)?;
        writeln!(f, "\n[collateral]")?;
        if let Some(folder) = &self.collateral.folder {
            writeln!(f, "folder = {}", path(folder))?;
        }
        writeln!(f, "poll_ms = {}", ms(self.collateral.poll))?;
        writeln!(f, "\n[manifest]")?;
        if let Some(file) = &self.manifest.file {
            writeln!(f, "file = {}", path(file))?;
        }
        writeln!(f, "poll_ms = {}", ms(self.manifest.poll))?;
        writeln!(f, "\n[receipts]")?;
        writeln!(f, "max_wait_seconds = {}", self.receipts.max_wait.as_secs())?;
        writeln!(f, "overdue_seconds = {}", self.receipts.overdue.as_secs())?;
        let Limits {
            connections,
            files: _,
            client_connections,
            in_flight,
            client_in_flight,
            trusted_forwarders,
            buffered_bytes,
            header_bytes,
            headers,
            body_bytes,
            header_timeout,
            body_timeout,
            handshake_timeout,
            idle_timeout,
            drain,
        } = &self.limits;
        writeln!(f, "\n[limits]")?;
        writeln!(f, "connections = {connections}")?;
        writeln!(f, "client_connections = {client_connections}")?;
        writeln!(f, "in_flight = {in_flight}")?;
        writeln!(f, "client_in_flight = {client_in_flight}")?;
        if !trusted_forwarders.is_empty() {
            let all: Vec<String> = trusted_forwarders.iter().map(ToString::to_string).collect();
            writeln!(f, "trusted_forwarders = \"{}\"", all.join(", "))?;
        }
        writeln!(f, "buffered_bytes = {buffered_bytes}")?;
        writeln!(f, "header_bytes = {header_bytes}")?;
        writeln!(f, "headers = {headers}")?;
        writeln!(f, "body_bytes = {body_bytes}")?;
        writeln!(f, "header_timeout_ms = {}", ms(*header_timeout))?;
        writeln!(f, "body_timeout_ms = {}", ms(*body_timeout))?;
        writeln!(f, "handshake_timeout_ms = {}", ms(*handshake_timeout))?;
        writeln!(f, "idle_timeout_ms = {}", ms(*idle_timeout))?;
        writeln!(f, "drain_ms = {}", ms(*drain))?;
        writeln!(f, "\n[operation]")?;
        if let Some(listen) = &self.operation.listen {
            writeln!(f, "listen = \"tcp://{listen}\"")?;
        }
        if let Some(socket) = &self.operation.socket {
            writeln!(f, "socket = {}", path(socket))?;
        }
        writeln!(f, "\n[log]\nfilter = {:?}", self.log.filter)?;
        let format = if self.log.json { "json" } else { "text" };
        writeln!(f, "format = \"{format}\"")
    }
}

/// Files that the host itself has open: store, log, listeners, pipes, and those who are told that there is no place.
const OWN_FILES: usize = 448;

/// `[enclave]`, and `[enclaves.NAME]` where there are several.
fn enclaves(root: &mut Section) -> Result<(Patience, Vec<Enclave>), ConfigError> {
    let mut section = root.section("enclave")?;
    let patience = Patience {
        connect_timeout: section.milliseconds("connect_timeout_ms", 2_000, 1..=60_000)?,
        answer_timeout: section.milliseconds("answer_timeout_ms", 120_000, 1..=3_600_000)?,
        idle_timeout: section.milliseconds("idle_timeout_ms", 5_000, 1..=3_600_000)?,
        health_interval: section.milliseconds("health_interval_ms", 1_000, 10..=60_000)?,
    };
    let many = root.named_sections("enclaves")?;
    let mut enclaves = Vec::with_capacity(many.len());
    if many.is_empty() {
        enclaves.push(listeners(ONLY, &mut section)?);
    }
    // With `[enclaves.NAME]` the listeners of `[enclave]` are unknown keys.
    section.finish()?;
    for (name, mut section) in many {
        enclaves.push(listeners(&name, &mut section)?);
        section.finish()?;
    }
    if enclaves.len() > MAX_ENCLAVES {
        return Err(ConfigError::Value {
            key: "enclaves".into(),
            found: format!("{} enclaves", enclaves.len()),
            expected: format!("at most {MAX_ENCLAVES}"),
        });
    }
    Ok((patience, enclaves))
}

fn listeners(name: &str, section: &mut Section) -> Result<Enclave, ConfigError> {
    Ok(Enclave {
        name: name.to_owned(),
        public: section.parsed("public", ADDRESS, |text| text.parse().ok())?,
        control: section.parsed("control", ADDRESS, |text| text.parse().ok())?,
        tls: section.optional("tls", ADDRESS, |text| text.parse().ok())?,
    })
}

/// The control side must never be reachable through the relay: one address for both would make it so.
/// What is TLS is not to be had at an HTTP listener. One enclave under two names would be asked for
/// everything twice. And a host that relays to itself would never end.
fn distinct(
    listen: SocketAddr,
    operation: Option<SocketAddr>,
    enclaves: &[Enclave],
) -> Result<(), ConfigError> {
    if operation.is_some_and(|own| meets(own, listen) || meets(listen, own)) {
        return Err(ConfigError::Value {
            key: "operation.listen".into(),
            found: format!("\"tcp://{listen}\", the same as listen"),
            expected: "an address that callers do not reach".into(),
        });
    }
    let mut seen: Vec<(String, &Address)> = Vec::new();
    for enclave in enclaves {
        let table = match enclaves.len() {
            1 if enclave.name == ONLY => ONLY.to_owned(),
            _ => format!("enclaves.{}", enclave.name),
        };
        let listeners = [
            ("public", Some(&enclave.public)),
            ("control", Some(&enclave.control)),
            ("tls", enclave.tls.as_ref()),
        ];
        for (listener, address) in listeners {
            let Some(address) = address else { continue };
            let key = format!("{table}.{listener}");
            let own = [("listen", Some(listen)), ("operation.listen", operation)];
            for (name, own) in own {
                if let (Some(own), Address::Tcp(address)) = (own, address)
                    && meets(own, *address)
                {
                    return Err(ConfigError::Value {
                        found: format!(
                            "\"tcp://{address}\", where this host itself listens ({name})"
                        ),
                        key,
                        expected: "a listener of the enclave".into(),
                    });
                }
            }
            if let Some((other, _)) = seen.iter().find(|(_, seen)| *seen == address) {
                return Err(ConfigError::Value {
                    found: format!("\"{address}\", the same as {other}"),
                    key,
                    expected: "another listener of the enclave".into(),
                });
            }
            seen.push((key, address));
        }
    }
    Ok(())
}

/// Whether who connects to `other` comes to the listener at `own`. Port 0 is one that the system chooses, and nobody's.
fn meets(own: SocketAddr, other: SocketAddr) -> bool {
    // `[::]` takes IPv4 too; `0.0.0.0` takes nothing else.
    let every = own.ip().is_unspecified() && (own.is_ipv6() || other.is_ipv4());
    let here = every && (other.ip().is_loopback() || other.ip().is_unspecified());
    own.port() != 0 && own.port() == other.port() && (own.ip() == other.ip() || here)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../host.example.toml");

    /// The example with every commented key switched on: what it shows as defaults are the defaults.
    fn example_with_defaults_written_out() -> String {
        let mut text = String::new();
        for line in EXAMPLE.lines() {
            let key = line.strip_prefix('#').filter(|rest| {
                rest.split_once(" = ").is_some_and(|(key, _)| {
                    key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                })
            });
            text.push_str(key.unwrap_or(line));
            text.push('\n');
        }
        text
    }

    #[test]
    fn example_stands_and_shows_the_defaults() {
        let bare = Config::parse(EXAMPLE).unwrap();
        let mut full = Config::parse(&example_with_defaults_written_out()).unwrap();
        assert_eq!(full.threads, 4);
        assert_eq!(full.collateral.folder, Some("collateral".into()));
        assert_eq!(full.manifest.file, Some("manifest.jsonl".into()));
        assert_eq!(full.enclaves[0].tls, "tcp://127.0.0.1:8002".parse().ok());
        assert_eq!(full.limits.trusted_forwarders.len(), 2);
        // These have no fixed default.
        full.threads = bare.threads;
        full.limits.trusted_forwarders.clear();
        assert!(full.operation.listen.is_some() && full.operation.socket.is_some());
        full.operation = bare.operation.clone();
        full.collateral.folder = None;
        full.manifest.file = None;
        full.enclaves[0].tls = None;
        assert_eq!(full, bare);
    }

    #[test]
    fn example_names_every_key() {
        // Every key that the reader asks for stands in the example: the list that an unknown key is
        // answered with is the reader's own.
        let written = example_with_defaults_written_out();
        for table in [
            "",
            "[enclave]",
            "[store]",
            "[collateral]",
            "[manifest]",
            "[receipts]",
            "[limits]",
            "[operation]",
            "[log]",
        ] {
            let text = match table {
                "" => format!("nonsense = 1\n{written}"),
                _ => written.replace(&format!("{table}\n"), &format!("{table}\nnonsense = 1\n")),
            };
            match Config::parse(&text) {
                Err(ConfigError::Unknown { expected, .. }) => {
                    for key in expected.split(", ") {
                        assert!(
                            written.contains(&format!("\n{key} = "))
                                || written.contains(&format!("\n[{key}]"))
                                || written.contains(&format!(" [{key}.")),
                            "{table} {key}"
                        );
                    }
                }
                other => panic!("{table}: {other:?}"),
            }
        }
    }

    #[test]
    fn several_enclaves_have_names_and_listeners_of_their_own() {
        let text = |b: &str| {
            format!(
                "listen = \"tcp://127.0.0.1:0\"\n[enclaves.a]\npublic = \"vsock://3:1\"\ncontrol = \"vsock://3:2\"\n\
                 [enclaves.b]\n{b}\n[store]\npath = \"s\"\n"
            )
        };
        let b = "public = \"tcp://127.0.0.1:1\"\ncontrol = \"tcp://127.0.0.1:2\"\ntls = \"tcp://127.0.0.1:3\"";
        let config = Config::parse(&text(b)).unwrap();
        let names: Vec<&str> = config.enclaves.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        for (b, named, what) in [
            (
                "public = \"vsock://3:9\"\ncontrol = \"vsock://3:1\"",
                "enclaves.b.control",
                "same as enclaves.a.public",
            ),
            (
                "public = \"vsock://3:9\"\ncontrol = \"vsock://3:2\"",
                "enclaves.b.control",
                "same as enclaves.a.control",
            ),
            ("public = \"vsock://3:9\"", "enclaves.b.control", ""),
            (
                "public = \"vsock://3:9\"\ncontrol = \"vsock://3:8\"\nmore = 1",
                "enclaves.b.more",
                "",
            ),
        ] {
            let error = Config::parse(&text(b)).unwrap_err();
            let (key, found) = match &error {
                ConfigError::Missing { key, .. } | ConfigError::Unknown { key, .. } => (key, ""),
                ConfigError::Value { key, found, .. } => (key, found.as_str()),
                ConfigError::Syntax(_) => panic!("{error}"),
            };
            assert_eq!(key, named, "{error}");
            assert!(found.contains(what), "{error}");
        }
    }

    /// Peers are told apart by their IPv4 address, however the listener or the settings write it.
    #[test]
    fn a_forwarder_s_address_has_one_form() {
        let text = "listen = \"tcp://127.0.0.1:0\"\n[enclave]\npublic = \"tcp://127.0.0.1:1\"\ncontrol = \"tcp://127.0.0.1:2\"\n\
            [store]\npath = \"s\"\n[limits]\ntrusted_forwarders = \"::ffff:10.0.0.1, 2001:db8::1\"\n";
        let config = Config::parse(text).unwrap();
        let expected: [IpAddr; 2] = ["10.0.0.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        assert_eq!(config.limits.trusted_forwarders, expected);
    }

    #[test]
    fn connections_take_no_more_files_than_may_be_open() {
        let mut config = Config::parse(EXAMPLE).unwrap();
        config.threads = 2;
        assert_eq!(config.fit_open_files(None), None);
        assert_eq!(config.fit_open_files(Some(1 << 20)), None);
        assert_eq!(
            config.fit_open_files(Some(8_192)),
            Some(8_192 - 464 - 2_048)
        );
        assert_eq!(config.limits.files, 8_192 - 464 - 2_048);
        assert_eq!(config.fit_open_files(Some(0)), Some(1));
        // With TLS each may take two.
        let enough = Some(464 + 4_096 + 8_192 + 100);
        assert_eq!(config.fit_open_files(enough), None);
        config.enclaves[0].tls = Some(Address::Vsock { cid: 3, port: 1 });
        assert_eq!(
            config.fit_open_files(enough),
            Some(8_192 + 100 + 4_096 - 12_852 / 4)
        );
    }

    #[test]
    fn what_is_printed_is_what_was_read() {
        let several = "listen = \"tcp://[::1]:0\"\n[enclaves.a]\npublic = \"vsock://3:1\"\ncontrol = \"vsock://3:2\"\n\
                       [store]\npath = \"a \\\"s\\\\\"\n";
        for text in [EXAMPLE, &example_with_defaults_written_out(), several] {
            let config = Config::parse(text).unwrap();
            let printed = config.to_string();
            assert_eq!(Config::parse(&printed).unwrap(), config, "{printed}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        let minimal = "listen = \"tcp://127.0.0.1:0\"\n[enclave]\npublic = \"tcp://127.0.0.1:1\"\n\
                       control = \"tcp://127.0.0.1:2\"\n[store]\npath = \"s\"\n";
        assert_eq!(Config::parse(minimal).unwrap().enclaves[0].tls, None);
        let tls = minimal.replacen("[store]", "tls = \"vsock://3:1\"\n[store]", 1);
        let tls = Config::parse(&tls).unwrap();
        let vsock = Address::Vsock { cid: 3, port: 1 };
        assert_eq!(tls.enclaves[0].tls, Some(vsock));
        for (from, to, key, found) in [
            (
                "listen = \"tcp://127.0.0.1:0\"",
                "listen = \"127.0.0.1:0\"",
                "listen",
                "\"127.0.0.1:0\"",
            ),
            ("listen = \"tcp://127.0.0.1:0\"", "", "listen", ""),
            ("path = \"s\"", "path = \"\"", "store.path", "\"\""),
            ("path = \"s\"", "", "store.path", ""),
            (
                "path = \"s\"",
                "path = \"s\"\npath2 = \"s\"",
                "store.path2",
                "",
            ),
            (
                "path = \"s\"",
                "path = \"s\"\n[limits]\nconnections = 0",
                "limits.connections",
                "0",
            ),
            (
                "path = \"s\"",
                "path = \"s\"\n[limits]\nconnections = -1",
                "limits.connections",
                "-1",
            ),
            (
                "path = \"s\"",
                "path = \"s\"\n[limits]\nconnections = \"9\"",
                "limits.connections",
                "\"9\"",
            ),
            (
                "path = \"s\"",
                "path = \"s\"\n[limits]\nheader_bytes = 8191",
                "limits.header_bytes",
                "8191",
            ),
            (
                "path = \"s\"",
                "path = \"s\"\n[limits]\ntrusted_forwarders = \"10.0.0.1, h\"",
                "limits.trusted_forwarders",
                "10.0.0.1, h",
            ),
            (
                "path = \"s\"",
                "path = \"s\"\n[log]\nformat = \"xml\"",
                "log.format",
                "\"xml\"",
            ),
            (
                "path = \"s\"",
                "path = \"s\"\n[log]\nfilter = \"host=loud\"",
                "log.filter",
                "host=loud",
            ),
            (
                "path = \"s\"",
                "path = \"s\"\n[receipts]\nmax_wait_seconds = 301",
                "receipts.max_wait_seconds",
                "301",
            ),
            (
                "public = \"tcp://127.0.0.1:1\"",
                "public = \"vsock://:1\"",
                "enclave.public",
                "\"vsock://:1\"",
            ),
            ("control = \"tcp://127.0.0.1:2\"", "", "enclave.control", ""),
            (
                "control = \"tcp://127.0.0.1:2\"",
                "control = \"tcp://127.0.0.1:1\"",
                "enclave.control",
                "same as enclave.public",
            ),
            (
                "[store]",
                "tls = \"tcp://127.0.0.1:1\"\n[store]",
                "enclave.tls",
                "same as enclave.public",
            ),
            (
                "[store]",
                "tls = \"tcp://127.0.0.1:2\"\n[store]",
                "enclave.tls",
                "same as enclave.control",
            ),
            // A host that relays to itself.
            (
                "listen = \"tcp://127.0.0.1:0\"",
                "listen = \"tcp://127.0.0.1:1\"",
                "enclave.public",
                "itself listens (listen)",
            ),
            (
                "listen = \"tcp://127.0.0.1:0\"",
                "listen = \"tcp://[::]:2\"",
                "enclave.control",
                "itself listens (listen)",
            ),
            (
                "path = \"s\"",
                "path = \"s\"\n[operation]\nlisten = \"tcp://127.0.0.1:1\"",
                "enclave.public",
                "itself listens (operation.listen)",
            ),
            ("[store]", "tls = \"\"\n[store]", "enclave.tls", "\"\""),
            ("[store]", "tls = 8002\n[store]", "enclave.tls", "8002"),
            ("[store]", "[store]\n[store2]\n", "store.path", ""),
        ] {
            let text = minimal.replacen(from, to, 1);
            assert_ne!(text, minimal);
            let error = Config::parse(&text).unwrap_err();
            let (named, what) = match &error {
                ConfigError::Missing { key, .. } | ConfigError::Unknown { key, .. } => (key, ""),
                ConfigError::Value { key, found, .. } => (key, found.as_str()),
                ConfigError::Syntax(_) => panic!("{error}"),
            };
            assert_eq!(named, key, "{error}");
            assert!(what.contains(found), "{error}");
        }
        for (listen, operation, stands) in [
            ("127.0.0.1:7", "127.0.0.1:7", false),
            ("0.0.0.0:7", "127.0.0.1:7", false),
            ("127.0.0.1:7", "[::]:7", false),
            ("0.0.0.0:7", "[::1]:7", true),
            ("127.0.0.1:7", "127.0.0.1:8", true),
            ("127.0.0.1:0", "127.0.0.1:0", true),
        ] {
            let text = minimal.replacen("127.0.0.1:0", listen, 1);
            let text = format!("{text}[operation]\nlisten = \"tcp://{operation}\"\n");
            match Config::parse(&text) {
                Ok(_) => assert!(stands, "{listen} {operation}"),
                Err(ConfigError::Value { key, .. }) if key == "operation.listen" => {
                    assert!(!stands, "{listen} {operation}");
                }
                Err(other) => panic!("{other}"),
            }
        }
        let tls = minimal.replacen(
            "[store]",
            "[enclaves.a]\npublic = \"tcp://127.0.0.1:3\"\n\
            control = \"tcp://127.0.0.1:4\"\n[store]",
            1,
        );
        assert!(matches!(
            Config::parse(&tls),
            Err(ConfigError::Unknown { key, .. }) if key == "enclave.control"
        ));
        assert!(matches!(
            Config::parse("listen = "),
            Err(ConfigError::Syntax(_))
        ));
    }
}
