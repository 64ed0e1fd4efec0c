//! The control listener: what the host alone uses (docs/control-protocol.md).
//!
//! It is untrusted, and small for that reason: it hands out what was sealed, forgets what was
//! acknowledged and can stop admission. Nothing here changes a catalog, an answer or a policy.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;
use touchstone_formats::{
    control::{
        Ack, BatchRange, KeysetEntry, KeysetState, Keysets, MAX_BATCHES, MAX_WAIT, PendingReceipt,
        QuoteCounts, QuoteHealth, Status, V,
    },
    digest::Digest,
    text::{Base64Bytes, Hex16, hex_array},
};

use crate::{problem::Problem, service::Service};

type Reply = Response<Full<Bytes>>;

/// Longest body of a control request.
const BODY_MAX: usize = 4_096;
/// Longest time for it.
const BODY_TIME: Duration = Duration::from_secs(5);

/// Answers one request of the host.
pub async fn handle(service: Arc<Service>, request: Request<Incoming>) -> Reply {
    match route(service, request).await {
        Ok(reply) => reply,
        Err(problem) => problem.response(),
    }
}

async fn route(service: Arc<Service>, request: Request<Incoming>) -> Result<Reply, Problem> {
    let path = request.uri().path();
    let Some(path) = path.strip_prefix("/control/v1/") else {
        return Err(unknown());
    };
    let get = || match *request.method() {
        Method::GET => Ok(()),
        _ => Err(Problem::method("GET")),
    };
    let post = || match *request.method() {
        Method::POST => Ok(()),
        _ => Err(Problem::method("POST")),
    };
    match path.split_once('/').unwrap_or((path, "")) {
        ("status", "") => get().map(|()| json(&status(&service))),
        ("keysets", "") => get().map(|()| json(&keysets(&service))),
        ("objects", digest) => {
            get()?;
            let digest = Digest::from_hex(digest)
                .map_err(|_| bad("a digest is 64 lower-case hex digits"))?;
            service.object(&digest).map(body).ok_or_else(|| {
                Problem::new(404, "Unknown object", "no object with this digest is here")
            })
        }
        ("receipts", id) => {
            get()?;
            let id = hex_array::<16>(id)
                .map_err(|_| bad("a receipt's id is 32 lower-case hex digits"))?;
            let Some((keyset_digest, receipt)) = service.outbox.receipt(&id) else {
                return Err(Problem::new(
                    404,
                    "Unknown receipt",
                    "no receipt with this id waits here",
                ));
            };
            Ok(json(&PendingReceipt {
                receipt: Base64Bytes(receipt.cose.clone()),
                keyset_digest,
            }))
        }
        ("batches", "") => {
            get()?;
            let (after, wait) = batches_query(request.uri().query().unwrap_or_default())?;
            Ok(batches(&service, after, wait).await)
        }
        ("collateral", "") => {
            get()?;
            let file = service.source.collateral().ok_or_else(|| {
                Problem::new(
                    404,
                    "No collateral",
                    "the platform puts no certificates beside its quotes",
                )
            })?;
            Ok(body(file.to_file().into()))
        }
        ("ack", "") => {
            post()?;
            acknowledge(&service, request).await
        }
        ("drain", "") => {
            post()?;
            // Once: a drain may wait for as long as the platform gives no quotes, and each asks for room.
            if !service.draining() {
                tokio::spawn(async move { service.drain().await });
            }
            Ok(empty(StatusCode::ACCEPTED))
        }
        _ => Err(unknown()),
    }
}

