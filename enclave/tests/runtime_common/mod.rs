//! What the runtime's tests share: the library, folders of models, requests.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use enclave::{
    models::{LoadedModels, Model, ModelError, Repository, RepositoryConfig},
    protocol::{InferOutput, InferRequest, Tensor},
    runtime::{InferError, Runtime},
};
use tempfile::TempDir;
use touchstone_formats::{commitment::Datatype, digest::Digest};

/// The pinned library's path: TOUCHSTONE_ONNXRUNTIME, else where scripts/fetch-onnxruntime puts it.
pub fn library() -> Option<PathBuf> {
    let fetched =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/onnxruntime/libonnxruntime.so");
    let path = std::env::var_os("TOUCHSTONE_ONNXRUNTIME").map_or_else(fetched, PathBuf::from);
    path.exists().then_some(path)
}

pub fn pinned() -> Digest {
    Digest::from_hex(measurements::onnxruntime::LIBRARY_SHA256).expect("the pin is a digest")
}

/// The runtime, or a line that says why the test is skipped.
pub fn runtime(test: &str) -> Option<Arc<Runtime>> {
    let Some(library) = library() else {
        eprintln!("SKIPPED: {test}: no ONNX Runtime library; run scripts/fetch-onnxruntime");
        return None;
    };
    Some(Runtime::load(&library, pinned()).expect("the pinned library loads"))
}

pub fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(path)
}

/// The folder of larger models that are not part of the repository, if it is here.
pub fn shared_models(test: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/models");
    let path = std::env::var_os("TOUCHSTONE_MODELS").map_or_else(beside, PathBuf::from);
    if !path.is_dir() {
        eprintln!("SKIPPED: {test}: no folder of models; set TOUCHSTONE_MODELS");
        return None;
    }
    Some(path)
}

pub fn config(root: &Path) -> RepositoryConfig {
    RepositoryConfig {
        root: root.to_owned(),
        sessions: 2,
        acquire_timeout: Duration::from_millis(50),
        waiting: 4,
    }
}

pub fn load(runtime: &Arc<Runtime>, root: &Path) -> Result<LoadedModels, ModelError> {
    Repository::new(runtime.clone(), config(root)).load(None)
}

/// A repository in a temporary folder: (`name/version`, folder of tests/data to copy) each.
pub fn repository(models: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().expect("a temporary folder");
    for (to, from) in models {
        copy_folder(&data(from), &root.path().join(to));
    }
    root
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// The one model of a repository with one tiny case in it.
pub fn tiny(runtime: &Arc<Runtime>, case: &str) -> Arc<Model> {
    let root = repository(&[("m/1", &format!("tiny/{case}"))]);
    let models = load(runtime, root.path()).unwrap_or_else(|e| panic!("{case}: {e}"));
    models.find("m", None).expect("the model").clone()
}

/// Runs on any session of the pool, from synchronous code.
pub fn run(model: &Arc<Model>, request: &InferRequest) -> Result<InferOutput, InferError> {
    model.check(request).expect("the request fits the model");
    block_on(model.acquire())
        .expect("a free session")
        .run(request)
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a tokio runtime").block_on(future)
}

pub fn tensor(name: &str, datatype: Datatype, shape: &[u64], data: impl Into<Vec<u8>>) -> Tensor {
    Tensor {
        name: name.into(),
        datatype,
        shape: shape.into(),
        data: data.into().into(),
    }
}

pub fn fp32(name: &str, shape: &[u64], numbers: impl IntoIterator<Item = f32>) -> Tensor {
    let data: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
    tensor(name, Datatype::Fp32, shape, data)
}

pub fn request(inputs: impl Into<Vec<Tensor>>) -> InferRequest {
    InferRequest {
        inputs: inputs.into(),
        binary_data_output: true,
        ..InferRequest::default()
    }
}

pub fn numbers(tensor: &Tensor) -> Vec<f32> {
    assert_eq!(tensor.datatype, Datatype::Fp32);
    tensor
        .data
        .as_chunks()
        .0
        .iter()
        .copied()
        .map(f32::from_le_bytes)
        .collect()
}

/// An array out of a .npy file: its shape and its little-endian elements.
pub struct Npy {
    pub descr: String,
    pub shape: Vec<u64>,
    pub data: Vec<u8>,
}

impl Npy {
    pub fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{}", path.display());
        let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = std::str::from_utf8(&bytes[10..end]).expect("ASCII");
        let after = |key: &str| header.split_once(key).expect(key).1;
        let shape = after("'shape': (").split_once(')').expect("a tuple").0;
        let shape = shape
            .split(',')
            .map(str::trim)
            .filter(|dim| !dim.is_empty());
        assert!(after("'fortran_order': ").starts_with("False"));
        Self {
            descr: after("'descr': '")
                .split_once('\'')
                .expect("a string")
                .0
                .to_owned(),
            shape: shape.map(|dim| dim.parse().expect("a dimension")).collect(),
            data: bytes[end..].to_vec(),
        }
    }

    /// Labels or targets as numbers.
    pub fn targets(&self) -> Vec<f64> {
        let chunks = self.data.as_chunks::<8>().0.iter();
        match self.descr.as_str() {
            "<i8" => chunks
                .map(|bytes| i64::from_le_bytes(*bytes) as f64)
                .collect(),
            "<f8" => chunks.map(|bytes| f64::from_le_bytes(*bytes)).collect(),
            other => panic!("targets of type {other}"),
        }
    }
}
