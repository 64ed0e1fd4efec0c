//! Mounting, and what has to be there for it.

use std::{
    fmt,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use fuser::{BackgroundSession, FileAttr, FileType, Filesystem, MountOption};
use rustix::mount::{UnmountFlags, unmount};

/// Longest wait for files to be closed before unmounting.
const LAST_CLOSE: Duration = Duration::from_secs(5);

/// Why nothing can be mounted here; `None`: it can.
pub fn unusable() -> Option<String> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    let why = || {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        if let Err(error) = device {
            return Some(format!("FUSE: opening /dev/fuse: {error}"));
        }
        let tried = tempfile::tempdir().and_then(|place| {
            let session = fuser::spawn_mount2(Nothing, place.path(), &[MountOption::RO])?;
            session.join();
            Ok(())
        });
        let error: io::Error = tried.err()?;
        Some(format!("FUSE: mounting: {error}"))
    };
    WHY.get_or_init(why).clone()
}

struct Nothing;

impl Filesystem for Nothing {}

/// State that a file system and a test share.
pub trait Shared: Send + 'static {
    /// Answers whatever was made to wait.
    fn release(&mut self);
    /// How many files are open.
    fn open_files(&self) -> usize;
}

/// A mounted file system. Dropping it unmounts it.
pub struct Mounted<S: Shared> {
    place: PathBuf,
    state: Arc<Mutex<S>>,
    session: Option<BackgroundSession>,
}

impl<S: Shared> Mounted<S> {
    pub(crate) fn mount<F: Filesystem + Send + 'static>(
        place: &Path,
        subtype: &str,
        state: Arc<Mutex<S>>,
        filesystem: F,
    ) -> io::Result<Self> {
        let options = [
            MountOption::FSName("simulated".into()),
            MountOption::Subtype(subtype.into()),
            MountOption::AllowOther,
        ];
        Ok(Self {
            place: place.to_owned(),
            state,
            session: Some(fuser::spawn_mount2(filesystem, place, &options)?),
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.place
    }

    /// How it behaves and what it has seen; may be changed at any time. Not to be held while a file of it is used.
    pub fn state(&self) -> MutexGuard<'_, S> {
        lock(&self.state)
    }
}

impl<S: Shared> Drop for Mounted<S> {
    fn drop(&mut self) {
        // What hangs keeps its file open, and an open file the mount.
        let began = Instant::now();
        let busy = || {
            let mut state = self.state();
            state.release();
            state.open_files() > 0
        };
        while busy() && began.elapsed() < LAST_CLOSE {
            thread::sleep(Duration::from_millis(5));
        }
        if let Some(session) = self.session.take() {
            // The kernel tells of a file's last close before it lets go of the mount. An unmount between the two would be "busy",
            // and the session would go on for ever. If this is not allowed, fusermount does it.
            let _ = unmount(&self.place, UnmountFlags::DETACH);
            session.join();
        }
    }
}

impl<S: Shared> fmt::Debug for Mounted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mounted({})", self.place.display())
    }
}

/// A panic elsewhere in a test must not hide behind a poisoned lock.
pub(crate) fn lock<S>(state: &Mutex<S>) -> MutexGuard<'_, S> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attributes of a folder or file.
pub(crate) fn attributes(ino: u64, kind: FileType, perm: u16) -> FileAttr {
    let then = std::time::UNIX_EPOCH;
    FileAttr {
        ino,
        size: if kind == FileType::Directory { 0 } else { 4096 },
        blocks: 0,
        atime: then,
        mtime: then,
        ctime: then,
        crtime: then,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
