//! Writing files: those of an exchange, and those that are replaced whole.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tells writers of one process apart.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Writes files into a folder, in their order, each made durable.
pub(crate) fn write(folder: &Path, files: &[(&str, Vec<u8>)]) -> io::Result<()> {
    let named =
        |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    fs::create_dir_all(folder).map_err(|e| named(folder, e))?;
    for (name, bytes) in files {
        let path = folder.join(name);
        File::create(&path)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            })
            .map_err(|e| named(&path, e))?;
    }
    Ok(())
}

/// What a record's writer gave.
pub(crate) fn written(file: touchstone_formats::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    file.map_err(io::Error::other)
}

/// Writes a file in place of one that may be there: whoever reads it meanwhile, or after a crash, has one of the two whole.
///
/// # Errors
/// It could not be written; then what was there is there still.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Others may be at it: each writes a file of its own first.
    let own = WRITES.fetch_add(1, Ordering::Relaxed);
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}-{own}.new", std::process::id()));
    let new = Path::new(&new);
    // What has this name is left over, or a link that somebody laid: neither is written into.
    let created = match fs::remove_file(new) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => File::create_new(new),
    };
    let written = created
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(new, path));
    if let Err(error) = written {
        let _ = fs::remove_file(new);
        return Err(error);
    }
    // The name is durable once its folder is.
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
