//! The signed text: an in-toto Statement v1 whose predicate is a manifest.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use touchstone_formats::{Digest, jcs};

use super::error::{ManifestError, Result, at_most};
use super::types::{Manifest, Model, Release, moment};
use super::{MAX_FILE, MAX_PAYLOAD, check, json};

/// `_type` of the statement (in-toto attestation framework v1, Statement).
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of the statement.
pub const PREDICATE_TYPE: &str = "https://touchstone.invalid/manifest/v1";
/// `v` of the predicate.
const VERSION: &str = "touchstone/manifest/1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatementWire {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: DigestSet,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestSet {
    sha256: Digest,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicate {
    v: String,
    name: String,
    version: u64,
    #[serde(with = "moment")]
    issued: u64,
    #[serde(with = "moment")]
    not_after: u64,
    releases: Vec<Release>,
    models: Vec<Model>,
}

/// A manifest and the bytes that are signed for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    manifest: Manifest,
    payload: Vec<u8>,
}

impl Statement {
    /// What is signed for this manifest: the same bytes whoever makes them, and whenever.
    ///
    /// # Errors
    /// A manifest that breaks a rule of the format.
    pub fn new(manifest: Manifest) -> Result<Statement> {
        check::manifest(&manifest)?;
        let wire = StatementWire {
            kind: STATEMENT_TYPE.into(),
            subject: subjects(&manifest),
            predicate_type: PREDICATE_TYPE.into(),
            predicate: Predicate::of(&manifest),
        };
        let refuse = |error| ManifestError::json("statement", error);
        let payload = jcs::to_vec(&wire).map_err(refuse)?;
        at_most("statement, bytes", payload.len(), MAX_PAYLOAD)?;
        Ok(Statement { manifest, payload })
    }

    /// Reads the payload of an envelope.
    ///
    /// # Errors
    /// Anything but the canonical JSON of a statement that says of a manifest what the format allows, with the subjects that
    /// its predicate has.
    pub fn parse(payload: &[u8]) -> Result<Statement> {
        let wire: StatementWire = json::read_canonical("statement", MAX_PAYLOAD, payload)?;
        is("_type", &wire.kind, STATEMENT_TYPE)?;
        is("predicateType", &wire.predicate_type, PREDICATE_TYPE)?;
        let manifest = wire.predicate.manifest()?;
        if wire.subject != subjects(&manifest) {
            let expected = "every ingredient and model of the predicate, name and digest, each pair once, in order";
            return Err(ManifestError::value("subject", "others", expected));
        }
        Ok(Statement {
            manifest,
            payload: payload.to_vec(),
        })
    }

    /// What it says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes that are signed, without DSSE's encoding around them.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// SHA-256 of [`Self::payload`]: what identifies a manifest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.payload)
    }
}

impl Manifest {
    /// Reads a draft: the predicate alone, white space at will.
    ///
    /// # Errors
    /// What is no manifest.
    pub fn parse_draft(text: &[u8]) -> Result<Manifest> {
        let wire: Predicate = json::read("draft", MAX_FILE, text)?;
        wire.manifest()
    }

    /// The draft of this manifest: JSON for people, the same text every time.
    ///
    /// # Errors
    /// A manifest that breaks a rule of the format.
    pub fn to_draft(&self) -> Result<String> {
        check::manifest(self)?;
        let text = serde_json::to_string_pretty(&Predicate::of(self));
        let text = text.map_err(|error| ManifestError::json("draft", error))?;
        Ok(text + "\n")
    }
}

impl Predicate {
    fn of(manifest: &Manifest) -> Predicate {
        Predicate {
            v: VERSION.into(),
            name: manifest.name.clone(),
            version: manifest.version,
            issued: manifest.issued,
            not_after: manifest.not_after,
            releases: manifest.releases.clone(),
            models: manifest.models.clone(),
        }
    }

    fn manifest(self) -> Result<Manifest> {
        is("predicate.v", &self.v, VERSION)?;
        let manifest = Manifest {
            name: self.name,
            version: self.version,
            issued: self.issued,
            not_after: self.not_after,
            releases: self.releases,
            models: self.models,
        };
        check::manifest(&manifest)?;
        Ok(manifest)
    }
}

/// Subjects follow from the predicate: pairs of name and digest, sorted by name, then by digest.
fn subjects(manifest: &Manifest) -> Vec<Subject> {
    let platforms = manifest.releases.iter().flat_map(|r| &r.platforms);
    let ingredients = platforms
        .flat_map(|platform| &platform.ingredients)
        .map(|ingredient| (&ingredient.name, ingredient.sha256));
    let models = manifest.models.iter();
    let pairs = ingredients.chain(models.map(|model| (&model.name, model.model_digest)));
    let pairs: BTreeSet<Subject> = pairs
        .map(|(name, sha256)| Subject {
            name: name.clone(),
            digest: DigestSet { sha256 },
        })
        .collect();
    pairs.into_iter().collect()
}

pub(super) fn is(field: &str, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(ManifestError::value(field, found, format!("{expected:?}")))
}
