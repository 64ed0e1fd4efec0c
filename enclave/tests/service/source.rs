//! A quote source for tests, with faults that can be switched.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use enclave::quote::{Quote, QuoteError, QuoteFuture, QuoteSource};
use tokio::sync::watch;
use touchstone_formats::evidence::Tee;

/// What the source does when asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Gives a quote after its latency.
    Works,
    /// Says busy.
    Busy,
    /// Says failed.
    Fails,
    /// Never answers.
    Hangs,
    /// Gives a quote for other report data.
    Lies,
    /// Gives a report that is one byte short.
    Short,
}

/// The source. Counts what it is asked, and whether it is ever asked twice at once.
#[derive(Debug)]
pub struct Source {
    mood: Mutex<Mood>,
    latency: Mutex<Duration>,
    /// How many requests, from the first, may be answered.
    let_through: watch::Sender<usize>,
    asked: Mutex<Vec<[u8; 64]>>,
    at_once: AtomicUsize,
    overlapped: AtomicBool,
}

impl Source {
    pub fn new(latency: Duration) -> Self {
        Self {
            mood: Mutex::new(Mood::Works),
            latency: Mutex::new(latency),
            let_through: watch::Sender::new(usize::MAX),
            asked: Mutex::default(),
            at_once: AtomicUsize::new(0),
            overlapped: AtomicBool::new(false),
        }
    }

    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub fn latency(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    /// Answers no further request until [`release`](Self::release): what a test does meanwhile, however long that takes, is done
    /// before the next quote is there. The enclave's own patience with the source goes on.
    pub fn hold(&self) {
        self.let_through.send_replace(self.asked().len());
    }

    /// Answers one of those that it holds.
    pub fn release_one(&self) {
        self.let_through.send_modify(|count| *count += 1);
    }

    /// Answers again; the latency of whoever waits begins now.
    pub fn release(&self) {
        self.let_through.send_replace(usize::MAX);
    }

    /// Report data of every request so far.
    pub fn asked(&self) -> Vec<[u8; 64]> {
        self.asked.lock().unwrap().clone()
    }

    pub fn overlapped(&self) -> bool {
        self.overlapped.load(Ordering::SeqCst)
    }

    async fn make(&self, report_data: [u8; 64]) -> Result<Quote, QuoteError> {
        struct Leave<'a>(&'a AtomicUsize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        if self.at_once.fetch_add(1, Ordering::SeqCst) > 0 {
            self.overlapped.store(true, Ordering::SeqCst);
        }
        let _leave = Leave(&self.at_once);
        let number = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(report_data);
            asked.len()
        };
        let (mood, latency) = (*self.mood.lock().unwrap(), *self.latency.lock().unwrap());
        let mut let_through = self.let_through.subscribe();
        let_through
            .wait_for(|count| *count >= number)
            .await
            .unwrap();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        match mood {
            Mood::Works => Ok(report(report_data)),
            Mood::Busy => Err(QuoteError::Busy),
            Mood::Fails => Err(QuoteError::Failed("switched to fail".into())),
            Mood::Hangs => std::future::pending().await,
            Mood::Lies => {
                let mut other = report_data;
                other[63] ^= 1;
                Ok(report(other))
            }
            Mood::Short => {
                let mut quote = report(report_data);
                quote.quote.pop();
                Ok(quote)
            }
        }
    }
}

impl QuoteSource for Source {
    fn quote(&self, report_data: [u8; 64]) -> QuoteFuture<'_> {
        Box::pin(self.make(report_data))
    }
}

/// Bytes in the shape of an SEV-SNP report, signed by nobody.
pub fn report(report_data: [u8; 64]) -> Quote {
    let mut quote = vec![0; 1_184];
    quote[0] = 3;
    quote[0x50..0x90].copy_from_slice(&report_data);
    Quote {
        tee: Tee::SevSnp,
        quote,
        event_log: None,
    }
}
