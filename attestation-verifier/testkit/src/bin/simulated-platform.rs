//! A simulated machine, SEV-SNP or TDX, behind the quote agent protocol. For demonstrations and tests only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use touchstone_testkit::amd::{Pki, PkiKeys, Product};
use touchstone_testkit::events::event_type;
use touchstone_testkit::intel;
use touchstone_testkit::machine::{Endorsement, Machine, TdxMachine, TeeMachine};
use touchstone_testkit::platform::{FaultPlan, PlatformConfig, Protocol, SimulatedPlatform};
use touchstone_testkit::snp::Report;
use touchstone_testkit::tdx::TdReport;

/// A SIMULATED machine, SEV-SNP or TDX, behind the quote agent protocol.
///
/// Makes up a certificate chain in the shape of AMD's or Intel's, writes it into --dir, and answers requests for quotes on a
/// Unix socket with reports valid to the byte. Nothing it signs is worth anything: a verifier accepts it only when
/// somebody names its root.pem, and says SIMULATED.
#[derive(Parser)]
#[command(name = "simulated-platform", after_help = EXAMPLE, max_term_width = 100)]
struct Arguments {
    /// Unix socket to listen on (the enclave's quote agent, or where a VMM leads the guest's connections to port 9000)
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    /// What is spoken there: agent (docs/quote-agent.md), or guest (the kernel module of test images, docs/boot.md)
    #[arg(long, default_value = "agent")]
    protocol: Spoken,

    /// Folder for root.pem (verifier), collateral/ (host) and reference-values.json (policies: what the guest measures); made
    /// if it is not there
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// What it is: sev-snp or tdx
    #[arg(long, default_value = "sev-snp")]
    tee: Tee,

    /// Launch measurement of the guest (TDX: MRTD), 96 hex digits [default: 48 times 5a, TDX: 7d]
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<48>)]
    measurement: Option<[u8; 48]>,

    /// How long one quote takes; quotes are made one at a time
    #[arg(long, value_name = "MS", default_value_t = 5)]
    latency_ms: u64,

    /// Fault to begin with: none, or busy, fail, hang, lie, garbage, close, wrong-tee, truncate, flood, wrong-version,
    /// each with ":N" for the next N requests only
    #[arg(long, value_name = "FAULT", default_value = "none", value_parser = fault)]
    fault: StartFault,

    /// File that holds a fault as above; obeyed whenever its text changes
    #[arg(long, value_name = "FILE")]
    control: Option<PathBuf>,

    /// Keep the authorities' private keys in this folder, so that the next start is quick and has the same root
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,

    #[command(flatten)]
    snp: SnpArguments,

    #[command(flatten)]
    tdx: TdxArguments,
}

#[derive(Args)]
#[command(next_help_heading = "SEV-SNP")]
struct SnpArguments {
    /// Processor: Milan, Genoa or Turin [default: Genoa]
    #[arg(long)]
    product: Option<Product>,

    /// HOST_DATA, 64 hex digits [default: zeros]
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<32>)]
    host_data: Option<[u8; 32]>,

    /// Version of the reports: 2, 3 or 5 [default: 5]
    #[arg(long, value_name = "N", value_parser = report_version)]
    report_version: Option<u32>,

    /// Guest policy, hexadecimal [default: 30000, SMT allowed, nothing else]
    #[arg(long, value_name = "HEX", value_parser = hex_u64)]
    policy: Option<u64>,

    /// PLATFORM_INFO, hexadecimal [default: 25, SMT, ECC, alias check complete]
    #[arg(long, value_name = "HEX", value_parser = hex_u64)]
    platform_info: Option<u64>,

    /// Sign with a VLEK of this cloud provider in place of a VCEK
    #[arg(long, value_name = "CSP-ID")]
    vlek: Option<String>,
}

