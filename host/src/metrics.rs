//! Figures for the operator, in the format of Prometheus.
//!
//! Labels have few values, whatever callers send: a model that no enclave's catalog has is `other`, and what was asked
//! for is one of the sets of guarantees that there are. No figure is of one caller, and none of a question or answer.

use std::{
    borrow::Cow,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::{Method, StatusCode};
use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};
use touchstone_formats::{GuaranteeSet, headers::TouchstoneRequest};

use crate::{
    collateral::CollateralFolder,
    config::Config,
    fleet::{Condition, Fleet, Model},
    pending::Pending,
    relay::{fields::Fields, sealed::is_sealed},
    store::batch::ReadReceipt,
};

/// What every name begins with.
const PREFIX: &str = "touchstone_host";
/// Seconds of an answer: upper bounds.
const ANSWER: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];
/// What requests count as that are about no model.
const NONE: &str = "none";
/// What requests count as whose model no catalog has.
const OTHER: &str = "other";
/// What sealed requests count as: only the enclave knows what they ask for.
const SEALED: &str = "sealed";
/// Seconds from promise to proof.
const PROOF: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0];

/// Why the host itself refused something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The client has as many connections as it may.
    ClientConnections,
    /// All clients together have.
    Connections,
    /// The client has as many requests under way as it may.
    ClientInFlight,
    /// A request that could be read in two ways.
    Framing,
    /// Another version of HTTP.
    Version,
    /// As many requests are being relayed as may be.
    InFlight,
    /// The bodies of all requests take as much memory as they may.
    Memory,
    /// A head that is too long, or has too many fields.
    Head,
    /// A body that is too long.
    BodyLength,
    /// A body that did not come in time.
    BodyTime,
}

impl Refusal {
    /// All of them.
    const ALL: [Self; 10] = [
        Self::ClientConnections,
        Self::Connections,
        Self::ClientInFlight,
        Self::Framing,
        Self::Version,
        Self::InFlight,
        Self::Memory,
        Self::Head,
        Self::BodyLength,
        Self::BodyTime,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ClientConnections => "client_connections",
            Self::Connections => "connections",
            Self::ClientInFlight => "client_in_flight",
            Self::Framing => "framing",
            Self::Version => "version",
            Self::InFlight => "in_flight",
            Self::Memory => "memory",
            Self::Head => "head",
            Self::BodyLength => "body_length",
            Self::BodyTime => "body_time",
        }
    }
}

/// What became of a TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// It came to its end.
    Ended,
    /// One side broke off, or nothing moved for too long.
    BrokeOff,
    /// No enclave could be reached.
    NoEnclave,
}

impl Passed {
    /// All of them.
    const ALL: [Self; 3] = [Self::Ended, Self::BrokeOff, Self::NoEnclave];

    fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::BrokeOff => "broke_off",
            Self::NoEnclave => "no_enclave",
        }
    }
}

/// Why a request went to another enclave than the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rerouted {
    /// Nothing could be sent.
    Away,
    /// It was not admitted.
    Refused,
    /// The object is not there.
    Missing,
    /// The connection ended before an answer began.
    BrokeOff,
}

impl Rerouted {
    /// All of them.
    const ALL: [Self; 4] = [Self::Away, Self::Refused, Self::Missing, Self::BrokeOff];

    fn name(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Refused => "refused",
            Self::Missing => "missing",
            Self::BrokeOff => "broke_off",
        }
    }
}

