//! Receipts that answers have promised and that the store does not hold yet.
//!
//! The relay notes the `Touchstone` field of every answer that passes; the store's writer writes the
//! notes down within [`FLUSH`] (unless the receipt arrives before) and takes a note away when its
//! receipt is stored. So what was promised is known after a restart too, and can be told apart from
//! what never was.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use touchstone_formats::{Digest, GuaranteeSet, headers::TouchstoneResponse, text::hex_array};

use crate::seldom::seldom;

/// A receipt's id.
pub type Id = [u8; 16];

/// Longest time that a promise is known to this process alone.
pub const FLUSH: Duration = Duration::from_millis(10);

/// What an answer said of its receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// Digest of the keyset it is signed under.
    pub keyset: Digest,
    /// What was asked for.
    pub require: GuaranteeSet,
    /// Which enclave answered, by its place in the settings; `None`: not known any more.
    pub enclave: Option<usize>,
    /// Since when this process knows of it.
    pub since: Instant,
}

/// The notes. Shared by the relay, the store's writer and those who ask for receipts.
#[derive(Debug)]
pub struct Pending {
    capacity: usize,
    notes: Mutex<Notes>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Notes {
    /// With each, whether it stands in the store.
    known: HashMap<Id, (Note, bool)>,
    /// Those that do not stand in the store yet, as they came.
    fresh: Vec<(Id, Note)>,
    /// What fields say after the id: an enclave's answers differ in nothing else.
    said: HashMap<Box<str>, (Digest, GuaranteeSet)>,
}

/// Most of what fields say after the id that is remembered.
const SAID: usize = 64;

/// The id that a field begins with, as enclaves write it, and the rest.
fn id_first(field: &str) -> Option<(Id, &str)> {
    let (hex, rest) = field.strip_prefix("id=\"")?.split_at_checked(32)?;
    Some((hex_array(hex).ok()?, rest))
}

impl Pending {
    /// Room for `capacity` notes.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            notes: Mutex::default(),
            refused: AtomicU64::new(0),
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Nothing in here can panic half way.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what an answer on its way to a caller says in its `Touchstone` fields, and gives what it was asked for. Answers
    /// without a receipt say nothing.
    pub fn observe<'a>(
        &self,
        mut fields: impl Iterator<Item = &'a [u8]>,
        enclave: usize,
    ) -> Option<GuaranteeSet> {
        let field = std::str::from_utf8(fields.next()?);
        let said = match (field, fields.next()) {
            // What is wrong with it is not logged: it has a digest, and may have anything.
            (Ok(text), None) => match self.observe_again(text, enclave) {
                Some(require) => return Some(require),
                None => TouchstoneResponse::parse(text).map_err(|_| "not as it should be"),
            },
            (Ok(_), Some(_)) => Err("more than one"),
            (Err(_), _) => Err("not text"),
        };
        match said {
            Ok(said) => {
                let note = Note {
                    keyset: said.keyset,
                    require: said.require,
                    enclave: Some(enclave),
                    since: Instant::now(),
                };
                self.note(said.id, note);
                self.remember(field.ok(), &said);
                Some(said.require)
            }
            Err(error) => {
                seldom!(
                    warn,
                    error,
                    "an answer's Touchstone field is not understood; passed on unnoted"
                );
                None
            }
        }
    }

    /// As [`Self::observe`], where a field that was understood before was this one with another id. A field has no key
    /// twice and means the sum of its members, so that it says the same but for the id.
    fn observe_again(&self, field: &str, enclave: usize) -> Option<GuaranteeSet> {
        let (id, rest) = id_first(field)?;
        let notes = self.notes();
        let (keyset, require) = *notes.said.get(rest)?;
        let note = Note {
            keyset,
            require,
            enclave: Some(enclave),
            since: Instant::now(),
        };
        self.add(notes, id, note);
        Some(require)
    }

