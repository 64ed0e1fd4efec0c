//! ONNX Runtime: loading the pinned library, sessions, and running them.

use std::{path::Path, sync::Arc};

use touchstone_formats::digest::Digest;

use crate::protocol::{InferOutput, InferRequest};

/// The loaded library. One per process.
pub struct Runtime {
    _private: (),
}

/// Why the library was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The file's digest is not the configured one.
    #[error("{path}: SHA-256 is {found}, expected {expected}")]
    Digest {
        /// The file.
        path: String,
        /// What was found.
        found: Digest,
        /// What was configured.
        expected: Digest,
    },
    /// Anything else.
    #[error("{path}: {reason}")]
    Load {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

impl Runtime {
    /// Opens `library`, compares the SHA-256 of what was opened with `expected` and loads exactly
    /// that. A second call in a process must name the same digest and gives the same runtime.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub fn load(_library: &Path, _expected: Digest) -> Result<Arc<Runtime>, RuntimeError> {
        unimplemented!()
    }
}

/// No session became free in time; answer 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all sessions of this model are busy; try again soon")]
pub struct Busy;

/// An inference that gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The runtime refused the inputs (status 400).
    #[error("the model refused these inputs: {0}")]
    Inputs(String),
    /// The runtime failed (status 500).
    #[error("the model failed: {0}")]
    Failed(String),
}

impl InferError {
    /// The HTTP status that answers this error: 400 or 500.
    pub fn status(&self) -> u16 {
        match self {
            Self::Inputs(_) => 400,
            Self::Failed(_) => 500,
        }
    }

    /// A short title (RFC 9457).
    pub fn title(&self) -> &'static str {
        match self {
            Self::Inputs(_) => "Inputs refused by the model",
            Self::Failed(_) => "Inference failed",
        }
    }
}

/// A session on loan; it goes back to its pool when dropped.
pub struct Lease {
    _private: (),
}

impl Lease {
    /// Runs the model. Synchronous and possibly slow: see [`usually_fast`](Self::usually_fast). The
    /// request must have passed [`Model::check`](crate::models::Model::check); one that has not is an error, never a crash.
    ///
    /// # Errors
    /// [`InferError`]; the session stays usable or is replaced.
    pub fn run(&mut self, _request: &InferRequest) -> Result<InferOutput, InferError> {
        unimplemented!()
    }

    /// Whether this model's runs have lately taken less than 300 µs: then running inline on an async
    /// thread costs less than handing over to a blocking one.
    pub fn usually_fast(&self) -> bool {
        unimplemented!()
    }
}
