//! Header fields that belong to one connection and are not relayed (RFC 9110 §7.6.1). All others pass
//! as they are, duplicates and letter case included.

use hyper::{
    header::{
        CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
    http::response::Parts,
};

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

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

/// Bytes that an error shows of what a `Connection` field names.
const SHOWN: usize = 64;

fn is_end_to_end(option: &HeaderName) -> bool {
    let option = option.as_str();
    END_TO_END.contains(&option) || END_TO_END_LIKE.iter().any(|like| option.starts_with(like))
}

/// Takes out what belongs to the connection. The error is what a `Connection` field must not name: an end-to-end
/// field, or something that is no name.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) -> Result<(), String> {
    if headers.contains_key(CONNECTION) {
        let options: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
        headers.remove(CONNECTION);
        for option in options
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            // Empty elements of lists mean nothing (RFC 9110 §5.6.1).
            .filter(|option| !option.is_empty())
        {
            let name = HeaderName::from_bytes(option).ok();
            let Some(name) = name.filter(|name| !is_end_to_end(name)) else {
                let shown = option.get(..SHOWN).unwrap_or(option);
                return Err(shown.to_ascii_lowercase().escape_ascii().to_string());
            };
            // `close` and `keep-alive` are no fields, or handled below; `trailer` announces what
            // follows the body and must not be lost on the way.
            if name != TRAILER {
                headers.remove(name);
            }
        }
    }
    for name in [
        &TRANSFER_ENCODING,
        &TE,
        &UPGRADE,
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
    ] {
        headers.remove(name);
    }
    Ok(())
}

/// Whether an answer says in one way where it ends: one `Content-Length` of digits, or chunks and nothing else, or no
/// body (`empty`). An answer that ends with its connection could be half of one, as an enclave that is killed closes it too;
/// and passed on without its coding a body would be another one.
pub(super) fn is_framed(head: &Parts, empty: bool) -> bool {
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), codings.next()) {
        (None, None) => empty,
        (Some(length), None) => {
            let length = length.as_bytes();
            lengths.next().is_none() && !length.is_empty() && length.iter().all(u8::is_ascii_digit)
        }
        (None, Some(coding)) => {
            codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        }
        (Some(_), Some(_)) => false,
    }
}

/// The fields that `Trailer` announces: those alone can be relayed after a body.
pub(super) fn announced_trailers(headers: &HeaderMap) -> Vec<HeaderName> {
    let fields = headers.get_all(TRAILER).iter();
    fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        map
    }

    #[test]
    fn connection_fields_go_and_nothing_else() {
        let mut headers = map(&[
            ("host", "a"),
            ("connection", "X-One, keep-alive"),
            ("connection", "x-two"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("x-three", "33"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x-four"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-connection", "close"),
            ("touchstone", "require=(signed)"),
        ]);
        strip_hop_by_hop(&mut headers).unwrap();
        let left = map(&[
            ("host", "a"),
            ("x-three", "3"),
            ("x-three", "33"),
            ("trailer", "x-four"),
            ("touchstone", "require=(signed)"),
        ]);
        assert_eq!(headers, left);
    }

    #[test]
    fn end_to_end_fields_cannot_be_named_away() {
        let named = |option: &str| {
            let mut headers = map(&[("connection", "close")]);
            let list = HeaderValue::from_str(&format!("foo,, {option}\t")).unwrap();
            headers.append(CONNECTION, list);
            strip_hop_by_hop(&mut headers)
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
        for nothing in ["a b", "(touchstone)", "touchstone;x"] {
            assert_eq!(named(nothing), Err(nothing.to_owned()));
        }
    }
}
