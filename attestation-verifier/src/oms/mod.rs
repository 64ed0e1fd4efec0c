//! Signatures of OpenSSF Model Signing v1.0, and whether they are of the model that lies in a folder.
//!
//! What is signed is a list of files by name and digest, and a root digest over the digests *alone*: two models whose files
//! have changed names can share it. So the list is compared, name by name, with the files that the runtime opens
//! (formats.md §5), and the root digest is held against the list and never used for anything else. Signed with a P-256 key that
//! the user names; certificates and keyless signatures are not supported in this version.

mod envelope;
mod statement;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use touchstone_formats::{Digest, ModelFile, ModelManifest};

use crate::manifest::PublicKey;
use crate::verdict::{Checks, Fault};
use statement::{Signed, StatementError};

/// Longest bundle, in bytes: room for the longest list of a model's files.
pub const MAX_BYTES: usize = touchstone_formats::limits::MAX_BUNDLE;

/// Judges a bundle of OpenSSF Model Signing (`oms.*`): whether `key` signed it, and whether the files that it lists are these,
/// `identity` (what the runtime opens) and `beside` (what else lies in the folder), no more and no fewer.
pub fn judge(
    bundle: &[u8],
    key: &PublicKey,
    identity: &ModelManifest,
    beside: &[ModelFile],
    checks: &mut Checks,
) {
    let payload = match envelope::open(bundle, key) {
        Ok(payload) => payload,
        Err(error) => {
            let (id, fault) = match error {
                envelope::EnvelopeError::Form(_) => ("oms.format", Fault::Malformed),
                _ => ("oms.signature", Fault::NotAuthentic),
            };
            checks.fail(id, fault, Value::Null, Value::Null, error.to_string());
            return;
        }
    };
    let id = key.id();
    checks.pass("oms.signature", id.clone(), id);
    let signed = match statement::read(&payload) {
        Ok(signed) => signed,
        Err(error) => {
            let (id, fault) = match error {
                StatementError::Form(_) => ("oms.format", Fault::Malformed),
                StatementError::Unsupported { .. } => ("oms.method", Fault::Policy),
            };
            checks.fail(id, fault, Value::Null, Value::Null, error.to_string());
            return;
        }
    };
    checks.pass("oms.format", Value::Null, Value::Null);
    checks.pass("oms.method", Value::Null, Value::Null);
    compare(&signed, identity, beside, checks);
}

/// `oms.files` and `oms.covers`.
fn compare(signed: &Signed, identity: &ModelManifest, beside: &[ModelFile], checks: &mut Checks) {
    let here: BTreeMap<&str, Digest> = identity
        .files()
        .iter()
        .chain(beside)
        .map(|file| (file.name.as_str(), file.sha256))
        .collect();
    let mut differ = Vec::new();
    for (name, digest) in &signed.files {
        match here.get(name.as_str()) {
            Some(found) if found == digest => {}
            Some(_) => differ.push(format!("{name:?} is another file than the one signed")),
            None => differ.push(format!("{name:?} was signed and is not in the folder")),
        }
    }
    let unsigned = || {
        here.keys()
            .filter(|name| !signed.files.contains_key(**name))
    };
    for name in unsigned().filter(|name| !signed.ignores(name)) {
        differ.push(format!("{name:?} is in the folder and was not signed"));
    }
    let found = json!(signed.files.len());
    match differ.first() {
        None => checks.pass("oms.files", json!(here.len()), found),
        Some(first) => {
            let why = match differ.len().saturating_sub(1) {
                0 => first.clone(),
                more => format!("{first}, and {more} more differ"),
            };
            let expected = json!(here.len());
            checks.fail("oms.files", Fault::NotAuthentic, expected, found, why);
        }
    }
    // The signer may leave out what he likes, but not what the runtime opens.
    let opened = |name: &&&str| identity.files().iter().any(|file| file.name == ***name);
    match unsigned().filter(|name| signed.ignores(name)).find(opened) {
        None => checks.pass("oms.covers", Value::Null, Value::Null),
        Some(hidden) => checks.fail(
            "oms.covers",
            Fault::Policy,
            Value::Null,
            json!(hidden),
            format!(
                "the runtime opens {hidden:?}, which ignore_paths leaves out of what is signed"
            ),
        ),
    }
}

#[cfg(test)]
mod tests;
