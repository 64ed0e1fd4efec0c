//! What the enclave hands over, read and made ready to be stored.
//!
//! The host does not verify: that is the work of whoever relies on a receipt. It reads enough to find
//! things again, and refuses what it could not serve later.

use thiserror::Error;
use touchstone_formats::{
    Digest, Evidence, FormatError, GuaranteeSet, Purpose, Receipt, SignedNote,
    control::{Batch, KeysetEntry, KeysetState, SealedReceipt},
    jcs,
};

use super::pack::Sealed;
use crate::pending::Id;

/// Why something that the enclave handed over cannot be stored.
#[derive(Debug, Error)]
pub enum BatchError {
    /// Not as formats.md says.
    #[error("{what}: {}", without_value(.error))]
    Format {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        error: FormatError,
    },
    /// A part does not go with another.
    #[error("{what}: found {found}, expected {expected}")]
    Mismatch {
        /// Which part.
        what: &'static str,
        /// What was found.
        found: String,
        /// What is expected.
        expected: String,
    },
}

/// What is wrong, for the log: without what was found, which may be anything that is in a receipt.
fn without_value(error: &FormatError) -> String {
    match error {
        FormatError::TooLong { .. } => error.to_string(),
        FormatError::Value { expected, .. } => format!("{} is not {expected}", error.field()),
        FormatError::Syntax {
            offset, expected, ..
        } => format!("{}: byte {offset} is not {expected}", error.field()),
        _ => format!("{} is not as it should be", error.field()),
    }
}

fn format(what: &'static str) -> impl Fn(FormatError) -> BatchError {
    move |error| BatchError::Format { what, error }
}

/// A keyset with its boot evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadKeyset {
    /// Digest of `jcs`.
    pub digest: Digest,
    /// The keyset.
    pub jcs: String,
    /// Of purpose boot; canonical JSON.
    pub evidence: String,
    /// Whether its log has ended.
    pub closed: bool,
}

impl ReadKeyset {
    /// Reads one entry of `GET /control/v1/keysets`.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn read(entry: &KeysetEntry) -> Result<Self, BatchError> {
        let jcs = entry.keyset.to_jcs();
        Ok(Self {
            digest: Digest::of(&jcs),
            jcs: text(jcs),
            evidence: evidence(&entry.evidence, Purpose::Boot)?,
            closed: entry.state == KeysetState::Closed,
        })
    }
}

/// A receipt with what it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadReceipt {
    /// Claim `cti`.
    pub id: Id,
    /// Claim -65545.
    pub sequence: u64,
    /// What it states.
    pub guarantees: GuaranteeSet,
    /// What answered, if it says so: digests of the model's files and of its configuration.
    pub model: Option<(Digest, Digest)>,
    /// 0, or the HTTP status of a refusal.
    pub status: u16,
    /// The bytes and their place in the log.
    pub sealed: Sealed,
}

/// Checkpoint and quote of a seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Size of the tree.
    pub size: u64,
    /// Its root.
    pub root: Digest,
    /// The signed note.
    pub note: String,
    /// Of purpose checkpoint; canonical JSON.
    pub evidence: String,
}

/// A receipt that is had before its seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsealed {
    /// Claim `cti`.
    pub id: Id,
    /// The parsed bytes.
    pub receipt: Box<Receipt>,
}

impl Unsealed {
    /// Reads COSE bytes that the enclave gave for an id.
    ///
    /// # Errors
    /// [`BatchError`]; another receipt than the one asked for.
    pub fn read(id: Id, cose: &[u8]) -> Result<Self, BatchError> {
        let receipt = Receipt::parse(cose).map_err(format("receipt"))?;
        if receipt.claims.cti != id {
            return Err(BatchError::Mismatch {
                what: "receipt id",
                found: "another".into(),
                expected: "the one asked for".into(),
            });
        }
        Ok(Self {
            id,
            receipt: Box::new(receipt),
        })
    }
}

