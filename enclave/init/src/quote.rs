//! The quote entry of configfs-tsm, and the event log: made by root, for the enclave alone.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::Path,
};

use crate::{
    error::{Doing, InitError, read_bytes},
    say,
};

/// Where the kernel offers entries.
const REPORT: &str = "/sys/kernel/config/tsm/report";
/// What the kernel calls TDX's provider.
pub const TDX: &str = "tdx_guest";
/// Where the kernel shows the event log that firmware leaves behind in a TDX guest (ACPI's CCEL).
const CCEL: &str = "/sys/firmware/acpi/tables/data/CCEL";
/// Where the enclave finds it.
const FOLDER: &str = "/run/touchstone";
/// Longest event log that is copied, in bytes. OVMF makes room for 64 KiB.
const CCEL_MAX: u64 = 1 << 20;

/// Makes the entry and gives its files to the enclave, so that nobody else asks for quotes: what is for writing can be
/// written by it alone, what is for reading read by it alone. Gives the provider's name.
///
/// # Errors
/// [`InitError::NoProvider`], or what the system says.
pub fn make_entry(entry: &str, uid: u32) -> Result<String, InitError> {
    let folder = format!("{REPORT}/{entry}");
    fs::create_dir(&folder).map_err(InitError::NoProvider)?;
    let doing = || format!("giving {folder} to the enclave");
    for file in fs::read_dir(&folder).doing(doing)? {
        let file = file.doing(doing)?;
        let is_written = file.metadata().doing(doing)?.mode() & 0o200 != 0;
        let mode = if is_written { 0o200 } else { 0o400 };
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).doing(doing)?;
        chown(file.path(), Some(uid), Some(uid)).doing(doing)?;
        let now = file.metadata().doing(doing)?;
        if (now.uid(), now.mode() & 0o7777) != (uid, mode) {
            return Err(InitError::ReadBack {
                what: format!("owner and mode of {}", file.path().display()),
                found: format!("{} {:o}", now.uid(), now.mode() & 0o7777),
                expected: format!("{uid} {mode:o}"),
            });
        }
    }
    let provider = read_bytes(&Path::new(&folder).join("provider"), 256)?;
    Ok(String::from_utf8_lossy(&provider).trim().into())
}

/// Copies the event log, where there is one, to `/run/touchstone/ccel`, which the enclave alone can read. Gives its size
/// in bytes.
///
/// # Errors
/// What the system says.
pub fn copy_event_log(uid: u32) -> Result<Option<usize>, InitError> {
    let doing = || format!("making {FOLDER}");
    DirBuilder::new().mode(0o750).create(FOLDER).doing(doing)?;
    chown(FOLDER, Some(0), Some(uid)).doing(doing)?;
    if !fs::exists(CCEL).doing(|| format!("looking for {CCEL}"))? {
        return Ok(None);
    }
    let log = read_bytes(Path::new(CCEL), CCEL_MAX)?;
    if !is_event_log(&log) {
        say("event log: left out, it does not begin as one");
        return Ok(None);
    }
    let path = format!("{FOLDER}/ccel");
    let doing = || format!("writing {path}");
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(&path)
        .and_then(|mut file| file.write_all(&log))
        .doing(doing)?;
    chown(&path, Some(uid), Some(uid)).doing(doing)?;
    Ok(Some(log.len()))
}

/// Whether this begins as every event log does: with EV_NO_ACTION, whose data begin with the format's name (TCG PC Client
/// Platform Firmware Profile, the crypto-agile log).
///
/// Where the log lies is what a table of ACPI's says, which comes from the host; the kernel shows whatever memory of the
/// guest's is there, up to a page of it, and evidence goes to the host. What does not begin like this stays in the guest.
fn is_event_log(bytes: &[u8]) -> bool {
    const NO_ACTION: [u8; 4] = 3u32.to_le_bytes();
    bytes.get(4..8) == Some(&NO_ACTION[..])
        && bytes.get(8..28) == Some(&[0; 20][..])
        && bytes.get(32..48) == Some(&b"Spec ID Event03\0"[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_no_event_log_stays_in_the_guest() {
        let mut log = [1u32, 3].map(u32::to_le_bytes).concat();
        log.resize(28, 0);
        log.extend(33u32.to_le_bytes());
        log.extend(b"Spec ID Event03\0");
        assert!(is_event_log(&log));
        assert!(is_event_log(&[log.clone(), vec![0xff; 4096]].concat()));
        for at in [4, 8, 27, 32, 47] {
            let mut other = log.clone();
            *other.get_mut(at).unwrap() ^= 0x40;
            assert!(!is_event_log(&other), "byte {at}");
        }
        for other in [
            &[][..],
            &[0; 4096],
            &[0xff; 4096],
            log.split_last().unwrap().1,
        ] {
            assert!(!is_event_log(other));
        }
    }
}