/// All figures. Cheap to count in, whatever happens to them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// One look at a time: what enclaves count is set anew in it.
    looking: Mutex<()>,
    /// Whose catalogs say what models are called.
    fleet: OnceLock<Weak<Fleet>>,
    store: PathBuf,
    requests: IntCounterVec,
    answer_seconds: HistogramVec,
    refused: IntCounterVec,
    rerouted: IntCounterVec,
    tls_connections: IntCounterVec,
    receipt_answers: IntCounterVec,
    seals: IntCounterVec,
    receipts: IntCounterVec,
    quotes: IntCounterVec,
    proof_seconds: Histogram,
    misbehaviour: IntGauge,
    connections: IntGauge,
    clients: IntGauge,
    pending: IntGauge,
    overdue: IntGauge,
    promises_refused: IntCounter,
    enclave_serving: IntGaugeVec,
    enclave_condition: IntGaugeVec,
    enclave_requests: IntGaugeVec,
    enclave_tls_connections: IntGaugeVec,
    enclave_unsealed: IntGaugeVec,
    enclave_unacknowledged: IntGaugeVec,
    enclave_quotes_failing: IntGaugeVec,
    enclave_quotes: IntCounterVec,
    enclave_quote_seconds: CounterVec,
    keyset_expires: IntGaugeVec,
    platform_refused: IntGauge,
    resident: IntGauge,
    store_bytes: IntGauge,
    store_free: IntGauge,
    overdue_after: Duration,
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}_{name}"), help)
}

/// Registers a family that was made of constants. That it cannot be made or registered twice is seen by every test.
fn made<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let family = family?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

