//! `touchstone show`: says in words what a file is and what it claims. Judges nothing.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;
use touchstone_formats::limits::MAX_BUNDLE;

use crate::output::{Failure, Outcome, print};
use crate::{files, words};

/// Say in words what a file is and what it claims, field by field, without judging it
#[derive(clap::Args)]
#[command(
    after_help = "Knows bundles, keysets, evidence, catalogs, receipts, checkpoints, proofs, \
    policies, verdicts, the records that `ask` keeps, answers to a request for a session, collateral \
    files, lists of notices, raw SEV-SNP reports and TDX quotes, certificates and revocation lists (DER or PEM). \
    Reports and quotes are shown with offsets, in the names of their specifications.\n\nExample:\n  touchstone show answer/bundle.json"
)]
pub struct Args {
    /// Any file of ours, or a raw report, quote, certificate or revocation list
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let bytes = files::read(&args.file, "file", MAX_BUNDLE as u64)?;
    let page = words::describe(&bytes)
        .with_context(|| args.file.display().to_string())
        .map_err(|error| Failure::malformed("show.format", error))?;
    if args.json {
        let shown = json!({ "v": "touchstone/show/1", "judged": false, "parts": page });
        print(&(shown.to_string() + "\n"));
    } else {
        print(&page.text());
        print("Nothing of this has been judged.\n");
    }
    Ok(Outcome::Exit(0))
}
