//! Why something is no manifest.

use touchstone_formats::text::shown;

/// Bytes that are not what docs/manifests.md says (exit 2). Texts that are repeated are short and escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More than the format allows.
    #[error("{what}: found {found}, at most {limit} are allowed")]
    TooLong {
        /// What there is too much of, and of what unit.
        what: String,
        /// How much.
        found: usize,
        /// The bound.
        limit: usize,
    },
    /// Not the JSON that is expected: a member missing, unknown, twice, or of a wrong type.
    #[error("{what}: {message}")]
    Json {
        /// What was read.
        what: String,
        /// What is wrong with it, and where.
        message: String,
    },
    /// Well written, but not a value that this field can have.
    #[error("{field}: found {found}, expected {expected}")]
    Value {
        /// The field, as a path from the top.
        field: String,
        /// Its value.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A draft, given for a manifest.
    #[error("it is a draft, which nobody signed: touchstone manifest sign makes a manifest of it")]
    Draft,
    /// Signers of one file signed different things.
    #[error(
        "line {line}: its payload is another than line 1's; all lines of a file sign the same bytes"
    )]
    PayloadsDiffer {
        /// The first line that differs, from 1.
        line: usize,
    },
}

pub(super) type Result<T> = std::result::Result<T, ManifestError>;

impl ManifestError {
    pub(super) fn json(what: impl Into<String>, message: impl ToString) -> ManifestError {
        ManifestError::Json {
            what: what.into(),
            message: message.to_string(),
        }
    }

    pub(super) fn value(
        field: impl Into<String>,
        found: impl AsRef<str>,
        expected: impl Into<String>,
    ) -> ManifestError {
        ManifestError::Value {
            field: field.into(),
            found: shown(found.as_ref()),
            expected: expected.into(),
        }
    }
}

/// Refuses what is more than `limit`.
pub(super) fn at_most(what: &str, found: usize, limit: usize) -> Result<()> {
    if found > limit {
        return Err(ManifestError::TooLong {
            what: what.to_owned(),
            found,
            limit,
        });
    }
    Ok(())
}
