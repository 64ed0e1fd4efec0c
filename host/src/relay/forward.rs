//! One request on its way to an enclave, and its answer on the way back.
//!
//! Method, target, fields and body pass as they came; the host neither adds to a request nor answers
//! in the enclave's place. Only what belongs to the connection is the host's own (`headers`).
//!
//! With several enclaves a request can go to another one than the first, in these cases and no other, as long
//! as nothing of an answer has gone to the caller:
//!
//! - Nothing of it was sent: the enclave could not be reached.
//! - The enclave refused it with 503 and no receipt: it was not admitted, so no work was done for it and no number spent.
//! - The object that it asks for is not at the first enclave (404).
//! - The connection ended before the first byte of an answer, and the request is one of which it does not matter
//!   how often it is carried out (`may_be_repeated`). Once.
//!
//! A sealed request is for the one enclave that opens it, and goes there once or not at all (`sealed`).
//!
//! A request that is merely slow is never sent to a second enclave: that would double the load when there is most.

use std::sync::Arc;

use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::{Body, Incoming},
    header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING},
    http::response::Parts,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};
use touchstone_formats::Digest;

use super::{
    body::{self, Answer, BodyFailure, CallerBody, FailureCell, Outgoing, Streamed},
    headers::{announced_trailers, is_framed, strip_hop_by_hop},
    sealed,
    upstream::{Exchange, Failure},
};
use crate::{
    clients::Place,
    config::{Limits, Patience},
    fleet::{Fleet, Load, Member, Model, Wanted},
    limits::Activity,
    metrics::{Asked, Metrics, Refusal, Rerouted},
    pending::Pending,
    problem::{Problem, json},
    seldom::seldom,
    store::Store,
};

/// What relaying needs.
#[derive(Debug)]
pub struct Forwarder {
    fleet: Arc<Fleet>,
    store: Arc<Store>,
    in_flight: Arc<Semaphore>,
    /// Room for bodies, in units.
    memory: Semaphore,
    limits: Limits,
    enclave: Patience,
    pending: Arc<Pending>,
    metrics: Arc<Metrics>,
}

/// The head of an answer, and where it comes from.
struct Answered {
    head: Parts,
    exchange: Exchange,
    member: Arc<Member>,
    load: Load,
}

