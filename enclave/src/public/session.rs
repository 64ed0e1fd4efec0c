//! Sessions: what a request came in through, the exchange that binds a TLS connection to this
//! enclave (formats.md §10), and boot evidence for whoever seals requests instead (§13).
//!
//! A TLS connection belongs to the keyset in force when its handshake began. It serves nothing before a
//! session was answered on it, and nothing once another keyset is in force: its caller trusts that keyset
//! and no other, and connects anew.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use hyper::{Method, StatusCode, http::request::Parts};
use touchstone_formats::{
    digest::Digest,
    keyset::Keyset,
    report_data::{Purpose, bind_boot, bind_session, report_data},
    session::{MAX_SESSION_REQUEST, SessionAnswer, SessionRequest},
};

use super::{
    Reply,
    framing::{self, RequestBody},
    json,
    reply::Counted,
    target::Target,
};
use crate::{
    admission::{self, RETRY_LOAD, Share},
    net::Stream,
    problem::Problem,
    quote::QuoteSlot,
    service::Service,
    tls::SharedStream,
};

/// What requests came in through.
#[derive(Clone)]
pub enum Channel {
    /// HTTP, which whoever relays it can read.
    Plain,
    /// TLS that ends here.
    Tls(Arc<TlsChannel>),
    /// A sealed request (Oblivious HTTP), opened by the key of this keyset.
    Sealed(Digest),
}

/// One TLS connection.
pub struct TlsChannel {
    stream: SharedStream,
    /// The keyset whose key made the handshake.
    keyset: Digest,
    /// Digest of that key.
    spki: Digest,
    /// Whether a session was answered on it.
    established: AtomicBool,
}

impl TlsChannel {
    /// Makes the handshake under the keyset in force.
    ///
    /// # Errors
    /// No keyset is in force, or the handshake fails.
    pub async fn open(service: &Service, stream: Stream) -> io::Result<(SharedStream, Arc<Self>)> {
        let (keyset, key) = match service.current() {
            Some(epoch) => (epoch.digest, epoch.tls.clone()),
            None => return Err(io::Error::other("no keyset is in force")),
        };
        let key = key.ok_or_else(|| io::Error::other("the keyset has no TLS key"))?;
        let stream = key.accept(stream).await?;
        let channel = Self {
            stream: stream.clone(),
            keyset,
            spki: key.spki,
            established: AtomicBool::new(false),
        };
        Ok((stream, Arc::new(channel)))
    }
}

impl Channel {
    /// Whether a request may be looked at: on a TLS connection none after its keyset's time, and none but
    /// for a session before there is one.
    ///
    /// # Errors
    /// 421: the request was not processed.
    pub(super) fn open_for(
        &self,
        service: &Service,
        method: &Method,
        target: &Result<Target, Problem>,
    ) -> Result<(), Problem> {
        let Self::Tls(tls) = self else { return Ok(()) };
        if let Some(epoch) = service.current() {
            self.belongs_to(&epoch.digest)?;
        }
        let asks_for_session = *method == Method::POST && matches!(target, Ok(Target::Session));
        if asks_for_session || tls.established.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(misdirected(
            "the first request on a TLS connection is POST /v1/session: nothing else is answered before it",
        ))
    }

    /// Refuses what would be done under another keyset than the connection's.
    ///
    /// # Errors
    /// 421, and the connection closes.
    pub(super) fn belongs_to(&self, keyset: &Digest) -> Result<(), Problem> {
        match self {
            Self::Tls(tls) if tls.keyset != *keyset => Err(Problem {
                close: true,
                ..misdirected(
                    "another keyset is in force since this connection was made: connect anew and ask for a session",
                )
            }),
            Self::Sealed(own) if own != keyset => Err(misdirected(
                "another keyset is in force since this request was sealed: ask for it, and seal to its key",
            )),
            _ => Ok(()),
        }
    }
}

