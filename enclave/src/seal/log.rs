//! What waits for a seal, in the order of the log.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};
use touchstone_formats::{
    catalog::Catalog,
    digest::Digest,
    merkle::{EntryKind, entry, leaf_hash},
};

/// A signed receipt on its way into the log.
#[derive(Debug)]
pub struct LoggedReceipt {
    /// Its `cti`.
    pub id: [u8; 16],
    /// The COSE_Sign1 bytes.
    pub cose: Vec<u8>,
    /// Leaf hash of its log entry.
    pub leaf: Digest,
    /// Whether `logged` was asked for, so that it is sealed without delay.
    pub logged: bool,
}

impl LoggedReceipt {
    /// `object` is the SHA-256 of `cose`.
    pub fn new(id: [u8; 16], cose: Vec<u8>, object: Digest, logged: bool) -> Arc<Self> {
        let leaf = leaf_hash(&entry(EntryKind::Receipt, object));
        Arc::new(Self {
            id,
            cose,
            leaf,
            logged,
        })
    }
}

/// One entry of the log that is not sealed yet.
pub(super) enum Entry {
    Boot {
        leaf: Digest,
    },
    Catalog {
        leaf: Digest,
        catalog: Arc<Catalog>,
    },
    Receipt {
        receipt: Arc<LoggedReceipt>,
        sealed: Option<oneshot::Sender<()>>,
    },
    Close {
        leaf: Digest,
    },
}

impl Entry {
    pub(super) fn leaf(&self) -> Digest {
        match self {
            Self::Boot { leaf } | Self::Catalog { leaf, .. } | Self::Close { leaf } => *leaf,
            Self::Receipt { receipt, .. } => receipt.leaf,
        }
    }

    fn urgent(&self) -> bool {
        match self {
            Self::Receipt { receipt, .. } => receipt.logged,
            Self::Close { .. } => true,
            Self::Boot { .. } | Self::Catalog { .. } => false,
        }
    }
}

/// What the sealer waits for, so that it is woken for nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// It is at work and looks by itself.
    No,
    /// For any entry.
    Entry,
    /// For an urgent entry or a full batch; its clock runs already.
    Urgent,
}

struct Queue {
    /// The sequence number that `ready` goes on with.
    next: u64,
    /// Entries in log order, each with the time it came.
    ready: VecDeque<(Instant, Entry)>,
    /// How many of `ready` are urgent.
    urgent: usize,
    /// Receipts whose predecessors are still being signed.
    early: BTreeMap<u64, (Instant, Entry)>,
    waiting: Waiting,
    closed: bool,
}

/// The waiting entries of one keyset's log.
pub struct Log {
    queue: Mutex<Queue>,
    wake: Notify,
    max_entries: usize,
    interval: Duration,
}

impl Log {
    /// A new log: entry 0 is `boot`, entry 1 the first `catalog` (formats.md §6).
    pub(crate) fn new(
        keyset: Digest,
        catalog: Arc<Catalog>,
        catalog_digest: Digest,
        interval: Duration,
        max_entries: usize,
    ) -> Self {
        let now = Instant::now();
        let boot = Entry::Boot {
            leaf: leaf_hash(&entry(EntryKind::Boot, keyset)),
        };
        let log = Self {
            queue: Mutex::new(Queue {
                next: 0,
                ready: VecDeque::from([(now, boot)]),
                urgent: 0,
                early: BTreeMap::new(),
                waiting: Waiting::No,
                closed: false,
            }),
            wake: Notify::new(),
            max_entries,
            interval,
        };
        log.append_catalog(catalog, catalog_digest);
        log
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds the lock can panic halfway through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines up a receipt under its sequence number, which nobody else may use. Gives the signal that
    /// fires when it is sealed and in the outbox.
    pub fn append(&self, sequence: u64, receipt: Arc<LoggedReceipt>) -> oneshot::Receiver<()> {
        let (sealed, signal) = oneshot::channel();
        let now = Instant::now();
        let new = (
            now,
            Entry::Receipt {
                receipt,
                sealed: Some(sealed),
            },
        );
        let mut queue = self.lock();
        if sequence == queue.next {
            queue.next += 1;
            push(&mut queue, new);
            loop {
                let next = queue.next;
                let Some(entry) = queue.early.remove(&next) else {
                    break;
                };
                queue.next += 1;
                push(&mut queue, entry);
            }
            self.wake(queue);
        } else {
            queue.early.insert(sequence, new);
        }
        signal
    }

    /// Puts a catalog into the log: after every receipt lined up so far, before any that comes.
    pub(crate) fn append_catalog(&self, catalog: Arc<Catalog>, digest: Digest) {
        let leaf = leaf_hash(&entry(EntryKind::Catalog, digest));
        let mut queue = self.lock();
        push(
            &mut queue,
            (Instant::now(), Entry::Catalog { leaf, catalog }),
        );
        self.wake(queue);
    }

    /// Ends the log. Every sequence number that was taken must have been appended.
    pub(crate) fn close(&self) {
        // The object of this entry is empty (docs/formats.md §6).
        let leaf = leaf_hash(&entry(EntryKind::Close, Digest::of(b"")));
        let mut queue = self.lock();
        debug_assert!(queue.early.is_empty() && !queue.closed);
        queue.closed = true;
        push(&mut queue, (Instant::now(), Entry::Close { leaf }));
        self.wake(queue);
    }

    /// Wakes the sealer if the last change is what it waits for.
    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let due = match queue.waiting {
            Waiting::No => false,
            Waiting::Entry => true,
            Waiting::Urgent => queue.urgent > 0 || queue.ready.len() >= self.max_entries,
        };
        if due {
            queue.waiting = Waiting::No;
            drop(queue);
            self.wake.notify_one();
        }
    }

    /// Entries that wait, those out of order included.
    pub fn waiting(&self) -> usize {
        let queue = self.lock();
        queue.ready.len() + queue.early.len()
    }

    /// Waits until a seal is due and takes its entries, in log order.
    pub(super) async fn due(&self) -> Vec<Entry> {
        loop {
            let woken = self.wake.notified();
            match self.look() {
                Due::Now(entries) => return entries,
                Due::WithAnEntry => woken.await,
                Due::At(deadline) => tokio::select! {
                    () = woken => {}
                    () = tokio::time::sleep_until(deadline.into()) => {}
                },
            }
        }
    }

    fn look(&self) -> Due {
        let mut queue = self.lock();
        let Some((oldest, _)) = queue.ready.front() else {
            queue.waiting = Waiting::Entry;
            return Due::WithAnEntry;
        };
        // A tenth of the interval is left for the quote.
        let deadline = *oldest + self.interval.mul_f32(0.9);
        if queue.urgent > 0 || queue.ready.len() >= self.max_entries || deadline <= Instant::now() {
            queue.waiting = Waiting::No;
            return Due::Now(take(&mut queue, self.max_entries));
        }
        queue.waiting = Waiting::Urgent;
        Due::At(deadline)
    }
}

/// When the next seal is due.
enum Due {
    Now(Vec<Entry>),
    At(Instant),
    WithAnEntry,
}

fn push(queue: &mut Queue, entry: (Instant, Entry)) {
    queue.urgent += usize::from(entry.1.urgent());
    queue.ready.push_back(entry);
}

fn take(queue: &mut Queue, max: usize) -> Vec<Entry> {
    let count = queue.ready.len().min(max);
    let taken: Vec<Entry> = queue.ready.drain(..count).map(|(_, entry)| entry).collect();
    queue.urgent -= taken.iter().filter(|entry| entry.urgent()).count();
    taken
}

#[cfg(test)]
mod tests;