impl Forwarder {
    /// A forwarder to the enclaves' public listeners, and to no others. Objects that no enclave has any more
    /// come from `store`.
    pub fn new(
        fleet: Arc<Fleet>,
        store: Arc<Store>,
        enclave: &Patience,
        limits: &Limits,
        pending: Arc<Pending>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            fleet,
            store,
            in_flight: Arc::new(Semaphore::new(limits.in_flight)),
            memory: Semaphore::new(
                (limits.buffered_bytes / body::UNIT).min(Semaphore::MAX_PERMITS),
            ),
            limits: limits.clone(),
            enclave: enclave.clone(),
            pending,
            metrics,
        }
    }

    /// Relays a request.
    ///
    /// # Errors
    /// A [`Problem`] for the caller.
    pub(super) async fn forward(
        &self,
        request: Request<Incoming>,
        place: Place,
        activity: &Arc<Activity>,
    ) -> Result<Response<Answer>, Problem> {
        let (mut head, incoming) = request.into_parts();
        if head.method == Method::CONNECT {
            self.metrics.refused(Refusal::Framing);
            // What follows may be meant for the other end of a tunnel.
            let refused = Problem::new(StatusCode::NOT_IMPLEMENTED, "CONNECT: this is no proxy");
            return Err(refused.closing());
        }
        strip_hop_by_hop(&mut head.headers).map_err(|field| {
            self.metrics.refused(Refusal::Framing);
            connection_names(field)
        })?;
        head.version = Version::HTTP_11;

        let failure = FailureCell::default();
        let (body, _room) = self
            .outgoing(incoming, announced_trailers(&head.headers), &failure)
            .await
            .map_err(|failure| {
                if let Some(refusal) = refusal(failure) {
                    self.metrics.refused(refusal);
                }
                body_problem(failure)
            })?;
        if matches!(body, Outgoing::Stream(_)) && !head.headers.contains_key(CONTENT_LENGTH) {
            // Unless it is said here, the library leaves a body out whose method has none as a rule.
            let chunked = HeaderValue::from_static("chunked");
            head.headers.insert(TRANSFER_ENCODING, chunked);
        }
        // Only now: a caller that sends its body slowly takes nobody's turn.
        let permit = self.in_flight.clone().try_acquire_owned().map_err(|_| {
            self.metrics.refused(Refusal::InFlight);
            Problem::passing(
                StatusCode::SERVICE_UNAVAILABLE,
                1,
                "the host relays as many requests as it may",
            )
        })?;
        let object = object_of(&head.method, &head.uri);
        let asked = Asked::of(&self.fleet, &head.method, head.uri.path(), &head.headers);
        let began = Instant::now();
        let sent = match self.sealed_for(&head) {
            Ok(Some(keyset)) => {
                let request = Request::from_parts(head, body);
                self.send_sealed(request, keyset, &failure).await
            }
            Ok(None) => {
                let request = Request::from_parts(head, body);
                self.send(request, None, &failure).await
            }
            Err(problem) => Err(problem),
        };
        let (promised, status) = match &sent {
            Ok(Answered { head, member, .. }) => {
                let promised = self.pending.observe(&head.headers, member.index);
                (promised, head.status)
            }
            Err(problem) => (None, problem.status),
        };
        self.metrics
            .relayed(&asked, promised, status, began.elapsed());
        let gone = match &sent {
            Ok(answered) => answered.head.status == StatusCode::NOT_FOUND,
            Err(problem) => problem.status == StatusCode::SERVICE_UNAVAILABLE,
        };
        if let Some(digest) = object.filter(|_| gone)
            && let Some(stored) = self.stored(digest).await
        {
            return Ok(stored);
        }
        self.answer(sent?, (permit, place), activity).await
    }

    /// The keyset that a request is sealed for, where that decides which enclave it goes to.
    fn sealed_for(&self, head: &hyper::http::request::Parts) -> Result<Option<Digest>, Problem> {
        // One alone says itself what it opens.
        match self.fleet.is_several() && sealed::is_sealed(&head.method, head.uri.path()) {
            true => sealed::keyset(&head.headers).map(Some),
            false => Ok(None),
        }
    }

    /// Sends a sealed request to the enclave that opens it, or says why it was not sent.
    async fn send_sealed(
        &self,
        request: Request<Outgoing>,
        keyset: Digest,
        failure: &FailureCell,
    ) -> Result<Answered, Problem> {
        if !self.fleet.opens(keyset).await {
            return Err(sealed::not_opened(&self.fleet));
        }
        let sent = self.send(request, Some(keyset), failure).await;
        let status = match &sent {
            Ok(answered) => answered.head.status,
            Err(problem) => problem.status,
        };
        // Outside the seal, 503 is about a request that was not opened, or not sent.
        if status == StatusCode::SERVICE_UNAVAILABLE {
            self.fleet.look_through().await;
            if !self.fleet.known_to_open(keyset) && self.fleet.is_ready() {
                return Err(sealed::not_opened(&self.fleet));
            }
        }
        sent
    }

    /// Sends a request to the enclave that suits it best, and to others where that is right. Gives the
    /// head of the answer.
    async fn send(
        &self,
        mut request: Request<Outgoing>,
        sealed_for: Option<Digest>,
        failure: &FailureCell,
    ) -> Result<Answered, Problem> {
        // A streamed body has a deadline of its own; the answer's time begins after it.
        let within = match request.body() {
            Outgoing::Full(_) => self.enclave.answer_timeout,
            Outgoing::Stream(_) => self
                .enclave
                .answer_timeout
                .saturating_add(self.limits.body_timeout),
        };
        let deadline = Instant::now() + within;
        let uri = request.uri().clone();
        let wanted = match (sealed_for, Model::of(uri.path())) {
            (Some(keyset), _) => Wanted::Keyset(keyset),
            (None, Some(model)) => Wanted::Model(model),
            (None, None) => Wanted::Any,
        };
        let is_object = object_of(request.method(), &uri).is_some();
        let repeatable = may_be_repeated(request.method(), uri.path());
        let mut repeated = false;
        let mut tried = Vec::new();
        let mut problem = None;
        while let Some(member) = self.fleet.choose(wanted, &tried) {
            tried.push(member.index);
            let load = member.request();
            // Another enclave can be asked for as long as the whole request is at hand.
            let spare = self.spare(&request);
            let sent = timeout_at(deadline, member.public.send(request)).await;
            let (result, unsent) = match (sent, failure.get()) {
                (Ok(Ok((head, exchange))), _) => {
                    let refused = head.status == StatusCode::SERVICE_UNAVAILABLE
                        && !head.headers.contains_key("touchstone");
                    if refused {
                        member.refused();
                    }
                    let elsewhere = refused || (is_object && head.status == StatusCode::NOT_FOUND);
                    let answered = Answered {
                        head,
                        exchange,
                        member,
                        load,
                    };
                    match spare.filter(|_| elsewhere) {
                        Some(spare) if self.fleet.choose_well(wanted, &tried).is_some() => {
                            self.metrics.rerouted(match refused {
                                true => Rerouted::Refused,
                                false => Rerouted::Missing,
                            });
                            request = spare;
                            continue;
                        }
                        _ => return Ok(answered),
                    }
                }
                (_, Some(failure)) => return Err(body_problem(failure)),
                (Ok(Err((error, unsent))), None) => {
                    match &error {
                        Failure::Unreachable { .. } => member.failed(),
                        // It may be the caller's doing: the enclave is asked.
                        Failure::Broken(_) | Failure::TooLong(_) => member.look_again(),
                    }
                    (enclave_problem(&member, &error), unsent)
                }
                (Err(_), None) => {
                    seldom!(
                        warn,
                        enclave = %member.name,
                        seconds = within.as_secs(),
                        "the enclave did not answer in time"
                    );
                    return Err(Problem::new(
                        StatusCode::GATEWAY_TIMEOUT,
                        "the enclave did not answer in time",
                    ));
                }
            };
            // That it may have been processed stays true, whatever becomes of the second attempt.
            problem = match repeated {
                true => problem,
                false => Some(result),
            };
            let reason;
            (request, reason) = match (unsent, spare) {
                (Some(unsent), _) => (unsent, Rerouted::Away),
                (None, Some(spare)) if repeatable && !repeated => {
                    repeated = true;
                    (spare, Rerouted::BrokeOff)
                }
                _ => break,
            };
            if self.fleet.choose(wanted, &tried).is_some() {
                self.metrics.rerouted(reason);
            }
        }
        Err(problem.unwrap_or_else(|| {
            Problem::passing(
                StatusCode::SERVICE_UNAVAILABLE,
                1,
                "no enclave takes requests",
            )
        }))
    }

    /// The request once more, where another enclave could be asked and all of it is at hand.
    fn spare(&self, request: &Request<Outgoing>) -> Option<Request<Outgoing>> {
        let Outgoing::Full(bytes) = request.body() else {
            return None;
        };
        if !self.fleet.is_several() || sealed::is_sealed(request.method(), request.uri().path()) {
            return None;
        }
        let mut spare = Request::new(Outgoing::Full(bytes.clone()));
        *spare.method_mut() = request.method().clone();
        *spare.uri_mut() = request.uri().clone();
        *spare.version_mut() = request.version();
        *spare.headers_mut() = request.headers().clone();
        // The letter case of the fields' names.
        *spare.extensions_mut() = request.extensions().clone();
        Some(spare)
    }

    /// An object that the enclaves do not have any more.
    async fn stored(&self, digest: Digest) -> Option<Response<Answer>> {
        match self.store.object(digest).await {
            Ok(object) => {
                let mut response = json(StatusCode::OK, object?.into());
                // The digest names these very bytes, for ever.
                response.headers_mut().insert(
                    CACHE_CONTROL,
                    HeaderValue::from_static("public, max-age=31536000, immutable"),
                );
                Some(response)
            }
            Err(error) => {
                seldom!(error, %error, "an object could not be looked up");
                None
            }
        }
    }

    /// Passes an answer on.
    async fn answer(
        &self,
        answered: Answered,
        held: (OwnedSemaphorePermit, Place),
        activity: &Arc<Activity>,
    ) -> Result<Response<Answer>, Problem> {
        let Answered {
            mut head,
            exchange,
            member,
            load,
        } = answered;
        if head.status.is_informational() {
            return Err(Problem::new(
                StatusCode::BAD_GATEWAY,
                format!("the enclave answered with {}", head.status),
            ));
        }
        if !is_framed(&head, exchange.body().is_end_stream()) {
            tracing::warn!(enclave = %member.name, "the end of an enclave's answer could be read in two ways");
            return Err(Problem::new(
                StatusCode::BAD_GATEWAY,
                "where the enclave's answer ends could be read in two ways",
            ));
        }
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
            let bytes = tokio::time::timeout(
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
            .map_err(|error| enclave_problem(&member, &error))?;
            return Ok(Response::from_parts(head, Answer::full(bytes)));
        }
        activity.progressed();
        let streamed = Streamed {
            exchange,
            activity: activity.clone(),
            _held: (held, load),
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
    ) -> Result<(Outgoing, Option<SemaphorePermit<'_>>), BodyFailure> {
        let limit = self.limits.body_bytes;
        match incoming.size_hint().exact() {
            Some(length) if length > limit => Err(BodyFailure::TooLong),
            // Waiting for a small body to be complete also keeps slow callers from holding connections
            // to the enclave.
            Some(length) if length <= body::SMALL => {
                let taken = body::collect(incoming, &self.memory);
                match tokio::time::timeout(self.limits.body_timeout, taken).await {
                    Ok(taken) => taken.map(|(bytes, room)| (Outgoing::Full(bytes), room)),
                    Err(_) => Err(BodyFailure::TooSlow),
                }
            }
            _ => {
                let body = CallerBody::new(
                    incoming,
                    limit,
                    self.limits.body_timeout,
                    announced,
                    failure.clone(),
                );
                Ok((Outgoing::Stream(Box::new(body)), None))
            }
        }
    }
}

