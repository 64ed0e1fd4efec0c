//! Rows of a batch, within the writer's transaction.
//!
//! Adding a batch again changes nothing. What contradicts what is stored is kept beside it.

use std::{collections::HashMap, sync::Arc};

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use touchstone_formats::{Digest, SignedNote, TlogProof};

use super::{
    StoreError,
    batch::{ReadBatch, ReadReceipt, Seal},
    keyset_row,
    pack::{self, PACK},
    read::BatchRow,
    recent::RecentPack,
};
use crate::pending::Id;

/// Adds a catalog.
pub(super) fn insert_catalog(
    db: &Connection,
    digest: &Digest,
    jcs: &str,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO catalogs (digest, jcs) VALUES (?1, ?2) ON CONFLICT (digest) DO NOTHING",
    )?
    .execute(params![&digest.0[..], jcs])?;
    Ok(())
}

/// Adds a batch, and to `packs` what is to be remembered of it after the commit.
pub(super) fn insert_batch(
    transaction: &Transaction<'_>,
    boot: i64,
    batch: &ReadBatch,
    packs: &mut Vec<RecentPack>,
) -> Result<(), StoreError> {
    let keyset =
        keyset_row(transaction, &batch.keyset)?.ok_or(StoreError::UnknownKeyset(batch.keyset))?;
    for (digest, jcs) in &batch.catalogs {
        insert_catalog(transaction, digest, jcs)?;
    }
    if let Some(seal) = &batch.seal {
        let receipts = new_receipts(transaction, keyset, batch, seal)?;
        let row = batch_row(transaction, boot, keyset, batch.number, seal)?;
        let remembered = Arc::new(BatchRow {
            note: seal.note.clone(),
            evidence: seal.evidence.clone(),
        });
        for run in runs(&receipts) {
            let (records, ids) = insert_run(transaction, keyset, row, run, seal)?;
            let batch = remembered.clone();
            packs.push(RecentPack {
                records,
                batch,
                ids,
            });
        }
    }
    let mut insert = transaction.prepare_cached(
        "INSERT INTO quotes (id, evidence) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING",
    )?;
    for (id, evidence) in &batch.quotes {
        insert.execute(params![&id[..], evidence])?;
    }
    if batch.closed {
        transaction
            .prepare_cached("UPDATE keysets SET closed = 1 WHERE keyset = ?1")?
            .execute([keyset])?;
    }
    Ok(())
}

/// The row of a seal: the one there is, when the batch was stored before.
fn batch_row(
    transaction: &Transaction<'_>,
    boot: i64,
    keyset: i64,
    number: u64,
    seal: &Seal,
) -> Result<i64, StoreError> {
    let known = transaction
        .prepare_cached("SELECT batch FROM batches WHERE boot = ?1 AND number = ?2 AND note = ?3")?
        .query_row(params![boot, number, seal.note], |row| row.get(0))
        .optional()?;
    if let Some(row) = known {
        return Ok(row);
    }
    let other: Option<String> = transaction
        .prepare_cached(
            "SELECT note FROM batches WHERE keyset = ?1 AND size = ?2 AND root <> ?3 LIMIT 1",
        )?
        .query_row(params![keyset, seal.size, &seal.root.0[..]], |row| {
            row.get(0)
        })
        .optional()?;
    if let Some(other) = other {
        misbehaviour(
            transaction,
            "checkpoint",
            keyset,
            other.as_bytes(),
            seal.note.as_bytes(),
            None,
        )?;
    }
    transaction
        .prepare_cached(
            "INSERT INTO batches (boot, number, keyset, size, root, note, evidence)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            boot,
            number,
            keyset,
            seal.size,
            &seal.root.0[..],
            seal.note,
            seal.evidence
        ])?;
    Ok(transaction.last_insert_rowid())
}

/// The receipts of a batch that are not stored yet. Sequence numbers that are taken are looked at one
/// by one: the same bytes are the same receipt, delivered again; others are proof of misbehaviour.
fn new_receipts<'a>(
    transaction: &Transaction<'_>,
    keyset: i64,
    batch: &'a ReadBatch,
    seal: &Seal,
) -> Result<Vec<&'a ReadReceipt>, StoreError> {
    let mut receipts: Vec<&ReadReceipt> = Vec::with_capacity(batch.receipts.len());
    let mut here: HashMap<u64, &ReadReceipt> = HashMap::with_capacity(batch.receipts.len());
    let stored = match batch
        .receipts
        .iter()
        .map(|receipt| receipt.sequence)
        .fold(None, span)
    {
        Some((first, last)) => stored_between(transaction, keyset, first, last)?,
        None => HashMap::new(),
    };
    for receipt in &batch.receipts {
        let cose = &receipt.sealed.cose;
        let others = stored.get(&receipt.sequence).map_or(&[][..], Vec::as_slice);
        let twin = here.get(&receipt.sequence).map(|twin| &twin.sealed.cose);
        if others.iter().chain(twin).any(|other| other == cose) {
            continue;
        }
        if let Some(other) = others.iter().chain(twin).next() {
            misbehaviour(
                transaction,
                "sequence",
                keyset,
                other,
                cose,
                proof(receipt, seal).as_deref(),
            )?;
        }
        here.insert(receipt.sequence, receipt);
        receipts.push(receipt);
    }
    Ok(receipts)
}

