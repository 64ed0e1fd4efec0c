//! `touchstone explain`: says in words why a verdict is what it is, or what one check is about.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use attestation_verifier::explain::{self, Explanation};
use serde_json::Value;
use touchstone_formats::limits::MAX_BUNDLE;

use super::check::{Held, Judging};
use super::{appraise, check};
use crate::output::{Failure, Outcome, print, print_painted};
use crate::{files, inputs};

/// Say in words, check by check, why something holds or is refused
///
/// Judges what `check` or `appraise` would judge, with their options, or repeats a verdict that was kept in a
/// file (--json of either; nothing is judged again then). The exit code is the verdict's. With --check it says what one check is
/// about.
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(
    after_help = "Examples:\n  touchstone explain answer --policy policy.toml\n  \
    touchstone explain evidence.json --policy policy.toml --report-data 00ff…\n  \
    touchstone explain verdict.json\n  touchstone explain --check snp.policy.debug"
)]
pub struct Args {
    /// Folder written by `ask`, a bundle, an evidence file, or a verdict
    #[arg(
        value_name = "DIR|BUNDLE|EVIDENCE|VERDICT",
        required_unless_present = "check"
    )]
    target: Option<PathBuf>,
    /// Policy file; not needed for a verdict
    #[arg(long, value_name = "P.toml")]
    policy: Option<PathBuf>,
    /// Explain the check of this id, and judge nothing
    #[arg(long, value_name = "ID", conflicts_with = "target")]
    check: Option<String>,
    /// What the 64 bytes of REPORT_DATA must be (of an evidence file)
    #[arg(long, value_name = "HEX", value_parser = inputs::report_data)]
    report_data: Option<[u8; 64]>,
    #[command(flatten)]
    held: Held,
    #[command(flatten)]
    at: Judging,
    /// Print the explanation as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    if let Some(id) = &args.check {
        return one(id, args.json);
    }
    let target = args.target.as_deref().context("nothing to explain")?;
    let explanation = match kind(target)? {
        Kind::Verdict(file) => {
            let judging = args.at.at.is_some() || !args.at.manifests.is_empty();
            if !args.held.is_empty() || args.report_data.is_some() || judging {
                let error = "a verdict is explained as it stands: options of `check` and `appraise` \
                             belong to the judgement that made it";
                return Err(anyhow!("{}: {error}", target.display()).into());
            }
            Explanation::of_file(&file).map_err(|error| {
                Failure::malformed("verdict.format", anyhow!("{}: {error}", target.display()))
            })?
        }
        Kind::Evidence => {
            if !args.held.is_empty() {
                let error = "this is evidence: of the options for what you hold only --report-data is about it";
                return Err(anyhow!("{}: {error}", target.display()).into());
            }
            let policy = policy(&args)?;
            let report_data = args.report_data.as_ref();
            explain::explain(&appraise::judge(target, policy, report_data, &args.at)?)
        }
        Kind::Bundle => {
            if args.report_data.is_some() {
                let error =
                    "the report data of a bundle is computed; --report-data is for evidence files";
                return Err(anyhow!("{}: {error}", target.display()).into());
            }
            let policy = policy(&args)?;
            explain::explain(&check::judge(target, policy, &args.held, &args.at)?)
        }
    };
    if args.json {
        let json = serde_json::to_string(&explanation).context("cannot write JSON")?;
        print(&(json + "\n"));
    } else {
        print_painted(&explanation.words(), explanation.exit);
    }
    Ok(Outcome::Exit(explanation.exit))
}

fn policy(args: &Args) -> Result<&Path, Failure> {
    let missing = "--policy P.toml is needed to judge a bundle or evidence";
    Ok(args.policy.as_deref().context(missing)?)
}

enum Kind {
    Bundle,
    Evidence,
    Verdict(Vec<u8>),
}

/// What a file is. Whatever is none of the three is judged as a bundle, which then says what is wrong with it.
fn kind(target: &Path) -> Result<Kind, Failure> {
    if target.is_dir() {
        return Ok(Kind::Bundle);
    }
    let file =
        files::read_prefix(target, "file", MAX_BUNDLE as u64).map_err(|error| {
            match target.to_str() {
                Some(id) if explain::about(id).is_some() => {
                    error.context(format!("{id} is a check: say --check {id}"))
                }
                _ => error,
            }
        })?;
    let value: Value = serde_json::from_slice(&file).unwrap_or_default();
    let v = value.get("v").and_then(Value::as_str).unwrap_or_default();
    Ok(match v {
        _ if v.starts_with("touchstone/verdict/") => Kind::Verdict(file),
        "" if value.get("tee").is_some() => Kind::Evidence,
        _ => Kind::Bundle,
    })
}

/// What is known about one check.
fn one(id: &str, json: bool) -> Result<Outcome, Failure> {
    let Some(about) = explain::about(id) else {
        let near = explain::near(id);
        let hint = if near.is_empty() {
            "docs/checks.md lists them all".to_owned()
        } else {
            format!("did you mean {}?", near.join(", "))
        };
        return Err(anyhow!("no check has the id {id:?}; {hint}").into());
    };
    if json {
        let json = serde_json::to_string(&about).context("cannot write JSON")?;
        print(&(json + "\n"));
    } else {
        print(&about.words());
    }
    Ok(Outcome::Exit(0))
}
