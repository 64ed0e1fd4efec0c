//! One loaded model: its identity, its interface and its pool of sessions.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ort::session::Session;
use tokio::sync::Semaphore;
use touchstone_formats::{
    commitment::Datatype,
    digest::Digest,
    jcs,
    model::{ENTRY, ModelManifest},
};

use super::{ModelError, RepositoryConfig, files::ModelBytes, settings::Settings};
use crate::{
    protocol::{InferRequest, ProtocolError, TensorSpec},
    runtime::{Busy, Lease, Runtime, Speed, session},
};

/// One loaded model with its pool of sessions.
pub struct Model {
    /// Name, `[A-Za-z0-9._-]{1,128}`.
    pub name: String,
    /// Version, same alphabet.
    pub version: String,
    /// Digest of [`manifest`](Self::manifest) (formats.md §5).
    pub model_digest: Digest,
    /// Every file that was loaded.
    pub manifest: ModelManifest,
    /// Digest of [`config_object`](Self::config_object).
    pub config_digest: Digest,
    /// JCS bytes of the `touchstone/config/1` object, for `GET /v1/objects/<digest>`.
    pub config_object: Vec<u8>,
    /// The inputs that a request must give, all of them.
    pub inputs: Vec<TensorSpec>,
    /// The outputs that the model has.
    pub outputs: Vec<TensorSpec>,
    settings: Settings,
    pool: Pool,
}

struct Pool {
    /// Sessions that nobody uses, the last used on top: its memory is the warmest.
    free: Mutex<Vec<Session>>,
    /// One permit for each session in `free`.
    permits: Arc<Semaphore>,
    /// One permit for each request that may wait.
    waiting: Semaphore,
    timeout: Duration,
    speed: Arc<Speed>,
}

impl Model {
    /// Creates the sessions of a model out of its bytes.
    pub(super) fn load(
        runtime: &Runtime,
        config: &RepositoryConfig,
        (name, version, folder): (&str, &str, &Path),
        bytes: ModelBytes,
    ) -> Result<Self, ModelError> {
        let path = folder.join(ENTRY).display().to_string();
        let refuse = |reason| ModelError::Runtime {
            path: path.clone(),
            reason,
        };
        let ModelBytes {
            manifest,
            onnx,
            external,
            settings,
        } = bytes;

        let mut sessions = Vec::with_capacity(settings.sessions);
        for _ in 0..settings.sessions {
            let session = session::create(runtime, &settings, &onnx, &external).map_err(refuse)?;
            sessions.push(session);
        }
        // All sessions are of the same bytes and declare the same.
        let first = sessions
            .first()
            .ok_or_else(|| refuse("no session was created".into()))?;
        let (inputs, outputs) =
            session::interface(first).map_err(|unsupported| ModelError::Interface {
                path: path.clone(),
                side: unsupported.side,
                name: unsupported.name,
                found: unsupported.found,
            })?;

        let object = |e: touchstone_formats::FormatError| ModelError::Manifest {
            path: path.clone(),
            reason: e.to_string(),
        };
        let (config_object, config_digest) = settings.config_object(runtime).map_err(object)?;
        Ok(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            model_digest: manifest.digest(),
            manifest,
            config_digest,
            config_object: jcs::to_vec(&config_object).map_err(object)?,
            inputs,
            outputs,
            pool: Pool {
                permits: Arc::new(Semaphore::new(sessions.len())),
                free: Mutex::new(sessions),
                waiting: Semaphore::new(config.waiting),
                timeout: config.acquire_timeout,
                speed: Arc::default(),
            },
            settings,
        })
    }

    /// Whether loading these bytes anew would give the same model.
    pub(super) fn is_made_of(&self, bytes: &ModelBytes) -> bool {
        self.manifest == bytes.manifest && self.settings == bytes.settings
    }

    /// Compares a request with what the model declares: every input present once with its datatype
    /// and a shape that fits, every requested output known and of a datatype that its encoding can
    /// carry.
    ///
    /// # Errors
    /// [`ProtocolError`] with status 400, naming the tensor, what was found and what is expected;
    /// with status 422 for an FP16 or BF16 output asked for as JSON.
    pub fn check(&self, request: &InferRequest) -> Result<(), ProtocolError> {
        check(&self.inputs, &self.outputs, request)
    }

    /// Takes a session from the pool, waiting no longer than configured.
    ///
    /// # Errors
    /// [`Busy`]: answer 503.
    pub async fn acquire(self: &Arc<Self>) -> Result<Lease, Busy> {
        let pool = &self.pool;
        let permit = match pool.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _place = pool.waiting.try_acquire().map_err(|_| Busy)?;
                let waited =
                    tokio::time::timeout(pool.timeout, pool.permits.clone().acquire_owned());
                waited.await.map_err(|_| Busy)?.map_err(|_| Busy)?
            }
        };
        let session = pool
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        Ok(Lease::new(self.clone(), session.ok_or(Busy)?, permit))
    }

    /// Puts a session back; its permit must be released after this.
    pub(crate) fn give_back(&self, session: Session) {
        self.pool
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(session);
    }

    pub(crate) fn speed(&self) -> &Speed {
        &self.pool.speed
    }
}

fn check(
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
    request: &InferRequest,
) -> Result<(), ProtocolError> {
    for tensor in &request.inputs {
        let Some(spec) = inputs.iter().find(|spec| spec.name == tensor.name) else {
            return Err(ProtocolError::input(
                &tensor.name,
                format!("the model has no such input; it has {}", names(inputs)),
            ));
        };
        if tensor.datatype != spec.datatype {
            return Err(ProtocolError::input(
                &tensor.name,
                format!(
                    "datatype is {}, expected {}",
                    tensor.datatype, spec.datatype
                ),
            ));
        }
        if !spec.accepts(&tensor.shape) {
            return Err(ProtocolError::input(
                &tensor.name,
                format!(
                    "shape is {:?}, expected {:?} (-1: any)",
                    tensor.shape, spec.shape
                ),
            ));
        }
    }
    let given = |spec: &&TensorSpec| request.inputs.iter().any(|input| input.name == spec.name);
    if let Some(missing) = inputs.iter().find(|spec| !given(spec)) {
        return Err(ProtocolError::input(
            &missing.name,
            format!("missing; expected {} {:?}", missing.datatype, missing.shape),
        ));
    }

    // All are known and none is missing, so a surplus is one given twice. (Parsing refuses that too.)
    if let (Some(extra), true) = (request.inputs.last(), request.inputs.len() > inputs.len()) {
        return Err(ProtocolError::input(
            &extra.name,
            "an input is given twice".into(),
        ));
    }

    for requested in request.outputs.iter().flatten() {
        if !outputs.iter().any(|spec| spec.name == requested.name) {
            return Err(ProtocolError::output(
                &requested.name,
                format!("the model has no such output; it has {}", names(outputs)),
            ));
        }
    }
    for spec in outputs {
        let wanted = request
            .outputs
            .as_ref()
            .is_none_or(|outputs| outputs.iter().any(|requested| requested.name == spec.name));
        let binary_only = matches!(spec.datatype, Datatype::Fp16 | Datatype::Bf16);
        if wanted && binary_only && !request.wants_binary(&spec.name) {
            return Err(ProtocolError::BinaryOnly {
                name: spec.name.clone(),
                datatype: spec.datatype,
            });
        }
    }
    Ok(())
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<String> = specs
        .iter()
        .map(|spec| format!("{:?}", spec.name))
        .collect();
    names.join(", ")
}
