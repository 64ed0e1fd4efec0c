//! The Linux kernel's own interfaces as quote sources: configfs-tsm and `/dev/sev-guest` (`touchstone_quote_source`).
//!
//! Their calls block, for as long as the platform takes. One runs at a time, on a thread for such calls, and holds the
//! source until it has returned: when the caller's patience ends first, what it brings in the end reaches nobody, and until
//! then every further quote is refused at once. So no late answer can be taken for another's, and one thread hangs at most.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use thiserror::Error;
use tokio::sync::Mutex;
use touchstone_formats::{
    FormatError, certificate_table,
    evidence::{Collateral, CollateralFile, EventLog, Tee},
    text::Base64Bytes,
};
use touchstone_quote_source::{Report, SevGuest, Source, SourceError, Tsm};

use super::{Quote, QuoteError, QuoteFuture, QuoteSource};
use crate::config::KernelQuotes;

/// Most bytes of an event log's file, of which all but padding counts against the format's own, smaller bound.
const EVENT_LOG_FILE: u64 = 4 << 20;

/// Where an SEV-SNP report says which key signed it: bits 2 to 4 of the word here (AMD 56860, table 23).
const SIGNING_KEY_AT: usize = 0x48;

/// Why a source cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The interface.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The event log is there and cannot be read.
    #[error("the event log {path}: {error}")]
    EventLog {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The event log is longer than evidence may hold.
    #[error("the event log {path}: {error}")]
    EventLogLength {
        /// Its file.
        path: PathBuf,
        /// How long it is, and may be.
        error: FormatError,
    },
}

/// One of the kernel's interfaces.
pub struct KernelSource {
    source: Arc<Mutex<Source>>,
    event_log: Option<EventLog>,
    /// Of the newest report: the host's certificate table, and whether a VLEK signed.
    certificates: std::sync::Mutex<Option<(Vec<u8>, bool)>>,
}

impl KernelSource {
    /// Opens the interface, and reads the event log, which does not change. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]: among others, when there is no provider. Then nothing could ever be quoted.
    pub fn open(settings: &KernelQuotes) -> Result<Self, OpenError> {
        let (source, event_log) = match settings {
            KernelQuotes::Tsm {
                reports,
                entry,
                privilege,
                event_log,
            } => {
                let tsm = Tsm::open(reports, entry, *privilege)?;
                (Source::Tsm(tsm), event_log.as_deref())
            }
            KernelQuotes::SevGuest { device, privilege } => {
                let device = SevGuest::open(device, *privilege)?;
                (Source::SevGuest(device), None)
            }
        };
        let tee = source.tee()?;
        let event_log = match (tee, event_log) {
            (Tee::Tdx, Some(path)) => read_event_log(path)?,
            (Tee::SevSnp, Some(path)) => {
                tracing::warn!(path = %path.display(), "an event log is named, which SEV-SNP has none of");
                None
            }
            (_, None) => None,
        };
        tracing::info!(
            tee = tee.name(),
            event_log = event_log.is_some(),
            "the kernel's quote source is there"
        );
        Ok(Self {
            source: Arc::new(Mutex::new(source)),
            event_log,
            certificates: std::sync::Mutex::default(),
        })
    }

    async fn ask(&self, report_data: [u8; 64]) -> Result<Quote, QuoteError> {
        // A call that was given up and has not returned holds the source.
        let Ok(mut source) = self.source.clone().try_lock_owned() else {
            return Err(QuoteError::Timeout);
        };
        let asked = tokio::task::spawn_blocking(move || source.quote(&report_data)).await;
        match asked {
            Ok(Ok(report)) => Ok(self.quote_of(report)),
            Ok(Err(error)) => Err(quote_error(&error)),
            Err(_) => Err(QuoteError::Failed("asking the kernel panicked".into())),
        }
    }

    fn quote_of(&self, report: Report) -> Quote {
        let event_log = match report.tee {
            Tee::Tdx => self.event_log.clone(),
            Tee::SevSnp => None,
        };
        let vlek = signed_by_vlek(&report.quote);
        *self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner) =
            report.certificates.map(|table| (table, vlek));
        Quote {
            tee: report.tee,
            quote: report.quote,
            event_log,
        }
    }
}

impl QuoteSource for KernelSource {
    fn quote(&self, report_data: [u8; 64]) -> QuoteFuture<'_> {
        Box::pin(self.ask(report_data))
    }

    fn collateral(&self) -> Option<CollateralFile> {
        let held = self.certificates.lock();
        let (table, vlek) = held.unwrap_or_else(PoisonError::into_inner).clone()?;
        match certificate_table::collateral(&table, vlek) {
            Ok(found) => Some(CollateralFile {
                tee: Tee::SevSnp,
                collateral: Collateral::SevSnp(found),
            }),
            Err(error) => {
                // Whoever asks chooses how often this is said.
                tracing::debug!(%error, "the host's certificates are no use");
                None
            }
        }
    }
}

fn signed_by_vlek(report: &[u8]) -> bool {
    report
        .get(SIGNING_KEY_AT)
        .is_some_and(|byte| (byte >> 2) & 7 == 1)
}

fn quote_error(error: &SourceError) -> QuoteError {
    match error {
        SourceError::Busy { .. } => QuoteError::Busy,
        SourceError::Malformed { .. } | SourceError::UnknownProvider { .. } => {
            QuoteError::Malformed(error.to_string())
        }
        _ => QuoteError::Failed(error.to_string()),
    }
}

/// The log that firmware left (CCEL), if its file is there and holds anything.
fn read_event_log(path: &Path) -> Result<Option<EventLog>, OpenError> {
    let at = |error| OpenError::EventLog {
        path: path.to_owned(),
        error,
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), "no event log there: quotes go without");
            return Ok(None);
        }
        file => file.map_err(at)?,
    };
    let mut bytes = Vec::new();
    file.take(EVENT_LOG_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(at)?;
    if bytes.len() as u64 > EVENT_LOG_FILE {
        return Err(at(io::Error::other(format!(
            "more than {EVENT_LOG_FILE} bytes"
        ))));
    }
    let log = EventLog {
        format: "ccel".into(),
        data: Base64Bytes(bytes),
    };
    log.check().map_err(|error| OpenError::EventLogLength {
        path: path.to_owned(),
        error,
    })?;
    if log.trimmed().is_empty() {
        tracing::warn!(path = %path.display(), "the event log is empty: quotes go without");
        return Ok(None);
    }
    Ok(Some(log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_which_key_signed_it() {
        for (word, vlek) in [(0, false), (0b100, true), (0b111, true), (0b11, false)] {
            let mut report = vec![0xFF; 1_184];
            report[SIGNING_KEY_AT] = word;
            assert_eq!(signed_by_vlek(&report), vlek, "{word:#b}");
        }
        // No key at all, and no report.
        assert!(!signed_by_vlek(&[0xFF; 1_184]));
        assert!(!signed_by_vlek(&[]));
    }
}
