//! Callers' bodies on their way through the relay. What is small and of known length is taken whole, so that it leaves in
//! one write and can go to another enclave; all else is streamed.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit},
    time::Sleep,
};

use super::{
    inbox::{Inbox, Piece},
    strict::Violation,
};

/// Bodies up to this many bytes are taken whole when their length is known. Large enough for ordinary
/// requests, small enough to be held for every request under way.
pub(super) const SMALL: u64 = 64 << 10;
/// Bytes of a body that are counted as one against the room for all of them.
pub(super) const UNIT: usize = 1_024;

/// Why a caller's body could not be passed on whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFailure {
    /// Longer than the host relays.
    TooLong,
    /// Not complete in time.
    TooSlow,
    /// It could be read in two ways.
    TwoReadings(Violation),
    /// The caller went away.
    Gone,
    /// The bodies of all requests together take as much memory as they may.
    NoRoom,
}

impl From<io::Error> for BodyFailure {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Where a caller's bytes come from.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    pub(super) stream: &'a mut TcpStream,
    pub(super) inbox: &'a mut Inbox,
}

impl Incoming<'_> {
    /// Waits for something for as long as there is a caller. `None`: he has gone away.
    pub(super) async fn unless_gone<T>(
        &mut self,
        waited_for: impl Future<Output = T>,
    ) -> Option<T> {
        let mut waited_for = pin!(waited_for);
        poll_fn(|cx| match waited_for.as_mut().poll(cx) {
            Poll::Ready(found) => Poll::Ready(Some(found)),
            Poll::Pending => self.inbox.poll_gone(self.stream, cx).map(|()| None),
        })
        .await
    }

    /// Takes a message with a body of known, small length: `length` bytes with its head. Room for the body is taken as it comes
    /// in: who announces much and sends little takes little.
    pub(super) async fn whole<'a>(
        &mut self,
        head: usize,
        length: usize,
        room: &'a Semaphore,
    ) -> Result<(Vec<u8>, Option<SemaphorePermit<'a>>), BodyFailure> {
        let mut taken: Option<SemaphorePermit<'a>> = None;
        loop {
            let piece = self.inbox.body().map_err(BodyFailure::TwoReadings)?;
            let units = piece.bytes.saturating_sub(head).div_ceil(UNIT);
            let more = units.saturating_sub(taken.as_ref().map_or(0, |t| t.num_permits()));
            let more = room
                .try_acquire_many(u32::try_from(more).unwrap_or(u32::MAX))
                .map_err(|_| BodyFailure::NoRoom)?;
            match &mut taken {
                Some(taken) => taken.merge(more),
                None => taken = Some(more),
            }
            if piece.ended {
                return Ok((self.inbox.take(piece.bytes), taken));
            }
            if self.inbox.is_full() {
                // By then a good part of it is here.
                self.inbox.make_room(length);
            }
            if self.inbox.more(self.stream).await? == 0 {
                return Err(BodyFailure::Gone);
            }
        }
    }
}

/// A caller's body as it comes in, bounded in length and time.
#[derive(Debug)]
pub(super) struct CallerBody<'a> {
    pub(super) from: Incoming<'a>,
    left: u64,
    deadline: Pin<Box<Sleep>>,
    ended: bool,
}

impl<'a> CallerBody<'a> {
    /// A body of `limit` bytes at most, all of which come `within` this time.
    pub(super) fn new(from: Incoming<'a>, limit: u64, within: Duration) -> Self {
        Self {
            from,
            left: limit,
            deadline: Box::pin(tokio::time::sleep(within)),
            ended: false,
        }
    }

    /// Whether all of it was taken.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The bytes of a piece.
    pub(super) fn piece(&self, piece: Piece) -> &[u8] {
        let bytes = self.from.inbox.bytes();
        bytes.get(..piece.bytes).unwrap_or_default()
    }

    /// Lets go of a piece that has gone on.
    pub(super) fn consume(&mut self, piece: Piece) {
        self.from.inbox.consume(piece.bytes);
        self.ended = piece.ended;
    }

    /// What comes next, which then stands at the beginning of the inbox.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyFailure>> {
        let Incoming { stream, inbox } = &mut self.from;
        loop {
            let piece = inbox.body().map_err(BodyFailure::TwoReadings)?;
            if piece.bytes > 0 || piece.ended {
                let left = self.left.checked_sub(piece.data);
                self.left = left.ok_or(BodyFailure::TooLong)?;
                return Poll::Ready(Ok(piece));
            }
            inbox.enlarge();
            match inbox.poll_more(*stream, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(BodyFailure::Gone)),
                Poll::Pending => {
                    ready!(self.deadline.as_mut().poll(cx));
                    return Poll::Ready(Err(BodyFailure::TooSlow));
                }
            }
        }
    }
}
