//! Loading the pinned library: what is hashed is what is loaded.

use std::{
    fs::File,
    io::Read,
    os::fd::AsRawFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use ort::environment::Environment;
use touchstone_formats::digest::{Digest, Hasher};

use super::cpu;

/// The loaded library and its environment. One per process: it can be neither unloaded nor
/// replaced.
pub struct Runtime {
    environment: Environment,
    digest: Digest,
    build_info: String,
    cpu_features: Vec<&'static str>,
}

/// Why the library was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file's digest is not the configured one.
    #[error("{path}: SHA-256 is {found}, expected {expected}")]
    Digest {
        /// The file.
        path: String,
        /// What was found.
        found: Digest,
        /// What was configured.
        expected: Digest,
    },
    /// The dynamic linker or the library itself refused.
    #[error("{path} cannot be loaded: {reason}")]
    Load {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Another library has been loaded before.
    #[error("ONNX Runtime {loaded} is loaded already, {expected} cannot be")]
    Loaded {
        /// Digest of the library that is loaded.
        loaded: Digest,
        /// The one asked for.
        expected: Digest,
    },
    /// An environment variable that the library obeys, and that no digest covers.
    #[error("environment variable {0} would change how ONNX Runtime works; unset it")]
    Variable(String),
}

static LOADED: Mutex<Option<Arc<Runtime>>> = Mutex::new(None);

impl Runtime {
    /// Opens `library`, compares the SHA-256 of what was opened with `expected` and loads exactly
    /// that. A second call in a process must ask for the same digest and gives the same runtime.
    ///
    /// Call it before other threads are started: it sets an environment variable.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub fn load(library: &Path, expected: Digest) -> Result<Arc<Runtime>, RuntimeError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*loaded {
            if runtime.digest != expected {
                return Err(RuntimeError::Loaded {
                    loaded: runtime.digest,
                    expected,
                });
            }
            return Ok(runtime.clone());
        }
        check_environment()?;
        let path = library.display().to_string();
        let file = open_checked(library, &path, expected)?;
        silence_telemetry();
        // ort has asserts of its own; none may take the process down without a word.
        let runtime = catch_unwind(AssertUnwindSafe(|| start(&file, expected)))
            .unwrap_or_else(|_| Err("the ort crate panicked".into()))
            .map_err(|reason| RuntimeError::Load { path, reason })?;
        let runtime = Arc::new(runtime);
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    /// The library's version: the pinned one, or `unknown` for a library that is not the pinned
    /// one. (The digest says what it is.)
    pub fn version(&self) -> &'static str {
        measurements::onnxruntime::version_of(self.digest).unwrap_or("unknown")
    }

    /// SHA-256 of the library.
    pub fn library_digest(&self) -> Digest {
        self.digest
    }

    /// What the library says about its own build, at most 256 bytes of ASCII.
    pub fn build_info(&self) -> &str {
        &self.build_info
    }

    /// The CPU's features that kernels are chosen by, sorted.
    pub fn cpu_features(&self) -> &[&'static str] {
        &self.cpu_features
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }
}

/// Opens the file and hashes what was opened.
fn open_checked(library: &Path, path: &str, expected: Digest) -> Result<File, RuntimeError> {
    let read = |source| RuntimeError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(library).map_err(read)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            length => hasher.update(buffer.get(..length).unwrap_or_default()),
        }
    }
    let found = hasher.finish();
    if found != expected {
        return Err(RuntimeError::Digest {
            path: path.to_owned(),
            found,
            expected,
        });
    }
    Ok(file)
}

fn start(file: &File, digest: Digest) -> Result<Runtime, String> {
    // The descriptor that was hashed, not the path a second time.
    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    let environment = ort::init_from(&descriptor)
        .map_err(|e| e.to_string())?
        .with_name("touchstone")
        .with_telemetry(false)
        .build()
        .map_err(|e| e.to_string())?;
    let build_info = ort::info()
        .chars()
        .filter(|c| c.is_ascii() && !c.is_ascii_control());
    Ok(Runtime {
        environment,
        digest,
        build_info: build_info.take(256).collect(),
        cpu_features: cpu::features(),
    })
}

/// Turns the library's telemetry off before it starts. `with_telemetry(false)` alone comes too
/// late: creating the environment has by then made a device id and a database below the home
/// folder, and a thread that looks for Microsoft's collector. The enclave dials nobody.
fn silence_telemetry() {
    // SAFETY: Rust's own readers of the environment take a lock; other readers could be C code on
    // other threads, and `load` asks to be called before there are any.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("ORT_DISABLE_TELEMETRY", "1");
    }
}

/// The library obeys variables such as ORT_LOAD_CONFIG_FROM_MODEL, which no digest covers.
fn check_environment() -> Result<(), RuntimeError> {
    // The first is set by `silence_telemetry`; the second is not read, since the library is named;
    // the third shapes messages only.
    let harmless = ["ORT_DISABLE_TELEMETRY", "ORT_DYLIB_PATH", "ORT_LOG"];
    let mut names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    match names.find(|name| name.starts_with("ORT_") && !harmless.contains(&name.as_str())) {
        Some(name) => Err(RuntimeError::Variable(name)),
        None => Ok(()),
    }
}
