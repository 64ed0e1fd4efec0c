//! When to read the model repository again: on SIGHUP, or when its folder has changed.

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use touchstone_formats::digest::Digest;

use crate::service::Service;

/// Most entries of a repository that are looked at.
const ENTRIES_MAX: usize = 100_000;

/// Reads the repository again; failing, what is in force stays.
pub async fn now(service: &Arc<Service>) {
    if let Err(error) = service.reload().await {
        tracing::error!(%error, "the model repository could not be read again; what was loaded stays in force");
    }
}

/// Looks at the folder every `interval` and reads it again when it has changed and has then been quiet for one
/// interval, so that files which are still being copied are left alone.
pub async fn watch(service: Arc<Service>, interval: Duration) {
    let folder = service.config.models.repository.clone();
    let mut loaded = fingerprint(&folder).ok();
    let mut last = loaded;
    while !service.draining() {
        tokio::time::sleep(interval).await;
        let found = match fingerprint(&folder) {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::error!(%error, folder = %folder.display(), "the model repository cannot be looked at");
                continue;
            }
        };
        if found != loaded && found == last {
            now(&service).await;
            // Not tried again until it changes again.
            loaded = found;
        }
        last = found;
    }
}

/// Names, sizes and times of everything in the folder. Decides only when to read, never what is served.
fn fingerprint(folder: &Path) -> io::Result<Digest> {
    let mut entries = Vec::new();
    collect(folder, 0, &mut entries)?;
    entries.sort_unstable();
    Ok(Digest::of(entries.join("\n").as_bytes()))
}

fn collect(folder: &Path, depth: usize, entries: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let about = fs::symlink_metadata(&path)?;
        let changed = about
            .modified()?
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        entries.push(format!("{} {} {changed}", path.display(), about.len()));
        if entries.len() > ENTRIES_MAX || depth > 16 {
            return Err(io::Error::other("too many files, or too deep"));
        }
        if about.is_dir() {
            collect(&path, depth + 1, entries)?;
        }
    }
    Ok(())
}
