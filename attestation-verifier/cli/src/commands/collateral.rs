//! `touchstone collateral`: fetches what makes quotes verifiable, keeps it fresh, and says until when it will do.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use attestation_verifier::dates::rfc3339;
use attestation_verifier::product::Product;
use attestation_verifier::{Fault, Policy};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use touchstone_collateral::serve::{Keeper, Mirror, State};
use touchstone_collateral::{
    Error, Fetcher, Fresh, Gathered, Had, How, Settings, Sources, Wanted, folder, forecast, gather,
    platform,
};
use touchstone_formats::evidence::{Collateral, CollateralFile, Evidence};
use touchstone_formats::limits::MAX_BUNDLE;
use x509_parser::pem::Pem;

use crate::output::{Failure, Outcome, print, say};
use crate::{files, inputs};

const DAY: u64 = 86_400;

/// Fetch certificates, revocation lists and TCB data from AMD and Intel, and keep them fresh
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(
    after_help = "Example:\n  touchstone collateral fetch bundle.json --folder collateral\n  \
    touchstone collateral status bundle.json --folder collateral --policy policy.toml\n  \
    touchstone collateral serve --evidence bundle.json --folder collateral --policy policy.toml"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Fetch(FetchArgs),
    Serve(ServeArgs),
    Status(StatusArgs),
}

/// Whom to ask, and what to believe.
#[derive(clap::Args)]
struct Source {
    /// In place of AMD's key distribution service: https://HOST/PATH, with a port or without
    #[arg(long, value_name = "URL")]
    kds: Option<String>,
    /// In place of Intel's provisioning certification service: a PCCS, https://HOST/PATH, with a port or without
    #[arg(long, value_name = "URL")]
    pcs: Option<String>,
    /// Folder for what was fetched; nothing is asked for again before it is due
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Root certificates of a simulated platform (PEM), trusted beside the pinned ones
    #[arg(long, value_name = "FILE")]
    trust_simulated_root: Option<PathBuf>,
}

/// What evidence does not say.
#[derive(clap::Args)]
struct Machine {
    /// Product, for reports that do not say (version 2): Milan, Genoa or Turin
    #[arg(long, value_name = "NAME", value_parser = product)]
    product: Option<Product>,
    /// Certificate of a cloud provider's key (VLEK), DER or PEM: AMD gives it to the provider alone
    #[arg(long, value_name = "FILE")]
    vlek: Option<PathBuf>,
}

/// Fetch all that a platform's evidence needs, once
#[derive(clap::Args)]
#[command(
    after_help = "EVIDENCE is an evidence file, a bundle, or a bare SEV-SNP report or TDX quote.\n\n\
    Example:\n  touchstone collateral fetch bundle.json --folder collateral\n  \
    touchstone collateral fetch quote.bin --pcs https://pccs.example:8081 -o collateral.json"
)]
struct FetchArgs {
    /// What this machine's hardware signed
    evidence: PathBuf,
    /// Collateral file to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "folder")]
    output: Option<PathBuf>,
    /// Folder to write, as the host reads it (collateral.folder)
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Ask for everything anew, whatever the cache holds
    #[arg(long)]
    renew: bool,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    source: Source,
    /// Print one JSON object: what was had and written, or why nothing was
    #[arg(long)]
    json: bool,
}

/// Keep a host's folder fresh, and answer for AMD's and Intel's services out of the cache
#[derive(clap::Args)]
#[command(
    after_help = "It runs until SIGTERM or SIGINT. With --evidence and --folder it keeps that folder; with --listen it \
    answers the addresses of both services (GET), /status and /metrics; or both.\n\n\
    Example:\n  touchstone collateral serve --evidence bundle.json --folder collateral --policy policy.toml --cache cache\n  \
    touchstone collateral serve --listen 127.0.0.1:8091 --cache cache"
)]
struct ServeArgs {
    /// File with evidence of this machine, as for `fetch`; read again when it changes
    #[arg(long, value_name = "EVIDENCE", requires = "folder")]
    evidence: Option<PathBuf>,
    /// Folder to keep, as the host reads it (collateral.folder)
    #[arg(long, value_name = "DIR", requires = "evidence")]
    folder: Option<PathBuf>,
    /// Policy of the verifiers that count: until when the platform will be accepted is judged by it
    #[arg(long, value_name = "P.toml", requires = "evidence")]
    policy: Option<PathBuf>,
    /// Address to answer on
    #[arg(long, value_name = "IP:PORT", required_unless_present = "evidence")]
    listen: Option<SocketAddr>,
    /// Listen on an address that other machines reach. Whoever reaches it can make it ask AMD and Intel
    #[arg(long, requires = "listen")]
    listen_anywhere: bool,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    source: Source,
}

