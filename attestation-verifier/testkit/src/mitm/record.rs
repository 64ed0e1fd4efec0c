//! What every connection saw, byte by byte.

use std::fs::File;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use touchstone_formats::session::SESSION_TARGET;

use super::message;

/// Bytes kept of all connections together. What comes later is counted, and [`Record::complete`] says so.
const KEPT: u64 = 256 << 20;

/// One connection of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether it began with a TLS record.
    pub tls: bool,
    /// Whether its ClientHello offered to resume an earlier session.
    pub offered_psk: bool,
    /// Whether whoever the client spoke to had proven nothing: it may ask for a session, and no more.
    pub nothing_proven: bool,
    /// Whether it has ended.
    pub ended: bool,
    /// All bytes on the wire, from the client.
    pub from_client: Vec<u8>,
    /// All bytes on the wire, to the client.
    pub to_client: Vec<u8>,
    /// What could be decrypted of the client's bytes: under TLS, and out of sealed requests.
    pub read: Vec<u8>,
    /// How many bytes of requests that stood there for anybody to read, or were sealed to a key that the kit does not have,
    /// were sent where nothing but evidence of a key may be asked for.
    pub unread: usize,
    /// What was said to the client before it was encrypted or sealed.
    pub told: Vec<u8>,
    /// What happened, in order.
    pub notes: Vec<String>,
    /// How many bytes the client had sent when it was lied to for the first time, where that is one moment.
    pub sent_before_lie: Option<usize>,
}

impl Seen {
    /// Whether these bytes stand anywhere in what the client sent, encrypted or not.
    pub fn sent(&self, bytes: &[u8]) -> bool {
        [&self.from_client, &self.read]
            .iter()
            .any(|side| contains(side, bytes))
    }

    /// How many bytes the client sent beside its first request, where that was one for a session, or for evidence of a key: what a
    /// client says who takes the session or the key for proven.
    pub fn confided(&self) -> usize {
        let first = message::parse(&self.read).ok().flatten();
        let session = first.filter(|(first, _)| first.request() == ("POST", SESSION_TARGET));
        self.read.len() - session.map_or(0, |(_, length)| length) + self.unread
    }
}

/// Whether `part` stands in `whole`.
pub fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len().max(1)).any(|w| w == part)
}

/// Everything a man in the middle saw. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    connections: Vec<Seen>,
    kept: u64,
    lost: u64,
    log: Option<(File, Instant)>,
}

impl Record {
    /// A record whose notes are also written to a file, one JSON object a line.
    pub fn logged_to(file: File) -> Self {
        let record = Self::default();
        record.lock().log = Some((file, Instant::now()));
        record
    }

    /// All connections so far, in the order of their beginning.
    pub fn connections(&self) -> Vec<Seen> {
        self.lock().connections.clone()
    }

    /// How many connections there were so far.
    pub fn len(&self) -> usize {
        self.lock().connections.len()
    }

    /// Whether nobody came.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every byte was kept. Some 256 MiB are.
    pub fn complete(&self) -> bool {
        self.lock().lost == 0
    }

    /// How many bytes clients confided to somebody who had proven nothing.
    pub fn leaked(&self) -> usize {
        let inner = self.lock();
        let liars = inner.connections.iter().filter(|seen| seen.nothing_proven);
        liars.map(Seen::confided).sum()
    }

    /// Waits until every connection has ended, so that nothing is still on its way; whether that was within `limit`.
    pub fn settle(&self, limit: Duration) -> bool {
        let began = Instant::now();
        while !self.lock().connections.iter().all(|seen| seen.ended) {
            if began.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Begins another connection.
    pub(super) fn open(&self, tls: bool) -> Recorder {
        let mut inner = self.lock();
        inner.connections.push(Seen {
            tls,
            ..Seen::default()
        });
        Recorder {
            record: self.clone(),
            number: inner.connections.len() - 1,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layer {
    /// On the wire.
    Wire,
    /// Before encryption, after decryption.
    Plain,
}

/// Writes about one connection.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    record: Record,
    number: usize,
}

impl Recorder {
    /// Of a connection that nobody asks about.
    pub(super) fn nobody() -> Self {
        Record::default().open(true)
    }

    /// Notes what happened.
    pub(super) fn note(&self, text: impl Into<String>) {
        let text = text.into();
        let mut inner = self.record.lock();
        let number = self.number;
        if let Some((file, began)) = &mut inner.log {
            let line = json!({"connection": number, "ms": began.elapsed().as_millis() as u64, "note": text});
            // Whoever filled the disk sees it; the lies go on.
            let _ = writeln!(file, "{line}");
        }
        inner.connections[number].notes.push(text);
    }

    /// Notes that the connection has ended, and what came of it.
    pub(super) fn end(&self, done: &io::Result<()>) {
        let mut leaked = None;
        self.change(|seen| {
            seen.ended = true;
            leaked = seen.nothing_proven.then(|| seen.confided());
        });
        match leaked {
            Some(0) => self.note("the client confided nothing"),
            Some(bytes) => self.note(format!("LEAKED: the client confided {bytes} bytes")),
            None => {}
        }
        self.note(match done {
            Ok(()) => "ended".to_owned(),
            Err(error) => format!("ended: {error}"),
        });
    }

    /// Notes that the client is lied to from here on.
    pub(super) fn lie(&self, text: impl Into<String>) {
        self.change(|seen| {
            seen.sent_before_lie.get_or_insert(seen.from_client.len());
        });
        self.note(text);
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.record.lock().connections[self.number]);
    }

    /// Keeps a request that was opened, or the answer before it was sealed.
    pub(super) fn opened(&self, from_client: bool, content: &[u8]) {
        self.keep(Layer::Plain, from_client, content);
    }

    fn keep(&self, layer: Layer, from_client: bool, bytes: &[u8]) {
        let mut inner = self.record.lock();
        if inner.kept + bytes.len() as u64 > KEPT {
            inner.lost += bytes.len() as u64;
            return;
        }
        inner.kept += bytes.len() as u64;
        let seen = &mut inner.connections[self.number];
        let side = match (layer, from_client) {
            (Layer::Wire, true) => &mut seen.from_client,
            (Layer::Wire, false) => &mut seen.to_client,
            (Layer::Plain, true) => &mut seen.read,
            (Layer::Plain, false) => &mut seen.told,
        };
        side.extend_from_slice(bytes);
    }
}

/// A stream to the client whose bytes are kept.
#[derive(Debug)]
pub(super) struct Tap<S> {
    stream: S,
    recorder: Recorder,
    layer: Layer,
}

impl<S> Tap<S> {
    pub(super) fn new(stream: S, recorder: &Recorder, layer: Layer) -> Self {
        Self {
            stream,
            recorder: recorder.clone(),
            layer,
        }
    }

    pub(super) fn inner(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let new = &buffer.filled()[before..];
        if !new.is_empty() {
            self.recorder.keep(self.layer, true, new);
        }
        done
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = done {
            self.recorder.keep(self.layer, false, &bytes[..written]);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
