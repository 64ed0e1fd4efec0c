//! `touchstone appraise`: judges one evidence file, of this system or of another.

use std::path::PathBuf;

use touchstone_formats::limits::MAX_BUNDLE;

use crate::output::{Failure, Outcome};
use crate::{files, inputs};

/// Judge one piece of attestation evidence, whoever asked for it
#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    touchstone evidence sev-snp --report report.bin --vek vek.der --chain ask.pem -o evidence.json\n  \
    touchstone appraise evidence.json --policy policy.toml --report-data 00ff…")]
pub struct Args {
    /// Evidence file, as `touchstone evidence` writes it
    evidence: PathBuf,
    /// Policy file
    #[arg(long, value_name = "P.toml")]
    policy: PathBuf,
    /// What the 64 bytes of REPORT_DATA must be
    #[arg(long, value_name = "HEX", value_parser = inputs::report_data)]
    report_data: Option<[u8; 64]>,
    /// Judge at this time instead of now
    #[arg(long, value_name = "RFC3339", value_parser = inputs::time)]
    at: Option<u64>,
    /// Root certificates of a simulated platform (PEM), trusted beside the pinned ones
    #[arg(long, value_name = "FILE")]
    trust_simulated_root: Option<PathBuf>,
    /// Print the verdict as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let policy = inputs::policy(&args.policy)?;
    let roots = inputs::roots(args.trust_simulated_root.as_deref())?;
    let evidence = files::read_prefix(&args.evidence, "evidence", MAX_BUNDLE as u64)?;
    let at = inputs::at(args.at)?;
    let report_data = args.report_data.as_ref();
    let verdict = attestation_verifier::appraise(&evidence, &policy, &roots, report_data, at);
    Ok(Outcome::Verdict(Box::new(verdict)))
}
