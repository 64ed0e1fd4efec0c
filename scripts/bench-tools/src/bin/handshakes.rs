//! New TLS connections, one request on each: plain ones, and those that ask for a session and look at nothing.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bench_tools::{
    figures::{Latencies, joined, per},
    http, tls,
    window::{Phase, Window},
};
use bytes::Bytes;
use clap::{Parser, Subcommand};
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// TLS handshakes and what comes right after them.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A server that answers every request with two bytes, over TLS like the enclave's
    Serve {
        /// Where, HOST:PORT
        #[arg(long)]
        listen: String,
        /// Threads
        #[arg(long)]
        threads: usize,
    },
    /// Makes connections, one after the other on each of N lines; prints figures as JSON
    Load(Load),
}

#[derive(clap::Args, Clone)]
struct Load {
    /// Server, HOST:PORT
    #[arg(long)]
    server: String,
    /// Ask for a session in place of GET /
    #[arg(long)]
    session: bool,
    /// How many lines
    #[arg(long)]
    connections: usize,
    /// Seconds before the window opens
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Seconds that are measured
    #[arg(long)]
    seconds: f64,
    /// Threads
    #[arg(long)]
    threads: usize,
    /// A process whose CPU time counts as the server's
    #[arg(long = "server-pid")]
    server_pids: Vec<u32>,
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
    let (listener, acceptor) = (TcpListener::bind(listen).await?, tls::acceptor()?);
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(one(acceptor.clone(), stream));
    }
}

async fn one(acceptor: TlsAcceptor, stream: tokio::net::TcpStream) -> Result<()> {
    let stream = acceptor.accept(stream).await?;
    let answer = |_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}"))))
    };
    let service = service_fn(answer);
    Ok(http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await?)
}

async fn measure(load: Load) -> Result<()> {
    let (phase, connector) = (Arc::new(Phase::default()), tls::connector()?);
    let tasks: Vec<_> = (0..load.connections)
        .map(|_| tokio::spawn(line(load.clone(), connector.clone(), Arc::clone(&phase))))
        .collect();
    let window =
        Window::measure(&phase, load.warm_up, load.seconds, &load.server_pids, None).await?;
    let mut all = Latencies::default();
    for task in tasks {
        let done = tokio::time::timeout(Duration::from_secs(60), task).await;
        all.extend(done.context("a connection hangs")???);
    }
    let done = all.count() as f64;
    let figures = serde_json::json!({
        "connections": load.connections, "seconds": window.seconds,
        "cpu_seconds": window.cpu.as_secs_f64(), "load_cpu_seconds": window.own_cpu.as_secs_f64(),
        "per_second": done / window.seconds, "per_cpu_second": per(done, window.cpu),
        "per_load_cpu_second": per(done, window.own_cpu),
    });
    println!("{}", joined([figures, all.percentiles()]));
    Ok(())
}

async fn line(load: Load, connector: TlsConnector, phase: Arc<Phase>) -> Result<Latencies> {
    let (mut taken, mut buffer) = (Latencies::default(), Vec::new());
    let get = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", load.server);
    while !phase.over() {
        let (counts, began) = (phase.counts(), Instant::now());
        let mut stream = tls::connect(&connector, &load.server).await?;
        if load.session {
            tls::open_session(&mut stream, &load.server).await?;
        } else {
            stream.write_all(get.as_bytes()).await?;
            stream.flush().await?;
            let (outcome, _) = http::answer(&mut stream, &mut buffer).await?;
            ensure!(outcome == "200", "answered {outcome}");
        }
        if counts && phase.counts() {
            taken.note(began.elapsed());
        }
    }
    Ok(taken)
}
