//! Errors as callers see them: RFC 9457 problem details, with the `error` string that Open Inference
//! Protocol clients read.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde_json::json;

/// Content type of every error answer.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A request that gets no answer of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The kind of problem as a URI, where somebody registered one.
    pub kind: &'static str,
    /// A short title, the same for every problem of its kind.
    pub title: &'static str,
    /// What is wrong with this request. Never holds a body, nonce or salt.
    pub detail: String,
    /// Seconds after which to try again.
    pub retry_after: Option<u32>,
    /// The methods that the target has (405).
    pub allow: Option<&'static str>,
    /// Whether the connection takes no further request.
    pub close: bool,
}

impl Problem {
    /// A problem that trying again does not solve.
    pub fn new(status: u16, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind: "about:blank",
            title,
            detail: detail.into(),
            retry_after: None,
            allow: None,
            close: false,
        }
    }

    /// 503, to be tried again after so many seconds.
    pub fn unavailable(title: &'static str, detail: impl Into<String>, retry_after: u32) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(503, title, detail)
        }
    }

    /// 405.
    pub fn method(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(
                405,
                "Method not allowed",
                format!("this target answers to: {allow}"),
            )
        }
    }

    /// The document.
    pub fn body(&self) -> Bytes {
        json!({
            "type": self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "error": self.detail,
        })
        .to_string()
        .into()
    }

    /// The whole answer.
    pub fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body()));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