#[derive(Args)]
#[command(next_help_heading = "TDX")]
struct TdxArguments {
    /// Version of the quotes: 4 (TDX 1.0 body) or 5 (TDX 1.5 body) [default: 5]
    #[arg(long, value_name = "N", value_parser = quote_version)]
    quote_version: Option<u16>,

    /// TDATTRIBUTES, hexadecimal [default: 10000000, SEPT_VE_DISABLE alone]
    #[arg(long, value_name = "HEX", value_parser = hex_u64)]
    td_attributes: Option<u64>,

    /// What the newest TCB level, which is this platform's, says of it [default: UpToDate]
    #[arg(long, value_name = "WORD")]
    tcb_status: Option<String>,

    /// What RTMR N (0 to 3) holds, 96 hex digits; may be given several times. With --protocol guest alone: there is no event
    /// log beside it
    #[arg(long, value_name = "N=HEX", value_parser = rtmr)]
    rtmr: Vec<(usize, [u8; 48])>,

    /// An event measured into RTMR3 and logged, as text; may be given several times
    #[arg(long, value_name = "TEXT")]
    event: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tee {
    SevSnp,
    Tdx,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Spoken {
    Agent,
    Guest,
}

const EXAMPLE: &str = "\
Example:
  simulated-platform --socket /tmp/agent.sock --dir /tmp/platform --product Genoa \\
      --measurement $(printf 'ab%.0s' $(seq 48)) --latency-ms 5 --control /tmp/fault
  echo busy:3 > /tmp/fault      # the next three requests are told to come back later
  echo none > /tmp/fault        # behave
  simulated-platform --tee tdx --socket /tmp/agent.sock --dir /tmp/platform --quote-version 4";

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?
        .as_secs();
    match arguments.tee {
        Tee::SevSnp => serve(&arguments, snp(&arguments, now)?),
        Tee::Tdx => serve(&arguments, tdx(&arguments, now)?),
    }
}

/// Writes the machine's files and answers requests until a signal.
fn serve<M: TeeMachine>(arguments: &Arguments, machine: M) -> Result<()> {
    machine
        .write_to(&arguments.dir)
        .and_then(|()| write_reference_values(&machine, &arguments.dir))
        .with_context(|| format!("writing to {}", arguments.dir.display()))?;

    let name = machine.name();
    let mut config = PlatformConfig::new(arguments.socket.clone(), machine);
    config.protocol = match arguments.protocol {
        Spoken::Agent => Protocol::Agent,
        Spoken::Guest => Protocol::Guest,
    };
    config.latency = Duration::from_millis(arguments.latency_ms);
    config.fault = arguments.fault.0;
    config.control_file = arguments.control.clone();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let platform = SimulatedPlatform::start(config)?;
        println!("SIMULATED {name} on {}", platform.socket().display());
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let counters = platform.counters();
        platform.stop();
        println!(
            "{} requests, {} quotes, {} faults",
            counters.requests, counters.quotes, counters.faults
        );
        Ok(())
    })
}

/// What whoever builds an image would work out from it, and what a machine without an image can only be told.
fn write_reference_values(machine: &impl TeeMachine, folder: &Path) -> std::io::Result<()> {
    let values: BTreeMap<_, _> = machine.reference_values().into_iter().collect();
    let json = serde_json::to_string_pretty(&values)?;
    std::fs::write(folder.join("reference-values.json"), json + "\n")
}

