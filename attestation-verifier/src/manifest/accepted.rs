//! Which versions were accepted already: what keeps somebody from being shown an older manifest.

use serde::{Deserialize, Serialize};
use touchstone_formats::limits::MAX_INTEGER;
use touchstone_formats::{Digest, jcs};

use super::authentic::Authentic;
use super::error::{ManifestError, at_most};
use super::statement::is;
use super::{MAX_FILE, check, json};

/// Most names that are kept.
const MAX_NAMES: usize = 1024;
const VERSION: &str = "touchstone/manifest-state/1";

/// The highest version accepted of each manifest, by name.
///
/// The digest is kept beside it: of one version there is one manifest, and signers who sign two are found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Sorted by name.
    manifests: Vec<Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    name: String,
    sha256: Digest,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: String,
    manifests: Vec<Seen>,
}

/// Why a manifest is refused for what was accepted before (exit 4, check `manifest.version`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rollback {
    /// An older one.
    #[error(
        "version {found} of {name} is older than version {accepted}, which was accepted already"
    )]
    Older {
        /// The manifest's name.
        name: String,
        /// Its version.
        found: u64,
        /// The highest accepted.
        accepted: u64,
    },
    /// Another one of the same version.
    #[error(
        "version {version} of {name} was accepted already with other content ({accepted}); this is {found}: its signers signed two"
    )]
    Other {
        /// The manifest's name.
        name: String,
        /// Its version.
        version: u64,
        /// SHA-256 of this one.
        found: Digest,
        /// SHA-256 of the one that was accepted.
        accepted: Digest,
    },
}

/// Why what was accepted is not known: never the same as "nothing" (exit 1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The file is damaged, or none of ours.
    #[error("{0}")]
    Malformed(#[from] ManifestError),
    /// There are too many names in it.
    #[error("it has {MAX_NAMES} names already")]
    Full,
}

impl Accepted {
    /// Reads a state file.
    ///
    /// # Errors
    /// Anything that [`Self::to_file`] does not write.
    pub fn parse(file: &[u8]) -> Result<Accepted, StateError> {
        at_most("state, bytes", file.len(), MAX_FILE)?;
        let Some(text) = file.strip_suffix(b"\n") else {
            let expected = "one newline at the end";
            return Err(ManifestError::value("state", "none", expected).into());
        };
        let wire: Wire = json::read_canonical("state", MAX_FILE, text)?;
        is("v", &wire.v, VERSION)?;
        at_most("state, names", wire.manifests.len(), MAX_NAMES)?;
        for seen in &wire.manifests {
            check::name("name", &seen.name)?;
            if !(1..=MAX_INTEGER).contains(&seen.version) {
                let found = seen.version.to_string();
                return Err(ManifestError::value("version", found, "1 to 2^53−1").into());
            }
        }
        let pairs = wire.manifests.iter().zip(wire.manifests.iter().skip(1));
        if let Some((_, second)) = pairs.into_iter().find(|(a, b)| a.name >= b.name) {
            let expected = "names in order, each once";
            return Err(ManifestError::value("name", &second.name, expected).into());
        }
        Ok(Accepted {
            manifests: wire.manifests,
        })
    }

    /// The file.
    ///
    /// # Errors
    /// None that can be reached: everything in it was read or accepted.
    pub fn to_file(&self) -> Result<Vec<u8>, StateError> {
        let wire = Wire {
            v: VERSION.into(),
            manifests: self.manifests.clone(),
        };
        let written = jcs::to_file(&wire);
        Ok(written.map_err(|error| ManifestError::json("state", error))?)
    }

    /// The highest version accepted under this name.
    pub fn version(&self, name: &str) -> Option<u64> {
        self.place(name)
            .ok()
            .and_then(|place| self.manifests.get(place))
            .map(|seen| seen.version)
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.manifests
            .binary_search_by(|seen| seen.name.as_str().cmp(name))
    }

    /// Whether this manifest may follow what was accepted. Changes nothing: what is wrong with it otherwise has to be known
    /// before it is [accepted](Self::accept).
    ///
    /// # Errors
    /// A version below the highest, or another manifest of the same version.
    pub fn check(&self, found: &Authentic) -> Result<(), Rollback> {
        let manifest = found.manifest();
        let place = self.place(&manifest.name);
        let Some(seen) = place.ok().and_then(|place| self.manifests.get(place)) else {
            return Ok(());
        };
        if manifest.version < seen.version {
            return Err(Rollback::Older {
                name: manifest.name.clone(),
                found: manifest.version,
                accepted: seen.version,
            });
        }
        if manifest.version == seen.version && found.digest() != seen.sha256 {
            return Err(Rollback::Other {
                name: manifest.name.clone(),
                version: manifest.version,
                found: found.digest(),
                accepted: seen.sha256,
            });
        }
        Ok(())
    }

    /// Accepts a manifest that [`Self::check`] has nothing against. Says whether that changed anything.
    ///
    /// # Errors
    /// No room for another name. What `check` refuses changes nothing.
    pub fn accept(&mut self, found: &Authentic) -> Result<bool, StateError> {
        if self.check(found).is_err() {
            return Ok(false);
        }
        let manifest = found.manifest();
        self.raise(Seen {
            name: manifest.name.clone(),
            sha256: found.digest(),
            version: manifest.version,
        })
    }

    /// Takes over what another remembers: of each name the higher version. Says whether that changed anything.
    ///
    /// # Errors
    /// No room for another name; some may have been taken over.
    pub fn merge(&mut self, other: &Accepted) -> Result<bool, StateError> {
        let mut changed = false;
        for seen in &other.manifests {
            changed |= self.raise(seen.clone())?;
        }
        Ok(changed)
    }

    /// Never takes a step back, nor another manifest of the version that there is.
    fn raise(&mut self, seen: Seen) -> Result<bool, StateError> {
        match self.place(&seen.name) {
            Ok(place) => match self.manifests.get_mut(place) {
                Some(old) if old.version < seen.version => *old = seen,
                _ => return Ok(false),
            },
            Err(_) if self.manifests.len() >= MAX_NAMES => return Err(StateError::Full),
            Err(place) => self.manifests.insert(place, seen),
        }
        Ok(true)
    }
}
