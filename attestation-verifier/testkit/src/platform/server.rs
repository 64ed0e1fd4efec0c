//! The socket, the queue in front of the one "processor", and the faults.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use touchstone_formats::evidence::{EventLog, Tee};

use super::fault::{Fault, FaultPlan};
use super::guest;
use crate::machine::{Machine, TeeMachine};

const PROTOCOL: &str = "touchstone/quote-agent/1";
/// Longest line in either direction.
const LINE_LIMIT: usize = 4 << 20;

/// What is spoken on a platform's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// That of quote agents (`docs/quote-agent.md`).
    #[default]
    Agent,
    /// That of a test image's kernel module, which makes the platform the provider behind configfs-tsm: 64 bytes of report data come in, quote and
    /// certificate table go out, each after its length in 32 bits, little endian; one report a connection.
    Guest,
}

/// How to run a simulated platform.
#[derive(Clone, Debug)]
pub struct PlatformConfig<M = Machine> {
    /// Where to listen. A stale socket there is replaced; anything else there is an error.
    pub socket: PathBuf,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The machine.
    pub machine: M,
    /// How long one quote takes. Quotes are made one after the other.
    pub latency: Duration,
    /// The fault to begin with.
    pub fault: Option<FaultPlan>,
    /// A file that holds a fault ([`FaultPlan::parse`]); read before every request, obeyed whenever its text changes.
    pub control_file: Option<PathBuf>,
}

impl<M> PlatformConfig<M> {
    /// The agents' protocol, no latency, no fault.
    pub fn new(socket: PathBuf, machine: M) -> Self {
        Self {
            socket,
            protocol: Protocol::Agent,
            machine,
            latency: Duration::ZERO,
            fault: None,
            control_file: None,
        }
    }
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Requests that were understood.
    pub requests: u64,
    /// Lines that were not.
    pub malformed: u64,
    /// Honest quotes made.
    pub quotes: u64,
    /// Requests that met a fault.
    pub faults: u64,
    /// The most requests that ever waited or were being served at one moment.
    pub peak_waiting: u64,
}

/// Starts simulated platforms.
#[derive(Debug)]
pub struct SimulatedPlatform;

