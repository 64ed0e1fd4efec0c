//! What callers send to the host before anything else reads it (`host/src/relay/strict.rs`): however it is cut it is read the
//! same, and where another reader finds the end of a message, there it ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strict::Strict;

// The file alone: the host itself would bring its store and its runtime along.
#[allow(dead_code, reason = "what it says of a violation is for people")]
#[path = "../../../host/src/relay/strict.rs"]
mod strict;

/// Messages whose ends are looked at: each is read again from the beginning.
const ENDS: usize = 16;
/// Most fields of a head.
const FIELDS: usize = 128;
/// A request that nobody reads in two ways, and then what begins none.
const NEXT: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const NONE: &[u8] = b"\n";

fuzz_target!(|input: &[u8]| {
    let Some((cut, input)) = input.split_first() else {
        return;
    };
    let mut whole = reader();
    let good = whole.follow(input);
    assert!(good <= input.len() && (good < input.len()) == whole.broken().is_some());
    assert_eq!(whole.follow(&[]), 0);

    // In pieces of some bytes, and of one more each time.
    let mut cut_up = reader();
    let (mut found, mut piece) = (0, usize::from(*cut) % 64);
    while found < input.len() && cut_up.broken().is_none() {
        piece += 1;
        let end = (found + piece).min(input.len());
        found += cut_up.follow(&input[found..end]);
    }
    assert_eq!((found, cut_up.broken()), (good, whole.broken()));
    if whole.broken().is_some() {
        assert_eq!(whole.follow(NEXT), 0);
    }

    let mut at = 0;
    for _ in 0..ENDS {
        let Some(length) = message(&input[at..good]) else {
            return;
        };
        at += length;
        // What comes then can only be a request line, and is its first byte.
        for (next, after) in [(NEXT, NONE), (b"", b" ")] {
            let mut upto = reader();
            assert_eq!(upto.follow(&input[..at]), at);
            assert_eq!(upto.follow(next), next.len(), "it ends elsewhere");
            assert_eq!(upto.follow(after), 0, "it ends elsewhere");
        }
    }
});

/// One that takes as many fields as the other reader.
fn reader() -> Strict {
    Strict::requests(FIELDS)
}

/// How long the first message is, as another reader finds it; `None`: it is none to that reader, or goes on.
fn message(bytes: &[u8]) -> Option<usize> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        _ => return None,
    };
    let named = |name: &str| {
        let fields = request.headers.iter();
        let of = fields.filter(|field| field.name.eq_ignore_ascii_case(name));
        of.map(|field| field.value.trim_ascii()).collect::<Vec<_>>()
    };
    let (lengths, codings) = (named("content-length"), named("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "two lengths");
    assert!(named("host").len() <= 1 && (request.version == Some(0) || !named("host").is_empty()));
    if let [coding] = codings[..] {
        assert!(coding.eq_ignore_ascii_case(b"chunked"));
        return Some(head + chunks(&bytes[head..])?);
    }
    let body = match lengths[..] {
        [length] => {
            assert!(!length.is_empty() && length.iter().all(u8::is_ascii_digit));
            std::str::from_utf8(length).ok()?.parse::<usize>().ok()?
        }
        _ => 0,
    };
    let end = head.checked_add(body)?;
    (end <= bytes.len()).then_some(end)
}

/// How long a chunked body is, with its trailers.
fn chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let httparse::Status::Complete((line, size)) =
            httparse::parse_chunk_size(&bytes[at..]).ok()?
        else {
            return None;
        };
        at += line;
        if size == 0 {
            break;
        }
        at = at.checked_add(usize::try_from(size).ok()?)?;
        assert!(bytes.len() < at + 2 || &bytes[at..at + 2] == b"\r\n");
        at += 2;
        if at > bytes.len() {
            return None;
        }
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    match httparse::parse_headers(&bytes[at..], &mut fields) {
        Ok(httparse::Status::Complete((trailers, _))) => Some(at + trailers),
        _ => None,
    }
}
