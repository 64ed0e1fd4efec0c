//! configfs-tsm: a folder whose files make a report when they are written and read in order.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    MAX_CERTIFICATES, MAX_PRIVILEGE, MAX_REPORT, Provider, Report, SourceError, files,
    some_certificates,
};

/// How often a quote is tried while another process writes to the same entry.
const TRIES: u32 = 4;

/// An entry of configfs-tsm.
///
/// Nothing is open between quotes. An entry that [`open`](Self::open) made is removed when this is dropped; one that was
/// there stays.
#[derive(Debug)]
pub struct Tsm {
    entry: PathBuf,
    privilege: Option<u8>,
    made: bool,
}

/// Whether this can name an entry: 1 to 64 of ASCII letters, digits, `-`, `_` and `.`, not beginning with `.`.
pub fn is_entry_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

impl Tsm {
    /// The entry of this name in `report_dir` (`/sys/kernel/config/tsm/report`): if it is there it is used, else it is
    /// made. An entry should be used by one process.
    ///
    /// `privilege` is the privilege level to ask for with each report (SEV-SNP: VMPL); `None` leaves what the entry has, 0
    /// in one that is new.
    ///
    /// # Errors
    /// [`SourceError::NoProvider`] in a kernel without a driver of a confidential VM, [`SourceError::Absent`] in one
    /// without configfs-tsm, [`SourceError::UnknownProvider`], [`SourceError::Privilege`]; the others as they come.
    pub fn open(
        report_dir: &Path,
        entry: &str,
        privilege: Option<u8>,
    ) -> Result<Self, SourceError> {
        if !is_entry_name(entry) {
            return Err(SourceError::Malformed {
                path: report_dir.to_owned(),
                what: "entry name",
                found: entry.escape_debug().to_string(),
                expected: "1 to 64 of a-z A-Z 0-9 - _ . and no . at the beginning".into(),
            });
        }
        let path = report_dir.join(entry);
        let made = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => false,
            Ok(_) => {
                return Err(SourceError::Malformed {
                    path,
                    what: "entry",
                    found: "no folder".into(),
                    expected: "a folder".into(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::create_dir(&path) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(SourceError::of(&path, "making", error)),
            },
            Err(error) => return Err(SourceError::of(&path, "looking", error)),
        };
        let tsm = Self {
            entry: path,
            privilege,
            made,
        };
        tsm.provider()?;
        if let Some(asked) = privilege {
            tsm.check_privilege(asked)?;
        }
        Ok(tsm)
    }

    /// What is behind the interface.
    ///
    /// # Errors
    /// [`SourceError::UnknownProvider`]; the others as they come.
    pub fn provider(&self) -> Result<Provider, SourceError> {
        let path = self.entry.join("provider");
        let name = files::text(&path)?;
        Provider::from_name(&name).ok_or(SourceError::UnknownProvider { path, found: name })
    }

    /// The lowest privilege level that can be asked for; `None`: the provider has no such levels.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn privilege_floor(&self) -> Result<Option<u64>, SourceError> {
        match files::number(&self.entry.join("privlevel_floor")) {
            Ok(floor) => Ok(Some(floor)),
            Err(SourceError::Absent { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn check_privilege(&self, asked: u8) -> Result<(), SourceError> {
        let expected = match self.privilege_floor()? {
            Some(floor) if (floor..=u64::from(MAX_PRIVILEGE)).contains(&u64::from(asked)) => {
                return Ok(());
            }
            Some(floor) => format!("expected {floor} to {MAX_PRIVILEGE}"),
            None => "this provider has no privilege levels".into(),
        };
        Err(SourceError::Privilege {
            path: self.entry.join("privlevel"),
            asked,
            expected,
        })
    }

    /// Asks for a quote over these 64 bytes.
    ///
    /// The kernel counts every write to the entry in `generation`. Counting our own says whether what was read is the
    /// answer to them; if not, somebody else wrote in between, and it is tried again, four times in all.
    ///
    /// # Errors
    /// [`SourceError::Raced`] when that did not help; the others at once, as they come.
    pub fn quote(&mut self, report_data: &[u8; 64]) -> Result<Report, SourceError> {
        let mut tries = 1;
        loop {
            match self.attempt(report_data, tries) {
                Err(SourceError::Raced { .. }) if tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    fn attempt(&self, report_data: &[u8; 64], tries: u32) -> Result<Report, SourceError> {
        let generation = self.entry.join("generation");
        let before = files::number(&generation)?;
        let mut writes = 0;
        if let Some(privilege) = self.privilege {
            self.write_privilege(privilege)?;
            writes += 1;
        }
        files::write(&self.entry.join("inblob"), report_data)?;
        writes += 1;
        let made = self.read_report();
        // Looked at before any error of reading is believed, too: it may be the error of somebody else's request.
        let found = files::number(&generation)?;
        let expected = before.wrapping_add(writes);
        if found != expected {
            return Err(SourceError::Raced {
                path: self.entry.clone(),
                expected,
                found,
                tries,
            });
        }
        made
    }

    fn read_report(&self) -> Result<Report, SourceError> {
        let path = self.entry.join("outblob");
        let quote = files::read(&path, MAX_REPORT)?;
        if quote.is_empty() {
            return Err(SourceError::Malformed {
                path,
                what: "length",
                found: "0 bytes".into(),
                expected: "a report".into(),
            });
        }
        let provider = self.provider()?;
        let certificates = match provider {
            Provider::SevGuest => self.certificates()?,
            Provider::TdxGuest => None,
        };
        Ok(Report {
            tee: provider.tee(),
            quote,
            certificates,
            privilege: self.privilege,
        })
    }

    fn certificates(&self) -> Result<Option<Vec<u8>>, SourceError> {
        match files::read(&self.entry.join("auxblob"), MAX_CERTIFICATES) {
            Ok(table) => Ok(some_certificates(table)),
            // Shown only where there can be any.
            Err(SourceError::Absent { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_privilege(&self, privilege: u8) -> Result<(), SourceError> {
        let path = self.entry.join("privlevel");
        match files::write(&path, format!("{privilege}\n").as_bytes()) {
            Err(SourceError::Interface { source, .. })
                if source.kind() == io::ErrorKind::InvalidInput =>
            {
                let floor = self.privilege_floor()?;
                Err(SourceError::Privilege {
                    path,
                    asked: privilege,
                    expected: format!(
                        "expected {} to {MAX_PRIVILEGE}",
                        floor.map_or("0".into(), |floor| floor.to_string())
                    ),
                })
            }
            done => done,
        }
    }
}

impl Drop for Tsm {
    fn drop(&mut self) {
        if self.made {
            // A leftover does no harm: the next `open` uses it.
            let _ = fs::remove_dir(&self.entry);
        }
    }
}
