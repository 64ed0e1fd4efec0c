//! One request on its way to an enclave, and its answer on the way back.
//!
//! Method, target, fields and body pass as they came; the host neither adds to a request nor answers
//! in the enclave's place. Only what belongs to the connection is the host's own (`fields`).
//!
//! With several enclaves a request can go to another one than the first, in these cases and no other, as long
//! as nothing of an answer has gone to the caller:
//!
//! - Nothing of it was sent: the enclave could not be reached.
//! - The enclave refused it with 503 and no receipt: it was not admitted, so no work was done for it and no number spent.
//! - The object that it asks for is not at the first enclave (404).
//! - The connection ended before the head of an answer was complete, and the request is one of which it does not matter
//!   how often it is carried out (`may_be_repeated`). Once.
//!
//! A sealed request is for the one enclave that opens it, and goes there once or not at all (`sealed`).
//!
//! A request that is merely slow is never sent to a second enclave: that would double the load when there is most.

use std::{future::poll_fn, sync::Arc, task::Poll};

use bytes::Bytes;
use hyper::{
    Method, Response, StatusCode, Uri,
    header::{CACHE_CONTROL, HeaderValue},
};
use tokio::{
    io::AsyncWriteExt,
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{Instant, timeout, timeout_at},
};
use touchstone_formats::Digest;

use super::{
    body::{self, BodyFailure, CallerBody, Incoming},
    buffers,
    fields::{Fields, Hop, hop_by_hop},
    sealed,
    strict::Framing,
    upstream::{Exchange, Failure},
};
use crate::{
    clients::Place,
    config::{Limits, Patience},
    fleet::{Fleet, Load, Member, Model, Wanted},
    metrics::{Asked, Metrics, Refusal, Rerouted},
    pending::Pending,
    problem::{Problem, json},
    seldom::seldom,
    store::Store,
};

/// What a caller hears who waits to be asked for the body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

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

/// A request whose head was read, and stands at the beginning of the inbox.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// Bytes of the head.
    pub(super) length: usize,
    pub(super) framing: Framing,
    pub(super) hop: Hop,
    /// The caller waits to be asked for the body.
    pub(super) expects: bool,
}

/// What a caller is given.
#[derive(Debug)]
pub(super) enum Relayed {
    /// An answer of the enclave's, head and body; and whether nothing follows it on the caller's connection.
    Whole(Vec<u8>, bool),
    /// As much, of which only the beginning has come in.
    Streamed(Box<Streamed>, bool),
    /// An answer of the host's own.
    Own(Response<Bytes>),
}

/// An answer that is coming in, with what its request holds until its end.
#[derive(Debug)]
pub(super) struct Streamed {
    pub(super) exchange: Exchange,
    _held: (OwnedSemaphorePermit, Place, Load),
}

/// Why nothing is passed on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The caller is told this.
    Problem(Problem),
    /// There is no caller any more.
    Gone,
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// An answer whose head has come in, and where it comes from.
struct Answered {
    exchange: Exchange,
    member: Arc<Member>,
    load: Load,
}

/// A request on its way.
enum Outgoing<'a> {
    /// All of it, which can be sent again.
    Full {
        message: &'a [u8],
        from: Incoming<'a>,
    },
    /// Its head, and the body as it comes in.
    Stream {
        head: &'a [u8],
        body: CallerBody<'a>,
    },
}

