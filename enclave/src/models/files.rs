//! Reading the repository: what lies there, and the bytes that are hashed and loaded.
//!
//! Every file is opened once, without following a link, and read into memory; digest, manifest and
//! session are made from that memory.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use touchstone_formats::{
    digest::Digest,
    model::{self, MAX_DEPTH, MAX_FILES, ModelFile, ModelManifest, SETTINGS},
    onnx,
};

use super::{ModelError, settings::Settings};

/// All bytes of one model, as they were read.
pub(super) struct ModelBytes {
    /// What the files are.
    pub manifest: ModelManifest,
    /// The model as the runtime gets it: model.onnx, with the data embedded that it could only
    /// resolve by path.
    pub onnx: Vec<u8>,
    /// External data of the main graph's initializers, by location.
    pub external: BTreeMap<String, Arc<[u8]>>,
    /// The settings in force.
    pub settings: Settings,
}

/// The folders of a folder, by name: models of the repository, versions of a model.
///
/// # Errors
/// Something else than a folder lies there, or a name is not `[A-Za-z0-9._-]{1,128}`.
pub(super) fn folders(folder: &Path) -> Result<Vec<(String, PathBuf)>, ModelError> {
    let mut found = Vec::new();
    for (name, path, kind) in entries(folder)? {
        if !kind.is_dir() {
            return Err(ModelError::Unlisted {
                path: shown(&path),
                why: "only folders belong here",
            });
        }
        if !is_name(&name) {
            return Err(ModelError::Name { path: shown(&path) });
        }
        found.push((name, path));
    }
    Ok(found)
}

/// A name or version: `[A-Za-z0-9._-]{1,128}`, and neither `.` nor `..`.
pub(super) fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !matches!(name, "." | "..")
}

/// Reads one version's folder.
pub(super) fn read_model(folder: &Path, defaults: &Settings) -> Result<ModelBytes, ModelError> {
    let mut present = BTreeMap::new();
    list(folder, "", 0, &mut present)?;

    let settings = match present.remove(SETTINGS) {
        None => defaults.clone(),
        Some(path) => {
            let refuse = |reason| ModelError::Settings {
                path: shown(&path),
                reason,
            };
            let bytes = read_file(&path)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| refuse("not UTF-8".into()))?;
            defaults.clone().overridden(text).map_err(refuse)?
        }
    };

    let entry = present
        .remove(model::ENTRY)
        .ok_or_else(|| ModelError::Missing {
            path: shown(&folder.join(model::ENTRY)),
            why: "every version has one",
        })?;
    let bytes = read_file(&entry)?;
    let refuse = |source| ModelError::Onnx {
        path: shown(&entry),
        source,
    };
    let locations = onnx::external_files(&bytes).map_err(refuse)?;

    let mut manifest = vec![listed(model::ENTRY, &bytes)];
    let mut external = BTreeMap::new();
    for location in locations {
        let path = present
            .remove(&location)
            .ok_or_else(|| ModelError::Missing {
                path: shown(&folder.join(&location)),
                why: "model.onnx keeps tensor data there",
            })?;
        let data = read_file(&path)?;
        manifest.push(listed(&location, &data));
        external.insert(location, data);
    }
    if let Some(path) = present.into_values().next() {
        return Err(ModelError::Unlisted {
            path: shown(&path),
            why: "neither model.onnx, nor settings.toml, nor named by model.onnx as tensor data",
        });
    }

    let onnx = onnx::embed(&bytes, &external)
        .map_err(refuse)?
        .unwrap_or_else(|| bytes.to_vec());
    let manifest = ModelManifest::new(manifest).map_err(|source| ModelError::Manifest {
        path: shown(folder),
        reason: source.to_string(),
    })?;
    Ok(ModelBytes {
        manifest,
        onnx,
        external,
        settings,
    })
}

fn listed(name: &str, bytes: &[u8]) -> ModelFile {
    ModelFile {
        name: name.to_owned(),
        sha256: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Notes every file below `folder` by its path from there, `/`-separated.
fn list(
    folder: &Path,
    prefix: &str,
    depth: usize,
    found: &mut BTreeMap<String, PathBuf>,
) -> Result<(), ModelError> {
    for (name, path, kind) in entries(folder)? {
        let name = format!("{prefix}{name}");
        let why = if kind.is_dir() {
            if depth < MAX_DEPTH {
                list(&path, &format!("{name}/"), depth + 1, found)?;
                continue;
            }
            "a folder nested too deeply"
        } else if !kind.is_file() {
            "neither a file nor a folder"
        } else if found.len() < MAX_FILES {
            found.insert(name, path);
            continue;
        } else {
            "too many files"
        };
        return Err(ModelError::Unlisted {
            path: shown(&path),
            why,
        });
    }
    Ok(())
}

/// What lies in a folder, sorted by name. Links are refused whatever they point to.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf, fs::FileType)>, ModelError> {
    let read = |source| ModelError::Read {
        path: shown(folder),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        let path = entry.path();
        // Of the entry itself, not of what a link points to.
        let kind = entry.file_type().map_err(read)?;
        if kind.is_symlink() {
            return Err(ModelError::Link { path: shown(&path) });
        }
        match entry.file_name().into_string() {
            Ok(name) => found.push((name, path, kind)),
            Err(_) => return Err(ModelError::Name { path: shown(&path) }),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// The bytes of a regular file, read once.
fn read_file(path: &Path) -> Result<Arc<[u8]>, ModelError> {
    let read = |source| ModelError::Read {
        path: shown(path),
        source,
    };
    // Between listing and opening the file may have become a link or a pipe: neither is followed,
    // neither blocks.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(read)?;
    let about = file.metadata().map_err(read)?;
    if !about.is_file() {
        return Err(ModelError::Unlisted {
            path: shown(path),
            why: "not a regular file",
        });
    }
    let size = usize::try_from(about.len())
        .map_err(|_| read(std::io::Error::from(std::io::ErrorKind::FileTooLarge)))?;
    // Allocated where it stays: model files can be large.
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, size).collect();
    if let Some(buffer) = Arc::get_mut(&mut bytes) {
        file.read_exact(buffer).map_err(read)?;
    }
    ended(&mut file).map_err(read)?;
    Ok(bytes)
}

/// A file that grew while it was read is half written.
fn ended(file: &mut File) -> std::io::Result<()> {
    match file.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(std::io::Error::other("grew while it was read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enclave and command line read the same table: what one calls a model's digest, so does the other.
    #[test]
    fn every_folder_has_the_digest_that_the_command_prints() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let table = fs::read_to_string(data.join("model-digests.tsv")).expect("the table");
        let rows: Vec<_> = table.lines().filter(|row| !row.starts_with('#')).collect();
        assert!(rows.len() > 40, "{}", rows.len());
        for row in rows {
            let (folder, expected) = row.split_once('\t').expect("two columns");
            let found = match read_model(&data.join(folder), &Settings::new(1)) {
                Ok(bytes) => bytes.manifest.digest().to_string(),
                Err(_) => "refused".to_owned(),
            };
            assert_eq!(found, expected, "{folder}");
        }
    }
}
