//! The validator: one pass, no recursion, no allocation unless it finds something wrong.

use crate::limits::{MAX_DEPTH, MAX_INTEGER};
use crate::text::shown;
use crate::{FormatError, Result};
use std::str::Chars;

/// What stands open around the value being read.
#[derive(Clone, Copy)]
enum Open<'a> {
    Array,
    /// With the last key read, as written, without quotes.
    Object(Option<&'a str>),
}

/// As [`super::check`]; the value of the outermost object's member `view`, where one is named, may hold
/// booleans. Gives the bytes back as text.
pub(crate) fn check_with_view<'a>(bytes: &'a [u8], view: Option<&str>) -> Result<&'a str> {
    let text = std::str::from_utf8(bytes).map_err(|error| FormatError::Syntax {
        field: "json",
        offset: error.valid_up_to(),
        found: "bytes that are not UTF-8".into(),
        expected: "UTF-8",
    })?;
    let mut scanner = Scanner { text, at: 0 };
    let mut stack = [Open::Array; MAX_DEPTH];
    let mut depth = 0;
    let mut in_view = false;

    // Each turn reads one value, or opens one; then closes all that end here.
    'value: loop {
        match scanner.peek() {
            Some(b'{') | Some(b'[') => {
                let Some(slot) = stack.get_mut(depth) else {
                    return Err(scanner.error("one more level", "at most 16 levels of nesting"));
                };
                let object = scanner.peek() == Some(b'{');
                scanner.at += 1;
                depth += 1;
                let end = if object { b'}' } else { b']' };
                *slot = if object {
                    Open::Object(None)
                } else {
                    Open::Array
                };
                if scanner.peek() != Some(end) {
                    if object {
                        let key = next_key(&mut scanner, slot)?;
                        in_view = if depth == 1 {
                            view == Some(key)
                        } else {
                            in_view
                        };
                    }
                    continue 'value;
                }
                // Empty: closed below.
            }
            Some(b'"') => {
                scanner.string()?;
            }
            Some(b'-' | b'0'..=b'9') => scanner.number()?,
            Some(b'n') => scanner.literal("null")?,
            Some(b't') if in_view => scanner.literal("true")?,
            Some(b'f') if in_view => scanner.literal("false")?,
            _ => {
                return Err(scanner.unexpected(
                    "a string, an integer, an array, an object or null, without white space",
                ));
            }
        }
        loop {
            let Some(slot) = depth.checked_sub(1).and_then(|top| stack.get_mut(top)) else {
                if scanner.peek().is_some() {
                    return Err(scanner.unexpected("nothing after the end"));
                }
                return Ok(text);
            };
            let (end, expected) = match slot {
                Open::Array => (b']', "',' or ']'"),
                Open::Object(_) => (b'}', "',' or '}'"),
            };
            match scanner.peek() {
                Some(b',') => {
                    scanner.at += 1;
                    if matches!(slot, Open::Object(_)) {
                        let key = next_key(&mut scanner, slot)?;
                        in_view = if depth == 1 {
                            view == Some(key)
                        } else {
                            in_view
                        };
                    }
                    continue 'value;
                }
                Some(byte) if byte == end => {
                    scanner.at += 1;
                    depth -= 1;
                }
                _ => return Err(scanner.unexpected(expected)),
            }
        }
    }
}