/// Whether it does not matter how often a request is carried out, as long as the caller gets one answer.
///
/// Reading is so by what HTTP says of GET, HEAD and OPTIONS. An inference is so by what an enclave is: it keeps
/// nothing of a request, a second run gives an answer with a receipt of its own that is just as true, and what an
/// enclave that broke off may have computed, signed and logged before names an answer that nobody was given.
/// Everything else that is posted (a session, an encapsulated request, what may come) is bound to one enclave or one
/// attempt.
fn may_be_repeated(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => true,
        Method::POST => path.ends_with("/infer") && Model::of(path).is_some(),
        _ => false,
    }
}

/// The digest of `/v1/objects/<digest>`, when it is asked for.
fn object_of(method: &Method, uri: &Uri) -> Option<Digest> {
    if !matches!(*method, Method::GET | Method::HEAD) || uri.query().is_some() {
        return None;
    }
    Digest::from_hex(uri.path().strip_prefix("/v1/objects/")?).ok()
}

fn connection_names(field: String) -> Problem {
    Problem::two_readings(format!(
        "Connection names {field}, which is for the enclave and not for this connection"
    ))
}

/// `None`: nothing was refused, the caller went away.
fn refusal(failure: BodyFailure) -> Option<Refusal> {
    match failure {
        BodyFailure::TooLong => Some(Refusal::BodyLength),
        BodyFailure::TooSlow => Some(Refusal::BodyTime),
        BodyFailure::NoRoom => Some(Refusal::Memory),
        BodyFailure::Trailers => Some(Refusal::Framing),
        BodyFailure::Broken => None,
    }
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
        BodyFailure::Trailers => Problem::two_readings(
            "trailer fields that no Trailer field announced cannot be relayed",
        ),
        BodyFailure::NoRoom => Problem::passing(
            StatusCode::SERVICE_UNAVAILABLE,
            1,
            "the host holds as many bytes of requests as it may",
        ),
        BodyFailure::Broken => Problem::two_readings("the body broke off or is badly framed"),
    }
}

fn enclave_problem(member: &Member, error: &Failure) -> Problem {
    seldom!(warn, enclave = %member.name, %error, "a request could not be relayed");
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
