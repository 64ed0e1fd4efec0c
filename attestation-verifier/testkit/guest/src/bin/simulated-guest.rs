//! The files of a confidential VM's kernel in front of a simulated machine. For demonstrations and tests only.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use touchstone_formats::evidence::Tee;
use touchstone_simulated_guest::{Agent, certificate_table, sev_guest, tsm};
use touchstone_testkit::machine::{CollateralFiles, Endorsement};

/// SIMULATED files of a confidential VM's kernel.
///
/// Mounts what an enclave reads in place of the kernel's own files, and gets reports from a quote agent's socket, such as that of
/// simulated-platform, whose faults show: busy as EBUSY, fail as EIO. Needs /dev/fuse and the right to mount. Unmounts when it is interrupted or
/// terminated.
#[derive(Parser)]
#[command(name = "simulated-guest", after_help = EXAMPLE, max_term_width = 100)]
struct Arguments {
    /// Socket of the quote agent that makes the reports
    #[arg(long, value_name = "PATH")]
    agent: PathBuf,

    /// What it is: sev-snp or tdx
    #[arg(long, default_value = "sev-snp", value_parser = tee)]
    tee: Tee,

    /// Folder to mount configfs-tsm on, as /sys/kernel/config/tsm/report
    #[arg(long, value_name = "DIR")]
    tsm: Option<PathBuf>,

    /// Folder to mount the device on: DIR/sev-guest is as /dev/sev-guest
    #[arg(long, value_name = "DIR")]
    sev_guest: Option<PathBuf>,

    /// The endorsement key's certificate (DER) that the host hands to the guest with each SEV-SNP report
    #[arg(long, value_name = "FILE")]
    vek: Option<PathBuf>,
}

const EXAMPLE: &str = "\
Example:
  simulated-platform --socket /tmp/agent.sock --dir /tmp/platform &
  simulated-guest --agent /tmp/agent.sock --tsm /tmp/report --vek /tmp/platform/collateral/vek.der";

fn tee(text: &str) -> Result<Tee, String> {
    [Tee::SevSnp, Tee::Tdx]
        .into_iter()
        .find(|tee| tee.name() == text)
        .ok_or_else(|| "expected sev-snp or tdx".into())
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.tsm.is_none() && arguments.sev_guest.is_none() {
        bail!("nothing to mount: give --tsm or --sev-guest");
    }
    if arguments.tee == Tee::Tdx && (arguments.sev_guest.is_some() || arguments.vek.is_some()) {
        bail!("options of SEV-SNP with --tee tdx");
    }
    let certificates = match &arguments.vek {
        Some(path) => {
            let vek = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            let files = CollateralFiles {
                vek,
                chain: Vec::new(),
                crls: Vec::new(),
            };
            certificate_table(&Endorsement::Vcek, &files)
        }
        None => Vec::new(),
    };
    let agent = Agent {
        socket: arguments.agent,
        certificates,
    };
    let mounting = |path: &PathBuf| format!("mounting on {}", path.display());
    let tsm = arguments.tsm.as_ref().map(|path| {
        tsm::Tsm::new(arguments.tee, agent.clone())
            .mount(path)
            .with_context(|| mounting(path))
    });
    let tsm = tsm.transpose()?;
    let device = arguments.sev_guest.as_ref().map(|path| {
        sev_guest::SevGuest::new(agent.clone())
            .mount(path)
            .with_context(|| mounting(path))
    });
    let device = device.transpose()?;
    for path in tsm.iter().map(|m| m.path()) {
        println!("SIMULATED configfs-tsm on {}", path.display());
    }
    for path in device.iter().map(|m| m.device()) {
        println!("SIMULATED sev-guest at {}", path.display());
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            Ok(())
        })
}
