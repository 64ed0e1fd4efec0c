//! From a file that is well written to a manifest that somebody stands for.

use touchstone_formats::Digest;

use super::bundle::SignedFile;
use super::dsse::{pae, verify};
use super::keys::Signers;
use super::statement::Statement;
use super::types::Manifest;
use super::{CLOCK_SKEW, ManifestError};
use crate::dates::rfc3339;
use crate::verdict::Fault;

/// A manifest that as many of the caller's signers signed as he demands. Nothing but
/// [`SignedFile::authenticate`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentic {
    statement: Statement,
    signed_by: Vec<String>,
    threshold: usize,
    signers: usize,
    unknown: usize,
}

/// Why a manifest is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthentic {
    /// It is none (exit 2).
    #[error(transparent)]
    Malformed(#[from] ManifestError),
    /// A line says that a signer's key signed it, and that key did not (exit 3).
    #[error(
        "line {line}: the signature is said to be {signer}'s and is not: somebody changed the manifest or the line"
    )]
    Signature {
        /// The line, from 1.
        line: usize,
        /// Whose it is said to be.
        signer: String,
    },
    /// None of the caller's signers signed it (exit 3).
    #[error("none of the {lines} signatures is by a signer that you named")]
    Nobody {
        /// How many signatures there are.
        lines: usize,
    },
    /// Too few of them did (exit 4).
    #[error("signed by {} of {signers} signers ({}), and {threshold} are demanded", signed_by.len(), signed_by.join(", "))]
    BelowThreshold {
        /// Who did, in the caller's order.
        signed_by: Vec<String>,
        /// How many are demanded.
        threshold: usize,
        /// How many signers the caller named.
        signers: usize,
    },
}

impl NotAuthentic {
    /// The check that this is reported under.
    pub fn id(&self) -> &'static str {
        match self {
            NotAuthentic::Malformed(_) => "manifest.format",
            NotAuthentic::Signature { .. } | NotAuthentic::Nobody { .. } => "manifest.signature",
            NotAuthentic::BelowThreshold { .. } => "manifest.threshold",
        }
    }

    /// What it means for whatever the manifest was to decide.
    pub fn fault(&self) -> Fault {
        match self {
            NotAuthentic::Malformed(_) => Fault::Malformed,
            NotAuthentic::Signature { .. } | NotAuthentic::Nobody { .. } => Fault::NotAuthentic,
            NotAuthentic::BelowThreshold { .. } => Fault::Policy,
        }
    }

    /// The exit code: 2, 3 or 4.
    pub fn exit(&self) -> u8 {
        self.fault().exit()
    }
}

/// Why a manifest does not count at a time (exit 5).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It was made after the time of judgement, by more than clocks differ.
    #[error("it was issued on {}, after the time of judgement, {}", rfc3339(*issued), rfc3339(*at))]
    NotYet {
        /// Unix seconds.
        issued: u64,
        /// Unix seconds.
        at: u64,
    },
    /// It has ended.
    #[error("it ended on {}, before the time of judgement, {}", rfc3339(*not_after), rfc3339(*at))]
    Ended {
        /// Unix seconds.
        not_after: u64,
        /// Unix seconds.
        at: u64,
    },
}

impl SignedFile {
    /// Believes a manifest that enough of these signers signed.
    ///
    /// A line whose `hint` is no named signer's id is somebody else's and says nothing. All lines of one key count once,
    /// and each of them has to verify.
    ///
    /// # Errors
    /// [`NotAuthentic`], all but `Malformed`.
    pub fn authenticate(self, signers: &Signers) -> Result<Authentic, NotAuthentic> {
        let ids: Vec<String> = signers.keys().iter().map(|s| s.key.id()).collect();
        let message = pae(self.statement().payload());
        let mut signed = vec![false; ids.len()];
        let mut unknown = 0_usize;
        for (index, line) in self.lines().iter().enumerate() {
            let named = signers.keys().iter().zip(&ids).zip(&mut signed);
            let named = named
                .filter(|((_, id), _)| **id == line.hint)
                .map(|((signer, _), signed)| (signer, signed))
                .next();
            let Some((signer, signed)) = named else {
                unknown = unknown.saturating_add(1);
                continue;
            };
            if !verify(&signer.key, &message, &line.signature) {
                return Err(NotAuthentic::Signature {
                    line: index.saturating_add(1),
                    signer: signer.name.clone(),
                });
            }
            *signed = true;
        }
        let signed_by = signers.keys().iter().zip(&signed);
        let signed_by: Vec<String> = signed_by
            .filter(|(_, signed)| **signed)
            .map(|(signer, _)| signer.name.clone())
            .collect();
        if signed_by.is_empty() {
            return Err(NotAuthentic::Nobody {
                lines: self.lines().len(),
            });
        }
        if signed_by.len() < signers.threshold() {
            return Err(NotAuthentic::BelowThreshold {
                signed_by,
                threshold: signers.threshold(),
                signers: ids.len(),
            });
        }
        Ok(Authentic {
            statement: self.into_statement(),
            signed_by,
            threshold: signers.threshold(),
            signers: ids.len(),
            unknown,
        })
    }
}

impl Authentic {
    /// Reads a manifest file and believes it if enough of these signers signed it.
    ///
    /// # Errors
    /// As [`SignedFile::parse`] and [`SignedFile::authenticate`].
    pub fn read(file: &[u8], signers: &Signers) -> Result<Authentic, NotAuthentic> {
        SignedFile::parse(file)?.authenticate(signers)
    }

    /// What they signed.
    pub fn manifest(&self) -> &Manifest {
        self.statement.manifest()
    }

    /// SHA-256 of what they signed.
    pub fn digest(&self) -> Digest {
        self.statement.digest()
    }

    /// Which of the caller's signers did, in his order.
    pub fn signed_by(&self) -> &[String] {
        &self.signed_by
    }

    /// How many had to.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// How many signers the caller named.
    pub fn signers(&self) -> usize {
        self.signers
    }

    /// How many signatures are by keys that the caller did not name, and so say nothing.
    pub fn unknown(&self) -> usize {
        self.unknown
    }

    /// Whether it counts at this time (unix seconds). Releases end by themselves: [`super::Release::ended`].
    ///
    /// # Errors
    /// Issued more than [`CLOCK_SKEW`] later, or ended.
    pub fn validity(&self, at: u64) -> Result<(), Invalid> {
        let Manifest {
            issued, not_after, ..
        } = *self.manifest();
        if issued > at.saturating_add(CLOCK_SKEW) {
            return Err(Invalid::NotYet { issued, at });
        }
        if at > not_after {
            return Err(Invalid::Ended { not_after, at });
        }
        Ok(())
    }
}
