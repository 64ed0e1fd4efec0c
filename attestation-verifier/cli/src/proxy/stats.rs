//! What a proxy has done so far: counters, latencies, the last refusals.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attestation_verifier::dates::rfc3339;
use serde::Serialize;

use super::problem::Judged;

/// Latencies that percentiles are taken over: the latest so many answers.
const LATENCIES: usize = 4_096;
/// Refusals that are remembered.
const REFUSALS: usize = 20;
/// Characters of a reason that are shown on the status page.
const REASON: usize = 500;

/// The counters of one proxy.
#[derive(Debug, Default)]
pub struct Stats(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    verified: u64,
    passed_refusals: u64,
    relayed: u64,
    refused: BTreeMap<String, u64>,
    declined: BTreeMap<u16, u64>,
    totals: Ring,
    seals: Ring,
    last: VecDeque<Refusal>,
    session_refused: Option<Refusal>,
}

/// A refusal, as the status page shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refusal {
    /// When, RFC 3339.
    pub at: String,
    /// The receipt's id, if there was one.
    pub receipt: Option<String>,
    /// The model that was asked.
    pub model: String,
    /// Id of the deciding check.
    pub check: String,
    /// Its reason.
    pub reason: String,
    /// Exit code.
    pub exit: u8,
}

/// A copy of the counters at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// Answers verified and passed on, refusals with a receipt among them.
    pub verified: u64,
    /// Refusals by the enclave that were passed on, with a receipt or without one.
    pub enclave_refusals: u64,
    /// Metadata, health and preflights passed on.
    pub relayed: u64,
    /// What did not verify, by deciding check.
    pub refused: BTreeMap<String, u64>,
    /// Requests that this proxy itself declined, by HTTP status.
    pub declined: BTreeMap<u16, u64>,
    /// From request to verified answer.
    pub total_ms: Percentiles,
    /// Of that, waiting for the seal and judging.
    pub seal_ms: Percentiles,
    /// The latest refusals, newest first.
    pub last_refusals: Vec<Refusal>,
    /// Why there is no session, if the last attempt was refused.
    pub session_refused: Option<Refusal>,
}

/// Percentiles over the latest answers, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many answers they are over.
    pub answers: usize,
    /// Half took at most so long.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl Stats {
    /// An answer was verified (or a refusal of the enclave's was) and passed on.
    pub fn verified(&self, total: Duration, seal: Duration, refusal: bool) {
        let mut inner = self.lock();
        inner.verified += 1;
        inner.passed_refusals += u64::from(refusal);
        inner.totals.push(total);
        inner.seals.push(seal);
        inner.session_refused = None;
    }

    /// The enclave refused without a receipt, over an attested connection.
    pub fn enclave_refused(&self) {
        let mut inner = self.lock();
        inner.passed_refusals += 1;
        inner.session_refused = None;
    }

    /// Something without a receipt was passed on.
    pub fn relayed(&self) {
        let mut inner = self.lock();
        inner.relayed += 1;
        inner.session_refused = None;
    }

    /// Something did not verify. `session`: no attested connection could be made.
    pub fn refused(&self, judged: &Judged, receipt: Option<&str>, model: &str, session: bool) {
        let refusal = Refusal {
            at: rfc3339(crate::inputs::now().unwrap_or_default()),
            receipt: receipt.map(str::to_owned),
            model: model.to_owned(),
            check: judged.check.clone(),
            reason: judged.reason.chars().take(REASON).collect(),
            exit: judged.exit,
        };
        let mut inner = self.lock();
        // Ids are a fixed set, so this map is bounded.
        *inner.refused.entry(judged.check.clone()).or_default() += 1;
        if session {
            inner.session_refused = Some(refusal.clone());
        }
        inner.last.truncate(REFUSALS - 1);
        inner.last.push_front(refusal);
    }

    /// The proxy itself declined a request.
    pub fn declined(&self, status: u16) {
        *self.lock().declined.entry(status).or_default() += 1;
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        Snapshot {
            verified: inner.verified,
            enclave_refusals: inner.passed_refusals,
            relayed: inner.relayed,
            refused: inner.refused.clone(),
            declined: inner.declined.clone(),
            total_ms: inner.totals.percentiles(),
            seal_ms: inner.seals.percentiles(),
            last_refusals: inner.last.iter().cloned().collect(),
            session_refused: inner.session_refused.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counters have no invariant that a panic could have broken.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The latest latencies, microseconds.
#[derive(Debug, Default)]
struct Ring {
    values: Vec<u64>,
    next: usize,
}

impl Ring {
    fn push(&mut self, latency: Duration) {
        let value = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        match self.values.get_mut(self.next) {
            Some(place) => *place = value,
            None => self.values.push(value),
        }
        self.next = (self.next + 1) % LATENCIES;
    }

    fn percentiles(&self) -> Percentiles {
        let mut sorted = self.values.clone();
        sorted.sort_unstable();
        // The smallest value that so many per cent do not exceed.
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted
                .get(rank.saturating_sub(1))
                .map_or(0.0, |micros| *micros as f64 / 1_000.0)
        };
        Percentiles {
            answers: sorted.len(),
            p50: at(50),
            p90: at(90),
            p99: at(99),
            max: at(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_over_the_latest() {
        let mut ring = Ring::default();
        assert_eq!(ring.percentiles(), Percentiles::default());
        for ms in 1..=100 {
            ring.push(Duration::from_millis(ms));
        }
        let found = ring.percentiles();
        let numbers = (found.p50, found.p90, found.p99, found.max);
        assert_eq!(numbers, (50.0, 90.0, 99.0, 100.0));
        for _ in 0..LATENCIES {
            ring.push(Duration::from_millis(7));
        }
        let found = ring.percentiles();
        assert_eq!((found.answers, found.max), (LATENCIES, 7.0));
    }

    #[test]
    fn refusals_are_counted_by_check_and_few_are_remembered() {
        let stats = Stats::default();
        let mut judged = Judged {
            check: "log.proof".into(),
            reason: "x".repeat(10 * REASON),
            exit: 3,
            class: None,
            verdict: String::new(),
        };
        for _ in 0..REFUSALS {
            stats.refused(&judged, Some("ab"), "m", false);
        }
        judged.check = "session.nonce".into();
        stats.refused(&judged, None, "m", true);
        let found = stats.snapshot();
        assert_eq!(found.refused["log.proof"], REFUSALS as u64);
        assert_eq!(found.last_refusals.len(), REFUSALS);
        assert_eq!(found.last_refusals[0].check, "session.nonce");
        assert_eq!(found.last_refusals[0].reason.len(), REASON);
        assert!(found.session_refused.is_some());
        stats.relayed();
        assert!(stats.snapshot().session_refused.is_none());
    }
}
