//! `host --config host.toml`, and what an operator asks or tells a host that runs.
#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Parser, Subcommand};
use host::{Host, config::Config, limits::raise_open_files};
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

/// The untrusted relay in front of enclaves.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 after SIGTERM or SIGINT; 1 it could not start; 2 wrong arguments\n\n\
                  Example:\n  host --config /etc/touchstone/host.toml",
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Option<Settings>,
}

#[derive(Args)]
struct Settings {
    /// Settings file; host.example.toml documents every key
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Read a settings file and print what is in effect, as a file that would give the same
    ///
    /// Opens no socket and no store. What it doubts is on stderr: what the settings name and is not there, what contradicts
    /// itself, fewer files that may be open than are asked for.
    #[command(
        after_help = "Exit codes: 0 it stands; 1 it does not, and the key is named; 3 it stands, with doubts\n\n\
                            Example:\n  host check-config --config /etc/touchstone/host.toml > /dev/null && systemctl restart touchstone-host"
    )]
    CheckConfig(Settings),
    /// Print how a running host and its enclaves are, as JSON
    #[command(
        after_help = "Exit codes: 0 it answered; 1 it did not, or the settings name no operation.socket\n\n\
                            Example:\n  host status --config /etc/touchstone/host.toml | jq '.enclaves[] | {name, condition, unsealed}'"
    )]
    Status(Settings),
    /// Send nothing more to an enclave, and wait until all it has promised is stored: then it can be stopped
    #[command(
        after_help = "Exit codes: 0 it can be stopped; 1 it cannot, with the reason\n\n\
                            Example:\n  host drain left --config /etc/touchstone/host.toml --within 60 && systemctl restart touchstone-enclave@left"
    )]
    Drain {
        /// Its name in the settings
        name: String,
        #[command(flatten)]
        settings: Settings,
        /// Longest time for requests and connections to end, and again for what has to be sealed
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        within: u64,
        /// Even if no other enclave takes requests
        #[arg(long)]
        force: bool,
    },
    /// Send requests to an enclave again
    #[command(
        after_help = "One that was started anew since is sent requests by itself.\n\n\
                            Exit codes: 0 done; 1 not, with the reason\n\nExample:\n  host resume left --config /etc/touchstone/host.toml"
    )]
    Resume {
        /// Its name in the settings
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
}

/// Threads beside those that carry connections: they accept, pull and watch.
const BESIDE: usize = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("host: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match arguments.command {
        None => {
            // Clap sees to it that one of the two is given.
            let settings = arguments.serve.context("--config FILE is missing")?;
            start(&settings).map(done)
        }
        Some(Command::CheckConfig(settings)) => check_config(&settings.config),
        Some(Command::Status(settings)) => tell(&settings, Method::GET, "/status").map(done),
        Some(Command::Drain {
            name,
            settings,
            within,
            force,
        }) => {
            let force = if force { "&force" } else { "" };
            let order = format!("/drain/{name}?within={within}{force}");
            tell(&settings, Method::POST, &order).map(done)
        }
        Some(Command::Resume { name, settings }) => {
            tell(&settings, Method::POST, &format!("/resume/{name}")).map(done)
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Config> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("{name}"))?;
    Config::parse(&text).with_context(|| format!("{name}"))
}

/// Prints the settings in effect, and on stderr what they name and is not there.
fn check_config(file: &Path) -> anyhow::Result<ExitCode> {
    let mut config = read(file)?;
    let fewer = config.fit_open_files(raise_open_files());
    println!(
        "# Memory when callers take all that they may: {} MiB",
        config.memory() >> 20
    );
    print!("{config}");
    let mut lacks = config.doubts();
    if let Some(files) = fewer {
        lacks.push(format!(
            "limits.connections: {files} files may be open for them, which is fewer than they may take"
        ));
    }
    // As this user may read them, which need not be the one that the host runs as.
    let folder = config.collateral.folder.as_deref();
    let manifest = config.manifest.file.as_deref();
    for (key, path, read) in [
        (
            "collateral.folder",
            folder,
            folder.map(|path| path.read_dir().map(drop)),
        ),
        (
            "manifest.file",
            manifest,
            manifest.map(|path| std::fs::read(path).map(drop)),
        ),
    ] {
        if let (Some(path), Some(Err(error))) = (path, read) {
            lacks.push(format!("{key}: {}: {error}", path.display()));
        }
    }
    for lack in &lacks {
        eprintln!("host: {lack}");
    }
    Ok(match lacks.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(3),
    })
}

fn start(settings: &Settings) -> anyhow::Result<()> {
    let mut config = read(&settings.config)?;
    start_log(&config)?;
    let files = raise_open_files();
    if let Some(for_connections) = config.fit_open_files(files) {
        tracing::warn!(
            files,
            for_connections,
            "fewer files may be open than limits.connections and limits.in_flight ask for: fewer connections are taken"
        );
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(BESIDE)
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
    if let Some(address) = host.operation_address() {
        tracing::info!(operation = %address, "figures and status are here");
    }
    tracing::info!(address = %host.address(), enclaves = config.enclaves.len(), "listening");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    host.stop().await;
    Ok(())
}

/// Asks the host that runs with these settings, on its socket, and prints what it says.
fn tell(settings: &Settings, method: Method, target: &str) -> anyhow::Result<()> {
    let config = read(&settings.config)?;
    let Some(socket) = config.operation.socket else {
        bail!("the settings name no operation.socket");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("threads")?;
    runtime.block_on(async {
        let stream = UnixStream::connect(&socket).await;
        let stream = stream.with_context(|| format!("{}", socket.display()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "host")
            .body(Empty::<Bytes>::new())?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let said = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        if !head.status.is_success() {
            bail!("{}", said.trim_end());
        }
        print!("{said}");
        Ok(())
    })
}
