//! Why a request could not be read, or its answer not be written.

use thiserror::Error;
use touchstone_formats::commitment::Datatype;

use super::json::shorten;

/// A request or an answer that does not fit the protocol.
///
/// `Display` is the `detail` of RFC 9457 problem details and the `error` string that Open Inference
/// Protocol clients read; [`status`](Self::status) and [`title`](Self::title) are the rest of it.
/// No variant carries tensor data.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The body is not the JSON that the protocol describes.
    #[error("{0}")]
    Malformed(String),
    /// A tensor that the model needs, does not know, or that was given twice.
    #[error("input {name:?}: {problem}")]
    Input {
        /// The input's name as the caller wrote it (cut at 128 bytes).
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An output that the model does not have, or that was named twice.
    #[error("output {name:?}: {problem}")]
    Output {
        /// The output's name as the caller wrote it (cut at 128 bytes).
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A parameter that would change the meaning of the request and is not supported.
    #[error("parameter {name:?} is not supported: {why}")]
    Parameter {
        /// The parameter's name.
        name: String,
        /// What it would have meant.
        why: &'static str,
    },
    /// A bound of [`Limits`](super::Limits) was passed.
    #[error("{what}: at most {limit} allowed, found {found}")]
    TooLarge {
        /// What was counted, with its unit.
        what: &'static str,
        /// The bound.
        limit: u64,
        /// What was found.
        found: u64,
    },
    /// An answer that JSON cannot carry (formats.md §9): a number that is not finite.
    #[error(
        "output {name:?} holds a number that is not finite, which JSON cannot carry; ask for it with binary_data"
    )]
    NotFinite {
        /// The output's name.
        name: String,
    },
    /// An answer that JSON cannot carry: BYTES that are not UTF-8 text.
    #[error(
        "output {name:?} holds bytes that are not UTF-8 text, which JSON cannot carry; ask for it with binary_data"
    )]
    NotText {
        /// The output's name.
        name: String,
    },
    /// An answer that JSON cannot carry: FP16 and BF16 travel in the binary extension alone.
    #[error(
        "output {name:?} is {datatype}, which travels in the binary extension alone; ask for it with binary_data"
    )]
    BinaryOnly {
        /// The output's name.
        name: String,
        /// Its datatype.
        datatype: Datatype,
    },
}

impl ProtocolError {
    /// Something is wrong with an input.
    #[cold]
    pub(crate) fn input(name: &str, problem: String) -> Self {
        Self::Input {
            name: shorten(name),
            problem,
        }
    }

    /// Something is wrong with a requested output.
    #[cold]
    pub(crate) fn output(name: &str, problem: String) -> Self {
        Self::Output {
            name: shorten(name),
            problem,
        }
    }

    /// The HTTP status that answers this error: 400, 413 or 422.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            Self::NotFinite { .. } | Self::NotText { .. } | Self::BinaryOnly { .. } => 422,
            _ => 400,
        }
    }

    /// A short title, the same for every error of its kind (RFC 9457 §3.1.3).
    pub fn title(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "Malformed inference request",
            Self::Input { .. } => "Inputs do not fit the model",
            Self::Output { .. } => "Requested outputs do not fit the model",
            Self::Parameter { .. } => "Unsupported parameter",
            Self::TooLarge { .. } => "Request too large",
            Self::NotFinite { .. } | Self::NotText { .. } | Self::BinaryOnly { .. } => {
                "Answer cannot be written as JSON"
            }
        }
    }
}
