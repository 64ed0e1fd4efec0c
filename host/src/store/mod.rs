//! What outlives a restart: one SQLite file.
//!
//! One thread writes (`writer`); callers' reads have connections of their own (`read`), which in
//! WAL mode neither wait for the writer nor make it wait. There is no second kind of store, and no
//! abstraction over one.

pub mod batch;
mod database;
mod insert;
mod notes;
mod pack;
mod read;
mod recent;
mod writer;

use std::{
    collections::HashSet,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        mpsc::{self, SyncSender},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use thiserror::Error;
use tokio::sync::oneshot;
use touchstone_formats::Digest;

use crate::{
    metrics::Metrics,
    pending::{Id, Pending},
    waiters::Waiters,
};
use batch::{ReadBatch, ReadKeyset, Unsealed};
pub use pack::Sealed;
use read::Readers;
pub use read::{BatchRow, Fate, KeysetRow, Lookup, Place};
use recent::Recent;
use writer::{Command, Writer};

/// "TSHO": marks the file as ours.
const APPLICATION_ID: i32 = 0x5453_484f;
/// How much later than others the thread that writes has its turn where there are not enough cores for all (`nice(2)`).
const NICE: i32 = 10;
/// Of `schema.sql`.
const SCHEMA_VERSION: i32 = 3;
/// What makes a file of version 1, which knew one enclave alone, one of version 2.
const FROM_VERSION_1: &str = "
    CREATE TABLE enclaves (
        name TEXT    PRIMARY KEY,
        boot INTEGER NOT NULL REFERENCES boots
    ) STRICT, WITHOUT ROWID;
    INSERT INTO enclaves (name, boot) SELECT 'enclave', boot FROM boots ORDER BY turn DESC LIMIT 1;
    CREATE TABLE objects (
        digest BLOB PRIMARY KEY,
        bytes  BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE pending ADD COLUMN enclave TEXT;";
/// What makes a file of version 2, which had a row for each promise, one of version 3.
const FROM_VERSION_2: &str = "
    CREATE TABLE notes (
        round      INTEGER NOT NULL,
        part       INTEGER NOT NULL,
        keyset     BLOB    NOT NULL,
        guarantees TEXT    NOT NULL,
        boot       INTEGER REFERENCES boots,
        enclave    TEXT,
        ids        BLOB    NOT NULL,
        PRIMARY KEY (round, part)
    ) STRICT, WITHOUT ROWID;";
/// Files up to this size are checked whole at every start: a second or so.
const CHECKED_WHOLE: u64 = 256 << 20;

/// What can go wrong with the store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Not to be opened, made or locked.
    #[error("store {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another process uses it.
    #[error("store {path}: another host uses it")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Another program's file, or another version's.
    #[error("store {path}: found {found}, expected {expected}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// Damaged. Nothing is repaired: what is lost has to be known.
    #[error(
        "store {path} is damaged: {what}; restore it from a copy, or move it away to start with an empty one"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// SQLite refused an operation.
    #[error("store: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row holds what the host never writes.
    #[error("store: {0} is damaged")]
    Row(&'static str),
    /// A receipt that does not fit a pack.
    #[error("store: a receipt is too large to be stored")]
    TooLarge,
    /// A batch of a keyset that is not stored.
    #[error("store: a batch names a keyset that the enclave did not list")]
    UnknownKeyset(Digest),
    /// The host is stopping.
    #[error("store: closed")]
    Closed,
}

/// The store, open.
#[derive(Debug)]
pub struct Store {
    commands: SyncSender<Command>,
    readers: Readers,
    shared: Arc<Shared>,
}

/// What the writer tells the others.
#[derive(Debug)]
struct Shared {
    pending: Arc<Pending>,
    waiters: Arc<Waiters>,
    /// Keysets that are stored.
    keysets: RwLock<HashSet<Digest>>,
    /// The enclaves' names, in the order of the settings.
    names: Vec<String>,
    recent: Arc<Recent>,
    metrics: Arc<Metrics>,
}

/// The writing thread. It ends when told to, after everything told before is done.
#[derive(Debug)]
pub struct WriterThread {
    commands: SyncSender<Command>,
    thread: JoinHandle<()>,
}

impl WriterThread {
    /// Writes down what is still noted, and closes.
    pub fn finish(self) {
        let _ = self.commands.send(Command::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the store's thread had panicked");
        }
    }
}

impl Store {
    /// Opens the store, or makes it; notes that it holds are given to `pending`. `names` are those of the enclaves, in the
    /// order of the settings.
    ///
    /// # Errors
    /// [`StoreError`]: above all, a file that is damaged or not ours is never written to.
    pub fn open(
        path: &Path,
        names: Vec<String>,
        pending: Arc<Pending>,
        waiters: Arc<Waiters>,
        metrics: Arc<Metrics>,
    ) -> Result<(Arc<Self>, WriterThread), StoreError> {
        let lock = lock(path)?;
        let db = open(path)?;
        let shared = Arc::new(Shared {
            pending,
            waiters,
            keysets: RwLock::default(),
            names,
            recent: Arc::default(),
            metrics,
        });
        let mut writer = Writer::new(db, shared.clone())?;
        writer.restore()?;
        // A few commands: who asks for more waits, and the enclave keeps what is not acknowledged.
        let (commands, inbox) = mpsc::sync_channel(8);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                // Of this thread alone, and no more than a wish: callers wait for those that carry connections.
                let _ = rustix::process::setpriority_process(None, NICE);
                writer.run(&inbox);
                drop(lock);
            })
            .map_err(|error| StoreError::Io {
                path: path.to_owned(),
                error,
            })?;
        let store = Self {
            commands: commands.clone(),
            readers: Readers::new(path, shared.recent.clone()),
            shared,
        };
        Ok((Arc::new(store), WriterThread { commands, thread }))
    }

    async fn command<T: Send + 'static>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, result) = oneshot::channel();
        let commands = self.commands.clone();
        // The queue is short and the writer may be in the midst of a transaction.
        tokio::task::spawn_blocking(move || commands.send(command(done)))
            .await
            .map_err(|_| StoreError::Closed)?
            .map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    /// Stores that this boot is the current one of an enclave, with its keysets. Gives the number of the
    /// last batch of this boot that is stored.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub async fn boot(
        &self,
        enclave: usize,
        id: Id,
        keysets: Vec<ReadKeyset>,
    ) -> Result<u64, StoreError> {
        self.command(move |done| Command::Boot {
            enclave,
            id,
            keysets,
            done,
        })
        .await
    }

    /// Stores batches of a boot, all or none. When this returns they survive whatever happens to this
    /// process or machine.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub async fn batches(&self, boot: Id, batches: Vec<ReadBatch>) -> Result<(), StoreError> {
        self.command(move |done| Command::Batches {
            boot,
            batches,
            done,
        })
        .await
    }

    /// Keeps a receipt that was had from an enclave before its seal, unless the writer is busy: it only
    /// helps if the enclave ends before the seal.
    pub fn offer_unsealed(&self, enclave: usize, unsealed: Unsealed) {
        let command = Command::Unsealed { enclave, unsealed };
        let _ = self.commands.try_send(command);
    }

    /// Keeps objects that proved to have their digests.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub async fn keep_objects(&self, objects: Vec<(Digest, Bytes)>) -> Result<(), StoreError> {
        self.command(move |done| Command::Objects { objects, done })
            .await
    }

    /// The object with this digest, if the store has it: a keyset, a catalog, or what they name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn object(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers.object(digest).await
    }

    /// Which of these objects are not stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn missing_objects(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
        self.readers.missing_objects(digests).await
    }

    /// Keeps a catalog, unless the writer is busy.
    pub fn offer_catalog(&self, digest: Digest, jcs: String) {
        let _ = self.commands.try_send(Command::Catalog(digest, jcs));
    }

    /// All that is stored of a receipt. What memory has noted of it, a promise under this keyset, is stored where it is not found
    /// by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lookup(&self, id: Id, noted: Option<Digest>) -> Result<Lookup, StoreError> {
        self.readers.lookup(id, noted).await
    }

    /// What is stored for a receipt that stands elsewhere: its keyset and catalog.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn context(
        &self,
        keyset: Digest,
        catalog: Digest,
    ) -> Result<read::Context, StoreError> {
        self.readers.context(keyset, catalog).await
    }

    /// Whether a keyset is stored.
    pub fn knows_keyset(&self, digest: &Digest) -> bool {
        self.shared
            .keysets
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(digest)
    }
}

