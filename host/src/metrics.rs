//! Figures for the operator, in the format of Prometheus.
//!
//! Labels have few values, whatever callers send: a model that no enclave's catalog has is `other`, and what was asked
//! for is one of the sets of guarantees that there are. No figure is of one caller, and none of a question or answer.

use std::{borrow::Cow, sync::Arc, time::Duration};

use hyper::{HeaderMap, StatusCode, header::HeaderValue};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};
use touchstone_formats::{GuaranteeSet, headers::TouchstoneRequest};

use crate::{
    collateral::CollateralFolder,
    config::Config,
    fleet::{Condition, Fleet, Model},
    pending::Pending,
};

/// What every name begins with.
const PREFIX: &str = "touchstone_host";
/// Seconds of an answer: upper bounds.
const ANSWER: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];
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
}

impl Refusal {
    fn name(self) -> &'static str {
        match self {
            Self::ClientConnections => "client_connections",
            Self::Connections => "connections",
            Self::ClientInFlight => "client_in_flight",
            Self::Framing => "framing",
            Self::Version => "version",
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
    requests: IntCounterVec,
    answer_seconds: HistogramVec,
    refused: IntCounterVec,
    rerouted: IntCounterVec,
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
    promises_refused: IntGauge,
    enclave_serving: IntGaugeVec,
    enclave_condition: IntGaugeVec,
    enclave_requests: IntGaugeVec,
    enclave_tls_connections: IntGaugeVec,
    enclave_unsealed: IntGaugeVec,
    enclave_unacknowledged: IntGaugeVec,
    enclave_quotes_failing: IntGaugeVec,
    keyset_expires: IntGaugeVec,
    platform_refused: IntGauge,
    resident: IntGauge,
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
                    &["model"],
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
            receipt_answers: counters(
                "receipt_answers_total",
                "Answers about receipts, by status.",
                &["status"],
            )?,
            seals: counters("seals_total", "Seals stored.", &["enclave"])?,
            receipts: counters(
                "receipts_total",
                "Receipts stored with their proofs, by what they state.",
                &["enclave", "guarantees"],
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
            promises_refused: gauge(
                "promises_not_noted",
                "Promises that store.pending had no room for.",
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
            overdue_after: config.receipts.overdue,
            registry,
        };
        for reason in [
            "client_connections",
            "connections",
            "client_in_flight",
            "framing",
            "version",
        ] {
            metrics.refused.with_label_values(&[reason]);
        }
        for reason in ["away", "refused", "missing", "broke_off"] {
            metrics.rerouted.with_label_values(&[reason]);
        }
        Ok(Arc::new(metrics))
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
        let seconds = self.answer_seconds.with_label_values(&labels[..1]);
        seconds.observe(after.as_secs_f64());
    }

    /// A question about a receipt was answered.
    pub fn receipt_answered(&self, status: StatusCode) {
        self.receipt_answers
            .with_label_values(&[status.as_str()])
            .inc();
    }

    /// A seal was stored, with receipts that state these.
    pub fn sealed(&self, enclave: &str, receipts: impl Iterator<Item = GuaranteeSet>) {
        self.seals.with_label_values(&[enclave]).inc();
        for guarantees in receipts {
            let labels = [enclave, &guarantees.to_string()];
            self.receipts.with_label_values(&labels).inc();
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
        self.look(sources);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn look(&self, sources: &Sources) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.pending.set(number(sources.pending.len()));
        self.overdue
            .set(number(sources.pending.older_than(self.overdue_after)));
        let not_noted = sources.pending.not_noted();
        self.promises_refused
            .set(i64::try_from(not_noted).unwrap_or(i64::MAX));
        self.clients.set(number(sources.clients.len()));
        self.platform_refused.set(sources.collateral.refused_at());
        self.resident.set(resident());
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
            of(
                &self.keyset_expires,
                i64::try_from(expires).unwrap_or(i64::MAX),
            );
            if let Some(status) = &health.status {
                let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
                of(&self.enclave_unsealed, number(status.pending));
                let batches = match status.batches.oldest {
                    0 => 0,
                    oldest => status
                        .batches
                        .newest
                        .saturating_sub(oldest)
                        .saturating_add(1),
                };
                of(&self.enclave_unacknowledged, number(batches));
                let failing = status.quote == touchstone_formats::control::QuoteHealth::Failing;
                of(&self.enclave_quotes_failing, i64::from(failing));
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
    field: Option<HeaderValue>,
}

impl Asked {
    /// By its target and fields.
    pub fn of(fleet: &Fleet, path: &str, headers: &HeaderMap) -> Self {
        let model = match Model::of(path) {
            None => "none",
            Some(model) if fleet.knows_model(&model) => model.name,
            Some(_) => "other",
        };
        Self {
            model: model.to_owned(),
            field: headers.get("touchstone").cloned(),
        }
    }

    /// What was asked for: as the answer says, or else as the request does.
    fn guarantees(&self, promised: Option<GuaranteeSet>) -> Cow<'static, str> {
        if let Some(promised) = promised {
            return promised.to_string().into();
        }
        let Some(field) = &self.field else {
            return "default".into();
        };
        let asked = field.to_str().ok().map(TouchstoneRequest::parse);
        match asked {
            Some(Ok(asked)) => match asked.require {
                Some(set) => set.to_string().into(),
                None => "default".into(),
            },
            _ => "invalid".into(),
        }
    }
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
