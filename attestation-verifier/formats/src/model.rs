//! The identity of a model: its files, by name and digest (§5).

use crate::limits::MAX_INTEGER;
use crate::strict;
use crate::{Digest, FormatError, Result, jcs};
use serde::{Deserialize, Serialize};

/// The file that is opened first.
pub const ENTRY: &str = "model.onnx";

/// The optional file beside it that says how the model is run: part of the configuration, not of
/// the model's identity.
pub const SETTINGS: &str = "settings.toml";

/// Deepest folder below a model's folder.
pub const MAX_DEPTH: usize = 8;

/// Most files in a model's folder.
pub const MAX_FILES: usize = 4096;

/// One file that the runtime opens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Path below the model's folder, `/`-separated, without `.` and `..`. ≤ 256 bytes.
    pub name: String,
    /// SHA-256 of the bytes that are loaded.
    pub sha256: Digest,
    /// Their number.
    pub size: u64,
}

/// Every file of a model, sorted by name bytewise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelManifest {
    files: Vec<ModelFile>,
}

strict::version!(Entry = "model.onnx");
strict::version!(Scheme = "sha256-manifest/1");

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    entry: Entry,
    files: Vec<ModelFile>,
    scheme: Scheme,
}

impl ModelManifest {
    /// The manifest of these files, given in any order.
    ///
    /// # Errors
    /// A name that is absolute, empty, has an empty, `.` or `..` part, or stands twice; no
    /// `model.onnx`; a size beyond 2^53−1.
    pub fn new(mut files: Vec<ModelFile>) -> Result<Self> {
        files.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        Self::checked(files)
    }

    /// Reads the JCS bytes of a manifest.
    ///
    /// # Errors
    /// Not canonical, files not sorted, and as [`Self::new`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        crate::error::bounded("model manifest", bytes.len(), crate::limits::MAX_BUNDLE)?;
        let wire: Wire = jcs::from_slice(bytes)?;
        Self::checked(wire.files)
    }

    fn checked(files: Vec<ModelFile>) -> Result<Self> {
        for file in &files {
            check_name(&file.name)?;
            if file.size > MAX_INTEGER {
                return Err(FormatError::value("size", file.size, "at most 2^53−1"));
            }
        }
        for (file, next) in files.iter().zip(files.iter().skip(1)) {
            if file.name.as_bytes() >= next.name.as_bytes() {
                return Err(FormatError::value(
                    "files",
                    format_args!("{} before {}", file.name, next.name),
                    "names sorted bytewise, each once",
                ));
            }
        }
        if !files.iter().any(|file| file.name == ENTRY) {
            return Err(FormatError::value("files", "no such file", "model.onnx"));
        }
        Ok(Self { files })
    }

    /// The name of the file that is opened first: `model.onnx`.
    pub fn entry(&self) -> &str {
        ENTRY
    }

    /// The files, sorted by name.
    pub fn files(&self) -> &[ModelFile] {
        &self.files
    }

    /// The canonical bytes.
    pub fn to_jcs(&self) -> Vec<u8> {
        // Sizes are within bounds since `checked`; nothing else could fail to be written.
        jcs::must_write(jcs::to_vec(&Wire {
            entry: Entry,
            files: self.files.clone(),
            scheme: Scheme,
        }))
    }

    /// `model_digest`.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_jcs())
    }
}

fn check_name(name: &str) -> Result<()> {
    strict::text("file name", name)?;
    if name
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err(FormatError::value(
            "file name",
            name,
            "a relative path, /-separated, without empty parts, . and ..",
        ));
    }
    Ok(())
}
