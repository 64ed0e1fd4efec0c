//! `touchstone manifest`: writes, signs, verifies and compares what auditors stand for.

mod draft;
mod key;
mod sign;
mod state;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use attestation_verifier::manifest::{
    Change, Direction, MAX_FILE, Manifest, ManifestError, PublicKey, SignedFile, Statement, diff,
};
use serde_json::{Value, json};

use crate::files;
use crate::output::{Failure, Outcome, clean, print, say};
pub use state::State;
pub use verify::{demand, signer, signers};

/// Write, sign, verify and compare manifests: what a platform must report, and who says so
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 holds or same · 1 usage or I/O · 2 malformed · 3 not authentic · 5 expired · \
    4 threshold, name, rollback, or different\n\n\
    Example:\n  touchstone manifest new --name touchstone-enclave --version 1 --not-after 2027-06-01T00:00:00Z -o draft.json\n  \
    touchstone manifest sign draft.json --key alice.pem -o manifest.jsonl\n  \
    touchstone manifest verify manifest.jsonl --signer alice=alice.pub.pem --threshold 1"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    New(draft::New),
    Add(draft::Add),
    AddModel(draft::AddModel),
    Key(key::Args),
    Sign(sign::Args),
    Verify(verify::Args),
    Diff(Diff),
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    match args.command {
        Command::New(args) => draft::new(args),
        Command::Add(args) => draft::add(args),
        Command::AddModel(args) => draft::add_model(args),
        Command::Key(args) => key::run(args),
        Command::Sign(args) => sign::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Diff(args) => compare(&args),
    }
}

/// Say what changed from one manifest to another, drafts or signed
///
/// Compared is what they say; signatures are not looked at. Exits 0 if that is the same, 4 if it is not.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  touchstone manifest diff manifest-17.jsonl draft.json")]
struct Diff {
    /// The manifest to compare with
    first: PathBuf,
    /// The manifest that is compared
    second: PathBuf,
    /// Print the differences as one JSON object
    #[arg(long)]
    json: bool,
}

fn compare(args: &Diff) -> Result<Outcome, Failure> {
    let (first, second) = (manifest(&args.first)?, manifest(&args.second)?);
    let changes = diff(&first, &second);
    let exit = if changes.is_empty() { 0 } else { 4 };
    let weaker = changes.iter().filter(|c| c.direction == Direction::Weaker);
    let weaker = weaker.count();
    let mut words = match changes.len() {
        0 => "SAME: both say the same\n".to_owned(),
        n => format!("DIFFERENT: {n} changes, {weaker} of them weaker\n"),
    };
    for Change {
        at,
        before,
        after,
        direction,
    } in &changes
    {
        let what = match (before, after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        let mark = match direction {
            Direction::Weaker => "WEAKER: ",
            Direction::Stricter => "stricter: ",
            Direction::Other => "",
        };
        words += &format!("{mark}{what}: {at}\n");
        for (sign, text) in [('-', before), ('+', after)] {
            if let Some(text) = text {
                words += &format!("  {sign} {text}\n");
            }
        }
    }
    if args.json {
        let found = json!({
            "v": "touchstone/manifest-diff/1", "exit": exit, "same": exit == 0, "weaker": weaker, "changes": changes,
        });
        print(&(found.to_string() + "\n"));
        say(&clean(&words));
    } else {
        print(&clean(&words));
    }
    Ok(Outcome::Exit(exit))
}

/// A manifest as somebody gave it.
enum Given {
    /// Unsigned: the predicate alone.
    Draft(Manifest),
    /// With signatures, which nobody has verified, and the file.
    Signed(SignedFile, Vec<u8>),
}

/// Reads a draft or a signed manifest.
fn given(path: &Path) -> Result<Given, Failure> {
    let file = files::read(path, "manifest", MAX_FILE as u64)?;
    // A draft says its version first; a line of a signed one has no such member.
    let draft = serde_json::from_slice::<Value>(&file).is_ok_and(|value| value.get("v").is_some());
    if draft {
        let manifest = Manifest::parse_draft(&file).map_err(malformed(path))?;
        return Ok(Given::Draft(manifest));
    }
    let signed = SignedFile::parse(&file).map_err(malformed(path))?;
    Ok(Given::Signed(signed, file))
}

/// What a manifest says, signed or not.
fn manifest(path: &Path) -> Result<Manifest, Failure> {
    Ok(match given(path)? {
        Given::Draft(manifest) => manifest,
        Given::Signed(signed, _) => signed.statement().manifest().clone(),
    })
}

fn malformed(path: &Path) -> impl Fn(ManifestError) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::malformed("manifest.format", anyhow!("manifest {path}: {error}"))
}

/// A P-256 public key, PEM or base64.
fn public_key(path: &Path) -> Result<PublicKey> {
    let text = files::read_text(path, "public key", files::MAX_TEXT)?;
    PublicKey::parse(&text).with_context(|| format!("public key {}", path.display()))
}

/// Says what was made: one object for programs, words for people.
fn made(json: bool, kind: &str, mut members: Value, words: &str) -> Outcome {
    if json {
        if let Some(object) = members.as_object_mut() {
            object.insert("v".into(), json!(format!("touchstone/manifest-{kind}/1")));
            object.insert("exit".into(), json!(0));
        }
        print(&(members.to_string() + "\n"));
    }
    say(&clean(words));
    Outcome::Exit(0)
}

/// What identifies a manifest, for people: what two signers compare before they sign.
fn identity(statement: &Statement) -> String {
    let manifest = statement.manifest();
    let (name, version) = (&manifest.name, manifest.version);
    format!("{name} version {version}, sha256 {}", statement.digest())
}
