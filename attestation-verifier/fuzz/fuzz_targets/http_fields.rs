//! The fields of a head that the host passes on (`host/src/relay/fields.rs`): they are those that another reader finds, and what
//! belongs to the connection goes, all of it and nothing else.
#![no_main]

use fields::{Fields, hop_by_hop};
use httparse::EMPTY_HEADER;
use libfuzzer_sys::fuzz_target;
use touchstone_fuzz::http::{self, FIELDS, Kind, strict::Found};

// The file alone: the host itself would bring its store and its runtime along.
#[path = "../../../host/src/relay/fields.rs"]
mod fields;

/// What belongs to a connection, named or not (RFC 9110 §7.6.1).
const OF_CONNECTIONS: [&str; 5] = [
    "connection",
    "te",
    "upgrade",
    "keep-alive",
    "proxy-connection",
];
/// Some of what nobody may have taken out: names, and what names begin with.
const KEPT: [&str; 5] = [
    "host",
    "transfer-encoding",
    "authorization",
    "expect",
    "prefer",
];
const KEPT_LIKE: [&str; 4] = ["content-", "touchstone", "inference-", "accept"];

fuzz_target!(|input: &[u8]| {
    any_bytes(input);
    for kind in [Kind::Requests, Kind::Answers { to_head: false }] {
        if let (length, Found::Head(_)) = kind.reader().next(input) {
            head(kind, input, length);
        }
    }
});

/// Whatever the bytes are: nobody panics, and what was to go is gone.
fn any_bytes(input: &[u8]) {
    let fields = Fields::of(input);
    assert!(input.starts_with(fields.first_line()));
    let _ = fields.to_map();
    let Ok(hop) = hop_by_hop(fields) else {
        return;
    };
    let mut message = input.to_vec();
    let gone = hop.strip(&mut message);
    assert_eq!(message.len() + gone, input.len());
    for name in OF_CONNECTIONS {
        assert_eq!(Fields::of(&message).first(name), None);
    }
    // Of another message than it was found in.
    hop.strip(&mut input[..input.len() / 2].to_vec());
}

/// A head that the host takes, and what follows it.
fn head(kind: Kind, input: &[u8], length: usize) {
    let (head, body) = input.split_at(length);
    let fields = Fields::of(head);
    let line = head.split_inclusive(|byte| *byte == b'\n').next();
    let line = line.expect("a first line");
    assert_eq!(fields.first_line(), line.strip_suffix(b"\r\n").unwrap());

    let mut places = [EMPTY_HEADER; FIELDS];
    let (end, found) = http::fields(&head[line.len()..], &mut places).expect("a whole head");
    assert_eq!(line.len() + end, length);
    let map = fields.to_map().expect("fields");
    assert_eq!(map.len(), found.len());
    let mut connection = Vec::new();
    for field in found {
        let of_name = found.iter().filter(|other| is(other.name, field.name));
        let values: Vec<_> = of_name.map(|other| other.value).collect();
        assert!(fields.all(field.name).eq(values.iter().copied()));
        assert_eq!(fields.first(field.name), values.first().copied());
        let in_map = map.get_all(field.name).iter();
        assert!(in_map.map(|value| value.as_bytes()).eq(values));
        if is(field.name, "connection") {
            let options = field.value.split(|byte| *byte == b',');
            connection.extend(options.map(|option| option.trim_ascii().to_ascii_lowercase()));
        }
    }
    connection.retain(|option| !option.is_empty());

    let is_kept = |option: &[u8]| {
        KEPT.iter().any(|name| option == name.as_bytes())
            || KEPT_LIKE
                .iter()
                .any(|like| option.starts_with(like.as_bytes()))
    };
    let hop = match hop_by_hop(fields) {
        Ok(hop) => hop,
        Err(named) => {
            let named = named.as_bytes();
            let mut shown = connection.iter().map(|option| option.escape_ascii());
            assert!(shown.any(|option| option.to_string().as_bytes().starts_with(named)));
            return;
        }
    };
    assert!(!connection.iter().any(|option| is_kept(option)));
    assert_eq!(
        hop.closes,
        connection.iter().any(|option| option == b"close")
    );

    // What is left, line by line. What `Trailer` announces follows the body all the same.
    let mut left = line.to_vec();
    let lines = head[line.len()..].split_inclusive(|byte| *byte == b'\n');
    for (line, field) in lines.zip(found) {
        assert!(line.starts_with(field.name.as_bytes()));
        let name = field.name.to_ascii_lowercase();
        let named = connection.iter().any(|option| option == name.as_bytes());
        if !OF_CONNECTIONS.contains(&&*name) && (!named || name == "trailer") {
            left.extend_from_slice(line);
        }
    }
    left.extend_from_slice(b"\r\n");
    let mut message = input.to_vec();
    let gone = hop.strip(&mut message);
    assert_eq!(gone, length - left.len());
    assert_eq!(message.split_at(left.len()), (&left[..], body));

    // And it says the same of what follows it.
    let said = kind.reader().next(input).1;
    assert_eq!(kind.reader().next(&message), (left.len(), said));
    assert_eq!(hop_by_hop(Fields::of(&left)), Ok(fields::Hop::default()));
}

fn is(name: &str, other: &str) -> bool {
    name.eq_ignore_ascii_case(other)
}
