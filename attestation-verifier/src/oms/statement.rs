//! The in-toto statement of OpenSSF Model Signing v1.0: which files, by which digests.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;
use touchstone_formats::Digest;

use super::MAX_BYTES;
use crate::parse::json;

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";

/// Why a payload is no list of files.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum StatementError {
    /// Not such a statement, or one that contradicts itself.
    #[error("not a statement of OpenSSF Model Signing: {0}")]
    Form(String),
    /// A list that this version cannot compare with files.
    #[error("{what} is {found:?}, which is not supported in this version; sign with {expected:?}")]
    Unsupported {
        what: &'static str,
        found: String,
        expected: &'static str,
    },
}

/// What was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    /// SHA-256 of each file, by its path below the model's folder.
    pub files: BTreeMap<String, Digest>,
    /// Paths that the signer left out, with everything below them.
    ignored: Vec<String>,
}

impl Signed {
    /// Whether the signer left this path out.
    pub fn ignores(&self, name: &str) -> bool {
        self.ignored.iter().any(|path| {
            let path = path.trim_end_matches('/');
            let below = |rest: &str| rest.is_empty() || rest.starts_with('/');
            path == "." || name.strip_prefix(path).is_some_and(below)
        })
    }
}

/// Members beside these are to be ignored, says the specification of version 1.0.
#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    subject: Vec<Subject>,
    predicate: serde_json::Value,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

/// Reads a statement whose signature holds.
pub(super) fn read(payload: &[u8]) -> Result<Signed, StatementError> {
    let form = |what: &str| StatementError::Form(what.to_owned());
    let text = std::str::from_utf8(payload).map_err(|_| form("not UTF-8"))?;
    let statement: Statement =
        json::read_within(text, MAX_BYTES).map_err(|error| form(&error.to_string()))?;
    if statement.kind != STATEMENT {
        return Err(form("_type is another"));
    }
    supported("predicateType", &statement.predicate_type, PREDICATE)?;
    let predicate: Predicate = serde_json::from_value(statement.predicate)
        .map_err(|error| StatementError::Form(json::JsonError::new(error).to_string()))?;
    let how = predicate.serialization;
    supported("serialization.method", &how.method, "files")?;
    supported("serialization.hash_type", &how.hash_type, "sha256")?;

    let (mut files, mut digests) = (BTreeMap::new(), Vec::new());
    for Resource {
        name,
        algorithm,
        digest,
    } in predicate.resources
    {
        supported("resources.algorithm", &algorithm, "sha256")?;
        let digest = Digest::from_hex(&digest).map_err(|_| form("a digest is no SHA-256"))?;
        digests.push(digest);
        if files.insert(name, digest).is_some() {
            return Err(form("a file is listed twice"));
        }
    }
    let [subject] = statement.subject.as_slice() else {
        return Err(form("not exactly one subject"));
    };
    let parts: Vec<&[u8]> = digests.iter().map(AsRef::as_ref).collect();
    let root = Digest::of_parts(&parts).to_string();
    if subject.digest.get("sha256") != Some(&root) {
        return Err(form("the subject's digest is not that of the files listed"));
    }
    Ok(Signed {
        files,
        ignored: how.ignore_paths,
    })
}

fn supported(
    what: &'static str,
    found: &str,
    expected: &'static str,
) -> Result<(), StatementError> {
    if found == expected {
        return Ok(());
    }
    let found = found.chars().take(80).collect();
    Err(StatementError::Unsupported {
        what,
        found,
        expected,
    })
}
