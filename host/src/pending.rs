//! Receipts that answers have promised and that the store does not hold yet.
//!
//! The relay notes the `Touchstone` field of every answer that passes; the store's writer writes the
//! notes down within [`FLUSH`] (unless the receipt arrives before) and takes a note away when its
//! receipt is stored. So what was promised is known after a restart too, and can be told apart from
//! what never was.
//!
//! The relay waits for whoever looks in here. So there are `SHARDS` parts with a lock each, that none is held for long (a
//! table that grows moves its own part alone), and the writer takes what is new away and never comes back to say that it
//! is written: a note knows its round, by which the writer finds it in the store.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use touchstone_formats::{Digest, GuaranteeSet, headers::TouchstoneResponse, text::hex_array};

use crate::seldom::seldom;

/// A receipt's id.
pub type Id = [u8; 16];

/// Longest time that a promise is known to this process alone.
pub const FLUSH: Duration = Duration::from_millis(10);

/// Parts of the notes, by their ids, which are random.
const SHARDS: usize = 64;

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

/// Where a note stands in the store, or will.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// The round in which it was, or will be, written down with others; 0: none.
    pub round: u64,
    /// Whether it has a row of its own.
    pub row: bool,
}

/// What was noted between two times of writing down.
#[derive(Debug)]
pub struct Round {
    /// Its number, greater than those of all rounds before.
    pub number: u64,
    /// The notes; in no order.
    pub notes: Vec<(Id, Note)>,
}

/// The notes. Shared by the relay, the store's writer and those who ask for receipts.
#[derive(Debug)]
pub struct Pending {
    capacity: usize,
    shards: [Mutex<Notes>; SHARDS],
    /// How many there are in all shards.
    count: AtomicUsize,
    refused: AtomicU64,
    /// The round that the next [`Self::take_fresh`] gives.
    round: AtomicU64,
}

#[derive(Debug, Default)]
struct Notes {
    known: HashMap<Id, (Note, Place)>,
    /// Those that nobody has taken yet to write them down.
    fresh: Vec<(Id, Note)>,
    /// The round of those.
    round: u64,
    /// What fields say after the id: an enclave's answers differ in nothing else.
    said: HashMap<Box<str>, (Digest, GuaranteeSet)>,
}

/// Most of what fields say after the id that a shard remembers.
const SAID: usize = 64;

