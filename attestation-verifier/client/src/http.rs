//! The little HTTP/1.1 that a caller needs: one request at a time, answers read whole and bounded, no
//! redirects.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use touchstone_formats::text::printable;

use crate::Error;
use crate::address::Server;

/// An answer's body, at most: bytes.
pub const MAX_ANSWER: usize = 256 << 20;
/// A problem document, at most: bytes.
const MAX_PROBLEM: usize = 64 << 10;
/// Time for a TCP connection and TLS upon it.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection that was idle may take to be ready; a sound one is at once.
const READY: Duration = Duration::from_millis(500);
/// Idle connections to the host's own HTTP that are kept.
const IDLE: usize = 8;

/// An HTTP answer, read whole. Nothing is known of it.
#[derive(Clone)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, after transfer decoding.
    pub body: Bytes,
}

impl Answer {
    /// The one value of a header; `None` without it.
    ///
    /// # Errors
    /// Where it stands twice or is no visible ASCII: then no value can be relied upon.
    pub fn header(&self, name: &str) -> Result<Option<&str>, Error> {
        let mut values = self.headers.get_all(name).iter();
        let Some(first) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            let reason = format!("header {name} stands twice in the answer");
            return Err(Error::malformed(reason));
        }
        let text = first
            .to_str()
            .map_err(|_| Error::malformed(format!("header {name} is not visible ASCII")))?;
        Ok(Some(text))
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Seconds after which to try again, if it says so.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
    }

    /// A problem document (RFC 9457) in a line, without what a terminal would act upon.
    pub fn problem(&self) -> String {
        // JSON takes many times its length in memory: what is long is no problem document.
        let text = match self.body.len() {
            0..=MAX_PROBLEM => &self.body[..],
            _ => &[],
        };
        let document: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
        let mut parts = Vec::new();
        for member in ["title", "detail", "error"] {
            if let Some(text) = document.get(member).and_then(|value| value.as_str()) {
                let text: String = text.chars().take(500).collect();
                let text = printable(&text);
                if !parts.contains(&text) {
                    parts.push(text);
                }
            }
        }
        match parts.is_empty() {
            true => "the server gave no reason".into(),
            false => parts.join("; "),
        }
    }
}

/// Without the body, which is nobody's business in a log.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.status, self.body.len())
    }
}

/// Why a request has no answer.
pub(crate) enum SendError {
    /// Nothing of it was sent: the connection had ended.
    Unsent(Error),
    /// It may have been received.
    Failed(Error),
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Error {
        match error {
            SendError::Unsent(error) | SendError::Failed(error) => error,
        }
    }
}

/// One connection that speaks HTTP/1.1. It ends when this is dropped, whatever is under way on it.
pub(crate) struct Http {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
    authority: HeaderValue,
    /// For messages.
    url: String,
}

impl Drop for Http {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Http {
    /// Speaks HTTP over a connection.
    pub async fn over<S>(server: &Server, stream: S) -> Result<Http, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let authority = HeaderValue::from_str(&server.authority)
            .map_err(|e| Error::Usage(format!("host {:?}: {e}", server.authority)))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| Error::of_http(&server.url(), &e))?;
        // How it ends is said to whoever waits for an answer.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Http {
            sender,
            driver: driver.abort_handle(),
            authority,
            url: server.url(),
        })
    }

    /// Whether it can take a request: nothing half-read on it, and not closed by the other end.
    pub async fn ready(&mut self) -> bool {
        matches!(timeout(READY, self.sender.ready()).await, Ok(Ok(())))
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request, and reads the answer, whose body may have `max_body` bytes.
    pub async fn send(
        &mut self,
        mut request: Request<Bytes>,
        max_body: usize,
    ) -> Result<Answer, SendError> {
        let what = format!("{} {}{}", request.method(), self.url, request.uri());
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!(
                "touchstone/",
                env!("CARGO_PKG_VERSION")
            )));
        // One that has just answered, or was just made, is not ready before its task has run.
        if let Err(error) = self.sender.ready().await {
            return Err(SendError::Unsent(Error::of_http(&what, &error)));
        }
        let sent = self.sender.try_send_request(request.map(Full::new)).await;
        let answer = sent.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            let error = Error::of_http(&what, error.error());
            match unsent {
                true => SendError::Unsent(error),
                false => SendError::Failed(error),
            }
        })?;
        let (head, body) = answer.into_parts();
        let body = whole(Limited::new(body, max_body)).await;
        let body = body.map_err(|error| {
            SendError::Failed(match error.downcast_ref::<LengthLimitError>() {
                Some(_) => Error::malformed(format!("{what}: an answer over {max_body} bytes")),
                None => match error.downcast_ref::<hyper::Error>() {
                    Some(error) => Error::of_http(&what, error),
                    None => Error::of_io(&what, &*error),
                },
            })
        })?;
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        })
    }
}