fn snp(arguments: &Arguments, now: u64) -> Result<Machine> {
    let Arguments {
        snp,
        tdx,
        keys: kept,
        ..
    } = arguments;
    if tdx.quote_version.is_some()
        || tdx.td_attributes.is_some()
        || tdx.tcb_status.is_some()
        || !tdx.event.is_empty()
        || !tdx.rtmr.is_empty()
    {
        bail!("options of TDX with --tee sev-snp");
    }
    let product = snp.product.unwrap_or(Product::Genoa);
    let keys = match kept {
        Some(folder) => PkiKeys::kept_in(folder, product.name())
            .with_context(|| format!("keys in {}", folder.display()))?,
        None => PkiKeys::generate(),
    };
    let mut report = Report::new(product, snp.report_version.unwrap_or(5));
    report.measurement = arguments.measurement.unwrap_or(report.measurement);
    report.host_data = snp.host_data.unwrap_or(report.host_data);
    report.policy = snp.policy.unwrap_or(report.policy);
    report.platform_info = snp.platform_info.unwrap_or(report.platform_info);
    let endorsement = match &snp.vlek {
        Some(csp_id) if csp_id.is_ascii() => Endorsement::Vlek {
            csp_id: csp_id.clone(),
        },
        Some(csp_id) => bail!("--vlek {csp_id:?}: expected ASCII"),
        None => Endorsement::Vcek,
    };
    Ok(Machine::under(
        Pki::with_keys(product, now, keys),
        report,
        endorsement,
    ))
}

fn tdx(arguments: &Arguments, now: u64) -> Result<TdxMachine> {
    let Arguments {
        snp,
        tdx,
        keys: kept,
        ..
    } = arguments;
    if snp.product.is_some()
        || snp.host_data.is_some()
        || snp.report_version.is_some()
        || snp.policy.is_some()
        || snp.platform_info.is_some()
        || snp.vlek.is_some()
    {
        bail!("options of SEV-SNP with --tee tdx");
    }
    let pki = match kept {
        Some(folder) => intel::Pki::kept_in(folder, now)
            .with_context(|| format!("keys in {}", folder.display()))?,
        None => intel::Pki::with_keys(now, intel::PkiKeys::generate()),
    };
    if arguments.protocol == Spoken::Agent && !tdx.rtmr.is_empty() {
        bail!("--rtmr with --protocol agent: the event log beside the quote would say otherwise");
    }
    let version = tdx.quote_version.unwrap_or(5);
    let mut report = match version {
        4 => TdReport::v1_0(),
        _ => TdReport::v1_5(),
    };
    report.mr_td = arguments.measurement.unwrap_or(report.mr_td);
    report.td_attributes = tdx.td_attributes.unwrap_or(report.td_attributes);
    let mut machine = TdxMachine::under(pki, version, report);
    if let Some(status) = &tdx.tcb_status {
        machine.tcb_info.set_status(status, &[]);
    }
    for event in &tdx.event {
        machine.measure(3, event_type::EVENT_TAG, event.as_bytes());
    }
    for (index, value) in &tdx.rtmr {
        if let Some(register) = machine.report.report.rtmr.get_mut(*index) {
            *register = *value;
        }
    }
    Ok(machine)
}

fn rtmr(text: &str) -> Result<(usize, [u8; 48]), String> {
    let (index, value) = text.split_once('=').ok_or("expected N=HEX")?;
    match index {
        "0" | "1" | "2" | "3" => Ok((index.parse().unwrap_or(0), hex_bytes(value)?)),
        _ => Err("expected a register from 0 to 3".into()),
    }
}

fn report_version(text: &str) -> Result<u32, String> {
    match text {
        "2" | "3" | "5" => text.parse().map_err(|_| "not a number".into()),
        _ => Err("expected 2, 3 or 5".into()),
    }
}

fn quote_version(text: &str) -> Result<u16, String> {
    match text {
        "4" | "5" => text.parse().map_err(|_| "not a number".into()),
        _ => Err("expected 4 or 5".into()),
    }
}

fn hex_bytes<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let bytes = hex::decode(text).map_err(|e| e.to_string())?;
    bytes
        .try_into()
        .map_err(|b: Vec<u8>| format!("expected {} hex digits, found {}", 2 * N, 2 * b.len()))
}

fn hex_u64(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|e| e.to_string())
}

/// Not a bare `Option`, which to clap would mean an option that may be absent.
#[derive(Clone, Copy)]
struct StartFault(Option<FaultPlan>);

fn fault(text: &str) -> Result<StartFault, String> {
    FaultPlan::parse(text).map(StartFault)
}
