//! A strict JSON reader that allocates nothing of its own.
//!
//! serde_json would round a decimal to f64 before it became an f32 (formats.md §4 wants it rounded
//! once), and would box what it does not know the shape of. This reader walks the text once; tensor
//! elements go straight from their decimal text into the tensor's bytes. RFC 8259, without
//! extensions: no byte order mark, no duplicate members (the callers see to that), nothing after
//! the end, at most [`MAX_DEPTH`] levels of nesting.

use std::borrow::Cow;

use super::ProtocolError;

/// Deepest nesting of arrays and objects (formats.md, conventions).
pub(super) const MAX_DEPTH: usize = 16;

/// Most members of an object: what the protocol defines is a handful, and looking for duplicates
/// compares each with each.
const MAX_MEMBERS: usize = 64;

/// Result of reading a piece of JSON.
pub(super) type Result<T> = std::result::Result<T, ProtocolError>;

/// A reading position in a JSON text. Cloning it marks a place to come back to.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    ///
    /// # Errors
    /// The bytes are not UTF-8.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self {
                text,
                at: 0,
                depth: 0,
            }),
            Err(e) => Err(ProtocolError::Malformed(format!(
                "the JSON is not UTF-8 from byte {}",
                e.valid_up_to()
            ))),
        }
    }

    /// Bytes not yet read.
    pub(super) fn remaining(&self) -> usize {
        self.text.len().saturating_sub(self.at)
    }

    /// An error at the present position.
    #[cold]
    pub(super) fn error(&self, expected: &str) -> ProtocolError {
        let found = match self.text.as_bytes().get(self.at) {
            None => "the end".to_owned(),
            Some(byte @ 0x21..=0x7e) => format!("'{}'", *byte as char),
            Some(byte) => format!("byte 0x{byte:02x}"),
        };
        ProtocolError::Malformed(format!(
            "JSON at byte {}: expected {expected}, found {found}",
            self.at
        ))
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips white space and shows the byte after it without reading it.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other,
            }
        }
    }

    /// Reads `byte` if it is next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn expect(&mut self, byte: u8, what: &str) -> Result<()> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("the end")),
        }
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ProtocolError::Malformed(format!(
                "JSON at byte {}: nested deeper than {MAX_DEPTH} levels",
                self.at
            )));
        }
        Ok(())
    }

    /// Reads an object and hands each member's name to `member`, which reads its value. A name that
    /// is there twice is an error: parsers differ in which of the two they believe.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<()>,
    ) -> Result<()> {
        self.expect(b'{', "an object")?;
        self.enter()?;
        if !self.take(b'}') {
            let mut names: Vec<Cow<'a, str>> = Vec::new();
            loop {
                let name = self.string()?;
                if names.contains(&name) {
                    return Err(duplicate(&name));
                }
                if names.len() == MAX_MEMBERS {
                    return Err(self.error("no more members of this object"));
                }
                self.expect(b':', "':'")?;
                member(self, &name)?;
                names.push(name);
                if self.take(b',') {
                    continue;
                }
                self.expect(b'}', "',' or '}'")?;
                break;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads an array; `element` reads each of its values.
    #[inline]
    pub(super) fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.expect(b'[', "an array")?;
        self.enter()?;
        if !self.take(b']') {
            loop {
                element(self)?;
                if self.take(b',') {
                    continue;
                }
                self.expect(b']', "',' or ']'")?;
                break;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads `null` if it is next.
    pub(super) fn null(&mut self) -> Result<bool> {
        if self.peek() == Some(b'n') {
            self.literal("null")?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Reads `true` or `false`.
    #[inline]
    pub(super) fn boolean(&mut self) -> Result<bool> {
        match self.peek() {
            Some(b't') => self.literal("true").map(|()| true),
            Some(b'f') => self.literal("false").map(|()| false),
            _ => Err(self.error("true or false")),
        }
    }

    fn literal(&mut self, word: &'static str) -> Result<()> {
        match self.text.as_bytes().get(self.at..) {
            Some(rest) if rest.starts_with(word.as_bytes()) => {
                self.at += word.len();
                Ok(())
            }
            _ => Err(self.error(word)),
        }
    }

    /// Reads a number and gives its decimal text, which keeps to RFC 8259's grammar.
    #[inline]
    pub(super) fn number(&mut self) -> Result<Number<'a>> {
        self.peek();
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => {
                self.at = start;
                return Err(self.error("a number"));
            }
        }
        let mut integer = true;
        if self.byte() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        // A number ends only where JSON lets it end: `01` and `1x` are no numbers.
        match self.byte() {
            None | Some(b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t') => {}
            Some(_) => return Err(self.error("the end of a number")),
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        Ok(Number { text, integer })
    }

    #[inline]
    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<()> {
        let start = self.at;
        self.digits();
        if self.at == start {
            Err(self.error("a digit"))
        } else {
            Ok(())
        }
    }

    /// Reads a string; it is copied only if it holds escapes.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        loop {
            match self.byte() {
                Some(b'"') => {
                    let text = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(Cow::Borrowed(text));
                }
                Some(b'\\') => break,
                Some(0..=0x1f) | None => return Err(self.error("a character of a string")),
                Some(_) => self.at += 1,
            }
        }
        self.escaped_string(start).map(Cow::Owned)
    }

    #[cold]
    fn escaped_string(&mut self, start: usize) -> Result<String> {
        // Escapes only ever shrink, so the string's own length bounds the copy.
        let mut text = self.text.get(start..self.at).unwrap_or_default().to_owned();
        loop {
            let run = self.at;
            while let Some(byte) = self.byte() {
                if matches!(byte, b'"' | b'\\' | 0..=0x1f) {
                    break;
                }
                self.at += 1;
            }
            text.push_str(self.text.get(run..self.at).unwrap_or_default());
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                _ => return Err(self.error("a character of a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let Some(byte) = self.byte() else {
            return Err(self.error("an escape"));
        };
        let simple = match byte {
            b'"' | b'\\' | b'/' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.error("an escape")),
        };
        self.at += 1;
        Ok(simple)
    }

    fn unicode_escape(&mut self) -> Result<char> {
        let first = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            if self.byte() != Some(b'\\') {
                return Err(self.error("the second half of a surrogate pair"));
            }
            self.at += 1;
            if self.byte() != Some(b'u') {
                return Err(self.error("the second half of a surrogate pair"));
            }
            self.at += 1;
            let second = self.hex4()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.error("no lone surrogate"));
            }
            0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.error("no lone surrogate"))
    }

    fn hex4(&mut self) -> Result<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|byte| (byte as char).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.error("four hex digits"));
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    /// Reads any value and forgets it; it is checked like everything else.
    pub(super) fn skip(&mut self) -> Result<()> {
        match self.peek() {
            Some(b'{') => self.object(|reader, _| reader.skip()),
            Some(b'[') => self.array(Self::skip),
            Some(b'"') => self.string().map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            Some(b'n') => self.literal("null"),
            _ => self.number().map(drop),
        }
    }
}

/// A number as it was written.
#[derive(Clone, Copy)]
pub(super) struct Number<'a> {
    /// Its text.
    pub(super) text: &'a str,
    /// Whether it has neither fraction nor exponent.
    pub(super) integer: bool,
}

/// Two members of one object with one name.
#[cold]
fn duplicate(name: &str) -> ProtocolError {
    ProtocolError::Malformed(format!("member {:?} is there twice", shorten(name)))
}

/// The first 128 bytes of what a caller wrote, for error messages.
pub(super) fn shorten(text: &str) -> String {
    match text
        .char_indices()
        .find(|(index, c)| index + c.len_utf8() > 128)
    {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