impl Metrics {
    /// Figures that are all zero.
    ///
    /// # Errors
    /// Two figures of one name: never, as all names are constants.
    pub fn new(config: &Config) -> prometheus::Result<Arc<Self>> {
        let registry = Registry::new();
        let r = &registry;
        let counters =
            |name, help, labels: &[&str]| made(r, IntCounterVec::new(opts(name, help), labels));
        let gauge = |name, help| made(r, IntGauge::with_opts(opts(name, help)));
        let gauges =
            |name, help, labels: &[&str]| made(r, IntGaugeVec::new(opts(name, help), labels));
        let seconds = |name: &str, help, bounds: &[f64]| HistogramOpts {
            common_opts: opts(name, help),
            buckets: bounds.to_vec(),
        };
        let metrics = Self {
            requests: counters(
                "requests_total",
                "Requests relayed as HTTP, by model, guarantees asked for and status.",
                &["model", "guarantees", "status"],
            )?,
            answer_seconds: made(
                r,
                HistogramVec::new(
                    seconds(
                        "answer_seconds",
                        "Time from a request's body to the head of its answer.",
                        &ANSWER,
                    ),
                    &["model", "guarantees"],
                ),
            )?,
            refused: counters(
                "refused_total",
                "What the host itself refused, by reason.",
                &["reason"],
            )?,
            rerouted: counters(
                "rerouted_total",
                "Requests that went to another enclave than the first, by reason.",
                &["reason"],
            )?,
            tls_connections: counters(
                "tls_connections_total",
                "TLS connections that were to be passed through and have ended, by how.",
                &["outcome"],
            )?,
            receipt_answers: counters(
                "receipt_answers_total",
                "Answers about receipts, by status.",
                &["status"],
            )?,
            seals: counters("seals_total", "Seals stored.", &["enclave"])?,
            receipts: counters(
                "receipts_total",
                "Receipts stored with their proofs, however they were asked for, by what they state; status 200: an answer.",
                &["enclave", "model", "guarantees", "status"],
            )?,
            quotes: counters(
                "quotes_total",
                "Quotes of single receipts stored.",
                &["enclave"],
            )?,
            proof_seconds: made(
                r,
                Histogram::with_opts(seconds(
                    "proof_seconds",
                    "Time from an answer that promised a receipt until its proof was stored: the seal's gathering and its quote.",
                    &PROOF,
                )),
            )?,
            misbehaviour: gauge("misbehaviour", "Proofs of misbehaviour in the store.")?,
            connections: gauge("connections", "Connections of callers.")?,
            clients: gauge("clients", "Clients with connections or requests.")?,
            pending: gauge("pending_receipts", "Receipts promised and not stored.")?,
            overdue: gauge(
                "overdue_receipts",
                "Those that have waited for longer than receipts.overdue_seconds.",
            )?,
            promises_refused: made(
                r,
                IntCounter::with_opts(opts(
                    "promises_not_noted_total",
                    "Promises that store.pending had no room for.",
                )),
            )?,
            enclave_serving: gauges(
                "enclave_serving",
                "1: the enclave takes requests and is sent some.",
                &["enclave"],
            )?,
            enclave_condition: gauges(
                "enclave_condition",
                "1 for the condition that the enclave is in.",
                &["enclave", "condition"],
            )?,
            enclave_requests: gauges("enclave_requests", "Requests being relayed.", &["enclave"])?,
            enclave_tls_connections: gauges(
                "enclave_tls_connections",
                "TLS connections passed through.",
                &["enclave"],
            )?,
            enclave_unsealed: gauges(
                "enclave_unsealed",
                "Receipts that wait for their seal.",
                &["enclave"],
            )?,
            enclave_unacknowledged: gauges(
                "enclave_unacknowledged",
                "Batches that are not acknowledged.",
                &["enclave"],
            )?,
            enclave_quotes_failing: gauges(
                "enclave_quotes_failing",
                "1: its quote source gives nothing.",
                &["enclave"],
            )?,
            enclave_quotes: counters(
                "enclave_quotes_total",
                "Quotes that the enclave asked its source for since its start, whatever for.",
                &["enclave", "outcome"],
            )?,
            enclave_quote_seconds: made(
                r,
                CounterVec::new(
                    opts(
                        "enclave_quote_seconds_total",
                        "Time that the quotes made took, together.",
                    ),
                    &["enclave"],
                ),
            )?,
            keyset_expires: gauges(
                "keyset_expires_timestamp_seconds",
                "When the keyset in force ends, in Unix time; 0: not known.",
                &["enclave"],
            )?,
            platform_refused: gauge(
                "platform_refused_timestamp_seconds",
                "From when on verifiers refuse the platform by its collateral, in Unix time; 0: not known.",
            )?,
            resident: gauge("resident_bytes", "Memory of this process.")?,
            store_bytes: gauge("store_bytes", "Length of the store's file and its log.")?,
            store_free: gauge(
                "store_free_bytes",
                "What may still be written where the store is.",
            )?,
            overdue_after: config.receipts.overdue,
            looking: Mutex::default(),
            fleet: OnceLock::new(),
            store: config.store.path.clone(),
            registry: registry.clone(),
        };
        for reason in Refusal::ALL {
            metrics.refused.with_label_values(&[reason.name()]);
        }
        for reason in Rerouted::ALL {
            metrics.rerouted.with_label_values(&[reason.name()]);
        }
        for outcome in Passed::ALL {
            metrics.tls_connections.with_label_values(&[outcome.name()]);
        }
        let limit = gauge(
            "connections_limit",
            "limits.connections, or fewer if fewer files may be open.",
        )?;
        limit.set(number(config.limits.connections.min(config.limits.files)));
        let started = gauge(
            "start_time_seconds",
            "When this process began, in Unix time.",
        )?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        started.set(now.map_or(0, |now| large(now.as_secs())));
        let build = gauges("build_info", "1: the version that runs.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Arc::new(metrics))
    }

    /// From now on receipts count under the names that these enclaves' catalogs give their models.
    pub fn know_models_of(&self, fleet: &Arc<Fleet>) {
        let _ = self.fleet.set(Arc::downgrade(fleet));
    }

    /// The host refused something by itself.
    pub fn refused(&self, refusal: Refusal) {
        self.refused.with_label_values(&[refusal.name()]).inc();
    }

    /// A request goes to another enclave.
    pub fn rerouted(&self, reason: Rerouted) {
        self.rerouted.with_label_values(&[reason.name()]).inc();
    }

    /// A relayed request has its answer, or its problem. `promised`: what an answer with a receipt was asked for.
    pub fn relayed(
        &self,
        asked: &Asked,
        promised: Option<GuaranteeSet>,
        status: StatusCode,
        after: Duration,
    ) {
        let guarantees = asked.guarantees(promised);
        let labels = [asked.model.as_str(), guarantees.as_ref(), status.as_str()];
        self.requests.with_label_values(&labels).inc();
        let seconds = self.answer_seconds.with_label_values(&labels[..2]);
        seconds.observe(after.as_secs_f64());
    }

    /// A question about a receipt was answered.
    pub fn receipt_answered(&self, status: StatusCode) {
        self.receipt_answers
            .with_label_values(&[status.as_str()])
            .inc();
    }

    /// A TLS connection is over.
    pub fn passed(&self, outcome: Passed) {
        let labels = [outcome.name()];
        self.tls_connections.with_label_values(&labels).inc();
    }

    /// A seal was stored, with these receipts.
    pub fn sealed(&self, enclave: &str, receipts: &[ReadReceipt]) {
        self.seals.with_label_values(&[enclave]).inc();
        let mut alike: HashMap<_, u64> = HashMap::new();
        for receipt in receipts {
            let what = (receipt.model, receipt.guarantees, receipt.status);
            *alike.entry(what).or_default() += 1;
        }
        let fleet = self.fleet.get().and_then(Weak::upgrade);
        for ((model, guarantees, status), count) in alike {
            let name = model.map(|digests| fleet.as_ref()?.model_name(&digests));
            let name = match &name {
                None => NONE,
                Some(None) => OTHER,
                Some(Some(name)) => name,
            };
            let guarantees = guarantees.to_string();
            let status = if status == 0 { 200 } else { status }.to_string();
            let labels = [enclave, name, &guarantees, &status];
            self.receipts.with_label_values(&labels).inc_by(count);
        }
    }

    /// Quotes of single receipts were stored.
    pub fn quoted(&self, enclave: &str, count: usize) {
        self.quotes
            .with_label_values(&[enclave])
            .inc_by(count as u64);
    }

    /// A promise was kept after this time.
    pub fn proven(&self, after: Duration) {
        self.proof_seconds.observe(after.as_secs_f64());
    }

    /// So many proofs of misbehaviour are stored.
    pub fn misbehaviour(&self, count: i64) {
        self.misbehaviour.set(count);
    }

    /// A connection, counted until the guard is dropped.
    pub fn connection(&self) -> Connected {
        self.connections.inc();
        Connected(self.connections.clone())
    }

    /// All figures as text, those of the present moment looked up.
    ///
    /// # Errors
    /// Of the encoder: never for what is registered.
    pub fn text(&self, sources: &Sources) -> prometheus::Result<String> {
        let _one = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(sources);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn look(&self, sources: &Sources) {
        self.pending.set(number(sources.pending.len()));
        self.overdue
            .set(number(sources.pending.older_than(self.overdue_after)));
        set(&self.promises_refused, sources.pending.not_noted());
        self.clients.set(number(sources.clients.len()));
        self.platform_refused.set(sources.collateral.refused_at());
        self.resident.set(resident());
        let (taken, free) = disk(&self.store);
        self.store_bytes.set(large(taken));
        self.store_free.set(large(free));
        for member in sources.fleet.members() {
            let health = member.health();
            let of = |gauges: &IntGaugeVec, value: i64| {
                gauges.with_label_values(&[member.name.as_str()]).set(value);
            };
            let serving = health.condition == Condition::Serving && !member.is_held();
            of(&self.enclave_serving, i64::from(serving));
            for condition in Condition::ALL {
                let labels = [member.name.as_str(), condition.name()];
                let is = i64::from(health.condition == condition);
                self.enclave_condition.with_label_values(&labels).set(is);
            }
            of(&self.enclave_requests, number(member.requests()));
            of(&self.enclave_tls_connections, number(member.passed()));
            let expires = member.puller.keyset_expires();
            of(&self.keyset_expires, large(expires));
            if health.condition == Condition::Away {
                // What it last said is no figure of now.
                let labels = [member.name.as_str()];
                for gauges in [
                    &self.keyset_expires,
                    &self.enclave_unsealed,
                    &self.enclave_unacknowledged,
                    &self.enclave_quotes_failing,
                ] {
                    let _ = gauges.remove_label_values(&labels);
                }
            } else if let Some(status) = &health.status {
                of(&self.enclave_unsealed, large(status.pending));
                let batches = match status.batches.oldest {
                    0 => 0,
                    oldest => status
                        .batches
                        .newest
                        .saturating_sub(oldest)
                        .saturating_add(1),
                };
                of(&self.enclave_unacknowledged, large(batches));
                let failing = status.quote == touchstone_formats::control::QuoteHealth::Failing;
                of(&self.enclave_quotes_failing, i64::from(failing));
                if let Some(quotes) = status.quotes {
                    let name = member.name.as_str();
                    for (outcome, count) in [("made", quotes.made), ("failed", quotes.failed)] {
                        let labels = [name, outcome];
                        set(&self.enclave_quotes.with_label_values(&labels), count);
                    }
                    let seconds = self.enclave_quote_seconds.with_label_values(&[name]);
                    seconds.reset();
                    seconds.inc_by(Duration::from_micros(quotes.microseconds).as_secs_f64());
                }
            }
        }
    }
}

/// Counts a connection for as long as it is there.
#[derive(Debug)]
pub struct Connected(IntGauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is looked up when the figures are asked for.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The enclaves.
    pub fleet: Arc<Fleet>,
    /// What was promised.
    pub pending: Arc<Pending>,
    /// Until when the platform is accepted.
    pub collateral: Arc<CollateralFolder>,
    /// Who is there.
    pub clients: Arc<crate::clients::Clients>,
}

/// What a request is counted under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    model: String,
    field: Option<Vec<u8>>,
}

impl Asked {
    /// By its method, target and fields.
    pub fn of(fleet: &Fleet, method: &Method, path: &str, fields: Fields<'_>) -> Self {
        let model = match Model::of(path) {
            None if is_sealed(method, path) => SEALED,
            None => NONE,
            Some(model) if fleet.knows_model(&model) => model.name,
            Some(_) => OTHER,
        };
        Self {
            model: model.to_owned(),
            field: fields.first("touchstone").map(<[u8]>::to_vec),
        }
    }

