//! The threads that carry connections, each with a scheduler of its own.
//!
//! A caller's connection stays on the thread that it was given to, with the connections to enclaves that its requests
//! go by: none of them is woken from elsewhere, and those of one thread have their turns in the order in which there was
//! something to do.
//! New connections are accepted elsewhere, however much these threads have to do.

use std::{
    cell::Cell,
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinSet,
};

/// Turns of connections until it is looked who else has something to say. With more of them, whoever comes late waits for all;
/// with fewer, looking costs more than the turns.
const TURNS: u32 = 16;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// Which of them runs this code: from 1 on; 0 is any other thread.
pub(super) fn current() -> usize {
    NUMBER.get()
}

/// All of them. Dropped, they end, and what runs on them with them.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    /// Dropped, it ends.
    _until: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// A place among a worker's connections.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Workers {
    /// Starts so many.
    ///
    /// # Errors
    /// When the system gives no more threads or files.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let workers = (1..=count).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { workers })
    }

    /// Has the one with the fewest connections carry this one.
    pub(super) fn carry<F>(
        &self,
        stream: TcpStream,
        tasks: &mut JoinSet<()>,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let load = |worker: &&Worker| worker.connections.load(Relaxed);
        let Some(worker) = self.workers.iter().min_by_key(load) else {
            return;
        };
        worker.connections.fetch_add(1, Relaxed);
        let place = Place(worker.connections.clone());
        let stream = stream.into_std();
        let carried = async move {
            let _place = place;
            // Only now: it is this thread that hears of it.
            match stream.and_then(TcpStream::from_std) {
                Ok(stream) => serve(stream).await,
                Err(error) => tracing::debug!(%error, "a connection was gone before it began"),
            }
        };
        tasks.spawn_on(carried, &worker.handle);
    }

    /// Ends them, with what still runs there, and waits until they have.
    pub(super) async fn end(self) {
        let threads = self.workers.into_iter().map(|worker| worker.thread);
        let threads: Vec<_> = threads.collect();
        let ended = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        let _ = tokio::task::spawn_blocking(ended).await;
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .event_interval(TURNS)
            .enable_all()
            .build()?;
        let (until, ended) = oneshot::channel();
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new()
            .name(format!("relay-{number}"))
            .spawn(move || {
                NUMBER.set(number);
                // Never sent: it ends when the other side is dropped.
                let _ = runtime.block_on(ended);
            })?;
        Ok(Self {
            handle,
            connections: Arc::default(),
            _until: until,
            thread,
        })
    }
}
