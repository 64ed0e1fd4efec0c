//! Promises in the store, within the writer's transactions.
//!
//! A round of notes (what was promised in some ten milliseconds) is a row or a few: one for each keyset, set of guarantees
//! and enclave, with all ids in one blob. So writing a round down appends a page or two, where a row and an index entry for
//! each random id would touch as many pages as there are ids. Nobody looks an id up in there: memory knows its round. The
//! ids of a row are those that are pending, no more: when receipts are stored, their rounds are written anew without them.
//! Those that are lost go to the table `pending`, where they are found by their ids for good.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Instant,
};

use rusqlite::{Connection, Transaction, params};
use touchstone_formats::GuaranteeSet;

use super::{
    Shared, StoreError, digest_column,
    writer::{Current, is_stored, row},
};
use crate::pending::{Id, Note, Place, Round};

/// Most ids in a row: one that is settled has its row read and written.
const ROW_IDS: usize = 1_024;
/// Bytes of an id.
const ID: usize = 16;

/// Writes rounds down, but for receipts that are stored or, by `arriving`, about to be. Gives those that are stored: they
/// are to be settled after the commit.
pub(super) fn write_rounds(
    transaction: &Transaction<'_>,
    shared: &Shared,
    current: &Current,
    rounds: &[Round],
    arriving: &dyn Fn(&Id) -> bool,
) -> Result<Vec<Id>, StoreError> {
    let mut already_stored = Vec::new();
    let mut insert = transaction.prepare_cached(
        "INSERT INTO notes (round, part, keyset, guarantees, boot, enclave, ids)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for round in rounds {
        let mut kinds: HashMap<_, Vec<u8>> = HashMap::new();
        for (id, note) in &round.notes {
            if arriving(id) {
                continue;
            }
            if is_stored(transaction, id)? {
                already_stored.push(*id);
                continue;
            }
            let ids = kinds.entry((note.keyset, note.require, note.enclave));
            ids.or_default().extend_from_slice(id);
        }
        let mut parts = 0..;
        for ((keyset, require, enclave), ids) in kinds {
            for (ids, part) in ids.chunks(ROW_IDS * ID).zip(&mut parts) {
                insert.execute(params![
                    round.number,
                    part,
                    &keyset.0[..],
                    require.to_string(),
                    row(current, enclave),
                    enclave.and_then(|enclave| shared.names.get(enclave)),
                    ids
                ])?;
            }
        }
    }
    Ok(already_stored)
}

/// Takes away what stands in the store of these notes, whose receipts are stored now.
pub(super) fn settle(
    transaction: &Transaction<'_>,
    shared: &Shared,
    ids: &HashSet<Id>,
) -> Result<(), StoreError> {
    let mut delete = transaction.prepare_cached("DELETE FROM pending WHERE id = ?1")?;
    let mut rounds = BTreeSet::new();
    for (id, place) in shared.pending.places(ids.iter().copied()) {
        if place.row {
            delete.execute([&id[..]])?;
        }
        rounds.insert(place.round);
    }
    rounds.remove(&0);
    for round in rounds {
        settle_in(transaction, round, ids)?;
    }
    Ok(())
}

/// Takes ids out of a round. There may be nothing of it in the store yet.
fn settle_in(
    transaction: &Transaction<'_>,
    round: u64,
    settled: &HashSet<Id>,
) -> Result<(), StoreError> {
    let mut changed: Vec<(i64, Vec<u8>)> = Vec::new();
    let mut select =
        transaction.prepare_cached("SELECT part, ids FROM notes WHERE round = ?1 ORDER BY part")?;
    let mut rows = select.query([round])?;
    while let Some(row) = rows.next()? {
        let ids = each(row.get_ref(1)?.as_blob().unwrap_or_default())?;
        let left: Vec<u8> = ids
            .iter()
            .filter(|id| !settled.contains(*id))
            .flatten()
            .copied()
            .collect();
        if left.len() < ids.as_flattened().len() {
            changed.push((row.get(0)?, left));
        }
    }
    for (part, left) in changed {
        match left.is_empty() {
            true => transaction
                .prepare_cached("DELETE FROM notes WHERE round = ?1 AND part = ?2")?
                .execute(params![round, part])?,
            false => transaction
                .prepare_cached("UPDATE notes SET ids = ?3 WHERE round = ?1 AND part = ?2")?
                .execute(params![round, part, left])?,
        };
    }
    Ok(())
}

