//! What frames an inference request, so that no header outside the request digest changes its
//! meaning (formats.md §4), and reading its body within bounds.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap,
    body::{Body, Incoming},
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING},
};

use crate::{
    admission::{Held, Share},
    problem::Problem,
};

/// Length of the JSON part of a body in the binary extension.
pub(super) const HEADER_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

/// Most bytes of a body that are read to no end but the connection's, and the longest time for them.
const REST: usize = 64 << 10;
const REST_TIME: Duration = Duration::from_millis(10);

/// Reads what frames the body: its Inference-Header-Content-Length, if it has one.
///
/// # Errors
/// 415 for a content type or encoding that is not the protocol's, 400 for anything ambiguous.
pub(super) fn header_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        return Err(bad("Content-Length beside Transfer-Encoding is refused"));
    }
    identity(headers)?;
    let length = match single(headers, &HEADER_LENGTH, "Inference-Header-Content-Length")? {
        None => None,
        Some(digits) => Some(canonical(digits).ok_or_else(|| {
            bad("Inference-Header-Content-Length must be a decimal number without sign, space or leading zero")
        })?),
    };
    let content_type = single(headers, &CONTENT_TYPE, "Content-Type")?;
    let expected = if length.is_some() {
        "application/octet-stream"
    } else {
        "application/json"
    };
    // None at all is what some clients send; it says nothing that could differ.
    if content_type.is_some_and(|found| !is_type(found, expected)) {
        return Err(Problem::new(
            415,
            "Content-Type not supported",
            format!(
                "expected Content-Type: {expected} {} Inference-Header-Content-Length",
                if length.is_some() { "with" } else { "without" }
            ),
        ));
    }
    Ok(length)
}

/// Refuses a body that is encoded.
///
/// # Errors
/// 415
pub(super) fn identity(headers: &HeaderMap) -> Result<(), Problem> {
    let encoding = single(headers, &CONTENT_ENCODING, "Content-Encoding")?;
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(Problem::new(
            415,
            "Content-Encoding not supported",
            "send the body without a Content-Encoding: its bytes are what the receipt is about",
        ));
    }
    Ok(())
}

/// The one value of a header; repeating it is refused.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(bad(format!("{shown} is given more than once")));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| bad(format!("{shown} holds bytes that are not ASCII")))
}

/// A decimal number in its one spelling.
fn canonical(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    digits.parse().ok()
}

/// Whether a Content-Type is this one. JSON is UTF-8, so saying so changes nothing.
fn is_type(found: &str, expected: &str) -> bool {
    if found.eq_ignore_ascii_case(expected) {
        return true;
    }
    let Some((kind, parameter)) = found.split_once(';') else {
        return false;
    };
    expected == "application/json"
        && kind.trim_end().eq_ignore_ascii_case(expected)
        && parameter.trim_start().eq_ignore_ascii_case("charset=utf-8")
}

/// A request's body.
pub(super) enum RequestBody {
    /// Still to be read.
    Unread(Incoming),
    /// Read: it came sealed. With its share of what all requests may hold.
    Read(Bytes, Share),
}

/// Reads a whole body; gives it with the share that it takes of what all requests may hold. `body` is then
/// empty: nothing is left to be read.
///
/// # Errors
/// 413 beyond `limit` (before anything is read, if Content-Length says so), 503 when all requests
/// together hold more than `held` allows, 408 when it takes too long, 400 for trailers and for a
/// body that breaks off.
pub(super) async fn whole_body(
    body: &mut Option<RequestBody>,
    limit: usize,
    held: &Arc<Held>,
    time: Duration,
) -> Result<(Bytes, Share), Problem> {
    let incoming = match body {
        Some(RequestBody::Unread(incoming)) => incoming,
        Some(RequestBody::Read(bytes, _)) if bytes.len() > limit => return Err(too_large(limit)),
        _ => {
            return match body.take() {
                Some(RequestBody::Read(bytes, share)) => Ok((bytes, share)),
                _ => Err(bad("the body was read before")),
            };
        }
    };
    let declared = incoming.size_hint().exact();
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    match tokio::time::timeout(time, collect(incoming, limit, held)).await {
        Ok(collected) => {
            let whole = collected?;
            *body = None;
            Ok(whole)
        }
        Err(_) => Err(Problem::new(
            408,
            "Request too slow",
            "the body did not come in time",
        )),
    }
}

