//! The key that requests are sealed to (Oblivious HTTP, formats.md §13), and the memory of what was sealed to it: no sealed
//! request is answered twice, however often somebody sends it.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use ring::rand::{SecureRandom, SystemRandom};
use touchstone_ohttp::{Error, GatewayKey, Opened};

/// What is remembered of a request: the first bytes of its sender's one-time key. Whoever makes two that begin alike can
/// but lose a request of his own.
type Mark = [u8; 16];

/// A keyset's key for sealed requests. Dropping it erases it, and forgets what it opened.
pub struct OhttpKey {
    key: GatewayKey,
    limit: usize,
    seen: Mutex<HashSet<Mark>>,
}

/// A request that was sealed to the key.
#[derive(Debug)]
pub enum Request {
    /// It came for the first time.
    New(Opened),
    /// It was answered before.
    Again(Opened),
    /// There is no room to remember it: the next keyset's key will open the next one.
    Full,
}

impl OhttpKey {
    /// A fresh key, for so many requests at most. Its id is random, so that two enclaves seldom have the same, and not
    /// `before`, the one that this enclave had before: who still seals to that is told so.
    ///
    /// # Errors
    /// No random bytes.
    pub fn generate(limit: usize, before: Option<u8>) -> Result<Self, Error> {
        let mut id = [0];
        SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| Error::Random)?;
        let [id] = id;
        let id = match before == Some(id) {
            true => id.wrapping_add(1),
            false => id,
        };
        Ok(Self {
            key: GatewayKey::generate(id)?,
            limit,
            seen: Mutex::default(),
        })
    }

    /// Its id.
    pub fn id(&self) -> u8 {
        self.key.id()
    }

    /// The key's public half, as the keyset publishes it (`application/ohttp-keys`).
    pub fn configurations(&self) -> Vec<u8> {
        self.key.configurations()
    }

    /// Whether it opens nothing more.
    pub fn full(&self) -> bool {
        self.count() >= self.limit
    }

    /// Whether it is time for another key.
    pub fn worn(&self) -> bool {
        self.count() >= self.limit - self.limit / 4
    }

    fn count(&self) -> usize {
        self.seen().len()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashSet<Mark>> {
        // Nothing that holds the lock can panic halfway through a change.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a sealed request and remembers it.
    ///
    /// # Errors
    /// It is for another key, or for none.
    pub fn open(&self, sealed: &[u8]) -> Result<Request, Error> {
        let opened = self.key.open(sealed)?;
        let mut mark = Mark::default();
        mark.copy_from_slice(&opened.encapsulated[..16]);
        let mut seen = self.seen();
        if seen.contains(&mark) {
            return Ok(Request::Again(opened));
        }
        if seen.len() >= self.limit {
            return Ok(Request::Full);
        }
        seen.insert(mark);
        Ok(Request::New(opened))
    }
}

#[cfg(test)]
mod tests {
    use touchstone_ohttp::PublicKey;

    use super::*;

    #[test]
    fn a_key_has_another_id_than_the_one_before() {
        let mut ids = std::collections::BTreeSet::new();
        let mut before = None;
        for _ in 0..2_000 {
            let id = OhttpKey::generate(4, before).unwrap().id();
            assert_ne!(before, Some(id));
            ids.insert(id);
            before = Some(id);
        }
        assert!(ids.len() > 200, "{} ids", ids.len());
    }

    #[test]
    fn of_many_copies_at_once_one_is_the_first() {
        let key = OhttpKey::generate(4, None).unwrap();
        let public = PublicKey::from_configurations(&key.configurations()).unwrap();
        let (sealed, _) = public.seal(b"same").unwrap();
        let new = std::thread::scope(|scope| {
            let opening = || matches!(key.open(&sealed), Ok(Request::New(_)));
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(opening)).collect();
            let opened = threads.into_iter().map(|thread| thread.join().unwrap());
            opened.filter(|new| *new).count()
        });
        assert_eq!((new, key.count()), (1, 1));
    }

    #[test]
    fn what_was_opened_is_remembered_until_there_is_no_room() {
        let key = OhttpKey::generate(4, None).unwrap();
        let public = PublicKey::from_configurations(&key.configurations()).unwrap();
        let sealed: Vec<_> = (0..5).map(|_| public.seal(b"same").unwrap().0).collect();
        for (n, one) in sealed[..4].iter().enumerate() {
            assert_eq!((key.full(), key.worn()), (false, n == 3));
            assert!(matches!(key.open(one), Ok(Request::New(_))));
            assert!(matches!(key.open(one), Ok(Request::Again(_))));
        }
        // Full: nothing is forgotten, nothing new is opened.
        assert!(key.full());
        assert!(matches!(key.open(&sealed[4]), Ok(Request::Full)));
        assert!(matches!(key.open(&sealed[0]), Ok(Request::Again(_))));
        // What does not open takes no room, and another key's memory is its own.
        let other = OhttpKey::generate(4, None).unwrap();
        assert!(other.open(&sealed[0]).is_err());
        assert_eq!(other.count(), 0);
    }
}
