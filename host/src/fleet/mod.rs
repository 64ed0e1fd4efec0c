//! The enclaves behind this host: which there are, how they are, and which of them gets what.
//!
//! Every enclave has keys, keysets and a log of its own; none knows of the others. What they have in
//! common is this host: it sends a request to one that takes requests and has the model, the least
//! loaded of those, and stores what all of them seal in one store ([`crate::store`]). Which one answered
//! stands in the receipt.

mod drain;
mod health;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use touchstone_formats::{Catalog, CatalogModel, Digest};

use crate::{
    address::Address,
    config::{Config, Enclave},
    control::{self, Control},
    puller::Puller,
    relay::upstream::Upstream,
    store::Store,
};

pub use drain::DrainError;

/// Longest time that a request waits for enclaves to be looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How an enclave is, as far as it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Not looked at yet.
    Unknown,
    /// It takes requests.
    Serving,
    /// It is there, and takes none yet: no boot quote, or no keyset in force.
    Starting,
    /// It was told to stop.
    Draining,
    /// It cannot be reached, or does not answer.
    Away,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Serving,
        Self::Starting,
        Self::Draining,
        Self::Away,
    ];

    /// Its name in JSON and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Serving => "serving",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Away => "away",
        }
    }
}

/// What is known of an enclave.
#[derive(Debug, Clone)]
pub struct Health {
    /// How it is.
    pub condition: Condition,
    /// What it said last; `None`: it never said anything.
    pub status: Option<touchstone_formats::control::Status>,
    /// The models of the catalog in force, as it was last seen; `None`: not known.
    models: Option<Arc<Models>>,
}

/// The models of a catalog.
#[derive(Debug)]
struct Models {
    digest: Digest,
    versions: HashSet<(String, String)>,
    names: HashSet<String>,
    /// Names by what receipts say: digests of files and configuration.
    digests: HashMap<(Digest, Digest), String>,
}

impl Models {
    fn new(digest: Digest, catalog: Catalog) -> Self {
        let named = |m: &CatalogModel| ((m.model_digest, m.config_digest), m.name.clone());
        let digests = catalog.models.iter().map(named).collect();
        let versions = catalog.models.into_iter().map(|m| (m.name, m.version));
        let versions: HashSet<(String, String)> = versions.collect();
        Self {
            digest,
            names: versions.iter().map(|(name, _)| name.clone()).collect(),
            versions,
            digests,
        }
    }

    fn has(&self, model: &Model<'_>) -> bool {
        match model.version {
            None => self.names.contains(model.name),
            Some(version) => {
                let key = (model.name.to_owned(), version.to_owned());
                self.versions.contains(&key)
            }
        }
    }
}

/// A model that a request names in its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model<'a> {
    /// As it stands in the target.
    pub name: &'a str,
    /// `None`: whichever is the enclave's default.
    pub version: Option<&'a str>,
}

impl<'a> Model<'a> {
    /// The model that a target is about: `/v2/models/<name>[/versions/<version>]…`. Names need no
    /// percent-encoding, and enclaves refuse it.
    pub fn of(path: &'a str) -> Option<Self> {
        let mut parts = path.strip_prefix("/v2/models/")?.split('/');
        let name = parts.next().filter(|name| !name.is_empty())?;
        let version = match parts.next() {
            Some("versions") => parts.next().filter(|version| !version.is_empty()),
            _ => None,
        };
        Some(Self { name, version })
    }
}

/// One enclave.
#[derive(Debug)]
pub struct Member {
    /// Its name in the settings.
    pub name: String,
    /// Its place in the settings, by which store and notes know it.
    pub index: usize,
    /// Its public listener.
    pub public: Arc<Upstream>,
    /// Its control listener.
    pub control: Arc<Control>,
    /// Takes from it what has to outlive it.
    pub puller: Arc<Puller>,
    /// Its TLS listener.
    pub tls: Option<Address>,
    health: RwLock<Health>,
    look: Notify,
    /// Looks that were begun, and the number of the last that ended.
    begun: AtomicU64,
    looked: watch::Sender<u64>,
    /// The operator wants nothing more to go there.
    held: AtomicBool,
    /// It did not admit what it was sent last, since it was last looked at.
    refusing: AtomicBool,
    requests: AtomicUsize,
    passed: AtomicUsize,
}

/// A place that a request or connection has at an enclave, for as long as it lasts.
#[derive(Debug)]
pub struct Load(Arc<Member>, fn(&Member) -> &AtomicUsize);

impl Drop for Load {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Relaxed);
    }
}

