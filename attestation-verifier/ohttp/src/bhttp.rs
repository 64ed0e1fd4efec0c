//! Binary HTTP (RFC 9292): a message as one string of bytes, without anything that could be read in two ways.
//!
//! Read: requests of known and of indeterminate length, answers of known length; with the end left off and padded, as
//! RFC 9292 §3.8 has it. Written: known length. Nothing is copied but the content of requests that came in chunks.

use bytes::{Buf, Bytes};

/// What a reader takes, at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Header fields.
    pub fields: usize,
    /// Bytes of names and values together.
    pub field_bytes: usize,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// It ends within something.
    #[error("it is cut off")]
    Truncated,
    /// Another kind of message than was expected.
    #[error("framing indicator {0}")]
    Framing(u64),
    /// Something but zeros after its end.
    #[error("padding that is not zero")]
    Padding,
    /// Trailer fields.
    #[error("trailers are refused: nothing covers them")]
    Trailers,
    /// A status that is none of an answer's end.
    #[error("status {0}")]
    Status(u64),
    /// More header fields, or longer ones, than are read.
    #[error("too many header fields, or too long ones")]
    Fields,
}

/// Names and values, in their order.
pub type Fields = Vec<(Bytes, Bytes)>;

/// A request. What its parts may hold is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: Bytes,
    /// Scheme.
    pub scheme: Bytes,
    /// Authority; empty where the `host` field has it.
    pub authority: Bytes,
    /// Path and query.
    pub path: Bytes,
    /// Header fields.
    pub fields: Fields,
    /// Content.
    pub content: Bytes,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status, 200 to 599.
    pub status: u16,
    /// Header fields.
    pub fields: Fields,
    /// Content.
    pub content: Bytes,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Malformed`]
    pub fn decode(message: Bytes, bounds: Bounds) -> Result<Self, Malformed> {
        let mut rest = Reader(message);
        let framing = rest.number()?;
        if !matches!(framing, 0 | 2) {
            return Err(Malformed::Framing(framing));
        }
        let (method, scheme) = (rest.counted()?, rest.counted()?);
        let (authority, path) = (rest.counted()?, rest.counted()?);
        let (fields, content) = match framing {
            0 => rest.known(bounds)?,
            _ => rest.indeterminate(bounds)?,
        };
        Ok(Self {
            method,
            scheme,
            authority,
            path,
            fields,
            content,
        })
    }

    /// Writes the request, of known length.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.content.len().saturating_add(512));
        number(&mut out, 0);
        for part in [&self.method, &self.scheme, &self.authority, &self.path] {
            counted(&mut out, part);
        }
        finish(out, pairs(&self.fields), &self.content)
    }
}

impl Answer {
    /// Reads an answer of known length.
    ///
    /// # Errors
    /// [`Malformed`]; so is an answer that others come before (status 1xx).
    pub fn decode(message: Bytes, bounds: Bounds) -> Result<Self, Malformed> {
        let mut rest = Reader(message);
        let framing = rest.number()?;
        if framing != 1 {
            return Err(Malformed::Framing(framing));
        }
        let found = rest.number()?;
        let status = u16::try_from(found)
            .ok()
            .filter(|n| (200..=599).contains(n));
        let status = status.ok_or(Malformed::Status(found))?;
        let (fields, content) = rest.known(bounds)?;
        Ok(Self {
            status,
            fields,
            content,
        })
    }

    /// Writes an answer, of known length.
    pub fn encode<'a>(
        status: u16,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        content: &[u8],
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(content.len().saturating_add(1024));
        number(&mut out, 1);
        number(&mut out, status.into());
        finish(out, fields, content)
    }
}

fn pairs(fields: &Fields) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields.iter().map(|(name, value)| (&name[..], &value[..]))
}

/// Header section, content, and an empty trailer section.
fn finish<'a>(
    mut out: Vec<u8>,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    content: &[u8],
) -> Vec<u8> {
    let mut section = Vec::with_capacity(512);
    for (name, value) in fields {
        counted(&mut section, name);
        counted(&mut section, value);
    }
    counted(&mut out, &section);
    counted(&mut out, content);
    number(&mut out, 0);
    out
}

/// A number of variable length (RFC 9000 §16), in its shortest form.
fn number(out: &mut Vec<u8>, n: u64) {
    // Nothing here is as long as 2^62.
    let [.., b3, b2, b1, b0] = n.to_be_bytes();
    match n {
        0..=0x3f => out.push(b0),
        0x40..=0x3fff => out.extend_from_slice(&[0x40 | b1, b0]),
        0x4000..=0x3fff_ffff => out.extend_from_slice(&[0x80 | b3, b2, b1, b0]),
        _ => out.extend_from_slice(&(n | 0xc0 << 56).to_be_bytes()),
    }
}

fn counted(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a number of variable length, in whatever form.
fn read_number(from: &mut &[u8]) -> Result<u64, Malformed> {
    let first = *from.first().ok_or(Malformed::Truncated)?;
    let (number, rest) = from
        .split_at_checked(1 << (first >> 6))
        .ok_or(Malformed::Truncated)?;
    *from = rest;
    let more = number.iter().skip(1);
    Ok(more.fold(u64::from(first & 0x3f), |n, byte| n << 8 | u64::from(*byte)))
}

struct Reader(Bytes);

impl Reader {
    fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        match length <= self.0.len() {
            true => Ok(self.0.split_to(length)),
            false => Err(Malformed::Truncated),
        }
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut rest = &self.0[..];
        let number = read_number(&mut rest)?;
        let length = self.0.len().saturating_sub(rest.len());
        self.0.advance(length);
        Ok(number)
    }

    fn counted(&mut self) -> Result<Bytes, Malformed> {
        let length = self.number()?;
        self.take(usize::try_from(length).map_err(|_| Malformed::Truncated)?)
    }

    /// What a message of known length may leave off at its end: sections that are empty.
    fn counted_or_end(&mut self) -> Result<Bytes, Malformed> {
        match self.0.is_empty() {
            true => Ok(Bytes::new()),
            false => self.counted(),
        }
    }

    fn known(&mut self, bounds: Bounds) -> Result<(Fields, Bytes), Malformed> {
        let section = self.counted_or_end()?;
        if section.len() > bounds.field_bytes {
            return Err(Malformed::Fields);
        }
        let mut section = Reader(section);
        let mut fields = Fields::new();
        while !section.0.is_empty() {
            let field = (section.counted()?, section.counted()?);
            if fields.len() >= bounds.fields {
                return Err(Malformed::Fields);
            }
            fields.push(field);
        }
        let content = self.counted_or_end()?;
        if !self.counted_or_end()?.is_empty() {
            return Err(Malformed::Trailers);
        }
        self.padding()?;
        Ok((fields, content))
    }

    fn indeterminate(&mut self, bounds: Bounds) -> Result<(Fields, Bytes), Malformed> {
        let mut fields = Fields::new();
        let mut bytes = 0usize;
        loop {
            let name = self.counted_or_end()?;
            if name.is_empty() {
                break;
            }
            let value = self.counted()?;
            bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
            if fields.len() >= bounds.fields || bytes > bounds.field_bytes {
                return Err(Malformed::Fields);
            }
            fields.push((name, value));
        }
        let content = self.chunks()?;
        if !self.counted_or_end()?.is_empty() {
            return Err(Malformed::Trailers);
        }
        self.padding()?;
        Ok((fields, content))
    }

    /// The content of a message of indeterminate length. A chunk may be a byte: each costs what its bytes cost to copy, and
    /// nothing of its own.
    fn chunks(&mut self) -> Result<Bytes, Malformed> {
        let first = self.counted_or_end()?;
        if first.is_empty() {
            return Ok(first);
        }
        let mut rest = &self.0[..];
        let mut joined = Vec::new();
        while !rest.is_empty() {
            let length = read_number(&mut rest)?;
            if length == 0 {
                break;
            }
            let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
            let (chunk, after) = rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(chunk);
            rest = after;
        }
        let length = self.0.len().saturating_sub(rest.len());
        self.0.advance(length);
        Ok(match joined.is_empty() {
            true => first,
            false => joined.into(),
        })
    }

    fn padding(&self) -> Result<(), Malformed> {
        match self.0.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(Malformed::Padding),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        fields: 4,
        field_bytes: 64,
    };

    fn decode(hex: &str) -> Result<Request, Malformed> {
        Request::decode(hex::decode(hex).unwrap().into(), BOUNDS)
    }

    fn request() -> Request {
        Request {
            method: "POST".into(),
            scheme: "https".into(),
            authority: "a".into(),
            path: "/x".into(),
            fields: vec![("k".into(), "v".into()), ("k".into(), "".into())],
            content: "body".into(),
        }
    }

    #[test]
    fn the_example_of_rfc_9458() {
        // The end is left off: no header fields, no content.
        let read = decode("00034745540568747470730b6578616d706c652e636f6d012f").unwrap();
        assert_eq!((&read.method[..], &read.path[..]), (&b"GET"[..], &b"/"[..]));
        assert_eq!(&read.authority[..], b"example.com");
        assert!(read.fields.is_empty() && read.content.is_empty());
        // 200 in two bytes.
        let answer = Answer::decode(Bytes::from_static(&[1, 0x40, 0xc8]), BOUNDS).unwrap();
        assert_eq!(answer.status, 200);
    }

    /// RFC 9292, figure 13 and 14: one request in both forms.
    #[test]
    fn the_examples_of_rfc_9292() {
        let known = "0003474554056874747073000a2f68656c6c6f2e747874406c0a757365722d6167656e74346375726c2f372e31362e33206c69626375726c2f372e31362e33204f70656e53534c2f302e392e376c207a6c69622f312e322e3304686f73740f7777772e6578616d706c652e636f6d0f6163636570742d6c616e677561676506656e2c206d690000";
        let indeterminate = "0203474554056874747073000a2f68656c6c6f2e7478740a757365722d6167656e74346375726c2f372e31362e33206c69626375726c2f372e31362e33204f70656e53534c2f302e392e376c207a6c69622f312e322e3304686f73740f7777772e6578616d706c652e636f6d0f6163636570742d6c616e677561676506656e2c206d6900000000000000000000";
        let wide = Bounds {
            field_bytes: 256,
            ..BOUNDS
        };
        let read = |hex| Request::decode(hex::decode(hex).unwrap().into(), wide).unwrap();
        assert_eq!(read(known), read(indeterminate));
        assert_eq!(
            read(known).fields[1],
            ("host".into(), "www.example.com".into())
        );
        assert_eq!(hex::encode(read(known).encode()), known);
    }

    #[test]
    fn messages_read_back_and_cut_ones_do_not() {
        let request = request();
        let whole = request.encode();
        let read = |bytes: &[u8]| Request::decode(Bytes::copy_from_slice(bytes), BOUNDS);
        assert_eq!(read(&whole), Ok(request.clone()));
        let padded = [&whole[..], &[0; 9]].concat();
        assert_eq!(read(&padded), Ok(request.clone()));
        for cut in 0..whole.len() {
            let shorter = read(&whole[..cut]);
            // Without its trailer section it is the same; without content and header it is one that has none.
            let sections = match whole.len() - cut {
                1 => request.content.len(),
                6 => 0,
                _ if cut == whole.len() - 14 => 0,
                _ => {
                    assert_eq!(shorter, Err(Malformed::Truncated), "{cut}");
                    continue;
                }
            };
            assert_eq!(shorter.unwrap().content.len(), sections, "{cut}");
        }
        let answer = Answer::encode(503, pairs(&request.fields), b"late");
        let read = Answer::decode(answer.into(), BOUNDS).unwrap();
        assert_eq!((read.status, &read.content[..]), (503, &b"late"[..]));
        assert_eq!(read.fields, request.fields);
    }

    #[test]
    fn chunks_are_joined() {
        let head = "0204504f5354056874747073016102 2f78 016b0176 00".replace(' ', "");
        let read = decode(&format!("{head}02626f0264790000")).unwrap();
        assert_eq!((&read.content[..], read.fields.len()), (&b"body"[..], 1));
        assert_eq!(decode(&head).unwrap().content, "");
        assert_eq!(decode(&format!("{head}02626f")).unwrap().content, "bo");
        assert_eq!(
            decode(&format!("{head}02626f03")),
            Err(Malformed::Truncated)
        );
    }

    #[test]
    fn what_is_refused() {
        let head = "0004504f53540568747470730161022f78";
        assert!(decode(head).is_ok());
        for (tail, expected) in [
            ("04016b0276", Malformed::Truncated),
            ("02016b", Malformed::Truncated),
            ("ffffffffffffffff", Malformed::Truncated),
            ("00ffffffffffffffff00", Malformed::Truncated),
            ("0000016b", Malformed::Trailers),
            ("000004016b0176", Malformed::Trailers),
            ("00000001", Malformed::Padding),
            ("000000000000ff", Malformed::Padding),
            ("04016b0176000001", Malformed::Padding),
        ] {
            assert_eq!(decode(&format!("{head}{tail}")), Err(expected), "{tail}");
        }
        assert_eq!(decode("01"), Err(Malformed::Framing(1)));
        assert_eq!(decode("03"), Err(Malformed::Framing(3)));
        assert_eq!(decode(""), Err(Malformed::Truncated));
        let answer = |bytes: &'static [u8]| Answer::decode(Bytes::from_static(bytes), BOUNDS);
        assert_eq!(answer(&[1, 0x40, 100]).unwrap_err(), Malformed::Status(100));
        assert_eq!(
            answer(&[1, 0x42, 0x58]).unwrap_err(),
            Malformed::Status(600)
        );
        assert_eq!(answer(&[0]).unwrap_err(), Malformed::Framing(0));
        assert_eq!(answer(&[3]).unwrap_err(), Malformed::Framing(3));
    }

    #[test]
    fn header_fields_are_bounded() {
        let with = |count: usize, value: usize| {
            let field = (Bytes::from_static(b"k"), Bytes::from(vec![b'v'; value]));
            let mut request = request();
            request.fields = vec![field; count];
            let known = Request::decode(request.encode().into(), BOUNDS).is_ok();
            let mut chunked = vec![2];
            for part in [
                &request.method,
                &request.scheme,
                &request.authority,
                &request.path,
            ] {
                counted(&mut chunked, part);
            }
            for (name, value) in &request.fields {
                counted(&mut chunked, name);
                counted(&mut chunked, value);
            }
            let chunked = Request::decode(chunked.into(), BOUNDS).is_ok();
            (known, chunked)
        };
        assert_eq!(with(4, 10), (true, true));
        assert_eq!(with(5, 1), (false, false));
        assert_eq!(with(1, 65), (false, false));
    }

    #[test]
    fn numbers_have_four_lengths() {
        for n in [
            0,
            63,
            64,
            0x3fff,
            0x4000,
            0x3fff_ffff,
            0x4000_0000,
            (1 << 62) - 1,
        ] {
            let mut out = Vec::new();
            number(&mut out, n);
            assert_eq!(Reader(out.into()).number(), Ok(n));
        }
    }
}
