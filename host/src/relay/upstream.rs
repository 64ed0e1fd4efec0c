//! Connections to the enclave, kept for the next request, and what goes over them: bytes as they came, and answers of
//! which `strict` finds the end.
//!
//! A connection is driven by the task that uses it: no task of its own, no channel between threads.
//! While nobody uses it, nobody reads it; whether the enclave has closed it meanwhile is found out
//! when it is taken again, before anything is written.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop::unconstrained,
};

use super::{
    buffers,
    fields::{Fields, Hop, hop_by_hop},
    strict::{Found, Framing, Strict, Violation},
    workers,
};
use crate::address::{Address, Stream};

/// Most bytes of an answer's head, with those of interim answers before it, and most fields.
const HEAD: usize = 64 << 10;
const FIELDS: usize = 200;

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
    Broken(io::Error),
    /// An answer that two programs could read differently.
    #[error("the enclave's answer could be read in two ways: {0}")]
    TwoReadings(Violation),
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
    /// For each thread those that it made.
    idle: Box<[Mutex<Idle>]>,
    /// Connections that there are, whether used or not.
    open: Arc<AtomicUsize>,
}

type Idle = Vec<(Instant, Connection)>;

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
    stream: Stream,
    /// The thread that hears of it (`workers::current`).
    thread: usize,
    _open: Open,
}

impl Connection {
    /// Whether nothing has come in, not even its end: only then does the next thing that comes answer the next request.
    async fn is_quiet(&mut self) -> bool {
        let quiet = poll_fn(|cx| {
            let mut byte = [0];
            let mut byte = ReadBuf::new(&mut byte);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut byte);
            Poll::Ready(read.is_pending())
        });
        // To a task that has done as much as it may at once nothing is ever ready.
        unconstrained(quiet).await
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

    /// A connection on which nothing is under way, for a request that is HEAD or not.
    ///
    /// # Errors
    /// [`Failure::Unreachable`].
    async fn open(self: &Arc<Self>, is_head: bool) -> Result<Exchange, Failure> {
        let exchange = |connection, is_kept| Exchange {
            connection,
            home: self.clone(),
            is_kept,
            written: false,
            whole: false,
            buffer: Vec::new(),
            followed: 0,
            interim: 0,
            strict: Strict::answers(is_head, FIELDS),
            answer: None,
            ended: false,
            closes: false,
        };
        while let Some(mut connection) = self.take() {
            if connection.is_quiet().await {
                return Ok(exchange(connection, true));
            }
        }
        let mut connection = self.connect().await?;
        // A guest that takes connections and ends them at once has heard nothing.
        match connection.is_quiet().await {
            true => Ok(exchange(connection, false)),
            false => Err(self.unreachable(io::ErrorKind::ConnectionAborted.into())),
        }
    }

    /// Writes the first part of a request, the `last` or not. It is written again on another connection only when the first had
    /// ended before any byte of it was written.
    ///
    /// # Errors
    /// [`Failure`]; with [`Failure::Unreachable`] nothing of it was sent.
    pub(super) async fn begin(
        self: &Arc<Self>,
        bytes: &[u8],
        last: bool,
        is_head: bool,
    ) -> Result<Exchange, Failure> {
        loop {
            let mut exchange = self.open(is_head).await?;
            match exchange.write(bytes, last).await {
                Ok(()) => return Ok(exchange),
                Err(Failure::Unreachable { .. }) if exchange.is_kept => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Sends a request that is all at hand, and gives the exchange when the head of the answer has come in. The caller
    /// bounds the time.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(super) async fn send(
        self: &Arc<Self>,
        request: &[u8],
        is_head: bool,
    ) -> Result<Exchange, Failure> {
        let mut exchange = self.begin(request, true, is_head).await?;
        poll_fn(|cx| exchange.poll_head(cx)).await?;
        Ok(exchange)
    }

    /// Asks for something of the enclave's own, and takes the answer whole, at most `limit` bytes of it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn ask(
        self: &Arc<Self>,
        method: &Method,
        target: &str,
        body: &[u8],
        limit: usize,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: enclave\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        let request = [head.as_bytes(), body].concat();
        let exchange = self.send(&request, *method == Method::HEAD).await?;
        let status = exchange.status();
        Ok((status, exchange.collect(limit).await?))
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let connected = tokio::time::timeout(self.connect_timeout, self.address.connect()).await;
        let stream = connected
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| self.unreachable(error))?;
        Ok(Connection {
            stream,
            thread: workers::current(),
            _open: Open::counted(&self.open),
        })
    }

