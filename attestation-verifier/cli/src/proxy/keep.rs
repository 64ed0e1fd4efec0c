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

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result};
use attestation_verifier::Verdict;
use attestation_verifier::dates::rfc3339;
use touchstone_formats::Bundle;

const WRITING: &str = ".writing";
const REFUSED: &str = "refused";
/// Most refused answers that are kept under one receipt id and day.
const SAME: u32 = 1_000;

/// Where answers are kept.
#[derive(Debug)]
pub struct Keeper {
    root: PathBuf,
    count: AtomicU64,
    /// The folder itself, locked as long as this lives.
    _lock: File,
}

impl Keeper {
    /// Takes the folder for itself, makes it if it is not there, and shows that it can be written.
    ///
    /// # Errors
    /// It cannot be made or written, or another proxy has it.
    pub fn open(root: &Path) -> Result<Keeper> {
        let open = || -> io::Result<File> {
            folder(root)?;
            let lock = File::open(root)?;
            lock.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => {
                    io::Error::other("another proxy keeps its answers there")
                }
                TryLockError::Error(error) => error,
            })?;
            // Left over from a proxy that was killed: never complete.
            let writing = root.join(WRITING);
            match fs::remove_dir_all(&writing) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            folder(&writing)?;
            fs::write(writing.join("probe"), b"x")?;
            fs::remove_file(writing.join("probe"))?;
            Ok(lock)
        };
        Ok(Keeper {
            root: root.to_owned(),
            count: AtomicU64::new(0),
            _lock: open().with_context(|| format!("cannot keep answers in {}", root.display()))?,
        })
    }

    /// Begins to keep an answer: `write` fills its folder with what there is before it is judged (writing takes its
    /// time, which the seal takes anyway), and makes each file durable.
    ///
    /// # Errors
    /// It could not be written whole; then nothing of it is there.
    pub fn begin(
        &self,
        id: &str,
        write: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Keeping> {
        // It becomes part of a path.
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no receipt id"));
        }
        let number = self.count.fetch_add(1, Relaxed);
        let keeping = Keeping {
            root: self.root.clone(),
            folder: self.root.join(WRITING).join(format!("{id}-{number}")),
            id: id.to_owned(),
        };
        folder(&keeping.folder)?;
        write(&keeping.folder)?;
        Ok(keeping)
    }
}

/// An answer that is being kept. Dropping it leaves nothing.
#[derive(Debug)]
pub struct Keeping {
    root: PathBuf,
    folder: PathBuf,
    id: String,
}

impl Keeping {
    /// It was verified, with this bundle: keeps it. An id that is there already is an error: no two answers have
    /// one receipt.
    ///
    /// # Errors
    /// It could not be written whole; then nothing of it is there.
    pub fn verified(self, bundle: &Bundle) -> io::Result<PathBuf> {
        file(&self.folder, "bundle.json", &bundle.to_file())?;
        self.place(&self.root.join(day(now()?)), 1)
    }

    /// It was not, and this is why: keeps it as evidence. The same id may come again.
    ///
    /// # Errors
    /// As [`Keeping::verified`].
    pub fn refused(self, bundle: Option<&Bundle>, verdict: &Verdict) -> io::Result<PathBuf> {
        if let Some(bundle) = bundle {
            file(&self.folder, "bundle.json", &bundle.to_file())?;
        }
        let verdict = verdict.to_json() + "\n";
        file(&self.folder, "verdict.json", verdict.as_bytes())?;
        self.place(&self.root.join(REFUSED).join(day(now()?)), SAME)
    }

    /// Gives the folder its name. Files were durable first, then their names, now the folder's own name: whatever
    /// a crash leaves under it is whole.
    fn place(&self, day: &Path, same: u32) -> io::Result<PathBuf> {
        sync(&self.folder)?;
        folder(day)?;
        let placed = rename(&self.folder, day, &self.id, same)?;
        sync(day)?;
        Ok(placed)
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        // Renamed, there is nothing under this name any more.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Writes one file into a folder that is being kept, durably.
pub fn file(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(folder.join(name))?;
    file.write_all(bytes)?;
    file.sync_all()
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
        fs::write(folder.join("response.bin"), b"{}")
    }

    fn bundle() -> Bundle {
        let world = touchstone_testkit::mint::World::new(1);
        let exchange = touchstone_testkit::mint::Exchange::json(1);
        world.mint(exchange).finish().bundle
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
        let keeping = keeper.begin("ab12", write).unwrap();
        assert_eq!(names(&today), [""; 0], "not before it is verified");
        let kept = keeping.verified(&bundle()).unwrap();
        assert_eq!(kept, today.join("ab12"));
        assert_eq!(names(&kept), ["bundle.json", "response.bin"]);

        drop(keeper.begin("ab13", write).unwrap());
        let failed = keeper.begin("ab14", |folder| {
            write(folder)?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(failed.is_err());
        let keeping = keeper.begin("ab15", write).unwrap();
        fs::remove_dir_all(&keeping.folder).unwrap();
        assert!(keeping.verified(&bundle()).is_err());
        assert_eq!(names(&today), ["ab12"]);
        assert_eq!(names(&root.path().join(WRITING)), [""; 0]);
    }

    #[test]
    fn one_receipt_is_one_answer_but_lies_may_repeat() {
        let (root, keeper, today) = root();
        let bundle = bundle();
        let verified = || keeper.begin("ab", write).unwrap().verified(&bundle);
        assert!(verified().is_ok());
        assert!(verified().is_err());
        let refused = root.path().join(REFUSED).join(today.file_name().unwrap());
        let verdict = attestation_verifier::verdict::usage("usage", "a reason");
        for (name, bundle, files) in [
            ("ab", None, vec!["response.bin", "verdict.json"]),
            (
                "ab-2",
                Some(&bundle),
                vec!["bundle.json", "response.bin", "verdict.json"],
            ),
        ] {
            let keeping = keeper.begin("ab", write).unwrap();
            let kept = keeping.refused(bundle, &verdict).unwrap();
            assert_eq!(kept, refused.join(name));
            assert_eq!(names(&kept), files);
        }
        for bad in ["", "..", "a/b"] {
            assert!(keeper.begin(bad, write).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn questions_and_answers_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (_root, keeper, _) = root();
        let kept = keeper
            .begin("ab", write)
            .unwrap()
            .verified(&bundle())
            .unwrap();
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
        let keeper = Keeper::open(root.path()).unwrap();
        assert_eq!(names(&root.path().join(WRITING)), [""; 0]);

        // But not while the other one runs.
        let error = Keeper::open(root.path()).unwrap_err();
        assert!(format!("{error:#}").contains("another proxy"));
        drop(keeper);
        Keeper::open(root.path()).unwrap();

        let file = root.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = Keeper::open(&file).unwrap_err();
        assert!(format!("{error:#}").contains("cannot keep answers"));
    }
}
