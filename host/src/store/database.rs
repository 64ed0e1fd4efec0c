//! The writer's connection, and how safe its commits are.
//!
//! A commit that has returned is in the write-ahead log, and whatever kills this process loses nothing of it. What the
//! machine's power or kernel takes is another matter: a commit that has to survive that waits for the disk. What is
//! acknowledged to an enclave has to, and so have all others but those of notes alone, which nobody forgets in reliance on
//! them and of which there are a hundred a second.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::SCHEMA_VERSION;

/// Longest time that what is written may not be on the disk: so much of promises, and of nothing else, a power failure takes.
pub(super) const SYNC: Duration = Duration::from_secs(1);

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    /// The disk: it, and all before it, survive a power failure (`synchronous = FULL`).
    OnDisk,
    /// The system: it survives this process (`synchronous = NORMAL`).
    InFile,
}

/// The writer's connection.
pub(super) struct Database {
    connection: Connection,
    /// How the next transaction commits; `None`: not known.
    commit: Option<Commit>,
    /// Since when there is something that may not be on the disk.
    unsynced: Option<Instant>,
}

impl Database {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            commit: None,
            unsynced: None,
        }
    }

    /// For reading.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Begins a transaction that will commit so.
    pub(super) fn begin(&mut self, commit: Commit) -> rusqlite::Result<Transaction<'_>> {
        if self.commit != Some(commit) {
            let synchronous = match commit {
                Commit::OnDisk => "FULL",
                Commit::InFile => "NORMAL",
            };
            self.commit = None;
            // Not to be changed within a transaction.
            self.connection
                .pragma_update(None, "synchronous", synchronous)?;
            self.commit = Some(commit);
        }
        self.connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
    }

    /// Says that the last transaction wrote something and is committed.
    pub(super) fn committed(&mut self, now: Instant) {
        match self.commit {
            Some(Commit::OnDisk) => self.unsynced = None,
            _ => self.unsynced = self.unsynced.or(Some(now)),
        }
    }

    /// Whether it is time for a commit that waits for the disk.
    pub(super) fn has_to_sync(&self, now: Instant) -> bool {
        self.unsynced
            .is_some_and(|since| now.saturating_duration_since(since) >= SYNC)
    }
}

/// Writes a page, whatever else the transaction writes: a commit of nothing would not wait for the disk.
pub(super) fn touch(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)
}
