//! Why the guest does not start, or ends.

use std::{io, path::Path};

use thiserror::Error;
use touchstone_settings::ConfigError;

use crate::cmdline::CommandLineError;

/// Why the guest does not start, or ends. Said on the console; then the guest powers off.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InitError {
    /// The kernel's command line.
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    /// The image's settings.
    #[error("{path}: {source}")]
    Settings {
        /// The file.
        path: &'static str,
        /// What is wrong.
        source: ConfigError,
    },
    /// The kernel gave this program arguments or variables, which it does with words that it does not know.
    #[error("the kernel passed `{word}` on, which nothing here knows")]
    Word {
        /// The argument or variable.
        word: String,
    },
    /// A call that the system refused.
    #[error("{doing}: {source}")]
    System {
        /// What was being done, and to what.
        doing: String,
        /// What the system says.
        source: io::Error,
    },
    /// What was set is not what is read back.
    #[error("{what}: found `{found}`, expected `{expected}`")]
    ReadBack {
        /// What was set.
        what: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The CPU cannot make random numbers.
    #[error("the CPU has no RDRAND, and no other source of randomness is trusted")]
    NoCpuRandomness,
    /// The kernel's generator has no seed.
    #[error("the kernel's random number generator is not seeded from the CPU")]
    NotSeeded,
    /// No disk, partition or network card, or more than one.
    #[error("{what}: found {found}, expected exactly one")]
    NotOne {
        /// What was looked for.
        what: &'static str,
        /// Names of what was found, or `none`.
        found: String,
    },
    /// The volume is not the one that the command line names, or not intact.
    #[error(
        "the model volume on {device} is not what the command line names, or is corrupt: {source}"
    )]
    Volume {
        /// The block device.
        device: String,
        /// What the system says.
        source: io::Error,
    },
    /// No DHCP server gave an address.
    #[error("no address by DHCP: {0}")]
    Dhcp(String),
    /// The platform cannot quote.
    #[error(
        "no quote provider: {0}. Only a confidential VM (SEV-SNP or TDX) has one, and this image serves nowhere else"
    )]
    NoProvider(io::Error),
    /// A file is longer than anything that belongs there.
    #[error("{path} is longer than {most} bytes")]
    TooLong {
        /// The file.
        path: String,
        /// The bound.
        most: u64,
    },
    /// A descriptor would be inherited.
    #[error("descriptor {0} would be inherited by the enclave")]
    Descriptor(String),
    /// The enclave ended.
    #[error("the enclave ended: {0}")]
    Ended(String),
}

/// Says what was being done when the system refused.
pub trait Doing<T> {
    /// # Errors
    /// [`InitError::System`]
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, InitError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, InitError> {
        self.map_err(|source| InitError::System {
            doing: what(),
            source: source.into(),
        })
    }
}

/// Reads a text of at most `most` bytes.
///
/// # Errors
/// What the system says, or [`InitError::TooLong`].
pub fn read_text(path: impl AsRef<Path>, most: u64) -> Result<String, InitError> {
    let path = path.as_ref();
    let bytes = read_bytes(path, most)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
        .doing(|| format!("reading {}", path.display()))
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// What the system says, or [`InitError::TooLong`].
pub fn read_bytes(path: &Path, most: u64) -> Result<Vec<u8>, InitError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut bytes))
        .doing(|| format!("reading {}", path.display()))?;
    if bytes.len() as u64 > most {
        return Err(InitError::TooLong {
            path: path.display().to_string(),
            most,
        });
    }
    Ok(bytes)
}