async fn collect(
    body: &mut Incoming,
    limit: usize,
    held: &Arc<Held>,
) -> Result<(Bytes, Share), Problem> {
    let mut share = held.share();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| bad(format!("the body cannot be read: {error}")))?;
        let Ok(data) = frame.into_data() else {
            return Err(bad(
                "trailers are refused: they are outside the request digest",
            ));
        };
        if share.bytes() + data.len() > limit {
            return Err(too_large(limit));
        }
        if !share.take(data.len()) {
            return Err(Problem::unavailable(
                "Too much at once",
                "too many bytes of requests are held",
                1,
            ));
        }
        if first.is_empty() {
            // Most bodies come in one piece, which is then not copied.
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    let whole = if rest.is_empty() {
        first
    } else {
        rest.freeze()
    };
    Ok((whole, share))
}

/// Reads what is left of a body that nobody wants, if it is small and on its way already. False if it is
/// not: then the connection cannot be used for another request.
pub(super) async fn discard(mut body: Incoming) -> bool {
    let rest = async {
        let mut left = REST;
        while let Some(frame) = body.frame().await {
            let length = frame.ok()?.data_ref().map_or(0, Bytes::len);
            left = left.checked_sub(length)?;
        }
        Some(())
    };
    tokio::time::timeout(REST_TIME, rest).await == Ok(Some(()))
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        413,
        "Request too large",
        format!("a request body may have {limit} bytes"),
    )
}

pub(super) fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(400, "Bad request", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(pairs: &[(&'static str, &'static str)]) -> Result<Option<u64>, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        header_length(&headers).map_err(|problem| problem.status)
    }

    const LENGTH: &str = "inference-header-content-length";

    #[test]
    fn framing_that_stands() {
        assert_eq!(framed(&[]), Ok(None));
        assert_eq!(framed(&[("content-type", "application/json")]), Ok(None));
        assert_eq!(
            framed(&[("content-type", "Application/JSON; charset=UTF-8")]),
            Ok(None)
        );
        assert_eq!(framed(&[("content-encoding", "identity")]), Ok(None));
        assert_eq!(framed(&[(LENGTH, "0")]), Ok(Some(0)));
        assert_eq!(
            framed(&[(LENGTH, "17"), ("content-type", "application/octet-stream")]),
            Ok(Some(17))
        );
    }

    #[test]
    fn framing_that_is_refused() {
        for (pairs, status) in [
            (vec![("content-encoding", "gzip")], 415),
            (vec![("content-encoding", "")], 415),
            (
                vec![
                    ("content-encoding", "identity"),
                    ("content-encoding", "identity"),
                ],
                400,
            ),
            (vec![("content-type", "application/octet-stream")], 415),
            (vec![("content-type", "text/plain")], 415),
            (
                vec![("content-type", "application/json; charset=latin1")],
                415,
            ),
            (vec![("content-type", "application/json;")], 415),
            (
                vec![
                    ("content-type", "application/json"),
                    ("content-type", "application/json"),
                ],
                400,
            ),
            (
                vec![(LENGTH, "17"), ("content-type", "application/json")],
                415,
            ),
            (vec![(LENGTH, "17"), (LENGTH, "17")], 400),
            (vec![(LENGTH, "017")], 400),
            (vec![(LENGTH, "+17")], 400),
            (vec![(LENGTH, "-1")], 400),
            (vec![(LENGTH, "1 ")], 400),
            (vec![(LENGTH, "")], 400),
            (vec![(LENGTH, "0x11")], 400),
            (vec![(LENGTH, "17,17")], 400),
            (vec![(LENGTH, "18446744073709551616")], 400),
            (
                vec![("content-length", "1"), ("transfer-encoding", "chunked")],
                400,
            ),
        ] {
            assert_eq!(framed(&pairs), Err(status), "{pairs:?}");
        }
    }
}
