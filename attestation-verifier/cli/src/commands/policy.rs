//! `touchstone policy`: starts a policy.

use std::path::PathBuf;

use anyhow::anyhow;
use attestation_verifier::policy::template;
use touchstone_formats::Tee;

use crate::files;
use crate::output::{Failure, Outcome, print, say};

/// Write the policy that answers are judged by
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(after_help = "Example:\n  touchstone policy init --tee sev-snp -o policy.toml")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Write a strict policy: every check named and explained, nothing waived
    #[command(
        after_help = "It refuses everything until you fill in the measurement and the \
        models you expect.\n\nExample:\n  touchstone policy init --tee sev-snp -o policy.toml"
    )]
    Init {
        /// Kind of platform
        #[arg(long, value_enum)]
        tee: TeeName,
        /// File to write; stdout without it
        #[arg(short, long, value_name = "P.toml")]
        output: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum TeeName {
    SevSnp,
    Tdx,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let Command::Init { tee, output } = args.command;
    let tee = match tee {
        TeeName::SevSnp => Tee::SevSnp,
        TeeName::Tdx => {
            return Err(anyhow!("--tee tdx: TDX evidence is not judged in this version").into());
        }
    };
    let text = template(tee);
    match output {
        None => print(&text),
        Some(path) => {
            files::write_new(&path, text.as_bytes())?;
            say(&format!(
                "wrote {}: strict, and refusing everything until you fill in what you expect\n",
                path.display()
            ));
        }
    }
    Ok(Outcome::Exit(0))
}
