//! New TLS connections, one request on each: plain ones, and those that ask for a session and look at nothing.

use std::{convert::Infallible, sync::Arc};

use anyhow::{Result, ensure};
use bench_tools::{http, lines::Measured, tls};
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

#[derive(clap::Args)]
struct Load {
    /// Server, HOST:PORT
    #[arg(long)]
    server: String,
    /// Ask for a session in place of GET /
    #[arg(long)]
    session: bool,
    /// Threads
    #[arg(long)]
    threads: usize,
    #[command(flatten)]
    measured: Measured,
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
    let (connector, load) = (tls::connector()?, Arc::new(load));
    let shared = Arc::clone(&load);
    let connect = move || one_request(Arc::clone(&shared), connector.clone());
    println!("{}", load.measured.run(connect).await?);
    Ok(())
}

async fn one_request(load: Arc<Load>, connector: TlsConnector) -> Result<()> {
    let mut stream = tls::connect(&connector, &load.server).await?;
    if load.session {
        return tls::open_session(&mut stream, &load.server).await;
    }
    let get = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", load.server);
    stream.write_all(get.as_bytes()).await?;
    stream.flush().await?;
    let (outcome, _) = http::answer(&mut stream, &mut Vec::new()).await?;
    ensure!(outcome == "200", "answered {outcome}");
    Ok(())
}
