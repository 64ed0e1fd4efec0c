//! The fields of a head, read where they stand.
//!
//! Heads pass as the bytes they came as, so that nothing is lost and nothing is said in other words. What a host has to
//! know of them is looked up here; what belongs to one connection alone is taken out ([`hop_by_hop`], RFC 9110 §7.6.1). All
//! other fields pass as they are, duplicates, order and letter case included.

use std::ops::Range;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Fields that shape what a request or answer means, how long it is, or for whom it is. A `Connection` field that
/// names one asks the relay to change the message on its way; that is refused.
const END_TO_END: [&str; 13] = [
    "authorization",
    "cache-control",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "origin",
    "prefer",
    "range",
    "retry-after",
    "set-cookie",
    "transfer-encoding",
];
/// As much, of all names that begin so.
const END_TO_END_LIKE: [&str; 7] = [
    "accept",
    "access-control-",
    "content-",
    "if-",
    "inference-",
    "touchstone",
    "x-forwarded-",
];
/// What belongs to a connection. How the body is framed does too, and yet passes: its framing goes on with it, byte by byte.
const CONNECTION: &str = "connection";
const OF_CONNECTIONS: [&str; 5] = [
    CONNECTION,
    "te",
    "upgrade",
    "keep-alive",
    "proxy-connection",
];

/// Most that a message may name in `Connection` fields: each is looked for among all of its fields.
const OPTIONS: usize = 100;
/// Bytes that an error shows of what a `Connection` field names.
const SHOWN: usize = 64;

/// The fields of a head that `strict` has found good.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    head: &'a [u8],
    /// Where the first of them begins.
    first: usize,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line<'a> {
    /// Where it stands in the head, with its line end.
    at: Range<usize>,
    name: &'a [u8],
    /// Without white space around it.
    value: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Of a head from its first byte to the end of its empty line.
    pub fn of(head: &'a [u8]) -> Self {
        let end = memchr::memchr(b'\n', head);
        let first = end.map_or(head.len(), |end| end.saturating_add(1));
        Self { head, first }
    }

    /// The first line, without its end.
    pub fn first_line(self) -> &'a [u8] {
        let line = self.head.get(..self.first).unwrap_or_default();
        line.strip_suffix(b"\r\n").unwrap_or(line)
    }

    fn lines(self) -> impl Iterator<Item = Line<'a>> {
        let mut begin = self.first;
        std::iter::from_fn(move || {
            let rest = self.head.get(begin..)?;
            let end = memchr::memchr(b'\n', rest)?;
            let line = rest.get(..end)?;
            // The empty line has no colon.
            let colon = memchr::memchr(b':', line)?;
            let at = begin..begin.checked_add(end)?.checked_add(1)?;
            begin = at.end;
            let (name, value) = line.split_at_checked(colon)?;
            let value = value.get(1..)?.trim_ascii();
            Some(Line { at, name, value })
        })
    }

    /// The values of all fields of a name, as they stand.
    pub fn all(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let of_name = move |line: &Line| line.name.eq_ignore_ascii_case(name.as_bytes());
        self.lines().filter(of_name).map(|line| line.value)
    }

    /// The value of the first field of a name.
    pub fn first(self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// All of them, for whoever reads more than one or two. `None`: one that cannot be, which `strict` lets nobody send.
    pub fn to_map(self) -> Option<HeaderMap> {
        let mut map = HeaderMap::new();
        for line in self.lines() {
            let name = HeaderName::from_bytes(line.name).ok()?;
            let value = HeaderValue::from_bytes(line.value).ok()?;
            map.try_append(name, value).ok()?;
        }
        Some(map)
    }
}

/// What of a head belongs to the connection that it came by.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// The lines, as they stand.
    lines: Vec<Range<usize>>,
    /// Nothing follows this message on its connection.
    pub closes: bool,
}

impl Hop {
    /// Takes them out of the head that they were found in, which stands at the beginning of `message`. Gives how many bytes
    /// shorter that is.
    pub fn strip(&self, message: &mut Vec<u8>) -> usize {
        let before = message.len();
        for line in self.lines.iter().rev() {
            if line.end <= message.len() {
                message.drain(line.clone());
            }
        }
        before.saturating_sub(message.len())
    }
}

fn is(name: &[u8], of: &str) -> bool {
    name.eq_ignore_ascii_case(of.as_bytes())
}

fn is_end_to_end(option: &[u8]) -> bool {
    let begins = |like: &&str| {
        let begin = option.get(..like.len());
        begin.is_some_and(|begin| is(begin, like))
    };
    END_TO_END.iter().any(|name| is(option, name)) || END_TO_END_LIKE.iter().any(begins)
}

