//! The enclave's state, and how it changes: boot, rotation of keysets, reload of models, drain.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{Semaphore, watch};
use touchstone_formats::{
    digest::Digest,
    evidence::Evidence,
    guarantee::Guarantee,
    keyset::Keyset,
    report_data::{Purpose, bind_boot, report_data},
};

use crate::{
    admission::Held,
    config::Config,
    keyset::{CatalogInForce, Epoch, Guest, KeyError, KeysetFacts, NewKeyset, wall_clock},
    models::{LoadedModels, ModelError},
    objects::Objects,
    ohttp::OhttpKey,
    problem::Problem,
    quote::{QuoteSettings, QuoteSource, Quoter},
    seal::{Outbox, Sealer},
};

/// Closed keysets that the host has acknowledged and that are still listed.
const CLOSED_KEPT: usize = 4;

/// Reads the model repository; models of the set given that did not change keep their sessions.
pub type Loader =
    Box<dyn Fn(Option<&LoadedModels>) -> Result<LoadedModels, ModelError> + Send + Sync>;

/// A keyset as the control listener tells of it.
#[derive(Clone)]
pub struct KeysetRecord {
    /// The keyset.
    pub keyset: Keyset,
    /// Its digest.
    pub digest: Digest,
    /// Its boot evidence.
    pub evidence: Evidence,
    /// The host has acknowledged its last batch.
    acknowledged: bool,
}

/// Everything that requests share.
pub struct Service {
    /// The settings.
    pub config: Config,
    /// Random per start.
    pub boot: [u8; 16],
    /// Quotes.
    pub quoter: Arc<Quoter>,
    /// Where they come from, for what comes beside them.
    pub source: Arc<dyn QuoteSource>,
    /// Batches for the host.
    pub outbox: Arc<Outbox>,
    /// Places for requests in flight.
    pub places: Arc<Semaphore>,
    /// Bytes that requests hold.
    pub held: Arc<Held>,
    /// Objects by digest.
    objects: Objects,
    facts: KeysetFacts,
    loader: Loader,
    current: ArcSwapOption<Epoch>,
    /// JCS and newline of the newest keyset, for `/v1/keyset`.
    keyset_file: ArcSwapOption<Bytes>,
    keysets: Mutex<Vec<KeysetRecord>>,
    draining: AtomicBool,
    /// Logs whose last entry is not sealed.
    open_logs: watch::Sender<usize>,
    /// Held by whoever changes keyset or catalog.
    change: tokio::sync::Mutex<()>,
}

/// Why the model repository was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// What the repository says.
    #[error(transparent)]
    Models(#[from] ModelError),
    /// A bug of ours, met while loading.
    #[error("loading the models panicked")]
    Panicked,
}

