//! Sockets, signals, and the order in which things start and end.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    config::{Config, Limits, Listen, QuoteConfig, QuoteSourceConfig},
    control,
    models::{Repository, RepositoryConfig},
    net::{Bounds, Listener, open_files, plain, serve},
    public::{self, Channel, TlsChannel},
    quote::{AgentSource, KernelSource, QuoteSource},
    reload,
    runtime::Runtime,
    service::{Loader, Service},
};

/// Time that open connections get to take their last answer.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Files that are open beside connections: listeners, what threads wait on, the quote agent's socket, models that are
/// being read.
const FILES: usize = 64;

/// Runs the enclave until SIGTERM or SIGINT has drained it.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run(config: Config, arguments: &[String]) -> anyhow::Result<()> {
    let source = open_source(&config.quote).await?;
    let runtime = {
        let (library, sha256) = (config.runtime.library.clone(), config.runtime.sha256);
        tokio::task::spawn_blocking(move || Runtime::load(&library, sha256))
            .await?
            .context("loading ONNX Runtime")?
    };
    let repository = Repository::new(
        runtime,
        RepositoryConfig {
            root: config.models.repository.clone(),
            sessions: config.models.sessions,
            acquire_timeout: config.models.acquire_timeout,
            waiting: config.models.waiting,
        },
    );
    let loader: Loader = Box::new(move |previous| repository.load(previous));
    let service = Service::new(config, arguments, source, loader)?;
    let listeners = Listeners::bind(&service.config.listen).await?;
    start(service, listeners).await
}

/// The quote source, opened: the enclave does not begin to serve where the kernel's cannot be had. A quote agent is dialled
/// when the first quote is needed.
async fn open_source(quote: &QuoteConfig) -> anyhow::Result<Arc<dyn QuoteSource>> {
    let settings = match &quote.source {
        QuoteSourceConfig::Agent(path) => return Ok(Arc::new(AgentSource::new(path))),
        QuoteSourceConfig::Kernel(settings) => settings.clone(),
    };
    let opened = tokio::task::spawn_blocking(move || KernelSource::open(&settings));
    let source = tokio::time::timeout(quote.timeout, opened)
        .await
        .context("opening the quote source: no answer in quote.timeout_ms")??
        .context("opening the quote source")?;
    Ok(Arc::new(source))
}

/// The bound sockets.
pub struct Listeners {
    /// What the host relays from callers.
    pub public: Listener,
    /// What the host alone uses.
    pub control: Listener,
    /// Where TLS ends.
    pub tls: Option<Listener>,
}

impl Listeners {
    /// Binds them all, and logs where.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub async fn bind(listen: &Listen) -> anyhow::Result<Self> {
        let bind = |name: &'static str, address| async move {
            let listener = Listener::bind(address)
                .await
                .with_context(|| format!("listening on {address} ({name})"))?;
            tracing::info!(name, address = %listener.address()?, "listening");
            anyhow::Ok(listener)
        };
        Ok(Self {
            public: bind("public", &listen.public).await?,
            control: bind("control", &listen.control).await?,
            tls: match &listen.tls {
                Some(address) => Some(bind("tls", address).await?),
                None => None,
            },
        })
    }
}

/// Boots a service behind bound listeners and serves until it is told to end. The public listener
/// answers from the start, with 503 for everything but `/v2/health/live` until the boot quote exists.
///
/// # Errors
/// What keeps it from booting.
pub async fn start(service: Arc<Service>, listeners: Listeners) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let listeners = tokio::spawn(listen(service.clone(), listeners, stopped));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let ended_early = tokio::select! {
        booted = service.boot() => { booted?; false }
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
    };
    if ended_early {
        tracing::info!("told to end before the boot quote existed");
        return Ok(());
    }
    tokio::spawn(service.clone().rotate_in_time());
    if service.config.models.reload_seconds > 0 {
        let interval = Duration::from_secs(service.config.models.reload_seconds);
        tokio::spawn(reload::watch(service.clone(), interval));
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                let service = service.clone();
                tokio::spawn(async move { reload::now(&service).await });
            }
        }
    }

    let time = service.config.limits.drain;
    let drained = tokio::time::timeout(time, async {
        service.drain().await;
        service.outbox.drained().await;
    });
    tokio::select! {
        drained = drained => match drained {
            Ok(()) => tracing::info!("drained: everything is sealed and acknowledged"),
            Err(_) => tracing::error!(
                unsealed = service.outbox.unsealed(),
                "not everything was sealed and acknowledged in time; the rest is lost"
            ),
        },
        _ = terminate.recv() => tracing::error!("told twice to end: ending without draining"),
        _ = interrupt.recv() => tracing::error!("told twice to end: ending without draining"),
    }
    stop.send_replace(true);
    let _ = tokio::time::timeout(LAST_ANSWERS, listeners).await;
    Ok(())
}

/// Serves the listeners until `stopped` turns true and their connections are closed.
pub fn listen(
    service: Arc<Service>,
    listeners: Listeners,
    stopped: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send {
    let limits = &service.config.limits;
    let open = 1 + usize::from(listeners.tls.is_some());
    let bounds = Bounds {
        connections: connections(limits, open, open_files()),
        header_bytes: limits.header_bytes,
        headers: limits.headers,
        header_timeout: limits.header_timeout,
        write_timeout: limits.write_timeout,
    };
    // The host polls: its connections idle for as long as nothing is sealed.
    let control_bounds = Bounds {
        connections: limits.control_connections,
        header_timeout: Duration::from_secs(120),
        ..bounds
    };
    let at_tls = service.clone();
    let tls = listeners.tls.map(|listener| {
        serve(listener, bounds, stopped.clone(), move |stream| {
            let service = at_tls.clone();
            async move {
                let (stream, channel) = TlsChannel::open(&service, stream).await?;
                let handler = move |request| {
                    public::handle(service.clone(), Channel::Tls(channel.clone()), request)
                };
                Ok((stream, handler))
            }
        })
    });
    let tls = async move {
        if let Some(tls) = tls {
            tls.await;
        }
    };
    let at_public = service.clone();
    let at_public =
        plain(move |request| public::handle(at_public.clone(), Channel::Plain, request));
    let public = serve(listeners.public, bounds, stopped.clone(), at_public);
    let at_control = plain(move |request| control::handle(service.clone(), request));
    let control = serve(listeners.control, control_bounds, stopped, at_control);
    async move {
        tokio::join!(public, control, tls);
    }
}

/// Most connections on each of the listeners that are open to callers: what the settings say, or fewer where the system
/// lets so many files not be open. Whatever callers do, there are some left for the host and for quotes.
fn connections(limits: &Limits, listeners: usize, files: Option<u64>) -> usize {
    let own = limits.control_connections + FILES;
    let files = files.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    });
    let most = (files.saturating_sub(own) / listeners).max(1);
    if most < limits.connections {
        tracing::warn!(
            files,
            needed = limits.connections * listeners + own,
            connections = most,
            "fewer files may be open than limits.connections asks for: fewer connections are taken"
        );
    }
    limits.connections.min(most)
}
