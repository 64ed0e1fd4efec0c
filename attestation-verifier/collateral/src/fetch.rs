//! Getting a piece: out of the cache while it is fresh, else from the vendor, patiently, and into the cache once it passed.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation_verifier::Roots;
use attestation_verifier::parse::cert::Certificate;
use hyper::StatusCode;
use tokio::sync::Mutex;

use crate::Error;
use crate::cache::{Cache, CacheLimits};
use crate::http::{self, Answer, Failed, Limits};
use crate::item::Item;
use crate::pace::{Pacer, Patience, retry_after};
use crate::source::Sources;
use crate::verify::{Piece, Raw, When, verify};

const DAY: u64 = 86_400;
/// Items that can be worked on at the same time.
const LOCKS: usize = 64;

/// How a [`Fetcher`] works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whom to ask.
    pub sources: Sources,
    /// Whose signatures count.
    pub roots: Roots,
    /// The folder of the cache; none: nothing is kept.
    pub cache: Option<PathBuf>,
    /// Bounds of the cache.
    pub cache_limits: CacheLimits,
    /// How patient to be.
    pub patience: Patience,
    /// How long one exchange may take.
    pub limits: Limits,
    /// The clock, Unix seconds.
    pub clock: fn() -> u64,
}

impl Settings {
    /// Everything as a program wants it, without a cache.
    pub fn new(sources: Sources, roots: Roots) -> Settings {
        Settings {
            sources,
            roots,
            cache: None,
            cache_limits: CacheLimits::default(),
            patience: Patience::default(),
            limits: Limits::default(),
            clock: system_clock,
        }
    }
}

/// Unix seconds on this machine's clock; 0 before 1970.
pub fn system_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// How new a piece must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// What the cache holds is good until it is due for a refresh.
    WhenDue,
    /// The vendor is asked, whatever the cache holds.
    Now,
}

/// A piece that was had.
#[derive(Debug)]
pub struct Had {
    /// The piece.
    pub piece: Piece,
    /// When it was fetched, Unix seconds.
    pub fetched: u64,
    /// How it was had.
    pub how: How,
}

/// How a piece was had.
#[derive(Debug)]
pub enum How {
    /// From the vendor, just now.
    Fetched,
    /// From the cache, where it is fresh.
    Cached,
    /// From the cache: a newer one was wanted and could not be had. It is still valid.
    Kept(Error),
}

/// Gets pieces. Shared by all who want some: then the pauses between requests hold for all of them together.
pub struct Fetcher {
    settings: Settings,
    cache: Option<Cache>,
    pacer: Pacer,
    /// One piece is fetched once, however many want it at the same time.
    busy: Vec<Mutex<()>>,
}