    fn unreachable(&self, error: io::Error) -> Failure {
        Failure::Unreachable {
            address: self.address.clone(),
            error,
        }
    }

    /// What a thread has that nobody uses. `None`: no such thread was told of.
    fn idle(&self, thread: usize) -> Option<MutexGuard<'_, Idle>> {
        // A list of connections is whole after every step.
        let idle = self.idle.get(thread)?;
        Some(idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The connection that this thread used last: the others can grow old and go. Another thread's, if there are no more to be made.
    fn take(&self) -> Option<Connection> {
        let of = |thread| self.idle(thread)?.pop();
        let own = of(workers::current());
        let (since, connection) = match own {
            None if self.open.load(Relaxed) >= self.keep => (0..self.idle.len()).find_map(of),
            own => own,
        }?;
        // Those below it in the list are older still; `close_unused` takes them.
        (since.elapsed() < self.idle_timeout).then_some(connection)
    }

    fn give_back(&self, connection: Connection) {
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

/// The head of an answer.
#[derive(Debug, Clone, Copy)]
struct Answer {
    /// Bytes of it, at the beginning of the buffer.
    length: usize,
    status: StatusCode,
    framing: Framing,
}

/// One request and its answer. Its connection goes back to be used again by [`Self::finish`], and is closed when this is
/// dropped before.
#[derive(Debug)]
pub(super) struct Exchange {
    connection: Connection,
    home: Arc<Upstream>,
    /// The connection was used before.
    is_kept: bool,
    /// Something of the request was written; and all of it.
    written: bool,
    whole: bool,
    /// What has come in, and how much of it was looked at; and bytes of interim answers before it.
    buffer: Vec<u8>,
    followed: usize,
    interim: usize,
    strict: Strict,
    answer: Option<Answer>,
    /// The answer has ended.
    ended: bool,
    /// The enclave takes no other request on this connection.
    closes: bool,
}

impl Exchange {
    /// Writes a part of the request, the `last` or not. Ends early, and well, when the head of the answer comes meanwhile: who
    /// refuses a request need not read it, and nothing more of it is written then. (Interim answers refuse nothing.)
    ///
    /// # Errors
    /// [`Failure::Unreachable`] if nothing was written before, [`Failure::Broken`] otherwise.
    pub(super) async fn write(&mut self, bytes: &[u8], last: bool) -> Result<(), Failure> {
        let mut left = bytes;
        poll_fn(|cx| {
            while !left.is_empty() {
                let written = Pin::new(&mut self.connection.stream).poll_write(cx, left);
                match written {
                    Poll::Ready(Ok(count @ 1..)) => {
                        self.written = true;
                        left = left.get(count..).unwrap_or_default();
                    }
                    Poll::Ready(Ok(_)) => {
                        return Poll::Ready(Err(self.failed(io::ErrorKind::WriteZero.into())));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(self.failed(error))),
                    // Where the connection has ended, reading says so (`Stream`).
                    Poll::Pending => return self.poll_head(cx),
                }
            }
            self.whole = last;
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Whether the head of the answer has not come in.
    pub(super) fn is_unanswered(&self) -> bool {
        self.answer.is_none()
    }

    fn failed(&self, error: io::Error) -> Failure {
        match self.written {
            true => Failure::Broken(error),
            false => self.home.unreachable(error),
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let read = buffers::poll_read(&mut self.connection.stream, &mut self.buffer, cx);
        read.map(|read| match read {
            // What comes in before anything was written is no answer.
            Ok(1..) if self.written => Ok(()),
            Ok(_) => Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.failed(error)),
        })
    }

    async fn more(&mut self) -> Result<(), Failure> {
        poll_fn(|cx| self.poll_more(cx)).await
    }

    /// Ready when the head of the answer has come in. What came before it (RFC 9110 §15.2) is left out, except a 101, which
    /// changes everything.
    ///
    /// # Errors
    /// As [`Self::write`], and what an answer must not be.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while self.is_unanswered() {
            let rest = self.buffer.get(self.followed..).unwrap_or_default();
            let (count, found) = self.strict.next(rest);
            self.followed = self.followed.saturating_add(count);
            match found {
                Found::Head(head) if matches!(head.status, 100 | 102..200) => {
                    self.interim = self.interim.saturating_add(self.followed);
                    self.let_go();
                }
                Found::Head(head) => {
                    let status = StatusCode::from_u16(head.status)
                        .map_err(|_| Failure::TwoReadings(Violation::Status))?;
                    self.closes = status.is_informational();
                    self.ended = head.framing == Framing::None;
                    self.answer = Some(Answer {
                        length: self.followed,
                        status,
                        framing: head.framing,
                    });
                }
                Found::Broken(violation) => {
                    return Poll::Ready(Err(Failure::TwoReadings(violation)));
                }
                _ if self.followed < self.buffer.len() => {}
                _ if self.buffer.len().saturating_add(self.interim) >= HEAD => {
                    return Poll::Ready(Err(Failure::TooLong(HEAD)));
                }
                _ => ready!(self.poll_more(cx))?,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The answer's status.
    pub(super) fn status(&self) -> StatusCode {
        let answer = self.answer.map(|answer| answer.status);
        answer.unwrap_or(StatusCode::BAD_GATEWAY)
    }

    /// How the answer's body is framed.
    pub(super) fn framing(&self) -> Framing {
        self.answer.map_or(Framing::None, |answer| answer.framing)
    }

    /// Bytes of the answer's head.
    pub(super) fn head_length(&self) -> usize {
        self.answer.map_or(0, |answer| answer.length)
    }

    /// The answer's fields, until something was taken.
    pub(super) fn fields(&self) -> Fields<'_> {
        Fields::of(self.buffer.get(..self.head_length()).unwrap_or_default())
    }

    /// Takes out of the head what belongs to the connection to the enclave, and says so if nothing follows on the caller's.
    pub(super) fn pass_head_on(&mut self, hop: &Hop, closes: bool) {
        const CLOSE: &[u8] = b"Connection: close\r\n";
        let Some(answer) = &mut self.answer else {
            return;
        };
        self.closes |= hop.closes;
        let gone = hop.strip(&mut self.buffer);
        answer.length = answer.length.saturating_sub(gone);
        self.followed = self.followed.saturating_sub(gone);
        // Before the empty line.
        if let Some(end) = answer.length.checked_sub(2).filter(|_| closes) {
            self.buffer.splice(end..end, CLOSE.iter().copied());
            answer.length = answer.length.saturating_add(CLOSE.len());
            self.followed = self.followed.saturating_add(CLOSE.len());
        }
    }

    /// Looks at the body as far as it has come in, and hands over what is no framing.
    fn follow(
        &mut self,
        mut data: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        while !self.ended {
            let rest = self.buffer.get(self.followed..).unwrap_or_default();
            let (count, found) = self.strict.next(rest);
            let is_all = count == rest.len();
            match found {
                Found::Broken(violation) => return Err(Failure::TwoReadings(violation)),
                Found::End => self.ended = true,
                Found::Data => data(rest.get(..count).unwrap_or_default())?,
                Found::More if is_all => {
                    self.followed = self.buffer.len();
                    break;
                }
                _ => {}
            }
            self.followed = self.followed.saturating_add(count);
        }
        Ok(())
    }

    /// Waits for the whole answer, whose body has a length that is small.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn read_whole(&mut self) -> Result<(), Failure> {
        loop {
            self.follow(|_| Ok(()))?;
            if self.ended {
                return Ok(());
            }
            if let Framing::Length(length) = self.framing()
                && self.buffer.len() == self.buffer.capacity()
            {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let whole = self.head_length().saturating_add(length);
                self.buffer.reserve(whole.saturating_sub(self.buffer.len()));
            }
            self.more().await?;
        }
    }

    /// Ready when there is more in [`Self::came`], or the answer has ended.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            self.follow(|_| Ok(()))?;
            if self.ended || self.followed > 0 {
                return Poll::Ready(Ok(()));
            }
            buffers::enlarge(&mut self.buffer);
            ready!(self.poll_more(cx))?;
        }
    }

    /// What has come in of the answer and was not let go of, its head first.
    pub(super) fn came(&self) -> &[u8] {
        self.buffer.get(..self.followed).unwrap_or_default()
    }

    /// Whether nothing follows that.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Lets go of it.
    pub(super) fn let_go(&mut self) {
        self.buffer.drain(..self.followed.min(self.buffer.len()));
        self.followed = 0;
    }

    /// Lets the connection be used again if it can be, and gives what came in last.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut buffer = self.buffer;
        // What comes behind an answer answers nothing.
        let is_all = buffer.len() == self.followed;
        if self.ended && self.whole && is_all && !self.closes {
            self.home.give_back(self.connection);
        }
        buffer.truncate(self.followed);
        buffer
    }

    /// Takes the answer's body without its framing, at most `limit` bytes of it.
    async fn collect(mut self, limit: usize) -> Result<Bytes, Failure> {
        self.closes |= hop_by_hop(self.fields()).map_or(true, |hop| hop.closes);
        let mut body = Vec::new();
        loop {
            self.follow(|data| {
                if data.len() > limit.saturating_sub(body.len()) {
                    return Err(Failure::TooLong(limit));
                }
                body.extend_from_slice(data);
                Ok(())
            })?;
            if self.ended {
                buffers::give_back(self.finish());
                return Ok(body.into());
            }
            self.let_go();
            self.more().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::coop,
    };

    use super::*;

    async fn upstream() -> (Arc<Upstream>, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let second = Duration::from_secs(1);
        (Upstream::new(address, second, second, 8, 0), listener)
    }

    /// Answers one request on a connection.
    async fn answers(stream: &mut TcpStream, answer: &[u8]) {
        let mut heard = [0; 1_000];
        assert!(stream.read(&mut heard).await.unwrap() > 0);
        stream.write_all(answer).await.unwrap();
    }

    const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// The enclave may close a connection that nobody uses at any moment, or say on it what nobody asked for: neither has
    /// to do with the next request.
    #[tokio::test]
    async fn a_kept_connection_on_which_something_came_in_is_not_used() {
        for unasked in [&b""[..], OK] {
            let (upstream, listener) = upstream().await;
            let enclave = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                answers(&mut stream, OK).await;
                stream.write_all(unasked).await.unwrap();
                if unasked.is_empty() {
                    drop(stream);
                }
                let (mut stream, _) = listener.accept().await.unwrap();
                answers(&mut stream, b"HTTP/1.1 204 No\r\n\r\n").await;
                stream
            });
            let mut exchange = upstream.send(REQUEST, false).await.unwrap();
            exchange.read_whole().await.unwrap();
            assert_eq!(exchange.came(), OK);
            exchange.finish();
            tokio::time::sleep(Duration::from_millis(50)).await;
            let exchange = upstream.send(REQUEST, false).await.unwrap();
            assert_eq!((exchange.is_kept, exchange.status().as_u16()), (false, 204));
            exchange.finish();
            let _stream = enclave.await.unwrap();
            assert!(upstream.open(false).await.unwrap().is_kept);
        }
    }

    /// A connection on which something is still owed, by either side, would give the next request another's answer.
    #[tokio::test]
    async fn a_connection_is_kept_only_when_nothing_is_owed_on_it() {
        let closing = b"HTTP/1.1 200 OK\r\nconnection: x, Close\r\nContent-Length: 2\r\n\r\nok";
        let interim = [b"HTTP/1.1 100 Go on\r\n\r\n", OK].concat();
        for (answer, last, is_kept) in [
            (OK, true, true),
            (&interim, true, true),
            // The rest of the request.
            (OK, false, false),
            // What is no answer to anything, and came with the answer.
            (&[OK, OK].concat(), true, false),
            (&[OK, b"\r"].concat(), true, false),
            // Its end, which has not come yet.
            (closing, true, false),
        ] {
            let (upstream, listener) = upstream().await;
            let asking = async {
                let mut exchange = upstream.open(false).await.unwrap();
                exchange.write(REQUEST, last).await.unwrap();
                poll_fn(|cx| exchange.poll_head(cx)).await.unwrap();
                let hop = hop_by_hop(exchange.fields()).unwrap();
                exchange.pass_head_on(&hop, false);
                exchange.read_whole().await.unwrap();
                assert!(exchange.finish().ends_with(b"\r\n\r\nok"));
            };
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                answers(&mut stream, answer).await;
                stream
            };
            let ((), _stream) = tokio::join!(asking, answering);
            let next = upstream.open(false).await.unwrap();
            assert_eq!(next.is_kept, is_kept, "{}", answer.escape_ascii());
        }
    }

