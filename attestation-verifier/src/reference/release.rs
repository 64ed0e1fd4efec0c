//! What a verdict says of a release and a model: the manifest's words.

use serde_json::{Value, json};
use touchstone_formats::Digest;

use super::Ruling;
use crate::dates::rfc3339;
use crate::manifest::{Authentic, Entry};

/// The verdict's `release`. Without an entry it says which manifest was judged by, and no more.
pub(crate) fn object(authentic: &Authentic, entry: Option<Entry<'_>>) -> Value {
    let manifest = authentic.manifest();
    let end = entry.map_or(manifest.not_after, |entry| {
        entry.release.not_after.min(manifest.not_after)
    });
    let ingredients = entry.iter().flat_map(|entry| &entry.platform.ingredients);
    let ingredients: Vec<Value> = ingredients
        .map(|i| json!({ "role": i.role, "name": i.name, "sha256": i.sha256, "origin": i.origin }))
        .collect();
    json!({
        "manifest": manifest.name,
        "version": manifest.version,
        "sha256": authentic.digest(),
        "release": entry.map(|entry| &entry.release.release),
        "platform": entry.map(|entry| &entry.platform.name),
        "os_binding": entry.map(|entry| entry.platform.os_binding),
        "signed_by": authentic.signed_by(),
        "threshold": authentic.threshold(),
        "signers": authentic.signers(),
        "not_after": rfc3339(end),
        "ingredients": ingredients,
    })
}

/// Adds to a verdict's `model` what the manifest calls it.
pub(crate) fn model_names(ruling: Option<&Ruling>, digest: Option<Digest>, model: &mut Value) {
    let manifest = ruling.and_then(|ruling| ruling.manifest().ok());
    let found = manifest
        .zip(digest)
        .and_then(|(m, digest)| m.model(&digest));
    if let (Some(found), Value::Object(model)) = (found, model) {
        model.insert("name".into(), json!(found.name));
        model.insert("version".into(), json!(found.version));
    }
}

/// `enclave 1.4.2 (signed by 2 of 3), model fraud-score version 3`, and what of it nobody rebuilt. None where a verdict has no
/// release.
pub(crate) fn software_words(release: &Value, model: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if release.is_null() {
        return Vec::new();
    }
    let signed = release["signed_by"].as_array().map_or(0, Vec::len);
    let signed = format!("(signed by {signed} of {})", release["signers"]);
    let mut line = match release["release"].as_str() {
        Some(name) => format!("software: enclave {name} {signed}"),
        None => format!("software: manifest {} {signed}", text(&release["manifest"])),
    };
    if let (Some(name), Some(version)) = (model["name"].as_str(), model["version"].as_str()) {
        line += &format!(", model {name} version {version}");
    }
    let ingredients = release["ingredients"].as_array();
    let pinned: Vec<String> = ingredients
        .into_iter()
        .flatten()
        .filter(|i| i["origin"] == "pinned-binary")
        .map(|i| format!("{} ({})", text(&i["role"]), text(&i["name"])))
        .collect();
    let mut lines = vec![line];
    if !pinned.is_empty() {
        lines.push(format!(
            "pinned as a binary, rebuilt by nobody: {}",
            pinned.join(", ")
        ));
    }
    lines
}
