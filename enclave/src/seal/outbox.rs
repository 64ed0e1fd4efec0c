//! What the host has to fetch: batches, kept until it acknowledges them, under a cap in bytes.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;
use touchstone_formats::{digest::Digest, evidence::Evidence};

use super::{
    log::LoggedReceipt,
    wire::{self, BatchJson},
};

/// Bytes that a batch costs beside its JSON.
const BATCH_OVERHEAD: usize = 256;
/// Bytes that a receipt costs beside its COSE bytes: its place in queue and index.
const RECEIPT_OVERHEAD: usize = 384;
/// Shards of the index, so that threads seldom meet at one lock.
const SHARDS: usize = 16;

type Shard = Mutex<HashMap<[u8; 16], (Digest, Arc<LoggedReceipt>)>>;

struct Stored {
    number: u64,
    json: Bytes,
    receipts: Vec<[u8; 16]>,
    bytes: usize,
    /// The keyset that this batch closes.
    closes: Option<Digest>,
}

/// Numbers of the batches that are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// The oldest batch held; 0 if none is.
    pub oldest: u64,
    /// The newest batch made; 0 if none was.
    pub newest: u64,
}

/// A batch as the control listener sends it.
#[derive(Debug, Clone)]
pub struct OutgoingBatch {
    /// Its number.
    pub number: u64,
    /// Its JSON object from after the number on: `,"keyset_digest":…}`.
    pub json: Bytes,
}

/// Batches and receipts that the host has not acknowledged.
pub struct Outbox {
    batches: Mutex<VecDeque<Stored>>,
    newest: watch::Sender<u64>,
    acknowledged: watch::Sender<u64>,
    receipts: [Shard; SHARDS],
    held: AtomicUsize,
    unsealed: AtomicUsize,
    cap: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds these locks can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    /// An empty outbox that calls itself full at `cap` bytes.
    pub fn new(cap: usize) -> Self {
        Self {
            batches: Mutex::new(VecDeque::new()),
            newest: watch::Sender::new(0),
            acknowledged: watch::Sender::new(0),
            receipts: std::array::from_fn(|_| Mutex::new(HashMap::new())),
            held: AtomicUsize::new(0),
            unsealed: AtomicUsize::new(0),
            cap,
        }
    }

    /// Whether so much is held that nothing more may be admitted.
    pub fn full(&self) -> bool {
        self.held.load(Ordering::Relaxed) >= self.cap
    }

    /// Bytes held: those that wait for a seal count with what their batch will take.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Receipts that wait for their seal.
    pub fn unsealed(&self) -> usize {
        self.unsealed.load(Ordering::Relaxed)
    }

    fn shard(&self, id: &[u8; 16]) -> &Shard {
        &self.receipts[usize::from(id[0]) % SHARDS]
    }

    /// Takes in a receipt before it is lined up in the log, so that it can be asked for at once.
    pub fn add(&self, keyset: Digest, receipt: &Arc<LoggedReceipt>) {
        self.held
            .fetch_add(pending_bytes(receipt), Ordering::Relaxed);
        self.unsealed.fetch_add(1, Ordering::Relaxed);
        lock(self.shard(&receipt.id)).insert(receipt.id, (keyset, receipt.clone()));
    }

    /// A receipt that is not yet acknowledged, with its keyset.
    pub fn receipt(&self, id: &[u8; 16]) -> Option<(Digest, Arc<LoggedReceipt>)> {
        lock(self.shard(id)).get(id).cloned()
    }

