//! Canonical JSON: JCS (RFC 8785), narrowed as "Conventions" says.
//!
//! It holds strings, integers within ±(2^53−1), arrays, objects and null, nothing else, so that no
//! reader has to agree with another about floating point. The `view` of a bundle, which is for people
//! and ignored, may hold booleans too.

mod check;
mod de;
mod ser;

use crate::error::bounded;
use crate::limits::MAX_BUNDLE;
use crate::{FormatError, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use check::check_with_view;
pub(crate) use de::{Raw, from_checked};

/// Whether `bytes` are canonical JSON: no white space, members sorted by UTF-16 code units and
/// unique, shortest escapes, integers only, at most 16 levels deep. Reads the bytes once, keeps
/// nothing of them, does not recurse.
///
/// # Errors
/// [`FormatError::Syntax`] with the offset of the first byte that is not canonical.
pub fn check(bytes: &[u8]) -> Result<()> {
    check_with_view(bytes, None).map(|_| ())
}

/// Splits one of our JSON files: canonical JSON and exactly one newline. Gives the JSON.
///
/// # Errors
/// As [`check`], and another end than one newline. Files over 4 MiB are refused unread.
pub fn check_file(bytes: &[u8]) -> Result<&[u8]> {
    let json = file_content(bytes)?;
    check(json)?;
    Ok(json)
}

/// The bytes before the one final newline.
pub(crate) fn file_content(bytes: &[u8]) -> Result<&[u8]> {
    bounded("file", bytes.len(), MAX_BUNDLE)?;
    match bytes.split_last() {
        Some((b'\n', json)) => Ok(json),
        last => Err(FormatError::Syntax {
            field: "file",
            offset: bytes.len(),
            found: last.map_or_else(
                || "the empty file".into(),
                |(byte, _)| crate::text::shown_byte(*byte),
            ),
            expected: "one newline at the end",
        }),
    }
}

/// Writes canonical JSON.
///
/// # Errors
/// What our JSON cannot hold: booleans, floating point, integers beyond ±(2^53−1), more than
/// 16 levels.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    ser::write(value)
}

/// Writes canonical JSON and a newline: one of our JSON files.
///
/// # Errors
/// As [`to_vec`].
pub fn to_file<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let mut out = to_vec(value)?;
    out.push(b'\n');
    Ok(out)
}

/// For values of our own whose types leave nothing that could not be written. Should one be wrong
/// all the same, nothing is written, which no reader accepts.
pub(crate) fn must_write(written: Result<Vec<u8>>) -> Vec<u8> {
    debug_assert!(written.is_ok(), "{written:?}");
    written.unwrap_or_default()
}

/// Reads canonical JSON into a type. The type should deny unknown fields. Stricter than serde_json:
/// structs are read from objects alone, never from arrays.
///
/// # Errors
/// As [`check`], then what the type refuses, with its offset.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let json = check_with_view(bytes, None)?;
    from_checked(json)
}
