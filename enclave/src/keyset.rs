//! A keyset in use: its keys, its log, the catalog in force, and who still works under it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Notify;
use touchstone_formats::{
    catalog::Catalog,
    checkpoint::LogSigner,
    digest::Digest,
    keyset::{Keyset, ReceiptKey},
    receipt::ReceiptSigner,
    text::Base64Bytes,
};
use zeroize::Zeroizing;

use crate::{
    models::LoadedModels,
    ohttp::OhttpKey,
    seal::Log,
    tls::{TlsError, TlsKey},
};

/// Keys could not be made; nothing can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Keys for receipts and log.
    #[error("the system gives no random bytes, or refuses a key made of them")]
    Random,
    /// The key for TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The key for sealed requests.
    #[error("the key for sealed requests cannot be made: {0}")]
    Ohttp(#[from] touchstone_ohttp::Error),
}

/// What a keyset certifies beside its keys.
#[derive(Debug, Clone)]
pub struct KeysetFacts {
    /// The operator's word.
    pub name: String,
    /// Prefix of the log's origin.
    pub log_prefix: String,
    /// Digest of the build statement.
    pub software: Digest,
    /// Digest of the settings object.
    pub config: Digest,
    /// Seconds of validity.
    pub lifetime_seconds: u64,
    /// Whether it has a TLS key.
    pub tls: bool,
    /// Most sealed requests under its key for them; 0: it has none.
    pub ohttp_requests: usize,
}

/// A new keyset with its private keys, before its boot quote.
pub struct NewKeyset {
    /// The public part.
    pub keyset: Keyset,
    /// Its digest.
    pub digest: Digest,
    /// Its JCS bytes.
    pub jcs: Bytes,
    receipt: ReceiptSigner,
    log: LogSigner,
    tls: Option<Arc<TlsKey>>,
    ohttp: Option<OhttpKey>,
    born: Instant,
}

impl NewKeyset {
    /// Makes fresh keys: of the keyset after `previous`, whose key for sealed requests has the id `ohttp_before`. The seeds are wiped; the cryptography library keeps copies of its own
    /// inside the signers, which are dropped, not wiped.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn generate(
        facts: &KeysetFacts,
        previous: Option<Digest>,
        ohttp_before: Option<u8>,
        now: u64,
    ) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let seed = || -> Result<Zeroizing<[u8; 32]>, KeyError> {
            let mut seed = Zeroizing::new([0; 32]);
            random.fill(seed.as_mut()).map_err(|_| KeyError::Random)?;
            Ok(seed)
        };
        let receipt = ReceiptSigner::from_seed(&*seed()?).map_err(|_| KeyError::Random)?;
        let log =
            LogSigner::from_seed(&*seed()?, &facts.log_prefix).map_err(|_| KeyError::Random)?;
        let not_after = now.saturating_add(facts.lifetime_seconds);
        let tls = match facts.tls {
            true => Some(Arc::new(TlsKey::generate(&facts.name, now, not_after)?)),
            false => None,
        };
        let ohttp = match facts.ohttp_requests {
            0 => None,
            limit => Some(OhttpKey::generate(limit, ohttp_before)?),
        };
        let keyset = Keyset {
            name: facts.name.clone(),
            previous,
            not_before: now,
            not_after,
            receipt_key: ReceiptKey(receipt.public_key()),
            log: log.log_key(),
            tls_spki_sha256: tls.as_ref().map(|tls| tls.spki),
            ohttp_keys: ohttp.as_ref().map(|key| Base64Bytes(key.configurations())),
            software: facts.software,
            config: facts.config,
        };
        let (digest, jcs) = (keyset.digest(), keyset.to_jcs().into());
        Ok(Self {
            keyset,
            digest,
            jcs,
            receipt,
            log,
            tls,
            ohttp,
            born: Instant::now(),
        })
    }

    /// Puts the keyset to work, with the log and the catalog it starts with.
    pub fn start(
        self,
        catalog: CatalogInForce,
        interval: Duration,
        max_entries: usize,
    ) -> (Arc<Epoch>, LogSigner) {
        let log = Log::new(
            self.digest,
            catalog.catalog.clone(),
            catalog.digest,
            interval,
            max_entries,
        );
        let epoch = Epoch {
            lifetime: Duration::from_secs(self.keyset.not_after - self.keyset.not_before),
            keyset: self.keyset,
            digest: self.digest,
            signer: self.receipt,
            tls: self.tls,
            ohttp: self.ohttp,
            log: Arc::new(log),
            catalog: ArcSwap::from_pointee(catalog),
            sequence: AtomicU64::new(0),
            born: self.born,
            guests: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            left: Notify::new(),
        };
        (Arc::new(epoch), self.log)
    }
}

