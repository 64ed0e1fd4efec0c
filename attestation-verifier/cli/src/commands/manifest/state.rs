//! The file that remembers which versions were accepted.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use attestation_verifier::manifest::{Accepted, MAX_FILE};

use crate::files;

/// What was accepted, and the lock under which it is read and written: nobody else's older version is written over it.
pub struct State {
    path: PathBuf,
    /// What the file says.
    pub accepted: Accepted,
    /// Whether there was no file yet.
    pub first: bool,
    _lock: File,
}

impl State {
    /// Reads the state. A file that is not there is the first use; one that cannot be read, or is damaged, is an error and
    /// never "nothing was accepted".
    pub fn open(path: &Path) -> Result<State> {
        let what = || format!("state {}", path.display());
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside(path, ".lock"))
            .with_context(what)?;
        lock.lock().with_context(what)?;
        let first = match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            other => other.map(|_| false).with_context(what)?,
        };
        let accepted = if first {
            Accepted::default()
        } else {
            let file = files::read(path, "state", MAX_FILE as u64)?;
            Accepted::parse(&file).map_err(|error| {
                anyhow!(
                    "state {}: {error}. It is damaged: what was accepted before is not known, and nothing is accepted now",
                    path.display()
                )
            })?
        };
        Ok(State {
            path: path.to_owned(),
            accepted,
            first,
            _lock: lock,
        })
    }

    /// Writes what was accepted: all of it, or nothing.
    pub fn write(&self) -> Result<()> {
        let file = self.accepted.to_file()?;
        replace(&self.path, &file)
    }
}

/// Writes a file in place of one that may be there: whoever reads it meanwhile, or after a crash, has one of the two whole.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let new = beside(path, ".new");
    let mut file = File::create(&new).with_context(what)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(what)?;
    // The name is durable once its folder is.
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .with_context(what)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
