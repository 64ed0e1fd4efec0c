//! The quote agent's protocol: report data in; TEE, quote and, where there is one, event log out.
//! One JSON object a line, over a Unix stream socket; answers in the order of requests.

use crate::evidence::{EventLog, Tee};
use crate::limits::MAX_QUOTE;
use crate::strict::{self, present};
use crate::text::{Base64Bytes, hex_array, hex_encode};
use crate::{FormatError, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest line, its newline included: bytes.
pub const MAX_LINE: usize = 4 << 20;

strict::version!(
    /// `touchstone/quote-agent/1`.
    pub V = "touchstone/quote-agent/1"
);

/// 64 bytes of REPORT_DATA, as 128 lower-case hex digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReportData(pub [u8; 64]);

impl Serialize for ReportData {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(&hex_encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for ReportData {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        crate::text::deserialize_str(from, "128 lower-case hex digits", |hex| {
            hex_array(hex).map(ReportData)
        })
    }
}

/// Asks for a quote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The protocol.
    pub v: V,
    /// What the quote must carry.
    pub report_data: ReportData,
}

impl Request {
    /// A request for a quote over these bytes.
    pub fn new(report_data: [u8; 64]) -> Self {
        Self {
            v: V,
            report_data: ReportData(report_data),
        }
    }

    /// Reads one line, with or without its newline.
    ///
    /// # Errors
    /// Not a request of this version.
    pub fn parse(line: &[u8]) -> Result<Self> {
        parse_line(line)
    }

    /// The line, newline included.
    pub fn to_line(&self) -> Vec<u8> {
        to_line(self)
    }
}

/// Why there is no quote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// Try again soon.
    Busy,
    /// This request failed.
    Failed,
}

/// What the agent answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub enum Answer {
    /// A quote.
    Quote {
        /// Who made it.
        tee: Tee,
        /// As made, ≤ 16 KiB.
        quote: Vec<u8>,
        /// Where the platform keeps one.
        event_log: Option<EventLog>,
    },
    /// No quote.
    Error {
        /// Whether to try again.
        error: ErrorKind,
        /// For people.
        message: String,
    },
}

impl Answer {
    /// Reads one line, with or without its newline.
    ///
    /// # Errors
    /// Not an answer of this version; a quote or log out of bounds.
    pub fn parse(line: &[u8]) -> Result<Self> {
        parse_line(line)
    }

    /// The line, newline included.
    pub fn to_line(&self) -> Vec<u8> {
        to_line(self)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: V,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    tee: Option<Tee>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    quote: Option<Base64Bytes>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    event_log: Option<EventLog>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    error: Option<ErrorKind>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    message: Option<String>,
}

impl TryFrom<Wire> for Answer {
    type Error = FormatError;

    fn try_from(wire: Wire) -> Result<Self> {
        match wire {
            Wire {
                tee: Some(tee),
                quote: Some(quote),
                event_log,
                error: None,
                message: None,
                ..
            } => {
                crate::error::bounded("quote", quote.0.len(), MAX_QUOTE)?;
                if let Some(log) = &event_log {
                    log.check()?;
                }
                Ok(Answer::Quote {
                    tee,
                    quote: quote.0,
                    event_log,
                })
            }
            Wire {
                tee: None,
                quote: None,
                event_log: None,
                error: Some(error),
                message,
                ..
            } => Ok(Answer::Error {
                error,
                message: message.unwrap_or_default(),
            }),
            _ => Err(FormatError::value(
                "answer",
                "another set of members",
                "tee and quote, or error and message",
            )),
        }
    }
}

impl From<Answer> for Wire {
    fn from(answer: Answer) -> Self {
        let (tee, quote, event_log, error, message) = match answer {
            Answer::Quote {
                tee,
                quote,
                event_log,
            } => (Some(tee), Some(Base64Bytes(quote)), event_log, None, None),
            Answer::Error { error, message } => (None, None, None, Some(error), Some(message)),
        };
        Wire {
            v: V,
            tee,
            quote,
            event_log,
            error,
            message,
        }
    }
}

fn parse_line<T: for<'de> Deserialize<'de>>(line: &[u8]) -> Result<T> {
    crate::error::bounded("line", line.len(), MAX_LINE)?;
    let json = line.strip_suffix(b"\n").unwrap_or(line);
    serde_json::from_slice(json).map_err(|error| FormatError::Json {
        offset: error.column(),
        message: error.to_string(),
    })
}

fn to_line<T: Serialize>(value: &T) -> Vec<u8> {
    // Strings alone: nothing that serde_json could refuse to write, and no newline within.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}
