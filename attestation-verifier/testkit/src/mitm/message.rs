//! HTTP/1.1 messages, read and written just well enough to lie in them.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest head: bytes.
const MAX_HEAD: usize = 64 << 10;
/// Longest body: bytes.
const MAX_BODY: usize = 64 << 20;

/// A request or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Request line or status line.
    pub(super) start: String,
    /// Header fields in order, names in lower case.
    pub(super) headers: Vec<(String, String)>,
    /// The body after transfer decoding.
    pub(super) body: Vec<u8>,
}

impl Message {
    /// An answer of this status with a JSON body.
    pub(super) fn answer(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let headers = vec![("content-type".into(), content_type.into())];
        Self {
            start: format!("HTTP/1.1 {status} -"),
            headers,
            body,
        }
    }

    /// A problem document, which also ends the connection.
    pub(super) fn problem(status: u16, why: &str) -> Self {
        let body = serde_json::json!({"type": "about:blank", "title": "No", "status": status, "detail": why, "error": why});
        Self::answer(
            status,
            "application/problem+json",
            body.to_string().into_bytes(),
        )
    }

    /// Method and target of a request.
    pub(super) fn request(&self) -> (&str, &str) {
        let mut words = self.start.split(' ');
        (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        )
    }

    /// The status of an answer; 0 when there is none.
    pub(super) fn status(&self) -> u16 {
        let word = self.start.split(' ').nth(1);
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// The first header field of this name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Replaces a header field.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.into(), value.into()));
    }

    /// The bytes, with the body's length in the head.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            if name != "content-length" && name != "transfer-encoding" {
                head += &format!("{name}: {value}\r\n");
            }
        }
        head += &format!("content-length: {}\r\n\r\n", self.body.len());
        [head.as_bytes(), &self.body].concat()
    }

    /// Reads the next message; `None` at the end of the stream. `rest` holds what was read of the one after it.
    pub(super) async fn read(
        stream: &mut (impl AsyncRead + Unpin),
        rest: &mut Vec<u8>,
    ) -> io::Result<Option<Self>> {
        loop {
            if let Some((message, length)) = parse(rest)? {
                rest.drain(..length);
                return Ok(Some(message));
            }
            if stream.read_buf(rest).await? == 0 {
                return match rest.is_empty() {
                    true => Ok(None),
                    false => Err(bad("the stream ends inside a message")),
                };
            }
        }
    }
}

/// The first message in `bytes` and its length there; `None` when it is not whole.
pub(super) fn parse(bytes: &[u8]) -> io::Result<Option<(Message, usize)>> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return match bytes.len() > MAX_HEAD {
            true => Err(bad("too long a head")),
            false => Ok(None),
        };
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| bad("a head that is no text"))?;
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let fields = lines.filter_map(|line| line.split_once(':'));
    let headers: Vec<(String, String)> = fields
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut message = Message {
        start,
        headers,
        body: Vec::new(),
    };
    let from = end + 4;
    if message
        .header("transfer-encoding")
        .is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
    {
        let Some((body, length)) = dechunk(&bytes[from..])? else {
            return Ok(None);
        };
        message.body = body;
        return Ok(Some((message, from + length)));
    }
    let length = match message.header("content-length") {
        Some(text) => text.parse().map_err(|_| bad("no length"))?,
        None => 0usize,
    };
    if length > MAX_BODY {
        return Err(bad("too long a body"));
    }
    let Some(body) = bytes.get(from..from + length) else {
        return Ok(None);
    };
    message.body = body.to_vec();
    Ok(Some((message, from + length)))
}

/// A chunked body and its length on the wire. Trailers are refused.
fn dechunk(bytes: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        let Some(line) = rest.windows(2).position(|w| w == b"\r\n") else {
            return Ok(None);
        };
        let size = std::str::from_utf8(&rest[..line]).unwrap_or_default();
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| bad("no chunk size"))?;
        if body.len() + size.min(MAX_BODY) >= MAX_BODY {
            return Err(bad("too long a body"));
        }
        let from = line + 2;
        let Some(chunk) = rest.get(from..from + size + 2) else {
            return Ok(None);
        };
        if !chunk.ends_with(b"\r\n") {
            return Err(bad("a chunk that does not end"));
        }
        body.extend_from_slice(&chunk[..size]);
        at += from + size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("HTTP: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_in_pieces_and_written_with_their_length() {
        let wire = b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3\r\n yo\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        let first = wire.len() - 18;
        for length in 0..first {
            assert!(parse(&wire[..length]).unwrap().is_none(), "{length}");
        }
        let (message, length) = parse(wire).unwrap().unwrap();
        assert_eq!((message.body.as_slice(), length), (&b"hi yo"[..], first));
        assert_eq!(message.request(), ("POST", "/x"));
        let (next, _) = parse(&wire[length..]).unwrap().unwrap();
        assert_eq!(next.request(), ("GET", "/"));
        assert_eq!(
            message.to_bytes(),
            b"POST /x HTTP/1.1\r\ncontent-length: 5\r\n\r\nhi yo"
        );
        for bad in [
            "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(&vec![b'x'; MAX_HEAD + 1]).is_err());
    }
}
