//! TLS on its way to the enclave: bytes passed on unread, both ways, until both sides have ended.
//!
//! The keys are the caller's and the enclave's. What can be seen here is who talks, when and how much;
//! nothing of the bytes is looked at beyond the first, which tells TLS from HTTP.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io, mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep, timeout},
};
use tokio_vsock::VsockStream;

use super::{
    seats::Seat,
    splice::{Pipe, Pipes},
    watch,
};
use crate::{
    address::{Address, Stream},
    config::{Limits, Patience as Waits},
    fleet::{Fleet, Wanted},
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
    /// The operator keeps everything from all of them.
    #[error("no enclave takes connections")]
    NoEnclave,
    /// Its place was given to another while its handshake was not over.
    #[error("the handshake was not over when others needed its place")]
    Left,
    /// One side broke off.
    #[error(transparent)]
    Lost(io::Error),
    /// No byte moved for too long.
    #[error("no byte moved in {} s", .0.as_secs_f64())]
    Idle(Duration),
}

/// Longest times in which no byte moves either way.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// While the enclave may have something to say.
    open: Duration,
    /// Once it has said its last.
    ended: Duration,
    /// From the beginning until the enclave has answered and the caller has spoken again.
    handshake: Duration,
}

/// The enclaves' TLS listeners, and how long to wait for what.
#[derive(Debug)]
pub(super) struct Passthrough {
    fleet: Arc<Fleet>,
    connect_timeout: Duration,
    patience: Patience,
    pipes: Pipes,
}

impl Passthrough {
    /// `None` when no TLS listener is set.
    pub(super) fn new(fleet: Arc<Fleet>, enclave: &Waits, limits: &Limits) -> Option<Self> {
        if !fleet.has_tls() {
            return None;
        }
        Some(Self {
            fleet,
            connect_timeout: enclave.connect_timeout,
            patience: Patience {
                // Nothing moves while the enclave works on an answer.
                open: limits.idle_timeout.max(enclave.answer_timeout),
                ended: limits.idle_timeout,
                handshake: limits.handshake_timeout,
            },
            pipes: Pipes::default(),
        })
    }

    /// Passes on all that `caller` and an enclave say to each other. Which enclave is settled before anything
    /// is said, by how many connections each has: what is asked for cannot be seen. One that cannot be reached
    /// is passed over; one that ends takes its connections with it.
    ///
    /// # Errors
    /// [`Broken`]. The connections are closed by then, whatever was under way.
    pub(super) async fn serve(&self, caller: TcpStream, seat: &Seat) -> Result<(), Broken> {
        let mut tried = Vec::new();
        let mut unreachable = Broken::NoEnclave;
        while let Some(member) = self.fleet.choose(Wanted::Tls, &tried) {
            let Some(address) = &member.tls else { break };
            let load = member.pass();
            let connected = match timeout(self.connect_timeout, address.connect()).await {
                Ok(connected) => connected,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            let enclave = match connected {
                Ok(enclave) => enclave,
                Err(error) => {
                    member.look_again();
                    tried.push(member.index);
                    let address = address.clone();
                    unreachable = Broken::Unreachable { address, error };
                    continue;
                }
            };
            let passed = match enclave {
                Stream::Tcp(to) => pass(caller, to, self.patience, &self.pipes, seat).await,
                Stream::Vsock(to) => pass(caller, to, self.patience, &self.pipes, seat).await,
                Stream::Unix(to) => pass(caller, to, self.patience, &self.pipes, seat).await,
            };
            drop(load);
            return passed;
        }
        Err(unreachable)
    }
}

/// One side of a connection that is passed on.
trait Side: AsyncRead + AsyncWrite + Unpin {
    /// The socket, if it can be spliced.
    fn tcp(&self) -> Option<&TcpStream>;
}

impl Side for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Side for VsockStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

impl Side for UnixStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

/// How far a handshake has come, by who has spoken: what is said is not looked at. Without this a flood of
/// handshakes that nobody means to finish would hold connections for as long as an answer may take.
#[derive(Debug, Clone, Copy)]
enum Handshake {
    Begun,
    Answered,
    Over,
}

/// Both directions in one task, so that one timer sees all that moves.
async fn pass(
    mut caller: impl Side,
    mut enclave: impl Side,
    patience: Patience,
    pipes: &Pipes,
    seat: &Seat,
) -> Result<(), Broken> {
    let (mut up, mut down) = (Direction::new(pipes), Direction::new(pipes));
    let mut idle_timeout = patience.open;
    let mut deadline = Instant::now() + idle_timeout;
    let by = Instant::now() + patience.handshake;
    let mut handshake = Handshake::Begun;
    let mut timer = pin!(sleep(idle_timeout.min(patience.handshake)));
    let mut leave = pin!(seat.leave.notified());
    poll_fn(|cx| {
        if !matches!(handshake, Handshake::Over) && leave.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Broken::Left));
        }
        let to_enclave = up.poll(&mut caller, &mut enclave, cx);
        let to_caller = down.poll(&mut enclave, &mut caller, cx);
        match (to_enclave, to_caller) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                return Poll::Ready(Err(Broken::Lost(error)));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            _ => {}
        }
        let (said, heard) = (mem::take(&mut up.moved), mem::take(&mut down.moved));
        handshake = match handshake {
            Handshake::Begun if heard || down.over => Handshake::Answered,
            // In the same turn it may have been said before the answer.
            Handshake::Answered if said => {
                seat.activity.requested();
                Handshake::Over
            }
            same => same,
        };
        if said | heard {
            if down.over {
                idle_timeout = patience.ended;
            }
            deadline = Instant::now() + idle_timeout;
        }
        let (end, within) = match handshake {
            Handshake::Over => (deadline, idle_timeout),
            _ if by < deadline => (by, patience.handshake),
            _ => (deadline, idle_timeout),
        };
        watch(timer.as_mut(), Some(end), cx).map(|()| Err(Broken::Idle(within)))
    })
    .await
}

