//! `touchstone manifest key`: makes a key to sign with.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use attestation_verifier::manifest::PublicKey;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use touchstone_formats::text::base64_encode;
use x509_parser::pem::Pem;

use super::made;
use crate::files;
use crate::output::{Failure, Outcome, print};

/// Make a P-256 key to sign manifests with; prints its public key
///
/// The file is PKCS#8, not encrypted, and readable by you alone. A key that matters belongs into an HSM: `manifest sign
/// --to-sign`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  touchstone manifest key -o alice.pem > alice.pub.pem")]
pub struct Args {
    /// File to write, which must not exist
    #[arg(short, long, value_name = "KEY.pem")]
    output: PathBuf,
    /// Print the public key and its id as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
        .map_err(|_| anyhow!("this machine has no randomness for a key"))?;
    let public = Private::from_pkcs8(pkcs8.as_ref())?.public;
    write_private(&args.output, &pem(pkcs8.as_ref()))?;
    if !args.json {
        print(&public.to_pem());
    }
    let words = format!("wrote {}: key {public}\n", args.output.display());
    let members = json!({ "key_id": public.id(), "public_key": public.to_pem() });
    Ok(made(args.json, "key", members, &words))
}

fn pem(der: &[u8]) -> String {
    let base64 = base64_encode(der);
    let mut out = String::from("-----BEGIN PRIVATE KEY-----\n");
    for (index, c) in base64.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            out.push('\n');
        }
        out.push(c);
    }
    out + "\n-----END PRIVATE KEY-----\n"
}

/// Never over another file, and never readable by others, not for a moment.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A key to sign with.
pub struct Private {
    pair: EcdsaKeyPair,
    /// Its public key.
    pub public: PublicKey,
}

impl Private {
    /// Reads a file with one PKCS#8 key.
    pub fn read(path: &Path) -> Result<Private> {
        let text = files::read(path, "key", files::MAX_TEXT)?;
        let not = || format!("key {}", path.display());
        let mut blocks = Pem::iter_from_buffer(&text);
        let block = blocks
            .next()
            .context("expected PEM, BEGIN PRIVATE KEY")
            .and_then(|block| block.context("not PEM"))
            .with_context(not)?;
        if block.label != "PRIVATE KEY" || blocks.next().is_some() {
            let label = &block.label;
            let error =
                anyhow!("found a block {label}, expected one PRIVATE KEY (PKCS#8, not encrypted)");
            return Err(error.context(not()));
        }
        Private::from_pkcs8(&block.contents).with_context(not)
    }

    fn from_pkcs8(der: &[u8]) -> Result<Private> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random)
            .map_err(|error| anyhow!("expected a P-256 key with its public key in it: {error}"))?;
        let public = PublicKey::from_point(pair.public_key().as_ref())?;
        Ok(Private { pair, public })
    }

    /// ECDSA P-256 with SHA-256, as DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        let signature = signature.map_err(|_| anyhow!("this machine has no randomness to sign"))?;
        Ok(signature.as_ref().to_vec())
    }
}
