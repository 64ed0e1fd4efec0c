//! `touchstone advisories sign`: makes the signed list that `regrade` reads.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use attestation_verifier::regrade::Advisories;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use touchstone_formats::{LogKey, NoteSignature};

use super::regrade::{content, seed};
use crate::files;
use crate::output::{Failure, Outcome, print, say};

/// Make lists of notices for `regrade`
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(
    after_help = "Example:\n  touchstone advisories sign notices.json --key seed.hex --name advisories.example -o notices.txt"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Sign a list of notices; prints the verifier key that others need
    ///
    /// NOTICES is JSON as docs/formats.md §12 has it, white space at will; it is written canonically. Raise `version` with
    /// every list. Whoever has the key can withdraw trust in your name: keep it off machines that do anything else.
    #[command(
        after_help = "A key is 32 random bytes in hex:\n  (umask 077; openssl rand -hex 32 > seed.hex)\n\nExample:\n  \
        touchstone advisories sign notices.json --key seed.hex --name advisories.example -o notices.txt"
    )]
    Sign {
        /// The notices
        notices: PathBuf,
        /// File with the Ed25519 seed: 64 hex digits
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Name of the key, such as a domain of yours: no spaces, no plus
        #[arg(long, value_name = "NAME")]
        name: String,
        /// File to write; stdout without it
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Print one JSON object: the verifier key, what was written, and without -o the signed list itself
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let Command::Sign {
        notices,
        key,
        name,
        output,
        json,
    } = args.command;
    let text = content(&notices)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed(&key)?)
        .map_err(|_| anyhow!("key {}: no Ed25519 seed", key.display()))?;
    let public = pair.public_key().as_ref().try_into();
    let verifier = LogKey {
        name,
        key: public.context("a public key of 32 bytes")?,
    };
    let signature = NoteSignature {
        name: verifier.name.clone(),
        key_id: verifier.key_id(),
        signature: pair.sign(text.as_bytes()).as_ref().to_vec(),
    };
    let note = format!("{text}\n{signature}\n");
    // What is given out is what `regrade` reads; this also refuses names that no verifier key can have.
    let printed = verifier.to_string();
    let verifier: LogKey = printed
        .parse()
        .map_err(|error| anyhow!("--name: {error}"))?;
    let list = Advisories::parse(note.as_bytes(), &verifier)
        .context("the list that was made cannot be read")?;
    if let Some(path) = &output {
        files::write_new(path, note.as_bytes())?;
    }
    if json {
        let made = json!({
            "v": "touchstone/advisories-made/1",
            "exit": 0,
            "verifier_key": printed,
            "version": list.version(),
            "notices": list.notices().len(),
            "wrote": output.as_ref().map(|path| path.display().to_string()),
            "list": output.is_none().then_some(&note),
        });
        print(&format!("{made}\n"));
    } else if output.is_none() {
        print(&note);
    }
    say(&format!("verifier key: {printed}\n"));
    Ok(Outcome::Exit(0))
}