/// Why the enclave does not come up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The model repository.
    #[error("the model repository cannot be loaded: {0}")]
    Models(#[from] LoadError),
    /// Keys or identifiers.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// One of our own objects cannot be written.
    #[error("an object cannot be written: {0}")]
    Format(#[from] touchstone_formats::FormatError),
}

impl Service {
    /// The state before any keyset exists. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// No random bytes; settings that have no canonical form.
    pub fn new(
        config: Config,
        arguments: &[String],
        source: Arc<dyn QuoteSource>,
        loader: Loader,
    ) -> Result<Arc<Self>, StartError> {
        let mut boot = [0; 16];
        SystemRandom::new()
            .fill(&mut boot)
            .map_err(|_| KeyError::Random)?;
        let settings = touchstone_formats::jcs::to_vec(&config.object(arguments))?;
        let software = crate::build::statement().to_jcs()?;
        let facts = KeysetFacts {
            name: config.name.clone(),
            log_prefix: config.log_prefix.clone(),
            software: Digest::of(&software),
            config: Digest::of(&settings),
            lifetime_seconds: config.keyset.lifetime_seconds,
            tls: config.listen.tls.is_some(),
            ohttp_requests: config.limits.ohttp_requests,
        };
        let quote = QuoteSettings {
            timeout: config.quote.timeout,
            retries: config.quote.retries,
            queue: config.quote.queue,
            sessions: config.quote.sessions,
        };
        Ok(Arc::new(Self {
            boot,
            quoter: Arc::new(Quoter::start(source.clone(), quote)),
            source,
            outbox: Arc::new(Outbox::new(config.limits.unacknowledged_bytes)),
            places: Arc::new(Semaphore::new(config.limits.in_flight)),
            held: Held::new(config.limits.buffered_bytes),
            objects: Objects::new([settings.into(), software.into()]),
            facts,
            loader,
            current: ArcSwapOption::empty(),
            keyset_file: ArcSwapOption::empty(),
            keysets: Mutex::default(),
            draining: AtomicBool::new(false),
            open_logs: watch::Sender::new(0),
            change: tokio::sync::Mutex::default(),
            config,
        }))
    }

    /// Loads the models, makes the first keyset and waits for its boot quote, for as long as it takes.
    /// Nothing is admitted before this is done.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn boot(self: &Arc<Self>) -> Result<(), StartError> {
        let models = self.load(None).await?;
        tracing::info!(models = models.iter().count(), "models loaded");
        self.new_keyset(Some(models)).await?;
        Ok(())
    }

    async fn load(
        self: &Arc<Self>,
        previous: Option<LoadedModels>,
    ) -> Result<LoadedModels, LoadError> {
        let service = self.clone();
        match tokio::task::spawn_blocking(move || (service.loader)(previous.as_ref())).await {
            Ok(loaded) => Ok(loaded?),
            Err(_) => Err(LoadError::Panicked),
        }
    }

    /// Makes a keyset and, once its boot quote exists, puts it in force; the one before it ends when
    /// its last request does.
    async fn new_keyset(self: &Arc<Self>, models: Option<LoadedModels>) -> Result<(), StartError> {
        let previous = self.keysets().last().map(|record| record.digest);
        let in_force = self.current.load();
        let key = in_force.as_ref().and_then(|epoch| epoch.ohttp.as_ref());
        let key = key.map(OhttpKey::id);
        drop(in_force);
        let new = NewKeyset::generate(&self.facts, previous, key, wall_clock())?;
        tracing::info!(keyset = %new.digest, "keyset made, waiting for its boot quote");
        let data = report_data(Purpose::Boot, new.digest, None, bind_boot());
        let evidence = self
            .quoter
            .seal(data)
            .await
            .into_evidence(Purpose::Boot, None);

        let _change = self.change.lock().await;
        if self.draining() {
            return Ok(());
        }
        let old = self.current.load_full();
        // A reload may have come while the quote was made: what is in force counts.
        let models = match (&old, models) {
            (Some(old), _) => old.catalog.load().models.clone(),
            (None, models) => models.unwrap_or_default(),
        };
        let catalog = CatalogInForce::new(models, new.digest, None);
        self.remember(&catalog);
        self.objects.insert(new.digest, new.jcs.clone());
        self.keysets().push(KeysetRecord {
            keyset: new.keyset.clone(),
            digest: new.digest,
            evidence,
            acknowledged: false,
        });
        let mut file = new.jcs.to_vec();
        file.push(b'\n');
        let digest = new.digest;
        let (epoch, signer) = new.start(
            catalog,
            self.config.seal.interval,
            self.config.seal.max_entries,
        );
        let sealer = Sealer::new(
            epoch.log.clone(),
            digest,
            signer,
            self.quoter.clone(),
            self.outbox.clone(),
        );
        self.open_logs.send_modify(|open| *open += 1);
        let service = self.clone();
        tokio::spawn(async move {
            sealer.run().await;
            tracing::info!(keyset = %digest, "log closed and sealed, keys erased");
            service.open_logs.send_modify(|open| *open -= 1);
        });
        self.current.store(Some(epoch));
        self.keyset_file.store(Some(Arc::new(file.into())));
        tracing::info!(keyset = %digest, "keyset in force");
        if let Some(old) = old {
            tokio::spawn(async move { old.close().await });
        }
        Ok(())
    }

    /// Makes the next keyset now.
    ///
    /// # Errors
    /// [`StartError`]; the keyset in force stays.
    pub async fn rotate(self: &Arc<Self>) -> Result<(), StartError> {
        self.new_keyset(None).await
    }

    /// Rotates keysets in time, until drained.
    pub async fn rotate_in_time(self: Arc<Self>) {
        let margin = Duration::from_secs(self.config.keyset.rotate_before_seconds);
        while !self.draining() {
            let left = self
                .current
                .load_full()
                .map_or(margin, |epoch| match epoch.worn() {
                    true => Duration::ZERO,
                    false => epoch.remaining(),
                });
            match left.checked_sub(margin) {
                // Looks again at least every second: the wall clock may be set.
                Some(time) if !time.is_zero() => {
                    tokio::time::sleep(time.min(Duration::from_secs(1))).await
                }
                _ => {
                    if let Err(error) = self.rotate().await {
                        tracing::error!(%error, "the next keyset could not be made; trying again");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        }
    }

    /// Reads the model repository again. What changed becomes a new catalog epoch and a log entry; if
    /// nothing did, nothing happens; if reading fails, what is in force stays.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn reload(self: &Arc<Self>) -> Result<bool, LoadError> {
        // Held while loading: two reloads at once would need the memory of three.
        let _change = self.change.lock().await;
        let Some(epoch) = self.current.load_full() else {
            return Ok(false);
        };
        let old = epoch.catalog.load_full();
        let models = self.load(Some(old.models.clone())).await?;
        if models.catalog_models() == old.catalog.models {
            tracing::info!("model repository read again: unchanged");
            return Ok(false);
        }
        let new = CatalogInForce::new(models, epoch.digest, Some(&old));
        self.remember(&new);
        // First into the log, then in force: no receipt names a catalog that the log has later.
        epoch.log.append_catalog(new.catalog.clone(), new.digest);
        let (number, models) = (new.catalog.epoch, new.catalog.models.len());
        epoch.catalog.store(Arc::new(new));
        tracing::info!(epoch = number, models, "catalog changed");
        Ok(true)
    }

    fn remember(&self, catalog: &CatalogInForce) {
        self.objects
            .insert(catalog.digest, catalog.catalog.to_jcs().into());
        for model in catalog.models.iter() {
            self.objects.insert(
                model.config_digest,
                Bytes::copy_from_slice(&model.config_object),
            );
        }
    }

    /// Stops admission, lets what is under way finish, seals everything and closes the log. Returns when
    /// all is sealed; never, if the platform gives no more quotes.
    pub async fn drain(&self) {
        if !self.draining.swap(true, Ordering::SeqCst) {
            tracing::info!("draining");
        }
        let epoch = {
            let _change = self.change.lock().await;
            self.current.swap(None)
        };
        if let Some(epoch) = epoch {
            epoch.close().await;
        }
        let _ = self.open_logs.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Whether a drain has begun.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// The keyset in force.
    pub fn current(&self) -> Option<Arc<Epoch>> {
        self.current.load_full()
    }

    /// Starts work under the keyset in force.
    ///
    /// # Errors
    /// 503 while there is none.
    pub fn enter(&self) -> Result<Guest, Problem> {
        if self.draining() {
            return Err(Problem::unavailable(
                "Draining",
                "this enclave is being shut down",
                5,
            ));
        }
        // Twice: the keyset may have been rotated between the two steps.
        for _ in 0..2 {
            match &*self.current.load() {
                None => break,
                Some(epoch) => {
                    if let Some(guest) = epoch.enter() {
                        return Ok(guest);
                    }
                }
            }
        }
        Err(Problem::unavailable(
            "Not ready",
            "this enclave has no boot quote yet",
            1,
        ))
    }

    /// Whether a request that asks for nothing in particular would be let in.
    pub fn ready(&self) -> bool {
        let defaults = &self.config.answers.default_guarantees;
        let needs_quote =
            defaults.contains(Guarantee::Logged) || defaults.contains(Guarantee::Quoted);
        let quotes_work = !needs_quote || !self.quoter.failing();
        let in_force = self
            .current
            .load()
            .as_ref()
            .is_some_and(|epoch| epoch.issued_at().is_some());
        in_force && !self.draining() && !self.outbox.full() && quotes_work
    }

    /// JCS and newline of the newest keyset.
    pub fn keyset_file(&self) -> Option<Bytes> {
        self.keyset_file.load().as_deref().cloned()
    }

    /// The object with this digest.
    pub fn object(&self, digest: &Digest) -> Option<Bytes> {
        self.objects.find(digest).or_else(|| {
            // What is in force is always to be had, however much came since.
            let epoch = self.current.load_full()?;
            let in_force = epoch.catalog.load();
            if in_force.digest == *digest {
                return Some(in_force.catalog.to_jcs().into());
            }
            let model = in_force
                .models
                .iter()
                .find(|model| model.config_digest == *digest);
            model.map(|model| Bytes::copy_from_slice(&model.config_object))
        })
    }

    fn keysets(&self) -> MutexGuard<'_, Vec<KeysetRecord>> {
        // Nothing that holds the lock can panic halfway through a change.
        self.keysets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keysets of this boot that the host may need, oldest first.
    pub fn keyset_records(&self) -> Vec<KeysetRecord> {
        self.keysets().clone()
    }

    /// The host has every batch through this number.
    pub fn acknowledge(&self, through: u64) {
        let closed = self.outbox.acknowledge(through);
        if closed.is_empty() {
            return;
        }
        let mut keysets = self.keysets();
        for record in keysets.iter_mut() {
            record.acknowledged |= closed.contains(&record.digest);
        }
        let mut surplus = keysets
            .iter()
            .filter(|record| record.acknowledged)
            .count()
            .saturating_sub(CLOSED_KEPT);
        keysets.retain(|record| {
            let drop = record.acknowledged && surplus > 0;
            surplus -= usize::from(drop);
            !drop
        });
    }
}
