//! Takes from the enclave what has to outlive it: keysets with their boot evidence, and batches.
//!
//! Two loops share the work so that the next batches come in while the last are being stored: one
//! asks and reads, the other stores and then acknowledges ([`crate::store`] says in which order, and
//! why nothing is lost). When anything fails both begin again from what the store says, after a pause.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep},
};
use touchstone_formats::{
    Digest,
    control::{Batches, KeysetState},
};

use crate::{
    control::{Control, ControlError},
    pending::Id,
    store::{
        Store, StoreError,
        batch::{BatchError, ReadBatch, ReadKeyset, Unsealed},
    },
};

/// Pauses after failures: doubled from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// A failure that lasts is logged this often.
const REPEAT: Duration = Duration::from_secs(30);
/// Objects that are wanted at once.
const WANTED: usize = 4_096;
/// Bytes of objects that are stored at once, or a little more.
const AT_ONCE: usize = 1 << 20;
/// Replies that are read and wait to be stored.
const QUEUE: usize = 2;

#[derive(Debug, Error)]
enum PullError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the enclave handed over what cannot be stored: {0}")]
    Batch(#[from] BatchError),
    #[error("the enclave was started anew")]
    AnotherBoot,
}

/// What pulls.
#[derive(Debug)]
pub struct Puller {
    /// The enclave's place in the settings, and its name there.
    enclave: usize,
    name: String,
    control: Arc<Control>,
    store: Arc<Store>,
    /// The enclave is there again: whatever failed before is to be tried at once.
    again: Notify,
    /// Somebody met a keyset that is not stored.
    unknown_keyset: Notify,
    /// When the keyset in force ends: Unix time; 0: not known.
    keyset_expires: AtomicU64,
    /// Objects that may not be stored yet, and that there are some.
    wanted: Mutex<HashSet<Digest>>,
    wants_objects: Notify,
}

