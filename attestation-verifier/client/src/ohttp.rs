//! Requests that are sealed to the enclave's key, by way of a host that reads none of them (Oblivious HTTP, formats.md §13).
//!
//! What comes back outside the seal is nobody's word. Of it this takes that there is no answer, and never one.

use bytes::Bytes;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use touchstone_formats::Keyset;
use touchstone_formats::session::OHTTP_TARGET;
use touchstone_ohttp::bhttp::{self, Bounds};
use touchstone_ohttp::{ANSWER_OVERHEAD, ANSWER_TYPE, PublicKey, REQUEST_TYPE};

use crate::Error;
use crate::address::Server;
use crate::http::{Answer, Http, SendError};
use crate::session::Session;

/// Header fields of an answer, at most.
const BOUNDS: Bounds = Bounds {
    fields: 100,
    field_bytes: 64 << 10,
};
/// The status of an answer to a sealed request that came before (formats.md §13).
const CAME_BEFORE: u16 = 409;
/// What an answer may have beside its content: bytes.
const AROUND: usize = BOUNDS.field_bytes + ANSWER_OVERHEAD + 64;

/// The key of an attested keyset.
pub(crate) fn key(keyset: &Keyset) -> Result<PublicKey, Error> {
    let keys = keyset.ohttp_keys.as_ref().map(|keys| keys.0.as_slice());
    PublicKey::from_configurations(keys.unwrap_or_default())
        .map_err(|e| Error::malformed(format!("the enclave's keys for sealed requests: {e}")))
}

/// Sends a request sealed, and opens the answer to it, whose body may have `max_body` bytes.
pub(crate) async fn send(
    http: &mut Http,
    server: &Server,
    session: &Session,
    request: Request<Bytes>,
    max_body: usize,
) -> Result<Answer, SendError> {
    let unsent = |reason: String| SendError::Failed(Error::Usage(reason));
    let Some(key) = &session.key else {
        return Err(unsent("there is no key to seal the request to".into()));
    };
    let message = message(server, request).encode();
    let (sealed, waiting) = key.seal(&message).map_err(|e| unsent(e.to_string()))?;
    let outer = Request::post(OHTTP_TARGET)
        .header(CONTENT_TYPE, REQUEST_TYPE)
        .header("touchstone-keyset", session.keyset().to_string())
        .body(sealed.into())
        .map_err(|e| unsent(e.to_string()))?;
    let answer = http.send(outer, max_body.saturating_add(AROUND)).await?;
    let refused = |reason: String| Err(SendError::Failed(Error::OhttpAnswer(reason)));
    let kind = answer.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if answer.status != 200 {
        return Err(SendError::Failed(Error::OhttpRefused {
            status: answer.status,
            reason: answer.problem(),
            retry_after: answer.retry_after(),
        }));
    }
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case(ANSWER_TYPE.as_bytes())) {
        return refused("it came unsealed: who made it is not known".into());
    }
    let message = match waiting.open(answer.body.into()) {
        Err(error) => return refused(error.to_string()),
        Ok(message) => message,
    };
    let answer = inside(message.into(), max_body).map_err(SendError::Failed)?;
    // It was sealed afresh and sent once: this is the answer to somebody else's copy, and no word about the question.
    if answer.status == CAME_BEFORE && !answer.headers.contains_key("touchstone") {
        return refused(
            "the enclave was given a copy of the request before: whoever relays it sent that, and kept its answer".into(),
        );
    }
    Ok(answer)
}

fn message(server: &Server, request: Request<Bytes>) -> bhttp::Request {
    let (head, content) = request.into_parts();
    let owned = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (
            owned(name.as_str()),
            Bytes::copy_from_slice(value.as_bytes()),
        )
    };
    bhttp::Request {
        method: owned(head.method.as_str()),
        scheme: owned("https"),
        authority: owned(&server.authority),
        path: owned(path),
        fields: head.headers.iter().map(field).collect(),
        content,
    }
}

/// The answer that was sealed.
fn inside(message: Bytes, max_body: usize) -> Result<Answer, Error> {
    let wrong = |what: String| Error::malformed(format!("the sealed answer: {what}"));
    let answer = bhttp::Answer::decode(message, BOUNDS).map_err(|e| wrong(e.to_string()))?;
    if answer.content.len() > max_body {
        return Err(wrong(format!("over {max_body} bytes")));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &answer.fields {
        let name = HeaderName::from_bytes(name).map_err(|e| wrong(e.to_string()))?;
        let value = HeaderValue::from_bytes(value).map_err(|e| wrong(e.to_string()))?;
        headers.append(name, value);
    }
    Ok(Answer {
        status: answer.status,
        headers,
        body: answer.content,
    })
}
