//! Quotes: the one thing that the enclave asks the platform for.
//!
//! A source is only as good as what it gives: the enclave compares REPORT_DATA, TEE and length of
//! every quote with what it asked for. A source that fails any of this is a failing source, whatever
//! it says of itself; nothing it gave is passed on.

mod agent;
mod kernel;
mod queue;
mod shape;

use std::{fmt, future::Future, pin::Pin};

use thiserror::Error;
use touchstone_formats::evidence::{CollateralFile, EventLog, Evidence, Tee};
use touchstone_formats::report_data::Purpose;

pub use agent::AgentSource;
pub use kernel::{KernelSource, OpenError};
pub use queue::{QuoteSettings, QuoteSlot, Quoter};
pub use shape::check;

/// A quote as a source gave it.
#[derive(Clone, PartialEq, Eq)]
pub struct Quote {
    /// The platform's kind.
    pub tee: Tee,
    /// The report or quote.
    pub quote: Vec<u8>,
    /// The boot event log, where the platform has one.
    pub event_log: Option<EventLog>,
}

impl fmt::Debug for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quote({}, {} bytes)", self.tee.name(), self.quote.len())
    }
}

impl Quote {
    /// The evidence object of this quote. Its collateral is the host's to attach.
    pub fn into_evidence(self, purpose: Purpose, nonce: Option<Vec<u8>>) -> Evidence {
        Evidence {
            purpose: Some(purpose),
            nonce,
            tee: self.tee,
            quote: self.quote,
            collateral: None,
            event_log: self.event_log,
        }
    }
}

/// Why there is no quote. Of what a source sent it carries no more than a short message, made harmless:
/// it is logged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuoteError {
    /// The source says: try again soon.
    #[error("busy")]
    Busy,
    /// The source cannot be reached, or says that it failed.
    #[error("failed: {0}")]
    Failed(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer is not what the protocol or the platform's format says.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// The quote is for other report data than was asked for: the source lies or mixes up answers.
    #[error("the quote holds other report data than was asked for")]
    WrongReportData,
}

/// The answer of a source, once it is there.
pub type QuoteFuture<'a> = Pin<Box<dyn Future<Output = Result<Quote, QuoteError>> + Send + 'a>>;

/// A source of quotes. The caller asks for one at a time, limits the time by dropping the future, and
/// checks what it got with [`check`].
pub trait QuoteSource: Send + Sync + 'static {
    /// Asks for a quote over these 64 bytes.
    fn quote(&self, report_data: [u8; 64]) -> QuoteFuture<'_>;

    /// What certificates the platform put beside the newest quote. Nobody here judges them.
    fn collateral(&self) -> Option<CollateralFile> {
        None
    }
}
