//! Strict DER: the rules that tolerant X.509 readers leave out.
//!
//! A certificate is signed over its TBS bytes, but the outer structure is not signed at all; a
//! reader that tolerates several encodings of it makes evidence malleable. Everything here is
//! checked before any other reader sees the bytes (X.690 §10, §11).

use thiserror::Error;

/// Why bytes are not DER.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not DER at byte {offset}: {reason}")]
pub struct DerError {
    /// Offset from the start of the outermost element.
    pub offset: usize,
    /// Which rule is broken.
    pub reason: &'static str,
}

/// Deepest nesting: certificates need 9.
const DEEPEST: u32 = 16;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const IA5_STRING: u8 = 0x16;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const ENUMERATED: u8 = 0x0a;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SET: u8 = 0x31;

/// One element: tag, the whole encoding, the contents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) whole: &'a [u8],
    pub(crate) contents: &'a [u8],
    /// Offset of the contents from where reading began.
    at: usize,
}

/// Reads elements one after another; lengths are definite and minimal, tags have one byte.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, at: 0 }
    }

    fn inside(element: Element<'a>) -> Reader<'a> {
        Reader {
            rest: element.contents,
            at: element.at,
        }
    }

    fn error<T>(&self, reason: &'static str) -> Result<T, DerError> {
        Err(DerError {
            offset: self.at,
            reason,
        })
    }

    /// The next element, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Element<'a>>, DerError> {
        let Some((&tag, after_tag)) = self.rest.split_first() else {
            return Ok(None);
        };
        if tag & 0x1f == 0x1f {
            return self.error("a tag of more than one byte");
        }
        let Some((&first, after_first)) = after_tag.split_first() else {
            return self.error("no length");
        };
        let (length, header) = match first {
            0..=0x7f => (usize::from(first), 2),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let Some(bytes) = after_first.get(..count) else {
                    return self.error("a length that is cut off");
                };
                let length = bytes
                    .iter()
                    .fold(0_usize, |n, &b| (n << 8) | usize::from(b));
                if length < 0x80 || bytes.first() == Some(&0) {
                    return self.error("a length that is not minimal");
                }
                (length, 2 + count)
            }
            _ => return self.error("a length that is indefinite or absurd"),
        };
        let end = header.saturating_add(length);
        let (Some(whole), Some(rest)) = (self.rest.get(..end), self.rest.get(end..)) else {
            return self.error("contents that are cut off");
        };
        let contents = whole.get(header..).unwrap_or_default();
        let element = Element {
            tag,
            whole,
            contents,
            at: self.at + header,
        };
        self.rest = rest;
        self.at += end;
        Ok(Some(element))
    }

    /// The next element, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<Element<'a>, DerError> {
        let at = self.at;
        match self.next()? {
            Some(element) if element.tag == tag => Ok(element),
            Some(_) => Err(DerError {
                offset: at,
                reason: "another type than belongs here",
            }),
            None => Err(DerError {
                offset: at,
                reason: "an element is missing",
            }),
        }
    }

    /// The next element if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, DerError> {
        if self.rest.first() == Some(&tag) {
            self.next()
        } else {
            Ok(None)
        }
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), DerError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            self.error("bytes after the end")
        }
    }
}

impl<'a> Element<'a> {
    pub(crate) fn reader(self) -> Reader<'a> {
        Reader::inside(self)
    }
}

/// Checks that the bytes are exactly one element, strict DER all the way down, and returns it.
pub(crate) fn strict(bytes: &[u8]) -> Result<Element<'_>, DerError> {
    let mut reader = Reader::new(bytes);
    let Some(element) = reader.next()? else {
        return reader.error("nothing there");
    };
    reader.end()?;
    check(element, DEEPEST)?;
    Ok(element)
}