impl Member {
    /// How it is.
    pub fn health(&self) -> Health {
        let health = self.health.read();
        health.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_health(&self, change: impl FnOnce(&mut Health)) {
        let (before, after) = {
            let mut health = self.health.write().unwrap_or_else(PoisonError::into_inner);
            let before = health.condition;
            change(&mut health);
            (before, health.condition)
        };
        if before != after {
            tracing::info!(enclave = %self.name, ?before, ?after, "an enclave has changed");
        }
    }

    /// It could not be reached: nothing goes there before it was looked at again, which is soon.
    pub fn failed(&self) {
        self.set_health(|health| health.condition = Condition::Away);
        self.look_again();
    }

    /// It did not admit a request, whatever it says of itself: others come first until it was looked at again.
    pub fn refused(&self) {
        self.refusing.store(true, Relaxed);
    }

    /// Something is odd: whether it is there is to be looked at soon.
    pub fn look_again(&self) {
        self.look.notify_one();
    }

    /// Has a look begun that sees all that was true when this was called. Gives what tells of looks that ended,
    /// and its number.
    fn next_look(&self) -> (watch::Receiver<u64>, u64) {
        // What was begun before may have been answered before.
        let number = self.begun.load(Relaxed).saturating_add(1);
        self.look_again();
        (self.looked.subscribe(), number)
    }

    /// Whether the operator keeps requests from it.
    pub fn is_held(&self) -> bool {
        self.held.load(Relaxed)
    }

    /// Requests that are being relayed to it.
    pub fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }

    /// TLS connections that are passed through to it.
    pub fn passed(&self) -> usize {
        self.passed.load(Relaxed)
    }

    fn enter(self: &Arc<Self>, count: fn(&Self) -> &AtomicUsize) -> Load {
        count(self).fetch_add(1, Relaxed);
        Load(self.clone(), count)
    }

    /// A request goes there.
    pub fn request(self: &Arc<Self>) -> Load {
        self.enter(|member| &member.requests)
    }

    /// A TLS connection goes there.
    pub fn pass(self: &Arc<Self>) -> Load {
        self.enter(|member| &member.passed)
    }

    /// How good a choice it is; `None`: none.
    fn suits(&self, wanted: Wanted<'_>) -> Option<Suits> {
        if self.is_held() {
            return None;
        }
        let health = self.health.read().unwrap_or_else(PoisonError::into_inner);
        let serves = health.condition == Condition::Serving;
        let has = match wanted {
            Wanted::Tls => match self.tls {
                Some(_) => Has::Yes,
                None => return None,
            },
            Wanted::Any => Has::Yes,
            Wanted::Model(model) => match &health.models {
                Some(models) if models.has(&model) => Has::Yes,
                Some(_) => Has::No,
                None => Has::Maybe,
            },
            Wanted::Keyset(keyset) => match &health.status {
                Some(status) if status.keyset_digest == Some(keyset) => Has::Yes,
                // Nobody else opens what was sealed for it.
                _ => return None,
            },
        };
        Some(match (serves, has) {
            (true, Has::Yes) => Suits::Well,
            (true, Has::Maybe) => Suits::Perhaps,
            // It had the model when it was last seen: that it cannot be had just now is truer than
            // another's word that there is none.
            (false, Has::Yes) => Suits::IfItComesBack,
            (true, Has::No) => Suits::ToSayNo,
            (false, _) => Suits::Hardly,
        })
    }
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// Whichever enclave.
    Any,
    /// One that has this model.
    Model(Model<'a>),
    /// The one that has this keyset in force.
    Keyset(Digest),
    /// One with a TLS listener.
    Tls,
}

enum Has {
    Yes,
    Maybe,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Suits {
    Well,
    Perhaps,
    IfItComesBack,
    ToSayNo,
    Hardly,
}

/// All of them.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Arc<Member>>,
    turn: AtomicUsize,
    /// Held while it is settled whether an enclave may be drained: of two the last one is not.
    draining: Mutex<()>,
    health_interval: Duration,
}

impl Fleet {
    /// The enclaves of the settings. Nothing is asked of them yet.
    pub fn new(config: &Config, store: &Arc<Store>) -> Arc<Self> {
        let upstream = |address: &Address, keep| {
            let patience = &config.enclave;
            Upstream::new(
                address.clone(),
                patience.connect_timeout,
                patience.idle_timeout,
                keep,
                config.threads,
            )
        };
        // Unused connections to all of them together: as many as there may be requests.
        let kept = config
            .limits
            .in_flight
            .div_ceil(config.enclaves.len().max(1));
        let member = |(index, enclave): (usize, &Enclave)| {
            let control = Control::new(upstream(&enclave.control, control::CONNECTIONS));
            Arc::new(Member {
                name: enclave.name.clone(),
                index,
                public: upstream(&enclave.public, kept),
                puller: Puller::new(index, &enclave.name, control.clone(), store.clone()),
                control,
                tls: enclave.tls.clone(),
                health: RwLock::new(Health {
                    condition: Condition::Unknown,
                    status: None,
                    models: None,
                }),
                look: Notify::new(),
                begun: AtomicU64::new(0),
                looked: watch::Sender::new(0),
                held: AtomicBool::new(false),
                refusing: AtomicBool::new(false),
                requests: AtomicUsize::new(0),
                passed: AtomicUsize::new(0),
            })
        };
        Arc::new(Self {
            members: config.enclaves.iter().enumerate().map(member).collect(),
            turn: AtomicUsize::new(0),
            draining: Mutex::default(),
            health_interval: config.enclave.health_interval,
        })
    }

