//! One quote at a time, in a fair order, from a source that may be busy, failing, hanging or lying.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::{Quote, QuoteError, QuoteSource, check};

/// First pause after a failure; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause between two tries, and so the longest time that a source which is well again
/// goes unnoticed.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How the source is asked.
#[derive(Debug, Clone, Copy)]
pub struct QuoteSettings {
    /// Longest time for one quote.
    pub timeout: Duration,
    /// Tries after a `busy` or `failed` before the source counts as failing.
    pub retries: u32,
    /// How many quotes of single receipts may wait.
    pub queue: usize,
}

struct Job {
    report_data: [u8; 64],
    reply: oneshot::Sender<Quote>,
}

/// A reserved place in the queue for the quote of one receipt: taken at admission, so that what was
/// promised can be kept.
#[derive(Debug)]
pub struct QuoteSlot(#[allow(dead_code, reason = "held for its Drop")] OwnedSemaphorePermit);

/// How often the source was asked and what came of it, since start.
#[derive(Debug, Default)]
pub struct QuoteCounters {
    /// Quotes that passed every comparison.
    pub made: AtomicU64,
    /// Tries that gave none, whatever the reason.
    pub failed: AtomicU64,
    /// Of those: quotes for other report data.
    pub wrong_report_data: AtomicU64,
}

/// The queue in front of the quote source.
///
/// Seals (and boot quotes) and quotes of single receipts stand in two lines that take turns, so that a
/// flood of the one delays the other by one quote and no more. A quote that fails is tried again, with growing
/// pauses, until it is made or nobody waits for it: what was admitted is never given up, and
/// [`failing`](Self::failing) tells admission to take no more.
pub struct Quoter {
    seals: mpsc::UnboundedSender<Job>,
    receipts: mpsc::UnboundedSender<Job>,
    slots: Arc<Semaphore>,
    failing: Arc<AtomicBool>,
    counters: Arc<QuoteCounters>,
    state: watch::Receiver<bool>,
}

impl Quoter {
    /// Starts the task that asks `source`; it ends when the `Quoter` is dropped.
    pub fn start(source: Arc<dyn QuoteSource>, settings: QuoteSettings) -> Self {
        // Unbounded channels, bounded senders: one seal per live keyset, and `slots` for receipts.
        let (seals, seal_jobs) = mpsc::unbounded_channel();
        let (receipts, receipt_jobs) = mpsc::unbounded_channel();
        let failing = Arc::new(AtomicBool::new(false));
        let counters = Arc::new(QuoteCounters::default());
        let (changed, state) = watch::channel(false);
        let worker = Worker {
            source,
            settings,
            failing: failing.clone(),
            counters: counters.clone(),
            changed,
            streak: 0,
        };
        tokio::spawn(worker.run(seal_jobs, receipt_jobs));
        Self {
            seals,
            receipts,
            slots: Arc::new(Semaphore::new(settings.queue)),
            failing,
            counters,
            state,
        }
    }

    /// Whether the last tries failed. Then nothing that needs a quote may be admitted.
    pub fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Waits until [`failing`](Self::failing) has this value.
    pub async fn wait_failing(&self, value: bool) {
        let _ = self
            .state
            .clone()
            .wait_for(|failing| *failing == value)
            .await;
    }

    /// What the source did so far.
    pub fn counters(&self) -> &QuoteCounters {
        &self.counters
    }

    /// A place for the quote of one receipt, if one is free.
    pub fn reserve(&self) -> Option<QuoteSlot> {
        self.slots.clone().try_acquire_owned().ok().map(QuoteSlot)
    }

    /// A quote for a seal or a boot. Waits for as long as it takes; drop the future to give up.
    pub async fn seal(&self, report_data: [u8; 64]) -> Quote {
        ask(&self.seals, report_data).await
    }

    /// A quote for the receipt that `slot` was reserved for. Waits for as long as it takes.
    pub async fn receipt(&self, slot: QuoteSlot, report_data: [u8; 64]) -> Quote {
        let quote = ask(&self.receipts, report_data).await;
        drop(slot);
        quote
    }
}

async fn ask(line: &mpsc::UnboundedSender<Job>, report_data: [u8; 64]) -> Quote {
    let (reply, answer) = oneshot::channel();
    let sent = line.send(Job { report_data, reply }).is_ok();
    match answer.await {
        Ok(quote) if sent => quote,
        // The worker ends only with the runtime: whoever waits then is about to be dropped too.
        _ => std::future::pending().await,
    }
}

struct Worker {
    source: Arc<dyn QuoteSource>,
    settings: QuoteSettings,
    failing: Arc<AtomicBool>,
    counters: Arc<QuoteCounters>,
    changed: watch::Sender<bool>,
    /// Failures since the last quote.
    streak: u32,
}

impl Worker {
    async fn run(
        mut self,
        mut seals: mpsc::UnboundedReceiver<Job>,
        mut receipts: mpsc::UnboundedReceiver<Job>,
    ) {
        let mut seals_turn = true;
        loop {
            // `biased` asks the line whose turn it is first; the other one when that is empty.
            let (job, was_seal) = if seals_turn {
                tokio::select! { biased; Some(job) = seals.recv() => (job, true), Some(job) = receipts.recv() => (job, false), else => return }
            } else {
                tokio::select! { biased; Some(job) = receipts.recv() => (job, false), Some(job) = seals.recv() => (job, true), else => return }
            };
            seals_turn = !was_seal;
            self.make(job).await;
        }
    }

    async fn make(&mut self, job: Job) {
        while !job.reply.is_closed() {
            let started = Instant::now();
            let tried =
                tokio::time::timeout(self.settings.timeout, self.source.quote(job.report_data))
                    .await;
            let outcome = tried
                .unwrap_or(Err(QuoteError::Timeout))
                .and_then(|quote| check(quote, &job.report_data));
            match outcome {
                Ok(quote) => {
                    self.succeeded(started.elapsed());
                    let _ = job.reply.send(quote);
                    return;
                }
                Err(error) => {
                    let pause = self.failed(&error);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    fn succeeded(&mut self, took: Duration) {
        self.counters.made.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(milliseconds = took.as_millis() as u64, "quote made");
        self.streak = 0;
        if self.failing.swap(false, Ordering::Relaxed) {
            self.changed.send_replace(false);
            tracing::info!("the quote source works again");
        }
    }

    /// Records a failure; gives the pause before the next try.
    fn failed(&mut self, error: &QuoteError) -> Duration {
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        if *error == QuoteError::WrongReportData {
            self.counters
                .wrong_report_data
                .fetch_add(1, Ordering::Relaxed);
        }
        self.streak = self.streak.saturating_add(1);
        // `busy` and `failed` may pass; silence, nonsense and lies are no state of a source that works.
        let patient = matches!(error, QuoteError::Busy | QuoteError::Failed(_));
        let failing = !patient || self.streak > self.settings.retries;
        match error {
            QuoteError::Busy => tracing::warn!(tries = self.streak, "the quote source is busy"),
            _ => tracing::error!(tries = self.streak, %error, "no quote from the quote source"),
        }
        if failing && !self.failing.swap(true, Ordering::Relaxed) {
            self.changed.send_replace(true);
            tracing::error!(
                "the quote source is failing: nothing that needs a quote is admitted until it works again"
            );
        }
        PAUSE_MIN
            .saturating_mul(1 << (self.streak - 1).min(10))
            .min(PAUSE_MAX)
    }
}
