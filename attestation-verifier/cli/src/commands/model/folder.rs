//! A model's folder, listed and hashed by the rules that the enclave loads it by (formats.md §5): links, names that lead
//! elsewhere and files that model.onnx does not open are refused. Nothing but model.onnx is held in memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use touchstone_formats::digest::Hasher;
use touchstone_formats::model::{ENTRY, MAX_DEPTH, MAX_FILES, SETTINGS};
use touchstone_formats::{Digest, ModelFile, ModelManifest, onnx};

use crate::output::{Failure, clean, say};

/// The check that a folder which is no model is reported under.
pub const FORMAT: &str = "model.format";

/// Largest model.onnx, in bytes: protobuf messages, and with them the runtime's models, end at 2 GiB.
const MAX_ENTRY: u64 = 1 << 31;

/// How much of a file is read at once, in bytes.
const PIECE: usize = 1 << 20;

/// Progress is shown from this many bytes on.
const LARGE: u64 = 256 << 20;

/// What lies in a model's folder.
pub struct Folder {
    /// The files that the runtime opens.
    pub identity: ModelManifest,
    /// settings.toml, if there is one: no part of the identity.
    pub settings: Option<ModelFile>,
}

/// Lists and hashes a model's folder.
pub fn read(folder: &Path) -> Result<Folder, Failure> {
    let about = fs::symlink_metadata(folder)
        .with_context(|| format!("cannot read folder {}", folder.display()))?;
    if !about.is_dir() {
        return Err(refuse(folder, "not a folder (links are not followed)"));
    }
    let mut present = BTreeMap::new();
    list(folder, "", 0, &mut present)?;
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    for (name, path) in &present {
        sizes.insert(name.clone(), open(path)?.1);
    }
    let mut progress = Progress::new(sizes.values().sum());

    let settings = match present.remove(SETTINGS) {
        Some(path) => Some(hashed(SETTINGS, &path, &mut progress)?),
        None => None,
    };
    let entry = present
        .remove(ENTRY)
        .ok_or_else(|| refuse(&folder.join(ENTRY), "missing: every model has one"))?;
    let bytes = read_entry(&entry, &mut progress)?;
    let unsound = |source| malformed(anyhow::Error::new(source).context(shown(&entry)));
    let locations = onnx::external_files(&bytes).map_err(unsound)?;
    let mut files = vec![ModelFile {
        name: ENTRY.to_owned(),
        sha256: Digest::of(&bytes),
        size: bytes.len() as u64,
    }];
    let mut opened = Vec::new();
    for location in locations {
        let path = present.remove(&location).ok_or_else(|| {
            refuse(
                &folder.join(&location),
                "missing: model.onnx keeps tensor data there",
            )
        })?;
        opened.push((location, path));
    }
    if let Some(path) = present.values().next() {
        return Err(refuse(
            path,
            "neither model.onnx, nor settings.toml, nor named by model.onnx as tensor data",
        ));
    }
    for (name, path) in opened {
        files.push(hashed(&name, &path, &mut progress)?);
    }
    let found = files.iter().map(|f| (f.name.clone(), f.size)).collect();
    onnx::check_ranges(&bytes, &found).map_err(unsound)?;
    let identity = ModelManifest::new(files)
        .map_err(|source| malformed(anyhow::Error::new(source).context(shown(folder))))?;
    Ok(Folder { identity, settings })
}

fn malformed(error: anyhow::Error) -> Failure {
    Failure::malformed(FORMAT, error)
}