    /// The enclaves, in the order of the settings.
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Whether there is another to go to.
    pub fn is_several(&self) -> bool {
        self.members.len() > 1
    }

    /// Whether TLS is passed through.
    pub fn has_tls(&self) -> bool {
        self.members.iter().any(|member| member.tls.is_some())
    }

    /// Whether an enclave takes requests.
    pub fn is_ready(&self) -> bool {
        let ready = |member: &Arc<Member>| {
            !member.is_held() && member.health().condition == Condition::Serving
        };
        self.members.iter().any(ready)
    }

    /// Whether some enclave's catalog has this model. What callers call a model is not believed.
    pub fn knows_model(&self, model: &Model<'_>) -> bool {
        self.members.iter().any(|member| {
            let health = member.health.read().unwrap_or_else(PoisonError::into_inner);
            let models = health.models.as_ref();
            models.is_some_and(|models| models.has(model))
        })
    }

    /// What some enclave's catalog calls the model with these digests (files, configuration), which a receipt states.
    pub fn model_name(&self, digests: &(Digest, Digest)) -> Option<String> {
        self.members.iter().find_map(|member| {
            let health = member.health.read().unwrap_or_else(PoisonError::into_inner);
            health.models.as_ref()?.digests.get(digests).cloned()
        })
    }

    /// The best enclave that was not tried yet. Of equals one that did not just refuse, of those the one with the least to
    /// do, and of those each in its turn. One that is away is better than none: whether it is back is seen when it is tried.
    pub fn choose(&self, wanted: Wanted<'_>, tried: &[usize]) -> Option<Arc<Member>> {
        let (suits, member) = self.best(wanted, tried)?;
        // After one that has the model failed, nobody's word that there is none is asked for.
        (tried.is_empty() || suits != Suits::ToSayNo).then_some(member)
    }

    /// As [`Self::choose`], and only one that takes requests and has what is wanted.
    pub fn choose_well(&self, wanted: Wanted<'_>, tried: &[usize]) -> Option<Arc<Member>> {
        let (suits, member) = self.best(wanted, tried)?;
        (suits <= Suits::Perhaps).then_some(member)
    }

    /// Whether an enclave takes requests that are sealed for this keyset. What is not known is looked for: a keyset may
    /// have come into force since the enclaves were looked at.
    pub async fn opens(&self, keyset: Digest) -> bool {
        if !self.known_to_open(keyset) {
            self.look_through().await;
        }
        self.known_to_open(keyset)
    }

    /// As [`Self::opens`], as far as it was last seen.
    pub fn known_to_open(&self, keyset: Digest) -> bool {
        self.choose_well(Wanted::Keyset(keyset), &[]).is_some()
    }

    /// Looks at all enclaves that are there, and waits for what is seen; not for long, as one may hang.
    pub async fn look_through(&self) {
        // One that is away is looked for all the time.
        let there = |member: &&Arc<Member>| member.health().condition != Condition::Away;
        let there: Vec<_> = self.members.iter().filter(there).collect();
        let looks: Vec<_> = there.iter().map(|member| member.next_look()).collect();
        let all = async {
            for (mut looked, number) in looks {
                // The sender is the member's own.
                let _ = looked.wait_for(|ended| *ended >= number).await;
            }
        };
        let _ = timeout(LOOK, all).await;
    }

    fn best(&self, wanted: Wanted<'_>, tried: &[usize]) -> Option<(Suits, Arc<Member>)> {
        if let ([member], []) = (&self.members[..], tried) {
            return Some((member.suits(wanted)?, member.clone()));
        }
        let turn = match wanted {
            // One has it at most. Were turns taken for what has no choice, callers who ask for a keyset and then seal a
            // request would come round to the same enclave each time.
            Wanted::Keyset(_) => 0,
            _ => self.turn.fetch_add(1, Relaxed),
        };
        let count = self.members.len();
        let load = |member: &Member| match wanted {
            Wanted::Tls => (member.passed(), member.requests()),
            _ => (member.requests(), member.passed()),
        };
        (0..count)
            .filter_map(|n| self.members.get(turn.wrapping_add(n) % count))
            .filter(|member| !tried.contains(&member.index))
            .filter_map(|member| {
                let first = (member.suits(wanted)?, member.refusing.load(Relaxed));
                Some((first, load(member), member))
            })
            .min_by_key(|(first, load, _)| (*first, *load))
            .map(|((suits, _), _, member)| (suits, member.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_name_models() {
        let model = |name, version| Some(Model { name, version });
        for (path, expected) in [
            ("/v2/models/m", model("m", None)),
            ("/v2/models/m/infer", model("m", None)),
            ("/v2/models/m/versions/3", model("m", Some("3"))),
            ("/v2/models/m/versions/3/infer", model("m", Some("3"))),
            ("/v2/models/versions/infer", model("versions", None)),
            ("/v2/models/m/versions/", model("m", None)),
            ("/v2/models/", None),
            ("/v2/models", None),
            ("/v2/health/ready", None),
            ("/v1/v2/models/m", None),
        ] {
            assert_eq!(Model::of(path), expected, "{path}");
        }
    }
}
