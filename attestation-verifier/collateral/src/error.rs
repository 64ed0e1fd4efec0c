//! Why a piece of collateral could not be had, with the facts.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use attestation_verifier::Fault;
use thiserror::Error;

/// Why a piece of collateral could not be had. `what` names the piece, in words.
#[derive(Debug, Error)]
pub enum Error {
    /// Arguments or settings that cannot work.
    #[error("{0}")]
    Usage(String),
    /// The system said no.
    #[error("{path}: {error}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No whole answer came: no connection, a reset, a timeout, a body that ended early.
    #[error("{what}: no answer from {server}: {reason}")]
    Unreachable {
        /// Which piece.
        what: String,
        /// Who was asked.
        server: String,
        /// What happened.
        reason: String,
    },
    /// The server answered that it has not what was asked for, or is not able to give it.
    #[error("{what}: {server} answered {status}{}", hint(*.status))]
    Status {
        /// Which piece.
        what: String,
        /// Who was asked.
        server: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server asks for more patience than there is.
    #[error("{what}: {server} asks to wait {} s (status {status}); that is longer than the {} s left", .wait.as_secs(), .patience.as_secs())]
    Busy {
        /// Which piece.
        what: String,
        /// Who was asked.
        server: String,
        /// 429 or 503.
        status: u16,
        /// How long it asks to wait.
        wait: Duration,
        /// How long would have been waited.
        patience: Duration,
    },
    /// An answer that leads elsewhere. Redirects are never followed: collateral has one address.
    #[error("{what}: {server} redirects (status {status}); redirects are refused")]
    Redirect {
        /// Which piece.
        what: String,
        /// Who was asked.
        server: String,
        /// The HTTP status.
        status: u16,
    },
    /// More bytes than such a piece can have.
    #[error("{what}: the answer of {server} is larger than the {limit} bytes it may have")]
    TooLarge {
        /// Which piece.
        what: String,
        /// Who was asked.
        server: String,
        /// The bound, bytes.
        limit: usize,
    },
    /// It is not what it should be: its structure.
    #[error("{what}: malformed: {reason}")]
    Malformed {
        /// Which piece.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is well-formed, and not the vendor's, or not for this platform.
    #[error("{what}: not authentic: {reason}")]
    NotAuthentic {
        /// Which piece.
        what: String,
        /// What does not hold.
        reason: String,
    },
    /// It is genuine, and not valid now.
    #[error("{what}: {reason}")]
    Outdated {
        /// Which piece.
        what: String,
        /// When it was, or will be, valid.
        reason: String,
    },
    /// The pieces are good each, and do not make this evidence authentic.
    #[error("with this collateral the evidence would be refused: {check}: {reason}")]
    Refused {
        /// The verifier's check that decided.
        check: Cow<'static, str>,
        /// Its reason.
        reason: String,
        /// What it means.
        fault: Fault,
    },
}

fn hint(status: u16) -> &'static str {
    match status {
        404 => ": it knows no such thing",
        401 | 403 => ": it does not give this to us",
        429 => ": too many requests",
        500..=599 => ": it is in trouble",
        _ => "",
    }
}

impl Error {
    /// What it means: exit code and class of a verdict.
    pub fn fault(&self) -> Fault {
        match self {
            Error::Usage(_) | Error::Io { .. } => Fault::Usage,
            Error::Unreachable { .. }
            | Error::Status { .. }
            | Error::Busy { .. }
            | Error::Redirect { .. } => Fault::CollateralMissing,
            Error::TooLarge { .. } | Error::Malformed { .. } => Fault::Malformed,
            Error::NotAuthentic { .. } => Fault::NotAuthentic,
            Error::Outdated { .. } => Fault::CollateralExpired,
            Error::Refused { fault, .. } => *fault,
        }
    }

    /// The id of the check that this is reported under.
    pub fn id(&self) -> &'static str {
        match self {
            Error::Usage(_) | Error::Io { .. } => "usage",
            Error::Unreachable { .. }
            | Error::Status { .. }
            | Error::Busy { .. }
            | Error::Redirect { .. } => "collateral.fetch",
            Error::TooLarge { .. } | Error::Malformed { .. } => "collateral.format",
            Error::NotAuthentic { .. } => "collateral.authentic",
            Error::Outdated { .. } => "collateral.validity",
            Error::Refused {
                check: Cow::Borrowed(id),
                ..
            } => id,
            Error::Refused { .. } => "collateral.authentic",
        }
    }

    /// Whether asking again soon may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Busy { .. } => true,
            Error::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }
}