impl Fetcher {
    /// A fetcher.
    ///
    /// # Errors
    /// When the cache's folder cannot be made.
    pub fn new(settings: Settings) -> Result<Fetcher, Error> {
        let folder = settings.cache.as_deref();
        Ok(Fetcher {
            cache: folder
                .map(|folder| Cache::open(folder, settings.cache_limits))
                .transpose()?,
            pacer: Pacer::new(settings.patience, folder),
            busy: (0..LOCKS).map(|_| Mutex::default()).collect(),
            settings,
        })
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Now, by the fetcher's clock.
    pub fn now(&self) -> u64 {
        (self.settings.clock)()
    }

    /// Gets a piece that passed and is valid now.
    ///
    /// # Errors
    /// [`Error`]: it cannot be had, and nothing valid is in the cache.
    pub async fn obtain(&self, item: &Item, fresh: Fresh) -> Result<Had, Error> {
        // A VCEK certificate is worth nothing without what issued it.
        let intermediate = match item {
            Item::Vcek { product, .. } => {
                let (product, key) = (*product, crate::item::VekKind::Vcek);
                let chain = Item::AmdChain { product, key };
                let chain = self.one(&chain, Fresh::WhenDue, None).await?;
                chain.piece.intermediate()
            }
            _ => None,
        };
        self.one(item, fresh, intermediate.as_ref()).await
    }

    async fn one(
        &self,
        item: &Item,
        fresh: Fresh,
        intermediate: Option<&Certificate>,
    ) -> Result<Had, Error> {
        let _only = match self.busy.get(lock_of(item)) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        let now = self.now();
        let held = self.held(item, intermediate);
        if let (Some((piece, fetched)), Fresh::WhenDue) = (&held, fresh)
            && is_fresh(piece, *fetched, now)
        {
            return Ok(Had {
                piece: piece.clone(),
                fetched: *fetched,
                how: How::Cached,
            });
        }
        let fetched = self.fetch(item, intermediate).await;
        // Read again: another process may have fetched a newer one in the meantime.
        let held = self.held(item, intermediate);
        let fetched = match (fetched, &held) {
            // Somebody puts back an old one, to hide a revocation: nothing goes back, also where what was newer has expired.
            (Ok(piece), Some((held, _))) if piece.is_older_than(held) => {
                let reason = "the server has an older one than was fetched before";
                tracing::warn!(what = item.words(), "{reason}");
                Err(Error::Outdated {
                    what: item.words(),
                    reason: reason.into(),
                })
            }
            (fetched, _) => fetched,
        };
        let valid = |(piece, _): &(Piece, u64)| piece.window.holds(now);
        match (fetched, held.filter(valid)) {
            (Ok(piece), _) => {
                // A full disk keeps nobody from what was fetched.
                if let Some(Err(error)) = self.cache.as_ref().map(|c| c.write(&piece, now)) {
                    tracing::warn!(%error, "not kept in the cache");
                }
                Ok(Had {
                    piece,
                    fetched: now,
                    how: How::Fetched,
                })
            }
            (Err(error), Some((piece, fetched))) => Ok(Had {
                piece,
                fetched,
                how: How::Kept(error),
            }),
            (Err(error), None) => Err(error),
        }
    }

    /// What the cache holds, valid or not; what does not pass any more is not held.
    fn held(&self, item: &Item, intermediate: Option<&Certificate>) -> Option<(Piece, u64)> {
        let kept = self.cache.as_ref()?.read(item)?;
        let raw = Raw {
            body: &kept.body,
            issuer_chain: kept.issuer_chain.as_deref(),
        };
        match verify(item, raw, intermediate, &self.settings.roots, When::Ever) {
            Ok(piece) => Some((piece, kept.fetched)),
            Err(error) => {
                tracing::warn!(%error, "what the cache holds does not pass, and is fetched again");
                None
            }
        }
    }

    /// Asks until there is an answer, or patience ends.
    async fn fetch(&self, item: &Item, intermediate: Option<&Certificate>) -> Result<Piece, Error> {
        let Settings {
            patience, limits, ..
        } = &self.settings;
        let (base, target) = self.settings.sources.of(item);
        let busy = |status: StatusCode, wait: Duration| Error::Busy {
            what: item.words(),
            server: base.authority.clone(),
            status: status.as_u16(),
            wait,
            patience: patience.longest_pause,
        };
        let mut failures = 0;
        loop {
            if let Err(wait) = self.pacer.turn(item).await {
                return Err(busy(StatusCode::TOO_MANY_REQUESTS, wait));
            }
            let most = item.most_bytes();
            tracing::debug!(server = base.authority, target, "asking");
            let failed = match http::get(base, &target, most, *limits).await {
                Ok(answer) => {
                    let raw = Raw {
                        body: &answer.body,
                        issuer_chain: issuer_chain(item, &answer),
                    };
                    let when = When::At(self.now());
                    return verify(item, raw, intermediate, &self.settings.roots, when);
                }
                Err(failed) => failed,
            };
            failures += 1;
            let mut pause = patience.pause(failures);
            if let Failed::Status(status, after) = &failed
                && matches!(
                    *status,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
                )
            {
                let asked = after
                    .as_deref()
                    .and_then(|text| retry_after(text, SystemTime::now()));
                if let Some(asked) = asked {
                    self.pacer.be_quiet(item.vendor(), asked);
                    if asked > patience.longest_pause {
                        return Err(busy(*status, asked));
                    }
                    pause = pause.max(asked);
                }
            }
            let error = failed.into_error(&item.words(), base, most);
            if !error.is_passing() || failures >= patience.attempts {
                return Err(error);
            }
            tracing::info!(%error, pause_s = pause.as_secs_f32(), "asking again after a pause");
            tokio::time::sleep(pause).await;
        }
    }
}

/// When to ask for a newer one, Unix seconds: after half of the validity that was left, at most a day for lists and texts
/// (which bring news), at most thirty days for certificates (which do not).
pub fn due(piece: &Piece, fetched: u64) -> u64 {
    let half = piece.window.to.saturating_sub(fetched) / 2;
    let most = if piece.is_news() { DAY } else { 30 * DAY };
    fetched.saturating_add(half.min(most))
}

/// Whether a cached piece need not be asked for. The cache's word on when it was fetched only ever shortens that: one that
/// is out of its time, or is said to be of a time to come, is not fresh.
fn is_fresh(piece: &Piece, fetched: u64, now: u64) -> bool {
    piece.window.holds(now) && fetched <= now && now < due(piece, fetched)
}

fn lock_of(item: &Item) -> usize {
    let sum = |sum: usize, byte: u8| sum.wrapping_mul(31).wrapping_add(byte.into());
    item.file_name().bytes().fold(0, sum) % LOCKS
}

/// The header in which Intel's services give the chain of who signed the body.
fn issuer_chain<'a>(item: &Item, answer: &'a Answer) -> Option<&'a str> {
    let names: &[&str] = match item {
        Item::TcbInfo { .. } => &["TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"],
        Item::QeIdentity => &["SGX-Enclave-Identity-Issuer-Chain"],
        Item::PckCrl { .. } => &["SGX-PCK-CRL-Issuer-Chain"],
        _ => &[],
    };
    names.iter().find_map(|name| answer.header(name))
}