/// Reads a key and its colon; gives the key as written.
fn next_key<'a>(scanner: &mut Scanner<'a>, slot: &mut Open<'a>) -> Result<&'a str> {
    let start = scanner.at;
    if scanner.peek() != Some(b'"') {
        return Err(scanner.unexpected("a member name"));
    }
    let key = scanner.string()?;
    if let Open::Object(Some(last)) = slot {
        let order = Unescaped::new(last)
            .utf16()
            .cmp(Unescaped::new(key).utf16());
        if order != std::cmp::Ordering::Less {
            return Err(FormatError::Syntax {
                field: "json",
                offset: start,
                found: format!("{} after {}", shown(key), shown(last)),
                expected: "members sorted by UTF-16 code units, each once",
            });
        }
    }
    *slot = Open::Object(Some(key));
    if scanner.peek() != Some(b':') {
        return Err(scanner.unexpected("':'"));
    }
    scanner.at += 1;
    Ok(key)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn error(&self, found: &str, expected: &'static str) -> FormatError {
        FormatError::Syntax {
            field: "json",
            offset: self.at,
            found: found.into(),
            expected,
        }
    }

    fn unexpected(&self, expected: &'static str) -> FormatError {
        let found = match self.rest().chars().next() {
            Some(c) => format!("{c:?}"),
            None => "the end".into(),
        };
        self.error(&found, expected)
    }

    fn literal(&mut self, literal: &'static str) -> Result<()> {
        if !self.rest().starts_with(literal) {
            return Err(self.unexpected(literal));
        }
        self.at += literal.len();
        Ok(())
    }

    /// Reads a string that starts here; gives what is between its quotes.
    fn string(&mut self) -> Result<&'a str> {
        self.at += 1;
        let start = self.at;
        loop {
            self.at += plain(self.rest().as_bytes());
            match self.peek() {
                Some(b'"') => {
                    let inside = self.text.get(start..self.at).unwrap_or("");
                    self.at += 1;
                    return Ok(inside);
                }
                Some(b'\\') => self.escape()?,
                Some(_) => {
                    return Err(self.unexpected("control characters escaped in strings"));
                }
                None => return Err(self.unexpected("'\"' at the end of the string")),
            }
        }
    }

    /// RFC 8785 §3.2.2.2: only what must be escaped is, in the shortest way, in lower case.
    fn escape(&mut self) -> Result<()> {
        const EXPECTED: &str = "an escape that must be one: \\b \\t \\n \\f \\r \\\" \\\\, \
                                or \\u00xx in lower case for other control characters";
        let length = match self.rest().as_bytes() {
            [b'\\', b'b' | b't' | b'n' | b'f' | b'r' | b'"' | b'\\', ..] => 2,
            [b'\\', b'u', b'0', b'0', high, low, ..] => match (high, low) {
                // \b \t \n \f \r have escapes of their own.
                (b'0', b'0'..=b'7' | b'b' | b'e' | b'f') => 6,
                (b'1', b'0'..=b'9' | b'a'..=b'f') => 6,
                _ => return Err(self.error(&self.shown_escape(), EXPECTED)),
            },
            _ => return Err(self.error(&self.shown_escape(), EXPECTED)),
        };
        self.at += length;
        Ok(())
    }

    fn shown_escape(&self) -> String {
        shown(&self.rest().chars().take(6).collect::<String>())
    }

    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        let length = rest
            .bytes()
            .take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .count();
        let number = rest.get(..length).unwrap_or("");
        if !is_integer(number) {
            return Err(self.error(
                &shown(number),
                "an integer within ±(2^53−1), without leading zero, fraction or exponent",
            ));
        }
        self.at += length;
        Ok(())
    }
}

/// How many bytes from the start stand for themselves in a string: all before a quote, a backslash or a control character.
pub(super) fn plain(bytes: &[u8]) -> usize {
    // Most of what we read is base64 in long strings: eight bytes at once.
    const EACH: u64 = u64::MAX / 255;
    /// Not 0 if, and only if, one of the eight is below `limit`, which is at most 128.
    fn any_below(eight: u64, limit: u64) -> u64 {
        eight.wrapping_sub(EACH * limit) & !eight & (EACH * 0x80)
    }
    let (words, _) = bytes.as_chunks::<8>();
    let plain = |word: &&[u8; 8]| {
        let eight = u64::from_le_bytes(**word);
        let quote = any_below(eight ^ (EACH * u64::from(b'"')), 1);
        let backslash = any_below(eight ^ (EACH * u64::from(b'\\')), 1);
        quote | backslash | any_below(eight, 0x20) == 0
    };
    let whole = words.iter().take_while(plain).count() * 8;
    let rest = bytes.get(whole..).unwrap_or_default().iter();
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    whole + rest.take_while(|byte| !special(byte)).count()
}

fn is_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    if number == "0" {
        return true;
    }
    !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits.parse::<u64>().is_ok_and(|n| n <= MAX_INTEGER)
}

/// The characters of a string that was checked, its escapes undone.
struct Unescaped<'a>(Chars<'a>);

/// A string that was checked, its escapes undone.
pub(super) fn unescape(inside: &str) -> String {
    let mut out = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some((before, escape)) = rest.find('\\').and_then(|at| rest.split_at_checked(at)) {
        out.push_str(before);
        let mut escape = Unescaped::new(escape);
        out.extend(escape.next());
        rest = escape.0.as_str();
    }
    out.push_str(rest);
    out
}

impl<'a> Unescaped<'a> {
    fn new(inside: &'a str) -> Self {
        Self(inside.chars())
    }

    fn utf16(self) -> impl Iterator<Item = u16> + use<'a> {
        self.flat_map(|c| {
            let mut units = [0; 2];
            let length = c.encode_utf16(&mut units).len();
            units.into_iter().take(length)
        })
    }
}

impl Iterator for Unescaped<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let c = self.0.next()?;
        if c != '\\' {
            return Some(c);
        }
        Some(match self.0.next()? {
            'b' => '\u{8}',
            't' => '\t',
            'n' => '\n',
            'f' => '\u{c}',
            'r' => '\r',
            'u' => {
                let mut code = 0;
                for _ in 0..4 {
                    code = code * 16 + self.0.next()?.to_digit(16)?;
                }
                char::from_u32(code)?
            }
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn what_stands_for_itself_ends_at_every_byte_that_does_not() {
        for other in [
            b'a', 0x20, 0x21, 0x23, 0x5b, 0x5d, 0x7f, 0x80, 0xa2, 0xdc, 0xff,
        ] {
            for special in (0..=0x1f).chain([b'"', b'\\']) {
                for at in 0..20 {
                    let mut bytes = [other; 20];
                    assert_eq!(plain(&bytes), 20);
                    bytes[at] = special;
                    assert_eq!(plain(&bytes), at, "{special:#x} among {other:#x}");
                }
            }
        }
    }
}
