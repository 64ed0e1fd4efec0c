//! Every lie that can be told between a client and an enclave, for trying a client with.

use std::fmt::Write as _;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use touchstone_testkit::mitm::{Config, Kind, Lie, ManInTheMiddle, Record, Server, Upstream};
use touchstone_testkit::{policy, stack};

/// A man in the middle, between any client of Touchstone and an enclave. For tests only.
///
/// Stands before a real host (--upstream), or before a server of its own on a SIMULATED platform, and tells one lie at a
/// time. A client that takes no short cuts refuses every one, by the check that --list names; and it never sends its
/// question to somebody who has not proven himself: if it did, this program says so when it is stopped, and exits 1.
#[derive(Parser)]
#[command(name = "man-in-the-middle", after_help = EXAMPLE, max_term_width = 100)]
struct Arguments {
    /// Name all lies, what each does, and the check that should refuse it
    #[arg(long)]
    list: bool,

    /// The lie; "none" passes everything on
    #[arg(long, value_name = "NAME", required_unless_present = "list")]
    lie: Option<Lie>,

    /// Where to listen, for TLS and plain HTTP alike
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,

    /// A host, or an enclave's TLS listener; without it a server of the kit's own
    #[arg(long, value_name = "ADDR")]
    upstream: Option<SocketAddr>,

    /// For "divert", "ohttp-forward" and "ohttp-422-endless": the host of another genuine enclave (for the first also its TLS listener)
    #[arg(long, value_name = "ADDR")]
    other: Option<SocketAddr>,

    /// In which turn of the server the connection is damaged: 2, the session's answer; 3, the first answer after it
    #[arg(long, value_name = "N", default_value_t = 3)]
    turn: u32,

    /// For "delay": milliseconds
    #[arg(long, value_name = "MS", default_value_t = 3_600_000)]
    delay_ms: u64,

    /// Folder for root.pem, collateral/ and policy.toml of the kit's own server; made if it is not there
    #[arg(long, value_name = "DIR", conflicts_with = "upstream")]
    dir: Option<PathBuf>,

    /// File for what happens, one JSON object a line
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

const EXAMPLE: &str = "\
Example:
  man-in-the-middle --lie swap-keyset --dir liar &
  touchstone ask https://127.0.0.1:8443 digits --input x=row.npy --policy liar/policy.toml \\
      --trust-simulated-root liar/root.pem -o answer      # exit 3, evidence.report_data
  man-in-the-middle --lie ohttp-own-key --dir liar2 --listen 127.0.0.1:8444 &
  touchstone ask http://127.0.0.1:8444 digits --ohttp --input x=row.npy --policy liar2/policy.toml \\
      --trust-simulated-root liar2/root.pem -o answer2     # the same
  man-in-the-middle --lie none --dir honest --listen 127.0.0.1:8445 &      # what must be accepted";

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Some(lie) = arguments.lie.filter(|_| !arguments.list) else {
        print!("{}", list());
        return Ok(());
    };
    let mut config = match arguments.upstream {
        Some(address) => Config::before(Upstream::Address(address), lie),
        None => {
            let server = Server::new(lie);
            if let Some(folder) = &arguments.dir {
                write_folder(folder, &server)?;
            }
            Config::before(Upstream::Own(Arc::new(server)), lie)
        }
    };
    if lie.needs_another() && arguments.upstream.is_some() && arguments.other.is_none() {
        bail!("{lie}: --other has to say to whom");
    }
    config.listen = arguments.listen;
    config.other = arguments.other.map(Upstream::Address);
    config.turn = arguments.turn;
    config.delay = Duration::from_millis(arguments.delay_ms);
    if let Some(path) = &arguments.log {
        let file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
        config.record = Record::logged_to(file);
    }

    let middle = ManInTheMiddle::start(config)?;
    println!("{lie} on {}: {}", middle.address(), lie.about());
    match lie.refused_by() {
        "" => println!("nothing to be refused"),
        check => println!("to be refused by {check}"),
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        anyhow::Ok(())
    })?;
    for (number, seen) in middle.record().connections().iter().enumerate() {
        println!(
            "connection {number}: {}, {} bytes from the client, {} bytes of it decrypted",
            if seen.tls { "TLS" } else { "plain HTTP" },
            seen.from_client.len(),
            seen.read.len()
        );
    }
    match middle.record().leaked() {
        0 => Ok(()),
        bytes => bail!("LEAKED: {bytes} bytes confided to somebody who had proven nothing"),
    }
}

/// All lies, as `--list` gives them.
fn list() -> String {
    let mut out = String::new();
    for kind in Kind::ALL {
        let _ = writeln!(out, "{}", kind.title());
        for lie in Lie::ALL.iter().filter(|lie| lie.kind() == kind) {
            let _ = writeln!(out, "  {:24}{}", lie.name(), lie.about());
            if !lie.refused_by().is_empty() {
                let _ = writeln!(out, "  {:24}refused by {}", "", lie.refused_by());
            }
        }
    }
    out
}

/// What a client of the kit's own server needs: the root, the collateral, and a policy.
fn write_folder(folder: &Path, server: &Server) -> Result<()> {
    server
        .write_to(folder)
        .with_context(|| format!("writing to {}", folder.display()))?;
    let world = server.world();
    let measurement = hex::encode(world.machine.report.measurement);
    let model = world.models.first().context("no model")?.model_digest;
    let binding = "{ expect = [\"tls-exporter\", \"ohttp-key\"] }";
    // The strict template is the verifier's, whose crate is not linked here.
    let program = stack::programs().join("touchstone");
    let template = Command::new(&program)
        .args(["policy", "init", "--tee", "sev-snp"])
        .output();
    match template {
        Ok(output) if output.status.success() => {
            let text = policy::edit(
                &String::from_utf8(output.stdout).context("a policy is text")?,
                &[
                    ("models", &format!("{{ expect = [\"{model}\"] }}")),
                    (
                        "snp.measurement",
                        &format!("{{ expect = [{measurement:?}] }}"),
                    ),
                    ("binding", binding),
                    ("answers", binding),
                ],
            );
            let path = folder.join("policy.toml");
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        }
        _ => {
            println!(
                "no policy.toml, for there is no {}. Put into yours:\nmodels = {{ expect = [\"{model}\"] }}\n\
                 \"snp.measurement\" = {{ expect = [\"{measurement}\"] }}",
                program.display()
            );
            Ok(())
        }
    }
}
