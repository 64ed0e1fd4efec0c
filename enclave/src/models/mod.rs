//! The model repository: a folder `<name>/<version>/model.onnx` becomes an immutable set of models,
//! each with the digest of the very bytes that were loaded.

use std::{path::PathBuf, sync::Arc, time::Duration};

use touchstone_formats::{catalog::CatalogModel, digest::Digest};

use crate::{
    protocol::{InferRequest, ProtocolError, TensorSpec},
    runtime::{Busy, Lease, Runtime},
};

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
    _config: RepositoryConfig,
    _runtime: Arc<Runtime>,
}

/// Why a repository was not loaded. Names the file and the reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// To be split.
    #[error("{path}: {reason}")]
    Refused {
        /// The file or folder.
        path: String,
        /// Why.
        reason: String,
    },
}

impl Repository {
    /// A repository at `config.root`; nothing is read yet.
    pub fn new(runtime: Arc<Runtime>, config: RepositoryConfig) -> Self {
        Self { _config: config, _runtime: runtime }
    }

    /// Reads, hashes and loads every model. Models of `previous` whose digests are unchanged keep
    /// their sessions. All or nothing: one bad model fails the whole load, and what was loaded
    /// before stays untouched. Blocking and slow: call it off the async threads.
    ///
    /// # Errors
    /// [`ModelError`], naming the file and the reason.
    pub fn load(&self, _previous: Option<&LoadedModels>) -> Result<LoadedModels, ModelError> {
        unimplemented!()
    }
}

/// An immutable snapshot of all models that can be asked for.
#[derive(Clone, Default)]
pub struct LoadedModels {
    models: Vec<Arc<Model>>,
}

impl LoadedModels {
    /// The model of this name and version; without a version, the default one (the highest).
    pub fn find(&self, _name: &str, _version: Option<&str>) -> Option<&Arc<Model>> {
        unimplemented!()
    }

    /// All versions of a name, ascending; empty if the name is unknown.
    pub fn versions(&self, _name: &str) -> Vec<&str> {
        unimplemented!()
    }

    /// All models, by name and version.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.iter()
    }

    /// The entries of the catalog (formats.md §5), in its order.
    pub fn catalog_models(&self) -> Vec<CatalogModel> {
        unimplemented!()
    }
}

/// One loaded model with its pool of sessions.
pub struct Model {
    /// Name, `[A-Za-z0-9._-]{1,128}`.
    pub name: String,
    /// Version, same alphabet.
    pub version: String,
    /// Digest of the manifest of every file that was loaded (formats.md §5).
    pub model_digest: Digest,
    /// Digest of [`config_object`](Self::config_object).
    pub config_digest: Digest,
    /// JCS bytes of the `touchstone/config/1` object, for `GET /v1/objects/<digest>`.
    pub config_object: Vec<u8>,
    /// The inputs that a request must give, all of them.
    pub inputs: Vec<TensorSpec>,
    /// The outputs that the model has.
    pub outputs: Vec<TensorSpec>,
}

impl Model {
    /// Compares a request with what the model declares: every input present once with its datatype
    /// and a shape that fits, every requested output known.
    ///
    /// # Errors
    /// [`ProtocolError`] with status 400, naming the tensor, what was found and what is expected.
    pub fn check(&self, _request: &InferRequest) -> Result<(), ProtocolError> {
        unimplemented!()
    }

    /// Takes a session from the pool, waiting no longer than configured.
    ///
    /// # Errors
    /// [`Busy`]: answer 503.
    pub async fn acquire(self: &Arc<Self>) -> Result<Lease, Busy> {
        unimplemented!()
    }
}
