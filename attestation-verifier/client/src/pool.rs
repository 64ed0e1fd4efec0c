//! Connections that are ready for the next request.
//!
//! A connection belongs to one request at a time, by value: taken out of the pool, used, put back when
//! the answer was read whole. A future that is dropped in between takes its connection with it, so that
//! none with half an answer on it ever comes back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use tokio::sync::{Mutex as Turn, Semaphore};
use tokio::time::timeout;
use touchstone_formats::Digest;

use crate::Error;
use crate::client::{Inner, Settings, count};
use crate::http::{Answer, SendError};
use crate::session::{Session, Usable, attest, attest_key, open_plain, open_sealed};

/// The status of a request that was sealed to another key (RFC 9458 §5.3).
const OTHER_KEY: u16 = 422;

/// The connections of a client.
pub(crate) struct Pool {
    /// One for each connection that may be in use. Connections that are idle have none: one is opened only
    /// where none is idle, so that there are never more than this in all.
    slots: Semaphore,
    kept: Mutex<Kept>,
    /// Held by whoever has the key for sealed requests attested: one quote will do for all connections.
    attesting: Turn<()>,
}

#[derive(Default)]
struct Kept {
    /// The one that was used last comes last.
    idle: Vec<Usable>,
    /// The last keyset of which the enclave said that it is no longer in force.
    retired: Option<Digest>,
    newest: Option<Arc<Session>>,
}

impl Pool {
    /// With room for so many connections.
    pub fn new(connections: usize) -> Pool {
        Pool {
            slots: Semaphore::new(connections.min(Semaphore::MAX_PERMITS)),
            kept: Mutex::default(),
            attesting: Turn::default(),
        }
    }

    /// What the newest connection rests on.
    pub fn newest(&self) -> Option<Arc<Session>> {
        self.kept().newest.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next connection for sealed requests may rest on.
    fn attested_key(&self, settings: &Settings) -> Option<Arc<Session>> {
        let kept = self.kept();
        let newest = kept.newest.as_ref()?;
        let good = Some(newest.keyset()) != kept.retired && newest.alive(settings);
        good.then(|| newest.clone())
    }

    fn put(&self, usable: Usable, life: Duration) {
        let mut kept = self.kept();
        let retired = kept.retired;
        kept.idle.push(usable);
        kept.idle
            .retain(|idle| !idle.is_of(retired) && !idle.ended(life));
    }

    fn attested(&self, usable: &Usable) {
        let mut kept = self.kept();
        kept.newest = usable.session.clone();
        // Whatever was said before: this keyset is in force.
        if usable.is_of(kept.retired) {
            kept.retired = None;
        }
    }

    /// The enclave has gone on to another keyset: what is connected under this one is of no more use.
    fn retire(&self, keyset: Digest) {
        let mut kept = self.kept();
        kept.retired = Some(keyset);
        kept.idle.retain(|idle| !idle.is_of(Some(keyset)));
    }
}

impl Inner {
    /// Attests one connection and keeps it.
    pub async fn warm(&self) -> Result<(), Error> {
        let _slot = self.slot().await?;
        let usable = self.open().await?;
        self.pool.put(usable, self.settings.session_life);
        Ok(())
    }

    /// Sends a request and reads its answer. It is sent a second time only where the first was not received
    /// (a connection that had ended) or not processed (421). A sealed request is also sent again where it was refused as sealed to
    /// another key, if there is another by then that proves itself: that refusal is nobody's word, and a host that lies has the enclave
    /// answer twice, under two keysets.
    pub async fn exchange(
        &self,
        request: Request<Bytes>,
        max_body: usize,
    ) -> Result<(Answer, Option<Arc<Session>>), Error> {
        let limit = self.settings.timeout;
        let _slot = self.slot().await?;
        let (mut usable, mut kept) = match self.idle().await {
            Some(usable) => (usable, true),
            None => (self.open().await?, false),
        };
        let mut resent = false;
        loop {
            let sending = usable.send(&self.settings, request.clone(), max_body);
            let answer = match timeout(limit, sending).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(SendError::Unsent(_))) if kept => {
                    (usable, kept) = (self.open().await?, false);
                    continue;
                }
                Ok(Err(SendError::Failed(
                    error @ Error::OhttpRefused {
                        status: OTHER_KEY, ..
                    },
                ))) if !resent => {
                    let Some(used) = usable.session.as_ref().map(|session| session.keyset()) else {
                        return Err(error);
                    };
                    self.pool.retire(used);
                    resent = true;
                    // It was sent: an error that says that nothing was would be taken at its word.
                    let another = self.open().await;
                    usable = another.map_err(|e| Error::NotResealed(Box::new(e)))?;
                    kept = false;
                    if usable.is_of(Some(used)) {
                        self.pool.put(usable, self.settings.session_life);
                        return Err(error);
                    }
                    count(&self.counts.resent);
                    continue;
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    let doing = format!("the answer to {} {}", request.method(), request.uri());
                    return Err(Error::late(doing, limit));
                }
            };
            match &usable.session {
                Some(session) if answer.status == 421 && !resent => {
                    self.pool.retire(session.keyset());
                    count(&self.counts.resent);
                    resent = true;
                    (usable, kept) = (self.open().await?, false);
                }
                session => {
                    let session = session.clone();
                    count(&self.counts.answers);
                    self.pool.put(usable, self.settings.session_life);
                    return Ok((answer, session));
                }
            }
        }
    }

    async fn slot(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        let limit = self.settings.timeout;
        match timeout(limit, self.pool.slots.acquire()).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => Err(Error::late("a connection that is not in use", limit)),
        }
    }

    /// An idle connection that will do, the one used last first.
    async fn idle(&self) -> Option<Usable> {
        loop {
            let mut usable = self.pool.kept().idle.pop()?;
            if usable.fit(&self.settings).await {
                return Some(usable);
            }
        }
    }

    /// A new connection that may be used.
    async fn open(&self) -> Result<Usable, Error> {
        let settings = &self.settings;
        if settings.sealed {
            let limit = settings.timeout;
            let turn = timeout(limit, self.pool.attesting.lock()).await;
            let turn = turn.map_err(|_| {
                Error::late(
                    "a key for sealed requests, which others have attested",
                    limit,
                )
            })?;
            if let Some(session) = self.pool.attested_key(settings) {
                drop(turn);
                return open_sealed(settings, session).await;
            }
            let mut attested = attest_key(settings).await;
            // The keyset was replaced while its quote was made.
            if let Err(Error::SessionRefused { status: 421, .. }) = &attested {
                attested = attest_key(settings).await;
            }
            return self.opened(attested);
        }
        if !settings.server.tls {
            return open_plain(settings).await;
        }
        let mut attested = attest(settings).await;
        // The keyset was replaced between handshake and request: nothing is wrong with the next one.
        if let Err(Error::SessionRefused { status: 421, .. }) = &attested {
            attested = attest(settings).await;
        }
        self.opened(attested)
    }

    fn opened(&self, attested: Result<Usable, Error>) -> Result<Usable, Error> {
        match &attested {
            Ok(usable) => {
                count(&self.counts.sessions);
                self.pool.attested(usable);
            }
            Err(_) => count(&self.counts.sessions_refused),
        }
        attested
    }
}
