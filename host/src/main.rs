//! `host --config host.toml`.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use host::{Host, config::Config, limits::raise_open_files};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The untrusted relay in front of an enclave.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Settings file; host.example.toml documents every key
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("host: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let name = arguments.config.display();
    let text = std::fs::read_to_string(&arguments.config).with_context(|| format!("{name}"))?;
    let mut config = Config::parse(&text).with_context(|| format!("{name}"))?;
    start_log(&config)?;
    let files = raise_open_files();
    if let Some(fewer) = config.fit_open_files(files) {
        tracing::warn!(
            files,
            for_connections = fewer,
            "fewer files may be open than limits.connections and limits.in_flight ask for: fewer connections are taken"
        );
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.threads)
        .enable_all()
        .build()
        .context("threads")?
        .block_on(serve(&config))
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log.filter).context("log.filter")?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.log.json {
        true => log.json().init(),
        false => log.with_ansi(false).init(),
    }
    Ok(())
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let host = Host::start(config).await?;
    tracing::info!(address = %host.address(), enclaves = config.enclaves.len(), "listening");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    host.stop().await;
    Ok(())
}
