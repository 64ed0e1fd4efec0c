//! HTTP/1.1 in two readings: the host's own, byte by byte (`host/src/relay/strict.rs`), and that of httparse with as much
//! framing as RFC 9112 §6 and §7.1 need. What the host finds good both read alike, however it is cut.

use std::iter::once;
use std::ops::Range;

use httparse::{EMPTY_HEADER, Header, Request, Response, Status};
use strict::{Found, Framing, Head, Strict, Violation};

// The file alone: the host itself would bring its store and its runtime along.
#[path = "../../../host/src/relay/strict.rs"]
pub mod strict;

/// Most fields of a head, for either reader.
pub const FIELDS: usize = 128;
/// What may follow in its turn, and must not be read any more behind a violation.
const NEXT: [&[u8]; 2] = [
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
];

/// Whose messages they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Requests,
    Answers { to_head: bool },
}

impl Kind {
    /// The host's reader.
    pub fn reader(self) -> Strict {
        match self {
            Self::Requests => Strict::requests(FIELDS),
            Self::Answers { to_head } => Strict::answers(to_head, FIELDS),
        }
    }
}

/// A message as far as it came, each place counted from the first byte of all.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    /// Where its head ends, and what that says.
    head: usize,
    said: Head,
    /// Where its body stands: each piece is as long as can be, so that cuts leave no trace.
    data: Vec<Range<usize>>,
    end: Option<usize>,
}

impl Message {
    fn of(head: usize, said: Head) -> Self {
        Self {
            head,
            said,
            data: Vec::new(),
            end: (said.framing == Framing::None).then_some(head),
        }
    }

    fn data(&mut self, piece: Range<usize>) {
        match self.data.last_mut() {
            Some(last) if last.end == piece.start => last.end = piece.end,
            _ if piece.is_empty() => {}
            _ => self.data.push(piece),
        }
    }
}

/// Fails where the host's reader contradicts itself or the other one. `cut` says where the input is cut.
pub fn read_alike(kind: Kind, cut: u8, input: &[u8]) {
    let (messages, good, broken) = read(kind, input, once(input.len()));
    assert_eq!(broken.is_none(), good == input.len());
    let cut_up = read(kind, input, ends(cut, input.len()));
    assert_eq!(cut_up, (messages, good, broken), "as it is cut");
    let (messages, ..) = cut_up;

    // Who asks for no parts.
    let mut strict = kind.reader();
    let mut followed = 0;
    for end in ends(cut, input.len()) {
        followed += strict.follow(&input[followed..end]);
        if followed < end {
            break;
        }
    }
    assert_eq!((followed, strict.broken()), (good, broken));

    let mut begin = 0;
    for message in &messages {
        let other = other(kind, &input[..good], begin);
        assert_eq!(Some(message), other.as_ref());
        let Some(end) = message.end else { return };
        begin = end;
    }
    assert_eq!(other(kind, &input[..good], begin), None);
}

/// Where pieces of some bytes end, each of one more than the one before it or of as many.
fn ends(cut: u8, length: usize) -> impl Iterator<Item = usize> {
    let grows = usize::from(cut & 0x40 == 0);
    let mut piece = usize::from(cut % 0x40) + 1;
    let mut end = 0;
    std::iter::from_fn(move || {
        if end >= length {
            return None;
        }
        end = (end + piece).min(length);
        piece += grows;
        Some(end)
    })
}

/// As the host reads what comes in until each of `ends`: the messages, how many bytes are good, and what the next one breaks.
fn read(
    kind: Kind,
    input: &[u8],
    ends: impl Iterator<Item = usize>,
) -> (Vec<Message>, usize, Option<Violation>) {
    let mut strict = kind.reader();
    let mut messages: Vec<Message> = Vec::new();
    let mut at = 0;
    for end in ends {
        loop {
            let begin = at;
            let (count, found) = strict.next(&input[at..end]);
            at += count;
            assert!(at <= end, "it takes more than there is");
            let last = messages.last_mut();
            let open = last.filter(|message| message.end.is_none());
            match found {
                Found::More if at == end => break,
                Found::More => assert!(count > 0, "it stands still"),
                Found::Head(said) => {
                    assert!(open.is_none(), "a head in a body");
                    messages.push(Message::of(at, said));
                }
                Found::Data => {
                    assert!(count > 0, "it stands still");
                    open.expect("data of a message").data(begin..at);
                }
                Found::End => open.expect("the end of a message").end = Some(at),
                Found::Broken(violation) => {
                    for next in NEXT {
                        assert_eq!(strict.next(next), (0, Found::Broken(violation)));
                        assert_eq!(strict.follow(next), 0);
                    }
                    return (messages, at, Some(violation));
                }
            }
        }
    }
    assert_eq!(strict.broken(), None);
    (messages, at, None)
}

/// The fields of a head or of trailers as httparse finds them in bytes that the host's reader has found good, and how many bytes
/// they take. `None`: they go on.
pub fn fields<'a, 'h>(
    bytes: &'a [u8],
    places: &'h mut [Header<'a>; FIELDS],
) -> Option<(usize, &'h [Header<'a>])> {
    match httparse::parse_headers(bytes, places).expect("fields") {
        Status::Complete(found) => Some(found),
        Status::Partial => None,
    }
}

