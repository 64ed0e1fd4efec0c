//! Arguments that several commands share, and what they mean.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use attestation_verifier::dates::parse_rfc3339;
use attestation_verifier::exchange::OwnedTensor;
use attestation_verifier::manifest::{Accepted, MAX_FILE};
use attestation_verifier::{At, Manifests, Policy, Roots, Verdict, Verifier};
use touchstone_formats::limits::MAX_BUNDLE;
use touchstone_formats::{CollateralFile, GuaranteeSet};

use crate::commands::check::Judging;
use crate::commands::manifest::State;
use crate::files::{Disk, Source};
use crate::output::Failure;
use crate::{files, npy};

/// `NAME=FILE.npy`.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedFile {
    /// The tensor's name.
    pub name: String,
    /// The file its data is in.
    pub path: PathBuf,
}

/// Reads `NAME=FILE.npy`.
pub fn named_file(text: &str) -> Result<NamedFile, String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(NamedFile {
            name: name.to_owned(),
            path: path.into(),
        }),
        _ => Err("expected NAME=FILE.npy".into()),
    }
}

/// Reads the tensors that `NAME=FILE.npy` arguments name; each name once.
pub fn tensors(named: &[NamedFile]) -> Result<Vec<OwnedTensor>> {
    tensors_from(&Disk, named)
}

/// As [`tensors`], from another source than the disk.
pub fn tensors_from(source: &dyn Source, named: &[NamedFile]) -> Result<Vec<OwnedTensor>> {
    let mut tensors: Vec<OwnedTensor> = Vec::with_capacity(named.len());
    for NamedFile { name, path } in named {
        if tensors.iter().any(|t| t.name == *name) {
            return Err(anyhow!("tensor {name:?} is given twice"));
        }
        let file = source.read(path, "tensor", files::MAX_BODY)?;
        let tensor = npy::parse(name, &file);
        tensors.push(tensor.with_context(|| format!("tensor {name:?}, {}", path.display()))?);
    }
    Ok(tensors)
}

/// Bytes in hex, in either case.
#[derive(Clone, Debug, PartialEq)]
pub struct Hex(pub Vec<u8>);

/// Reads hex of any length.
pub fn hex_bytes(text: &str) -> Result<Hex, String> {
    hex::decode(text)
        .map(Hex)
        .map_err(|e| format!("expected hex digits: {e}"))
}

/// Reads the 64 bytes of REPORT_DATA.
pub fn report_data(text: &str) -> Result<[u8; 64], String> {
    let bytes = hex_bytes(text)?.0;
    let found = bytes.len();
    bytes
        .try_into()
        .map_err(|_| format!("expected 64 bytes (128 hex digits), found {found}"))
}

/// Reads a set of guarantees: names with spaces or commas between, in any order.
pub fn guarantees(text: &str) -> Result<GuaranteeSet, String> {
    let words: Vec<&str> = text
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|w| !w.is_empty())
        .collect();
    GuaranteeSet::parse_words(&words.join(" ")).map_err(|e| {
        format!("{e}; expected names out of logged, quoted, signed (recomputed, proven)")
    })
}

/// Reads an RFC 3339 time as unix seconds.
pub fn time(text: &str) -> Result<u64, String> {
    parse_rfc3339(text).ok_or_else(|| {
        "expected an RFC 3339 time in whole seconds, such as 2026-11-20T00:00:00Z".into()
    })
}

/// The time to judge at: the caller's word, or this machine's clock.
pub fn at(asserted: Option<u64>) -> Result<At> {
    Ok(match asserted {
        Some(time) => At {
            time,
            asserted: true,
        },
        None => At {
            time: now()?,
            asserted: false,
        },
    })
}

/// Unix seconds on this machine's clock.
pub fn now() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(since
        .context("this machine's clock is before 1970")?
        .as_secs())
}

/// Manifests to judge by.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ManifestFiles {
    /// Manifest, where the policy expects what one lists; repeat for each: the highest version that counts is used
    #[arg(long, value_name = "FILE")]
    manifest: Vec<PathBuf>,
    /// File that remembers accepted manifests: refuses older ones, is made at first use and raised whenever one counts now
    #[arg(long, value_name = "FILE")]
    manifest_state: Option<PathBuf>,
}

/// Manifests of one judgement: more than are ever needed to go from one to the next.
const MAX_MANIFESTS: usize = 64;

