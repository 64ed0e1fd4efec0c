//! `touchstone proxy`: lets ordinary programs on this machine use an enclave, and gives them only what was verified.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use attestation_verifier::Binding;
use hyper::http::uri::Authority;
use tokio::net::TcpListener;
use touchstone_client::Client;
use touchstone_formats::GuaranteeSet;

use crate::inputs::{self, ManifestFiles};
use crate::output::{Failure, Outcome, refusal, say};
use crate::proxy::{Keeper, Log, Settings, bound, run as serve};

/// Let ordinary programs use an enclave: plain HTTP in, attested TLS out, verified answers back
///
/// Proves the enclave first, and listens only then. Every inference is asked with a fresh nonce over an attested
/// connection; its answer is held until it is sealed, judged and kept, and passed on byte for byte. What does not
/// verify is never passed on: its client gets 502 (or 503, where trying again may help) with the check that decided.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  touchstone proxy --listen 127.0.0.1:8080 --server https://enclave.example:8443 \
    --policy policy.toml --keep answers\n  \
    curl http://127.0.0.1:8080/v2/models/digits_cnn/infer -H Content-Type:application/json -d @question.json\n\n\
    Exit codes: 0 ended by SIGTERM or SIGINT · otherwise the enclave was not proven, and this is its verdict: \
    1 usage or I/O · 2 malformed · 3 not authentic · 4 refused · 5 collateral missing or expired · 6 simulated, and \
    --expect-simulated was not given"
)]
pub struct Args {
    /// Address to listen on
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Listen on an address that other machines reach. Whoever can read that network reads questions and answers:
    /// the link to the proxy is plain HTTP
    #[arg(long)]
    listen_anywhere: bool,
    /// Another name (and port) that clients may have in their Host header; repeat for each
    #[arg(long, value_name = "NAME:PORT")]
    allow_host: Vec<Authority>,
    /// Server: https://HOST or https://HOST:PORT; with --ohttp http://HOST:PORT
    #[arg(long, value_name = "URL")]
    server: String,
    /// Seal every request to a key of the enclave's, and send it by way of the host's own HTTP (http://), which cannot
    /// read it (Oblivious HTTP). The policy has to accept the binding ohttp-key
    #[arg(long)]
    ohttp: bool,
    /// Policy that the enclave and every answer is judged by
    #[arg(long, value_name = "P.toml")]
    policy: PathBuf,
    /// Folder to keep answers in, as `check` reads them
    #[arg(long, value_name = "DIR")]
    keep: PathBuf,
    /// Guarantees to ask for beside the policy's: "logged quoted"
    #[arg(long, value_name = "SET", value_parser = inputs::guarantees)]
    require: Option<GuaranteeSet>,
    /// Connections to the enclave, at most
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Seconds to wait for what was asked to hold (the seal)
    #[arg(long, value_name = "S", default_value_t = 30)]
    wait: u64,
    /// Seconds to wait for the answer itself
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    #[command(flatten)]
    manifests: ManifestFiles,
    /// Where the host serves receipts and collateral: http://HOST:PORT; the server's address without it
    #[arg(long, value_name = "URL")]
    records: Option<String>,
    /// Collateral of your own to judge connections by, instead of the host's
    #[arg(long, value_name = "FILE")]
    collateral: Option<PathBuf>,
    /// Folder for collateral that verified, for when the host has none
    #[arg(long, value_name = "DIR")]
    collateral_cache: Option<PathBuf>,
    /// Seconds between two looks at whether the host has a newer manifest, where the policy asks for one
    #[arg(long, value_name = "S", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    manifest_refresh: u64,
    /// Roots of simulated platforms, trusted beside the pinned ones
    #[arg(long, value_name = "FILE")]
    trust_simulated_root: Option<PathBuf>,
    /// A simulated platform is what you want: without this nothing of one is passed on
    #[arg(long)]
    expect_simulated: bool,
    /// Log lines as JSON
    #[arg(long)]
    json_log: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    if !args.listen.ip().is_loopback() && !args.listen_anywhere {
        return Err(anyhow!(
            "--listen {}: other machines could reach this, and the link to the proxy is plain HTTP; listen on 127.0.0.1, \
             or say --listen-anywhere",
            args.listen
        )
        .into());
    }
    let binding = match args.ohttp {
        true => Binding::OhttpKey,
        false => Binding::TlsExporter,
    };
    let policy = bound(inputs::policy(&args.policy)?, binding);
    let roots = inputs::roots(args.trust_simulated_root.as_deref())?;
    let manifests = args.manifests.read(&policy)?;
    let floor = match &args.require {
        Some(more) => policy.answer.require.union(more),
        None => policy.answer.require,
    };
    let settings = Settings {
        allowed_hosts: args.allow_host,
        server: args.server.clone(),
        floor,
        refresh: Duration::from_secs(args.manifest_refresh),
        keeper: Keeper::open(&args.keep)?,
        log: Log::new(args.json_log),
    };
    let mut builder = match Client::builder(&args.server, policy) {
        Ok(builder) => builder
            .roots(roots)
            .manifests(manifests)
            .expect_simulated(args.expect_simulated)
            .connections(args.connections.into())
            .wait(Duration::from_secs(args.wait))
            .timeout(Duration::from_secs(args.timeout)),
        Err(error) => return Ok(refused(&error)),
    };
    if args.ohttp {
        builder = builder.sealed();
    }
    if let Some(url) = args.records {
        builder = builder.records(url);
    }
    if let Some(file) = args.manifests.state() {
        builder = builder.manifest_state(file);
    }
    if let Some(folder) = args.collateral_cache {
        builder = builder.collateral_cache(folder);
    }
    if let Some(path) = &args.collateral {
        builder = builder.collateral(inputs::collateral(path)?);
    }
    let runtime = tokio::runtime::Runtime::new().context("cannot start the I/O runtime")?;
    runtime.block_on(async {
        let client = match builder.connect().await {
            Ok(client) => client,
            Err(error) => return Ok(refused(&error)),
        };
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("cannot listen on {}", args.listen))?;
        serve(client, listener, settings)
            .await
            .context("cannot serve")?;
        Ok(Outcome::Exit(0))
    })
}

/// The enclave was not proven: says why, and gives the verdict's exit code.
fn refused(error: &touchstone_client::Error) -> Outcome {
    let outcome = refusal(&error.verdict());
    say(&format!(
        "not listening, the enclave is not proven: {error}\n"
    ));
    outcome
}
