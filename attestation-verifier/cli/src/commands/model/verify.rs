//! `touchstone model verify`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use attestation_verifier::manifest::{Authentic, Demand, MAX_FILE, NotAuthentic, PublicKey};
use attestation_verifier::verdict::Context;
use attestation_verifier::{At, Checks, Fault, Verdict, oms};
use serde_json::{Value, json};
use touchstone_formats::limits::MAX_BUNDLE;
use touchstone_formats::{Digest, ModelFile, ModelManifest};

use super::folder::{self, FORMAT, Folder};
use crate::commands::manifest::demand;
use crate::output::{Failure, Outcome, print_painted};
use crate::{files, inputs};

/// What a folder is compared with. Something is given.
pub struct Asked {
    /// The folder.
    pub folder: PathBuf,
    /// Its digest.
    pub digest: Option<Digest>,
    /// Its files: a file that holds an identity.
    pub files: Option<PathBuf>,
    /// A manifest that lists it, and the policy that demands the manifest.
    pub manifest: Option<(PathBuf, PathBuf)>,
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
    let manifest = asked.manifest.as_ref().map(manifest).transpose()?;
    let at = inputs::at(None)?;
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
    let mut model = json!({ "model_digest": found.to_string() });
    if let Some((demand, manifest)) = &manifest {
        listed_by(
            demand,
            manifest.as_ref(),
            found,
            at,
            &mut checks,
            &mut model,
        );
    }
    let mut notes = Vec::new();
    if folder.settings.is_some() {
        notes.push(
            "settings.toml says how the model is run; it is part of config_digest, not of model_digest"
                .to_owned(),
        );
    }
    let context = Context {
        model,
        residual_risks: notes,
        ..Context::default()
    };
    let verdict = Verdict {
        conclusion: checks.conclude(false, false),
        // Of all that can be given a manifest alone has an end.
        at: manifest.is_some().then_some(at),
        checks,
        context,
    };
    if asked.json {
        return Ok(Outcome::Verdict(Box::new(verdict)));
    }
    let mut words = format!("{}model_digest: {found}\n", verdict.words());
    let model = &verdict.context.model;
    if let (Some(name), Some(version)) = (model["name"].as_str(), model["version"].as_str()) {
        words += &format!("model {name} version {version}\n");
    }
    print_painted(&words, verdict.exit());
    Ok(Outcome::Exit(verdict.exit()))
}

/// Reads a manifest, and what the policy demands of one.
fn manifest(
    (file, policy): &(PathBuf, PathBuf),
) -> Result<(Demand, Result<Authentic, NotAuthentic>), Failure> {
    let demand = demand(policy).map_err(|error| Failure::unfit("policy.file", error))?;
    // One byte more than a manifest can have is read, so that one that is too long is seen to be.
    let file = files::read_prefix(file, "manifest", MAX_FILE as u64)?;
    let authentic = Authentic::read(&file, &demand.signers);
    Ok((demand, authentic))
}

/// `model.manifest`, and what is wrong with the manifest; the model's name and version are the manifest's.
fn listed_by(
    demand: &Demand,
    manifest: Result<&Authentic, &NotAuthentic>,
    found: Digest,
    at: At,
    checks: &mut Checks,
    model: &mut Value,
) {
    let id = "model.manifest";
    let mut refuse = |id, fault, reason: String| {
        checks.fail(id, fault, json!(demand.name), Value::Null, reason);
    };
    let authentic = match manifest {
        Ok(authentic) => authentic,
        Err(error) => {
            refuse(error.id(), error.fault(), error.to_string());
            return;
        }
    };
    let manifest = authentic.manifest();
    let refused = demand.refuses(manifest);
    for refused in &refused {
        refuse(refused.id(), Fault::Policy, refused.to_string());
    }
    let validity = authentic.validity(at.time);
    if let Err(error) = &validity {
        let fault = Fault::CollateralExpired;
        refuse("manifest.validity", fault, error.to_string());
    }
    if !refused.is_empty() || validity.is_err() {
        return;
    }
    let (called, is) = (
        format!("{}, version {}", manifest.name, manifest.version),
        found.to_string(),
    );
    let signed = format!(
        "signed by {} of {}",
        authentic.signed_by().len(),
        authentic.signers()
    );
    match manifest.model(&found) {
        Some(listed) => {
            let (name, version) = (&listed.name, &listed.version);
            *model = json!({ "model_digest": is, "name": name, "version": version });
            let reason = format!("{name} version {version}, by the manifest {called} ({signed})");
            checks.pass_because(id, called, is, reason);
        }
        None => {
            let reason = format!("no model of the manifest {called} ({signed})");
            checks.fail(id, Fault::NotAuthentic, called, is, reason);
        }
    }
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
