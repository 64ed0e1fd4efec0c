//! One request on its way to the enclave, and its answer on the way back.
//!
//! Method, target, fields and body pass as they came; the host neither adds to a request nor answers
//! in the enclave's place. Only what belongs to the connection is the host's own (`headers`).

use std::sync::Arc;

use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body, Incoming},
    header::HeaderName,
};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    body::{self, Answer, BodyFailure, CallerBody, FailureCell, Outgoing, Streamed},
    headers::{announced_trailers, strip_hop_by_hop},
    upstream::{Failure, Upstream},
};
use crate::{
    config::{Enclave, Limits},
    limits::Activity,
    pending::Pending,
    problem::Problem,
};

/// What relaying needs.
#[derive(Debug)]
pub struct Forwarder {
    upstream: Arc<Upstream>,
    in_flight: Arc<Semaphore>,
    limits: Limits,
    enclave: Enclave,
    pending: Arc<Pending>,
}

impl Forwarder {
    /// A forwarder to `upstream`, the enclave's public listener, and to no other.
    pub fn new(
        upstream: Arc<Upstream>,
        enclave: &Enclave,
        limits: &Limits,
        pending: Arc<Pending>,
    ) -> Self {
        Self {
            upstream,
            in_flight: Arc::new(Semaphore::new(limits.in_flight)),
            limits: limits.clone(),
            enclave: enclave.clone(),
            pending,
        }
    }

    /// Relays a request.
    ///
    /// # Errors
    /// A [`Problem`] for the caller.
    pub(super) async fn forward(
        &self,
        request: Request<Incoming>,
        activity: &Arc<Activity>,
    ) -> Result<Response<Answer>, Problem> {
        let (mut head, incoming) = request.into_parts();
        if head.method == Method::CONNECT {
            return Err(Problem::new(
                StatusCode::NOT_IMPLEMENTED,
                "CONNECT: this is no proxy",
            ));
        }
        strip_hop_by_hop(&mut head.headers).map_err(connection_names)?;
        head.version = Version::HTTP_11;

        let failure = FailureCell::default();
        let body = self
            .outgoing(incoming, announced_trailers(&head.headers), &failure)
            .await
            .map_err(body_problem)?;
        // Only now: a caller that sends its body slowly takes nobody's turn.
        let permit = self.in_flight.clone().try_acquire_owned().map_err(|_| {
            Problem::passing(
                StatusCode::SERVICE_UNAVAILABLE,
                1,
                "the host relays as many requests as it may",
            )
        })?;
        // A streamed body has a deadline of its own; the answer's time begins after it.
        let within = match &body {
            Outgoing::Full(_) => self.enclave.answer_timeout,
            Outgoing::Stream(_) => self
                .enclave
                .answer_timeout
                .saturating_add(self.limits.body_timeout),
        };
        let sent = timeout(within, self.upstream.send(Request::from_parts(head, body))).await;
        let (mut head, exchange) = match (sent, failure.get()) {
            (Ok(Ok(answer)), _) => answer,
            (_, Some(failure)) => return Err(body_problem(failure)),
            (Ok(Err(error)), None) => return Err(enclave_problem(&error)),
            (Err(_), None) => {
                tracing::warn!(
                    seconds = within.as_secs(),
                    "the enclave did not answer in time"
                );
                return Err(Problem::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "the enclave did not answer in time",
                ));
            }
        };
        if head.status.is_informational() {
            return Err(Problem::new(
                StatusCode::BAD_GATEWAY,
                format!("the enclave answered with {}", head.status),
            ));
        }
        self.pending.observe(&head.headers);
        strip_hop_by_hop(&mut head.headers).map_err(|field| {
            Problem::new(
                StatusCode::BAD_GATEWAY,
                format!("the enclave's Connection names {field}"),
            )
        })?;
        head.version = Version::HTTP_11;

        let body = exchange.body();
        if body.is_end_stream()
            || body
                .size_hint()
                .exact()
                .is_some_and(|length| length <= body::SMALL)
        {
            // A small answer has all its bytes on the way: taken whole it leaves in one write, and the
            // connection to the enclave is free before the caller has read it.
            let bytes = timeout(
                self.limits.idle_timeout,
                exchange.collect(body::SMALL as usize),
            )
            .await
            .map_err(|_| {
                Problem::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "the enclave's answer stopped in the middle",
                )
            })?
            .map_err(|error| enclave_problem(&error))?;
            return Ok(Response::from_parts(head, Answer::full(bytes)));
        }
        activity.progressed();
        let streamed = Streamed {
            exchange,
            activity: activity.clone(),
            _permit: permit,
        };
        Ok(Response::from_parts(
            head,
            Answer::Stream(Box::new(streamed)),
        ))
    }

    async fn outgoing(
        &self,
        incoming: Incoming,
        announced: Vec<HeaderName>,
        failure: &FailureCell,
    ) -> Result<Outgoing, BodyFailure> {
        let limit = self.limits.body_bytes;
        match incoming.size_hint().exact() {
            Some(length) if length > limit => Err(BodyFailure::TooLong),
            // Waiting for a small body to be complete also keeps slow callers from holding connections
            // to the enclave.
            Some(length) if length <= body::SMALL => {
                match timeout(self.limits.body_timeout, body::collect(incoming)).await {
                    Ok(Some(bytes)) => Ok(Outgoing::Full(bytes)),
                    Ok(None) => Err(BodyFailure::Broken),
                    Err(_) => Err(BodyFailure::TooSlow),
                }
            }
            _ => Ok(Outgoing::Stream(Box::new(CallerBody::new(
                incoming,
                limit,
                self.limits.body_timeout,
                announced,
                failure.clone(),
            )))),
        }
    }
}

fn connection_names(field: &str) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        format!("Connection names {field}, which is for the enclave and not for this connection"),
    )
}

fn body_problem(failure: BodyFailure) -> Problem {
    match failure {
        BodyFailure::TooLong => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is longer than this host relays",
        ),
        BodyFailure::TooSlow => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        ),
        BodyFailure::Trailers => Problem::new(
            StatusCode::BAD_REQUEST,
            "trailer fields that no Trailer field announced cannot be relayed",
        ),
        BodyFailure::Broken => Problem::new(
            StatusCode::BAD_REQUEST,
            "the body broke off or is badly framed",
        ),
    }
}

fn enclave_problem(error: &Failure) -> Problem {
    tracing::warn!(%error, "a request could not be relayed");
    match error {
        Failure::Unreachable { .. } => Problem::passing(
            StatusCode::SERVICE_UNAVAILABLE,
            1,
            "the enclave cannot be reached; nothing was sent to it",
        ),
        Failure::Broken(_) | Failure::TooLong(_) => Problem::new(
            StatusCode::BAD_GATEWAY,
            "the connection to the enclave ended before its answer was complete; the request may have been processed",
        ),
    }
}