    fn remember(&self, field: Option<&str>, said: &TouchstoneResponse) {
        let text = field.and_then(id_first);
        let Some((_, rest)) = text.filter(|(id, _)| *id == said.id) else {
            return;
        };
        let mut notes = self.notes();
        if notes.said.len() >= SAID {
            notes.said.clear();
        }
        notes.said.insert(rest.into(), (said.keyset, said.require));
    }

    /// Adds a note that does not stand in the store yet.
    pub fn note(&self, id: Id, note: Note) {
        self.add(self.notes(), id, note);
    }

    fn add(&self, mut notes: MutexGuard<'_, Notes>, id: Id, note: Note) {
        if notes.known.len() >= self.capacity {
            drop(notes);
            let refused = self.refused.fetch_add(1, Relaxed);
            if refused.is_multiple_of(10_000) {
                tracing::error!(
                    capacity = self.capacity,
                    refused,
                    "store.pending is full: promises are not noted"
                );
            }
            return;
        }
        // Who answers with a receipt that was promised before, its own or another enclave's, changes nothing of that.
        if let Entry::Vacant(place) = notes.known.entry(id) {
            place.insert((note, false));
            notes.fresh.push((id, note));
        }
    }

    /// Adds a note that was read from the store.
    pub fn restore(&self, id: Id, note: Note) {
        self.notes().known.insert(id, (note, true));
    }

    /// What is noted of a receipt.
    pub fn get(&self, id: &Id) -> Option<Note> {
        self.notes().known.get(id).map(|(note, _)| *note)
    }

    /// Whether there is something to write down.
    pub fn has_fresh(&self) -> bool {
        !self.notes().fresh.is_empty()
    }

    /// What is to be written down. It stays fresh until [`Self::written`].
    pub fn fresh(&self) -> Vec<(Id, Note)> {
        self.notes().fresh.clone()
    }

    /// These stand in the store now: some of [`Self::fresh`], in its order. The relay waits meanwhile, so that no more is
    /// looked up than has to be.
    pub fn written(&self, ids: &[Id]) {
        let mut notes = self.notes();
        for id in ids {
            if let Some((_, written)) = notes.known.get_mut(id) {
                *written = true;
            }
        }
        let mut ids = ids.iter().peekable();
        notes
            .fresh
            .retain(|(id, _)| ids.next_if(|written| *written == id).is_none());
    }

    /// Which of these stand in the store.
    pub fn which_are_written(&self, ids: impl Iterator<Item = Id>) -> Vec<Id> {
        let notes = self.notes();
        ids.filter(|id| notes.known.get(id).is_some_and(|(_, written)| *written))
            .collect()
    }

    /// These are pending no longer.
    pub fn settle(&self, ids: impl Iterator<Item = Id>) {
        let mut notes = self.notes();
        let before = notes.known.len();
        for id in ids {
            notes.known.remove(&id);
        }
        let Notes { known, fresh, .. } = &mut *notes;
        if known.len() < before {
            fresh.retain(|(id, _)| known.contains_key(id));
        }
    }

    /// How long those of these that are pending have waited.
    pub fn waited(&self, ids: impl Iterator<Item = Id>) -> Vec<Duration> {
        let notes = self.notes();
        ids.filter_map(|id| notes.known.get(&id))
            .map(|(note, _)| note.since.elapsed())
            .collect()
    }