/// The message that begins at a place, as httparse reads what is good. `None`: its head goes on.
fn other(kind: Kind, good: &[u8], begin: usize) -> Option<Message> {
    let bytes = &good[begin..];
    let line = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let mut places = [EMPTY_HEADER; FIELDS];
    let (length, fields) = fields(&bytes[line..], &mut places)?;
    let head = line + length;
    // Those take `_` for `-` who give fields to programs as variables: they must not find another length.
    let named = |name: &str| {
        let fields = fields.iter();
        let of = fields.filter(|field| field.name.replace('_', "-").eq_ignore_ascii_case(name));
        let values = of.map(|field| {
            assert!(!field.name.contains('_'), "{}", field.name);
            field.value
        });
        values.collect::<Vec<_>>()
    };
    let is_1_1 = bytes[..line].ends_with(b"HTTP/1.1\r\n");
    let (lengths, codings) = (named("content-length"), named("transfer-encoding"));
    let said = match (&lengths[..], &codings[..]) {
        ([], []) => None,
        ([length], []) => {
            assert!(!length.is_empty() && length.iter().all(u8::is_ascii_digit));
            let length = str::from_utf8(length).expect("digits");
            Some(match length.parse().expect("a number") {
                0 => Framing::None,
                length => Framing::Length(length),
            })
        }
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked"));
            Some(Framing::Chunked)
        }
        _ => panic!("two lengths"),
    };
    let mut places = [EMPTY_HEADER; FIELDS];
    let said = match kind {
        Kind::Requests => {
            let hosts = named("host").len();
            assert!(hosts == 1 || (hosts == 0 && !is_1_1));
            assert!(is_1_1 || said != Some(Framing::Chunked));
            assert!(said.is_none() || !bytes.starts_with(b"CONNECT "));
            let parts: Vec<_> = bytes[..line].split(|byte| *byte == b' ').collect();
            assert!(parts.len() == 3 && parts.iter().all(|part| !part.is_empty()));
            let mut request = Request::new(&mut places);
            match request.parse(bytes) {
                Ok(parsed) => {
                    assert_eq!(parsed, Status::Complete(head));
                    assert_eq!(request.version, Some(u8::from(is_1_1)));
                }
                // Of methods and targets it takes less, which the host refuses elsewhere.
                Err(error) => assert_eq!(error, httparse::Error::Token),
            }
            Head {
                framing: said.unwrap_or(Framing::None),
                is_1_1,
                status: 0,
            }
        }
        Kind::Answers { to_head } => {
            let mut response = Response::new(&mut places);
            assert_eq!(response.parse(bytes), Ok(Status::Complete(head)));
            assert_eq!(response.version, Some(1));
            let status = response.code.expect("a status");
            let framing = match status {
                100..=199 | 204 => {
                    assert!(matches!(said, None | Some(Framing::None)));
                    Framing::None
                }
                304 => Framing::None,
                _ if to_head => Framing::None,
                _ => said.expect("a length"),
            };
            Head {
                framing,
                is_1_1: true,
                status,
            }
        }
    };
    let mut message = Message::of(begin + head, said);
    match said.framing {
        Framing::None => {}
        Framing::Length(length) => {
            message.end = piece(&mut message, good.len(), begin + head, length);
        }
        Framing::Chunked => message.end = chunks(&mut message, good),
    }
    Some(message)
}

/// A piece of a body that begins at a place. Gives where it ends, if it has come whole.
fn piece(message: &mut Message, came: usize, begin: usize, length: u64) -> Option<usize> {
    let end = usize::try_from(length).ok()?.checked_add(begin)?;
    message.data(begin..end.min(came));
    (end <= came).then_some(end)
}

/// A chunked body. Gives where its trailers end.
fn chunks(message: &mut Message, good: &[u8]) -> Option<usize> {
    let mut at = message.head;
    loop {
        let rest = &good[at..];
        let Status::Complete((line, size)) = httparse::parse_chunk_size(rest).expect("a size")
        else {
            return None;
        };
        let digits = rest[..line].strip_suffix(b"\r\n").expect("a line");
        assert!(!digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit));
        at += line;
        if size == 0 {
            break;
        }
        at = piece(message, good.len(), at, size)?;
        let after = good[at..].iter().zip(b"\r\n");
        assert!(after.clone().all(|(byte, expected)| byte == expected));
        at += 2;
        if after.count() < 2 {
            return None;
        }
    }
    let mut places = [EMPTY_HEADER; FIELDS];
    let (length, trailers) = fields(&good[at..], &mut places)?;
    for trailer in trailers {
        let name = trailer.name.replace('_', "-").to_ascii_lowercase();
        assert!(!["content-length", "transfer-encoding", "host", "connection"].contains(&&*name));
        assert!(!name.starts_with("touchstone"), "{name} in a trailer");
    }
    Some(at + length)
}
