//! Connections to the enclave, kept for the next request.
//!
//! A connection is driven by the task that uses it: no task of its own, no channel between threads.
//! While nobody uses it, nobody reads it; whether the enclave has closed it meanwhile is found out
//! when it is taken again, before anything is written.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    client::conn::{TrySendError, http1},
    http::response::Parts,
};
use hyper_util::rt::TokioIo;
use thiserror::Error;

use super::{
    body::{Outgoing, Pieces},
    workers,
};
use crate::address::{Address, Stream};

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum Failure {
    /// No connection: nothing was sent.
    #[error("no connection to the enclave at {address}: {error}")]
    Unreachable {
        /// Where.
        address: Address,
        /// What the system said.
        error: io::Error,
    },
    /// The connection ended after something was sent: the request may have been processed.
    #[error("the connection to the enclave ended before its answer was complete: {0}")]
    Broken(hyper::Error),
    /// An answer that is longer than what was asked for can be.
    #[error("the enclave's answer is longer than {0} bytes")]
    TooLong(usize),
}

/// One listener of the enclave.
#[derive(Debug)]
pub struct Upstream {
    address: Address,
    connect_timeout: Duration,
    idle_timeout: Duration,
    keep: usize,
    /// For each thread those that it made. In boxes: a connection goes from hand to hand, and is large.
    idle: Box<[Mutex<Idle>]>,
    /// Connections that there are, whether used or not.
    open: Arc<AtomicUsize>,
}

type Idle = Vec<(Instant, Box<Connection>)>;

/// Counts a connection for as long as there is it.
#[derive(Debug)]
struct Open(Arc<AtomicUsize>);

impl Open {
    fn counted(by: &Arc<AtomicUsize>) -> Self {
        by.fetch_add(1, Relaxed);
        Self(by.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Outgoing>,
    /// `None`: it has ended.
    driver: Option<Driver>,
    /// The thread that hears of it (`workers::current`).
    thread: usize,
    _open: Open,
}

type Driver = http1::Connection<TokioIo<Stream>, Outgoing>;

/// Lets a connection go on.
fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(going) = driver
        && Pin::new(going).poll(cx).is_ready()
    {
        // What ended it is told to the request that was under way. One that it had not taken up yet it gives back when it
        // is dropped, and not before.
        *driver = None;
    }
}

impl Connection {
    fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.driver, cx);
    }

    /// Sends a request, and gives the head of its answer. The error holds the request if nothing of it was sent.
    async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        std::future::poll_fn(|cx| {
            drive(driver, cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    fn is_over(&self) -> bool {
        self.driver.is_none()
    }
}

impl Upstream {
    /// A listener to which at most `keep` connections are kept for `threads` threads that carry connections, unused ones for `idle_timeout`.
    pub fn new(
        address: Address,
        connect_timeout: Duration,
        idle_timeout: Duration,
        keep: usize,
        threads: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            address,
            connect_timeout,
            idle_timeout,
            keep,
            // And those of all other threads.
            idle: (0..=threads).map(|_| Mutex::default()).collect(),
            open: Arc::default(),
        })
    }

    /// Sends a request and waits for the head of its answer. The caller bounds the time.
    ///
    /// A request is sent again on another connection only when the first had ended before any byte of
    /// it was written.
    ///
    /// # Errors
    /// [`Failure`], and the request if nothing of it was sent.
    pub async fn send(
        self: &Arc<Self>,
        mut request: Request<Outgoing>,
    ) -> Result<(Parts, Exchange), (Failure, Option<Request<Outgoing>>)> {
        loop {
            let kept = self.take();
            let fresh = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                None => match self.connect().await {
                    Ok(connection) => connection,
                    Err(failure) => return Err((failure, Some(request))),
                },
            };
            if !fresh {
                // Sees whether the enclave has closed it meanwhile.
                std::future::poll_fn(|cx| {
                    connection.drive(cx);
                    Poll::Ready(())
                })
                .await;
                if connection.is_over() || !connection.sender.is_ready() {
                    continue;
                }
            }
            match connection.send(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    return Ok((
                        head,
                        Exchange {
                            body,
                            connection: Some(connection),
                            home: self.clone(),
                        },
                    ));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    Some(unsent) => {
                        let failure = Failure::Unreachable {
                            address: self.address.clone(),
                            error: io::Error::other(error.into_error()),
                        };
                        return Err((failure, Some(unsent)));
                    }
                    None => return Err((Failure::Broken(error.into_error()), None)),
                },
            }
        }
    }

    /// Sends a request and takes the answer whole, at most `limit` bytes of it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn ask(
        self: &Arc<Self>,
        request: Request<Outgoing>,
        limit: usize,
    ) -> Result<Response<Bytes>, Failure> {
        let (head, exchange) = self.send(request).await.map_err(|(failure, _)| failure)?;
        let body = exchange.collect(limit).await?;
        Ok(Response::from_parts(head, body))
    }

    async fn connect(&self) -> Result<Box<Connection>, Failure> {
        let unreachable = |error| Failure::Unreachable {
            address: self.address.clone(),
            error,
        };
        let stream = tokio::time::timeout(self.connect_timeout, self.address.connect())
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
            .map_err(unreachable)?;
        let (sender, driver) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(io::Error::other(error)))?;
        Ok(Box::new(Connection {
            sender,
            driver: Some(driver),
            thread: workers::current(),
            _open: Open::counted(&self.open),
        }))
    }

    /// What a thread has that nobody uses. `None`: no such thread was told of.
    fn idle(&self, thread: usize) -> Option<MutexGuard<'_, Idle>> {
        // A list of connections is whole after every step.
        let idle = self.idle.get(thread)?;
        Some(idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The connection that this thread used last: the others can grow old and go. Another thread's, if there are no more to be made.
    fn take(&self) -> Option<Box<Connection>> {
        let of = |thread| self.idle(thread)?.pop();
        let own = of(workers::current());
        let (since, connection) = match own {
            None if self.open.load(Relaxed) >= self.keep => (0..self.idle.len()).find_map(of),
            own => own,
        }?;
        // Those below it in the list are older still; `close_unused` takes them.
        (since.elapsed() < self.idle_timeout).then_some(connection)
    }

    fn give_back(&self, connection: Box<Connection>) {
        if self.open.load(Relaxed) > self.keep {
            return;
        }
        if let Some(mut idle) = self.idle(connection.thread) {
            idle.push((Instant::now(), connection));
        }
    }

    /// Closes connections that nobody uses any more, for ever.
    pub async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.idle_timeout).await;
            self.close_unused();
        }
    }

    fn close_unused(&self) {
        for thread in 0..self.idle.len() {
            let old: Option<Vec<_>> = self.idle(thread).map(|mut idle| {
                let is_old = |(since, _): &&(Instant, _)| since.elapsed() >= self.idle_timeout;
                let count = idle.iter().take_while(is_old).count();
                idle.drain(..count).collect()
            });
            drop(old);
        }
    }
}

