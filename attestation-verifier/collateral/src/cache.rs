//! What was fetched, on disk: a file for each piece, written whole or not at all, bounded in number and size.
//!
//! The folder needs no trust: what is read back is verified again before it is used. Changing a file loses the piece;
//! putting back an old one brings back an old piece, which its own validity bounds.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use touchstone_formats::text::{base64_decode, base64_encode};

use crate::Error;
use crate::item::Item;
use crate::verify::Piece;

const VERSION: &str = "touchstone/collateral-cache/1";
/// An entry, at most: the largest piece in base64 and what is around it. Bytes.
const MOST_ENTRY: u64 = 1 << 20;
/// Tells writers of one process apart.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Bounds of a cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// Most entries.
    pub entries: usize,
    /// Most bytes of all entries together.
    pub bytes: u64,
}

impl Default for CacheLimits {
    /// Enough for a thousand chips; 64 MiB.
    fn default() -> Self {
        CacheLimits {
            entries: 4096,
            bytes: 64 << 20,
        }
    }
}

/// A folder of pieces.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    limits: CacheLimits,
}

/// A piece as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    v: String,
    /// The item's address: a file under another name is another item's.
    target: String,
    /// When it was fetched, Unix seconds.
    fetched: u64,
    issuer_chain: Option<String>,
    /// Base64.
    body: String,
}

/// Bytes out of the cache; nothing says yet that they are genuine.
pub(crate) struct Kept {
    pub body: Vec<u8>,
    pub issuer_chain: Option<String>,
    pub fetched: u64,
}

impl Cache {
    /// Opens the folder; makes it if it is not there.
    pub fn open(folder: &Path, limits: CacheLimits) -> Result<Cache, Error> {
        fs::create_dir_all(folder).map_err(|error| Error::Io {
            path: folder.to_owned(),
            error,
        })?;
        Ok(Cache {
            folder: folder.to_owned(),
            limits,
        })
    }

    /// What is kept of an item; none if there is nothing, or nothing that can be read.
    pub fn read(&self, item: &Item) -> Option<Kept> {
        let path = self.folder.join(item.file_name());
        // A pipe would be waited for, for ever.
        fs::metadata(&path).ok()?.is_file().then_some(())?;
        let mut bytes = Vec::new();
        File::open(path)
            .ok()?
            .take(MOST_ENTRY + 1)
            .read_to_end(&mut bytes)
            .ok()?;
        let entry: Entry = serde_json::from_slice(&bytes).ok()?;
        let right = entry.v == VERSION && entry.target == item.target();
        right.then_some(())?;
        Some(Kept {
            body: base64_decode(&entry.body).ok()?,
            issuer_chain: entry.issuer_chain,
            fetched: entry.fetched,
        })
    }

    /// Keeps a piece, and drops the oldest ones if there are too many.
    pub fn write(&self, piece: &Piece, fetched: u64) -> Result<(), Error> {
        let entry = Entry {
            v: VERSION.to_owned(),
            target: piece.item.target(),
            fetched,
            issuer_chain: piece.issuer_chain.clone(),
            body: base64_encode(&piece.body),
        };
        let bytes = serde_json::to_vec(&entry).map_err(|e| Error::Usage(e.to_string()))?;
        let path = self.folder.join(piece.item.file_name());
        write_atomically(&path, &bytes).map_err(|error| Error::Io { path, error })?;
        self.shrink().map_err(|error| Error::Io {
            path: self.folder.clone(),
            error,
        })
    }

    fn shrink(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Not ours, or being written.
            if !entry.file_name().as_encoded_bytes().ends_with(b".json") {
                continue;
            }
            // Another process may just have removed it.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
        let mut count = files.len();
        for (_, length, path) in files {
            if count <= self.limits.entries && bytes <= self.limits.bytes {
                break;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            count -= 1;
            bytes -= length;
        }
        Ok(())
    }
}

/// Writes a file so that readers find the old one or the new one, and so does a machine that lost its power: the bytes reach
/// the disk before the name does, and the name before this returns.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let own = WRITES.fetch_add(1, Ordering::Relaxed);
    // A name that begins with a dot is one that hosts and caches pass over.
    let new = folder.join(format!(".{name}.{}-{own}.new", std::process::id()));
    // What has this name is left over, or a link that somebody laid: neither is written into.
    let written = match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => File::create_new(&new),
    };
    let written = written
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        // What is left of it is in nobody's way; the first error counts.
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use attestation_verifier::authenticate::Window;

    use super::*;

    fn piece(n: u8) -> Piece {
        Piece {
            item: Item::TcbInfo { fmspc: [n; 6] },
            body: vec![n; 3000],
            issuer_chain: Some("PEM".into()),
            window: Window { from: 1, to: 2 },
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("new"), CacheLimits::default()).unwrap();
        assert!(cache.read(&piece(1).item).is_none());
        cache.write(&piece(1), 77).unwrap();
        let kept = cache.read(&piece(1).item).unwrap();
        assert_eq!((kept.body, kept.fetched), (piece(1).body, 77));
        assert!(cache.read(&piece(2).item).is_none());

        // Another item's file under this name, half a file, no file of ours.
        let path = |n| folder.path().join("new").join(piece(n).item.file_name());
        fs::copy(path(1), path(2)).unwrap();
        assert!(cache.read(&piece(2).item).is_none());
        let whole = fs::read(path(1)).unwrap();
        for bad in [&whole[..whole.len() / 2], b"", b"{}", &vec![b' '; 2 << 20]] {
            fs::write(path(1), bad).unwrap();
            assert!(cache.read(&piece(1).item).is_none());
        }
        let left: Vec<_> = fs::read_dir(folder.path().join("new")).unwrap().collect();
        assert_eq!(left.len(), 2, "nothing half written stays");
    }

    #[cfg(unix)]
    #[test]
    fn nothing_outside_of_the_folder_is_written_and_no_pipe_is_waited_for() {
        use std::os::unix::fs::symlink;
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("cache");
        let cache = Cache::open(&folder, CacheLimits::default()).unwrap();
        let victim = place.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        let name = piece(1).item.file_name();
        // Links under the piece's name, and under every name that the next writes could choose first.
        symlink(&victim, folder.join(&name)).unwrap();
        for own in 0..1000 {
            let new = format!(".{name}.{}-{own}.new", std::process::id());
            symlink(&victim, folder.join(new)).unwrap();
        }
        cache.write(&piece(1), 77).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        assert_eq!(cache.read(&piece(1).item).unwrap().fetched, 77);

        let pipe = folder.join(piece(2).item.file_name());
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(cache.read(&piece(2).item).is_none());
    }

    #[test]
    fn the_oldest_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let bounded =
            |entries, bytes| Cache::open(folder.path(), CacheLimits { entries, bytes }).unwrap();
        let cache = bounded(3, 1 << 20);
        for n in 0..5 {
            cache.write(&piece(n), n.into()).unwrap();
            let path = folder.path().join(piece(n).item.file_name());
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000 + u64::from(n));
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(at)
                .unwrap();
        }
        let there = |cache: &Cache| -> Vec<u8> {
            (0..6)
                .filter(|n| cache.read(&piece(*n).item).is_some())
                .collect()
        };
        assert_eq!(there(&cache), [2, 3, 4]);
        let small = bounded(9, 9000);
        small.write(&piece(5), 9).unwrap();
        assert_eq!(there(&small), [4, 5]);
    }
}