fn check(element: Element<'_>, depth: u32) -> Result<(), DerError> {
    let contents = element.contents;
    let fail = |reason| {
        Err(DerError {
            offset: element.at,
            reason,
        })
    };
    let constructed = element.tag & 0x20 != 0;
    let universal = element.tag & 0xc0 == 0;
    if universal && constructed != matches!(element.tag & 0x1f, 0x10 | 0x11) {
        // SEQUENCE (16) and SET (17) are, all the others are not (X.690 §8, §10.2).
        return fail("a type constructed that is not, or the other way round");
    }
    match element.tag {
        BOOLEAN if !matches!(contents, [0x00] | [0xff]) => fail("a BOOLEAN but 00 or ff"),
        INTEGER | ENUMERATED if !minimal_integer(contents) => fail("an INTEGER not minimal"),
        BIT_STRING if !clean_bits(contents) => fail("a BIT STRING with unused bits set"),
        NULL if !contents.is_empty() => fail("a NULL with contents"),
        OID if !minimal_oid(contents) => fail("an OBJECT IDENTIFIER not minimal"),
        UTC_TIME if !time_form(contents, 13) => fail("a UTCTime not YYMMDDHHMMSSZ"),
        GENERALIZED_TIME if !time_form(contents, 15) => {
            fail("a GeneralizedTime not YYYYMMDDHHMMSSZ")
        }
        _ if constructed => {
            let Some(depth) = depth.checked_sub(1) else {
                return fail("nested too deep");
            };
            let mut reader = element.reader();
            let mut before: &[u8] = &[];
            while let Some(inner) = reader.next()? {
                if element.tag == SET && inner.whole < before {
                    return fail("a SET out of order");
                }
                before = inner.whole;
                check(inner, depth)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Two's complement without a superfluous first byte (X.690 §8.3.2).
pub(crate) fn minimal_integer(contents: &[u8]) -> bool {
    match contents {
        [] => false,
        [0x00, second, ..] => second & 0x80 != 0,
        [0xff, second, ..] => second & 0x80 == 0,
        _ => true,
    }
}

/// At most seven unused bits, all of them zero, none without a byte that holds them (X.690 §11.2).
fn clean_bits(contents: &[u8]) -> bool {
    match contents {
        [0] => true,
        [unused @ 0..=7, .., last] => {
            let mask = (1_u16 << *unused) - 1;
            u16::from(*last) & mask == 0
        }
        _ => false,
    }
}

/// Each subidentifier minimal, the last one complete (X.690 §8.19.2).
fn minimal_oid(contents: &[u8]) -> bool {
    let ends = contents.last().is_some_and(|last| last & 0x80 == 0);
    let mut starts = true;
    let minimal = contents.iter().all(|&byte| {
        let fine = !(starts && byte == 0x80);
        starts = byte & 0x80 == 0;
        fine
    });
    ends && minimal
}

fn time_form(contents: &[u8], length: usize) -> bool {
    match contents.split_last() {
        Some((b'Z', digits)) => contents.len() == length && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_encoding_of_each_value() {
        let good: &[&[u8]] = &[
            &[0x30, 0x00],
            &[0x02, 0x01, 0x00],
            &[0x02, 0x02, 0x00, 0x80],
            &[0x02, 0x01, 0x80],
            &[0x01, 0x01, 0xff],
            &[0x03, 0x02, 0x01, 0x06],
            &[0x03, 0x01, 0x00],
            &[0x05, 0x00],
            &[0x06, 0x03, 0x55, 0x04, 0x03],
            &[0x31, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x02],
            &[0x80, 0x01, 0x00],
        ];
        for bytes in good {
            strict(bytes).unwrap_or_else(|e| panic!("{bytes:x?}: {e}"));
        }
        let bad: &[&[u8]] = &[
            &[],
            &[0x30],
            &[0x30, 0x00, 0x00],
            &[0x30, 0x80, 0x00, 0x00],
            &[0x30, 0x81, 0x00],
            &[0x30, 0x82, 0x00, 0x01, 0x00],
            &[0x04, 0x81, 0x01, 0x00],
            &[0x30, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x30, 0x03, 0x02, 0x02, 0x00],
            &[0x02, 0x00],
            &[0x02, 0x02, 0x00, 0x7f],
            &[0x02, 0x02, 0xff, 0x80],
            &[0x01, 0x01, 0x01],
            &[0x01, 0x02, 0xff, 0xff],
            &[0x03, 0x00],
            &[0x03, 0x01, 0x01],
            &[0x03, 0x02, 0x01, 0x07],
            &[0x03, 0x02, 0x08, 0x00],
            &[0x05, 0x01, 0x00],
            &[0x06, 0x00],
            &[0x06, 0x02, 0x80, 0x01],
            &[0x06, 0x01, 0x81],
            &[0x10, 0x00],
            &[0x24, 0x00],
            &[0x1f, 0x81, 0x01, 0x00],
            &[0x31, 0x06, 0x02, 0x01, 0x02, 0x02, 0x01, 0x01],
            &[0x17, 0x02, 0x30, 0x5a],
        ];
        for bytes in bad {
            assert!(strict(bytes).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut bytes = vec![0x30, 0x00];
        for _ in 0..DEEPEST {
            let mut outer = vec![0x30, u8::try_from(bytes.len()).unwrap()];
            outer.append(&mut bytes);
            bytes = outer;
        }
        assert!(strict(&bytes).is_err());
        assert!(strict(&bytes[2..]).is_ok());
    }
}
