//! Load generator: keeps N connections busy, one request at a time each, and says what came back.
//!
//! HTTP/1.1 over plain sockets, written out by hand: its own cost stays small, and is reported apart from
//! the servers' (user and system time from `/proc`, over the same window).

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bench_tools::cpu::process_cpu;
use clap::Parser;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

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
    /// Threads of the generator
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// A process whose CPU time counts as the server's
    #[arg(long = "server-pid")]
    server_pids: Vec<u32>,
}

const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const END: u8 = 2;

struct Shared {
    server: String,
    request: Vec<u8>,
    phase: AtomicU8,
    answers: AtomicU64,
    /// Time between two requests of one connection.
    pace: Option<Duration>,
}

/// What one connection saw inside the window.
#[derive(Default)]
struct Seen {
    latencies_us: Vec<u32>,
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
        phase: AtomicU8::new(WARM_UP),
        answers: AtomicU64::new(0),
        pace: arguments
            .rate
            .map(|rate| Duration::from_secs_f64(arguments.connections as f64 / rate)),
    });
    let tasks: Vec<_> = (0..arguments.connections)
        .map(|n| tokio::spawn(connection(Arc::clone(&shared), n)))
        .collect();
    tokio::time::sleep(Duration::from_secs_f64(arguments.warm_up)).await;

    let servers_cpu = || {
        arguments
            .server_pids
            .iter()
            .map(|pid| process_cpu(*pid))
            .sum::<Result<Duration>>()
    };
    let own = std::process::id();
    let (cpu, own_cpu, started) = (servers_cpu()?, process_cpu(own)?, Instant::now());
    shared.phase.store(MEASURE, Ordering::Relaxed);
    let end = started + Duration::from_secs_f64(arguments.seconds);
    while Instant::now() < end
        && arguments
            .answers
            .is_none_or(|n| shared.answers.load(Ordering::Relaxed) < n)
    {
        let left = end.saturating_duration_since(Instant::now());
        // Only a run that ends by count needs to look often.
        let nap = if arguments.answers.is_some() {
            Duration::from_millis(5)
        } else {
            left
        };
        tokio::time::sleep(nap.min(left)).await;
    }
    shared.phase.store(END, Ordering::Relaxed);
    let seconds = started.elapsed().as_secs_f64();
    let (cpu, own_cpu) = (
        (servers_cpu()? - cpu).as_secs_f64(),
        (process_cpu(own)? - own_cpu).as_secs_f64(),
    );

    let mut total = Seen::default();
    for task in tasks {
        let seen = tokio::time::timeout(Duration::from_secs(60), task)
            .await
            .context("a connection hangs")??;
        total.latencies_us.extend(seen.latencies_us);
        total.bytes += seen.bytes;
        for (outcome, count) in seen.outcomes {
            *total.outcomes.entry(outcome).or_default() += count;
        }
    }
    total.latencies_us.sort_unstable();
    let percentile = |p: f64| {
        let last = total.latencies_us.len().saturating_sub(1);
        total
            .latencies_us
            .get((last as f64 * p).round() as usize)
            .copied()
            .unwrap_or(0)
    };
    let good = total.latencies_us.len() as f64;
    let errors: u64 = total
        .outcomes
        .iter()
        .filter(|(name, _)| !name.starts_with("200"))
        .map(|(_, n)| n)
        .sum();
    let figures = serde_json::json!({
        "connections": arguments.connections, "seconds": seconds, "answers": good, "errors": errors,
        "outcomes": total.outcomes, "per_second": good / seconds,
        "cpu_seconds": cpu, "per_cpu_second": if cpu > 0.0 { good / cpu } else { 0.0 }, "load_cpu_seconds": own_cpu,
        "p50_us": percentile(0.50), "p90_us": percentile(0.90), "p99_us": percentile(0.99), "max_us": percentile(1.0),
        "bytes": total.bytes,
    });
    println!("{figures}");
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
    while shared.phase.load(Ordering::Relaxed) != END {
        if let Err(error) = keep_busy(&shared, &mut seen, &mut buffer).await {
            if shared.phase.load(Ordering::Relaxed) == MEASURE {
                *seen.outcomes.entry(error.to_string()).or_default() += 1;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    seen
}

async fn keep_busy(shared: &Shared, seen: &mut Seen, buffer: &mut Vec<u8>) -> Result<()> {
    let mut stream = TcpStream::connect(&shared.server).await?;
    stream.set_nodelay(true)?;
    let mut tick = shared.pace.map(tokio::time::interval);
    while shared.phase.load(Ordering::Relaxed) != END {
        if let Some(tick) = &mut tick {
            tick.tick().await;
        }
        let asked_in = shared.phase.load(Ordering::Relaxed);
        let asked = Instant::now();
        stream.write_all(&shared.request).await?;
        let (outcome, bytes) = answer(&mut stream, buffer).await?;
        if asked_in == MEASURE && shared.phase.load(Ordering::Relaxed) == MEASURE {
            if outcome.starts_with("200") {
                seen.latencies_us
                    .push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
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

/// Reads one answer whole; returns its status with the receipt's state, and its length.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(String, usize)> {
    buffer.clear();
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(buffer.len() < 64 << 10, "head too long");
        ensure!(
            stream.read_buf(buffer).await? > 0,
            "closed before the answer"
        );
    };
    let text = std::str::from_utf8(buffer.get(..head).unwrap_or_default())?;
    let status = text.get(9..12).context("no status")?.to_owned();
    let field = |name: &str| {
        text.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let length: usize = match field("content-length") {
        Some(value) => value.parse()?,
        None => bail!("an answer without Content-Length"),
    };
    let state = field("touchstone")
        .and_then(|value| value.split("state=").nth(1))
        .unwrap_or_default();
    let outcome = if state.is_empty() {
        status
    } else {
        format!("{status} {state}")
    };
    while buffer.len() < head + length {
        ensure!(
            stream.read_buf(buffer).await? > 0,
            "closed inside the answer"
        );
    }
    ensure!(buffer.len() == head + length, "bytes after the answer");
    Ok((outcome, head + length))
}
