//! Reading and writing files: bounded before a byte is read, never overwriting by accident, and
//! with messages that name the file.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Bound on a request, an answer or a tensor file.
pub const MAX_BODY: u64 = 256 << 20;
/// Bound on small text files: policies, PEM files, `expect.json`.
pub const MAX_TEXT: u64 = 1 << 20;

/// Where a judgement reads what it judges. The disk, but for `prove-refusal`, which has every file judged as it is and
/// as it might have been.
pub trait Source {
    /// As [`read_prefix`].
    fn read_prefix(&self, path: &Path, what: &str, max: u64) -> Result<Vec<u8>>;

    /// Whether there is such a file.
    fn exists(&self, path: &Path) -> bool;

    /// As [`read`].
    fn read(&self, path: &Path, what: &str, max: u64) -> Result<Vec<u8>> {
        let bytes = self.read_prefix(path, what, max)?;
        within(path, what, max, bytes)
    }
}

/// The files as they are.
pub struct Disk;

impl Source for Disk {
    fn read_prefix(&self, path: &Path, what: &str, max: u64) -> Result<Vec<u8>> {
        read_prefix(path, what, max)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

/// Reads a file of at most `max` bytes; `what` says in messages what it should have been.
pub fn read(path: &Path, what: &str, max: u64) -> Result<Vec<u8>> {
    let bytes = read_prefix(path, what, max)?;
    within(path, what, max, bytes)
}

fn within(path: &Path, what: &str, max: u64, bytes: Vec<u8>) -> Result<Vec<u8>> {
    ensure!(
        bytes.len() as u64 <= max,
        "{what} {}: larger than the {max} bytes such a file may have",
        path.display()
    );
    Ok(bytes)
}

/// Reads at most `max + 1` bytes of a file. For files whose judge has a bound of its own: one
/// byte too many is enough for it to say so.
pub fn read_prefix(path: &Path, what: &str, max: u64) -> Result<Vec<u8>> {
    let explain = || format!("cannot read {what} {}", path.display());
    let file = File::open(path).with_context(explain)?;
    if file.metadata().with_context(explain)?.is_dir() {
        bail!("cannot read {what} {}: it is a folder", path.display());
    }
    let mut bytes = Vec::new();
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .with_context(explain)?;
    Ok(bytes)
}

/// Reads a text file.
pub fn read_text(path: &Path, what: &str, max: u64) -> Result<String> {
    String::from_utf8(read(path, what, max)?)
        .with_context(|| format!("{what} {}: not UTF-8 text", path.display()))
}

/// Writes a file that must not exist yet, or be empty, and makes it durable.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            // An empty file (of mktemp, say) holds nothing that could be lost.
            let empty = path.metadata().is_ok_and(|m| m.is_file() && m.len() == 0);
            ensure!(
                empty,
                "{} exists already, and is not overwritten",
                path.display()
            );
            OpenOptions::new().write(true).open(path)
        }
        other => other,
    };
    finish(file, path, bytes)
}

/// Writes a file, in place of one that may be there, and makes it durable.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    finish(File::create(path), path, bytes)
}

fn finish(file: std::io::Result<File>, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = file.with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}