/// Reads a body to its end. What is held is its bytes alone: somebody who sends them one at a time does not get each
/// kept with all that a piece of its own takes.
async fn whole<B: Body<Data = Bytes> + Unpin>(mut body: B) -> Result<Bytes, B::Error> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers mean nothing here.
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        // Many bodies come in one piece, which is then not copied.
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        rest.extend_from_slice(&std::mem::take(&mut first));
        rest.extend_from_slice(&data);
    }
    Ok(match rest.is_empty() {
        true => first,
        false => rest.freeze(),
    })
}

/// Connects, within [`CONNECT`].
pub(crate) async fn connect(server: &Server) -> Result<TcpStream, Error> {
    let doing = format!("connecting to {}", server.authority);
    let connecting = TcpStream::connect((server.host.as_str(), server.port));
    let stream = timeout(CONNECT, connecting)
        .await
        .map_err(|_| Error::late(&doing, CONNECT))?
        .map_err(|e| Error::of_io(&doing, &e))?;
    stream
        .set_nodelay(true)
        .map_err(|e| Error::of_io(&doing, &e))?;
    Ok(stream)
}

/// The host's own HTTP: what is read from it is untrusted, and no secret goes there.
pub(crate) struct Records {
    server: Server,
    idle: Mutex<Vec<Http>>,
}

impl Records {
    pub fn new(server: Server) -> Records {
        Records {
            server,
            idle: Mutex::default(),
        }
    }

    /// Reads what a path names.
    pub async fn read(
        &self,
        path: &str,
        prefer: Option<String>,
        max_body: usize,
        limit: Duration,
    ) -> Result<Answer, Error> {
        let mut request = Request::get(path);
        if let Some(prefer) = prefer {
            request = request.header("prefer", prefer);
        }
        let request = request
            .body(Bytes::new())
            .map_err(|e| Error::Usage(format!("{path}: {e}")))?;
        let doing = || format!("GET {}{path}", self.server.url());
        timeout(limit, self.exchange(request, max_body))
            .await
            .map_err(|_| Error::late(doing(), limit))?
    }

    async fn exchange(&self, request: Request<Bytes>, max_body: usize) -> Result<Answer, Error> {
        // To read twice does no harm: whatever ails a connection that was kept, a new one decides.
        while let Some(mut kept) = self.take() {
            if !kept.ready().await {
                continue;
            }
            match kept.send(request.clone(), max_body).await {
                Ok(answer) => return Ok(self.put(kept, answer)),
                Err(SendError::Failed(error @ Error::Malformed { .. })) => return Err(error),
                Err(_) => break,
            }
        }
        let stream = connect(&self.server).await?;
        let mut new = Http::over(&self.server, stream).await?;
        let answer = new.send(request, max_body).await?;
        Ok(self.put(new, answer))
    }

    fn take(&self) -> Option<Http> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn put(&self, http: Http, answer: Answer) -> Answer {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(http);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    use super::*;

    /// A piece of a body, which is counted as long as it is there.
    struct Piece(Arc<AtomicUsize>, [u8; 1]);

    impl AsRef<[u8]> for Piece {
        fn as_ref(&self) -> &[u8] {
            &self.1
        }
    }

    impl Drop for Piece {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// 1000 pieces, of which no more than two may be there at once.
    #[derive(Default)]
    struct Pieces {
        sent: usize,
        alive: Arc<AtomicUsize>,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.sent == 1000 {
                return Poll::Ready(None);
            }
            let others = self.alive.fetch_add(1, Ordering::Relaxed);
            assert!(others < 2, "{others} pieces are held");
            let piece = Piece(self.alive.clone(), [self.sent as u8]);
            self.sent += 1;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
        }
    }

    #[tokio::test]
    async fn a_body_in_many_pieces_is_held_in_one() {
        let read = whole(Pieces::default()).await.unwrap();
        assert_eq!(read.len(), 1000);
        assert!(read.iter().enumerate().all(|(n, byte)| *byte == n as u8));

        let one = Bytes::from(vec![7; 100]);
        let same = whole(Full::new(one.clone())).await.unwrap();
        assert_eq!(same.as_ptr(), one.as_ptr(), "not copied");
    }

    #[test]
    fn problems_are_one_harmless_line() {
        let answer = |body: &str| Answer {
            status: 503,
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        let body = r#"{"title":"Busy","detail":"\u001b[2Jtry again","error":"Busy","status":503}"#;
        assert_eq!(answer(body).problem(), r"Busy; \u{1b}[2Jtry again");
        let most = format!("{{\"title\":\"{}\"}}", "x".repeat(MAX_PROBLEM - 12));
        assert_eq!(most.len(), MAX_PROBLEM);
        assert!(answer(&most).problem().starts_with("xxx"));
        assert_eq!(answer(&(most + " ")).problem(), "the server gave no reason");
        assert_eq!(answer("<html>").problem(), "the server gave no reason");
    }
}
