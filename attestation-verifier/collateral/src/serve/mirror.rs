//! Answers as AMD's and Intel's services (and a PCCS) do, out of the cache, and asks them on a miss.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use touchstone_formats::text::hex_encode;

use super::State;
use crate::Error;
use crate::fetch::{Fetcher, Fresh};
use crate::item::{Encoding, Item};
use crate::verify::Piece;

/// Connections at the same time.
const CONNECTIONS: usize = 64;
/// VCEK certificates that are waited for at the same time: each may wait ten seconds for its turn.
const WAITING: usize = 4;
/// How long a refusal is remembered, so that who asks again and again does not reach the vendor each time.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Refusals that are remembered.
const MOST_REMEMBERED: usize = 1024;
/// Longest time for a request's head.
const HEAD: Duration = Duration::from_secs(10);

/// A server like the vendors'.
pub struct Mirror {
    fetcher: Arc<Fetcher>,
    state: State,
    waiting: Semaphore,
    refused: Mutex<HashMap<String, (Instant, StatusCode, String)>>,
}

impl Mirror {
    /// A server over this fetcher's cache; `/status` and `/metrics` tell of this state.
    pub fn new(fetcher: Arc<Fetcher>, state: State) -> Arc<Mirror> {
        Arc::new(Mirror {
            fetcher,
            state,
            waiting: Semaphore::new(WAITING),
            refused: Mutex::default(),
        })
    }

    /// Answers whoever connects, for ever.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> Error {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return Error::Usage("the listener was closed".into());
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, say: the next may do.
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let mirror = self.clone();
            tokio::spawn(async move {
                let _place = place;
                let answer = service_fn(|request| {
                    let mirror = mirror.clone();
                    async move { Ok::<_, Infallible>(mirror.answer(request).await) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .serve_connection(TokioIo::new(stream), answer);
                // Whatever broke broke between the two; there is nobody to tell.
                let _ = served.await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            let mut refusal = words(StatusCode::METHOD_NOT_ALLOWED, "GET alone is answered");
            let headers = refusal.headers_mut();
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
            return refusal;
        }
        let target = request.uri().path_and_query().map_or("", |t| t.as_str());
        match target {
            "/metrics" => plain(
                "text/plain; version=0.0.4",
                self.state.metrics(self.fetcher.now()),
            ),
            "/status" => match self.state.to_json() {
                Some(status) => plain("application/json", format!("{status}\n")),
                None => words(
                    StatusCode::NOT_FOUND,
                    "no platform is kept, or nothing is known of it yet",
                ),
            },
            _ => match Item::of_target(target) {
                Some((item, encoding)) => self.piece(&item, encoding).await,
                None => words(
                    StatusCode::NOT_FOUND,
                    "neither an address of AMD's key distribution service nor of Intel's provisioning certification service \
                     that is served here",
                ),
            },
        }
    }

    async fn piece(&self, item: &Item, encoding: Encoding) -> Response<Full<Bytes>> {
        let key = item.file_name();
        if let Some((status, reason)) = self.remembered(&key) {
            return refusal(status, &reason);
        }
        let _waiting = match item {
            Item::Vcek { .. } => match self.waiting.try_acquire() {
                Ok(place) => Some(place),
                Err(_) => {
                    let reason = "too many VCEK certificates are waited for";
                    return refusal(StatusCode::SERVICE_UNAVAILABLE, reason);
                }
            },
            _ => None,
        };
        match self.fetcher.obtain(item, Fresh::WhenDue).await {
            Ok(had) => give(&had.piece, encoding),
            Err(error) => {
                tracing::warn!(%error, "not served");
                let status = match &error {
                    Error::Status { status: 404, .. } => StatusCode::NOT_FOUND,
                    Error::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
                    Error::Io { .. } | Error::Usage(_) => StatusCode::INTERNAL_SERVER_ERROR,
                    _ => StatusCode::BAD_GATEWAY,
                };
                let reason = error.to_string();
                self.remember(key, status, reason.clone());
                refusal(status, &reason)
            }
        }
    }

    fn remembered(&self, key: &str) -> Option<(StatusCode, String)> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, status, reason) = refused.get(key)?;
        (Instant::now() < *until).then(|| (*status, reason.clone()))
    }

    fn remember(&self, key: String, status: StatusCode, reason: String) {
        let now = Instant::now();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, (until, _, _)| now < *until);
        if refused.len() < MOST_REMEMBERED {
            refused.insert(key, (now + REMEMBERED, status, reason));
        }
    }
}

fn give(piece: &Piece, encoding: Encoding) -> Response<Full<Bytes>> {
    let (kind, header) = match piece.item {
        Item::Vcek { .. } => ("application/octet-stream", None),
        Item::AmdChain { .. } => ("application/x-pem-file", None),
        Item::AmdCrl { .. } | Item::IntelRootCrl => ("application/pkix-crl", None),
        Item::PckCrl { .. } => ("application/pkix-crl", Some("sgx-pck-crl-issuer-chain")),
        Item::TcbInfo { .. } => ("application/json", Some("tcb-info-issuer-chain")),
        Item::QeIdentity => (
            "application/json",
            Some("sgx-enclave-identity-issuer-chain"),
        ),
    };
    let mut response = match encoding {
        Encoding::Der => plain(kind, piece.body.clone()),
        Encoding::Hex => plain("text/plain", hex_encode(&piece.body)),
    };
    let chain = piece.issuer_chain.as_deref().map(percent_encode);
    let chain = chain.and_then(|chain| HeaderValue::from_str(&chain).ok());
    if let (Some(name), Some(chain)) = (header, chain) {
        let name = HeaderName::from_static(name);
        response.headers_mut().insert(name, chain);
    }
    response
}

/// URL encoding, as Intel encodes its chains.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn plain(kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn words(status: StatusCode, reason: &str) -> Response<Full<Bytes>> {
    let mut response = plain("text/plain", format!("{reason}\n"));
    *response.status_mut() = status;
    response
}

/// A refusal that may pass: with the time to wait.
fn refusal(status: StatusCode, reason: &str) -> Response<Full<Bytes>> {
    let mut response = words(status, reason);
    if status != StatusCode::NOT_FOUND {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}
