//! Listening, and HTTP/1.1 connections with bounds in number, size and time.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{Instant, Sleep},
};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use crate::config::Address;

/// The number of header fields that hyper has room for on the stack, without being told one.
const HEADERS_FREE: usize = 100;

/// Shortest time between two warnings of closed connections: callers connect as fast as they like.
const WARNINGS: Duration = Duration::from_secs(1);

/// A bound socket.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// vsock.
    Vsock(VsockListener),
}

impl Listener {
    /// Binds.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Address::Vsock { cid, port } => {
                VsockListener::bind(VsockAddr::new(cid.unwrap_or(VMADDR_CID_ANY), *port))
                    .map(Self::Vsock)
            }
        }
    }

    /// Where it listens, with the port that the system chose.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Vsock(listener) => listener.local_addr().map(|address| Address::Vsock {
                cid: Some(address.cid()).filter(|cid| *cid != VMADDR_CID_ANY),
                port: address.port(),
            }),
        }
    }
}

/// Raises this process's limit of open files to what the system allows it, and gives it; none: there is no limit.
/// The usual soft limit of 1,024 is for programs that use `select`: one caller can open more connections.
pub fn open_files() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Refused: then it stays as it is.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    getrlimit(Resource::Nofile).current
}

/// Bounds of the connections of one listener.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most connections at once; further ones are closed at once.
    pub connections: usize,
    /// Longest request head in bytes.
    pub header_bytes: usize,
    /// Most header fields.
    pub headers: usize,
    /// Longest time for a request head, idle time before it included.
    pub header_timeout: Duration,
    /// Longest time in which a peer takes nothing of what is written to it.
    pub write_timeout: Duration,
}

/// A connected socket, of either kind.
pub type Stream = Box<dyn Socket>;

/// What a connected socket can do.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Opens connections that speak HTTP as they are, and have nothing about them that requests need to know.
pub fn plain<H: Clone>(handler: H) -> impl Fn(Stream) -> Ready<io::Result<(Stream, H)>> + Clone {
    move |stream| ready(Ok((stream, handler.clone())))
}

/// Serves until `shutdown` turns true; then takes no more connections, lets requests under way
/// finish, and returns when all connections are closed.
///
/// `open` makes of a socket, within the time that a request head may take, the stream that speaks HTTP and what
/// answers its requests. A connection counts from the moment that it is accepted.
pub async fn serve<O, A, S, H, F>(
    listener: Listener,
    bounds: Bounds,
    mut shutdown: watch::Receiver<bool>,
    open: O,
) where
    O: Fn(Stream) -> A + Send,
    A: Future<Output = io::Result<(S, H)>> + Send + 'static,
    S: Socket + 'static,
    H: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_header_size(bounds.header_bytes)
        .max_buf_size(bounds.header_bytes.max(64 << 10))
        // Never copied into one buffer: a body stays what it is, and counted, until it is written.
        .writev(true)
        .half_close(false);
    if bounds.headers != HEADERS_FREE {
        http.max_headers(bounds.headers);
    }
    let places = Arc::new(Semaphore::new(bounds.connections));
    let (mut closed, mut warned) = (0u64, None::<Instant>);
    loop {
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            accepted = accept(&listener) => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, or the peer went away: neither ends the listener.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            closed += 1;
            if warned.is_none_or(|at| at.elapsed() >= WARNINGS) {
                tracing::warn!(
                    limit = bounds.connections,
                    closed,
                    "too many connections; further ones were closed"
                );
                (closed, warned) = (0, Some(Instant::now()));
            }
            continue;
        };
        let (http, mut shutdown) = (http.clone(), shutdown.clone());
        let opening = tokio::time::timeout(bounds.header_timeout, open(stream));
        tokio::spawn(async move {
            let opened = tokio::select! {
                biased;
                opened = opening => opened.unwrap_or_else(|late| Err(late.into())),
                _ = shutdown.wait_for(|stop| *stop) => Err(io::ErrorKind::Interrupted.into()),
            };
            match opened {
                Ok((stream, handler)) => connection(stream, http, bounds, shutdown, handler).await,
                Err(error) => tracing::debug!(%error, "connection not opened"),
            }
            drop(place);
        });
    }
    drop(listener);
    let _all = places
        .acquire_many(u32::try_from(bounds.connections).unwrap_or(u32::MAX))
        .await;
}

async fn accept(listener: &Listener) -> io::Result<Stream> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        Listener::Vsock(listener) => std::future::poll_fn(|cx| listener.poll_accept(cx))
            .await
            .map(|(stream, _)| Box::new(stream) as Stream),
    }
}

async fn connection<S, H, F>(
    stream: S,
    http: http1::Builder,
    bounds: Bounds,
    mut shutdown: watch::Receiver<bool>,
    handler: H,
) where
    S: Socket + 'static,
    H: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let io = TokioIo::new(Unstalled {
        stream,
        limit: bounds.write_timeout,
        stalled: None,
    });
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut connection = std::pin::pin!(http.serve_connection(io, service));
    let stopped = async move {
        let _ = shutdown.wait_for(|stop| *stop).await;
    };
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        () = stopped => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// A stream whose peer may not stop reading for longer than `limit`.
struct Unstalled<S> {
    stream: S,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Unstalled<S> {
    /// Starts the clock when a write has to wait, stops it when one goes through.
    fn timed<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let limit = self.limit;
        let clock = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match clock.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.timed(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.timed(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.timed(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.timed(cx, polled)
    }
}