impl SimulatedPlatform {
    /// Listens, and serves on a thread of its own until the handle is dropped. When this returns, a client can connect.
    ///
    /// # Errors
    /// When the socket cannot be had.
    pub fn start<M: TeeMachine>(config: PlatformConfig<M>) -> io::Result<PlatformHandle<M>> {
        remove_stale_socket(&config.socket)?;
        let listener = std::os::unix::net::UnixListener::bind(&config.socket)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", config.socket.display())))?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            machine: Mutex::new(Arc::new(config.machine)),
            latency_micros: AtomicU64::new(config.latency.as_micros() as u64),
            fault: Mutex::new(config.fault),
            control: config.control_file.map(|path| {
                Mutex::new(Control {
                    path,
                    seen: String::new(),
                })
            }),
            counters: AtomicCounters::default(),
            processor: tokio::sync::Mutex::new(()),
        });
        // A runtime of its own: it works under blocking tests, and no test's work starves it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = watch::channel(());
        let (served, protocol) = (shared.clone(), config.protocol);
        let thread = std::thread::Builder::new()
            .name("simulated-platform".into())
            .spawn(move || runtime.block_on(accept(listener, protocol, served, stopped)))?;
        Ok(PlatformHandle {
            socket: config.socket,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// A running platform. Dropping it ends every connection and removes the socket.
#[derive(Debug)]
pub struct PlatformHandle<M = Machine> {
    socket: PathBuf,
    shared: Arc<Shared<M>>,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl<M: Clone> PlatformHandle<M> {
    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The machine as it is now.
    pub fn machine(&self) -> Arc<M> {
        lock(&self.shared.machine).clone()
    }

    /// Changes the machine under the running enclave: another measurement, a firmware update, a new chip.
    pub fn change(&self, change: impl FnOnce(&mut M)) {
        let mut machine = lock(&self.shared.machine);
        let mut copy = M::clone(&machine);
        change(&mut copy);
        *machine = Arc::new(copy);
    }

    /// Sets how long one quote takes from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.shared
            .latency_micros
            .store(latency.as_micros() as u64, Ordering::Relaxed);
    }

    /// Misbehaves from now on, for so many requests or until [`PlatformHandle::clear_fault`].
    pub fn set_fault(&self, fault: Fault, times: Option<u32>) {
        *lock(&self.shared.fault) = Some(FaultPlan { fault, times });
    }

    /// Behaves from now on. A connection that hangs goes on hanging.
    pub fn clear_fault(&self) {
        *lock(&self.shared.fault) = None;
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.shared.counters.snapshot()
    }

    /// Ends it and waits until it has ended.
    pub fn stop(self) {}
}

impl<M> Drop for PlatformHandle<M> {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

#[derive(Debug)]
pub(super) struct Shared<M> {
    machine: Mutex<Arc<M>>,
    latency_micros: AtomicU64,
    fault: Mutex<Option<FaultPlan>>,
    control: Option<Mutex<Control>>,
    counters: AtomicCounters,
    /// Held while a quote is being made: like the firmware, one at a time.
    processor: tokio::sync::Mutex<()>,
}

impl<M> Shared<M> {
    /// Serves one request that was understood.
    pub(super) async fn counted<T>(&self, request: impl Future<Output = T>) -> T {
        let counters = &self.counters;
        count(&counters.requests);
        let waiting = count(&counters.waiting);
        counters.peak_waiting.fetch_max(waiting, Ordering::SeqCst);
        let done = request.await;
        counters.waiting.fetch_sub(1, Ordering::SeqCst);
        done
    }

    /// The fault that the next request meets.
    pub(super) fn fault(&self) -> Option<Fault> {
        obey_control_file(self);
        let fault = FaultPlan::take(&mut lock(&self.fault));
        count(match fault {
            Some(_) => &self.counters.faults,
            None => &self.counters.quotes,
        });
        fault
    }

    /// A request that was not understood.
    pub(super) fn malformed(&self) {
        count(&self.counters.malformed);
    }
}

#[derive(Debug)]
struct Control {
    path: PathBuf,
    seen: String,
}

#[derive(Debug, Default)]
struct AtomicCounters {
    connections: AtomicU64,
    requests: AtomicU64,
    malformed: AtomicU64,
    quotes: AtomicU64,
    faults: AtomicU64,
    waiting: AtomicU64,
    peak_waiting: AtomicU64,
}

impl AtomicCounters {
    fn snapshot(&self) -> Counters {
        let read = |c: &AtomicU64| c.load(Ordering::SeqCst);
        Counters {
            connections: read(&self.connections),
            requests: read(&self.requests),
            malformed: read(&self.malformed),
            quotes: read(&self.quotes),
            faults: read(&self.faults),
            peak_waiting: read(&self.peak_waiting),
        }
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::SeqCst) + 1
}

/// A panic elsewhere in a test must not hide behind a poisoned lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn accept<M: TeeMachine>(
    listener: std::os::unix::net::UnixListener,
    protocol: Protocol,
    shared: Arc<Shared<M>>,
    mut stopped: watch::Receiver<()>,
) {
    let Ok(listener) = UnixListener::from_std(listener) else {
        return;
    };
    loop {
        let stream = tokio::select! {
            // The sender is never used, only dropped.
            _ = stopped.changed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors, most likely: try again rather than spin.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
        };
        count(&shared.counters.connections);
        let shared = shared.clone();
        // Ends with the runtime, when `accept` returns.
        tokio::spawn(async move {
            let _ = match protocol {
                Protocol::Agent => connection(stream, &shared).await,
                Protocol::Guest => guest::connection(stream, &shared).await,
            };
        });
    }
}

async fn connection<M: TeeMachine>(stream: UnixStream, shared: &Shared<M>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        (&mut read)
            .take(LINE_LIMIT as u64 + 1)
            .read_until(b'\n', &mut line)
            .await?;
        if line.is_empty() {
            return Ok(());
        }
        let report_data = match parse_request(&line) {
            Ok(report_data) => report_data,
            Err(message) => {
                shared.malformed();
                // What follows on this connection cannot be trusted to begin where a request begins.
                return send(&mut write, &failure("failed", &message)).await;
            }
        };
        let done = answer(shared, report_data, &mut write);
        match shared.counted(done).await? {
            Next::Request => {}
            Next::Close => return Ok(()),
            Next::Hang => {
                // Until the other side gives up; what it still sends is swallowed.
                tokio::io::copy_buf(&mut read, &mut tokio::io::sink()).await?;
                return Ok(());
            }
        }
    }
}

enum Next {
    Request,
    Close,
    Hang,
}

async fn answer<M: TeeMachine>(
    shared: &Shared<M>,
    report_data: [u8; 64],
    write: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<Next> {
    match shared.fault() {
        None => send(write, &quote(shared, report_data).await.success()).await?,
        Some(Fault::Busy) => {
            send(
                write,
                &failure("busy", "simulated: another request is being served"),
            )
            .await?
        }
        Some(Fault::Fail) => {
            send(write, &failure("failed", "simulated: the firmware refused")).await?
        }
        Some(Fault::Hang) => return Ok(Next::Hang),
        Some(Fault::Lie) => {
            let other = report_data.map(|byte| !byte);
            send(write, &quote(shared, other).await.success()).await?;
        }
        Some(Fault::Garbage) => write.write_all(b"\x00\xff this is no answer {]\n").await?,
        Some(Fault::Close) => {
            let line = quote(shared, report_data).await.success().to_string();
            write.write_all(&line.as_bytes()[..line.len() / 2]).await?;
            write.shutdown().await?;
            return Ok(Next::Close);
        }
        Some(Fault::WrongTee) => {
            let mut quote = quote(shared, report_data).await;
            quote.tee = match quote.tee {
                Tee::SevSnp => Tee::Tdx,
                Tee::Tdx => Tee::SevSnp,
            };
            send(write, &quote.success()).await?
        }
        Some(Fault::Truncate) => {
            let mut quote = quote(shared, report_data).await;
            quote.bytes.truncate(quote.bytes.len() - 100);
            send(write, &quote.success()).await?;
        }
        Some(Fault::Flood) => {
            // A reader that stops at its limit closes, which ends this; one that does not gets four times the limit.
            let chunk = vec![b'x'; 64 << 10];
            for _ in 0..4 * LINE_LIMIT / chunk.len() {
                write.write_all(&chunk).await?;
            }
            return Ok(Next::Close);
        }
        Some(Fault::WrongVersion) => {
            let mut answer = quote(shared, report_data).await.success();
            answer["v"] = json!("touchstone/quote-agent/99");
            send(write, &answer).await?;
        }
    }
    Ok(Next::Request)
}

/// What a platform answers with.
pub(super) struct Quote {
    tee: Tee,
    pub(super) bytes: Vec<u8>,
    event_log: Option<EventLog>,
    pub(super) certificates: Vec<u8>,
}

impl Quote {
    fn success(&self) -> Value {
        let mut answer =
            json!({"v": PROTOCOL, "tee": self.tee.name(), "quote": STANDARD.encode(&self.bytes)});
        if let Some(log) = &self.event_log {
            answer["event_log"] =
                json!({"format": log.format, "data": STANDARD.encode(&log.data.0)});
        }
        answer
    }
}

/// One quote, when the processor is free, after the latency.
pub(super) async fn quote<M: TeeMachine>(shared: &Shared<M>, report_data: [u8; 64]) -> Quote {
    let _processor = shared.processor.lock().await;
    let latency = Duration::from_micros(shared.latency_micros.load(Ordering::Relaxed));
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let machine = lock(&shared.machine).clone();
    Quote {
        tee: M::TEE,
        bytes: machine.quote(report_data),
        event_log: machine.event_log(),
        certificates: machine.certificate_table(),
    }
}

fn obey_control_file<M>(shared: &Shared<M>) {
    let Some(control) = &shared.control else {
        return;
    };
    let mut control = lock(control);
    let text = std::fs::read_to_string(&control.path).unwrap_or_default();
    if text == control.seen {
        return;
    }
    match FaultPlan::parse(&text) {
        Ok(plan) => *lock(&shared.fault) = plan,
        Err(message) => eprintln!("{}: {message}; nothing changed", control.path.display()),
    }
    control.seen = text;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    v: String,
    report_data: String,
}

fn parse_request(line: &[u8]) -> Result<[u8; 64], String> {
    let line = line
        .strip_suffix(b"\n")
        .ok_or("the request has no end of line, or is too long")?;
    let request: Request =
        serde_json::from_slice(line).map_err(|e| format!("the request is malformed: {e}"))?;
    if request.v != PROTOCOL {
        return Err(format!(
            "unknown version {:?}: expected {PROTOCOL:?}",
            request.v
        ));
    }
    let lower = request
        .report_data
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let bytes = hex::decode(&request.report_data).ok().filter(|_| lower);
    bytes
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| "report_data: expected 128 lower-case hex digits".into())
}

fn failure(error: &str, message: &str) -> Value {
    json!({"v": PROTOCOL, "error": error, "message": message})
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), answer: &Value) -> io::Result<()> {
    let mut line = answer.to_string();
    line.push('\n');
    write.write_all(line.as_bytes()).await
}

/// Takes away a socket that nobody listens on any more.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} is not a socket", path.display()),
        )),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("{}: somebody listens there", path.display()),
            )),
            Err(_) => std::fs::remove_file(path),
        },
    }
}
