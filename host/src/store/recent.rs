//! Memory of what was stored last, and of what all receipts share.
//!
//! A caller comes for its bundle moments after the seal. Answering from memory costs a few
//! microseconds; asking SQLite costs a change of threads and, because every commit empties the
//! readers' page caches, a dozen reads of pages. Nothing here is needed for correctness: what is
//! forgotten is read from the file.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, PoisonError, RwLock},
};

use touchstone_formats::Digest;

use super::{
    pack::{self, Sealed},
    read::{BatchRow, KeysetRow},
};
use crate::pending::Id;

/// Bytes of packs that are kept: some 17,000 receipts.
const KEPT: usize = 8 << 20;
/// Keysets, catalogs and batches that are remembered before all of them are forgotten.
const KEYSETS: usize = 256;
const CATALOGS: usize = 16;
const BATCHES: usize = 512;

/// A pack that was just stored.
#[derive(Debug)]
pub(super) struct RecentPack {
    pub(super) records: Vec<u8>,
    pub(super) batch: Arc<BatchRow>,
    /// With their slots.
    pub(super) ids: Vec<(Id, u8)>,
}

#[derive(Debug, Default)]
struct Packs {
    by_id: HashMap<Id, (Arc<RecentPack>, u8)>,
    in_order: VecDeque<Arc<RecentPack>>,
    bytes: usize,
}

/// The memory. Shared by writer, readers and those who ask.
#[derive(Debug)]
pub(super) struct Recent {
    packs: RwLock<Packs>,
    pub(super) keysets: Remembered<Digest, Arc<KeysetRow>>,
    pub(super) catalogs: Remembered<Digest, Arc<str>>,
    pub(super) batches: Remembered<i64, Arc<BatchRow>>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            packs: RwLock::default(),
            keysets: Remembered::new(KEYSETS),
            catalogs: Remembered::new(CATALOGS),
            batches: Remembered::new(BATCHES),
        }
    }
}

impl Recent {
    /// Keeps packs that have just been committed; the oldest go.
    pub(super) fn keep(&self, packs: Vec<RecentPack>) {
        let mut kept = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        for pack in packs {
            let pack = Arc::new(pack);
            kept.bytes += pack.records.len();
            for (id, slot) in &pack.ids {
                kept.by_id.insert(*id, (pack.clone(), *slot));
            }
            kept.in_order.push_back(pack);
        }
        while kept.bytes > KEPT
            && let Some(oldest) = kept.in_order.pop_front()
        {
            kept.bytes -= oldest.records.len();
            for (id, _) in &oldest.ids {
                kept.by_id.remove(id);
            }
        }
    }

    /// A receipt, if it is among the last.
    pub(super) fn get(&self, id: &Id) -> Option<(Sealed, Arc<BatchRow>)> {
        let (pack, slot) = {
            let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
            packs.by_id.get(id)?.clone()
        };
        Some((
            pack::unpack(&pack.records, usize::from(slot))?,
            pack.batch.clone(),
        ))
    }
}

/// Rows that never change, up to a number of them.
#[derive(Debug)]
pub(super) struct Remembered<K, V> {
    limit: usize,
    rows: RwLock<HashMap<K, V>>,
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            rows: RwLock::default(),
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.rows
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    pub(super) fn insert(&self, key: K, value: V) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        if rows.len() >= self.limit {
            rows.clear();
        }
        rows.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack_of(n: u64, length: usize) -> RecentPack {
        let sealed: Vec<Sealed> = (0..2)
            .map(|slot| Sealed {
                index: 2 * n + slot,
                proof: Vec::new(),
                cose: vec![7; length],
            })
            .collect();
        let id = |slot: u64| {
            Digest::of(&(2 * n + slot).to_le_bytes()).0[..16]
                .try_into()
                .unwrap()
        };
        RecentPack {
            records: pack::pack(sealed.iter()).unwrap(),
            batch: Arc::new(BatchRow {
                note: n.to_string(),
                evidence: String::new(),
            }),
            ids: vec![(id(0), 0), (id(1), 1)],
        }
    }

    #[test]
    fn the_last_are_kept_and_the_oldest_go() {
        let recent = Recent::default();
        let length = 60_000;
        let count = (KEPT / (2 * length)) as u64 + 5;
        for n in 0..count {
            let pack = pack_of(n, length);
            let (first, second) = (pack.ids[0].0, pack.ids[1].0);
            recent.keep(vec![pack]);
            assert_eq!(recent.get(&first).unwrap().0.index, 2 * n);
            let (sealed, batch) = recent.get(&second).unwrap();
            assert_eq!((sealed.index, &batch.note), (2 * n + 1, &n.to_string()));
        }
        assert!(recent.get(&pack_of(0, 1).ids[0].0).is_none());
        let packs = recent.packs.read().unwrap();
        assert!(packs.bytes <= KEPT && packs.bytes > KEPT - 3 * length);
        assert_eq!(packs.by_id.len(), 2 * packs.in_order.len());
    }

    #[test]
    fn memory_of_rows_is_bounded() {
        let rows = Remembered::new(3);
        for n in 0..10 {
            rows.insert(n, n);
            assert_eq!(rows.get(&n), Some(n));
            assert!(rows.rows.read().unwrap().len() <= 3);
        }
    }
}