/// Why one enclave gave no answer.
enum Unanswered {
    Enclave(Failure),
    Body(BodyFailure),
    Gone,
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self::Enclave(failure)
    }
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

    /// Relays a request. `closing` says, when the answer has come, whether nothing follows it.
    ///
    /// # Errors
    /// A [`Problem`] for the caller, or that there is none.
    pub(super) async fn forward(
        &self,
        mut from: Incoming<'_>,
        request: Request,
        place: Place,
        closing: impl Fn() -> bool,
    ) -> Result<Relayed, Stop> {
        let Request { method, uri, .. } = &request;
        if *method == Method::CONNECT {
            self.metrics.refused(Refusal::Framing);
            // What follows may be meant for the other end of a tunnel.
            let refused = Problem::new(StatusCode::NOT_IMPLEMENTED, "CONNECT: this is no proxy");
            return Err(refused.closing().into());
        }
        let taken = self.incoming(&mut from, &request).await;
        let (mut message, is_whole, _room) = taken.map_err(|failure| self.refused(failure))?;
        let length = request
            .length
            .saturating_sub(request.hop.strip(&mut message));
        let fields = Fields::of(message.get(..length).unwrap_or_default());
        // Only now: a caller that sends its body slowly takes nobody's turn.
        let permit = self.in_flight.clone().try_acquire_owned().map_err(|_| {
            self.metrics.refused(Refusal::InFlight);
            Problem::passing(
                StatusCode::SERVICE_UNAVAILABLE,
                1,
                "the host relays as many requests as it may",
            )
        })?;
        let object = object_of(method, uri);
        let asked = Asked::of(&self.fleet, method, uri.path(), fields);
        let began = Instant::now();
        let mut outgoing = match is_whole {
            true => Outgoing::Full {
                message: &message,
                from,
            },
            false => Outgoing::Stream {
                head: &message,
                body: CallerBody::new(from, self.limits.body_bytes, self.limits.body_timeout),
            },
        };
        let sent = match self.sealed_for(method, uri, fields) {
            Ok(Some(keyset)) => self.send_sealed(&mut outgoing, &request, keyset).await,
            Ok(None) => self.send(&mut outgoing, &request, None).await,
            Err(problem) => Err(problem.into()),
        };
        let (promised, status) = match &sent {
            Ok(Answered {
                exchange, member, ..
            }) => {
                let said = exchange.fields().all("touchstone");
                (self.pending.observe(said, member.index), exchange.status())
            }
            Err(Stop::Problem(problem)) => (None, problem.status),
            Err(Stop::Gone) => return Err(Stop::Gone),
        };
        self.metrics
            .relayed(&asked, promised, status, began.elapsed());
        let gone = match &sent {
            Ok(_) => status == StatusCode::NOT_FOUND,
            Err(_) => status == StatusCode::SERVICE_UNAVAILABLE,
        };
        if let Some(digest) = object.filter(|_| gone)
            && let Some(stored) = self.stored(digest).await
        {
            return Ok(Relayed::Own(stored));
        }
        // What was not read of a request cannot be told from the next.
        let unread = match &outgoing {
            Outgoing::Full { .. } => false,
            Outgoing::Stream { body, .. } => !body.has_ended(),
        };
        let closes = unread || closing();
        drop(outgoing);
        buffers::give_back(message);
        Ok(self.answer(sent?, permit, place, closes).await?)
    }

    /// The keyset that a request is sealed for, where that decides which enclave it goes to.
    fn sealed_for(
        &self,
        method: &Method,
        uri: &Uri,
        fields: Fields<'_>,
    ) -> Result<Option<Digest>, Problem> {
        // One alone says itself what it opens.
        match self.fleet.is_several() && sealed::is_sealed(method, uri.path()) {
            true => sealed::keyset(fields).map(Some),
            false => Ok(None),
        }
    }

    /// Sends a sealed request to the enclave that opens it, or says why it was not sent.
    async fn send_sealed(
        &self,
        outgoing: &mut Outgoing<'_>,
        request: &Request,
        keyset: Digest,
    ) -> Result<Answered, Stop> {
        if !self.fleet.opens(keyset).await {
            return Err(sealed::not_opened(&self.fleet).into());
        }
        let sent = self.send(outgoing, request, Some(keyset)).await;
        let status = match &sent {
            Ok(answered) => answered.exchange.status(),
            Err(Stop::Problem(problem)) => problem.status,
            Err(Stop::Gone) => return sent,
        };
        // Outside the seal, 503 is about a request that was not opened, or not sent.
        if status == StatusCode::SERVICE_UNAVAILABLE {
            self.fleet.look_through().await;
            if !self.fleet.known_to_open(keyset) && self.fleet.is_ready() {
                return Err(sealed::not_opened(&self.fleet).into());
            }
        }
        sent
    }

    /// Sends a request to the enclave that suits it best, and to others where that is right. Gives the
    /// head of the answer.
    async fn send(
        &self,
        outgoing: &mut Outgoing<'_>,
        request: &Request,
        sealed_for: Option<Digest>,
    ) -> Result<Answered, Stop> {
        let is_full = matches!(outgoing, Outgoing::Full { .. });
        // A streamed body has a deadline of its own; the answer's time begins after it.
        let within = match is_full {
            true => self.enclave.answer_timeout,
            false => self
                .enclave
                .answer_timeout
                .saturating_add(self.limits.body_timeout),
        };
        let deadline = Instant::now() + within;
        let Request { method, uri, .. } = request;
        let wanted = match (sealed_for, Model::of(uri.path())) {
            (Some(keyset), _) => Wanted::Keyset(keyset),
            (None, Some(model)) => Wanted::Model(model),
            (None, None) => Wanted::Any,
        };
        let is_object = object_of(method, uri).is_some();
        let is_head = *method == Method::HEAD;
        // Another enclave can be asked for as long as the whole request is at hand.
        let again = is_full && self.fleet.is_several() && !sealed::is_sealed(method, uri.path());
        let repeatable = again && may_be_repeated(method, uri.path());
        let mut repeated = false;
        let mut tried = Vec::new();
        let mut problem = None;
        while let Some(member) = self.fleet.choose(wanted, &tried) {
            tried.push(member.index);
            let load = member.request();
            let sent = timeout_at(deadline, attempt(&member, outgoing, is_head)).await;
            let error = match sent {
                Ok(Ok(exchange)) => {
                    let status = exchange.status();
                    let refused = status == StatusCode::SERVICE_UNAVAILABLE
                        && exchange.fields().first("touchstone").is_none();
                    if refused {
                        member.refused();
                    }
                    let elsewhere = refused || (is_object && status == StatusCode::NOT_FOUND);
                    if again && elsewhere && self.fleet.choose_well(wanted, &tried).is_some() {
                        self.metrics.rerouted(match refused {
                            true => Rerouted::Refused,
                            false => Rerouted::Missing,
                        });
                        continue;
                    }
                    return Ok(Answered {
                        exchange,
                        member,
                        load,
                    });
                }
                Ok(Err(Unanswered::Gone)) => return Err(Stop::Gone),
                Ok(Err(Unanswered::Body(failure))) => return Err(self.refused(failure)),
                Ok(Err(Unanswered::Enclave(error))) => error,
                Err(_) => {
                    seldom!(
                        warn,
                        enclave = %member.name,
                        seconds = within.as_secs(),
                        "the enclave did not answer in time"
                    );
                    return Err(Problem::new(
                        StatusCode::GATEWAY_TIMEOUT,
                        "the enclave did not answer in time",
                    )
                    .into());
                }
            };
            match &error {
                Failure::Unreachable { .. } => member.failed(),
                // It may be the caller's doing: the enclave is asked.
                _ => member.look_again(),
            }
            // That it may have been processed stays true, whatever becomes of the second attempt.
            if !repeated {
                problem = Some(enclave_problem(&member, &error));
            }
            let reason = match &error {
                Failure::Unreachable { .. } => Rerouted::Away,
                Failure::Broken(_) if repeatable && !repeated => {
                    repeated = true;
                    Rerouted::BrokeOff
                }
                _ => break,
            };
            if self.fleet.choose(wanted, &tried).is_some() {
                self.metrics.rerouted(reason);
            }
        }
        let problem = problem.unwrap_or_else(|| {
            Problem::passing(
                StatusCode::SERVICE_UNAVAILABLE,
                1,
                "no enclave takes requests",
            )
        });
        Err(problem.into())
    }

    /// An object that the enclaves do not have any more.
    async fn stored(&self, digest: Digest) -> Option<Response<Bytes>> {
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
        permit: OwnedSemaphorePermit,
        place: Place,
        closes: bool,
    ) -> Result<Relayed, Problem> {
        let Answered {
            mut exchange,
            member,
            load,
        } = answered;
        if exchange.status().is_informational() {
            return Err(Problem::new(
                StatusCode::BAD_GATEWAY,
                format!("the enclave answered with {}", exchange.status()),
            ));
        }
        let hop = hop_by_hop(exchange.fields()).map_err(|field| {
            Problem::new(
                StatusCode::BAD_GATEWAY,
                format!("the enclave's Connection names {field}"),
            )
        })?;
        exchange.pass_head_on(&hop, closes);
        match exchange.framing() {
            // A small answer has all its bytes on the way: taken whole it leaves in one write, and the
            // connection to the enclave is free before the caller has read it.
            Framing::None | Framing::Length(..=body::SMALL) => {
                let whole = timeout(self.limits.idle_timeout, exchange.read_whole()).await;
                whole
                    .map_err(|_| {
                        Problem::new(
                            StatusCode::GATEWAY_TIMEOUT,
                            "the enclave's answer stopped in the middle",
                        )
                    })?
                    .map_err(|error| enclave_problem(&member, &error))?;
                Ok(Relayed::Whole(exchange.finish(), closes))
            }
            _ => {
                let streamed = Streamed {
                    exchange,
                    _held: (permit, place, load),
                };
                Ok(Relayed::Streamed(Box::new(streamed), closes))
            }
        }
    }

    /// Takes a request out of the inbox: all of it, if it is small and says so, and else its head. Says which, and holds the
    /// room that it takes.
    async fn incoming(
        &self,
        from: &mut Incoming<'_>,
        request: &Request,
    ) -> Result<(Vec<u8>, bool, Option<SemaphorePermit<'_>>), BodyFailure> {
        let (head, limit) = (request.length, self.limits.body_bytes);
        let taken = async {
            if matches!(request.framing, Framing::Length(length) if length > limit) {
                return Err(BodyFailure::TooLong);
            }
            let is_here = from.inbox.bytes().len() > head;
            if request.expects && request.framing != Framing::None && !is_here {
                from.stream.write_all(CONTINUE).await?;
            }
            match request.framing {
                Framing::None => Ok((from.inbox.take(head), true, None)),
                // Waiting for a small body to be complete also keeps slow callers from holding connections
                // to the enclave.
                Framing::Length(length @ ..=body::SMALL) => {
                    let whole = head.saturating_add(length as usize);
                    let (message, room) = from.whole(head, whole, &self.memory).await?;
                    Ok((message, true, room))
                }
                _ => Ok((from.inbox.take(head), false, None)),
            }
        };
        let taken = timeout(self.limits.body_timeout, taken).await;
        taken.unwrap_or(Err(BodyFailure::TooSlow))
    }

    /// What a body's failure is to the caller.
    fn refused(&self, failure: BodyFailure) -> Stop {
        let (refusal, problem) = match failure {
            BodyFailure::Gone => return Stop::Gone,
            BodyFailure::TooLong => (
                Refusal::BodyLength,
                Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "the body is longer than this host relays",
                ),
            ),
            BodyFailure::TooSlow => (
                Refusal::BodyTime,
                Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "the body did not arrive in time",
                ),
            ),
            BodyFailure::TwoReadings(violation) => (
                Refusal::Framing,
                Problem::two_readings(violation.to_string()),
            ),
            BodyFailure::NoRoom => (
                Refusal::Memory,
                Problem::passing(
                    StatusCode::SERVICE_UNAVAILABLE,
                    1,
                    "the host holds as many bytes of requests as it may",
                ),
            ),
        };
        self.metrics.refused(refusal);
        // The rest of the body is not read.
        problem.closing().into()
    }
}

