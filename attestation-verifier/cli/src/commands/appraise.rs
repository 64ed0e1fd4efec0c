//! `touchstone appraise`: judges one evidence file, of this system or of another.

use std::path::{Path, PathBuf};

use attestation_verifier::{At, Verdict};
use touchstone_formats::limits::MAX_BUNDLE;

use super::check::Judging;
use crate::files::{Disk, Source};
use crate::inputs::{self, Basis};
use crate::output::{Failure, Outcome, Printed};

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
    #[command(flatten)]
    at: Judging,
    #[command(flatten)]
    printed: Printed,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let report_data = args.report_data.as_ref();
    let verdict = judge(&args.evidence, &args.policy, report_data, &args.at)?;
    Ok(Outcome::Verdict(Box::new(verdict)))
}

/// Judges an evidence file.
pub fn judge(
    evidence: &Path,
    policy: &Path,
    report_data: Option<&[u8; 64]>,
    judging: &Judging,
) -> Result<Verdict, Failure> {
    let basis = Basis::read(policy, judging)?;
    let at = || inputs::at(judging.at);
    let verdict = judge_from(&Disk, evidence, &basis, report_data, at)?;
    judging.manifests.remember(&verdict)?;
    Ok(verdict)
}

/// As [`judge`], with what is read from `source` and judged by `basis`. `at` is asked when all is read.
pub fn judge_from(
    source: &dyn Source,
    evidence: &Path,
    basis: &Basis,
    report_data: Option<&[u8; 64]>,
    at: impl FnOnce() -> anyhow::Result<At>,
) -> Result<Verdict, Failure> {
    let evidence = source.read_prefix(evidence, "evidence", MAX_BUNDLE as u64)?;
    Ok(basis.verifier().appraise(&evidence, report_data, at()?))
}
