//! JSON that can be read in one way only.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use touchstone_formats::jcs;

use super::error::{ManifestError, Result, at_most};

/// Reads JSON with white space at will. What was read has to say all that was written: a member that is null where it
/// could be absent, or an array in place of an object, is refused as much as one that is unknown or stands twice.
pub(super) fn read<T: Serialize + DeserializeOwned>(
    what: &str,
    limit: usize,
    text: &[u8],
) -> Result<T> {
    at_most(&format!("{what}, bytes"), text.len(), limit)?;
    let refuse = |error: serde_json::Error| ManifestError::json(what, error);
    let read: T = serde_json::from_slice(text).map_err(refuse)?;
    // The type refused what it does not know, so that this holds no more than the type does.
    let written: Value = serde_json::from_slice(text).map_err(refuse)?;
    let again = serde_json::to_value(&read).map_err(refuse)?;
    same(what, again == written)?;
    Ok(read)
}

/// Reads canonical JSON (JCS as docs/formats.md narrows it) that is, byte for byte, how the value is written.
pub(super) fn read_canonical<T: Serialize + DeserializeOwned>(
    what: &str,
    limit: usize,
    bytes: &[u8],
) -> Result<T> {
    at_most(&format!("{what}, bytes"), bytes.len(), limit)?;
    let refuse = |error: touchstone_formats::FormatError| ManifestError::json(what, error);
    let read: T = jcs::from_slice(bytes).map_err(refuse)?;
    let again = jcs::to_vec(&read).map_err(refuse)?;
    same(what, again == bytes)?;
    Ok(read)
}

fn same(what: &str, same: bool) -> Result<()> {
    if same {
        return Ok(());
    }
    let message =
        "a value is not written in the one form it has (null for absent, an array for an object)";
    Err(ManifestError::json(what, message))
}