/// Takes the lock file beside the store, so that two hosts never write to one file. (SQLite would let
/// them; their acknowledgements would not agree.)
fn lock(path: &Path) -> Result<File, StoreError> {
    let io = |error| StoreError::Io {
        path: path.to_owned(),
        error,
    };
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    let lock = File::create(name).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let damaged = |what: String| StoreError::Damaged {
        path: path.to_owned(),
        what,
    };
    let clear = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(error.to_string()),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            StoreError::Io {
                path: path.to_owned(),
                error: io::Error::other(error.to_string()),
            }
        }
        _ => error.into(),
    };
    let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let mut db = Connection::open(path).map_err(clear)?;
    db.busy_timeout(Duration::from_secs(10)).map_err(clear)?;

    let pragma =
        |db: &Connection, name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let application = pragma(&db, "application_id").map_err(clear)?;
    let version = pragma(&db, "user_version").map_err(clear)?;
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(clear)?;
    match (application, version, tables) {
        (APPLICATION_ID, 1..=SCHEMA_VERSION, _) => {
            if length <= CHECKED_WHOLE {
                let check: String = db
                    .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
                    .map_err(clear)?;
                if check != "ok" {
                    return Err(damaged(check));
                }
            } else {
                tracing::info!(
                    bytes = length,
                    "the store is too large to be checked whole at the start"
                );
            }
        }
        (0, 0, 0) => {}
        (APPLICATION_ID, version, _) => {
            return Err(StoreError::Foreign {
                path: path.to_owned(),
                found: format!("a store of version {version}"),
                expected: format!("version {SCHEMA_VERSION}"),
            });
        }
        _ => {
            return Err(StoreError::Foreign {
                path: path.to_owned(),
                found: "another program's SQLite file".into(),
                expected: "a store of this host, or no file".into(),
            });
        }
    }

    // WAL: readers and the writer do not wait for each other. FULL: a commit is on the disk before it
    // returns, which is what an acknowledgement to the enclave promises; the writer knows exceptions (`database`).
    db.pragma_update(None, "journal_mode", "WAL")
        .map_err(clear)?;
    db.pragma_update(None, "synchronous", "FULL")
        .map_err(clear)?;
    db.pragma_update(None, "wal_autocheckpoint", 4_000)
        .map_err(clear)?;
    db.pragma_update(None, "cache_size", -64_000)
        .map_err(clear)?;
    db.pragma_update(None, "foreign_keys", true)
        .map_err(clear)?;
    db.set_prepared_statement_cache_capacity(64);
    if tables == 0 || version != SCHEMA_VERSION {
        let statements: &[&str] = match (tables, version) {
            (0, _) => &[include_str!("schema.sql")],
            (_, 1) => &[FROM_VERSION_1, FROM_VERSION_2],
            _ => &[FROM_VERSION_2],
        };
        let transaction = db.transaction().map_err(clear)?;
        for statements in statements {
            transaction.execute_batch(statements).map_err(clear)?;
        }
        transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(clear)?;
        transaction
            .pragma_update(None, "user_version", SCHEMA_VERSION)
            .map_err(clear)?;
        transaction.commit().map_err(clear)?;
    }
    Ok(db)
}

/// A connection that only reads.
fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(Duration::from_secs(10))?;
    db.pragma_update(None, "cache_size", -16_000)?;
    Ok(db)
}

fn digest_column(bytes: &[u8], what: &'static str) -> Result<Digest, StoreError> {
    bytes
        .try_into()
        .map(Digest)
        .map_err(|_| StoreError::Row(what))
}

/// The row number of a keyset.
fn keyset_row(db: &Connection, digest: &Digest) -> Result<Option<i64>, StoreError> {
    Ok(db
        .prepare_cached("SELECT keyset FROM keysets WHERE digest = ?1")?
        .query_row([&digest.0[..]], |row| row.get(0))
        .optional()?)
}
