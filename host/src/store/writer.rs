//! The one thread that writes.
//!
//! The order of writes, on which "acknowledged means kept" rests:
//!
//! 1. The puller reads batches from the enclave, which keeps them.
//! 2. Here, one transaction: the batches' rows, `boots.through`, the notes that are not settled by
//!    them. `COMMIT` returns after the write-ahead log is on the disk (`database`).
//! 3. Memory follows: notes settled, callers woken.
//! 4. The puller acknowledges, and the enclave forgets.
//!
//! A host that is killed before 2 has stored nothing, and the enclave gives the batches again. Killed
//! between 2 and 4, it finds `through` at the next start and acknowledges then; should it be given the
//! batches again all the same, storing them again changes nothing. There is no moment at which the
//! enclave has forgotten what is not on the disk.

use std::{
    collections::HashSet,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Instant,
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::sync::oneshot;
use touchstone_formats::{Digest, text::hex_encode};

use super::{
    Shared, StoreError,
    batch::{ReadBatch, ReadKeyset, Unsealed},
    database::{Commit, Database, touch},
    digest_column,
    insert::{insert_batch, insert_catalog},
    notes::{self, lost, write_rounds},
};
use crate::pending::{FLUSH, Id, Note, Place, Round};

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Boot {
        enclave: usize,
        id: Id,
        keysets: Vec<ReadKeyset>,
        done: oneshot::Sender<Result<u64, StoreError>>,
    },
    Batches {
        boot: Id,
        batches: Vec<ReadBatch>,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    Unsealed {
        enclave: usize,
        unsealed: Unsealed,
    },
    Objects {
        objects: Vec<(Digest, Bytes)>,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    Catalog(Digest, String),
    Stop,
}

pub(super) struct Writer {
    db: Database,
    shared: Arc<Shared>,
    /// Row and id of the current boot of each enclave, in the order of the settings.
    current: Current,
    /// Enclaves that have not said yet which boot they are, in this process.
    unheard: HashSet<usize>,
    /// Notes that are not in the store yet. More than one round: writing failed.
    taken: Vec<Round>,
}

pub(super) type Current = Vec<Option<(i64, Id)>>;

/// Row of the current boot of an enclave.
pub(super) fn row(current: &Current, enclave: Option<usize>) -> Option<i64> {
    current.get(enclave?)?.map(|(row, _)| row)
}

impl Writer {
    pub(super) fn new(db: Connection, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let count = shared.names.len();
        Ok(Self {
            db: Database::new(db),
            shared,
            current: vec![None; count],
            unheard: (0..count).collect(),
            taken: Vec::new(),
        })
    }

    /// Gives memory back what the store holds.
    pub(super) fn restore(&mut self) -> Result<(), StoreError> {
        for (name, current) in self.shared.names.iter().zip(&mut self.current) {
            let stored = self
                .db
                .connection()
                .query_row(
                    "SELECT boot, id FROM enclaves JOIN boots USING (boot) WHERE name = ?1",
                    [name],
                    |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)),
                )
                .optional()?;
            if let Some((row, id)) = stored {
                let id = id.try_into().map_err(|_| StoreError::Row("a boot"))?;
                *current = Some((row, id));
            }
        }
        let misbehaviour =
            self.db
                .connection()
                .query_row("SELECT count(*) FROM misbehaviour", [], |row| row.get(0))?;
        self.shared.metrics.misbehaviour(misbehaviour);
        let mut statement = self.db.connection().prepare("SELECT digest FROM keysets")?;
        let mut rows = statement.query([])?;
        let mut known = self
            .shared
            .keysets
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        while let Some(row) = rows.next()? {
            known.insert(digest_column(
                row.get_ref(0)?.as_blob().unwrap_or_default(),
                "a keyset's digest",
            )?);
        }
        drop((rows, known));
        drop(statement);

        let transaction = self.db.begin(Commit::OnDisk)?;
        notes::lost(&transaction)?;
        notes::restore(&transaction, &self.shared)?;
        transaction.commit()?;
        Ok(())
    }

    /// Works until told to stop.
    pub(super) fn run(mut self, inbox: &Receiver<Command>) {
        let mut flushed = Instant::now();
        let mut failing = false;
        loop {
            let wait = FLUSH.saturating_sub(flushed.elapsed());
            // However many commands there are.
            if wait.is_zero() {
                let now = Instant::now();
                let result = self.flush(now, false);
                if let Err(error) = &result
                    && !failing
                {
                    tracing::error!(%error, "promised receipts cannot be noted; trying again");
                }
                failing = result.is_err();
                flushed = Instant::now();
                continue;
            }
            let command = match inbox.recv_timeout(wait) {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match command {
                Command::Boot {
                    enclave,
                    id,
                    keysets,
                    done,
                } => {
                    let _ = done.send(self.boot(enclave, id, &keysets));
                }
                Command::Objects { objects, done } => {
                    let _ = done.send(self.objects(&objects));
                }
                Command::Batches {
                    boot,
                    batches,
                    done,
                } => {
                    let result = self.batches(boot, &batches);
                    if result.is_ok() {
                        flushed = Instant::now();
                    }
                    let _ = done.send(result);
                }
                Command::Unsealed { enclave, unsealed } => report(
                    "a receipt before its seal",
                    self.unsealed(enclave, &unsealed),
                ),
                Command::Catalog(digest, jcs) => report("a catalog", self.catalog(&digest, &jcs)),
                Command::Stop => break,
            }
        }
        report("promised receipts", self.flush(Instant::now(), true));
    }

    /// Writes fresh notes down; and sees to it, `at_last` or when it is time, that all notes are on the disk.
    fn flush(&mut self, now: Instant, at_last: bool) -> Result<(), StoreError> {
        self.take_fresh();
        let sync = at_last || self.db.has_to_sync(now);
        if self.taken.is_empty() && !sync {
            return Ok(());
        }
        let commit = match sync {
            true => Commit::OnDisk,
            false => Commit::InFile,
        };
        let transaction = self.db.begin(commit)?;
        if sync {
            touch(&transaction)?;
        }
        let already_stored = write_rounds(
            &transaction,
            &self.shared,
            &self.current,
            &self.taken,
            &|_| false,
        )?;
        transaction.commit()?;
        self.db.committed(now);
        self.written(already_stored);
        Ok(())
    }

    fn take_fresh(&mut self) {
        self.taken.extend(self.shared.pending.take_fresh());
    }

    /// All rounds that were taken stand in the store now.
    fn written(&mut self, already_stored: Vec<Id>) {
        self.taken.clear();
        self.shared.pending.settle(already_stored.into_iter());
    }

    fn boot(&mut self, enclave: usize, id: Id, keysets: &[ReadKeyset]) -> Result<u64, StoreError> {
        let name = self
            .shared
            .names
            .get(enclave)
            .ok_or(StoreError::Row("an enclave's name"))?
            .clone();
        self.take_fresh();
        let transaction = self.db.begin(Commit::OnDisk)?;
        // What was noted until now was noted under the boot before.
        let already_stored = write_rounds(
            &transaction,
            &self.shared,
            &self.current,
            &self.taken,
            &|_| false,
        )?;
        let known = transaction
            .query_row(
                "SELECT boot, through FROM boots WHERE id = ?1",
                [&id[..]],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?)),
            )
            .optional()?;
        let current = self.current.get(enclave).copied().flatten();
        let is_new = current.is_none_or(|(_, current)| current != id);
        let (row, through) = match known {
            Some((row, through)) => {
                if is_new {
                    transaction.execute(
                        "UPDATE boots SET turn = (SELECT max(turn) + 1 FROM boots) WHERE boot = ?1",
                        [row],
                    )?;
                }
                (row, through)
            }
            None => {
                transaction.execute(
                    "INSERT INTO boots (id, turn, through)
                     VALUES (?1, (SELECT coalesce(max(turn), 0) + 1 FROM boots), 0)",
                    [&id[..]],
                )?;
                (transaction.last_insert_rowid(), 0)
            }
        };
        if is_new {
            // Noted before any boot of this enclave was seen: under this one at the earliest.
            for table in ["notes", "pending"] {
                transaction.execute(
                    &format!("UPDATE {table} SET boot = ?1 WHERE boot IS NULL AND coalesce(enclave, ?2) = ?2"),
                    params![row, name],
                )?;
            }
            // An enclave that the settings now call by another name is still that boot.
            transaction.execute("DELETE FROM enclaves WHERE boot = ?1", [row])?;
            transaction.execute(
                "INSERT INTO enclaves (name, boot) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET boot = excluded.boot",
                params![name, row],
            )?;
        }
        // Once all have said which boot they are, what the settings do not name any more is gone.
        let all_heard = self.unheard.iter().all(|unheard| *unheard == enclave);
        let retired = all_heard && retire(&transaction, &self.shared.names)?;
        for keyset in keysets {
            transaction.execute(
                "INSERT INTO keysets (digest, boot, jcs, evidence) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (digest) DO NOTHING",
                params![&keyset.digest.0[..], row, keyset.jcs, keyset.evidence],
            )?;
        }
        let lost = match is_new || retired {
            true => lost(&transaction)?,
            false => Vec::new(),
        };
        transaction.commit()?;

        self.db.committed(Instant::now());
        self.written(already_stored);
        self.shared
            .keysets
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(keysets.iter().map(|keyset| keyset.digest));
        self.unheard.remove(&enclave);
        if is_new || retired {
            let before = self.shared.pending.len();
            if let Some(current) = self.current.get_mut(enclave) {
                *current = Some((row, id));
            }
            self.shared.pending.settle(lost.into_iter());
            let lost = before.saturating_sub(self.shared.pending.len());
            tracing::info!(enclave = %name, boot = %hex_encode(&id), through, lost, "the enclave of this boot is the current one");
            if lost > 0 {
                tracing::error!(
                    lost,
                    "receipts were promised by an enclave that ended before sealing them"
                );
            }
            self.shared.waiters.wake_all();
        }
        Ok(through)
    }

    fn batches(&mut self, boot: Id, batches: &[ReadBatch]) -> Result<(), StoreError> {
        self.take_fresh();
        let transaction = self.db.begin(Commit::OnDisk)?;
        let (row, through): (i64, u64) = transaction
            .prepare_cached("SELECT boot, through FROM boots WHERE id = ?1")?
            .query_row([&boot[..]], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut stored = through;
        let mut packs = Vec::new();
        for batch in batches {
            if batch.number > stored + 1 {
                tracing::error!(
                    expected = stored + 1,
                    found = batch.number,
                    "batches are missing: the enclave was told that they are stored, and this store does not hold them"
                );
            }
            insert_batch(&transaction, row, batch, &mut packs)?;
            stored = stored.max(batch.number);
        }
        transaction
            .prepare_cached("UPDATE boots SET through = ?2 WHERE boot = ?1")?
            .execute(params![row, stored])?;

        let sealed = || {
            batches
                .iter()
                .flat_map(|batch| &batch.receipts)
                .map(|receipt| receipt.id)
        };
        let here: HashSet<Id> = sealed().collect();
        notes::settle(&transaction, &self.shared, &here)?;
        let unsealed = || batches.iter().flat_map(|batch| &batch.unsealed);
        for unsealed in unsealed() {
            write_unsealed(&transaction, Some(row), unsealed)?;
        }
        let already_stored = write_rounds(
            &transaction,
            &self.shared,
            &self.current,
            &self.taken,
            &|id| here.contains(id),
        )?;
        let lost = match batches.iter().any(|batch| batch.closed) {
            true => lost(&transaction)?,
            false => Vec::new(),
        };
        let misbehaviour = transaction
            .prepare_cached("SELECT count(*) FROM misbehaviour")?
            .query_row([], |row| row.get(0))?;
        transaction.commit()?;
        self.db.committed(Instant::now());

        // First of all: who is woken below looks here.
        self.shared.recent.keep(packs);
        self.written(already_stored);
        let enclave = self
            .current
            .iter()
            .position(|current| current.is_some_and(|(_, id)| id == boot));
        unsealed().for_each(|unsealed| note_unsealed(&self.shared, enclave, unsealed));
        self.count(enclave, batches, misbehaviour);
        self.shared
            .pending
            .settle(sealed().chain(lost.iter().copied()));
        let quoted = batches
            .iter()
            .flat_map(|batch| &batch.quotes)
            .map(|(id, _)| *id);
        self.shared.waiters.wake(sealed().chain(quoted).chain(lost));
        Ok(())
    }

    fn count(&self, enclave: Option<usize>, batches: &[ReadBatch], misbehaviour: i64) {
        let metrics = &self.shared.metrics;
        let name = enclave.and_then(|enclave| self.shared.names.get(enclave));
        let name = name.map_or("", String::as_str);
        for batch in batches {
            if batch.seal.is_some() {
                metrics.sealed(name, &batch.receipts);
            }
            metrics.quoted(name, batch.quotes.len());
        }
        metrics.misbehaviour(misbehaviour);
        let sealed = batches.iter().flat_map(|batch| &batch.receipts);
        let waited = self.shared.pending.waited(sealed.map(|receipt| receipt.id));
        waited.into_iter().for_each(|after| metrics.proven(after));
    }

    fn objects(&mut self, objects: &[(Digest, Bytes)]) -> Result<(), StoreError> {
        let transaction = self.db.begin(Commit::OnDisk)?;
        for (digest, bytes) in objects {
            transaction
                .prepare_cached(
                    "INSERT INTO objects (digest, bytes) VALUES (?1, ?2) ON CONFLICT (digest) DO NOTHING",
                )?
                .execute(params![&digest.0[..], &bytes[..]])?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn catalog(&mut self, digest: &Digest, jcs: &str) -> Result<(), StoreError> {
        let transaction = self.db.begin(Commit::OnDisk)?;
        insert_catalog(&transaction, digest, jcs)?;
        transaction.commit()?;
        Ok(())
    }

    fn unsealed(&mut self, enclave: usize, unsealed: &Unsealed) -> Result<(), StoreError> {
        let transaction = self.db.begin(Commit::OnDisk)?;
        if !is_stored(&transaction, &unsealed.id)? {
            let boot = row(&self.current, Some(enclave));
            write_unsealed(&transaction, boot, unsealed)?;
            transaction.commit()?;
            note_unsealed(&self.shared, Some(enclave), unsealed);
        }
        Ok(())
    }
}

fn report(what: &str, result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::error!(%error, "not stored: {what}");
    }
}

/// Takes enclaves off that are not named any more, and says whether there was one.
fn retire(db: &Connection, names: &[String]) -> Result<bool, StoreError> {
    let mut statement = db.prepare_cached("SELECT name FROM enclaves")?;
    let stored = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut retired = false;
    for name in stored.collect::<Result<Vec<_>, _>>()? {
        if !names.contains(&name) {
            tracing::warn!(enclave = %name, "the settings do not name this enclave any more: what it promised and did not hand over is lost");
            db.execute("DELETE FROM enclaves WHERE name = ?1", [&name])?;
            retired = true;
        }
    }
    Ok(retired)
}

/// Whether a receipt is stored.
pub(super) fn is_stored(db: &Connection, id: &Id) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached("SELECT 1 FROM receipts WHERE id = ?1")?
        .exists([&id[..]])?)
}

fn write_unsealed(
    transaction: &Transaction<'_>,
    boot: Option<i64>,
    unsealed: &Unsealed,
) -> Result<(), StoreError> {
    let claims = &unsealed.receipt.claims;
    transaction
        .prepare_cached(
            "INSERT INTO pending (id, keyset, guarantees, boot, receipt) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET receipt = excluded.receipt",
        )?
        .execute(params![
            &unsealed.id[..],
            &claims.keyset_digest.0[..],
            claims.guarantees.to_string(),
            boot,
            unsealed.receipt.cose(),
        ])?;
    Ok(())
}

/// Its row has to go when the receipt is sealed, as if it had been noted.
fn note_unsealed(shared: &Shared, enclave: Option<usize>, unsealed: &Unsealed) {
    let claims = &unsealed.receipt.claims;
    let note = Note {
        keyset: claims.keyset_digest,
        require: claims.guarantees,
        enclave,
        since: Instant::now(),
    };
    let place = Place {
        round: 0,
        row: true,
    };
    shared.pending.restore(unsealed.id, note, place);
}

#[cfg(test)]
mod tests;
