//! The file that remembers which versions were accepted (docs/manifests.md, "Rollback").

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use attestation_verifier::manifest::{Accepted, MAX_FILE, StateError};

use crate::keep::replace;

/// How long somebody else may have the lock: reading and writing take milliseconds.
const LOCK: Duration = Duration::from_secs(10);
/// Between two attempts at it.
const PAUSE: Duration = Duration::from_millis(20);

/// Why it is not known what was accepted, or why it cannot be remembered. Never the same as "nothing was accepted".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateFileError {
    /// The system said no.
    #[error("state {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody else has the lock and does not let go.
    #[error("state {}: locked by another for more than {} s", path.display(), LOCK.as_secs())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is none of ours, or not whole.
    #[error(
        "state {}: {error}. It is damaged: what was accepted before is not known, and nothing is accepted now",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: StateError,
    },
    /// It cannot be written.
    #[error("state {}: {error}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// Why.
        error: StateError,
    },
}

/// What was accepted, and the lock under which it is read and written: nobody else's older version is written over it.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    /// What the file says.
    pub accepted: Accepted,
    /// Whether there was no file yet.
    pub first: bool,
    _lock: File,
}

impl State {
    /// Reads the state, and keeps others from it as long as this lives. A file that is not there is the first use; one that cannot
    /// be read, or is damaged, is an error and never "nothing was accepted". Waits up to 10 s for the lock, on this thread.
    ///
    /// # Errors
    /// [`StateFileError`].
    pub fn open(path: &Path) -> Result<State, StateFileError> {
        // Whoever comes by a link shares lock and file with who does not, and the link stays one. Where it leads nowhere it is
        // found out below.
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let path = real.as_path();
        let io = |error| StateFileError::Io {
            path: path.to_owned(),
            error,
        };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside(path, ".lock"))
            .map_err(io)?;
        let since = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(io(error)),
                Err(TryLockError::WouldBlock) if since.elapsed() < LOCK => {
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(StateFileError::Locked {
                        path: path.to_owned(),
                    });
                }
            }
        }
        // A link that leads nowhere is no first use.
        let first = match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            other => other.map(|_| false).map_err(io)?,
        };
        let accepted = if first {
            Accepted::default()
        } else {
            let file = read(path, MAX_FILE).map_err(io)?;
            Accepted::parse(&file).map_err(|error| StateFileError::Damaged {
                path: path.to_owned(),
                error,
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
    ///
    /// # Errors
    /// [`StateFileError`]; what was there before is there still.
    pub fn write(&self) -> Result<(), StateFileError> {
        let path = || self.path.clone();
        let file = self.accepted.to_file();
        let file = file.map_err(|error| StateFileError::Full {
            path: path(),
            error,
        })?;
        replace(&self.path, &file).map_err(|error| StateFileError::Io {
            path: path(),
            error,
        })
    }
}

/// Reads a file; one byte more than `max` at most, so that its reader sees that it is too long.
pub(crate) fn read(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    // A pipe would be waited for, for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is no file"));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
