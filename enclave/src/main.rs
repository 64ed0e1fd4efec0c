//! `enclave --config enclave.toml`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use enclave::{build, config::Config, run, sandbox};

/// Runs ONNX models inside a confidential VM and signs a receipt for every answer.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Settings (see enclave.example.toml).
    #[arg(long, value_name = "FILE", required_unless_present = "build_statement")]
    config: Option<PathBuf>,
    /// Prints the build statement, whose digest is the keyset's `software`, and ends.
    #[arg(long)]
    build_statement: bool,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("enclave: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.build_statement {
        println!("{}", String::from_utf8(build::statement().to_jcs()?)?);
        return Ok(());
    }
    // They are hashed into the keyset, so they must be text.
    let words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|word| {
            word.into_string()
                .map_err(|word| anyhow::anyhow!("argument {word:?} is not UTF-8"))
        })
        .collect::<anyhow::Result<_>>()?;
    let path = arguments.config.unwrap_or_default();
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let config = Config::parse(&text).with_context(|| format!("in {}", path.display()))?;

    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.filter)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if config.log.json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
    if config.sandbox.seccomp {
        // Before there are threads, and before anything is loaded that parses.
        sandbox::apply(&sandbox::Needs::of(&config)).context("confining the process")?;
        tracing::info!("confined to the system calls that it needs");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.threads)
        .enable_all()
        .build()
        .context("starting threads")?;
    let ended = runtime.block_on(run::run(config, &words));
    // What still waits for a quote would wait for ever.
    runtime.shutdown_background();
    ended
}
