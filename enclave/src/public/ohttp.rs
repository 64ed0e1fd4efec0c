//! Oblivious HTTP (RFC 9458; formats.md §13): a request that the host could not read, and its answer.
//!
//! The host is the relay, the enclave gateway and target in one. What is inside goes the way of every other request, and
//! everything that is said of it is said inside. Outside is said only what concerns a message that was not opened.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue},
    http::request::Parts,
};
use touchstone_formats::digest::Digest;
use touchstone_ohttp::{
    ANSWER_TYPE, Error, KEY_PROBLEM, Opened, REQUEST_OVERHEAD, REQUEST_TYPE, Responder,
    bhttp::{self, Bounds},
};

use super::{
    Channel, Reply,
    framing::{self, RequestBody, bad},
    reply::Counted,
    route,
};
use crate::{
    admission::{self, RETRY_LOAD, Share},
    keyset::Guest,
    ohttp,
    problem::Problem,
    service::Service,
};

/// The keyset that a request was sealed for, said outside: a hint for those who route.
const KEYSET: HeaderName = HeaderName::from_static("touchstone-keyset");

/// What a message in Binary HTTP may have beside header fields and content: method, scheme, authority, path and lengths.
const CONTROL: usize = 4 << 10;

/// Bytes beyond which ciphers are not run between other requests.
const FAST: usize = 256 << 10;

