//! A caller's connection: one request after the other, each with its answer.

use std::{future::poll_fn, io, net::IpAddr, sync::atomic::Ordering::SeqCst, task::Poll};

use bytes::Bytes;
use hyper::{
    Method, Response, StatusCode, Uri,
    header::{CONNECTION, HeaderValue},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    Relay,
    body::Incoming,
    buffers,
    fields::{Fields, hop_by_hop},
    forward::{Relayed, Request, Stop},
    inbox::Inbox,
    shed,
    strict::{Framing, Head, Violation},
    target,
};
use crate::{
    clients::Place, collateral, limits::Activity, manifest, metrics::Refusal, problem::Problem,
};

/// One connection.
pub(super) struct Caller<'a> {
    relay: &'a Relay,
    stream: TcpStream,
    peer: IpAddr,
    activity: &'a Activity,
    inbox: Inbox,
    /// Nothing follows the request that is being answered, or nothing can be told from it.
    closes: bool,
}

/// What comes next.
enum Next {
    Request(usize, Head),
    Refused(Refusal, Problem),
    Nothing,
}

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    /// Something may have come in that is not read.
    Part,
    End,
}

impl<'a> Caller<'a> {
    pub(super) fn new(
        relay: &'a Relay,
        stream: TcpStream,
        peer: IpAddr,
        activity: &'a Activity,
    ) -> Self {
        Self {
            relay,
            stream,
            peer,
            activity,
            inbox: Inbox::new(relay.limits.headers),
            closes: false,
        }
    }

    /// Answers until the caller has gone, or has to go. Bounded in time by who polls it (`Activity`).
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn serve(mut self) -> io::Result<()> {
        loop {
            let then = match self.next().await? {
                Next::Request(length, head) => self.request(length, head).await?,
                Next::Refused(refusal, problem) => {
                    self.relay.metrics.refused(refusal);
                    self.closes = true;
                    self.say(problem.into_response(), false).await?;
                    Then::Part
                }
                Next::Nothing => Then::End,
            };
            match then {
                Then::GoOn => {}
                Then::Part => return shed::part(&mut self.stream).await,
                Then::End => return Ok(()),
            }
        }
    }

    /// Waits for the head of a request.
    async fn next(&mut self) -> io::Result<Next> {
        let too_large = |what: &str| {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            Next::Refused(Refusal::Head, Problem::new(status, what))
        };
        let limit = self.relay.limits.header_bytes;
        loop {
            let head = self.inbox.head();
            let length = self.inbox.bytes().len();
            return Ok(match head {
                Ok(Some((length, head))) if length <= limit => Next::Request(length, head),
                Ok(None) if length < limit => {
                    if length > 0 {
                        self.activity.received();
                    }
                    let more = poll_fn(|cx| {
                        if length == 0 && self.relay.closing.load(SeqCst) {
                            return Poll::Ready(Ok(0));
                        }
                        self.inbox.poll_more(&mut self.stream, cx)
                    });
                    if more.await? == 0 {
                        return Ok(Next::Nothing);
                    }
                    continue;
                }
                Ok(_) => too_large("the head of the request is longer than this host takes"),
                Err(Violation::Fields) => {
                    too_large("the request has more fields than this host takes")
                }
                Err(violation) => {
                    tracing::debug!(%violation, "a request is refused: it could be read in two ways");
                    let problem = Problem::two_readings(violation.to_string());
                    Next::Refused(Refusal::Framing, problem)
                }
            });
        }
    }

    /// Answers one request.
    async fn request(&mut self, length: usize, head: Head) -> io::Result<Then> {
        self.activity.requested();
        let is_head = self.inbox.bytes().starts_with(b"HEAD ");
        let relayed = match self.answer(length, head).await {
            Ok(relayed) => relayed,
            Err(Stop::Problem(problem)) => Relayed::Own(problem.into_response()),
            Err(Stop::Gone) => return Ok(Then::End),
        };
        // A slow reader has this long for each piece.
        self.activity.progressed();
        let closes = match relayed {
            Relayed::Whole(bytes, closes) => {
                self.stream.write_all(&bytes).await?;
                buffers::give_back(bytes);
                closes
            }
            Relayed::Streamed(mut streamed, closes) => {
                let exchange = &mut streamed.exchange;
                loop {
                    self.stream.write_all(exchange.came()).await?;
                    exchange.let_go();
                    if exchange.has_ended() {
                        break;
                    }
                    let mut from = self.incoming();
                    let piece = from.unless_gone(poll_fn(|cx| exchange.poll_piece(cx)));
                    match piece.await {
                        Some(Ok(())) => self.activity.progressed(),
                        // Half an answer ends with its connection, and cannot be taken for a whole one.
                        Some(Err(error)) => return Err(io::Error::other(error)),
                        None => return Ok(Then::End),
                    }
                }
                buffers::give_back(streamed.exchange.finish());
                closes
            }
            Relayed::Own(response) => {
                // What was not read of the request cannot be told from the next.
                self.closes |= !self.inbox.skip();
                self.say(response, is_head).await?
            }
        };
        self.activity.idle();
        Ok(match closes {
            true => Then::Part,
            false => Then::GoOn,
        })
    }

