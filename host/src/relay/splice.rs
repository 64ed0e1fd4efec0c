//! Bytes from one TCP socket to another through a pipe: the system moves pages, and nothing is copied
//! (`splice(2)`). Large transfers cost half the CPU of reading and writing; small ones cost more.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Bytes that a pipe holds at most: what the system grants to everyone.
const SIZE: usize = 1 << 20;
/// Pipes at once; whoever gets none copies. All of them together stay below what the system lets one
/// user without privileges have in pipes (64 MiB).
const PIPES: usize = 32;

/// The pipes of all connections. One is needed only while bytes stand in it.
#[derive(Debug)]
pub(super) struct Pipes {
    free: Mutex<Vec<Pipe>>,
    permits: Arc<Semaphore>,
}

impl Default for Pipes {
    fn default() -> Self {
        Self {
            free: Mutex::default(),
            permits: Arc::new(Semaphore::new(PIPES)),
        }
    }
}

impl Pipes {
    /// An empty pipe; `None` when all are taken, or the system gives none.
    pub(super) fn take(&self) -> Option<Pipe> {
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = free().pop() {
            return Some(pipe);
        }
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        let (end, begin) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // A smaller one does too.
        let _ = fcntl_setpipe_size(&begin, SIZE);
        Some(Pipe {
            begin,
            end,
            held: 0,
            _permit: permit,
        })
    }

    /// Takes a pipe back for other connections. One that is not empty is closed: what stands in it is
    /// nobody else's.
    pub(super) fn give_back(&self, pipe: Pipe) {
        if pipe.held == 0 {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.push(pipe);
        }
    }
}

/// A pipe, and how many bytes stand in it.
#[derive(Debug)]
pub(super) struct Pipe {
    begin: OwnedFd,
    end: OwnedFd,
    held: usize,
    _permit: OwnedSemaphorePermit,
}

impl Pipe {
    /// Fills the empty pipe with what has come in, and says how many bytes that is; 0: the end.
    ///
    /// # Errors
    /// What the system says of the socket.
    pub(super) fn poll_fill(
        &mut self,
        source: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(source.poll_read_ready(cx))?;
            // An empty pipe has room: it is the socket that would block.
            match source.try_io(Interest::READABLE, || {
                Ok(splice(
                    source,
                    None,
                    &self.begin,
                    None,
                    SIZE,
                    SpliceFlags::NONBLOCK,
                )?)
            }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(count) => {
                    self.held = count;
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }

    /// Empties the pipe into a socket; ready after every piece that went.
    ///
    /// # Errors
    /// What the system says of the socket.
    pub(super) fn poll_drain(
        &mut self,
        sink: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(sink.poll_write_ready(cx))?;
            match sink.try_io(Interest::WRITABLE, || {
                Ok(splice(
                    &self.end,
                    None,
                    sink,
                    None,
                    self.held,
                    SpliceFlags::NONBLOCK,
                )?)
            }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.held = self.held.saturating_sub(count);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }
}