/// Fields that are about a connection, of which there is none inside (RFC 9292 §3.6), and one that would ask for a word before
/// the answer.
const OF_CONNECTIONS: [&str; 8] = [
    "connection",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Answers `POST /v1/ohttp`. The body is taken when all of it was read.
///
/// # Errors
/// What is said outside: 422 for a request that was sealed to another key, 400 for one that does not open, 503 when there is no room to
/// remember it, and what concerns any body. Nothing was answered then.
pub(super) async fn answer(
    service: Arc<Service>,
    channel: &Channel,
    head: Parts,
    body: &mut Option<RequestBody>,
) -> Result<Reply, Problem> {
    if matches!(channel, Channel::Sealed(_)) {
        return Err(bad("a sealed request holds no other"));
    }
    framed(&head.headers)?;
    // Before the body is read: what is refused anyway costs no memory.
    opener(&service, channel, &head.headers)?;
    let limits = &service.config.limits;
    let most = limits.body_bytes + limits.header_bytes + CONTROL + REQUEST_OVERHEAD;
    let (sealed, mut share) =
        framing::whole_body(body, most, &service.held, limits.body_timeout).await?;
    let sealed_bytes = sealed.len();

    let guest = opener(&service, channel, &head.headers)?;
    let keyset = guest.digest;
    // While it is opened and read it is there twice. The share goes along: work that has begun goes on when the caller hangs up.
    share.set(sealed_bytes.saturating_mul(2));
    let open = move || {
        let request = match &guest.ohttp {
            Some(key) => key.open(&sealed),
            None => Err(Error::Suite),
        };
        (request, share)
    };
    let (request, share) = worked(sealed_bytes, open).await?;
    let (opened, again) = match request.map_err(|error| unopened(&error))? {
        ohttp::Request::New(opened) => (opened, false),
        ohttp::Request::Again(opened) => (opened, true),
        ohttp::Request::Full => return Err(full()),
    };
    let Opened {
        content, responder, ..
    } = opened;
    let reply = match again {
        true => Err(Problem::new(
            409,
            "Sealed request sent again",
            "this sealed request was answered before, and no sealed request is answered twice: seal it anew",
        )),
        false => inside(service.clone(), keyset, content.into(), share).await,
    };
    let reply = reply.unwrap_or_else(|problem| problem.response());
    seal(&service, responder, reply).await
}

/// The keyset that opens a request now.
fn opener(service: &Service, channel: &Channel, headers: &HeaderMap) -> Result<Guest, Problem> {
    let guest = service.enter()?;
    channel.belongs_to(&guest.digest)?;
    let Some(key) = &guest.ohttp else {
        return Err(Problem::new(
            404,
            "No Oblivious HTTP",
            "this enclave has no key for sealed requests",
        ));
    };
    let meant = framing::single(headers, &KEYSET, "Touchstone-Keyset")?;
    let meant = meant.map(|hex| {
        Digest::from_hex(hex)
            .map_err(|_| bad("Touchstone-Keyset: expected 64 lower-case hex digits"))
    });
    if meant
        .transpose()?
        .is_some_and(|meant| meant != guest.digest)
    {
        return Err(other_key("another keyset is in force"));
    }
    if guest.issued_at().is_none() {
        return Err(admission::expired());
    }
    if key.full() {
        return Err(full());
    }
    Ok(guest)
}

/// What frames the message outside.
fn framed(headers: &HeaderMap) -> Result<(), Problem> {
    let found = framing::single(headers, &CONTENT_TYPE, "Content-Type")?;
    if !found.is_some_and(|found| found.eq_ignore_ascii_case(REQUEST_TYPE)) {
        return Err(Problem::new(
            415,
            "Content-Type not supported",
            format!("expected Content-Type: {REQUEST_TYPE}"),
        ));
    }
    framing::identity(headers)
}

/// What goes on with a request that was opened, as if it had come by itself.
async fn inside(
    service: Arc<Service>,
    keyset: Digest,
    message: Bytes,
    share: Share,
) -> Result<Reply, Problem> {
    let limits = &service.config.limits;
    let bounds = Bounds {
        fields: limits.headers,
        field_bytes: limits.header_bytes,
    };
    let length = message.len();
    let reading = move || (read(message, bounds), share);
    let (request, mut share) = worked(length, reading).await?;
    let (head, content) = request?;
    share.set(length);
    let only_head = head.method == Method::HEAD;
    let mut body = Some(RequestBody::Read(content, share));
    let channel = Channel::Sealed(keyset);
    let mut reply = route(service, &channel, head, &mut body).await?;
    if only_head {
        *reply.body_mut() = Full::default();
    }
    Ok(reply)
}

/// Reads a request in Binary HTTP.
fn read(message: Bytes, bounds: Bounds) -> Result<(Parts, Bytes), Problem> {
    let malformed = |what: &str| bad(format!("the sealed message is no request: {what}"));
    let read = bhttp::Request::decode(message, bounds).map_err(|e| malformed(&e.to_string()))?;
    let control = [&read.method, &read.scheme, &read.authority, &read.path];
    if control.iter().map(|part| part.len()).sum::<usize>() > CONTROL {
        return Err(malformed(&format!(
            "its method, scheme, authority and path have over {CONTROL} bytes"
        )));
    }
    if !read.scheme.eq_ignore_ascii_case(b"https") {
        return Err(malformed("its scheme is not https"));
    }
    let method = Method::from_bytes(&read.method).map_err(|_| malformed("its method is none"))?;
    let path = std::str::from_utf8(&read.path).unwrap_or_default();
    // A fragment is no part of a path; the library would cut it off.
    if !path.starts_with('/') || path.contains('#') {
        return Err(malformed("its path is none"));
    }
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .body(())
        .map_err(|_| malformed("its path is none"))?;
    for (name, value) in &read.fields {
        // Two spellings of one name would be two names to some readers.
        let lower = !name.iter().any(u8::is_ascii_uppercase);
        let field = HeaderName::from_bytes(name).ok().filter(|_| lower);
        let value = HeaderValue::from_bytes(value).ok();
        let Some((name, value)) = field.zip(value) else {
            return Err(malformed("a header field is none"));
        };
        if OF_CONNECTIONS.contains(&name.as_str()) {
            return Err(malformed("a header field is about a connection"));
        }
        request.headers_mut().append(name, value);
    }
    let length = framing::single(request.headers(), &CONTENT_LENGTH, "Content-Length")?;
    if length.is_some_and(|length| length != read.content.len().to_string()) {
        return Err(malformed("Content-Length is not its content's length"));
    }
    Ok((request.into_parts().0, read.content))
}

/// Seals a reply.
async fn seal(service: &Service, responder: Responder, reply: Reply) -> Result<Reply, Problem> {
    let (head, body) = reply.into_parts();
    let body = body
        .collect()
        .await
        .map_or_else(|never| match never {}, |body| body.to_bytes());
    let length = body.len();
    let work = move || {
        let fields = head.headers.iter().filter(|(name, _)| **name != CONNECTION);
        let fields = fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        responder.seal(&bhttp::Answer::encode(head.status.as_u16(), fields, &body))
    };
    let sealed = worked(length, work).await?.map_err(|error| {
        // Not 503, which says of a sealed request that it was not opened.
        tracing::error!(%error, "an answer cannot be sealed");
        Problem::new(500, "Answer not sealed", "the answer could not be sealed")
    })?;
    let mut share = service.held.share();
    share.set(sealed.len());
    let mut reply = Response::new(Full::new(Bytes::from_owner(Counted(sealed.into(), share))));
    *reply.status_mut() = StatusCode::OK;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(ANSWER_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

/// Runs ciphers over so many bytes.
async fn worked<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    if bytes <= FAST {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Problem::new(500, "Internal error", "the request could not be worked on"))
}

fn unopened(error: &Error) -> Problem {
    match error {
        Error::OtherKey { .. } => {
            other_key("this request was sealed to another key, or for another suite")
        }
        _ => Problem::new(
            400,
            "Sealed request does not open",
            "this is no request that was sealed to the key of the keyset in force, or not all of it",
        ),
    }
}

/// 422, as RFC 9458 §5.3 has it.
fn other_key(detail: &str) -> Problem {
    Problem {
        kind: KEY_PROBLEM,
        ..Problem::new(
            422,
            "Oblivious HTTP key configuration not acceptable",
            format!("{detail}: ask for the keyset and its evidence anew"),
        )
    }
}

fn full() -> Problem {
    Problem::unavailable(
        "Too many sealed requests",
        "this keyset's key has opened as many requests as can be remembered; the next keyset is being made",
        RETRY_LOAD,
    )
}
