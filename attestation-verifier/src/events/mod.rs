//! Event logs of TDX: what firmware and software say they measured, replayed into RTMR0 to RTMR3.
//!
//! A log proves nothing by itself. Replayed from zero it gives the four registers, and only where they are
//! those of a genuine quote are its digests what the TD measured. What an event is *about* is known only
//! where its digest is of what the log shows: of dstack's runtime events. All others are known by
//! their digest alone, and the words beside them are anybody's.
//!
//! Two forms are read: [`CCEL`], the log that firmware leaves for the kernel, and [`DSTACK`], dstack's JSON.

mod ccel;
mod dstack;

use thiserror::Error;
use touchstone_formats::evidence::EventLog;
use touchstone_formats::text::hex_encode;

pub(crate) use crate::crypto::sha384;

/// Form of the log in the ACPI table CCEL: TCG PC Client's crypto-agile log, with SHA-384 among its digests:
/// registers know no other.
pub const CCEL: &str = "ccel";
/// Form of dstack's log: a JSON list of events.
pub const DSTACK: &str = "dstack";

/// Most events of a log. Firmware, boot loader and kernel make some dozens.
pub const MOST_EVENTS: usize = 8192;

/// A SHA-384 digest.
pub type Digest384 = [u8; 48];

/// Why nothing is taken from a log.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EventLogError {
    /// It is of a form that is not known here.
    #[error("the log's format is {0:?}; known are \"ccel\" and \"dstack\"")]
    Format(String),
    /// It ends before something it says it has, or has something that does not belong there.
    #[error("at byte {offset}: {what}")]
    Bytes {
        /// Where, from the start of the log.
        offset: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// It is no JSON of the form that dstack's logs have.
    #[error("not a log of dstack's: {0}")]
    Json(String),
    /// One of its events cannot have been measured.
    #[error("event {index}: {what}")]
    Event {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There are more than [`MOST_EVENTS`].
    #[error("more than 8192 events")]
    TooMany,
}

/// One event that was extended into a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// 0 to 3: RTMR0 to RTMR3.
    pub register: u8,
    /// TCG's event type, or the log's own.
    pub kind: u32,
    /// What the register was extended with.
    pub digest: Digest384,
    /// Name and payload, where the digest is of these two; else none.
    pub content: Option<(String, Vec<u8>)>,
}

impl Event {
    /// As an entry of `tdx.rtmr3.events`: `name=<payload in hex>`, or `sha384:<digest>`.
    pub fn words(&self) -> String {
        match &self.content {
            Some((name, payload)) => format!("{name}={}", hex_encode(payload)),
            None => format!("sha384:{}", hex_encode(&self.digest)),
        }
    }
}

/// What a log comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// RTMR0 to RTMR3 as they are if all events of the log, and no others, were extended.
    pub rtmr: [Digest384; 4],
    /// The events, in the order in which they were extended.
    pub events: Vec<Event>,
}

impl Replay {
    fn new() -> Replay {
        Replay {
            rtmr: [[0; 48]; 4],
            events: Vec::new(),
        }
    }

    /// Extends a register: SHA-384 of the register and the digest.
    fn extend(&mut self, event: Event) -> Result<(), EventLogError> {
        if self.events.len() >= MOST_EVENTS {
            return Err(EventLogError::TooMany);
        }
        let Some(rtmr) = self.rtmr.get_mut(usize::from(event.register)) else {
            return Err(EventLogError::Event {
                index: self.events.len(),
                what: "there is no such register",
            });
        };
        *rtmr = sha384(&[rtmr.as_slice(), &event.digest]);
        self.events.push(event);
        Ok(())
    }
}

/// Replays a log from zero.
///
/// # Errors
/// Its form is not known, or it is malformed.
pub fn replay(log: &EventLog) -> Result<Replay, EventLogError> {
    match log.format.as_str() {
        CCEL => ccel::replay(&log.data.0, log.trimmed().len()),
        DSTACK => dstack::replay(log.trimmed()),
        other => Err(EventLogError::Format(other.to_owned())),
    }
}

/// Whether an event can be known by this name: letters, digits, `.`, `_` and `-`, 64 at most. dstack puts a colon between
/// name and payload before it hashes them; a name that held one could be split in two ways.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}
