//! Manifests for a policy that demands one: those that the caller gave, and newer ones from the host.
//!
//! The host is not trusted, and need not be: what it gives counts only if the signers that the policy names signed it, if it is
//! the one that the policy demands, in force, and no step back. All else leaves the client with what it had
//! (docs/manifests.md, "From the host"). What a host can do is withhold; a manifest's end bounds for how long.

mod state;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attestation_verifier::manifest::{
    Accepted, Authentic, Demand, Invalid, MAX_FILE, NotAuthentic, Refused, Rollback, StateError,
};
use attestation_verifier::verdict::{Check, Verdict};
use attestation_verifier::{At, Manifests, Verifier};
use touchstone_formats::limits::{MAX_ATTACHMENTS, MAX_BUNDLE};
use touchstone_formats::{Attachment, Bundle, jcs};

use crate::Error;
use crate::client::Settings;
pub use crate::keep::replace;
pub use state::{State, StateFileError};

/// Where the host gives it.
const TARGET: &str = "/v1/manifest";
/// How long the host may take.
const LIMIT: Duration = Duration::from_secs(10);
/// The attachment of a bundle that is a manifest.
const ATTACHMENT: &str = "touchstone/manifest/1";

/// What came of asking for a newer manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refreshed {
    /// The host has the one that was there already.
    Same {
        /// Its version.
        version: u64,
    },
    /// A newer one, which counts from now on.
    Newer {
        /// The version that it replaces; none if there was no manifest.
        from: Option<u64>,
        /// Its version.
        to: u64,
    },
}