/// The ids in a row.
fn each(ids: &[u8]) -> Result<&[Id], StoreError> {
    match ids.as_chunks() {
        (ids, []) => Ok(ids),
        _ => Err(StoreError::Row("a round of notes")),
    }
}

/// What never comes: it was promised by a boot that is no enclave's current one any more, or under a keyset whose log has
/// ended. `p`: of a promise or a round, `k`: its keyset. (Of what was promised before any boot was seen nothing is known; and
/// NULL is not in an empty table.)
macro_rules! lost {
    () => {
        "(coalesce(k.boot, p.boot) IS NOT NULL AND coalesce(k.boot, p.boot) NOT IN (SELECT boot FROM enclaves)
            OR k.closed = 1)"
    };
}

/// Receipts that will never be stored. From now on they stand in `pending`, each by itself.
pub(super) fn lost(transaction: &Transaction<'_>) -> Result<Vec<Id>, StoreError> {
    let mut rounds: Vec<(u64, i64, Vec<u8>)> = Vec::new();
    let mut select = transaction.prepare_cached(concat!(
        "SELECT p.round, p.part, p.ids FROM notes p LEFT JOIN keysets k ON k.digest = p.keyset WHERE ",
        lost!()
    ))?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        rounds.push((row.get(0)?, row.get(1)?, row.get(2)?));
    }
    let mut insert = transaction.prepare_cached(
        "INSERT INTO pending (id, keyset, guarantees, boot, enclave)
         SELECT ?1, keyset, guarantees, boot, enclave FROM notes WHERE round = ?2 AND part = ?3
         ON CONFLICT (id) DO NOTHING",
    )?;
    let mut delete =
        transaction.prepare_cached("DELETE FROM notes WHERE round = ?1 AND part = ?2")?;
    for (round, part, ids) in rounds {
        for id in each(&ids)? {
            insert.execute(params![&id[..], round, part])?;
        }
        delete.execute(params![round, part])?;
    }

    let mut select = transaction.prepare_cached(concat!(
        "SELECT p.id FROM pending p LEFT JOIN keysets k ON k.digest = p.keyset WHERE ",
        lost!()
    ))?;
    let mut rows = select.query([])?;
    let mut ids = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get_ref(0)?.as_blob().unwrap_or_default().try_into();
        ids.push(id.map_err(|_| StoreError::Row("a pending id"))?);
    }
    Ok(ids)
}

/// Gives memory what is pending. Call [`lost`] before: that is left out.
pub(super) fn restore(db: &Connection, shared: &Shared) -> Result<(), StoreError> {
    let now = Instant::now();
    let note = |row: &rusqlite::Row<'_>| {
        let keyset = row.get_ref(0)?.as_blob().unwrap_or_default();
        let keyset = digest_column(keyset, "a pending receipt's keyset")?;
        let require = GuaranteeSet::parse_words(row.get_ref(1)?.as_str().unwrap_or_default());
        let require = require.map_err(|_| StoreError::Row("a pending receipt"))?;
        let name = row.get_ref(2)?.as_str().unwrap_or_default();
        Ok::<_, StoreError>(Note {
            keyset,
            require,
            enclave: shared.names.iter().position(|known| known == name),
            since: now,
        })
    };
    let mut last = 0;
    let mut select = db.prepare(
        "SELECT keyset, guarantees, enclave, round, ids FROM notes ORDER BY round, part",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (note, round) = (note(row)?, row.get(3)?);
        for id in each(row.get_ref(4)?.as_blob().unwrap_or_default())? {
            let place = Place { round, row: false };
            shared.pending.restore(*id, note, place);
        }
        last = round;
    }
    shared.pending.begin_after(last);

    let mut select = db.prepare(concat!(
        "SELECT p.keyset, p.guarantees, p.enclave, p.id
         FROM pending p LEFT JOIN keysets k ON k.digest = p.keyset WHERE ",
        lost!(),
        " IS NOT TRUE"
    ))?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get_ref(3)?.as_blob().unwrap_or_default().try_into();
        let id = id.map_err(|_| StoreError::Row("a pending receipt"))?;
        let place = Place {
            round: 0,
            row: true,
        };
        shared.pending.restore(id, note(row)?, place);
    }
    Ok(())
}