    /// Finds the answer to one request: the host's own, or an enclave's.
    async fn answer(&mut self, length: usize, head: Head) -> Result<Relayed, Stop> {
        let relay = self.relay;
        let (request, place) = self.admit(length, head)?;
        let (method, path) = (&request.method, request.uri.path());
        let receipt = relay.receipts.path(method, path);
        if receipt.is_none() && path != collateral::PATH && path != manifest::PATH {
            let closes = self.closes;
            let closing = || closes || relay.closing.load(SeqCst);
            let from = self.incoming();
            return relay.forwarder.forward(from, request, place, closing).await;
        }
        let map = Fields::of(self.inbox.bytes().get(..length).unwrap_or_default()).to_map();
        let map = map.ok_or_else(|| Problem::two_readings("a field is not one"))?;
        // Behind what was read it would not be seen that the caller has gone.
        self.inbox.skip();
        let query = request.uri.query();
        let own = match receipt {
            Some(name) => {
                // It may take its time.
                let mut from = self.incoming();
                let answered = from.unless_gone(relay.receipts.answer(method, name, query, &map));
                let answered = answered.await.ok_or(Stop::Gone)?;
                relay.metrics.receipt_answered(match &answered {
                    Ok(answer) => answer.status(),
                    Err(problem) => problem.status,
                });
                answered
            }
            None if path == collateral::PATH => relay.collateral.answer(method, query),
            None => relay.manifest.answer(method, query, &map),
        };
        Ok(Relayed::Own(own.unwrap_or_else(Problem::into_response)))
    }

    /// Where what comes in is read.
    fn incoming(&mut self) -> Incoming<'_> {
        Incoming {
            stream: &mut self.stream,
            inbox: &mut self.inbox,
        }
    }

    /// Reads a head, and takes its client's place.
    fn admit(&mut self, length: usize, head: Head) -> Result<(Request, Place), Problem> {
        let metrics = &self.relay.metrics;
        let refused = |refusal, problem: Problem| {
            metrics.refused(refusal);
            problem.closing()
        };
        if !head.is_1_1 {
            let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            let problem = Problem::new(status, "this host speaks HTTP/1.1");
            return Err(refused(Refusal::Version, problem));
        }
        let fields = Fields::of(self.inbox.bytes().get(..length).unwrap_or_default());
        let request = request(fields, length, head.framing);
        let request = request.map_err(|problem| refused(Refusal::Framing, problem))?;
        self.closes = request.hop.closes;
        let place = self.relay.clients.request(self.peer, fields);
        let place = place.ok_or_else(|| {
            metrics.refused(Refusal::ClientInFlight);
            Problem::passing(
                StatusCode::TOO_MANY_REQUESTS,
                1,
                "this client has as many requests under way as it may",
            )
        })?;
        Ok((request, place))
    }

    /// Says something of the host's own. Gives whether nothing follows.
    async fn say(&mut self, mut response: Response<Bytes>, to_head: bool) -> io::Result<bool> {
        let close = HeaderValue::from_static("close");
        if self.closes || self.relay.closing.load(SeqCst) {
            response.headers_mut().insert(CONNECTION, close.clone());
        }
        let closes = response.headers().get(CONNECTION) == Some(&close);
        self.stream.write_all(&written(&response, to_head)).await?;
        Ok(closes)
    }
}

/// What a head asks for, if it asks for one thing.
fn request(fields: Fields<'_>, length: usize, framing: Framing) -> Result<Request, Problem> {
    let mut parts = fields.first_line().split(|byte| *byte == b' ');
    let method = Method::from_bytes(parts.next().unwrap_or_default())
        .map_err(|_| Problem::two_readings("the method is none"))?;
    let uri = Uri::try_from(parts.next().unwrap_or_default())
        .map_err(|_| Problem::two_readings("the target is none"))?;
    target::check(&method, &uri, fields.first("host").unwrap_or_default())?;
    let hop = hop_by_hop(fields).map_err(|field| {
        Problem::two_readings(format!(
            "Connection names {field}, which is for the enclave and not for this connection"
        ))
    })?;
    let expected = fields.first("expect");
    Ok(Request {
        method,
        uri,
        length,
        framing,
        hop,
        expects: expected.is_some_and(|it| it.eq_ignore_ascii_case(b"100-continue")),
    })
}

/// The bytes of an answer.
fn written(response: &Response<Bytes>, to_head: bool) -> Vec<u8> {
    let (status, body) = (response.status(), response.body());
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    // Neither has a body, and the length would be another's (RFC 9110 §8.6).
    if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    if !to_head {
        bytes.extend_from_slice(body);
    }
    bytes
}