    /// However they are cut, and however many come before an answer.
    #[tokio::test]
    async fn heads_of_answers_are_bounded() {
        let interim = "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n";
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD));
        for endless in [interim.repeat(HEAD / interim.len() + 1), long] {
            let (upstream, listener) = upstream().await;
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                answers(&mut stream, endless.as_bytes()).await;
                stream
            };
            let asking =
                tokio::time::timeout(Duration::from_secs(5), upstream.send(REQUEST, false));
            let (asked, _stream) = tokio::join!(asking, answering);
            assert!(
                matches!(asked, Ok(Err(Failure::TooLong(HEAD)))),
                "{asked:?}"
            );
        }
    }

    /// To a task that has had its turn nothing seems to come in: that says nothing of the connection.
    #[tokio::test]
    async fn a_kept_connection_is_looked_at_however_much_was_done() {
        let (upstream, listener) = upstream().await;
        for unasked in [false, true] {
            let asking = async {
                let mut exchange = upstream.send(REQUEST, false).await.unwrap();
                exchange.read_whole().await.unwrap();
                exchange.finish();
            };
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                answers(&mut stream, OK).await;
                stream
            };
            let ((), mut stream) = tokio::join!(asking, answering);
            if unasked {
                stream.write_all(OK).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            let exchange = {
                let mut opening = std::pin::pin!(upstream.open(false));
                let mut had_its_turn = false;
                poll_fn(|cx| {
                    while !had_its_turn && coop::has_budget_remaining() {
                        let _ = std::pin::pin!(coop::consume_budget()).poll(cx);
                    }
                    had_its_turn = true;
                    opening.as_mut().poll(cx)
                })
                .await
                .unwrap()
            };
            assert_eq!(exchange.is_kept, !unasked);
        }
    }

    /// What follows a 101 is no HTTP, whoever asked for it.
    #[tokio::test]
    async fn a_connection_that_changes_its_protocol_is_not_kept() {
        for (status, is_kept) in [("101 Switching", false), ("204 Nothing", true)] {
            let (upstream, listener) = upstream().await;
            let enclave = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = format!("HTTP/1.1 {status}\r\n\r\n");
                answers(&mut stream, answer.as_bytes()).await;
                let second = listener.accept();
                let second = tokio::time::timeout(Duration::from_millis(50), second).await;
                (stream, second)
            });
            let asked = upstream.ask(&Method::GET, "/x", b"", 10).await.unwrap();
            assert_eq!(asked.0.as_str(), &status[..3]);
            assert_eq!(upstream.open(false).await.unwrap().is_kept, is_kept);
            enclave.await.unwrap().0.shutdown().await.unwrap();
        }
    }

    /// What comes in before anything was written is no answer, and the request can go elsewhere.
    #[tokio::test]
    async fn nothing_is_an_answer_before_it_was_asked_for() {
        let (upstream, listener) = upstream().await;
        let enclave = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(OK).await.unwrap();
            stream
        });
        let mut exchange = upstream.open(false).await.unwrap();
        let _stream = enclave.await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let early = poll_fn(|cx| exchange.poll_head(cx)).await;
        assert!(matches!(early, Err(Failure::Unreachable { .. })));
    }

    #[tokio::test]
    async fn what_is_asked_of_the_enclave_comes_whole_and_bounded() {
        let chunked = b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        for (limit, fits) in [(3, true), (2, false)] {
            let (upstream, listener) = upstream().await;
            let enclave = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                answers(&mut stream, chunked).await;
                stream
            });
            let answer = upstream.ask(&Method::POST, "/x", b"{}", limit).await;
            match answer {
                Ok((status, body)) => assert!(fits && status == 201 && body == "abc"),
                Err(failure) => assert!(!fits && matches!(failure, Failure::TooLong(2))),
            }
            drop(enclave.await.unwrap());
        }
    }
}
