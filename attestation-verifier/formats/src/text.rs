//! Strict text encodings of bytes: lower-case hex, and standard base64 with padding and zero pad
//! bits. There is one way to write a value, so that equal values are equal bytes.
//!
//! And text of somebody else's before people see it: [`printable`].

use crate::{Digest, FormatError, Result};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(false),
);

/// Whether a character does something to what stands around it instead of standing for itself: it moves a terminal's
/// cursor or colours (C0, C1), begins another line (U+2028, U+2029), or turns the direction of text around
/// (Unicode's Bidi_Control), so that a name reads as another.
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text of somebody else's on one line of a terminal, a log or a page: what [`is_control`] is escaped, as in `\u{1b}`.
pub fn printable(text: &str) -> String {
    escaped(text, is_control)
}

/// The same, where line feeds are meant to be there.
pub fn printable_lines(text: &str) -> String {
    escaped(text, |c| c != '\n' && is_control(c))
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_escaped(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// At most 64 characters of hostile text, escaped, for a message.
pub fn shown(text: &str) -> String {
    let mut out = String::from("\"");
    let mut characters = text.chars();
    for c in characters.by_ref().take(64) {
        out.extend(c.escape_debug());
    }
    if characters.next().is_some() {
        out.push('…');
    }
    out.push('"');
    out
}

/// Lower-case hex of `bytes`.
pub fn hex_encode(bytes: &[u8]) -> String {
    fn digit(nibble: u8) -> u8 {
        let letter = b'a' - b'9' - 1;
        nibble + b'0' + if nibble > 9 { letter } else { 0 }
    }
    let mut out = vec![0; bytes.len() * 2];
    let (pairs, _) = out.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    // Digits alone.
    String::from_utf8(out).unwrap_or_default()
}

/// Reads hex in lower case.
///
/// # Errors
/// An odd number of digits, upper case, anything that is no digit.
pub fn hex_decode(hex: &str) -> Result<Vec<u8>> {
    let digits = hex.as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(FormatError::Syntax {
            field: "hex",
            offset: digits.len(),
            found: "the end".into(),
            expected: "an even number of digits",
        });
    }
    let mut out = Vec::with_capacity(pairs.len());
    for (index, [high, low]) in pairs.iter().enumerate() {
        match (nibble(*high), nibble(*low)) {
            (Some(high), Some(low)) => out.push(high << 4 | low),
            _ => {
                let (offset, byte) = match nibble(*high) {
                    None => (index * 2, *high),
                    Some(_) => (index * 2 + 1, *low),
                };
                return Err(FormatError::Syntax {
                    field: "hex",
                    offset,
                    found: shown_byte(byte),
                    expected: "a digit of 0123456789abcdef",
                });
            }
        }
    }
    Ok(out)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

pub(crate) fn shown_byte(byte: u8) -> String {
    format!("{:?}", char::from(byte))
}

/// Reads exactly `N` bytes of lower-case hex.
///
/// # Errors
/// As [`hex_decode`], and another length.
pub fn hex_array<const N: usize>(hex: &str) -> Result<[u8; N]> {
    if hex.len() != N * 2 {
        return Err(FormatError::Syntax {
            field: "hex",
            offset: hex.len(),
            found: format!("{} characters", hex.len()),
            expected: "exactly as many hex digits as the field has",
        });
    }
    array("hex", hex_decode(hex)?)
}

/// Standard base64 of `bytes`, padded.
pub fn base64_encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Reads standard base64: padded, pad bits zero, no white space.
///
/// # Errors
/// Any other way to write the same bytes, and what is no base64 at all.
pub fn base64_decode(base64: &str) -> Result<Vec<u8>> {
    BASE64.decode(base64).map_err(|error| {
        use base64::DecodeError as E;
        let (offset, found) = match error {
            E::InvalidByte(offset, byte) => (offset, shown_byte(byte)),
            E::InvalidLastSymbol { .. } => (base64.len(), "pad bits that are not zero".into()),
            E::InvalidLength(length) => (length, format!("{length} characters")),
            E::InvalidPadding => (base64.len(), "missing or misplaced padding".into()),
        };
        FormatError::Syntax {
            field: "base64",
            offset,
            found,
            expected: "standard base64 with padding and zero pad bits",
        }
    })
}

/// Reads exactly `N` bytes of base64.
///
/// # Errors
/// As [`base64_decode`], and another length.
pub fn base64_array<const N: usize>(base64: &str) -> Result<[u8; N]> {
    array("base64", base64_decode(base64)?)
}

fn array<const N: usize>(field: &'static str, bytes: Vec<u8>) -> Result<[u8; N]> {
    bytes
        .try_into()
        .map_err(|bytes: Vec<u8>| FormatError::Syntax {
            field,
            offset: bytes.len(),
            found: format!("{} bytes", bytes.len()),
            expected: "exactly as many bytes as the field has",
        })
}

/// Bytes written as base64 in JSON.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Base64Bytes(pub Vec<u8>);

/// Bytes written as lower-case hex in JSON.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct HexBytes(pub Vec<u8>);

/// 16 bytes written as 32 lower-case hex digits: receipt ids, salts, boot ids.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hex16(pub [u8; 16]);

/// A digest written as base64 in JSON, as tlog-proof writes hashes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Base64Digest(pub Digest);

macro_rules! encoded {
    ($type:ident, $what:literal, $encode:expr, $decode:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$encode(self.0.as_ref()))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
                deserialize_str(from, $what, |text| $decode(text).map($type))
            }
        }
    };
}

encoded!(Base64Bytes, "base64", base64_encode, base64_decode);
encoded!(HexBytes, "lower-case hex", hex_encode, hex_decode);
encoded!(Hex16, "32 lower-case hex digits", hex_encode, hex_array);
encoded!(Base64Digest, "base64 of 32 bytes", base64_encode, |text| {
    base64_array(text).map(Digest)
});

macro_rules! debug_as_display {
    ($($type:ident)*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

debug_as_display!(Base64Bytes HexBytes Hex16);

/// Reads a string and converts it where it stands, without a copy when the reader has none.
pub(crate) fn deserialize_str<'de, D: Deserializer<'de>, T>(
    from: D,
    expected: &'static str,
    convert: impl Fn(&str) -> Result<T>,
) -> std::result::Result<T, D::Error> {
    struct Convert<F>(&'static str, F);

    impl<T, F: Fn(&str) -> Result<T>> Visitor<'_> for Convert<F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<T, E> {
            (self.1)(text).map_err(|error| {
                E::custom(format_args!(
                    "found {}, expected {}: {error}",
                    shown(text),
                    self.0
                ))
            })
        }
    }

    from.deserialize_str(Convert(expected, convert))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_printable_controls_a_terminal_or_turns_text_around() {
        assert_eq!(
            printable("a\u{1b}[2Jb\u{9b}31m\u{7f}\r\nc ä"),
            "a\\u{1b}[2Jb\\u{9b}31m\\u{7f}\\r\\nc ä"
        );
        assert_eq!(printable_lines("a\r\nb"), "a\\r\nb");
        // Unicode's Bidi_Control, all of it, and the two separators.
        let turns = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{2028}\u{2029}";
        for c in turns.chars() {
            let text = format!("gpj{c}exe");
            let expected = format!("gpj\\u{{{:x}}}exe", u32::from(c));
            assert_eq!(printable(&text), expected);
            assert_eq!(printable_lines(&text), expected);
        }
        let plain = "Grüße, 例え, עברית, \u{200d}\u{2027}\u{202f}";
        assert_eq!(printable(plain), plain);
    }
}
