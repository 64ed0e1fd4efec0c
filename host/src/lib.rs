//! The host: an untrusted relay in front of one or many enclaves.
//!
//! It passes callers' requests on unchanged ([`relay`]), each to an enclave that can answer it ([`fleet`]), takes from the
//! enclaves what has to outlive them ([`puller`], [`store`]), attaches what makes quotes verifiable ([`collateral`]) and serves bundles
//! ([`receipts`]) and the manifest of the software ([`manifest`]). Nothing that it does has to be believed: whoever relies on a receipt checks the
//! bundle. What a host can do is withhold (docs/host.md).
//!
//! It sees what passes by and keeps none of it: no body, no salt (`Touchstone-Openings`) is ever
//! stored, logged or read.
#![forbid(unsafe_code)]

pub mod address;
pub mod clients;
pub mod collateral;
pub mod config;
pub mod control;
pub mod fleet;
pub mod limits;
pub mod manifest;
pub mod metrics;
pub mod operation;
mod outlook;
pub mod pending;
pub mod problem;
pub mod puller;
pub mod receipts;
pub mod relay;
mod seldom;
pub mod store;
pub mod waiters;

use std::{io, net::SocketAddr, sync::Arc};

use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use collateral::{CollateralFolder, platform::watch_collateral};
use config::Config;
use fleet::Fleet;
use manifest::ManifestFile;
use metrics::{Metrics, Sources};
use operation::Operation;
use pending::Pending;
use receipts::Receipts;
use relay::{Relay, forward::Forwarder, workers::Workers};
use store::{Store, StoreError, WriterThread};
use waiters::Waiters;

/// Why the host does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("listen {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The operator's socket cannot be made.
    #[error("operation.socket {path}: {error}")]
    Socket {
        /// Its path.
        path: std::path::PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The system gives no more threads, or files.
    #[error("threads = {threads}: {error}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        error: io::Error,
    },
    /// Figures of one name twice: never.
    #[error("figures: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A host that runs.
#[derive(Debug)]
pub struct Host {
    address: SocketAddr,
    operation_address: Option<SocketAddr>,
    fleet: Arc<Fleet>,
    stop: watch::Sender<bool>,
    relay: JoinHandle<()>,
    stop_pulling: watch::Sender<bool>,
    others: Vec<JoinHandle<()>>,
    sweeps: JoinSet<()>,
    writer: WriterThread,
}

impl Host {
    /// Starts everything. The enclave need not be there yet.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let pending = Arc::new(Pending::new(config.store.pending));
        let waiters = Arc::new(Waiters::default());
        let metrics = Metrics::new(config)?;
        let (store, writer) = {
            let (path, pending, waiters, metrics) = (
                config.store.path.clone(),
                pending.clone(),
                waiters.clone(),
                metrics.clone(),
            );
            let names = config.enclaves.iter().map(|enclave| enclave.name.clone());
            let names = names.collect();
            tokio::task::spawn_blocking(move || {
                Store::open(&path, names, pending, waiters, metrics)
            })
            .await
            .map_err(|_| StoreError::Closed)??
        };
        let listen_error = |error| StartError::Listen {
            address: config.listen,
            error,
        };
        let listener = listen(config.listen).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;

        let (reading, orders) = operators(config)?;
        let operation_address = reading.as_ref().and_then(|l| l.local_addr().ok());