/// Sends a request to one enclave and waits for the head of its answer, for as long as there is a caller.
async fn attempt(
    member: &Member,
    outgoing: &mut Outgoing<'_>,
    is_head: bool,
) -> Result<Exchange, Unanswered> {
    match outgoing {
        Outgoing::Full { message, from } => {
            let sent = from.unless_gone(member.public.send(message, is_head));
            Ok(sent.await.ok_or(Unanswered::Gone)??)
        }
        Outgoing::Stream { head, body } => {
            let mut exchange = member.public.begin(head, false, is_head).await?;
            while exchange.is_unanswered() && !body.has_ended() {
                let piece = poll_fn(|cx| match exchange.poll_head(cx) {
                    Poll::Ready(answered) => {
                        Poll::Ready(answered.map(|()| None).map_err(Into::into))
                    }
                    Poll::Pending => body.poll_piece(cx).map(|piece| match piece {
                        Ok(piece) => Ok(Some(piece)),
                        Err(failure) => Err(Unanswered::Body(failure)),
                    }),
                })
                .await?;
                let Some(piece) = piece else { break };
                exchange.write(body.piece(piece), piece.ended).await?;
                body.consume(piece);
            }
            // By now the body has ended, or the head is here.
            let answered = body.from.unless_gone(poll_fn(|cx| exchange.poll_head(cx)));
            answered.await.ok_or(Unanswered::Gone)??;
            Ok(exchange)
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

fn enclave_problem(member: &Member, error: &Failure) -> Problem {
    seldom!(warn, enclave = %member.name, %error, "a request could not be relayed");
    match error {
        Failure::Unreachable { .. } => Problem::passing(
            StatusCode::SERVICE_UNAVAILABLE,
            1,
            "the enclave cannot be reached; nothing was sent to it",
        ),
        Failure::TwoReadings(_) => Problem::new(
            StatusCode::BAD_GATEWAY,
            "where the enclave's answer ends could be read in two ways",
        ),
        Failure::TooLong(_) => Problem::new(
            StatusCode::BAD_GATEWAY,
            "the head of the enclave's answer is longer than this host takes",
        ),
        Failure::Broken(_) => Problem::new(
            StatusCode::BAD_GATEWAY,
            "the connection to the enclave ended before its answer was complete; the request may have been processed",
        ),
    }
}