fn refuse(path: &Path, why: &str) -> Failure {
    malformed(anyhow!("{}: {why}", shown(path)))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Notes every file below `folder` by its path from there, `/`-separated.
fn list(
    folder: &Path,
    prefix: &str,
    depth: usize,
    found: &mut BTreeMap<String, PathBuf>,
) -> Result<(), Failure> {
    let cannot = || format!("cannot read folder {}", folder.display());
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let path = entry.path();
        // Of the entry itself, not of what a link points to.
        let kind = entry.file_type().with_context(cannot)?;
        if kind.is_symlink() {
            return Err(refuse(&path, "a symbolic link"));
        }
        let Ok(name) = entry.file_name().into_string() else {
            return Err(refuse(&path, "a name that is not UTF-8"));
        };
        let name = format!("{prefix}{name}");
        if kind.is_dir() {
            if depth >= MAX_DEPTH {
                return Err(refuse(&path, "a folder nested too deeply"));
            }
            list(&path, &format!("{name}/"), depth + 1, found)?;
        } else if !kind.is_file() {
            return Err(refuse(&path, "neither a file nor a folder"));
        } else if found.len() >= MAX_FILES {
            return Err(refuse(&path, "too many files"));
        } else {
            found.insert(name, path);
        }
    }
    Ok(())
}

/// Opens a regular file; gives its size in bytes too.
fn open(path: &Path) -> anyhow::Result<(File, u64)> {
    let cannot = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let about = file.metadata().with_context(cannot)?;
    ensure!(about.is_file(), "{}: no longer a file", path.display());
    Ok((file, about.len()))
}

fn read_entry(path: &Path, progress: &mut Progress) -> Result<Vec<u8>, Failure> {
    let (file, size) = open(path)?;
    if size > MAX_ENTRY {
        return Err(refuse(
            path,
            "larger than the 2 GiB that an ONNX protobuf may have",
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_ENTRY + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    same_size(path, size, bytes.len() as u64)?;
    progress.add(ENTRY, size);
    Ok(bytes)
}

/// Hashes a file piece by piece.
fn hashed(name: &str, path: &Path, progress: &mut Progress) -> anyhow::Result<ModelFile> {
    let (mut file, size) = open(path)?;
    let (mut hash, mut read) = (Hasher::new(), 0u64);
    let mut piece = vec![0; PIECE];
    loop {
        let count = file
            .read(&mut piece)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
        read = read.saturating_add(count as u64);
        progress.add(name, count as u64);
    }
    same_size(path, size, read)?;
    Ok(ModelFile {
        name: name.to_owned(),
        sha256: hash.finish(),
        size,
    })
}

/// A file that grew or shrank while it was read is being written.
fn same_size(path: &Path, size: u64, read: u64) -> anyhow::Result<()> {
    ensure!(
        size == read,
        "{}: changed while it was read ({size} bytes, then {read})",
        path.display()
    );
    Ok(())
}

/// How far hashing is, on a terminal's stderr.
struct Progress {
    total: u64,
    done: u64,
    shown: Option<u64>,
}

impl Progress {
    fn new(total: u64) -> Self {
        let wanted = total >= LARGE && std::io::stderr().is_terminal();
        Progress {
            total,
            done: 0,
            shown: wanted.then_some(0),
        }
    }

    fn add(&mut self, name: &str, bytes: u64) {
        self.done = self.done.saturating_add(bytes).min(self.total);
        let percent = self.done.saturating_mul(100) / self.total.max(1);
        if self.shown.is_none_or(|shown| shown == percent) {
            return;
        }
        self.shown = Some(percent);
        let mut line = format!("\r\x1b[K{percent:3} % hashed, {}", clean(name));
        if self.done == self.total {
            line.clear();
            let _ = write!(line, "\r\x1b[K");
        }
        say(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_counted_in_whole_percents_and_ends() {
        let mut progress = Progress {
            total: 1000,
            done: 0,
            shown: Some(0),
        };
        progress.add("w.bin", 9);
        assert_eq!(progress.shown, Some(0));
        progress.add("w.bin", 1);
        assert_eq!(progress.shown, Some(1));
        progress.add("w.bin", u64::MAX);
        assert_eq!((progress.done, progress.shown), (1000, Some(100)));
    }
}
