//! Collateral for sessions: the caller's own, else the host's, else what verified before.
//!
//! Whoever gives it, it proves itself: none of this has to be trusted, and what comes from the host
//! may be missing, old or for another machine.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use touchstone_formats::CollateralFile;

use crate::Error;
use crate::address::Server;
use crate::http::Records;

/// Where the host gives it.
const TARGET: &str = "/v1/collateral";
/// How long the host may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Tells writers of one process apart.
static WRITES: AtomicU64 = AtomicU64::new(0);
/// A collateral file, at most: 1 MiB of content in base64, and what is around it. Bytes.
const MAX_FILE: usize = 2 << 20;

/// Asks the host.
pub(crate) async fn of_host(records: &Records) -> Result<CollateralFile, Error> {
    let answer = records.read(TARGET, None, MAX_FILE, LIMIT).await?;
    if answer.status != 200 {
        let reason = format!("status {}, {}", answer.status, answer.problem());
        return Err(Error::malformed(reason));
    }
    CollateralFile::parse(&answer.body).map_err(|e| Error::malformed(e.to_string()))
}

/// The caller's own folder of what verified, a file for each server.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    file: PathBuf,
}

impl Cache {
    /// The entry of one server in this folder, which is made if it is not there.
    pub fn new(folder: &Path, server: &Server) -> Result<Cache, Error> {
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::Usage(format!("folder {}: {e}", folder.display())))?;
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = server.authority.to_lowercase().chars().map(plain).collect();
        Ok(Cache {
            file: folder.join(format!("{name}.collateral.json")),
        })
    }

    /// What is kept; none if there is nothing, or nothing that can be read.
    pub fn read(&self) -> Option<CollateralFile> {
        let mut bytes = Vec::new();
        File::open(&self.file)
            .ok()?
            .take(MAX_FILE as u64 + 1)
            .read_to_end(&mut bytes)
            .ok()?;
        CollateralFile::parse(&bytes).ok()
    }

    /// Keeps what verified. Readers find the old file or the new one, never half of one.
    pub fn write(&self, collateral: &CollateralFile) -> std::io::Result<()> {
        if self.read().as_ref() == Some(collateral) {
            return Ok(());
        }
        // Others may be at it: each writes a file of its own first.
        let mut new = self.file.clone();
        let own = WRITES.fetch_add(1, Ordering::Relaxed);
        new.set_extension(format!("{}-{own}.new", std::process::id()));
        let written = File::create(&new)
            .and_then(|mut file| {
                file.write_all(&collateral.to_file())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&new, &self.file));
        if written.is_err() {
            match std::fs::remove_file(&new) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        written
    }
}