/// An answer whose body is still coming in. Its connection goes back to be used again after the body's
/// end, and is closed when this is dropped before.
#[derive(Debug)]
pub struct Exchange {
    body: Incoming,
    connection: Option<Box<Connection>>,
    home: Arc<Upstream>,
}

impl Exchange {
    pub(super) fn body(&self) -> &Incoming {
        &self.body
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Asking for a frame first makes the driver read one.
        let mut frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending() {
            if let Some(connection) = &mut self.connection {
                connection.drive(cx);
            }
            frame = Pin::new(&mut self.body).poll_frame(cx);
        }
        match &frame {
            Poll::Ready(None) => self.finish(cx),
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.finish(cx),
            Poll::Ready(Some(Err(_))) => self.connection = None,
            _ => {}
        }
        frame
    }

    /// The body has ended: the connection can be used again if it is ready for that.
    fn finish(&mut self, cx: &mut Context<'_>) {
        if let Some(mut connection) = self.connection.take() {
            if !connection.sender.is_ready() {
                connection.drive(cx);
            }
            if !connection.is_over() && connection.sender.is_ready() {
                self.home.give_back(connection);
            }
        }
    }

    /// Takes the rest of the body, at most `limit` bytes.
    pub(crate) async fn collect(mut self, limit: usize) -> Result<Bytes, Failure> {
        let mut whole = Pieces::default();
        std::future::poll_fn(move |cx| {
            loop {
                if self.body.is_end_stream() {
                    self.finish(cx);
                    return Poll::Ready(Ok(std::mem::take(&mut whole).into_bytes()));
                }
                match self.poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Ok(data) = frame.into_data() {
                            if data.len() > limit.saturating_sub(whole.len()) {
                                return Poll::Ready(Err(Failure::TooLong(limit)));
                            }
                            whole.push(data);
                        }
                    }
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(Failure::Broken(error)));
                    }
                    Poll::Ready(None) => {
                        return Poll::Ready(Ok(std::mem::take(&mut whole).into_bytes()));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
        time::timeout,
    };

    use super::*;

    /// The enclave may close a connection that nobody uses at any moment, and so at the one at which it is taken again.
    #[tokio::test]
    async fn a_request_is_given_back_by_a_connection_that_ended_as_it_was_taken() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let stream = TokioIo::new(Stream::Unix(ours));
        let (sender, driver) = http1::handshake(stream).await.unwrap();
        let mut connection = Connection {
            sender,
            driver: Some(driver),
            thread: 0,
            _open: Open::counted(&Arc::default()),
        };
        let request = || {
            let mut request = Request::new(Outgoing::Full(Bytes::from_static(b"x")));
            *request.method_mut() = hyper::Method::POST;
            request
        };
        let mut heard = [0; 1_000];
        let answering = async {
            let count = theirs.read(&mut heard).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            theirs.write_all(answer).await.unwrap();
            assert!(heard[..count].ends_with(b"x"));
        };
        let (answered, ()) = tokio::join!(connection.send(request()), answering);
        assert_eq!(answered.unwrap().status(), 200);
        std::future::poll_fn(|cx| {
            connection.drive(cx);
            Poll::Ready(())
        })
        .await;
        assert!(!connection.is_over() && connection.sender.is_ready());
        // Now, after it was looked at and before anything is written.
        drop(theirs);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let sent = timeout(Duration::from_secs(5), connection.send(request())).await;
        let mut error = sent.expect("kept waiting").unwrap_err();
        assert!(error.take_message().is_some());
        assert!(connection.is_over());
    }
}
