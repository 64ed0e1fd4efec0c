//! `touchstone model`: the identity of a model that lies in a folder, and whether it is the one that was meant.

mod folder;
mod verify;

use std::path::PathBuf;

use clap::ArgGroup;
use serde_json::json;
use touchstone_formats::Digest;

use crate::output::{Failure, Outcome, clean, print, say};

/// Hash a model's folder as the enclave does, and compare it with what was meant
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(
    after_help = "Example:\n  touchstone model digest models/fraud-score/3\n  \
    touchstone model verify models/fraud-score/3 --digest 6f3a…"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print the model_digest of a folder, and the files that it covers
    #[command(
        after_help = "The digest is the one that receipts and policies name: of every file that the runtime opens, \
        external tensor data included, by name, size and SHA-256. A folder that the enclave would refuse to load \
        for its files (links, absolute paths, .., files that model.onnx does not open) is exit 2.\n\n\
        Example:\n  touchstone model digest models/fraud-score/3\n  \
        touchstone model digest models/fraud-score/3 --identity | sha256sum"
    )]
    Digest {
        /// Folder of the model: one version, with model.onnx in it
        folder: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Print the bytes that are hashed, and nothing else: a list for `model verify`
        #[arg(long, conflicts_with = "json")]
        identity: bool,
    },
    /// Compare a folder with a digest, a list of files, a manifest, or an OpenSSF Model Signing signature
    #[command(group(ArgGroup::new("reference").required(true).multiple(true).args(["digest", "files", "oms", "manifest"])))]
    #[command(
        after_help = "Everything that is given has to hold. Exit 0: it is this model. 2: the folder is no model, or a \
        file given is malformed. 3: another model, or not signed by this key. 4: signed, and refused. 5: a manifest that is not in force now.\n\
        Of a signature by OpenSSF Model Signing the list of files is compared; its root digest, which says nothing \
        of names, is never an identity.\n\n\
        Example:\n  touchstone model verify models/fraud-score/3 --digest 6f3a…\n  \
        touchstone model verify models/fraud-score/3 --manifest manifest.jsonl --policy policy.toml\n  \
        touchstone model verify models/fraud-score/3 --oms model.sig --public-key signer.pem"
    )]
    Verify {
        /// Folder of the model: one version, with model.onnx in it
        folder: PathBuf,
        /// The model_digest that it must have
        #[arg(long, value_name = "HEX")]
        digest: Option<Digest>,
        /// The files that it must have: what `model digest --identity` printed
        #[arg(long, value_name = "LIST.json")]
        files: Option<PathBuf>,
        /// A manifest that has to list it
        #[arg(long, value_name = "FILE", requires = "policy")]
        manifest: Option<PathBuf>,
        /// Policy whose `[manifest]` says which manifest, and whose signatures count
        #[arg(long, value_name = "P.toml", requires = "manifest")]
        policy: Option<PathBuf>,
        /// A sigstore bundle of OpenSSF Model Signing v1.0, signed with a key
        #[arg(long, value_name = "BUNDLE.sig", requires = "public_key")]
        oms: Option<PathBuf>,
        /// PEM: the P-256 key that must have signed
        #[arg(long, value_name = "PUB.pem", requires = "oms")]
        public_key: Option<PathBuf>,
        /// Print the verdict as one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    match args.command {
        Command::Digest {
            folder,
            json,
            identity,
        } => digest(&folder, json, identity),
        Command::Verify {
            folder,
            digest,
            files,
            manifest,
            policy,
            oms,
            public_key,
            json,
        } => verify::run(&verify::Asked {
            folder,
            digest,
            files,
            manifest: manifest.zip(policy),
            signed: oms.zip(public_key),
            json,
        }),
    }
}

fn digest(path: &std::path::Path, json: bool, identity: bool) -> Result<Outcome, Failure> {
    let folder = folder::read(path)?;
    let files = folder.identity.files();
    let digest = folder.identity.digest();
    let settings = folder.settings.as_ref();
    if identity {
        print(&String::from_utf8_lossy(&folder.identity.to_jcs()));
    } else if json {
        let shown = json!({
            "v": "touchstone/model/1",
            "model_digest": digest.to_string(),
            "files": files,
            "settings": settings.map(|file| file.sha256.to_string()),
        });
        print(&(shown.to_string() + "\n"));
    } else {
        print(&format!("{digest}\n"));
        let width = files.iter().map(|file| file.size.to_string().len()).max();
        for file in files {
            print(&format!(
                "  {}  {:>width$}  {}\n",
                file.sha256,
                file.size,
                clean(&file.name),
                width = width.unwrap_or(0)
            ));
        }
    }
    if settings.is_some() {
        say(
            "settings.toml is no part of the digest: it belongs to the configuration, whose digest receipts name too\n",
        );
    }
    Ok(Outcome::Exit(0))
}