    /// How many there was no room for.
    pub fn not_noted(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// How many have waited for longer than `age`.
    pub fn older_than(&self, age: Duration) -> usize {
        let notes = self.notes();
        let known = notes.known.values();
        known.filter(|(note, _)| note.since.elapsed() > age).count()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.notes().known.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> Note {
        Note {
            keyset: Digest::ZERO,
            require: GuaranteeSet::default_set(),
            enclave: None,
            since: Instant::now(),
        }
    }

    fn observe(pending: &Pending, values: &[&str], enclave: usize) -> Option<GuaranteeSet> {
        pending.observe(values.iter().map(|value| value.as_bytes()), enclave)
    }

    #[test]
    fn answers_are_noted_by_what_they_say() {
        let said = TouchstoneResponse {
            id: [7; 16],
            keyset: Digest::of(b"keyset"),
            require: GuaranteeSet::parse_words("quoted").unwrap(),
            state: touchstone_formats::headers::State::Pending,
        };
        let pending = Pending::new(10);
        pending.observe(std::iter::empty(), 0);
        observe(&pending, &["id=1"], 0);
        observe(&pending, &[&said.to_string(), &said.to_string()], 0);
        assert!(pending.is_empty());
        for id in [[7; 16], [8; 16], [9; 16]] {
            let said = TouchstoneResponse { id, ..said.clone() };
            let require = observe(&pending, &[&said.to_string()], 3);
            assert_eq!(require, Some(said.require));
            let note = pending.get(&id).unwrap();
            assert_eq!(
                (note.keyset, note.require, note.enclave),
                (said.keyset, said.require, Some(3))
            );
        }
        assert_eq!(pending.len(), 3);
    }

    /// Whatever was understood before, a field is understood as it is by itself.
    #[test]
    fn what_is_remembered_changes_no_reading() {
        let word = |n: u8| TouchstoneResponse {
            id: [n; 16],
            keyset: Digest::of(&[n % 2]),
            require: GuaranteeSet::default_set(),
            state: touchstone_formats::headers::State::Sealed,
        };
        let pending = Pending::new(1_000);
        for n in 0..=u8::MAX {
            let said = word(n).to_string();
            observe(&pending, &[&said], 0);
            assert_eq!(pending.get(&[n; 16]).unwrap().keyset, word(n).keyset);
            let before = pending.len();
            let id = "11111111111111111111111111111111";
            let rest = &said[36..];
            for wrong in [
                format!("id=\"{}\"{rest}", &id[1..]),
                format!("id=\"{}G\"{rest}", &id[1..]),
                format!("id=\"{}A\"{rest}", &id[1..]),
                format!("id=\"{id}\"{rest}, id=\"{id}\""),
                format!("id={id}{rest}"),
                format!("{said},"),
            ] {
                assert_eq!(observe(&pending, &[&wrong], 0), None, "{wrong}");
            }
            assert_eq!(pending.len(), before);
        }
        for n in 0..1_000 {
            let spaces = format!(",{}", " ".repeat(n % 100));
            let said = word(1).to_string().replacen(", ", &spaces, 1);
            assert_eq!(
                observe(&pending, &[&said], 0),
                Some(word(1).require),
                "{said}"
            );
        }
        assert!(pending.notes().said.len() <= SAID);
    }

    #[test]
    fn notes_are_fresh_until_written_and_known_until_settled() {
        let pending = Pending::new(10);
        let (one, two) = (note(), note());
        pending.note([1; 16], one);
        pending.note([2; 16], two);
        assert_eq!(pending.fresh().len(), 2);
        pending.written(&[[1; 16]]);
        assert_eq!(pending.fresh(), [([2; 16], two)]);
        let all = [[1; 16], [2; 16], [3; 16]];
        assert_eq!(pending.which_are_written(all.into_iter()), [[1; 16]]);
        pending.settle(all.into_iter());
        assert!(pending.is_empty() && !pending.has_fresh());
    }

    #[test]
    fn the_first_promise_counts() {
        let pending = Pending::new(10);
        let first = Note {
            enclave: Some(1),
            ..note()
        };
        pending.note([1; 16], first);
        pending.written(&[[1; 16]]);
        pending.note([1; 16], note());
        assert_eq!(pending.get(&[1; 16]), Some(first));
        // It still stands in the store, from which it has to go once its receipt has come.
        let found = pending.which_are_written([[1; 16]].into_iter());
        assert_eq!((found, pending.has_fresh()), (vec![[1; 16]], false));
    }

    #[test]
    fn capacity_is_kept() {
        let pending = Pending::new(2);
        for n in 0..3 {
            pending.note([n; 16], note());
        }
        assert_eq!((pending.len(), pending.get(&[2; 16])), (2, None));
    }
}
