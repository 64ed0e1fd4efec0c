//! What the operator asks the host, and tells it: on listeners of their own, which callers do not reach.
//!
//! A TCP listener for what may be read (`/metrics`, `/status`, `/live`, `/ready`), and a Unix socket, which its owner
//! alone can open, for that and for orders (`POST /drain/NAME`, `POST /resume/NAME`).

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::{
    fleet::{Condition, DrainError},
    metrics::{Metrics, Sources},
};

/// Connections at once, of each listener.
const CONNECTIONS: usize = 16;
/// Longest time of a connection: a drain may take so long.
const WITHIN: Duration = Duration::from_secs(3_600);
/// Longest time for a head.
const HEAD: Duration = Duration::from_secs(5);
/// Time that a drain leaves to requests and connections when nobody says otherwise.
const DRAIN_SECONDS: u64 = 30;

type Reply = Response<Full<Bytes>>;

/// What answers the operator.
#[derive(Debug)]
pub struct Operation {
    metrics: Arc<Metrics>,
    sources: Sources,
}

/// Who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    Read,
    Order,
}

#[derive(Serialize)]
struct Status<'a> {
    ready: bool,
    pending_receipts: usize,
    enclaves: Vec<EnclaveStatus<'a>>,
}

#[derive(Serialize)]
struct EnclaveStatus<'a> {
    name: &'a str,
    condition: Condition,
    held: bool,
    requests: usize,
    tls_connections: usize,
    unsealed: Option<u64>,
    oldest_unacknowledged: Option<u64>,
    catalog_epoch: Option<u64>,
    keyset_expires: Option<u64>,
}

impl Operation {
    /// Answers from these.
    pub fn new(metrics: Arc<Metrics>, sources: Sources) -> Arc<Self> {
        Arc::new(Self { metrics, sources })
    }

    /// Serves what may be read until told to stop.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted.map(|(stream, _)| stream),
                _ = stop.wait_for(|stop| *stop) => return,
            };
            self.clone().take(accepted, &slots, Rights::Read).await;
        }
    }

    /// Serves orders too, until told to stop. The socket is removed then.
    pub async fn serve_orders(
        self: Arc<Self>,
        listener: UnixListener,
        path: PathBuf,
        mut stop: watch::Receiver<bool>,
    ) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted.map(|(stream, _)| stream),
                _ = stop.wait_for(|stop| *stop) => break,
            };
            self.clone().take(accepted, &slots, Rights::Order).await;
        }
        let _ = std::fs::remove_file(path);
    }

    async fn take<S>(
        self: Arc<Self>,
        accepted: io::Result<S>,
        slots: &Arc<Semaphore>,
        rights: Rights,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "an operator's connection was not accepted");
                return tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Beyond the few that there are, closed.
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            let service = service_fn(|request| self.answer(request, rights));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            let _ = timeout(WITHIN, connection).await;
            drop(slot);
        });
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        rights: Rights,
    ) -> Result<Reply, Infallible> {
        let path = request.uri().path();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let order = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        Ok(match (path, order) {
            ("/metrics", _) if reads => match self.metrics.text(&self.sources) {
                Ok(text) => reply(200, "text/plain; version=0.0.4; charset=utf-8", text),
                Err(error) => plain(500, format!("{error}\n")),
            },
            ("/status", _) if reads => reply(200, "application/json", self.status()),
            ("/live", _) if reads => plain(200, "live\n"),
            ("/ready", _) if reads => match self.sources.fleet.is_ready() {
                true => plain(200, "ready\n"),
                false => plain(503, "no enclave takes requests\n"),
            },
            (_, Some(("drain" | "resume", _))) if rights == Rights::Read => {
                plain(403, "orders are taken on the operator's socket alone\n")
            }
            (_, Some(("drain", name))) if request.method() == Method::POST => {
                let (within, force) = drain_query(request.uri().query().unwrap_or_default());
                let drained = self.sources.fleet.drain(name, within, force).await;
                told(drained, "drained: it can be stopped\n")
            }
            (_, Some(("resume", name))) if request.method() == Method::POST => {
                told(self.sources.fleet.resume(name), "resumed\n")
            }
            _ => plain(404, "nothing is here\n"),
        })
    }

    fn status(&self) -> String {
        let members = self.sources.fleet.members().iter();
        let enclaves = members.map(|member| {
            let health = member.health();
            let status = health.status.as_ref();
            EnclaveStatus {
                name: &member.name,
                condition: health.condition,
                held: member.is_held(),
                requests: member.requests(),
                tls_connections: member.passed(),
                unsealed: status.map(|status| status.pending),
                oldest_unacknowledged: status.map(|status| status.batches.oldest),
                catalog_epoch: status.map(|status| status.catalog_epoch),
                keyset_expires: Some(member.puller.keyset_expires()).filter(|at| *at > 0),
            }
        });
        let status = Status {
            ready: self.sources.fleet.is_ready(),
            pending_receipts: self.sources.pending.len(),
            enclaves: enclaves.collect(),
        };
        // Words and numbers: this cannot fail.
        serde_json::to_string(&status).unwrap_or_default() + "\n"
    }
}

/// `within=SECONDS` and `force`, in any order.
fn drain_query(query: &str) -> (Duration, bool) {
    let (mut within, mut force) = (DRAIN_SECONDS, false);
    for part in query.split('&') {
        match part.split_once('=') {
            Some(("within", seconds)) => within = seconds.parse().unwrap_or(within),
            _ => force |= part == "force",
        }
    }
    (Duration::from_secs(within.min(WITHIN.as_secs() / 2)), force)
}

fn told(result: Result<(), DrainError>, done: &str) -> Reply {
    match result {
        Ok(()) => plain(200, done.to_owned()),
        Err(error) => {
            let status = match &error {
                DrainError::Unknown(_) => 404,
                DrainError::Last => 409,
                DrainError::Control(_) => 502,
                DrainError::NotInTime { .. } => 504,
            };
            plain(status, format!("{error}\n"))
        }
    }
}

fn plain(status: u16, text: impl Into<String>) -> Reply {
    reply(status, "text/plain; charset=utf-8", text.into())
}

fn reply(status: u16, content_type: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = HeaderValue::from_static(content_type);
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

/// Opens the socket for orders, for this user alone. One that a host before left behind is replaced; one that
/// another host serves is not.
///
/// # Errors
/// What the system says.
pub fn listen_orders(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    if let Ok(metadata) = std::fs::symlink_metadata(path)
        && std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type())
    {
        std::fs::remove_file(path)?;
    }
    // Made under a name that nobody looks for, so that it has its mode before anybody can open it.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}