    /// Adds a seal; gives its number. `receipts` were [`add`](Self::add)ed before.
    pub(super) fn publish_seal(
        &self,
        json: BatchJson,
        receipts: Vec<(u64, Arc<LoggedReceipt>)>,
        closes: Option<Digest>,
    ) -> u64 {
        let waited: usize = receipts
            .iter()
            .map(|(_, receipt)| pending_bytes(receipt))
            .sum();
        let held: usize = receipts
            .iter()
            .map(|(_, receipt)| receipt.cose.len() + RECEIPT_OVERHEAD)
            .sum();
        let ids: Vec<[u8; 16]> = receipts.iter().map(|(_, receipt)| receipt.id).collect();
        self.unsealed.fetch_sub(ids.len(), Ordering::Relaxed);
        let number = self.publish(json, ids, held, closes);
        self.held.fetch_sub(waited, Ordering::Relaxed);
        number
    }

    /// Adds the quote of one receipt; gives the batch's number.
    pub fn publish_quote(&self, keyset: Digest, id: &[u8; 16], evidence: &Evidence) -> u64 {
        self.publish(wire::quote(keyset, id, evidence), Vec::new(), 0, None)
    }

    fn publish(
        &self,
        json: BatchJson,
        receipts: Vec<[u8; 16]>,
        beside: usize,
        closes: Option<Digest>,
    ) -> u64 {
        let bytes = json.0.len() + beside + BATCH_OVERHEAD;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        let mut batches = lock(&self.batches);
        let number = *self.newest.borrow() + 1;
        batches.push_back(Stored {
            number,
            json: json.0,
            receipts,
            bytes,
            closes,
        });
        // Under the lock: whoever sees the number finds the batch.
        self.newest.send_replace(number);
        number
    }

    /// The numbers of what is held.
    pub fn range(&self) -> Range {
        let batches = lock(&self.batches);
        Range {
            oldest: batches.front().map_or(0, |batch| batch.number),
            newest: *self.newest.borrow(),
        }
    }

    /// Batches with numbers above `after`, ascending, at least one if there is any, else no more than
    /// `max_bytes`. Waits up to `wait` for the first.
    pub async fn after(&self, after: u64, wait: Duration, max_bytes: usize) -> Vec<OutgoingBatch> {
        let mut newest = self.newest.subscribe();
        // An error would mean that the sender, our own, is gone.
        let _ = tokio::time::timeout(wait, newest.wait_for(|newest| *newest > after)).await;
        let batches = lock(&self.batches);
        let start = batches.partition_point(|batch| batch.number <= after);
        let mut bytes = 0;
        let chosen = batches.range(start..).take_while(|batch| {
            let first = bytes == 0;
            bytes += batch.json.len();
            first || bytes <= max_bytes
        });
        chosen
            .map(|batch| OutgoingBatch {
                number: batch.number,
                json: batch.json.clone(),
            })
            .collect()
    }

    /// The host has everything through this number: it is forgotten here. Gives the keysets whose
    /// closing was among it.
    pub fn acknowledge(&self, through: u64) -> Vec<Digest> {
        let mut gone = Vec::new();
        {
            let mut batches = lock(&self.batches);
            while batches.front().is_some_and(|batch| batch.number <= through) {
                gone.extend(batches.pop_front());
            }
        }
        for batch in &gone {
            for id in &batch.receipts {
                lock(self.shard(id)).remove(id);
            }
            self.held.fetch_sub(batch.bytes, Ordering::Relaxed);
        }
        if let Some(last) = gone.last() {
            self.acknowledged.send_if_modified(|number| {
                let more = last.number > *number;
                *number = last.number.max(*number);
                more
            });
        }
        gone.into_iter().filter_map(|batch| batch.closes).collect()
    }

    /// Waits until everything that was published so far is acknowledged.
    pub async fn drained(&self) {
        let newest = *self.newest.borrow();
        let _ = self
            .acknowledged
            .subscribe()
            .wait_for(|number| *number >= newest)
            .await;
    }
}

/// What a receipt that waits for its seal is counted with: itself, and its share of the batch, which
/// is its base64 and some twenty hashes.
fn pending_bytes(receipt: &LoggedReceipt) -> usize {
    receipt.cose.len() * 7 / 3 + 1_200 + RECEIPT_OVERHEAD
}

#[cfg(test)]
mod tests;