/// What goes from one side to the other.
#[derive(Debug)]
struct Direction<'a> {
    /// What was read and the sink has no room for yet.
    held: Bytes,
    /// As much, when it was spliced; never empty.
    pipe: Option<Pipe>,
    pipes: &'a Pipes,
    /// The source has more to say than is worth copying.
    bulk: bool,
    /// Bytes have moved; for whoever takes note of it.
    moved: bool,
    over: bool,
}

impl<'a> Direction<'a> {
    fn new(pipes: &'a Pipes) -> Self {
        Self {
            held: Bytes::new(),
            pipe: None,
            pipes,
            bulk: false,
            moved: false,
            over: false,
        }
    }

    /// Passes on what there is. Ready when this direction is over, and the other goes on: the source
    /// has said its last, or the sink takes no more.
    ///
    /// # Errors
    /// The source is lost, and with it all that could be said to it.
    fn poll(
        &mut self,
        source: &mut impl Side,
        sink: &mut impl Side,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..TURN {
            if self.over {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_give(sink, cx)).is_err() {
                // What it said before it closed may still be on its way to the source.
                self.over = true;
            } else if ready!(self.poll_take(source, sink, cx))? == 0 {
                // A sink that is gone has nothing to be told.
                let _ = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                self.over = true;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was taken before. Ready when nothing of it is left.
    ///
    /// # Errors
    /// The sink takes no more.
    fn poll_give(&mut self, sink: &mut impl Side, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            match ready!(Pin::new(&mut *sink).poll_write(cx, &self.held))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.held.advance(count),
            }
            self.moved = true;
        }
        if let (Some(pipe), Some(sink)) = (&mut self.pipe, sink.tcp()) {
            while !pipe.is_empty() {
                ready!(pipe.poll_drain(sink, cx))?;
                self.moved = true;
            }
        }
        if let Some(pipe) = self.pipe.take() {
            self.pipes.give_back(pipe);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what the source has to say, and says how many bytes that is; 0: its last has been said.
    ///
    /// # Errors
    /// The source is lost.
    fn poll_take(
        &mut self,
        source: &mut impl Side,
        sink: &mut impl Side,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let pipe = match source.tcp().zip(sink.tcp()) {
            Some((source, _)) if self.bulk => self.pipes.take().map(|pipe| (pipe, source)),
            _ => None,
        };
        let count = match pipe {
            Some((pipe, source)) => {
                let count = ready!(self.poll_splice(pipe, source, cx))?;
                self.bulk = count >= PIECE / 4;
                count
            }
            None => {
                let count = ready!(self.poll_copy(source, sink, cx))?;
                self.bulk = count == PIECE;
                count
            }
        };
        self.moved = true;
        Poll::Ready(Ok(count))
    }

    fn poll_splice(
        &mut self,
        mut pipe: Pipe,
        source: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let count = pipe.poll_fill(source, cx);
        match pipe.is_empty() {
            true => self.pipes.give_back(pipe),
            false => self.pipe = Some(pipe),
        }
        count
    }

    fn poll_copy(
        &mut self,
        source: &mut impl Side,
        sink: &mut impl Side,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        PASSING.with_borrow_mut(|piece| {
            let mut piece = ReadBuf::new(piece);
            ready!(Pin::new(source).poll_read(cx, &mut piece))?;
            let mut rest = piece.filled();
            while !rest.is_empty() {
                match Pin::new(&mut *sink).poll_write(cx, rest) {
                    Poll::Ready(Ok(count @ 1..)) => rest = rest.get(count..).unwrap_or_default(),
                    // No room, or never again: `poll_give` will tell.
                    _ => break,
                }
            }
            self.held = Bytes::copy_from_slice(rest);
            Poll::Ready(Ok(piece.filled().len()))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::{limits::Activity, relay::seats::Seats};

    /// In memory, and not to be spliced: as vsock is.
    impl Side for DuplexStream {
        fn tcp(&self) -> Option<&TcpStream> {
            None
        }
    }

    async fn exchange(mut stream: DuplexStream, said: Vec<u8>) -> Vec<u8> {
        let mut heard = Vec::new();
        let (mut reading, mut writing) = tokio::io::split(&mut stream);
        let saying = async {
            writing.write_all(&said).await.unwrap();
            writing.shutdown().await.unwrap();
        };
        tokio::join!(saying, reading.read_to_end(&mut heard))
            .1
            .unwrap();
        heard
    }

    #[tokio::test]
    async fn what_cannot_be_spliced_is_copied() {
        let said = |factor: usize, length: usize| -> Vec<u8> {
            (0..length).map(|n| ((n * factor) >> 5) as u8).collect()
        };
        let patience = Patience {
            open: Duration::from_secs(20),
            ended: Duration::from_secs(20),
            handshake: Duration::from_secs(20),
        };
        let twenty = Duration::from_secs(20);
        let seat = Arc::<Seats>::default().take(Activity::new(twenty, twenty));
        // Less room than a piece, more, and much more.
        for room in [1_000, 100_000, 10_000_000] {
            let ((caller, a), (b, enclave)) = (duplex(room), duplex(room));
            let pipes = Pipes::default();
            let (passed, at_caller, at_enclave) = tokio::join!(
                pass(a, b, patience, &pipes, &seat),
                exchange(caller, said(31, 3_000_000)),
                exchange(enclave, said(37, 2_000_001)),
            );
            passed.unwrap();
            assert!(at_caller == said(37, 2_000_001) && at_enclave == said(31, 3_000_000));
        }
    }
}