/// Say until when verifiers will accept a platform, and why no longer
#[derive(clap::Args)]
#[command(
    after_help = "Nothing is fetched. The verifier judges the evidence now and at times to come.\n\n\
    Exit codes: 0 holds, for --within days at least · 5 collateral missing or expired, now or within them · \
    otherwise as `appraise`\n\n\
    Example:\n  touchstone collateral status bundle.json --folder collateral --policy policy.toml --within 7"
)]
struct StatusArgs {
    /// Evidence, as for `fetch`
    evidence: PathBuf,
    /// Collateral file to judge with, instead of what is in the evidence
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    collateral: Option<PathBuf>,
    /// Folder of a host to judge with, instead of what is in the evidence
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Policy of the verifiers that count; without it signatures and validity alone
    #[arg(long, value_name = "P.toml")]
    policy: Option<PathBuf>,
    /// Days for which it has to hold
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    within: u32,
    /// Say what would be said at this time instead of now
    #[arg(long, value_name = "RFC3339", value_parser = inputs::time)]
    at: Option<u64>,
    /// Root certificates of a simulated platform (PEM), trusted beside the pinned ones
    #[arg(long, value_name = "FILE")]
    trust_simulated_root: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn product(text: &str) -> Result<Product, String> {
    Product::from_name(text).ok_or_else(|| "expected Milan, Genoa or Turin".into())
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    tell();
    match args.command {
        Command::Fetch(args) => fetch(args),
        Command::Serve(args) => serve(args),
        Command::Status(args) => status(args),
    }
}

fn failure(error: Error) -> Failure {
    Failure {
        fault: error.fault(),
        id: error.id(),
        error: error.into(),
    }
}

/// What happens on the way is told on stderr; nothing of it is secret.
fn tell() {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO);
    // There is one only if this process has begun another command, which it cannot.
    let _ = log.try_init();
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Runtime::new().context("cannot start the I/O runtime")?)
}

impl Source {
    fn fetcher(&self) -> Result<Fetcher, Failure> {
        let roots = inputs::roots(self.trust_simulated_root.as_deref())?;
        let sources = Sources::new(self.kds.as_deref(), self.pcs.as_deref()).map_err(failure)?;
        let mut settings = Settings::new(sources, roots);
        settings.cache = self.cache.clone();
        Fetcher::new(settings).map_err(failure)
    }
}

impl Machine {
    fn vlek(&self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(path) = &self.vlek else {
            return Ok(None);
        };
        let file = files::read(path, "certificate", files::MAX_TEXT)?;
        if !file.starts_with(b"-----BEGIN") {
            return Ok(Some(file));
        }
        let mut blocks = Pem::iter_from_buffer(&file);
        match (blocks.next(), blocks.next()) {
            (Some(Ok(one)), None) => Ok(Some(one.contents)),
            _ => Err(anyhow!("--vlek {}: expected one certificate", path.display()).into()),
        }
    }
}

fn evidence(path: &Path) -> Result<Evidence, Failure> {
    let file = files::read(path, "evidence", MAX_BUNDLE as u64)?;
    platform::read_evidence(&file).map_err(|error| Failure {
        fault: Fault::Malformed,
        id: "evidence.format",
        error: anyhow!("{}: {error}", path.display()),
    })
}

fn fetch(args: FetchArgs) -> Result<Outcome, Failure> {
    let wanted = Wanted {
        evidence: evidence(&args.evidence)?,
        product: args.machine.product,
        vlek: args.machine.vlek()?,
    };
    let fetcher = args.source.fetcher()?;
    let fresh = match args.renew {
        true => Fresh::Now,
        false => Fresh::WhenDue,
    };
    let gathered = runtime()?
        .block_on(gather(&fetcher, &wanted, fresh))
        .map_err(failure)?;
    let Gathered {
        platform,
        evidence,
        collateral,
        pieces,
    } = gathered;
    say(&format!("{}\n", platform.words()));
    for had in &pieces {
        let how = match &had.how {
            How::Fetched => "fetched".to_owned(),
            How::Cached => "from the cache, fresh".to_owned(),
            How::Kept(error) => format!("from the cache, NOT RENEWED: {error}"),
        };
        say(&format!("  {}: {how}\n", had.piece.item.words()));
    }
    let mut wrote = Vec::new();
    if let Some(path) = &args.output {
        let file = CollateralFile {
            tee: evidence.tee,
            collateral: collateral.clone(),
        };
        files::write(path, &file.to_file())?;
        wrote.push(path.clone());
    }
    if let Some(path) = &args.folder {
        let changed = folder::write(path, &collateral).map_err(failure)?;
        if changed.is_empty() {
            say(&format!("{} is up to date\n", path.display()));
        }
        wrote.extend(changed);
    }
    for file in &wrote {
        say(&format!("wrote {}\n", file.display()));
    }
    let roots = &fetcher.settings().roots;
    let forecast = forecast(&evidence, None, roots, fetcher.now());
    say(&format!("{}\n", forecast.sentence()));
    if args.json {
        let object = json!({
            "v": "touchstone/collateral-fetch/1",
            "exit": 0,
            "platform": platform.words(),
            "pieces": pieces.iter().map(piece).collect::<Vec<Value>>(),
            "wrote": wrote.iter().map(|path| path.display().to_string()).collect::<Vec<String>>(),
            "status": forecast.to_json(),
        });
        print(&format!("{object}\n"));
    }
    Ok(Outcome::Exit(0))
}