    /// What was asked for: as the answer says, or else as the request does.
    fn guarantees(&self, promised: Option<GuaranteeSet>) -> Cow<'static, str> {
        if let Some(promised) = promised {
            return promised.to_string().into();
        }
        if let model @ (SEALED | NONE) = self.model.as_str() {
            return model.to_owned().into();
        }
        let Some(field) = &self.field else {
            return "default".into();
        };
        let asked = std::str::from_utf8(field)
            .ok()
            .map(TouchstoneRequest::parse);
        match asked {
            Some(Ok(asked)) => match asked.require {
                Some(set) => set.to_string().into(),
                None => "default".into(),
            },
            _ => "invalid".into(),
        }
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn large(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A counter that is kept elsewhere.
fn set(counter: &IntCounter, count: u64) {
    counter.reset();
    counter.inc_by(count);
}

/// Bytes that the store takes, and bytes that its file system has left for this process; 0: the system does not say.
fn disk(store: &Path) -> (u64, u64) {
    let mut log = store.as_os_str().to_owned();
    log.push("-wal");
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let free = rustix::fs::statvfs(store)
        .map_or(0, |system| system.f_bavail.saturating_mul(system.f_frsize));
    (length(store).saturating_add(length(Path::new(&log))), free)
}

/// Bytes of memory, from the system; 0: it does not say.
fn resident() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<i64>().ok());
    let page = i64::try_from(rustix::param::page_size()).unwrap_or(4_096);
    pages.unwrap_or(0).saturating_mul(page)
}
