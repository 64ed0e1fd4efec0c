//! Writing the files of an exchange.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

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