/// The models that can be asked for, and the catalog that says so.
pub struct CatalogInForce {
    /// The loaded models.
    pub models: LoadedModels,
    /// The certified list.
    pub catalog: Arc<Catalog>,
    /// Digest of the list.
    pub digest: Digest,
}

impl CatalogInForce {
    /// The catalog of these models: epoch 0 of a keyset, or the one after `previous`.
    pub fn new(models: LoadedModels, keyset: Digest, previous: Option<&CatalogInForce>) -> Self {
        let catalog = Catalog {
            keyset_digest: keyset,
            epoch: previous.map_or(0, |previous| previous.catalog.epoch + 1),
            previous: previous.map_or(Digest::ZERO, |previous| previous.digest),
            models: models.catalog_models(),
        };
        let digest = catalog.digest();
        Self {
            models,
            catalog: Arc::new(catalog),
            digest,
        }
    }
}

/// The guest's wall clock, in seconds.
pub fn wall_clock() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A keyset at work. Dropping the last reference erases the keys for receipts, TLS and sealed requests.
pub struct Epoch {
    /// The public part.
    pub keyset: Keyset,
    /// The keyset's digest.
    pub digest: Digest,
    /// Signs receipts.
    pub signer: ReceiptSigner,
    /// Makes TLS handshakes, if there is a listener for them.
    pub tls: Option<Arc<TlsKey>>,
    /// Opens sealed requests, if any are taken.
    pub ohttp: Option<OhttpKey>,
    /// Its log.
    pub log: Arc<Log>,
    /// The catalog in force.
    pub catalog: ArcSwap<CatalogInForce>,
    lifetime: Duration,
    sequence: AtomicU64,
    born: Instant,
    /// Requests (and quotes of single receipts) that must end before the log can be closed.
    guests: AtomicUsize,
    closing: AtomicBool,
    left: Notify,
}

impl Epoch {
    /// The time to write into a receipt, if it is within the keyset's lifetime. Both clocks must
    /// agree that it is: the wall clock, which the host may set, and the monotonic one, on which it
    /// cannot stretch a lifetime by setting the other back.
    pub fn issued_at(&self) -> Option<u64> {
        let now = wall_clock();
        ((self.keyset.not_before..=self.keyset.not_after).contains(&now)
            && self.born.elapsed() <= self.lifetime)
            .then_some(now)
    }

    /// Seconds until the keyset ends, by whichever clock says less.
    pub fn remaining(&self) -> Duration {
        let wall = Duration::from_secs(self.keyset.not_after.saturating_sub(wall_clock()));
        wall.min(self.lifetime.saturating_sub(self.born.elapsed()))
    }

    /// Whether so many sealed requests came that it is time for the next keyset.
    pub fn worn(&self) -> bool {
        self.ohttp.as_ref().is_some_and(OhttpKey::worn)
    }

    /// Takes the next sequence number: the receipt that gets it must reach the log.
    pub fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts work under this keyset, unless it is being closed.
    pub fn enter(self: &Arc<Self>) -> Option<Guest> {
        // Sequentially consistent on both sides: either `close` sees the guest, or the guest sees
        // `closing`, never neither.
        self.guests.fetch_add(1, Ordering::SeqCst);
        let guest = Guest(self.clone());
        (!self.closing.load(Ordering::SeqCst)).then_some(guest)
    }

    /// Lets no more work begin, waits for what is under way and ends the log. The sealer then seals it.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        loop {
            let left = self.left.notified();
            if self.guests.load(Ordering::SeqCst) == 0 {
                break;
            }
            left.await;
        }
        self.log.close();
    }
}

/// Work under a keyset. While one exists the keyset's log stays open.
pub struct Guest(Arc<Epoch>);

impl Guest {
    /// Another guest of the same keyset, for work that goes on after this one.
    pub fn another(&self) -> Guest {
        self.0.guests.fetch_add(1, Ordering::SeqCst);
        Guest(self.0.clone())
    }
}

impl std::ops::Deref for Guest {
    type Target = Epoch;

    fn deref(&self) -> &Epoch {
        &self.0
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.0.guests.fetch_sub(1, Ordering::SeqCst) == 1
            && self.0.closing.load(Ordering::SeqCst)
        {
            self.0.left.notify_one();
        }
    }
}
