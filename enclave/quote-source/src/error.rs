//! Why there is no quote.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use thiserror::Error;

/// Why there is no quote, with what was found where.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The interface is taken, throttled or timed out (EBUSY, EAGAIN, EINTR, ETIMEDOUT).
    #[error("{path}: {operation}: busy: {source}")]
    Busy {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The interface is there, and nothing behind it: no driver has registered (ENXIO, ENODEV), or it can no longer talk
    /// to its firmware (ENOTTY; the SEV-SNP driver gives up its key after an error of the host, until the guest is
    /// started anew).
    #[error(
        "{path}: {operation}: no provider of attestation reports: {source}. Is this a confidential VM, and its driver (sev-guest, tdx-guest) loaded?"
    )]
    NoProvider {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The interface is not there (ENOENT, ENOTDIR).
    #[error(
        "{path}: {operation}: no such interface: {source}. Is configfs mounted, or the device there?"
    )]
    Absent {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The interface may not be used by this process (EACCES, EPERM).
    #[error("{path}: {operation}: not permitted: {source}")]
    Denied {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Any other answer of the kernel.
    #[error("{path}: {operation}: {source}")]
    Interface {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else writes to the same configfs entry, each time that it was tried: what was read may be theirs.
    #[error(
        "{path}: found generation {found}, expected {expected}, at try {tries}: another process writes to this entry"
    )]
    Raced {
        /// The entry.
        path: PathBuf,
        /// The generation after our own writes.
        expected: u64,
        /// What was found.
        found: u64,
        /// How often it was tried.
        tries: u32,
    },
    /// A provider whose reports nothing here can read.
    #[error("{path}: found provider {found:?}, expected \"sev_guest\" or \"tdx_guest\"")]
    UnknownProvider {
        /// The attribute.
        path: PathBuf,
        /// Its text, made harmless.
        found: String,
    },
    /// This privilege level cannot be had.
    #[error("{path}: privilege level {asked} is refused; {expected}")]
    Privilege {
        /// The attribute.
        path: PathBuf,
        /// What was asked for.
        asked: u8,
        /// What can be had.
        expected: String,
    },
    /// Not what the interface's documentation says.
    #[error("{path}: {what}: found {found}, expected {expected}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Of what.
        what: &'static str,
        /// What was found, made harmless.
        found: String,
        /// What is expected.
        expected: String,
    },
    /// The firmware, or the host on the way to it, refused.
    #[error("{path}: refused by the firmware (status {status:#x}) or the host (error {host:#x})")]
    Refused {
        /// The device.
        path: PathBuf,
        /// The firmware's status.
        status: u32,
        /// The host's error.
        host: u32,
    },
}

impl SourceError {
    /// Whether it may pass within seconds: another process is served, or writes to the same entry.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Raced { .. })
    }

    /// What an error of the kernel means.
    pub(crate) fn of(path: &Path, operation: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::BUSY | Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => Self::Busy {
                path,
                operation,
                source,
            },
            Some(Errno::NXIO | Errno::NODEV | Errno::NOTTY) => Self::NoProvider {
                path,
                operation,
                source,
            },
            Some(Errno::NOENT | Errno::NOTDIR) => Self::Absent {
                path,
                operation,
                source,
            },
            Some(Errno::ACCESS | Errno::PERM) => Self::Denied {
                path,
                operation,
                source,
            },
            _ => Self::Interface {
                path,
                operation,
                source,
            },
        }
    }
}