/// Finds what belongs to the connection.
///
/// # Errors
/// What a `Connection` field must not name: an end-to-end field, something that is no name, or too much.
pub fn hop_by_hop(fields: Fields<'_>) -> Result<Hop, String> {
    let mut hop = Hop::default();
    let of_connections = |line: &Line<'_>| OF_CONNECTIONS.iter().any(|name| is(line.name, name));
    // A field that `Connection` names may stand before it.
    let mut named = Vec::new();
    let mut count = 0_usize;
    for line in fields.lines().filter(of_connections) {
        if is(line.name, CONNECTION) {
            let options = line.value.split(|byte| *byte == b',');
            for option in options.map(<[u8]>::trim_ascii) {
                // Empty elements of lists mean nothing (RFC 9110 §5.6.1).
                if option.is_empty() {
                    continue;
                }
                count = count.saturating_add(1);
                if count > OPTIONS {
                    return Err(format!("more than {OPTIONS} options"));
                }
                if HeaderName::from_bytes(option).is_err() || is_end_to_end(option) {
                    let shown = option.get(..SHOWN).unwrap_or(option);
                    return Err(shown.to_ascii_lowercase().escape_ascii().to_string());
                }
                hop.closes |= is(option, "close");
                // `trailer` announces what follows the body and must not be lost on the way; the others are gone anyway.
                if !is(option, "trailer") && !OF_CONNECTIONS.iter().any(|name| is(option, name)) {
                    named.push(option);
                }
            }
        }
        hop.lines.push(line.at);
    }
    let is_named = |line: &Line<'_>| {
        let mut named = named.iter();
        named.any(|option| line.name.eq_ignore_ascii_case(option))
    };
    if !named.is_empty() {
        let lines = fields.lines();
        hop.lines = lines
            .filter(|line| of_connections(line) || is_named(line))
            .map(|line| line.at)
            .collect();
    }
    Ok(hop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "GET / HTTP/1.1\r\nHost: a\r\nX-One:1\r\nEmpty:\r\nx-one: \t2 \r\n\r\n";

    #[test]
    fn fields_are_read_where_they_stand() {
        let fields = Fields::of(HEAD.as_bytes());
        assert_eq!(fields.first_line(), b"GET / HTTP/1.1");
        assert_eq!(fields.first("HOST"), Some(&b"a"[..]));
        assert_eq!(fields.first("empty"), Some(&b""[..]));
        assert_eq!(fields.first("x"), None);
        let all: Vec<_> = fields.all("x-one").collect();
        assert_eq!(all, [b"1", b"2"]);
        let map = fields.to_map().unwrap();
        assert_eq!((map.len(), map.get_all("x-one").iter().count()), (4, 2));
        // What is no head has no fields, and nobody panics.
        for none in ["", "\n", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n\r\n"] {
            assert_eq!(Fields::of(none.as_bytes()).lines().count(), 0);
        }
    }

    fn stripped(lines: &[&str]) -> Result<(String, bool), String> {
        let mut message = b"HTTP/1.1 200 OK\r\n".to_vec();
        for line in lines {
            message.extend_from_slice(line.as_bytes());
            message.extend_from_slice(b"\r\n");
        }
        message.extend_from_slice(b"\r\nbody");
        let before = message.len();
        let hop = hop_by_hop(Fields::of(&message))?;
        let gone = hop.strip(&mut message);
        assert_eq!(message.len() + gone, before);
        Ok((String::from_utf8(message).unwrap(), hop.closes))
    }

    #[test]
    fn connection_fields_go_and_nothing_else() {
        let (left, closes) = stripped(&[
            "Host: a",
            "X-One: 1",
            "Connection: x-ONE, keep-alive",
            "connection: x-two,, trailer",
            "X-Two: 2",
            "x-Three: 3",
            "X-three:33",
            "Keep-Alive: timeout=5",
            "TE: trailers",
            "Trailer: x-four",
            "Transfer-Encoding: chunked",
            "Upgrade: h2c",
            "Proxy-Connection: close",
            "Touchstone: require=(signed)",
        ])
        .unwrap();
        assert_eq!(
            left,
            "HTTP/1.1 200 OK\r\nHost: a\r\nx-Three: 3\r\nX-three:33\r\nTrailer: x-four\r\nTransfer-Encoding: chunked\r\n\
             Touchstone: require=(signed)\r\n\r\nbody"
        );
        assert!(!closes);
        let (left, closes) = stripped(&["X: 1", "Connection: Keep-Alive, CLOSE"]).unwrap();
        assert_eq!(left, "HTTP/1.1 200 OK\r\nX: 1\r\n\r\nbody");
        assert!(closes);
        let plain = ["X: 1", "Y: 2"];
        assert_eq!(
            stripped(&plain).unwrap().0,
            "HTTP/1.1 200 OK\r\nX: 1\r\nY: 2\r\n\r\nbody"
        );
    }

    #[test]
    fn end_to_end_fields_cannot_be_named_away() {
        let named = |option: &str| {
            let list = format!("Connection: foo,, {option}\t");
            stripped(&["Connection: close", &list]).map(|(_, closes)| assert!(closes))
        };
        for name in END_TO_END.into_iter().chain([
            "accept",
            "access-control-request-method",
            "content-length",
            "content-type",
            "content-digest",
            "if-none-match",
            "inference-header-content-length",
            "touchstone",
            "touchstone-keyset",
            "touchstone-openings",
            "x-forwarded-for",
        ]) {
            assert_eq!(named(&name.to_uppercase()), Err(name.to_owned()));
        }
        for other in [
            "x-acceptable",
            "te",
            "http2-settings",
            "keep-alive",
            "trailer",
        ] {
            assert_eq!(named(other), Ok(()));
        }
        // As many as are of use to anybody, in however many fields.
        let many = |count: usize| {
            stripped(&[
                "Connection: close",
                &format!("Connection: {}", "a,,".repeat(count)),
            ])
        };
        assert!(many(OPTIONS - 1).is_ok());
        assert_eq!(many(OPTIONS), Err(format!("more than {OPTIONS} options")));
        for nothing in ["a b", "(touchstone)", "touchstone;x"] {
            assert_eq!(named(nothing), Err(nothing.to_owned()));
        }
    }
}
