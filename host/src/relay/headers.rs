//! Header fields that belong to one connection and are not relayed (RFC 9110 §7.6.1). All others pass
//! as they are, duplicates and letter case included.

use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that shape what a request or answer means, or how long it is. A `Connection` field that
/// names one asks the relay to change the message on its way; that is refused.
const END_TO_END: [&str; 12] = [
    "accept",
    "authorization",
    "content-digest",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "inference-header-content-length",
    "origin",
    "prefer",
    "touchstone",
    "touchstone-openings",
];

/// Takes out what belongs to the connection. The error is the end-to-end field that a `Connection`
/// field named.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) -> Result<(), &'static str> {
    if headers.contains_key(CONNECTION) {
        let options: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
        headers.remove(CONNECTION);
        for option in options
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','))
        {
            let option = option.trim();
            if let Some(field) = END_TO_END
                .iter()
                .find(|field| field.eq_ignore_ascii_case(option))
            {
                return Err(field);
            }
            // `close` and `keep-alive` are no fields, or handled below; `trailer` announces what
            // follows the body and must not be lost on the way.
            if !option.eq_ignore_ascii_case(TRAILER.as_str()) {
                headers.remove(option);
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
        for name in END_TO_END {
            let mut headers = map(&[("connection", "close")]);
            headers.append(
                CONNECTION,
                HeaderValue::from_str(&format!("foo, {}", name.to_uppercase())).unwrap(),
            );
            assert_eq!(strip_hop_by_hop(&mut headers), Err(name));
        }
    }
}
