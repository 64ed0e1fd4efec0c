#![doc = include_str!("README.md")]

mod files;
mod model;
pub mod settings;

use std::{cmp::Ordering, path::PathBuf, sync::Arc, time::Duration};

use touchstone_formats::{catalog::CatalogModel, digest::Digest};

pub use model::Model;
use settings::Settings;

use crate::runtime::Runtime;

/// Where models come from and how they are run when their own `settings.toml` says nothing.
#[derive(Debug, Clone)]
pub struct RepositoryConfig {
    /// The repository folder.
    pub root: PathBuf,
    /// Sessions in a model's pool (1 to 256): how many requests to one model run at once.
    pub sessions: usize,
    /// How long a request waits for a session before it is refused with 503.
    pub acquire_timeout: Duration,
    /// How many requests may wait for a session of one model.
    pub waiting: usize,
}

/// A model repository on disk.
pub struct Repository {
    config: RepositoryConfig,
    runtime: Arc<Runtime>,
}

/// Why a repository was not loaded. Names the file and the reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file or folder cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file or folder.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A name or version outside the alphabet.
    #[error("{path}: a model's name and version are 1 to 128 of A-Z a-z 0-9 . _ -")]
    Name {
        /// The file or folder.
        path: String,
    },
    /// A symbolic link.
    #[error("{path}: a symbolic link; the repository holds files and folders only")]
    Link {
        /// The link.
        path: String,
    },
    /// Something that is part of no model.
    #[error("{path}: does not belong in the repository ({why})")]
    Unlisted {
        /// The file or folder.
        path: String,
        /// What belongs there.
        why: &'static str,
    },
    /// A file that ought to be there.
    #[error("{path}: missing ({why})")]
    Missing {
        /// The file.
        path: String,
        /// Who wants it.
        why: &'static str,
    },
    /// A `settings.toml` that does not stand.
    #[error("{path}: {reason}")]
    Settings {
        /// The file.
        path: String,
        /// Key, found and expected.
        reason: String,
    },
    /// A `model.onnx` that was refused before the runtime saw it.
    #[error("{path}: {source}")]
    Onnx {
        /// The file.
        path: String,
        /// Why.
        source: touchstone_formats::onnx::OnnxError,
    },
    /// A manifest or configuration object that cannot be written down.
    #[error("{path}: {reason}")]
    Manifest {
        /// The version's folder.
        path: String,
        /// Why.
        reason: String,
    },
    /// The runtime refused the model.
    #[error("{path}: ONNX Runtime refuses it: {reason}")]
    Runtime {
        /// The file.
        path: String,
        /// In the runtime's words.
        reason: String,
    },
    /// An input or output that the protocol cannot carry.
    #[error("{path}: {side} {name:?} is {found}, which the Open Inference Protocol cannot carry")]
    Interface {
        /// The file.
        path: String,
        /// `input` or `output`.
        side: &'static str,
        /// Its name.
        name: String,
        /// Its type.
        found: String,
    },
}

impl Repository {
    /// A repository at `config.root`; nothing is read yet.
    pub fn new(runtime: Arc<Runtime>, config: RepositoryConfig) -> Self {
        Self { config, runtime }
    }

    /// Reads, hashes and loads every model. Models of `previous` whose digests and settings are
    /// unchanged keep their sessions. All or nothing: one bad model fails the whole load, and what
    /// was loaded before stays untouched. Blocking and slow: call it off the async threads.
    ///
    /// # Errors
    /// [`ModelError`], naming the file and the reason.
    pub fn load(&self, previous: Option<&LoadedModels>) -> Result<LoadedModels, ModelError> {
        let defaults = Settings::new(self.config.sessions);
        let mut models = Vec::new();
        for (name, folder) in files::folders(&self.config.root)? {
            let versions = files::folders(&folder)?;
            if versions.is_empty() {
                return Err(ModelError::Missing {
                    path: files::shown(&folder),
                    why: "a model has at least one version, a folder of its own",
                });
            }
            for (version, folder) in versions {
                let bytes = files::read_model(&folder, &defaults)?;
                let before = previous.and_then(|models| models.find(&name, Some(&version)));
                let unchanged = before.filter(|model| model.is_made_of(&bytes));
                models.push(match unchanged {
                    Some(model) => model.clone(),
                    None => Arc::new(Model::load(
                        &self.runtime,
                        &self.config,
                        (&name, &version, &folder),
                        bytes,
                    )?),
                });
            }
        }
        models.sort_by(|a, b| {
            a.name
                .cmp(&b.name)
                .then_with(|| compare_versions(&a.version, &b.version))
        });
        Ok(LoadedModels { models })
    }
}

/// An immutable snapshot of all models that can be asked for.
#[derive(Clone, Default)]
pub struct LoadedModels {
    /// By name, then by version ascending.
    models: Vec<Arc<Model>>,
}

impl LoadedModels {
    /// The model of this name and version; without a version, the default one: the highest, where
    /// versions of digits alone compare as numbers and are higher than all others.
    pub fn find(&self, name: &str, version: Option<&str>) -> Option<&Arc<Model>> {
        let versions = self.of_name(name);
        match version {
            None => versions.last(),
            Some(version) => versions.iter().find(|model| model.version == version),
        }
    }

    /// All versions of a name, ascending; empty if the name is unknown.
    pub fn versions(&self, name: &str) -> Vec<&str> {
        self.of_name(name)
            .iter()
            .map(|model| model.version.as_str())
            .collect()
    }

    fn of_name(&self, name: &str) -> &[Arc<Model>] {
        let start = self
            .models
            .partition_point(|model| model.name.as_str() < name);
        let end = self
            .models
            .partition_point(|model| model.name.as_str() <= name);
        self.models.get(start..end).unwrap_or_default()
    }

    /// All models, by name and version.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.iter()
    }

    /// How many models there are, every version counted.
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// The entries of the catalog (formats.md §5), in its order.
    pub fn catalog_models(&self) -> Vec<CatalogModel> {
        let entry = |model: &Arc<Model>| CatalogModel {
            name: model.name.clone(),
            version: model.version.clone(),
            model_digest: model.model_digest,
            config_digest: model.config_digest,
        };
        self.models.iter().map(entry).collect()
    }

    /// A configuration object by its digest: its JCS bytes.
    pub fn config_object(&self, digest: Digest) -> Option<&[u8]> {
        let model = self
            .models
            .iter()
            .find(|model| model.config_digest == digest)?;
        Some(&model.config_object)
    }
}

/// Orders versions: those of digits alone as numbers, after all others, which go bytewise.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let number = |version: &str| {
        let digits = version.bytes().all(|byte| byte.is_ascii_digit());
        let significant = version.trim_start_matches('0').to_owned();
        digits.then_some((significant.len(), significant))
    };
    // `None` is less than any number. Equal numbers (1 and 01) go bytewise.
    number(a).cmp(&number(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_digits_are_numbers_and_above_all_others() {
        let mut versions = [
            "10",
            "v2",
            "9",
            "alpha",
            "1",
            "01",
            "99999999999999999999999",
            "2.0",
        ];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(
            versions,
            [
                "2.0",
                "alpha",
                "v2",
                "01",
                "1",
                "9",
                "10",
                "99999999999999999999999"
            ]
        );
    }

    #[test]
    fn names_keep_to_their_alphabet() {
        for good in ["a", "A-b_c.9", &"x".repeat(128)] {
            assert!(files::is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a b", "ä", "a/b", "a\n", &"x".repeat(129)] {
            assert!(!files::is_name(bad), "{bad}");
        }
    }
}