        let (stop, stopped) = watch::channel(false);
        let (stop_pulling, pulling_stopped) = watch::channel(false);
        let fleet = Fleet::new(config, &store);
        metrics.know_models_of(&fleet);
        let mut sweeps = JoinSet::new();
        for member in fleet.members() {
            sweeps.spawn(member.public.clone().sweep());
            sweeps.spawn(member.control.clone().sweep());
        }
        let collateral = {
            let folder = config.collateral.folder.clone();
            tokio::task::spawn_blocking(move || CollateralFolder::open(folder))
                .await
                .map_err(|_| StoreError::Closed)?
        };
        let manifest = {
            let file = config.manifest.file.clone();
            tokio::task::spawn_blocking(move || ManifestFile::open(file))
                .await
                .map_err(|_| StoreError::Closed)?
        };
        let receipts = Receipts::new(
            store.clone(),
            pending.clone(),
            waiters,
            fleet.clone(),
            collateral.clone(),
            config.receipts.max_wait,
            stopped.clone(),
        );
        let forwarder = Forwarder::new(
            fleet.clone(),
            store,
            &config.enclave,
            &config.limits,
            pending.clone(),
            metrics.clone(),
        );
        let relay = Relay::new(
            forwarder,
            receipts,
            collateral.clone(),
            manifest.clone(),
            fleet.clone(),
            &config.enclave,
            &config.limits,
            metrics.clone(),
        );
        let sources = Sources {
            fleet: fleet.clone(),
            pending,
            collateral: collateral.clone(),
            clients: relay.clients().clone(),
        };
        let operation = Operation::new(metrics, sources);
        let threads = config.threads;
        let workers =
            Workers::start(threads).map_err(|error| StartError::Threads { threads, error })?;
        let relay = tokio::spawn(relay.serve(listener, workers, stopped));
        let mut others = Vec::new();
        if let Some(listener) = reading {
            let serving = operation.clone().serve(listener, pulling_stopped.clone());
            others.push(tokio::spawn(serving));
        }
        if let Some((listener, path)) = orders {
            let serving = operation.serve_orders(listener, path, pulling_stopped.clone());
            others.push(tokio::spawn(serving));
        }
        for member in fleet.members() {
            let watching = fleet
                .clone()
                .watch_health(member.clone(), pulling_stopped.clone());
            others.push(tokio::spawn(watching));
            let pulling = member.puller.clone().run(pulling_stopped.clone());
            others.push(tokio::spawn(pulling));
        }
        if collateral.is_watched() {
            others.push(tokio::spawn(watch_collateral(
                collateral,
                fleet.clone(),
                config.collateral.poll,
                pulling_stopped.clone(),
            )));
        }
        if manifest.is_watched() {
            let watching = manifest.watch(config.manifest.poll, pulling_stopped);
            others.push(tokio::spawn(watching));
        }
        Ok(Self {
            address,
            operation_address,
            fleet,
            stop,
            relay,
            stop_pulling,
            others,
            sweeps,
            writer,
        })
    }

    /// Where callers come in.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the operator reads, if there is such a listener.
    pub fn operation_address(&self) -> Option<SocketAddr> {
        self.operation_address
    }

    /// The enclaves.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// Stops: no new connections, requests under way are finished (for `limits.drain_ms` at most), what
    /// is noted is written down.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.relay.await;
        // Only now: requests under way may wait for what is pulled.
        let _ = self.stop_pulling.send(true);
        drop(self.sweeps);
        for task in self.others {
            let _ = task.await;
        }
        // With it go the store's readers: the last to close the file is to be the one that may write.
        drop(self.fleet);
        let _ = tokio::task::spawn_blocking(move || self.writer.finish()).await;
    }
}

type Operators = (
    Option<TcpListener>,
    Option<(tokio::net::UnixListener, std::path::PathBuf)>,
);

/// The operator's listeners.
fn operators(config: &Config) -> Result<Operators, StartError> {
    let reading = config
        .operation
        .listen
        .map(|address| listen(address).map_err(|error| StartError::Listen { address, error }));
    let orders =
        config
            .operation
            .socket
            .clone()
            .map(|path| match operation::listen_orders(&path) {
                Ok(listener) => Ok((listener, path)),
                Err(error) => Err(StartError::Socket { path, error }),
            });
    Ok((reading.transpose()?, orders.transpose()?))
}

/// Listens. The queue of connections that wait to be accepted is no longer than what can be accepted, and turned away,
/// within a moment: after a flood a long one would be gone through before anybody else's turn comes.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    const QUEUE: u32 = 1_024;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A host that is started anew takes its address back at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}
