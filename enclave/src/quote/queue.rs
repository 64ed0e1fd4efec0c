//! One quote at a time, in a fair order, from a source that may be busy, failing, hanging or lying.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
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
    /// How many quotes of sessions may wait.
    pub sessions: usize,
}

struct Job {
    report_data: [u8; 64],
    reply: oneshot::Sender<Quote>,
    /// Given back when the job is done with, so that the line is never longer than there are places.
    _slot: Option<QuoteSlot>,
}

/// A reserved place in the queue: for the quote of one receipt, taken at admission, so that what was
/// promised can be kept; or for that of one session.
#[derive(Debug)]
pub struct QuoteSlot(#[allow(dead_code, reason = "held for its Drop")] OwnedSemaphorePermit);

/// The lines of the queue, in the order of their turns.
const SEALS: usize = 0;
const RECEIPTS: usize = 1;
const SESSIONS: usize = 2;
const LINES: usize = 3;

/// How often the source was asked and what came of it, since start.
#[derive(Debug, Default)]
pub struct QuoteCounters {
    /// Quotes that passed every comparison.
    pub made: AtomicU64,
    /// Tries that gave none, whatever the reason.
    pub failed: AtomicU64,
    /// Of those: quotes for other report data.
    pub wrong_report_data: AtomicU64,
    /// Time that the quotes made took, without the tries before them: microseconds.
    pub microseconds: AtomicU64,
}

/// The queue in front of the quote source.
///
/// Seals (and boot quotes), quotes of single receipts and quotes of sessions stand in three lines that take turns, so
/// that a flood of one delays another by one quote and no more. A quote that fails is tried again, with growing
/// pauses, until it is made or nobody waits for it: what was admitted is never given up, and
/// [`failing`](Self::failing) tells admission to take no more. Sessions are given up once the source is failing:
/// their callers can ask again.
pub struct Quoter {
    lines: [mpsc::UnboundedSender<Job>; LINES],
    receipt_slots: Arc<Semaphore>,
    session_slots: Arc<Semaphore>,
    failing: Arc<AtomicBool>,
    counters: Arc<QuoteCounters>,
    state: watch::Receiver<bool>,
}

impl Quoter {
    /// Starts the task that asks `source`; it ends when the `Quoter` is dropped.
    pub fn start(source: Arc<dyn QuoteSource>, settings: QuoteSettings) -> Self {
        // Unbounded channels, bounded senders: one seal per live keyset, and slots for the others.
        let (seals, seal_jobs) = mpsc::unbounded_channel();
        let (receipts, receipt_jobs) = mpsc::unbounded_channel();
        let (sessions, session_jobs) = mpsc::unbounded_channel();
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
        tokio::spawn(worker.run([seal_jobs, receipt_jobs, session_jobs]));
        Self {
            lines: [seals, receipts, sessions],
            receipt_slots: Arc::new(Semaphore::new(settings.queue)),
            session_slots: Arc::new(Semaphore::new(settings.sessions)),
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
    pub fn reserve_receipt(&self) -> Option<QuoteSlot> {
        reserve(&self.receipt_slots)
    }

    /// A place for the quote of one session, if one is free.
    pub fn reserve_session(&self) -> Option<QuoteSlot> {
        reserve(&self.session_slots)
    }

    /// A quote for a seal or a boot. Waits for as long as it takes; drop the future to give up.
    pub async fn seal(&self, report_data: [u8; 64]) -> Quote {
        self.ask(SEALS, None, report_data).await
    }

    /// A quote for the receipt that `slot` was reserved for. Waits for as long as it takes.
    pub async fn receipt(&self, slot: QuoteSlot, report_data: [u8; 64]) -> Quote {
        self.ask(RECEIPTS, Some(slot), report_data).await
    }

    /// A quote for the session that `slot` was reserved for; none if the source is failing, or begins to
    /// while this waits. Drop the future to give up.
    pub async fn session(&self, slot: QuoteSlot, report_data: [u8; 64]) -> Option<Quote> {
        tokio::select! {
            biased;
            quote = self.ask(SESSIONS, Some(slot), report_data) => Some(quote),
            () = self.wait_failing(true) => None,
        }
    }

    async fn ask(&self, line: usize, slot: Option<QuoteSlot>, report_data: [u8; 64]) -> Quote {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            report_data,
            reply,
            _slot: slot,
        };
        let sent = self.lines[line].send(job).is_ok();
        match answer.await {
            Ok(quote) if sent => quote,
            // The worker ends only with the runtime: whoever waits then is about to be dropped too.
            _ => std::future::pending().await,
        }
    }
}

fn reserve(slots: &Arc<Semaphore>) -> Option<QuoteSlot> {
    slots.clone().try_acquire_owned().ok().map(QuoteSlot)
}

/// The next job that somebody waits for: of the line whose turn it is, else of the one after it. None when
/// all lines are closed.
async fn next(lines: &mut [mpsc::UnboundedReceiver<Job>; LINES], turn: &mut usize) -> Option<Job> {
    poll_fn(|cx| {
        let mut open = false;
        for step in 0..LINES {
            let line = (*turn + step) % LINES;
            loop {
                match lines[line].poll_recv(cx) {
                    Poll::Ready(Some(job)) if job.reply.is_closed() => {}
                    Poll::Ready(Some(job)) => {
                        *turn = (line + 1) % LINES;
                        return Poll::Ready(Some(job));
                    }
                    Poll::Ready(None) => break,
                    Poll::Pending => {
                        open = true;
                        break;
                    }
                }
            }
        }
        if open {
            Poll::Pending
        } else {
            Poll::Ready(None)
        }
    })
    .await
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
    async fn run(mut self, mut lines: [mpsc::UnboundedReceiver<Job>; LINES]) {
        let mut turn = SEALS;
        while let Some(job) = next(&mut lines, &mut turn).await {
            self.make(job).await;
        }
    }

    async fn make(&mut self, job: Job) {
        // While the source is failing sessions are given up, and perhaps nothing else is asked for: trying on
        // is how it is noticed that the source works again.
        while !job.reply.is_closed() || self.probing() {
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

    /// Whether the source is failing and the queue still stands.
    fn probing(&self) -> bool {
        self.failing.load(Ordering::Relaxed) && !self.changed.is_closed()
    }

    fn succeeded(&mut self, took: Duration) {
        self.counters.made.fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counters
            .microseconds
            .fetch_add(microseconds, Ordering::Relaxed);
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
