//! The file that remembers which versions were accepted: the client's, which the proxy uses too.

use std::path::Path;

use anyhow::{Context, Result};
pub use touchstone_client::manifest::State;

/// Writes a file in place of one that may be there: whoever reads it meanwhile, or after a crash, has one of the two whole.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    touchstone_client::manifest::replace(path, bytes)
        .with_context(|| format!("cannot write {}", path.display()))
}
