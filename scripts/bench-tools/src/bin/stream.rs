//! Bytes and nothing else: what a relay that reads nothing costs, measured with whatever it passes on.
//!
//! Each connection begins like a TLS record, by whose first byte the host knows what to pass through.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bench_tools::{
    figures::{Latencies, joined, per},
    window::{Phase, Window},
};
use clap::{Parser, Subcommand, ValueEnum};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const CHUNK: usize = 64 << 10;
/// Header of a TLS record of type handshake with five bytes in it, then way and length.
const HELLO: [u8; 5] = [0x16, 3, 1, 0, 5];

/// Bytes through a relay, or straight.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The far end: takes, gives or sends back
    Serve {
        /// Where, HOST:PORT
        #[arg(long)]
        listen: String,
        /// Threads
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// The near end; prints figures as JSON
    Load(Load),
}

#[derive(clap::Args, Clone)]
struct Load {
    /// The relay or the far end, HOST:PORT
    #[arg(long)]
    server: String,
    /// Which way the bytes go
    #[arg(long)]
    way: Way,
    /// Connections
    #[arg(long)]
    connections: usize,
    /// Bytes of one message, there and back, where the way is `both`
    #[arg(long, default_value_t = 512)]
    message: u32,
    /// Seconds before the window opens
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Seconds that are measured
    #[arg(long)]
    seconds: f64,
    /// Threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// A process whose CPU time counts as the relay's
    #[arg(long = "server-pid")]
    server_pids: Vec<u32>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq)]
#[repr(u8)]
enum Way {
    /// To the far end
    Up,
    /// From it
    Down,
    /// Round trips of one message
    Both,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let threads = match &arguments.command {
        Command::Serve { threads, .. } => *threads,
        Command::Load(load) => load.threads,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    match arguments.command {
        Command::Serve { listen, .. } => runtime.block_on(serve(&listen)),
        Command::Load(load) => runtime.block_on(measure(load)),
    }
}

async fn serve(listen: &str) -> Result<()> {
    let listener = TcpListener::bind(listen).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        // A caller that goes away ends its connection; there is nobody to tell.
        tokio::spawn(far_end(stream));
    }
}

async fn far_end(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut hello = [0; 10];
    stream.read_exact(&mut hello).await?;
    let [_, _, _, _, _, way, length @ ..] = hello;
    let mut bytes = vec![0; CHUNK.max(u32::from_be_bytes(length) as usize)];
    match way {
        0 => while stream.read(&mut bytes).await? > 0 {},
        1 => loop {
            stream.write_all(&bytes).await?;
        },
        2 => {
            bytes.truncate(u32::from_be_bytes(length) as usize);
            loop {
                stream.read_exact(&mut bytes).await?;
                stream.write_all(&bytes).await?;
            }
        }
        other => bail!("way {other}"),
    }
    Ok(())
}

#[derive(Default)]
struct Counted {
    bytes: AtomicU64,
    phase: Phase,
}

async fn measure(load: Load) -> Result<()> {
    let counted = Arc::new(Counted::default());
    let tasks: Vec<_> = (0..load.connections)
        .map(|_| tokio::spawn(near_end(load.clone(), Arc::clone(&counted))))
        .collect();
    let pids = &load.server_pids;
    let window = Window::measure(&counted.phase, load.warm_up, load.seconds, pids, None).await?;
    let bytes = counted.bytes.load(Ordering::Relaxed) as f64;
    let mut trips = Latencies::default();
    for task in tasks {
        // One that waits for bytes when the window closes would wait for as long as the far end does.
        match tokio::time::timeout(Duration::from_secs(5), task).await {
            Ok(done) => trips.extend(done?.context("a connection broke")?),
            Err(_) => bail!("a connection hangs"),
        }
    }
    let done = trips.count() as f64;
    let figures = serde_json::json!({
        "connections": load.connections, "seconds": window.seconds, "cpu_seconds": window.cpu.as_secs_f64(),
        "load_cpu_seconds": window.own_cpu.as_secs_f64(),
        "bytes_per_second": bytes / window.seconds, "bytes_per_cpu_second": per(bytes, window.cpu),
        "per_second": done / window.seconds, "per_cpu_second": per(done, window.cpu),
    });
    println!("{}", joined([figures, trips.percentiles()]));
    Ok(())
}

async fn near_end(load: Load, counted: Arc<Counted>) -> Result<Latencies> {
    let mut stream = TcpStream::connect(&load.server).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&HELLO).await?;
    stream.write_all(&[load.way as u8]).await?;
    stream.write_all(&load.message.to_be_bytes()).await?;
    let mut trips = Latencies::default();
    let mut bytes = vec![0; CHUNK];
    let mut message = vec![0; load.message as usize];
    while !counted.phase.over() {
        let counts = counted.phase.counts();
        let began = Instant::now();
        let moved = match load.way {
            Way::Up => stream.write(&bytes).await?,
            Way::Down => stream.read(&mut bytes).await?,
            Way::Both => {
                stream.write_all(&message).await?;
                stream.read_exact(&mut message).await?;
                message.len() * 2
            }
        };
        anyhow::ensure!(moved > 0, "closed by the far end");
        if counts && counted.phase.counts() {
            counted.bytes.fetch_add(moved as u64, Ordering::Relaxed);
            if load.way == Way::Both {
                trips.note(began.elapsed());
            }
        }
    }
    Ok(trips)
}