fn span(range: Option<(u64, u64)>, sequence: u64) -> Option<(u64, u64)> {
    Some(range.map_or((sequence, sequence), |(first, last)| {
        (first.min(sequence), last.max(sequence))
    }))
}

/// COSE bytes of the stored receipts with these sequence numbers.
fn stored_between(
    transaction: &Transaction<'_>,
    keyset: i64,
    first: u64,
    last: u64,
) -> Result<HashMap<u64, Vec<Vec<u8>>>, StoreError> {
    let mut stored: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
    let mut statement = transaction.prepare_cached(
        "SELECT first, records FROM packs WHERE keyset = ?1 AND first BETWEEN ?2 AND ?3",
    )?;
    // A pack begins at most one pack's length before the first number that it holds.
    let mut rows = statement.query(params![keyset, first.saturating_sub(PACK as u64 - 1), last])?;
    while let Some(row) = rows.next()? {
        let start: u64 = row.get(0)?;
        let records = row.get_ref(1)?.as_blob().unwrap_or_default();
        let count = pack::count(records).ok_or(StoreError::Row("a pack"))?;
        for slot in 0..count {
            let sequence = start.saturating_add(slot as u64);
            if (first..=last).contains(&sequence) {
                let sealed = pack::unpack(records, slot).ok_or(StoreError::Row("a pack"))?;
                stored.entry(sequence).or_default().push(sealed.cose);
            }
        }
    }
    Ok(stored)
}

/// Cuts receipts into runs of consecutive sequence numbers that fit a pack.
fn runs<'a, 'b>(receipts: &'b [&'a ReadReceipt]) -> impl Iterator<Item = &'b [&'a ReadReceipt]> {
    receipts
        .chunk_by(|left, right| left.sequence.checked_add(1) == Some(right.sequence))
        .flat_map(|run| run.chunks(PACK))
}

/// Receipts of a pack, each with its slot.
type Slots = Vec<(Id, u8)>;

/// Adds a run as one pack. Gives the pack, and the receipts in it with their slots.
fn insert_run(
    transaction: &Transaction<'_>,
    keyset: i64,
    batch: i64,
    run: &[&ReadReceipt],
    seal: &Seal,
) -> Result<(Vec<u8>, Slots), StoreError> {
    let first = run.first().map_or(0, |receipt| receipt.sequence);
    let records =
        pack::pack(run.iter().map(|receipt| &receipt.sealed)).ok_or(StoreError::TooLarge)?;
    transaction
        .prepare_cached(
            "INSERT INTO packs (batch, keyset, first, records) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![batch, keyset, first, records])?;
    let row = transaction.last_insert_rowid();
    let mut insert = transaction.prepare_cached(
        "INSERT INTO receipts (id, pack, slot) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING",
    )?;
    let mut ids = Vec::with_capacity(run.len());
    for (slot, receipt) in (0u8..).zip(run) {
        if insert.execute(params![&receipt.id[..], row, slot])? == 0 {
            // Same bytes have the same sequence number, and those were sorted out before: another
            // receipt has this id.
            let other = stored_cose(transaction, &receipt.id)?;
            let proof = proof(receipt, seal);
            misbehaviour(
                transaction,
                "id",
                keyset,
                &other,
                &receipt.sealed.cose,
                proof.as_deref(),
            )?;
        } else {
            ids.push((receipt.id, slot));
        }
    }
    Ok((records, ids))
}

fn stored_cose(transaction: &Transaction<'_>, id: &Id) -> Result<Vec<u8>, StoreError> {
    let (records, slot): (Vec<u8>, usize) = transaction
        .prepare_cached("SELECT records, slot FROM receipts JOIN packs USING (pack) WHERE id = ?1")?
        .query_row([&id[..]], |row| Ok((row.get(0)?, row.get(1)?)))?;
    pack::unpack(&records, slot)
        .map(|sealed| sealed.cose)
        .ok_or(StoreError::Row("a pack"))
}

/// The tlog-proof of a receipt.
fn proof(receipt: &ReadReceipt, seal: &Seal) -> Option<String> {
    let note = SignedNote::parse(&seal.note).ok()?;
    let proof = TlogProof {
        index: receipt.sealed.index,
        hashes: receipt.sealed.proof.clone(),
        note,
    };
    Some(proof.to_string())
}

/// Keeps and cries out loud. Delivered again, it is neither kept nor cried out again.
fn misbehaviour(
    transaction: &Transaction<'_>,
    kind: &str,
    keyset: i64,
    first: &[u8],
    second: &[u8],
    proof: Option<&str>,
) -> Result<(), StoreError> {
    let known = transaction
        .prepare_cached(
            "SELECT 1 FROM misbehaviour WHERE kind = ?1 AND keyset = ?2 AND second = ?3",
        )?
        .exists(params![kind, keyset, second])?;
    if known {
        return Ok(());
    }
    transaction
        .prepare_cached("INSERT INTO misbehaviour (kind, keyset, first, second, proof) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![kind, keyset, first, second, proof])?;
    tracing::error!(
        kind,
        keyset,
        row = transaction.last_insert_rowid(),
        "PROOF OF MISBEHAVIOUR: the enclave made two that contradict each other; both are kept in table misbehaviour"
    );
    Ok(())
}
