//! TLS on its way to the enclave: bytes passed on unread, both ways, until both sides have ended.
//!
//! The keys are the caller's and the enclave's. What can be seen here is who talks, when and how much;
//! nothing of the bytes is looked at beyond the first, which tells TLS from HTTP.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::watch;
use crate::{
    address::{Address, Stream},
    config::{Enclave, Limits},
};

/// First byte of a TLS record that carries a handshake message (RFC 8446 §5.1). No HTTP request begins
/// with it: a method is made of visible characters (RFC 9110 §5.6.2).
pub(super) const HANDSHAKE: u8 = 0x16;

/// Bytes read at once. A connection holds as many at most, each way, and only while the side they go to
/// has no room for them.
const PIECE: usize = 64 << 10;
/// Pieces passed on in one direction before the other has its turn.
const TURN: usize = 8;

thread_local! {
    /// Where bytes stand between a read and the write that follows it at once: one for all the
    /// connections of a thread, so that those without anything to say cost no memory.
    static PASSING: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into());
}

/// Why a connection ended before both sides had ended it.
#[derive(Debug, Error)]
pub(super) enum Broken {
    /// The enclave took no connection.
    #[error("{address}: {error}")]
    Unreachable {
        /// The TLS listener's address.
        address: Address,
        /// What the system said.
        error: io::Error,
    },
    /// One side broke off.
    #[error(transparent)]
    Lost(io::Error),
    /// No byte moved for too long.
    #[error("no byte moved in {} s", .0.as_secs_f64())]
    Idle(Duration),
}

/// The enclave's TLS listener, and how long to wait for what.
#[derive(Debug)]
pub(super) struct Passthrough {
    address: Address,
    connect_timeout: Duration,
    /// Longest time in which no byte moves either way.
    idle_timeout: Duration,
}

impl Passthrough {
    /// `None` when no TLS listener is set.
    pub(super) fn new(enclave: &Enclave, limits: &Limits) -> Option<Self> {
        Some(Self {
            address: enclave.tls?,
            connect_timeout: enclave.connect_timeout,
            // Nothing moves while the enclave works on an answer.
            idle_timeout: limits.idle_timeout.max(enclave.answer_timeout),
        })
    }

    /// Passes on all that `caller` and the enclave say to each other.
    ///
    /// # Errors
    /// [`Broken`]. The connections are closed by then, whatever was under way.
    pub(super) async fn serve(&self, caller: TcpStream) -> Result<(), Broken> {
        let unreachable = |error| Broken::Unreachable {
            address: self.address,
            error,
        };
        let enclave = timeout(self.connect_timeout, self.address.connect())
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
            .map_err(unreachable)?;
        match enclave {
            Stream::Tcp(enclave) => pass(caller, enclave, self.idle_timeout).await,
            Stream::Vsock(enclave) => pass(caller, enclave, self.idle_timeout).await,
        }
    }
}

/// Both directions in one task, so that one timer sees all that moves.
async fn pass(
    mut caller: impl AsyncRead + AsyncWrite + Unpin,
    mut enclave: impl AsyncRead + AsyncWrite + Unpin,
    idle_timeout: Duration,
) -> Result<(), Broken> {
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let mut deadline = Instant::now() + idle_timeout;
    let mut timer = pin!(sleep(idle_timeout));
    poll_fn(|cx| {
        let mut moved = false;
        let to_enclave = up.poll(&mut caller, &mut enclave, cx, &mut moved);
        let to_caller = down.poll(&mut enclave, &mut caller, cx, &mut moved);
        match (to_enclave, to_caller) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                return Poll::Ready(Err(Broken::Lost(error)));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            _ => {}
        }
        if moved {
            deadline = Instant::now() + idle_timeout;
        }
        watch(timer.as_mut(), Some(deadline), cx).map(|()| Err(Broken::Idle(idle_timeout)))
    })
    .await
}

/// What goes from one side to the other.
#[derive(Debug, Default)]
struct Direction {
    /// What was read and the other side had no room for.
    held: Bytes,
    over: bool,
}

impl Direction {
    /// Passes on what there is. Ready when this direction is over, and the other goes on: its source
    /// has said its last, or its sink takes no more.
    ///
    /// # Errors
    /// The source is lost, and with it all that could be said to it.
    fn poll(
        &mut self,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURN {
            while !self.held.is_empty() {
                match ready!(Pin::new(&mut *sink).poll_write(cx, &self.held)) {
                    Ok(count @ 1..) => {
                        self.held.advance(count);
                        *moved = true;
                    }
                    // What it said before it closed may still be on its way to the source.
                    _ => return self.finish(),
                }
            }
            let read = PASSING.with_borrow_mut(|piece| {
                let mut piece = ReadBuf::new(piece);
                ready!(Pin::new(&mut *source).poll_read(cx, &mut piece))?;
                let mut rest = piece.filled();
                while !rest.is_empty() {
                    match Pin::new(&mut *sink).poll_write(cx, rest) {
                        Poll::Ready(Ok(count @ 1..)) => {
                            rest = rest.get(count..).unwrap_or_default()
                        }
                        // No room, or never again: the next write above will tell.
                        _ => break,
                    }
                }
                self.held = Bytes::copy_from_slice(rest);
                Poll::Ready(Ok::<_, io::Error>(piece.filled().len()))
            });
            match ready!(read)? {
                0 => {
                    // A sink that is gone has nothing to be told.
                    let _ = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                    return self.finish();
                }
                _ => *moved = true,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn finish(&mut self) -> Poll<io::Result<()>> {
        self.held = Bytes::new();
        self.over = true;
        Poll::Ready(Ok(()))
    }
}