#[cfg(test)]
mod tests {
    use attestation_verifier::authenticate::Window;

    use super::*;

    #[test]
    fn a_cache_that_lies_about_the_time_keeps_nothing_fresh() {
        let piece = Piece {
            item: Item::QeIdentity,
            body: Vec::new(),
            issuer_chain: None,
            window: Window {
                from: 1000,
                to: 1000 + 10 * DAY,
            },
        };
        assert!(is_fresh(&piece, 2000, 3000));
        assert!(!is_fresh(&piece, 2000 + DAY, 3000), "fetched tomorrow");
        assert!(!is_fresh(&piece, u64::MAX, 3000));
        // Expired, and said to be fetched just now.
        let late = 1000 + 11 * DAY;
        assert!(!is_fresh(&piece, late, late));
        assert!(!is_fresh(&piece, u64::MAX, late));
    }

    #[test]
    fn refreshed_at_half_of_the_validity_and_news_daily() {
        let piece = |item, to| Piece {
            item,
            body: Vec::new(),
            issuer_chain: None,
            window: Window { from: 0, to },
        };
        assert_eq!(due(&piece(Item::QeIdentity, 1000 + 3600), 1000), 2800);
        assert_eq!(due(&piece(Item::QeIdentity, 90 * DAY), 1000), 1000 + DAY);
        // Expired while it was on its way: due at once.
        assert_eq!(due(&piece(Item::QeIdentity, 10), 1000), 1000);
        let (product, key) = (
            attestation_verifier::product::Product::Genoa,
            crate::item::VekKind::Vcek,
        );
        let chain = piece(Item::AmdChain { product, key }, u64::MAX);
        assert_eq!(due(&chain, 1000), 1000 + 30 * DAY);
    }
}