/// One piece, for programs.
fn piece(had: &Had) -> Value {
    let (how, failure) = match &had.how {
        How::Fetched => ("fetched", None),
        How::Cached => ("cached", None),
        How::Kept(error) => ("kept", Some(error.to_string())),
    };
    json!({
        "name": had.piece.item.words(),
        "how": how,
        "failure": failure,
        "fetched": rfc3339(had.fetched),
        "from": rfc3339(had.piece.window.from),
        "to": rfc3339(had.piece.window.to),
    })
}

fn status(args: StatusArgs) -> Result<Outcome, Failure> {
    let mut evidence = evidence(&args.evidence)?;
    let given = match (&args.collateral, &args.folder) {
        (Some(path), _) => Some(inputs::collateral(path)?.collateral),
        (_, Some(path)) => folder::read(path, evidence.tee).map_err(failure)?,
        (None, None) => evidence.collateral.take(),
    };
    let kind = |collateral: &Collateral| match collateral {
        Collateral::SevSnp(_) => touchstone_formats::Tee::SevSnp,
        Collateral::Tdx(_) => touchstone_formats::Tee::Tdx,
    };
    if given.as_ref().is_some_and(|c| kind(c) != evidence.tee) {
        return Err(anyhow!("the collateral is for another kind of platform").into());
    }
    evidence.collateral = given;
    let policy: Option<Policy> = args.policy.as_deref().map(inputs::policy).transpose()?;
    let roots = inputs::roots(args.trust_simulated_root.as_deref())?;
    let at = inputs::at(args.at)?.time;
    let forecast = forecast(&evidence, policy.as_ref(), &roots, at);
    let needed = u64::from(args.within) * DAY;
    let soon = forecast.seconds_left().is_some_and(|left| left < needed);
    let exit = match &forecast.refused {
        Some((_, why)) if forecast.is_refused() => why.fault.exit(),
        Some(_) if soon => Fault::CollateralExpired.exit(),
        _ => 0,
    };
    if args.json {
        let mut value = forecast.to_json();
        if let Some(object) = value.as_object_mut() {
            object.insert("exit".into(), exit.into());
        }
        print(&format!("{value}\n"));
        say(&forecast.words());
    } else {
        print(&forecast.words());
    }
    Ok(Outcome::Exit(exit))
}

fn serve(args: ServeArgs) -> Result<Outcome, Failure> {
    if let Some(listen) = args.listen
        && !listen.ip().is_loopback()
        && !args.listen_anywhere
    {
        return Err(anyhow!(
            "--listen {listen}: other machines could make this ask AMD and Intel; listen on 127.0.0.1, or say \
             --listen-anywhere"
        )
        .into());
    }
    let keeper = match (args.evidence, args.folder) {
        (Some(evidence), Some(folder)) => Some(Keeper {
            evidence,
            folder,
            product: args.machine.product,
            vlek: args.machine.vlek()?,
            policy: args.policy.as_deref().map(inputs::policy).transpose()?,
        }),
        _ => None,
    };
    let fetcher = Arc::new(args.source.fetcher()?);
    let state = State::default();
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
        let listener = match args.listen {
            Some(address) => {
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("cannot listen on {address}"))?;
                let address = listener.local_addr().context("the listener's address")?;
                say(&format!("listening on http://{address}\n"));
                Some(listener)
            }
            None => None,
        };
        let keep = async {
            match keeper {
                Some(keeper) => keeper.run(&fetcher, &state).await,
                None => std::future::pending().await,
            }
        };
        let mirror = async {
            match listener {
                Some(listener) => {
                    let mirror = Mirror::new(fetcher.clone(), state.clone());
                    mirror.serve(listener).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            error = keep => Err(failure(error)),
            error = mirror => Err(failure(error)),
            _ = terminate.recv() => Ok(Outcome::Exit(0)),
            _ = interrupt.recv() => Ok(Outcome::Exit(0)),
        }
    })
}
