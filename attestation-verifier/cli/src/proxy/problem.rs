//! What a client is told when it gets no answer: RFC 9457 problem details, with the `error` string that
//! Open Inference Protocol clients read, and, where a judgement stands behind it, what was judged.

use attestation_verifier::Verdict;
use attestation_verifier::verdict::Class;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// A request that gets no answer of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// A short title, the same for every problem of its kind.
    title: &'static str,
    /// What is wrong. Never holds a body, nonce or salt of somebody else.
    pub detail: String,
    /// Seconds after which to try again.
    retry_after: Option<u32>,
    /// Methods of the target (405).
    allow: Option<&'static str>,
    /// The judgement that this rests on.
    judged: Option<Box<Judged>>,
}

/// The part of a verdict that a program acts upon, and its words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// Id of the deciding check.
    pub check: String,
    /// Its reason.
    pub reason: String,
    /// Exit code that `touchstone check` would end with.
    pub exit: u8,
    /// What to do about it; none for usage errors.
    pub class: Option<Class>,
    /// The verdict in words.
    pub verdict: String,
}

impl Judged {
    /// What this verdict says, which refuses.
    pub fn of(verdict: &Verdict) -> Judged {
        let check = verdict.checks.deciding();
        Judged {
            // What refuses without a failed check holds, on a platform that nobody said he wants.
            check: verdict.deciding().unwrap_or("root.simulated").to_owned(),
            reason: check.map_or_else(
                || {
                    "it holds, but on a simulated platform, and --expect-simulated was not given"
                        .into()
                },
                |check| check.reason.clone(),
            ),
            exit: verdict.exit(),
            class: verdict.conclusion.class,
            verdict: verdict.words(),
        }
    }
}

impl Problem {
    /// A problem that trying again does not solve.
    pub fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            title,
            detail: detail.into(),
            retry_after: None,
            allow: None,
            judged: None,
        }
    }

    /// 400.
    pub fn bad(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "Bad request", detail)
    }

    /// 405.
    pub fn method(allow: &'static str) -> Problem {
        Problem {
            allow: Some(allow),
            ..Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
                format!("this target answers to: {allow}"),
            )
        }
    }

    /// 503, to be tried again in a second.
    pub fn busy(detail: impl Into<String>) -> Problem {
        Problem {
            retry_after: Some(1),
            ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Too much at once", detail)
        }
    }

    /// What did not verify: 503 if it may yet (class `retry`), else 502.
    pub fn unverified(title: &'static str, verdict: &Verdict) -> Problem {
        let judged = Judged::of(verdict);
        let retry = judged.class == Some(Class::Retry);
        let status = match retry {
            true => StatusCode::SERVICE_UNAVAILABLE,
            false => StatusCode::BAD_GATEWAY,
        };
        Problem {
            retry_after: retry.then_some(1),
            judged: Some(Box::new(judged.clone())),
            ..Problem::new(
                status,
                title,
                format!("{}: {}", judged.check, judged.reason),
            )
        }
    }

    /// The same problem, resting on this judgement.
    pub fn judged(self, judged: Judged) -> Problem {
        Problem {
            judged: Some(Box::new(judged)),
            ..self
        }
    }

    /// Id of the deciding check, where something was judged.
    pub fn check(&self) -> Option<&str> {
        self.judged.as_ref().map(|judged| judged.check.as_str())
    }

    /// The judgement that it rests on.
    pub fn judgement(&self) -> Option<&Judged> {
        self.judged.as_deref()
    }

    /// The whole answer. Scripts of every origin may read it, as they may read the enclave's own.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        #[derive(Serialize)]
        struct Document<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            detail: &'a str,
            error: &'a str,
            #[serde(flatten)]
            judged: Option<&'a Judged>,
        }
        let document = Document {
            r#type: "about:blank",
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            error: &self.detail,
            judged: self.judged.as_deref(),
        };
        // Strings and numbers: this cannot fail, and an empty body would still be a refusal.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}
