//! Bodies on their way through the relay. They are streamed; only what is small and of known length is
//! taken whole, so that it leaves in one write.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    header::HeaderName,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Sleep,
};

use super::upstream::Exchange;
use crate::limits::Activity;

/// Bodies up to this many bytes are taken whole when their length is known. Large enough for ordinary
/// requests, small enough to be held for every request under way.
pub(super) const SMALL: u64 = 64 << 10;

/// Why a caller's body could not be passed on whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BodyFailure {
    /// Longer than the host relays.
    TooLong = 1,
    /// Not complete in time.
    TooSlow = 2,
    /// Trailer fields that no `Trailer` field announced: they cannot be passed on, and leaving them
    /// out would change the message.
    Trailers = 3,
    /// The caller went away, or broke the framing.
    Broken = 4,
    /// The bodies of all requests together take as much memory as they may.
    NoRoom = 5,
}

impl fmt::Display for BodyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for BodyFailure {}

/// Where a body that fails in the midst of a relayed request leaves its reason.
#[derive(Debug, Clone, Default)]
pub(super) struct FailureCell(Arc<AtomicU8>);

impl FailureCell {
    fn set(&self, failure: BodyFailure) -> BodyFailure {
        self.0.store(failure as u8, Relaxed);
        failure
    }

    pub(super) fn get(&self) -> Option<BodyFailure> {
        match self.0.load(Relaxed) {
            1 => Some(BodyFailure::TooLong),
            2 => Some(BodyFailure::TooSlow),
            3 => Some(BodyFailure::Trailers),
            4 => Some(BodyFailure::Broken),
            5 => Some(BodyFailure::NoRoom),
            _ => None,
        }
    }
}

/// What goes to the enclave.
#[derive(Debug)]
pub enum Outgoing {
    /// A body in memory; empty once sent.
    Full(Bytes),
    /// A caller's body as it comes in.
    Stream(Box<CallerBody>),
}

/// A caller's body on its way, bounded in length and time.
#[derive(Debug)]
pub struct CallerBody {
    body: Incoming,
    left: u64,
    announced: Vec<HeaderName>,
    deadline: Pin<Box<Sleep>>,
    failure: FailureCell,
}

impl CallerBody {
    pub(super) fn new(
        body: Incoming,
        limit: u64,
        within: Duration,
        announced: Vec<HeaderName>,
        failure: FailureCell,
    ) -> Self {
        Self {
            body,
            left: limit,
            announced,
            deadline: Box::pin(tokio::time::sleep(within)),
            failure,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailure>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(_))) => {
                return Poll::Ready(Some(Err(self.failure.set(BodyFailure::Broken))));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(cx));
                return Poll::Ready(Some(Err(self.failure.set(BodyFailure::TooSlow))));
            }
        };
        if let Some(data) = frame.data_ref() {
            match self.left.checked_sub(data.len() as u64) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(self.failure.set(BodyFailure::TooLong)))),
            }
        } else if let Some(trailers) = frame.trailers_ref()
            && !trailers.keys().all(|name| self.announced.contains(name))
        {
            return Poll::Ready(Some(Err(self.failure.set(BodyFailure::Trailers))));
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyFailure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFailure>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(body) => body.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(body) => body.body.size_hint(),
        }
    }
}

/// What goes to the caller.
pub enum Answer {
    /// A body in memory; empty once sent.
    Full(Bytes),
    /// The enclave's body as it comes in.
    Stream(Box<Streamed>),
}

/// The enclave's body on its way, with what the request holds until its end.
pub struct Streamed {
    pub(super) exchange: Exchange,
    pub(super) activity: Arc<Activity>,
    pub(super) _held: (
        (tokio::sync::OwnedSemaphorePermit, crate::clients::Place),
        crate::fleet::Load,
    ),
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.activity.idle();
    }
}

impl Answer {
    /// A body in memory.
    pub fn full(bytes: Bytes) -> Self {
        Self::Full(bytes)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(streamed) => {
                let frame = ready!(streamed.exchange.poll_frame(cx));
                streamed.activity.progressed();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(streamed) => streamed.exchange.body().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(streamed) => streamed.exchange.body().size_hint(),
        }
    }
}

/// Bytes of a body that are counted as one against the room for all of them.
pub(super) const UNIT: usize = 1_024;

/// Takes a caller's body of known, small length whole. Its room is taken as it comes in: who announces much and
/// sends little takes little.
pub(super) async fn collect<'a>(
    mut body: Incoming,
    room: &'a Semaphore,
) -> Result<(Bytes, Option<SemaphorePermit<'a>>), BodyFailure> {
    let mut whole = Pieces::default();
    let mut taken: Option<SemaphorePermit<'a>> = None;
    while !body.is_end_stream() {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    let units = (whole.len() + data.len()).div_ceil(UNIT);
                    let more = units.saturating_sub(taken.as_ref().map_or(0, |t| t.num_permits()));
                    let more = room
                        .try_acquire_many(u32::try_from(more).unwrap_or(u32::MAX))
                        .map_err(|_| BodyFailure::NoRoom)?;
                    match &mut taken {
                        Some(taken) => taken.merge(more),
                        None => taken = Some(more),
                    }
                    whole.push(data);
                }
            }
            Some(Err(_)) => return Err(BodyFailure::Broken),
            None => break,
        }
    }
    Ok((whole.into_bytes(), taken))
}

/// Pieces of a body put together; one piece, the usual case, is not copied.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    first: Bytes,
    joined: BytesMut,
}

impl Pieces {
    pub(super) fn push(&mut self, piece: Bytes) {
        if self.joined.is_empty() && self.first.is_empty() {
            self.first = piece;
        } else {
            if self.joined.is_empty() {
                self.joined
                    .extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.joined.extend_from_slice(&piece);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    pub(super) fn into_bytes(self) -> Bytes {
        if self.joined.is_empty() {
            self.first
        } else {
            self.joined.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_in_order() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.into_bytes(), Bytes::new());
        pieces = Pieces::default();
        for piece in ["", "ab", "", "c", "def"] {
            pieces.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(pieces.len(), 6);
        assert_eq!(pieces.into_bytes(), Bytes::from_static(b"abcdef"));
    }
}