impl Puller {
    /// Pulls from `control`, which is the enclave's at this place in the settings, into `store`.
    pub fn new(enclave: usize, name: &str, control: Arc<Control>, store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self {
            enclave,
            name: name.to_owned(),
            control,
            store,
            again: Notify::new(),
            unknown_keyset: Notify::new(),
            keyset_expires: AtomicU64::new(0),
            wanted: Mutex::default(),
            wants_objects: Notify::new(),
        })
    }

    /// When the keyset in force ends, in Unix time; 0: not known.
    pub fn keyset_expires(&self) -> u64 {
        self.keyset_expires.load(Relaxed)
    }

    /// Asks for the enclave's keysets soon.
    pub fn keyset_is_unknown(&self) {
        self.unknown_keyset.notify_one();
    }

    /// Ends the pause after a failure: the enclave was away, or another boot, and is there now. What it makes until it is
    /// pulled from is lost if it ends again.
    pub fn try_now(&self) {
        self.again.notify_one();
    }

    /// Pulls until `stop` is true.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut pause = PAUSES[0];
        let mut logged: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let error = tokio::select! {
                error = self.pull() => error,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match &error {
                // Nothing is wrong: the loop begins again with the new one.
                PullError::AnotherBoot => tracing::info!(enclave = %self.name, "{error}"),
                _ if logged.is_none_or(|at| at.elapsed() >= REPEAT) => {
                    tracing::error!(enclave = %self.name, %error, "nothing is pulled from the enclave; trying again");
                    logged = Some(Instant::now());
                }
                _ => {
                    tracing::debug!(enclave = %self.name, %error, "nothing is pulled from the enclave; trying again")
                }
            }
            if began.elapsed() > REPEAT {
                logged = None;
            }
            pause = if began.elapsed() > PAUSES[1] {
                PAUSES[0]
            } else {
                (pause * 2).min(PAUSES[1])
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.again.notified() => pause = PAUSES[0],
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Pulls from one boot of the enclave for as long as all goes well.
    async fn pull(&self) -> PullError {
        let (boot, through) = match self.keysets(None).await {
            Ok(begin) => begin,
            Err(error) => return error,
        };
        tracing::info!(enclave = %self.name, through, "pulling from the enclave");
        let (replies, inbox) = mpsc::channel(QUEUE);
        tokio::select! {
            error = self.fetch(boot, through, replies) => error,
            error = self.keep(boot, through, inbox) => error,
            error = self.watch_keysets(boot) => error,
            error = self.objects() => error,
        }
    }

    /// Stores the enclave's keysets, and its boot as the current one. Gives the boot and the number of
    /// its last batch that is stored.
    async fn keysets(&self, expected: Option<Id>) -> Result<(Id, u64), PullError> {
        let keysets = self.control.keysets().await?;
        let boot = keysets.boot.0;
        if expected.is_some_and(|expected| expected != boot) {
            return Err(PullError::AnotherBoot);
        }
        let current = keysets.keysets.iter().rev();
        let current = current
            .filter(|entry| entry.state == KeysetState::Current)
            .map(|entry| entry.keyset.not_after);
        self.keyset_expires
            .store(current.max().unwrap_or(0), Relaxed);
        let named = keysets.keysets.iter().map(|entry| &entry.keyset);
        self.wants(named.flat_map(|keyset| [keyset.config, keyset.software]));
        let keysets = keysets
            .keysets
            .iter()
            .map(ReadKeyset::read)
            .collect::<Result<_, _>>()?;
        Ok((boot, self.store.boot(self.enclave, boot, keysets).await?))
    }

    async fn watch_keysets(&self, boot: Id) -> PullError {
        loop {
            self.unknown_keyset.notified().await;
            if let Err(error) = self.keysets(Some(boot)).await {
                return error;
            }
            // Not more often, whatever is asked for.
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// These objects are to be kept: they are named by what is kept, and gone when the enclave is.
    fn wants(&self, digests: impl Iterator<Item = Digest>) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in digests {
            if wanted.len() >= WANTED {
                break;
            }
            wanted.insert(digest);
        }
        drop(wanted);
        self.wants_objects.notify_one();
    }

    /// Fetches and stores what is wanted. Receipts do without: it comes after them, and an object that
    /// cannot be had keeps nothing else from being stored.
    async fn objects(&self) -> PullError {
        loop {
            self.wants_objects.notified().await;
            let wanted: Vec<Digest> = {
                let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
                wanted.drain().collect()
            };
            let missing = match self.store.missing_objects(wanted).await {
                Ok(missing) => missing,
                Err(error) => return error.into(),
            };
            // Some at once: each time the disk is waited for. Not too many: they are in memory until then.
            let (mut objects, mut bytes) = (Vec::new(), 0);
            for (number, digest) in missing.iter().enumerate() {
                match self.control.object(*digest).await {
                    Ok(Some(object)) => {
                        bytes += object.len();
                        objects.push((*digest, object));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(enclave = %self.name, %error, "an object could not be had");
                    }
                }
                if bytes >= AT_ONCE || number + 1 == missing.len() {
                    bytes = 0;
                    if let Err(error) = self.store.keep_objects(std::mem::take(&mut objects)).await
                    {
                        return error.into();
                    }
                }
            }
        }
    }

    async fn fetch(
        &self,
        boot: Id,
        through: u64,
        replies: mpsc::Sender<Vec<ReadBatch>>,
    ) -> PullError {
        let mut after = through;
        loop {
            let batches = match self.batches(boot, after).await {
                Ok(batches) => batches,
                Err(error) => return error,
            };
            let Some(last) = batches.last() else {
                // As a rule it took the longest wait there is; an enclave that does not wait is not
                // to keep a thread busy.
                sleep(PAUSES[0]).await;
                continue;
            };
            after = last.number;
            if replies.send(batches).await.is_err() {
                // The other loop has ended and says why.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn batches(&self, boot: Id, after: u64) -> Result<Vec<ReadBatch>, PullError> {
        let Batches {
            boot: found,
            batches,
        } = self.control.batches(after).await?;
        if found.0 != boot {
            return Err(PullError::AnotherBoot);
        }
        let catalogs = batches.iter().flat_map(|batch| &batch.catalogs);
        self.wants(catalogs.flat_map(|c| c.models.iter().map(|model| model.config_digest)));
        let read = tokio::task::spawn_blocking(move || {
            batches
                .into_iter()
                .map(ReadBatch::read)
                .collect::<Result<Vec<_>, _>>()
        });
        let mut batches = read.await.map_err(|_| StoreError::Closed)??;
        if batches
            .iter()
            .any(|batch| !self.store.knows_keyset(&batch.keyset))
        {
            self.keysets(Some(boot)).await?;
        }
        self.complete_quotes(&mut batches).await?;
        Ok(batches)
    }

    /// A quote may come before the seal of its receipt. Should the enclave end in between, the quote
    /// would be of no use without the receipt; so that is asked for now.
    async fn complete_quotes(&self, batches: &mut [ReadBatch]) -> Result<(), PullError> {
        let here: HashSet<Id> = batches
            .iter()
            .flat_map(|batch| &batch.receipts)
            .map(|receipt| receipt.id)
            .collect();
        for batch in batches {
            for (id, _) in &batch.quotes {
                if here.contains(id) || self.store.lookup(*id, None).await?.receipt.is_some() {
                    continue;
                }
                if let Some(pending) = self.control.receipt(*id).await? {
                    batch
                        .unsealed
                        .push(Unsealed::read(*id, &pending.receipt.0)?);
                }
            }
        }
        Ok(())
    }

    /// Stores, then acknowledges.
    async fn keep(
        &self,
        boot: Id,
        through: u64,
        mut inbox: mpsc::Receiver<Vec<ReadBatch>>,
    ) -> PullError {
        // What a host before this one stored, and may not have come to acknowledge.
        if through > 0
            && let Err(error) = self.acknowledge(boot, through).await
        {
            return error;
        }
        loop {
            let Some(mut batches) = inbox.recv().await else {
                return std::future::pending().await;
            };
            // What has come in meanwhile is stored with it: one wait for the disk for all.
            while let Ok(more) = inbox.try_recv() {
                batches.extend(more);
            }
            let Some(last) = batches.last().map(|batch| batch.number) else {
                continue;
            };
            let receipts: usize = batches.iter().map(|batch| batch.receipts.len()).sum();
            if let Err(error) = self.store.batches(boot, batches).await {
                return error.into();
            }
            if let Err(error) = self.acknowledge(boot, last).await {
                return error;
            }
            tracing::debug!(enclave = %self.name, through = last, receipts, "stored and acknowledged");
        }
    }

    async fn acknowledge(&self, boot: Id, through: u64) -> Result<(), PullError> {
        match self.control.acknowledge(boot, through).await? {
            true => Ok(()),
            false => Err(PullError::AnotherBoot),
        }
    }
}