/// The id that a field begins with, as enclaves write it, and the rest.
fn id_first(field: &str) -> Option<(Id, &str)> {
    let (hex, rest) = field.strip_prefix("id=\"")?.split_at_checked(32)?;
    Some((hex_array(hex).ok()?, rest))
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    // Nothing in here can panic half way.
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pending {
    /// Room for `capacity` notes.
    pub fn new(capacity: usize) -> Self {
        let pending = Self {
            capacity,
            shards: std::array::from_fn(|_| Mutex::default()),
            count: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            round: AtomicU64::new(0),
        };
        pending.begin_after(0);
        pending
    }

    /// Sets that rounds begin after this one, the last that stands in the store. To be called before anything is noted.
    pub fn begin_after(&self, last: u64) {
        let next = last.saturating_add(1);
        self.round.store(next, SeqCst);
        self.each_shard().for_each(|mut notes| notes.round = next);
    }

    /// Where notes of this id are.
    fn shard(&self, id: &Id) -> MutexGuard<'_, Notes> {
        let shard = usize::from(id[15]) % SHARDS;
        lock(&self.shards[shard])
    }

    /// All of them, one after the other; each is locked only as long as it is looked at.
    fn each_shard(&self) -> impl Iterator<Item = MutexGuard<'_, Notes>> {
        self.shards.iter().map(lock)
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
        let notes = self.shard(&id);
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
        let mut notes = self.shard(&said.id);
        if notes.said.len() >= SAID {
            notes.said.clear();
        }
        notes.said.insert(rest.into(), (said.keyset, said.require));
    }

    /// Adds a note that does not stand in the store yet.
    pub fn note(&self, id: Id, note: Note) {
        self.add(self.shard(&id), id, note);
    }

    fn add(&self, mut notes: MutexGuard<'_, Notes>, id: Id, note: Note) {
        let round = notes.round;
        // Who answers with a receipt that was promised before, its own or another enclave's, changes nothing of that.
        let Entry::Vacant(entry) = notes.known.entry(id) else {
            return;
        };
        if self.count.fetch_add(1, SeqCst) >= self.capacity {
            self.count.fetch_sub(1, SeqCst);
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
        entry.insert((note, Place { round, row: false }));
        notes.fresh.push((id, note));
    }

    /// Adds a note that was read from the store, or written there: in this round (0: in none), in a row of its own, or in both.
    pub fn restore(&self, id: Id, note: Note, place: Place) {
        match self.shard(&id).known.entry(id) {
            Entry::Vacant(entry) => {
                self.count.fetch_add(1, SeqCst);
                entry.insert((note, place));
            }
            Entry::Occupied(mut entry) => {
                let (known, stands) = entry.get_mut();
                *known = Note {
                    since: known.since,
                    ..note
                };
                stands.row |= place.row;
                if place.round != 0 {
                    stands.round = place.round;
                }
            }
        }
    }

    /// What is noted of a receipt.
    pub fn get(&self, id: &Id) -> Option<Note> {
        self.shard(id).known.get(id).map(|(note, _)| *note)
    }

    /// What was noted since the last time, to be written down, if there is anything. It is given once: whoever takes it keeps it until it
    /// is written. Some may be settled meanwhile.
    pub fn take_fresh(&self) -> Option<Round> {
        let number = self.round.fetch_add(1, SeqCst);
        let mut all = Vec::new();
        for mut notes in self.each_shard() {
            notes.round = number.saturating_add(1);
            let fresh = mem::take(&mut notes.fresh);
            drop(notes);
            all.extend(fresh);
        }
        (!all.is_empty()).then_some(Round { number, notes: all })
    }

    /// Where those of these that are known stand.
    pub fn places(&self, ids: impl Iterator<Item = Id>) -> Vec<(Id, Place)> {
        ids.filter_map(|id| {
            let (_, place) = *self.shard(&id).known.get(&id)?;
            Some((id, place))
        })
        .collect()
    }

    /// These are pending no longer.
    pub fn settle(&self, ids: impl Iterator<Item = Id>) {
        for id in ids {
            if self.shard(&id).known.remove(&id).is_some() {
                self.count.fetch_sub(1, SeqCst);
            }
        }
    }

    /// How long those of these that are pending have waited.
    pub fn waited(&self, ids: impl Iterator<Item = Id>) -> Vec<Duration> {
        let now = Instant::now();
        let since = ids.filter_map(|id| Some(self.shard(&id).known.get(&id)?.0.since));
        since
            .map(|since| now.saturating_duration_since(since))
            .collect()
    }

    /// How many there was no room for.
    pub fn not_noted(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// How many have waited for longer than `age`.
    pub fn older_than(&self, age: Duration) -> usize {
        let now = Instant::now();
        let is_older = |note: &Note| now.saturating_duration_since(note.since) > age;
        self.each_shard()
            .map(|notes| {
                let known = notes.known.values();
                known.filter(|(note, _)| is_older(note)).count()
            })
            .sum()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count.load(SeqCst)
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
        assert!(pending.each_shard().all(|notes| notes.said.len() <= SAID));
    }

    /// Ids in all shards.
    fn id(n: usize) -> Id {
        (n as u128).wrapping_mul(0x1234_5679).to_be_bytes()
    }

    #[test]
    fn notes_are_taken_once_and_known_until_settled() {
        let pending = Pending::new(1_000);
        assert!(pending.take_fresh().is_none());
        (0..200).for_each(|n| pending.note(id(n), note()));
        let first = pending.take_fresh().unwrap();
        assert_eq!(first.notes.len(), 200);
        assert!(pending.take_fresh().is_none());
        (200..300).for_each(|n| pending.note(id(n), note()));
        let second = pending.take_fresh().unwrap();
        assert!(second.number > first.number);
        // Each knows where it will stand, from the moment that it is known.
        pending.note(id(300), note());
        for round in [&first, &second] {
            let ids = round.notes.iter().map(|(id, _)| *id);
            for (_, place) in pending.places(ids) {
                let expected = Place {
                    round: round.number,
                    row: false,
                };
                assert_eq!(place, expected);
            }
        }
        assert!(pending.places([id(300)].into_iter())[0].1.round > second.number);
        assert_eq!(pending.len(), 301);
        pending.settle((0..1_000).map(id));
        assert!(pending.is_empty() && pending.places((0..1_000).map(id)).is_empty());
        // It was not written yet, and is settled all the same: the writer finds its receipt stored.
        assert_eq!(pending.take_fresh().unwrap().notes.len(), 1);
    }

    /// However taking and noting meet, a note is in the round that it says.
    #[test]
    fn who_takes_meets_who_notes() {
        let pending = Pending::new(1_000_000);
        let count = 20_000;
        let mut seen = HashMap::new();
        let mut take = || match pending.take_fresh() {
            Some(round) => {
                for (id, _) in round.notes {
                    assert!(seen.insert(id, round.number).is_none(), "taken twice");
                }
                seen.len()
            }
            None => 0,
        };
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let pending = &pending;
                scope.spawn(move || {
                    (0..count).for_each(|n| pending.note(id(2 * n + thread), note()));
                });
            }
            while take() < 2 * count {}
        });
        let places = pending.places((0..2 * count).map(id));
        assert_eq!(places.len(), 2 * count);
        for (id, place) in places {
            assert_eq!(Some(&place.round), seen.get(&id));
        }
    }

    #[test]
    fn what_was_restored_is_not_fresh_and_comes_before_what_is() {
        let pending = Pending::new(10);
        let place = |round, row| Place { round, row };
        pending.restore(id(1), note(), place(7, false));
        pending.restore(id(2), note(), place(0, true));
        pending.begin_after(7);
        // A row of its own for what stands in a round too: both have to go.
        pending.restore(id(1), note(), place(0, true));
        pending.note(id(3), note());
        let found = pending.places((1..=3).map(id));
        let expected = [(7, true), (0, true), (8, false)].map(|(round, row)| place(round, row));
        assert_eq!(found, [1, 2, 3].map(|n| (id(n), expected[n - 1])));
        let taken = pending.take_fresh().unwrap();
        assert_eq!((taken.number, taken.notes.len()), (8, 1));
        assert_eq!(pending.len(), 3);
    }

    #[test]
    fn the_first_promise_counts() {
        let pending = Pending::new(10);
        let first = Note {
            enclave: Some(1),
            ..note()
        };
        pending.note([1; 16], first);
        let round = pending.take_fresh().unwrap().number;
        pending.note([1; 16], note());
        assert_eq!(pending.get(&[1; 16]), Some(first));
        // It still stands in the store where it did, from which it has to go once its receipt has come.
        let found = pending.places([[1; 16]].into_iter());
        let place = Place { round, row: false };
        assert_eq!(found, [([1; 16], place)]);
        assert!(pending.take_fresh().is_none());
    }

    #[test]
    fn age_is_counted() {
        let pending = Pending::new(10);
        let old = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let old = Note {
            since: old,
            ..note()
        };
        pending.note(id(1), old);
        pending.note(id(2), note());
        assert_eq!(pending.older_than(Duration::from_secs(30)), 1);
        // That it was had from its enclave meanwhile makes it no younger.
        let row = Place {
            round: 0,
            row: true,
        };
        pending.restore(id(1), note(), row);
        assert_eq!(pending.older_than(Duration::from_secs(30)), 1);
        let waited = pending.waited((1..=3).map(id));
        assert!(waited.len() == 2 && waited[0] >= Duration::from_secs(60));
    }

    #[test]
    fn capacity_is_kept() {
        let pending = Pending::new(2);
        for n in 0..4 {
            pending.note([n; 16], note());
        }
        assert_eq!((pending.len(), pending.get(&[2; 16])), (2, None));
        assert_eq!(pending.not_noted(), 2);
        // What is known needs no room, and what is settled makes some.
        pending.note([1; 16], note());
        assert_eq!(pending.not_noted(), 2);
        pending.settle([[1; 16]].into_iter());
        pending.note([3; 16], note());
        assert_eq!((pending.len(), pending.not_noted()), (2, 2));
        assert!(pending.get(&[3; 16]).is_some());
    }
}
