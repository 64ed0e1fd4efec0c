//! `touchstone model verify`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use attestation_verifier::manifest::PublicKey;
use attestation_verifier::verdict::Context;
use attestation_verifier::{Checks, Fault, Verdict, oms};
use serde_json::json;
use touchstone_formats::limits::MAX_BUNDLE;
use touchstone_formats::{Digest, ModelFile, ModelManifest};

use super::folder::{self, FORMAT, Folder};
use crate::files;
use crate::output::{Failure, Outcome, print_painted};

/// What a folder is compared with. Something is given.
pub struct Asked {
    /// The folder.
    pub folder: PathBuf,
    /// Its digest.
    pub digest: Option<Digest>,
    /// Its files: a file that holds an identity.
    pub files: Option<PathBuf>,
    /// An OMS bundle, and the key that must have signed it.
    pub signed: Option<(PathBuf, PathBuf)>,
    /// Print the verdict as JSON.
    pub json: bool,
}

/// Runs the command.
pub fn run(asked: &Asked) -> Result<Outcome, Failure> {
    // What is wrong with the files given is said before gigabytes are hashed.
    let listed = asked.files.as_deref().map(identity).transpose()?;
    let signed = match &asked.signed {
        None => None,
        Some((bundle, key)) => {
            let pem = files::read_text(key, "public key", files::MAX_TEXT)?;
            let key = PublicKey::parse(&pem)
                .map_err(|error| anyhow!("public key {}: {error}", key.display()))?;
            Some((files::read(bundle, "bundle", MAX_BUNDLE as u64)?, key))
        }
    };
    let folder = folder::read(&asked.folder)?;
    let found = folder.identity.digest();

    let mut checks = Checks::new();
    checks.pass(FORMAT, json!(null), json!(null));
    if let Some(listed) = &listed {
        compare(listed, &folder, &mut checks);
    }
    if let Some(expected) = asked.digest {
        let (shown, is) = (expected.to_string(), found.to_string());
        if expected == found {
            checks.pass("model.digest", shown, is);
        } else {
            let why = "the folder holds another model";
            checks.fail("model.digest", Fault::NotAuthentic, shown, is, why);
        }
    }
    if let Some((bundle, key)) = &signed {
        let settings = folder.settings.as_slice();
        oms::judge(bundle, key, &folder.identity, settings, &mut checks);
    }
    let mut notes = Vec::new();
    if folder.settings.is_some() {
        notes.push(
            "settings.toml says how the model is run; it is part of config_digest, not of model_digest"
                .to_owned(),
        );
    }
    let context = Context {
        model: json!({ "model_digest": found.to_string() }),
        residual_risks: notes,
        ..Context::default()
    };
    let verdict = Verdict {
        conclusion: checks.conclude(false, false),
        at: None,
        checks,
        context,
    };
    if asked.json {
        return Ok(Outcome::Verdict(Box::new(verdict)));
    }
    let words = format!("{}model_digest: {found}\n", verdict.words());
    print_painted(&words, verdict.exit());
    Ok(Outcome::Exit(verdict.exit()))
}

/// Reads an identity. A line's end after it, as editors and shells leave it, is no part of it.
fn identity(path: &Path) -> Result<ModelManifest, Failure> {
    let bytes = files::read(path, "list of files", MAX_BUNDLE as u64)?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    ModelManifest::parse(bytes)
        .map_err(|error| Failure::malformed("model.files", anyhow!("{}: {error}", path.display())))
}

/// `model.files`: name by name; the first that differs is named, and how many there are.
fn compare(listed: &ModelManifest, folder: &Folder, checks: &mut Checks) {
    let by_name = |files: &'_ [ModelFile]| -> BTreeMap<String, ModelFile> {
        files
            .iter()
            .map(|file| (file.name.clone(), file.clone()))
            .collect()
    };
    let (expected, found) = (by_name(listed.files()), by_name(folder.identity.files()));
    let missing = expected
        .values()
        .filter(|file| !found.contains_key(&file.name));
    let surplus = found
        .values()
        .filter(|file| !expected.contains_key(&file.name));
    let changed = expected
        .values()
        .filter(|file| found.get(&file.name).is_some_and(|here| here != *file));
    let mut differ: Vec<String> = Vec::new();
    differ.extend(changed.map(|file| format!("{} is another file", file.name)));
    differ.extend(missing.map(|file| format!("{} is not in the folder", file.name)));
    differ.extend(surplus.map(|file| format!("{} is not in the list", file.name)));
    let (shown, is) = (
        listed.digest().to_string(),
        folder.identity.digest().to_string(),
    );
    match differ.first() {
        None => checks.pass("model.files", shown, is),
        Some(first) => {
            let others = differ.len().saturating_sub(1);
            let why = match others {
                0 => first.clone(),
                _ => format!("{first}, and {others} more differ"),
            };
            checks.fail("model.files", Fault::NotAuthentic, shown, is, why);
        }
    }
}