fn status(service: &Service) -> Status {
    let epoch = service.current();
    let range = service.outbox.range();
    let counters = service.quoter.counters();
    Status {
        v: V,
        boot: Hex16(service.boot),
        serving: epoch.is_some() && !service.draining(),
        draining: service.draining(),
        keyset_digest: epoch.as_ref().map(|epoch| epoch.digest),
        pending: service.outbox.unsealed() as u64,
        batches: BatchRange {
            oldest: range.oldest,
            newest: range.newest,
        },
        quote: if service.quoter.failing() {
            QuoteHealth::Failing
        } else {
            QuoteHealth::Ok
        },
        catalog_epoch: epoch
            .as_ref()
            .map_or(0, |epoch| epoch.catalog.load().catalog.epoch),
        catalog_digest: epoch.map(|epoch| epoch.catalog.load().digest),
        quotes: Some(QuoteCounts {
            made: counters.made.load(Relaxed),
            failed: counters.failed.load(Relaxed),
            microseconds: counters.microseconds.load(Relaxed),
        }),
    }
}

fn keysets(service: &Service) -> Keysets {
    let current = service.current().map(|epoch| epoch.digest);
    let keysets = service
        .keyset_records()
        .into_iter()
        .map(|record| KeysetEntry {
            state: if Some(record.digest) == current {
                KeysetState::Current
            } else {
                KeysetState::Closed
            },
            keyset: record.keyset,
            evidence: record.evidence,
        })
        .collect();
    Keysets {
        boot: Hex16(service.boot),
        keysets,
    }
}

/// `after=N&wait=S`, either absent.
fn batches_query(query: &str) -> Result<(u64, Duration), Problem> {
    let (mut after, mut wait) = (0, 0);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (slot, digits) = match pair.split_once('=') {
            Some(("after", digits)) => (&mut after, digits),
            Some(("wait", digits)) => (&mut wait, digits),
            _ => return Err(bad("the query may hold after=<number> and wait=<seconds>")),
        };
        *slot = digits
            .parse::<u64>()
            .map_err(|_| bad("after and wait are decimal numbers"))?;
    }
    Ok((after, Duration::from_secs(wait.min(MAX_WAIT))))
}

async fn batches(service: &Service, after: u64, wait: Duration) -> Reply {
    let batches = service.outbox.after(after, wait, MAX_BATCHES).await;
    let length: usize = batches.iter().map(|batch| batch.json.len() + 32).sum();
    let mut out = Vec::with_capacity(length + 64);
    out.extend_from_slice(b"{\"boot\":\"");
    out.extend_from_slice(hex::encode(service.boot).as_bytes());
    out.extend_from_slice(b"\",\"batches\":[");
    for (at, batch) in batches.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{" } else { b",{" });
        out.extend_from_slice(format!("\"number\":{}", batch.number).as_bytes());
        out.extend_from_slice(&batch.json);
    }
    out.extend_from_slice(b"]}");
    body(out.into())
}

async fn acknowledge(service: &Service, request: Request<Incoming>) -> Result<Reply, Problem> {
    let read = tokio::time::timeout(
        BODY_TIME,
        Limited::new(request.into_body(), BODY_MAX).collect(),
    );
    let Ok(Ok(collected)) = read.await else {
        return Err(bad("the body is too long, too slow or broken"));
    };
    let ack: Ack = serde_json::from_slice(&collected.to_bytes())
        .map_err(|_| bad("expected {\"boot\":\"<32 hex>\",\"through\":<number>}"))?;
    if ack.boot != Hex16(service.boot) {
        return Err(Problem::new(
            409,
            "Another boot",
            "this enclave was started anew since; look at its status",
        ));
    }
    service.acknowledge(ack.through);
    Ok(empty(StatusCode::NO_CONTENT))
}

fn json<T: Serialize>(value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(bytes) => body(bytes.into()),
        Err(error) => {
            tracing::error!(%error, "a control answer could not be written");
            Problem::new(500, "Internal error", "the answer could not be written").response()
        }
    }
}

fn body(bytes: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(bytes));
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}

fn bad(detail: &str) -> Problem {
    Problem::new(400, "Bad control request", detail)
}

fn unknown() -> Problem {
    Problem::new(404, "Unknown target", "nothing is here")
}
