//! Keeps one host's folder fresh.

use std::path::PathBuf;
use std::time::Duration;

use attestation_verifier::Policy;
use attestation_verifier::product::Product;
use tokio::time::Instant;

use super::State;
use crate::Error;
use crate::cache::write_atomically;
use crate::fetch::{Fetcher, Fresh, How};
use crate::forecast::forecast;
use crate::gather::{Wanted, gather};
use crate::pace::jitter;
use crate::{folder, platform};

/// How often is looked whether something is due: the evidence may have changed, a piece may be half through.
const EVERY: Duration = Duration::from_secs(60);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// The file in the folder that says until when the platform will be accepted.
pub(crate) const STATUS: &str = "status.json";
/// Evidence files, at most: bytes.
const MOST_EVIDENCE: u64 = 4 << 20;

/// Keeps one folder.
#[derive(Debug)]
pub struct Keeper {
    /// The file with evidence from this machine; read anew each time, so that a new one (a firmware update) is enough.
    pub evidence: PathBuf,
    /// The folder that the host attaches from.
    pub folder: PathBuf,
    /// The product, for reports that do not say.
    pub product: Option<Product>,
    /// The certificate of a provider's key, DER.
    pub vlek: Option<Vec<u8>>,
    /// The policy that the forecast is made by.
    pub policy: Option<Policy>,
}

impl Keeper {
    /// Fetches what is due, writes what has changed, says until when it will do; for ever.
    pub async fn run(self, fetcher: &Fetcher, state: &State) -> Error {
        let mut failures: u32 = 0;
        let mut quiet_until = Instant::now();
        let mut seen = None;
        loop {
            let evidence = read(&self.evidence);
            let is_new = evidence.as_ref().ok() != seen.as_ref();
            if is_new || Instant::now() >= quiet_until {
                match self.once(fetcher, state, evidence).await {
                    Ok(bytes) => {
                        seen = Some(bytes);
                        failures = 0;
                        quiet_until = Instant::now();
                    }
                    Err((bytes, error)) => {
                        seen = bytes;
                        failures = failures.saturating_add(1);
                        let pause = EVERY.saturating_mul(1 << (failures - 1).min(8));
                        let pause = jitter(pause.min(LONGEST_PAUSE));
                        quiet_until = Instant::now() + pause;
                        tracing::warn!(%error, again_in_s = pause.as_secs(), "collateral is not fresh");
                        state.update(|known| {
                            known.failures += 1;
                            known.error = Some(error.to_string());
                        });
                    }
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// One round. Returns the evidence that it was about.
    #[allow(clippy::type_complexity, reason = "read in one place, right above")]
    async fn once(
        &self,
        fetcher: &Fetcher,
        state: &State,
        evidence: Result<Vec<u8>, Error>,
    ) -> Result<Vec<u8>, (Option<Vec<u8>>, Error)> {
        let bytes = evidence.map_err(|error| (None, error))?;
        match self.refresh(fetcher, state, &bytes).await {
            Ok(()) => Ok(bytes),
            Err(error) => Err((Some(bytes), error)),
        }
    }

    /// Brings the folder up to date. A piece that could not be renewed and still holds is written, and is an error all the same.
    ///
    /// # Errors
    /// Whatever kept something from being as new as it should be.
    pub async fn refresh(
        &self,
        fetcher: &Fetcher,
        state: &State,
        evidence: &[u8],
    ) -> Result<(), Error> {
        let wanted = Wanted {
            evidence: platform::read_evidence(evidence)?,
            product: self.product,
            vlek: self.vlek.clone(),
        };
        let gathered = gather(fetcher, &wanted, Fresh::WhenDue).await?;
        let changed = folder::write(&self.folder, &gathered.collateral)?;
        for path in &changed {
            tracing::info!(file = %path.display(), "collateral written");
        }
        let roots = &fetcher.settings().roots;
        let policy = self.policy.as_ref();
        let new = forecast(&gathered.evidence, policy, roots, fetcher.now());
        let sentence = new.sentence();
        let said = state.read(|known| known.forecast.as_ref().map(|f| f.sentence()));
        if said.as_ref() != Some(&sentence) {
            tracing::info!(platform = gathered.platform.words(), "{sentence}");
        }
        state.update(|known| known.forecast = Some(new));
        let kept = gathered.pieces.into_iter().find_map(|had| match had.how {
            How::Kept(error) => Some(error),
            How::Fetched | How::Cached => None,
        });
        if kept.is_none() {
            let now = fetcher.now();
            state.update(|known| {
                known.succeeded = Some(now);
                known.error = None;
            });
        }
        if let Some(status) = state.to_json() {
            let path = self.folder.join(STATUS);
            let text = format!("{status}\n");
            write_atomically(&path, text.as_bytes()).map_err(|error| Error::Io { path, error })?;
        }
        kept.map_or(Ok(()), Err)
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let error = |error| Error::Io {
        path: path.to_owned(),
        error,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(error)?
        .take(MOST_EVIDENCE + 1)
        .read_to_end(&mut bytes)
        .map_err(error)?;
    Ok(bytes)
}
