//! One request on its way to the enclave, and what its client is given: the answer, whole and verified and
//! kept, or a problem document.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use attestation_verifier::Binding;
use attestation_verifier::verdict::{Fault, Verdict, refusal};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CACHE_CONTROL,
    CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LINK, ORIGIN, RETRY_AFTER,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::task::{JoinError, spawn_blocking};
use touchstone_client::{Answer, Error, Question, Unverified, Verified};
use touchstone_formats::limits::MAX_BUNDLE;

use super::body::Share;
use super::demand::{TOUCHSTONE, demand};
use super::keep::{self, Keeping};
use super::log::{Line, Mood};
use super::problem::Problem;
use super::request::{HEADER_LENGTH, header_length};
use super::{BODY_TIME, MAX_BODY, Proxy};

/// Says that an answer was verified, and what holds of it. Only this proxy writes it.
const VERIFIED: HeaderName = HeaderName::from_static("touchstone-verified");

/// The fields of an enclave's answer that are passed on. All others end here.
const PASSED: [HeaderName; 14] = [
    CONTENT_TYPE,
    HEADER_LENGTH,
    TOUCHSTONE,
    HeaderName::from_static("touchstone-openings"),
    LINK,
    HeaderName::from_static("content-digest"),
    RETRY_AFTER,
    ALLOW,
    CACHE_CONTROL,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

/// The fields of a request without a receipt that go to the enclave.
const RELAYED: [HeaderName; 4] = [
    ACCEPT,
    ORIGIN,
    ACCESS_CONTROL_REQUEST_METHOD,
    ACCESS_CONTROL_REQUEST_HEADERS,
];

type Reply = Response<Full<Bytes>>;

impl Proxy {
    /// Reads an inference request: what is asked, and what it holds of the memory for bodies.
    pub(super) async fn question(
        &self,
        head: &Parts,
        body: &mut Option<Incoming>,
    ) -> Result<(Question, Share), Problem> {
        let header_length = header_length(&head.headers)?;
        let Some(incoming) = body else {
            return Err(Problem::bad("a request without a body"));
        };
        let (bytes, share) = self.held.read(incoming, MAX_BODY, BODY_TIME).await?;
        *body = None;
        let json = header_length
            .and_then(|length| bytes.get(..usize::try_from(length).ok()?))
            .unwrap_or(&bytes);
        let demand = demand(&head.headers, json, self.settings.floor)?;
        let question = Question::raw(head.uri.path(), header_length, bytes.clone())
            .map_err(|error| Problem::bad(error.to_string()))?
            .require(demand.require);
        let question = match demand.nonce {
            Some(nonce) => question.nonce(nonce),
            None => question,
        };
        Ok((question, share))
    }

    /// Asks, and gives what may be passed on.
    pub(super) async fn ask(
        self: &Arc<Self>,
        question: Question,
        model: &str,
        started: Instant,
    ) -> Reply {
        let asked = self.client.ask(question).await;
        self.tell_sessions();
        let provisional = match asked {
            Ok(provisional) => provisional,
            Err(Error::Answered(answer)) if answer.status >= 400 => {
                return self.refused_by_enclave(*answer, model, started);
            }
            Err(error) => return self.no_answer(error, model, started).await,
        };
        let keeping = {
            let (proxy, copy) = (self.clone(), provisional.clone());
            spawn_blocking(move || {
                let write = |folder: &Path| copy.keep(folder, None);
                proxy.settings.keeper.begin(copy.id(), write)
            })
        };
        let sealing = Instant::now();
        let judged = provisional.verified_any_status().await;
        let seal = sealing.elapsed();
        let keeping = finished(keeping.await);
        let (id, summary, reply) = match judged {
            Ok(verified) => self.pass(verified, keeping).await,
            Err(unverified) => self.withhold(unverified, keeping).await,
        };
        let total = started.elapsed();
        let judged = reply.as_ref().err().and_then(Problem::judgement);
        let status = match &reply {
            Ok(reply) => reply.status(),
            Err(problem) => problem.status,
        };
        match judged {
            None => self.stats.verified(total, seal, !status.is_success()),
            Some(judged) => self.stats.refused(judged, Some(&id), model, false),
        }
        self.settings.log.answer(&Line {
            receipt: Some(&id),
            model,
            status: status.as_u16(),
            exit: Some(judged.map_or(0, |judged| judged.exit)),
            check: judged.map(|judged| judged.check.as_str()),
            achieved: &summary.achieved,
            binding: summary.binding.name(),
            simulated: summary.simulated,
            total,
            seal: Some(seal),
        });
        reply.unwrap_or_else(Problem::into_response)
    }

    /// Keeps a verified answer, then passes it on.
    async fn pass(
        &self,
        verified: Verified,
        keeping: io::Result<Keeping>,
    ) -> (String, Summary, Result<Reply, Problem>) {
        let (id, at) = (verified.id().to_owned(), verified.verdict().at);
        let summary = Summary::of(verified.verdict());
        let kept = spawn_blocking(move || {
            keeping?.verified(verified.bundle())?;
            Ok(verified.answer().clone())
        });
        let reply = match finished(kept.await) {
            Ok(answer) => Ok(reply(answer, Some(summary.header(&id)))),
            // Who is to be able to show what he was told is not told what he could not show.
            Err(error) => {
                // Where they are kept is for the log: any web page may have asked.
                self.tell("answer-not-kept", &error);
                let kind = error.kind();
                let reason = format!("the answer holds, but could not be kept: {kind}");
                let verdict = refusal("proxy.keep", Fault::Usage, reason, at);
                Err(Problem::unverified("Answer not kept", &verdict))
            }
        };
        (id, summary, reply)
    }

    /// Keeps what did not verify, as evidence, and passes nothing of it on.
    async fn withhold(
        &self,
        unverified: Unverified,
        keeping: io::Result<Keeping>,
    ) -> (String, Summary, Result<Reply, Problem>) {
        let id = unverified.provisional.id().to_owned();
        let summary = Summary::of(&unverified.verdict);
        let problem = Problem::unverified("Answer not verified", &unverified.verdict);
        let kept = spawn_blocking(move || {
            keeping?.refused(unverified.bundle.as_deref(), &unverified.verdict)
        });
        self.tell_unkept(finished(kept.await));
        (id, summary, Err(problem))
    }

    /// There is no answer with a receipt: no connection that may be used, or nothing that can be read.
    async fn no_answer(self: &Arc<Self>, error: Error, model: &str, started: Instant) -> Reply {
        let verdict = error.verdict();
        let problem = unanswered(&error, &verdict);
        self.count_refusal(&error, &problem, model);
        if let Error::Malformed {
            answer: Some(answer),
            ..
        } = error
        {
            let (proxy, verdict) = (self.clone(), verdict.clone());
            let kept = spawn_blocking(move || {
                let write = |folder: &Path| keep::file(folder, "response.bin", &answer.body);
                let keeping = proxy.settings.keeper.begin("malformed", write)?;
                keeping.refused(None, &verdict)
            });
            self.tell_unkept(finished(kept.await));
        }
        self.settings.log.answer(&Line {
            model,
            status: problem.status.as_u16(),
            exit: Some(verdict.exit()),
            check: problem.check(),
            binding: verdict.binding().name(),
            total: started.elapsed(),
            ..Line::default()
        });
        problem.into_response()
    }

    /// A refusal without a receipt, over the attested connection: passed on as it is.
    fn refused_by_enclave(&self, answer: Answer, model: &str, started: Instant) -> Reply {
        self.stats.enclave_refused();
        let reply = match answer.status {
            // The client was sent elsewhere once already; its own client has no other place to go.
            421 => Problem::busy("the enclave is changing its keys").into_response(),
            _ => reply(answer, None),
        };
        let session = self.client.session();
        self.settings.log.answer(&Line {
            model,
            status: reply.status().as_u16(),
            binding: session
                .map_or(Binding::None, |s| s.verdict.binding())
                .name(),
            total: started.elapsed(),
            ..Line::default()
        });
        reply
    }

    /// Passes a request without a receipt to the enclave, and its answer back.
    pub(super) async fn relay(&self, head: Parts) -> Reply {
        let is_head = head.method == Method::HEAD;
        let mut request = Request::new(Bytes::new());
        for name in RELAYED {
            for value in head.headers.get_all(&name) {
                request.headers_mut().append(&name, value.clone());
            }
        }
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        let target = request.uri().path().to_owned();
        let relayed = self.client.relay(request, MAX_BUNDLE).await;
        self.tell_sessions();
        match relayed {
            Ok(answer) => {
                self.stats.relayed();
                let length = answer
                    .headers
                    .get(CONTENT_LENGTH)
                    .filter(|_| is_head)
                    .cloned();
                let mut reply = reply(answer, None);
                if let Some(length) = length {
                    reply.headers_mut().insert(CONTENT_LENGTH, length);
                }
                reply
            }
            Err(error) => {
                let verdict = error.verdict();
                let problem = unanswered(&error, &verdict);
                self.count_refusal(&error, &problem, &target);
                let members = [
                    ("target", json!(target)),
                    ("status", json!(problem.status.as_u16())),
                    ("exit", json!(verdict.exit())),
                    ("check", json!(problem.check())),
                ];
                self.settings.log.event(Mood::Bad, "not-relayed", &members);
                problem.into_response()
            }
        }
    }

    fn count_refusal(&self, error: &Error, problem: &Problem, about: &str) {
        let session = matches!(
            cause(error),
            Error::Refused(_) | Error::SessionRefused { .. } | Error::Tls { .. } | Error::Io { .. }
        );
        if let Some(judged) = problem.judgement() {
            self.stats.refused(judged, None, about, session);
        }
    }

    /// Evidence that could not be kept changes nothing for the client; its absence is told here.
    fn tell_unkept(&self, kept: io::Result<PathBuf>) {
        if let Err(error) = kept {
            self.tell("evidence-not-kept", &error);
        }
    }

    fn tell(&self, event: &str, error: &io::Error) {
        let members = [("error", json!(error.to_string()))];
        self.settings.log.event(Mood::Bad, event, &members);
    }
}

/// What keeps a request from being sealed anew, where that is what happened.
fn cause(error: &Error) -> &Error {
    match error {
        Error::NotResealed(reason) => reason,
        other => other,
    }
}

/// The problem of an error that came instead of an answer.
fn unanswered(error: &Error, verdict: &Verdict) -> Problem {
    let title = match cause(error) {
        Error::OhttpRefused { .. } => "Request not opened",
        Error::OhttpAnswer(_) => "Answer not authentic",
        Error::Refused(_) | Error::SessionRefused { .. } | Error::Tls { .. } => {
            "Enclave not proven"
        }
        Error::Io { .. } | Error::Late { .. } => "Enclave not reached",
        _ => "Answer not understood",
    };
    Problem::unverified(title, verdict)
}

/// What a task that writes files gave.
fn finished<T>(task: Result<io::Result<T>, JoinError>) -> io::Result<T> {
    task.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// What of a verdict is said in a header and in the log.
struct Summary {
    achieved: String,
    binding: Binding,
    simulated: bool,
}

impl Summary {
    fn of(verdict: &Verdict) -> Summary {
        Summary {
            achieved: verdict.context.achieved.join(" "),
            binding: verdict.binding(),
            simulated: verdict.context.simulated,
        }
    }

    /// `Touchstone-Verified`: a dictionary of structured fields (RFC 9651).
    fn header(&self, id: &str) -> HeaderValue {
        let simulated = if self.simulated { ", simulated" } else { "" };
        let text = format!(
            "id=\"{id}\", achieved=({}), binding={}{simulated}",
            self.achieved, self.binding
        );
        // An id in hex and words of our own: nothing in it that a header cannot hold.
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// An answer as its client gets it: status and body as they came, and those of its fields that are about them.
fn reply(answer: Answer, verified: Option<HeaderValue>) -> Reply {
    let mut reply = Response::new(Full::new(answer.body));
    *reply.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = reply.headers_mut();
    for name in PASSED {
        for value in answer.headers.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    if let Some(verified) = verified {
        headers.insert(VERIFIED, verified);
        headers.append(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("Touchstone-Verified"),
        );
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_proxy_says_that_something_is_verified() {
        let mut answer = Answer {
            status: 200,
            headers: hyper::HeaderMap::new(),
            body: Bytes::from_static(b"{}"),
        };
        for (name, value) in [
            ("touchstone-verified", "id=\"forged\""),
            ("connection", "close"),
            ("set-cookie", "a=b"),
            ("content-type", "application/json"),
            ("access-control-expose-headers", "Touchstone"),
        ] {
            let name = HeaderName::from_static(name);
            answer.headers.insert(name, HeaderValue::from_static(value));
        }
        let plain = reply(answer.clone(), None);
        assert_eq!(plain.headers().len(), 2, "{:?}", plain.headers());
        assert_eq!(plain.headers()[CONTENT_TYPE], "application/json");

        let summary = Summary {
            achieved: "logged signed".into(),
            binding: Binding::TlsExporter,
            simulated: true,
        };
        let found = reply(answer, Some(summary.header("ab")));
        assert_eq!(
            found.headers()[VERIFIED],
            "id=\"ab\", achieved=(logged signed), binding=tls-exporter, simulated"
        );
        let exposed = found.headers().get_all(ACCESS_CONTROL_EXPOSE_HEADERS);
        assert_eq!(exposed.iter().count(), 2);
    }
}
