//! Attribute files: written at once, read to a bound.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::Path,
};

use crate::SourceError;

/// Longest text of an attribute that is read. `provider` and numbers are a few bytes.
const MAX_TEXT: usize = 64;

/// All of a file, if it is no longer than `most` bytes.
pub(crate) fn read(path: &Path, most: usize) -> Result<Vec<u8>, SourceError> {
    let file = File::open(path).map_err(|error| SourceError::of(path, "opening", error))?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| SourceError::of(path, "reading", error))?;
    if bytes.len() > most {
        return Err(SourceError::Malformed {
            path: path.to_owned(),
            what: "length",
            found: format!("more than {most} bytes"),
            expected: format!("at most {most} bytes"),
        });
    }
    Ok(bytes)
}

/// The text of an attribute, without its newline.
pub(crate) fn text(path: &Path) -> Result<String, SourceError> {
    let bytes = read(path, MAX_TEXT)?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let printable = line.iter().all(|byte| (0x20..0x7f).contains(byte));
    match std::str::from_utf8(line) {
        Ok(text) if printable => Ok(text.to_owned()),
        _ => Err(SourceError::Malformed {
            path: path.to_owned(),
            what: "text",
            found: line.escape_ascii().to_string(),
            expected: "printable ASCII".into(),
        }),
    }
}

/// The number that an attribute holds.
pub(crate) fn number(path: &Path) -> Result<u64, SourceError> {
    let text = text(path)?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => Err(SourceError::Malformed {
            path: path.to_owned(),
            what: "number",
            found: format!("{text:?}"),
            expected: "decimal digits".into(),
        }),
    }
}

/// Writes an attribute in one call and closes it, which is what commits it. Nothing is created or truncated.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), SourceError> {
    let mut file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|error| SourceError::of(path, "opening", error))?;
    file.write_all(bytes)
        .map_err(|error| SourceError::of(path, "writing", error))
}