/// Answers `POST /v1/session`. The body is taken when all of it was read.
///
/// # Errors
/// 421 on a connection that is not TLS, or whose keyset is no longer in force; 503 while there are no
/// quotes, or too many callers wait for one; 4xx for a request that is not as it should be.
pub(super) async fn session(
    service: Arc<Service>,
    channel: &Channel,
    head: Parts,
    body: &mut Option<RequestBody>,
) -> Result<Reply, Problem> {
    let Channel::Tls(tls) = channel else {
        return Err(misdirected(
            "a session binds a TLS connection that ends inside the enclave, and this connection is none",
        ));
    };
    let Asked {
        request,
        share,
        keyset,
        slot,
        ..
    } = asked(&service, channel, head, body).await?;
    let exporter = tls.stream.exporter(&request.nonce).map_err(|error| {
        tracing::error!(%error, "a TLS connection has no exporter");
        Problem::new(500, "Internal error", "this connection has no exporter")
    })?;
    let data = report_data(
        Purpose::Session,
        tls.keyset,
        Some(&request.nonce),
        bind_session(tls.spki, &exporter),
    );
    let quote = service.quoter.session(slot, data).await;
    let evidence = quote
        .ok_or_else(no_quotes)?
        .into_evidence(Purpose::Session, Some(request.nonce.to_vec()));
    if let Some(epoch) = service.current() {
        channel.belongs_to(&epoch.digest)?;
    }
    tls.established.store(true, Ordering::Relaxed);
    Ok(answered(SessionAnswer { keyset, evidence }, share))
}

/// Answers `POST /v1/boot`: evidence of purpose `boot` over the keyset in force and the caller's nonce, so that he may seal
/// requests to its key. It proves itself, whatever it comes over.
///
/// # Errors
/// 503 while there are no quotes, or too many callers wait for one; 421 when another keyset comes into force meanwhile; 4xx for a
/// request that is not as it should be.
pub(super) async fn boot(
    service: Arc<Service>,
    channel: &Channel,
    head: Parts,
    body: &mut Option<RequestBody>,
) -> Result<Reply, Problem> {
    let Asked {
        request,
        share,
        keyset,
        digest,
        slot,
    } = asked(&service, channel, head, body).await?;
    let data = report_data(Purpose::Boot, digest, Some(&request.nonce), bind_boot());
    let quote = service.quoter.session(slot, data).await;
    let evidence = quote
        .ok_or_else(no_quotes)?
        .into_evidence(Purpose::Boot, Some(request.nonce.to_vec()));
    if service.current().is_none_or(|epoch| epoch.digest != digest) {
        return Err(misdirected(
            "another keyset came into force while the quote was made: ask again",
        ));
    }
    Ok(answered(SessionAnswer { keyset, evidence }, share))
}

/// What a request for evidence asks for, and what it is to be about.
struct Asked {
    request: SessionRequest,
    share: Share,
    keyset: Keyset,
    digest: Digest,
    slot: QuoteSlot,
}

async fn asked(
    service: &Service,
    channel: &Channel,
    head: Parts,
    body: &mut Option<RequestBody>,
) -> Result<Asked, Problem> {
    if framing::header_length(&head.headers)?.is_some() {
        return Err(framing::bad(
            "a request for a session has no Inference-Header-Content-Length",
        ));
    }
    let time = service.config.limits.body_timeout;
    let (bytes, share) =
        framing::whole_body(body, MAX_SESSION_REQUEST, &service.held, time).await?;
    let request = SessionRequest::parse(&bytes)
        .map_err(|error| framing::bad(format!("not a request for a session: {error}")))?;

    // No guest beyond this block: whoever waits for a quote of a session keeps no log open.
    let (keyset, digest) = {
        let guest = service.enter()?;
        channel.belongs_to(&guest.digest)?;
        if guest.issued_at().is_none() {
            return Err(admission::expired());
        }
        (guest.keyset.clone(), guest.digest)
    };
    if service.quoter.failing() {
        return Err(no_quotes());
    }
    let slot = service.quoter.reserve_session().ok_or_else(|| {
        Problem::unavailable(
            "Too many sessions waiting",
            "too many callers wait for the quote of their session",
            RETRY_LOAD,
        )
    })?;
    Ok(Asked {
        request,
        share,
        keyset,
        digest,
        slot,
    })
}

fn answered(answer: SessionAnswer, mut share: Share) -> Reply {
    let answer = answer.to_file();
    share.set(answer.len());
    let answer = Bytes::from_owner(Counted(answer.into(), share));
    json(StatusCode::OK, answer)
}

fn no_quotes() -> Problem {
    admission::no_quotes(
        "a session needs one; nothing else is answered on a connection before its first",
    )
}

fn misdirected(detail: &'static str) -> Problem {
    Problem::new(421, "Misdirected request", detail)
}