impl ManifestFiles {
    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.manifest.is_empty() && self.manifest_state.is_none()
    }

    /// The file that remembers accepted manifests.
    pub fn state(&self) -> Option<&Path> {
        self.manifest_state.as_deref()
    }

    /// Reads them, for this policy.
    pub fn read(&self, policy: &Policy) -> Result<Manifests, Failure> {
        if policy.manifest.is_none() && !self.is_empty() {
            let error = "the policy has no [manifest]: it expects nothing of --manifest and --manifest-state";
            return Err(anyhow!(error).into());
        }
        if self.manifest.len() > MAX_MANIFESTS {
            return Err(anyhow!("--manifest: {MAX_MANIFESTS} at most").into());
        }
        // One byte more than a manifest can have is read, so that one that is too long is seen to be.
        let files = self.manifest.iter();
        let files = files.map(|path| files::read_prefix(path, "manifest", MAX_FILE as u64));
        Ok(Manifests {
            files: files.collect::<Result<_>>()?,
            known: match &self.manifest_state {
                None => Accepted::default(),
                Some(path) => State::open(path)?.accepted,
            },
        })
    }

    /// Remembers the manifest that something was judged by, whatever came of it: it was authentic and in force. What is judged as
    /// of another time leaves no trace.
    pub fn remember(&self, verdict: &Verdict) -> Result<(), Failure> {
        let asserted = verdict.at.is_none_or(|at| at.asserted);
        let (Some(path), Some(manifest), false) =
            (&self.manifest_state, &verdict.context.manifest, asserted)
        else {
            return Ok(());
        };
        let mut state = State::open(path)?;
        let raised = state.accepted.accept(manifest);
        if raised.with_context(|| format!("state {}", path.display()))? {
            state.write()?;
        }
        Ok(())
    }
}

/// What things are judged by, the time aside.
pub struct Basis {
    /// The policy.
    pub policy: Policy,
    /// The pinned roots, and the caller's.
    pub roots: Roots,
    /// The caller's manifests.
    pub manifests: Manifests,
}

impl Basis {
    /// Reads a policy and what belongs to it.
    pub fn read(policy_file: &Path, judging: &Judging) -> Result<Basis, Failure> {
        let policy = policy(policy_file)?;
        Ok(Basis {
            manifests: judging.manifests.read(&policy)?,
            roots: roots(judging.trust_simulated_root.as_deref())?,
            policy,
        })
    }

    /// A verifier that has judged nothing yet.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.policy.clone(), self.roots.clone()).with_manifests(&self.manifests)
    }
}

/// Reads a policy.
pub fn policy(path: &Path) -> Result<Policy, Failure> {
    let text = files::read_text(path, "policy", files::MAX_TEXT)
        .map_err(|error| Failure::unfit("policy.file", error))?;
    Policy::parse(&text).map_err(|error| {
        Failure::unfit("policy.file", anyhow!("policy {}: {error}", path.display()))
    })
}

/// The pinned roots, and the caller's.
pub fn roots(simulated: Option<&Path>) -> Result<Roots, Failure> {
    let Some(path) = simulated else {
        return Ok(Roots::pinned());
    };
    let unfit = |error| Failure::unfit("root.simulated", error);
    let pem = files::read(path, "simulated root", files::MAX_TEXT).map_err(unfit)?;
    Roots::pinned()
        .with_simulated_pem(&pem)
        .map_err(|error| unfit(anyhow!("simulated root {}: {error}", path.display())))
}

/// Collateral of the caller's own, to judge a connection by.
pub fn collateral(path: &Path) -> Result<CollateralFile, Failure> {
    let file = files::read_prefix(path, "collateral", MAX_BUNDLE as u64)?;
    CollateralFile::parse(&file).map_err(|error| {
        Failure::malformed("collateral.format", anyhow!("{}: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_say_what_they_expect() {
        assert_eq!(named_file("x=a=b.npy").unwrap().path, Path::new("a=b.npy"));
        for bad in ["x", "=a.npy", "x="] {
            assert!(named_file(bad).unwrap_err().contains("NAME=FILE.npy"));
        }
        assert_eq!(
            guarantees("signed, logged").unwrap(),
            GuaranteeSet::default_set()
        );
        assert!(guarantees("legged").unwrap_err().contains("expected names"));
        assert!(guarantees("").is_err());
        assert!(report_data("00").unwrap_err().contains("found 1"));
        assert_eq!(report_data(&"AB".repeat(64)).unwrap(), [0xab; 64]);
        assert!(time("yesterday").unwrap_err().contains("RFC 3339"));
    }
}
