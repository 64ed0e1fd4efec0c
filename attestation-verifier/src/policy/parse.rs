//! Reading a policy file.

use thiserror::Error;

use super::Policy;

/// Why a policy does not stand (exit 1).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PolicyError {
    /// The file is no TOML.
    #[error("not TOML: {0}")]
    Toml(String),
    /// A key that has to be there is not.
    #[error("{key} is missing; nothing is unchecked by omission: give it {{ expect = … }} or {{ waive = \"reason\" }}")]
    Missing {
        /// The key, with its table.
        key: String,
    },
    /// A key that no table of a policy has.
    #[error("{key} is not a key of a policy")]
    Unknown {
        /// The key, with its table.
        key: String,
    },
    /// A value of the wrong form.
    #[error("{key} is {found}; expected {expected}")]
    Value {
        /// The key, with its table.
        key: String,
        /// What the file has.
        found: String,
        /// What belongs there.
        expected: String,
    },
}

pub(super) fn policy(_toml: &str) -> Result<Policy, PolicyError> {
    Err(PolicyError::Missing { key: "v".into() })
}
