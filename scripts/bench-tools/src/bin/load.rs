//! Load generator: keeps N connections busy, one request at a time each, and says what came back.
//!
//! HTTP/1.1 over plain sockets, written out by hand: its own cost stays small, and is reported apart from
//! the servers' (user and system time from `/proc`, over the same window).

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bench_tools::{
    figures::{Latencies, joined, per},
    http::answer,
    tls,
    window::{Phase, Window},
};
use clap::Parser;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Sends the same request over many connections and prints figures as JSON.
#[derive(Parser)]
struct Arguments {
    /// Server, HOST:PORT
    #[arg(long)]
    server: String,
    /// Request target
    #[arg(long)]
    path: String,
    /// File with the request's body
    #[arg(long)]
    body: PathBuf,
    /// Inference-Header-Content-Length: the body is in the binary extension
    #[arg(long)]
    header_length: Option<usize>,
    /// A further header field, "Name: value"
    #[arg(long = "header")]
    headers: Vec<String>,
    /// Connections
    #[arg(long)]
    connections: usize,
    /// Seconds before the window opens
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds that are measured
    #[arg(long)]
    seconds: f64,
    /// End the window early after so many answers
    #[arg(long)]
    answers: Option<u64>,
    /// Requests a second, over all connections together, in place of as many as possible
    #[arg(long)]
    rate: Option<f64>,
    /// Over TLS, with a session at the beginning of each connection; what it proves is not looked at
    #[arg(long)]
    session: bool,
    /// Threads of the generator
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// A process whose CPU time counts as the server's
    #[arg(long = "server-pid")]
    server_pids: Vec<u32>,
}

struct Shared {
    server: String,
    request: Vec<u8>,
    phase: Phase,
    answers: AtomicU64,
    connector: Option<TlsConnector>,
    /// Time between two requests of one connection.
    pace: Option<Duration>,
}

/// What one connection saw inside the window.
#[derive(Default)]
struct Seen {
    latencies: Latencies,
    outcomes: BTreeMap<String, u64>,
    bytes: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (open_files, wanted) = (open_files_limit()?, arguments.connections as u64 + 32);
    ensure!(
        open_files >= wanted,
        "{wanted} open files are needed and {open_files} allowed: raise `ulimit -n`"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads)
        .enable_all()
        .build()?;
    runtime.block_on(run(arguments))
}

/// The soft limit on open files.
fn open_files_limit() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/limits")?;
    let line = text
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .context("no limit on open files")?;
    let soft = line
        .split_ascii_whitespace()
        .nth(3)
        .context("no soft limit")?;
    Ok(soft.parse().unwrap_or(u64::MAX))
}

fn request(arguments: &Arguments) -> Result<Vec<u8>> {
    let body =
        std::fs::read(&arguments.body).with_context(|| arguments.body.display().to_string())?;
    let mut head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n",
        arguments.path,
        arguments.server,
        body.len()
    );
    match arguments.header_length {
        Some(length) => head.push_str(&format!(
            "Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {length}\r\n"
        )),
        None => head.push_str("Content-Type: application/json\r\n"),
    }
    for header in &arguments.headers {
        ensure!(
            !header.contains(['\r', '\n']),
            "--header {header:?}: one line"
        );
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    Ok([head.into_bytes(), body].concat())
}

async fn run(arguments: Arguments) -> Result<()> {
    let shared = Arc::new(Shared {
        server: arguments.server.clone(),
        request: request(&arguments)?,
        phase: Phase::default(),
        answers: AtomicU64::new(0),
        connector: arguments.session.then(tls::connector).transpose()?,
        pace: arguments
            .rate
            .map(|rate| Duration::from_secs_f64(arguments.connections as f64 / rate)),
    });
    let tasks: Vec<_> = (0..arguments.connections)
        .map(|n| tokio::spawn(connection(Arc::clone(&shared), n)))
        .collect();
    let answers = arguments.answers;
    let enough = || answers.is_some_and(|n| shared.answers.load(Ordering::Relaxed) >= n);
    let Window {
        seconds,
        cpu,
        own_cpu,
    } = Window::measure(
        &shared.phase,
        arguments.warm_up,
        arguments.seconds,
        &arguments.server_pids,
        answers.is_some().then_some(&enough as _),
    )
    .await?;

    let mut total = Seen::default();
    for task in tasks {
        let seen = tokio::time::timeout(Duration::from_secs(60), task)
            .await
            .context("a connection hangs")??;
        total.latencies.extend(seen.latencies);
        total.bytes += seen.bytes;
        for (outcome, count) in seen.outcomes {
            *total.outcomes.entry(outcome).or_default() += count;
        }
    }
    let good = total.latencies.count() as f64;
    let errors: u64 = total
        .outcomes
        .iter()
        .filter(|(name, _)| !name.starts_with("200"))
        .map(|(_, n)| n)
        .sum();
    let figures = serde_json::json!({
        "connections": arguments.connections, "seconds": seconds, "answers": good, "errors": errors,
        "outcomes": total.outcomes, "per_second": good / seconds,
        "cpu_seconds": cpu.as_secs_f64(), "per_cpu_second": per(good, cpu), "load_cpu_seconds": own_cpu.as_secs_f64(),
        "bytes": total.bytes,
    });
    println!("{}", joined([figures, total.latencies.percentiles()]));
    Ok(())
}

/// One connection, opened again when it breaks, until the end.
async fn connection(shared: Arc<Shared>, number: usize) -> Seen {
    let mut seen = Seen::default();
    if let Some(pace) = shared.pace {
        // Spread over one interval, in an order that puts no neighbours together.
        tokio::time::sleep(pace.mul_f64((number as f64 * 0.618_034).fract())).await;
    }
    let mut buffer = Vec::with_capacity(16 << 10);
    while !shared.phase.over() {
        if let Err(error) = connected(&shared, &mut seen, &mut buffer).await {
            if shared.phase.counts() {
                *seen.outcomes.entry(error.to_string()).or_default() += 1;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    seen
}

async fn connected(shared: &Shared, seen: &mut Seen, buffer: &mut Vec<u8>) -> Result<()> {
    if let Some(connector) = &shared.connector {
        let mut stream = tls::connect(connector, &shared.server).await?;
        tls::open_session(&mut stream, &shared.server).await?;
        return keep_busy(stream, shared, seen, buffer).await;
    }
    let stream = TcpStream::connect(&shared.server).await?;
    stream.set_nodelay(true)?;
    keep_busy(stream, shared, seen, buffer).await
}

async fn keep_busy<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    shared: &Shared,
    seen: &mut Seen,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    let mut tick = shared.pace.map(tokio::time::interval);
    while !shared.phase.over() {
        if let Some(tick) = &mut tick {
            tick.tick().await;
        }
        let counts = shared.phase.counts();
        let asked = Instant::now();
        stream.write_all(&shared.request).await?;
        stream.flush().await?;
        let (outcome, bytes) = answer(&mut stream, buffer).await?;
        if counts && shared.phase.counts() {
            if outcome.starts_with("200") {
                seen.latencies.note(asked.elapsed());
                shared.answers.fetch_add(1, Ordering::Relaxed);
            }
            seen.bytes += bytes as u64;
            match seen.outcomes.get_mut(outcome.as_str()) {
                Some(count) => *count += 1,
                None => {
                    seen.outcomes.insert(outcome, 1);
                }
            }
        }
    }
    Ok(())
}
