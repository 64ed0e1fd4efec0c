//! The folder of kept answers.
//!
//! ```text
//! DIR/2026-11-21/<receipt id>/            verified, as `touchstone check` reads it
//! DIR/refused/2026-11-21/<receipt id>/    not verified and not passed on; verdict.json says why
//! DIR/.writing/                           being written; emptied at every start
//! ```
//!
//! A folder is written under `.writing` and then renamed, so that whoever looks finds it whole or not at all.
//! What is in there are questions and answers: folders are made for their owner alone.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result};
use attestation_verifier::Verdict;
use attestation_verifier::dates::rfc3339;

const WRITING: &str = ".writing";
const REFUSED: &str = "refused";
/// Most refused answers that are kept under one receipt id and day.
const SAME: u32 = 1_000;

/// Where answers are kept.
#[derive(Debug)]
pub struct Keeper {
    root: PathBuf,
    count: AtomicU64,
}

impl Keeper {
    /// Takes the folder, makes it if it is not there, and shows that it can be written.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn open(root: &Path) -> Result<Keeper> {
        let keeper = Keeper {
            root: root.to_owned(),
            count: AtomicU64::new(0),
        };
        let writing = root.join(WRITING);
        let probe = || -> io::Result<()> {
            // Left over from a proxy that was killed: never complete.
            match fs::remove_dir_all(&writing) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            folder(&writing)?;
            fs::write(writing.join("probe"), b"x")?;
            fs::remove_file(writing.join("probe"))
        };
        probe().with_context(|| format!("cannot keep answers in {}", root.display()))?;
        Ok(keeper)
    }

    /// Keeps a verified answer: `write` fills its folder, and makes each file durable. An id that is there
    /// already is an error: no two answers have one receipt.
    ///
    /// # Errors
    /// It could not be written whole; then nothing of it is there.
    pub fn verified(
        &self,
        id: &str,
        write: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<PathBuf> {
        self.place(id, write, &self.root.join(day(now()?)), 1)
    }

    /// Keeps what did not verify, as evidence. The same id may come again.
    ///
    /// # Errors
    /// It could not be written whole; then nothing of it is there.
    pub fn refused(
        &self,
        id: &str,
        write: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<PathBuf> {
        self.place(id, write, &self.root.join(REFUSED).join(day(now()?)), SAME)
    }

    fn place(
        &self,
        id: &str,
        write: impl FnOnce(&Path) -> io::Result<()>,
        day: &Path,
        same: u32,
    ) -> io::Result<PathBuf> {
        // It becomes part of a path.
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no receipt id"));
        }
        let number = self.count.fetch_add(1, Relaxed);
        let temporary = self.root.join(WRITING).join(format!("{id}-{number}"));
        // Files first, then their names, then the folder's own name: whatever a crash leaves is whole.
        let placed = folder(&temporary)
            .and_then(|()| write(&temporary))
            .and_then(|()| sync(&temporary))
            .and_then(|()| folder(day))
            .and_then(|()| rename(&temporary, day, id, same));
        match &placed {
            Ok(_) => sync(day)?,
            Err(_) => drop(fs::remove_dir_all(&temporary)),
        }
        placed
    }
}

/// Writes one file into a folder that is being kept, durably.
pub fn file(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(folder.join(name))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes `verdict.json`.
pub fn verdict(folder: &Path, verdict: &Verdict) -> io::Result<()> {
    file(
        folder,
        "verdict.json",
        (verdict.to_json() + "\n").as_bytes(),
    )
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn now() -> io::Result<u64> {
    crate::inputs::now().map_err(io::Error::other)
}

/// Renames to the first name that is free, of `same` names.
fn rename(from: &Path, day: &Path, id: &str, same: u32) -> io::Result<PathBuf> {
    let mut last = Err(ErrorKind::AlreadyExists.into());
    for number in 1..=same {
        let name = match number {
            1 => id.to_owned(),
            _ => format!("{id}-{number}"),
        };
        let to = day.join(name);
        // rename(2) replaces an empty folder and no other.
        match fs::rename(from, &to) {
            Ok(()) => return Ok(to),
            Err(error) => last = Err(error),
        }
        if !to.exists() {
            break;
        }
    }
    last
}

fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn day(now: u64) -> String {
    rfc3339(now).chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path) -> io::Result<()> {
        fs::write(folder.join("bundle.json"), b"{}\n")
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .map(|entries| {
                entries
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        names
    }

    fn root() -> (tempfile::TempDir, Keeper, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let keeper = Keeper::open(root.path()).unwrap();
        let today = root.path().join(day(now().unwrap()));
        (root, keeper, today)
    }

    #[test]
    fn folders_appear_whole_or_not_at_all() {
        assert_eq!(day(1_763_596_800), "2025-11-20");
        let (root, keeper, today) = root();
        let kept = keeper.verified("ab12", write).unwrap();
        assert_eq!(kept, today.join("ab12"));
        assert_eq!(names(&kept), ["bundle.json"]);

        let failed = keeper.verified("ab13", |folder| {
            write(folder)?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(failed.is_err());
        assert_eq!(names(&today), ["ab12"]);
        assert_eq!(names(&root.path().join(WRITING)), [""; 0]);
    }

    #[test]
    fn one_receipt_is_one_answer_but_lies_may_repeat() {
        let (root, keeper, today) = root();
        assert!(keeper.verified("ab", write).is_ok());
        assert!(keeper.verified("ab", write).is_err());
        let refused = root.path().join(REFUSED).join(today.file_name().unwrap());
        for name in ["ab", "ab-2", "ab-3"] {
            assert_eq!(keeper.refused("ab", write).unwrap(), refused.join(name));
        }
        for bad in ["", "..", "a/b"] {
            assert!(keeper.refused(bad, write).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn questions_and_answers_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (_root, keeper, _) = root();
        let kept = keeper.verified("ab", write).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&kept), 0o700);
        assert_eq!(mode(kept.parent().unwrap()), 0o700);
    }

    #[test]
    fn what_was_half_written_is_gone_at_the_next_start() {
        let root = tempfile::tempdir().unwrap();
        let half = root.path().join(WRITING).join("ab-0");
        fs::create_dir_all(&half).unwrap();
        write(&half).unwrap();
        Keeper::open(root.path()).unwrap();
        assert_eq!(names(&root.path().join(WRITING)), [""; 0]);

        let file = root.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = Keeper::open(&file).unwrap_err();
        assert!(format!("{error:#}").contains("cannot keep answers"));
    }
}
