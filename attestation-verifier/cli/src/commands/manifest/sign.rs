//! `touchstone manifest sign`: adds a signature, made here or elsewhere.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use attestation_verifier::manifest::{
    MAX_FILE, PublicKey, SignatureForm, SignedFile, Statement, lint,
};
use serde_json::json;

use super::key::Private;
use super::state::replace;
use super::{Given, given, identity, made, malformed, public_key};
use crate::output::{Failure, Outcome};
use crate::{files, inputs};

/// Sign a draft, or add a signature to a signed manifest
///
/// A draft is written canonically and signed into OUT; a file that is signed already keeps its bytes, and gets a line more.
/// Nothing else is ever signed into a file than what is in it. What is empty or expired is not signed.
#[derive(clap::Args)]
#[command(
    after_help = "With a key in an HSM or a KMS: write the bytes, have them signed (ECDSA P-256 with SHA-256), and bring \
    the signature back, as DER or as r and s:\n  \
    touchstone manifest sign draft.json --to-sign bytes.bin\n  \
    openssl dgst -sha256 -sign key.pem -out sig.der bytes.bin\n  \
    touchstone manifest sign draft.json --signature sig.der --public-key bob.pub.pem -o manifest.jsonl\n\n\
    Example:\n  touchstone manifest sign draft.json --key alice.pem -o manifest.jsonl"
)]
#[command(group = clap::ArgGroup::new("way").required(true).args(["key", "to_sign", "signature"]))]
pub struct Args {
    /// Draft, or signed manifest
    file: PathBuf,
    /// Sign with this key: PKCS#8 as PEM, P-256
    #[arg(long, value_name = "KEY.pem")]
    key: Option<PathBuf>,
    /// Write the bytes that somebody else's signer has to sign, and sign nothing
    #[arg(long, value_name = "BYTES", conflicts_with = "output")]
    to_sign: Option<PathBuf>,
    /// Take this signature over those bytes, DER or r and s of 32 bytes each; it is verified
    #[arg(long, value_name = "SIG", requires = "public_key")]
    signature: Option<PathBuf>,
    /// The key that it is by: PEM, or base64 of its DER
    #[arg(long, value_name = "PUB.pem", requires = "signature")]
    public_key: Option<PathBuf>,
    /// File to write, or to add a line to if it has the same manifest; FILE itself without it, if that is signed
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Sign as of this time instead of now: what is expired is not signed
    #[arg(long, value_name = "RFC3339", value_parser = inputs::time)]
    at: Option<u64>,
    /// Print what was done as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let (statement, signed) = match given(&args.file)? {
        Given::Draft(manifest) => {
            let statement = Statement::new(manifest).map_err(malformed(&args.file))?;
            (statement, None)
        }
        Given::Signed(signed, file) => (signed.statement().clone(), Some((signed, file))),
    };
    let notes = fit(&args.file, &statement, inputs::at(args.at)?.time)?;
    if let Some(path) = &args.to_sign {
        let bytes = statement.to_sign();
        files::write_new(path, &bytes)?;
        let words = format!(
            "{notes}wrote {}: {} bytes to sign with ECDSA P-256 and SHA-256, of {}\n",
            path.display(),
            bytes.len(),
            identity(&statement)
        );
        let members = members(&statement);
        return Ok(made(args.json, "to-sign", members, &words));
    }

    let (target, before) = target(&args, &statement, signed)?;
    let (key, line, form) = signature(&args, &statement)?;
    let mut file = Vec::new();
    if let Some((signed, bytes)) = before {
        let id = key.id();
        if signed.lines().iter().any(|line| line.hint == id) {
            let target = target.display();
            return Err(anyhow!("{target} has a signature of key {id} already").into());
        }
        file = bytes;
        if !file.ends_with(b"\n") {
            file.push(b'\n');
        }
    }
    file.extend_from_slice(line.as_bytes());
    // What is given out is what others can read.
    let whole = SignedFile::parse(&file).map_err(malformed(&target))?;
    replace(&target, &file)?;
    let count = whole.lines().len();
    let raw = match form {
        SignatureForm::Der => "",
        SignatureForm::Raw => {
            "note: the signature came as r and s, and is written as DER, which manifests have\n"
        }
    };
    let others = match count {
        1 => String::new(),
        n => format!(", {} of others not verified", n - 1),
    };
    let words = format!(
        "{notes}{raw}wrote {}: {}\nsigned by key {key}; {count} signatures{others}\n",
        target.display(),
        identity(&statement)
    );
    let mut members = members(&statement);
    if let Some(object) = members.as_object_mut() {
        object.insert("key_id".into(), json!(key.id()));
        object.insert("signatures".into(), json!(count));
        object.insert("output".into(), json!(target.display().to_string()));
    }
    Ok(made(args.json, "sign", members, &words))
}

fn members(statement: &Statement) -> serde_json::Value {
    json!({
        "manifest": statement.manifest().name,
        "version": statement.manifest().version,
        "sha256": statement.digest(),
    })
}

/// Refuses what nobody should sign; says what he should know.
fn fit(path: &Path, statement: &Statement, at: u64) -> Result<String, Failure> {
    let found = lint(statement.manifest(), at);
    let refused: Vec<&str> = found
        .iter()
        .filter(|finding| finding.refuses)
        .map(|finding| finding.words.as_str())
        .collect();
    if !refused.is_empty() {
        let refused = refused.join("; ");
        return Err(anyhow!("manifest {} is not signed: {refused}", path.display()).into());
    }
    let notes = found.iter().map(|f| format!("note: {}\n", f.words));
    Ok(notes.collect())
}

type Before = Option<(SignedFile, Vec<u8>)>;

/// Which file is written, and what is in it.
fn target(
    args: &Args,
    statement: &Statement,
    signed: Before,
) -> Result<(PathBuf, Before), Failure> {
    let Some(output) = &args.output else {
        let missing = || {
            anyhow!(
                "{} is a draft: say where to sign it with -o",
                args.file.display()
            )
        };
        signed.as_ref().with_context(missing)?;
        return Ok((args.file.clone(), signed));
    };
    let there = output.metadata();
    if there.is_err() || there.is_ok_and(|there| there.is_file() && there.len() == 0) {
        // Who adds his signature to what others signed keeps their lines.
        return Ok((output.clone(), signed));
    }
    let file = files::read(output, "manifest", MAX_FILE as u64)?;
    let before = SignedFile::parse(&file).map_err(malformed(output))?;
    if before.statement() != statement {
        let (has, other) = (identity(before.statement()), identity(statement));
        let output = output.display();
        return Err(anyhow!(
            "{output} has {has}; {other} is another manifest, and is not signed into it"
        )
        .into());
    }
    Ok((output.clone(), Some((before, file))))
}

/// The signature, made with the key or brought along, and verified in any case.
fn signature(
    args: &Args,
    statement: &Statement,
) -> anyhow::Result<(PublicKey, String, SignatureForm)> {
    let (key, signature) = match (&args.key, &args.signature, &args.public_key) {
        (Some(key), ..) => {
            let key = Private::read(key)?;
            (key.public, key.sign(&statement.to_sign())?)
        }
        (None, Some(signature), Some(public)) => {
            let bytes = files::read(signature, "signature", files::MAX_TEXT)?;
            ensure!(
                !bytes.is_empty(),
                "signature {}: empty",
                signature.display()
            );
            (public_key(public)?, bytes)
        }
        _ => return Err(anyhow!("give --key, or --signature and --public-key")),
    };
    let (line, form) = statement.signed_line(&key, &signature)?;
    Ok((key, line, form))
}
