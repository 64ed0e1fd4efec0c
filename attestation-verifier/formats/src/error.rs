//! The one error of this crate: which field, what was found, what was expected.

use crate::text::shown;

/// Bytes that are not what the specification says.
///
/// `found` is always short and printable, whatever the input was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Longer than the bound of the specification; nothing was parsed.
    #[error("{field}: {found} bytes or items, at most {limit} are allowed")]
    TooLong {
        /// What is too long.
        field: &'static str,
        /// Its length: bytes, or items of a list.
        found: usize,
        /// The bound.
        limit: usize,
    },
    /// The bytes at `offset` are not the encoding that must be used.
    #[error("{field}: byte {offset}: found {found}, expected {expected}")]
    Syntax {
        /// What was being read.
        field: &'static str,
        /// Offset in bytes from the start of what was being read.
        offset: usize,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// Well encoded, but not a value that this field can have.
    #[error("{field}: found {found}, expected {expected}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Canonical JSON that is not the object expected: members missing, unknown or of a wrong type.
    #[error("JSON: byte {offset}: {message}")]
    Json {
        /// Offset in bytes of the value that was refused.
        offset: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A guarantee name that version 1 does not know. Kept apart because a server answers it
    /// with 422 (it cannot be delivered) and not 400.
    #[error("guarantee: {name} is not a guarantee of version 1")]
    UnknownGuarantee {
        /// The name, shortened.
        name: String,
    },
}

impl FormatError {
    /// The field at fault, where one is known.
    pub fn field(&self) -> &str {
        match self {
            Self::TooLong { field, .. }
            | Self::Syntax { field, .. }
            | Self::Value { field, .. } => field,
            Self::Json { .. } => "json",
            Self::UnknownGuarantee { .. } => "guarantee",
        }
    }

    pub(crate) fn value(
        field: &'static str,
        found: impl std::fmt::Display,
        expected: &'static str,
    ) -> Self {
        Self::Value {
            field,
            found: shown(&found.to_string()),
            expected,
        }
    }
}

/// Refuses what is longer than `limit`.
pub(crate) fn bounded(field: &'static str, found: usize, limit: usize) -> crate::Result<()> {
    if found > limit {
        return Err(FormatError::TooLong {
            field,
            found,
            limit,
        });
    }
    Ok(())
}
