//! The little CBOR that receipts need: deterministic (RFC 8949 §4.2.1), definite lengths, integers,
//! strings, arrays and one flat map. No recursion, nothing allocated before its bytes are there.

use crate::{FormatError, Result};

/// Major types of RFC 8949 §3.1.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Major {
    Unsigned = 0,
    Negative = 1,
    Bytes = 2,
    Text = 3,
    Array = 4,
    Map = 5,
    Tag = 6,
}

/// Writes deterministic CBOR; the caller sorts map keys.
pub(crate) struct Writer(pub Vec<u8>);

impl Writer {
    /// The shortest head for this argument.
    fn head(&mut self, major: Major, argument: u64) {
        let major = (major as u8) << 5;
        // The argument's value picks the width, so that no cast below can cut anything off.
        match argument {
            0..=23 => self.0.push(major | argument as u8),
            24..=0xff => self.0.extend_from_slice(&[major | 24, argument as u8]),
            0x100..=0xffff => {
                self.0.push(major | 25);
                self.0.extend_from_slice(&(argument as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.0.push(major | 26);
                self.0.extend_from_slice(&(argument as u32).to_be_bytes());
            }
            _ => {
                self.0.push(major | 27);
                self.0.extend_from_slice(&argument.to_be_bytes());
            }
        }
    }

    pub(crate) fn unsigned(&mut self, value: u64) {
        self.head(Major::Unsigned, value);
    }

    pub(crate) fn label(&mut self, label: i64) {
        if label < 0 {
            self.head(Major::Negative, !label as u64);
        } else {
            self.head(Major::Unsigned, label as u64);
        }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.head(Major::Bytes, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.head(Major::Text, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn array(&mut self, length: usize) {
        self.head(Major::Array, length as u64);
    }

    pub(crate) fn map(&mut self, length: usize) {
        self.head(Major::Map, length as u64);
    }

    pub(crate) fn tag(&mut self, tag: u64) {
        self.head(Major::Tag, tag);
    }
}

/// Reads deterministic CBOR; anything else is an error with its offset.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn error(&self, found: impl Into<String>, expected: &'static str) -> FormatError {
        FormatError::Syntax {
            field: "cbor",
            offset: self.at,
            found: found.into(),
            expected,
        }
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Result<()> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(self.error(format!("{left} bytes more"), "the end")),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let taken = rest.get(..length).ok_or_else(|| {
            self.error(
                format!("{} bytes to the end", rest.len()),
                "as many bytes as the head says",
            )
        })?;
        self.at += length;
        Ok(taken)
    }

    /// The argument of a head of this major type, which must be in its shortest form.
    fn head(&mut self, major: Major, expected: &'static str) -> Result<u64> {
        let start = self.at;
        let initial = match self.take(1)? {
            [byte] if byte >> 5 == major as u8 => *byte,
            other => {
                let found = other.first().map_or(0, |byte| *byte);
                self.at = start;
                return Err(self.error(format!("initial byte {found:#04x}"), expected));
            }
        };
        let (argument, least) = match initial & 0x1f {
            small @ 0..=23 => (u64::from(small), 0),
            24 => (big_endian(self.take(1)?), 24),
            25 => (big_endian(self.take(2)?), 0x100),
            26 => (big_endian(self.take(4)?), 0x1_0000),
            27 => (big_endian(self.take(8)?), 0x1_0000_0000),
            _ => {
                self.at = start;
                return Err(self.error(
                    format!("initial byte {initial:#04x}"),
                    "a definite length (RFC 8949 §4.2.1)",
                ));
            }
        };
        if argument < least {
            self.at = start;
            return Err(self.error(
                format!("{argument} in a longer form"),
                "the shortest form (RFC 8949 §4.2.1)",
            ));
        }
        Ok(argument)
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64> {
        self.head(Major::Unsigned, "an unsigned integer")
    }

    /// A map key: an integer, and the bytes it is written with, which must be above those of the
    /// key before (RFC 8949 §4.2.1).
    pub(crate) fn label(&mut self, last: &[u8]) -> Result<(i64, &'a [u8])> {
        let start = self.at;
        let negative = self
            .bytes
            .get(start)
            .is_some_and(|byte| byte >> 5 == Major::Negative as u8);
        let argument = if negative {
            self.head(Major::Negative, "an integer label")?
        } else {
            self.head(Major::Unsigned, "an integer label")?
        };
        let value = i64::try_from(argument)
            .map(|value| if negative { !value } else { value })
            .map_err(|_| self.error(argument.to_string(), "a label of version 1"))?;
        let written = self.bytes.get(start..self.at).unwrap_or(&[]);
        if written <= last {
            self.at = start;
            return Err(self.error(
                format!("label {value} after a higher or equal one"),
                "labels in bytewise order, each once (RFC 8949 §4.2.1)",
            ));
        }
        Ok((value, written))
    }

    fn length(&mut self, major: Major, expected: &'static str) -> Result<usize> {
        let length = self.head(major, expected)?;
        // A length that memory cannot have is one that the input does not have.
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.length(Major::Bytes, "a byte string")?;
        self.take(length)
    }

    /// A byte string of exactly `N` bytes.
    pub(crate) fn array_of<const N: usize>(&mut self) -> Result<[u8; N]> {
        let start = self.at;
        let bytes = self.bytes()?;
        bytes.try_into().map_err(|_| FormatError::Syntax {
            field: "cbor",
            offset: start,
            found: format!("{} bytes", bytes.len()),
            expected: "a byte string of the claim's own length",
        })
    }

    pub(crate) fn text(&mut self) -> Result<&'a str> {
        let start = self.at;
        let length = self.length(Major::Text, "a text string")?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|error| FormatError::Syntax {
            field: "cbor",
            offset: start + error.valid_up_to(),
            found: "bytes that are not UTF-8".into(),
            expected: "UTF-8",
        })
    }

    pub(crate) fn array(&mut self) -> Result<usize> {
        self.length(Major::Array, "an array")
    }

    pub(crate) fn map(&mut self) -> Result<usize> {
        self.length(Major::Map, "a map")
    }

    pub(crate) fn tag(&mut self) -> Result<u64> {
        self.head(Major::Tag, "a tag")
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}