/// Why the client goes on with the manifest that it had, if any.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotRefreshed {
    /// The policy demands none.
    #[error("the policy has no [manifest]")]
    NotDemanded,
    /// The host gave none.
    #[error("the server gave no manifest: {0}")]
    NotThere(#[source] Box<Error>),
    /// `manifest.format`, `manifest.signature`, `manifest.threshold`: nobody stands for it.
    #[error("the server's manifest is not authentic: {0}")]
    NotAuthentic(#[from] NotAuthentic),
    /// `manifest.name`, `manifest.version`: another one, or one below the policy's least version.
    #[error("the server's manifest: {0}")]
    Refused(#[from] Refused),
    /// `manifest.validity`: it does not count now.
    #[error("the server's manifest: {0}")]
    Invalid(#[from] Invalid),
    /// `manifest.version`: a step back, or a second one of a version.
    #[error("the server's manifest: {0}")]
    Rollback(#[from] Rollback),
    /// What was accepted before is not known, or this cannot be remembered.
    #[error("{0}")]
    State(#[from] StateFileError),
    /// There is no room in what is remembered.
    #[error("accepted manifests: {0}")]
    Full(#[from] StateError),
    /// The work was not done to its end.
    #[error("reading the manifest did not come to its end: {0}")]
    Unfinished(String),
}

impl NotRefreshed {
    /// The check that the manifest failed; none where there was no manifest to judge.
    pub fn check(&self) -> Option<&'static str> {
        match self {
            NotRefreshed::NotAuthentic(error) => Some(error.id()),
            NotRefreshed::Refused(error) => Some(error.id()),
            NotRefreshed::Invalid(_) => Some("manifest.validity"),
            NotRefreshed::Rollback(_) => Some("manifest.version"),
            NotRefreshed::NotDemanded
            | NotRefreshed::NotThere(_)
            | NotRefreshed::State(_)
            | NotRefreshed::Full(_)
            | NotRefreshed::Unfinished(_) => None,
        }
    }
}

/// The manifest that a client judges by, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InUse {
    /// The name that the policy demands.
    pub name: String,
    /// Version and end (Unix seconds) of the newest that was accepted; none if there is none.
    pub manifest: Option<(u64, u64)>,
    /// Who signed it, as the policy calls them.
    pub signed_by: Vec<String>,
    /// When the host was last asked (Unix seconds), and what came of it, in words.
    pub asked: Option<(u64, Result<(), String>)>,
}

/// The manifests of a client whose policy demands one.
pub(crate) struct Keeper {
    demand: Demand,
    state: Option<PathBuf>,
    /// Where a manifest of this server's is kept.
    cache: Option<PathBuf>,
    now: Mutex<Now>,
    /// Who asks the host: one at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Now {
    /// What the caller gave.
    given: Vec<Vec<u8>>,
    /// The newest that was accepted.
    newest: Option<Arc<Held>>,
    known: Accepted,
    /// How often the host was asked.
    asked: u64,
    /// How often the verifier was given others than it had.
    replaced: u64,
    /// The version of the newest that it was given.
    given_version: Option<u64>,
    last: Option<(u64, Outcome)>,
}

type Outcome = Result<Refreshed, Arc<NotRefreshed>>;

/// A manifest that was accepted.
struct Held {
    authentic: Authentic,
    file: Vec<u8>,
}

impl Keeper {
    /// Takes the caller's manifests and the one that was kept. Those that count raise the state. What is wrong with the others
    /// the verifier says, which gets all that the caller gave.
    ///
    /// # Errors
    /// [`StateFileError`]: what was accepted before is not known, and that is never the same as "nothing".
    pub fn open(
        demand: Demand,
        given: Manifests,
        state: Option<PathBuf>,
        cache: Option<PathBuf>,
        at: At,
    ) -> Result<Keeper, NotRefreshed> {
        // What is kept is no more trusted than what comes from the host, but for its version.
        let kept = cache
            .as_deref()
            .and_then(|path| state::read(path, MAX_FILE).ok());
        let keeper = Keeper {
            demand,
            state,
            cache,
            now: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        };
        let now = keeper.load(given, kept, at)?;
        *keeper.now() = now;
        Ok(keeper)
    }

    fn load(&self, given: Manifests, kept: Option<Vec<u8>>, at: At) -> Result<Now, NotRefreshed> {
        // What this process accepted stays accepted, with a state or without one; so does what the caller says he did.
        let mut known = self.now().known.clone();
        known.merge(&given.known)?;
        let mut locked = self.state.as_deref().map(State::open).transpose()?;
        let mut newest: Option<Arc<Held>> = None;
        let mut changed = match &mut locked {
            Some(state) => state.accepted.merge(&known)?,
            None => false,
        };
        for file in given.files.iter().cloned().chain(kept) {
            let accepted = locked.as_mut().map_or(&mut known, |s| &mut s.accepted);
            let Ok(held) = self.judge(file, accepted, at) else {
                continue;
            };
            changed |= accepted.accept(&held.authentic)?;
            if newest.as_ref().is_none_or(|n| n.version() < held.version()) {
                newest = Some(Arc::new(held));
            }
        }
        if let Some(state) = locked {
            if changed {
                state.write()?;
            }
            known = state.accepted;
        }
        Ok(Now {
            given: given.files,
            newest,
            known,
            ..Now::default()
        })
    }

    /// Takes the caller's manifests in place of all that there are.
    ///
    /// # Errors
    /// As [`Self::open`]; nothing has changed.
    pub fn replace(&self, given: Manifests, settings: &Settings) -> Result<(), NotRefreshed> {
        let mut loaded = self.load(given, None, settings.at())?;
        let mut now = self.now();
        // The host may have been asked meanwhile.
        loaded.known.merge(&now.known)?;
        *now = Now {
            asked: now.asked,
            replaced: now.replaced,
            last: now.last.take(),
            ..loaded
        };
        drop(now);
        self.give_to(&settings.verifier);
        Ok(())
    }

    /// All that a manifest must be to count now, after what was accepted before.
    fn judge(&self, file: Vec<u8>, accepted: &Accepted, at: At) -> Result<Held, NotRefreshed> {
        let authentic = Authentic::read(&file, &self.demand.signers)?;
        if let Some(refused) = self.demand.refuses(authentic.manifest()).into_iter().next() {
            return Err(refused.into());
        }
        authentic.validity(at.time)?;
        accepted.check(&authentic)?;
        Ok(Held { authentic, file })
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the verifier judge by what there is now.
    pub fn give_to(&self, verifier: &Verifier) {
        let mut now = self.now();
        let newest = now.newest.iter().map(|held| held.file.clone());
        verifier.replace_manifests(&Manifests {
            // First: the verifier looks at so many and no more.
            files: newest.chain(now.given.iter().cloned()).collect(),
            known: now.known.clone(),
        });
        // Not before the verifier has them: what is judged until then was judged by those before.
        now.replaced = now.replaced.saturating_add(1);
        now.given_version = now.newest.as_ref().map(|held| held.version());
    }

    /// How often the host was asked so far, for [`Self::refresh`].
    pub fn asked(&self) -> u64 {
        self.now().asked
    }

    /// Tells what was judged by another manifest than what is judged now.
    pub fn replaced(&self) -> u64 {
        self.now().replaced
    }

    pub fn in_use(&self) -> InUse {
        let now = self.now();
        let newest = now.newest.as_ref();
        InUse {
            name: self.demand.name.clone(),
            manifest: newest.map(|held| (held.version(), held.authentic.manifest().not_after)),
            signed_by: newest.map_or_else(Vec::new, |held| held.authentic.signed_by().to_vec()),
            asked: now.last.as_ref().map(|(at, outcome)| {
                let outcome = outcome.as_ref().map(|_| ()).map_err(|e| e.to_string());
                (*at, outcome)
            }),
        }
    }

    /// Asks the host for a newer manifest, and judges by it from now on if it counts. Whoever comes while others ask has their
    /// outcome: of those who knew that the host was asked `since` times, one asks.
    pub async fn refresh(self: &Arc<Self>, settings: &Settings, since: u64) -> Outcome {
        let _turn = self.turn.lock().await;
        if let (true, Some((_, outcome))) = {
            let now = self.now();
            (now.asked > since, now.last.clone())
        } {
            return outcome;
        }
        let outcome = self.ask(settings).await.map_err(Arc::new);
        // Whatever came of it now: somebody who asked before and was dropped may have left a newer one.
        let (given, newest) = {
            let now = self.now();
            (now.given_version, now.newest.clone())
        };
        if given != newest.map(|held| held.version()) {
            self.give_to(&settings.verifier);
        }
        let mut now = self.now();
        now.asked = now.asked.saturating_add(1);
        now.last = Some((settings.at().time, outcome.clone()));
        outcome
    }

    async fn ask(self: &Arc<Self>, settings: &Settings) -> Result<Refreshed, NotRefreshed> {
        let answer = settings.records.read(TARGET, None, MAX_FILE, LIMIT).await;
        let answer = answer.map_err(|error| NotRefreshed::NotThere(Box::new(error)))?;
        if answer.status != 200 {
            let reason = format!("status {}, {}", answer.status, answer.problem());
            return Err(NotRefreshed::NotThere(Box::new(Error::malformed(reason))));
        }
        let (keeper, at) = (self.clone(), settings.at());
        // Megabytes of JSON, signatures and a file's lock: not on a thread that others wait for.
        let taking = tokio::task::spawn_blocking(move || keeper.take(answer.body.to_vec(), at));
        taking
            .await
            .map_err(|error| NotRefreshed::Unfinished(error.to_string()))?
    }

    /// Takes a manifest of the host's, if it counts. It is remembered first: one that cannot be is not used.
    fn take(&self, file: Vec<u8>, at: At) -> Result<Refreshed, NotRefreshed> {
        // Before the state's lock is taken: signatures of a stranger's file take their time.
        let accepted = self.now().known.clone();
        let held = self.judge(file, &accepted, at)?;
        let known = match &self.state {
            Some(path) => {
                let mut state = State::open(path)?;
                state.accepted.check(&held.authentic)?;
                if state.accepted.accept(&held.authentic)? {
                    state.write()?;
                }
                Some(state.accepted.clone())
            }
            None => None,
        };
        let mut now = self.now();
        // The caller may have given others meanwhile.
        now.known.check(&held.authentic)?;
        if let Some(known) = known {
            now.known.merge(&known)?;
        }
        now.known.accept(&held.authentic)?;
        let (from, to) = (now.newest.as_ref().map(|n| n.version()), held.version());
        if from.is_some_and(|from| from >= to) {
            return Ok(Refreshed::Same { version: to });
        }
        let held = Arc::new(held);
        now.newest = Some(held.clone());
        drop(now);
        if let Some(path) = &self.cache {
            // A cache that cannot be written is no reason to refuse: the next start asks the host again.
            let _ = replace(path, &held.file);
        }
        Ok(Refreshed::Newer { from, to })
    }

    /// Puts the manifest in use into a bundle, so that it can be judged offline and years later, in place of what the host may
    /// have put there.
    pub fn attach(&self, bundle: &mut Bundle) {
        detach(bundle);
        let Some(held) = self.now().newest.clone() else {
            return;
        };
        let Some(attachment) = held.attachment() else {
            return;
        };
        let room = MAX_BUNDLE.saturating_sub(bundle.to_file().len());
        // The member's name and a comma beside it, if it is the first.
        let needed = attachment.json().len().saturating_add(32);
        if needed <= room && bundle.attachments.len() < MAX_ATTACHMENTS {
            bundle.attachments.push(attachment);
        }
    }
}

impl Held {
    fn version(&self) -> u64 {
        self.authentic.manifest().version
    }

    fn attachment(&self) -> Option<Attachment> {
        let text = std::str::from_utf8(&self.file).ok()?;
        let object = serde_json::json!({ "type": ATTACHMENT, "manifest": text });
        let json = String::from_utf8(jcs::to_vec(&object).ok()?).ok()?;
        Attachment::parse(&json).ok()
    }
}

/// Takes manifests out of a bundle: a client that has its own judges by that alone.
pub(crate) fn detach(bundle: &mut Bundle) {
    bundle.attachments.retain(|a| a.kind() != ATTACHMENT);
}

/// Whether a newer manifest may change this: something that expects a manifest's word refuses, and nothing shows a forgery that no
/// manifest would mend.
pub(crate) fn may_help(verdict: &Verdict) -> bool {
    let deciding = verdict.deciding().unwrap_or_default();
    let open = matches!(verdict.exit(), 4 | 5) || deciding.starts_with("manifest.");
    let wants = |check: &Check| check.id.starts_with("manifest.") || check.expected == "manifest";
    open && verdict
        .checks
        .iter()
        .any(|check| check.refuses() && wants(check))
}

/// When what was judged by a manifest ends by it: the manifest, or the release. Unix seconds.
pub(crate) fn end(verdict: &Verdict) -> Option<u64> {
    let manifest = verdict.context.manifest.as_ref()?.manifest();
    let name = verdict.context.release.get("release");
    let release = manifest
        .releases
        .iter()
        .find(|release| name.and_then(|name| name.as_str()) == Some(release.release.as_str()));
    let release = release.map_or(u64::MAX, |release| release.not_after);
    Some(manifest.not_after.min(release))
}
