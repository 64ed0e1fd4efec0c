//! The host's own answers: JSON, and when it is not what the caller hoped for, RFC 9457 problem details
//! with the `error` member that Open Inference Protocol clients read (formats.md §9).

use bytes::Bytes;
use hyper::{
    Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue,
        RETRY_AFTER,
    },
};
use serde::Serialize;

/// The methods of everything that the host itself serves.
pub const METHODS: &str = "GET, HEAD, OPTIONS";

/// Type and title of the problem that RFC 9458 §5.3 defines.
const OTHER_KEY: (&str, &str) = (
    "https://iana.org/assignments/http-problem-types#ohttp-key",
    "Oblivious HTTP key configuration not acceptable",
);

/// An answer that is JSON and nobody is to keep: collateral changes, and so do states. Readable from any
/// origin, as the enclave's own answers are.
pub fn json(status: StatusCode, body: Bytes) -> Response<Bytes> {
    typed(status, "application/json", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Retry-After"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The answer to a browser that asks whether it may ask, for what the host itself serves to anybody.
pub fn preflight() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(METHODS),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// A refusal or failure that the host itself answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// One sentence for a person: what was found, what was expected.
    pub detail: String,
    /// Seconds after which asking again may help.
    pub retry_after: Option<u32>,
    /// Nothing more is read on this connection.
    closes: bool,
    /// Type and title, where the status does not say all.
    kind: Option<(&'static str, &'static str)>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    error: &'a str,
}

impl Problem {
    /// A problem that asking again does not change.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            retry_after: None,
            closes: false,
            kind: None,
        }
    }

    /// The problem of a method that what the host itself serves does not know, if it is one.
    ///
    /// # Errors
    /// 405, for all but GET and HEAD.
    pub fn unless_read(method: &Method) -> Result<(), Self> {
        if matches!(*method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        Err(Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("found {method}, expected GET or HEAD"),
        ))
    }

    /// A problem that may be gone after `seconds`.
    pub fn passing(status: StatusCode, seconds: u32, detail: impl Into<String>) -> Self {
        Self {
            retry_after: Some(seconds),
            ..Self::new(status, detail)
        }
    }

    /// A request that two programs could read differently: what follows it on its connection could be meant for either.
    pub fn two_readings(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail).closing()
    }

    /// As it is, and nothing more is read on its connection.
    pub fn closing(self) -> Self {
        Self {
            closes: true,
            ..self
        }
    }

    /// What a sealed request is told that nobody here opens (RFC 9458 §5.3).
    pub fn other_key(detail: impl Into<String>) -> Self {
        Self {
            kind: Some(OTHER_KEY),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        }
    }

    /// The answer. Readable from any origin, as the enclave's own answers are.
    pub fn into_response(self) -> Response<Bytes> {
        let plain = ("about:blank", self.status.canonical_reason());
        let (kind, title) = self.kind.map_or(plain, |(kind, title)| (kind, Some(title)));
        let document = Document {
            r#type: kind,
            title: title.unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            error: &self.detail,
        };
        // Strings and a number: this cannot fail, and an empty body would still be a true answer.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = typed(self.status, "application/problem+json", body.into());
        let headers = response.headers_mut();
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static(METHODS));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