/// One batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBatch {
    /// Its number under this boot.
    pub number: u64,
    /// The keyset whose log was sealed.
    pub keyset: Digest,
    /// Checkpoint and quote; none in a batch of quotes alone.
    pub seal: Option<Seal>,
    /// Catalogs with their digests.
    pub catalogs: Vec<(Digest, String)>,
    /// Receipts in the order of the log.
    pub receipts: Vec<ReadReceipt>,
    /// Quotes of single receipts; canonical JSON.
    pub quotes: Vec<(Id, String)>,
    /// Quoted receipts that are in no batch yet.
    pub unsealed: Vec<Unsealed>,
    /// Whether the log ended with this seal.
    pub closed: bool,
}

impl ReadBatch {
    /// Reads a batch.
    ///
    /// # Errors
    /// [`BatchError`]: a batch that could not be served is not acknowledged.
    pub fn read(batch: Batch) -> Result<Self, BatchError> {
        let keyset = batch.keyset_digest;
        let seal = match (batch.checkpoint, batch.evidence) {
            (Some(note), Some(quote)) => {
                let checkpoint = SignedNote::parse(&note)
                    .and_then(|note| note.checkpoint())
                    .map_err(format("checkpoint"))?;
                Some(Seal {
                    size: checkpoint.size,
                    root: checkpoint.root,
                    note,
                    evidence: evidence(&quote, Purpose::Checkpoint)?,
                })
            }
            (None, None) if batch.receipts.is_empty() => None,
            (note, quote) => {
                return Err(BatchError::Mismatch {
                    what: "batch",
                    found: format!(
                        "{} receipts, checkpoint: {}, evidence: {}",
                        batch.receipts.len(),
                        note.is_some(),
                        quote.is_some()
                    ),
                    expected: "receipts with a checkpoint and its evidence, or none of the three"
                        .into(),
                });
            }
        };
        let catalogs = batch
            .catalogs
            .iter()
            .map(|catalog| {
                let jcs = catalog.to_jcs();
                (Digest::of(&jcs), text(jcs))
            })
            .collect();
        let receipts = batch
            .receipts
            .into_iter()
            .map(|receipt| read_receipt(receipt, keyset))
            .collect::<Result<_, _>>()?;
        let quotes = batch
            .quotes
            .iter()
            .map(|quote| Ok((quote.id.0, evidence(&quote.evidence, Purpose::Receipt)?)))
            .collect::<Result<_, BatchError>>()?;
        Ok(Self {
            number: batch.number,
            keyset,
            seal,
            catalogs,
            receipts,
            quotes,
            unsealed: Vec::new(),
            closed: batch.closed,
        })
    }
}

fn read_receipt(sealed: SealedReceipt, keyset: Digest) -> Result<ReadReceipt, BatchError> {
    let cose = sealed.receipt.0;
    let claims = Receipt::parse(&cose).map_err(format("receipt"))?.claims;
    if claims.keyset_digest != keyset {
        return Err(BatchError::Mismatch {
            what: "keyset of receipt",
            found: "another".into(),
            expected: "the keyset of its batch".into(),
        });
    }
    let proof = sealed.proof.into_iter().map(|hash| hash.0).collect();
    Ok(ReadReceipt {
        id: claims.cti,
        sequence: claims.sequence,
        guarantees: claims.guarantees,
        model: claims.model_digest.zip(claims.config_digest),
        status: claims.status,
        sealed: Sealed {
            index: sealed.index,
            proof,
            cose,
        },
    })
}

/// Canonical JSON of evidence, without collateral: that is attached when it is served.
fn evidence(evidence: &Evidence, purpose: Purpose) -> Result<String, BatchError> {
    if evidence.purpose != Some(purpose) {
        return Err(BatchError::Mismatch {
            what: "purpose of evidence",
            found: evidence
                .purpose
                .map_or_else(|| "null".to_owned(), |found| found.name().to_owned()),
            expected: purpose.name().to_owned(),
        });
    }
    let bare = Evidence {
        collateral: None,
        ..evidence.clone()
    };
    jcs::to_vec(&bare).map(text).map_err(format("evidence"))
}

/// Canonical JSON is UTF-8.
fn text(jcs: Vec<u8>) -> String {
    String::from_utf8(jcs).unwrap_or_default()
}
