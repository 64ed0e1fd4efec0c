//! Who is connected, and who leaves first when there is no place for anybody else.
//!
//! A connection that says nothing costs little, and keeps another out all the same once all places are taken. So the
//! one that has been silent the longest gives up its place to one that has just come.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::limits::Activity;

/// Who has been silent for less keeps his place.
const SILENT: Duration = Duration::from_secs(1);
/// How many leave at once, and shortest time between two such calls: looking for them takes a while.
const LEAVE: usize = 32;
const EVERY: Duration = Duration::from_millis(5);

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) activity: Arc<Activity>,
    pub(super) leave: Notify,
    asked: AtomicBool,
    number: u64,
    seats: Arc<Seats>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().remove(&self.number);
    }
}

impl Seat {
    /// Whether its place was given to another.
    pub(super) fn is_asked_to_leave(&self) -> bool {
        self.asked.load(Relaxed)
    }
}

/// All that are open.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Mutex<HashMap<u64, std::sync::Weak<Seat>>>,
    next: AtomicU64,
    called: Mutex<Option<Instant>>,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, HashMap<u64, std::sync::Weak<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that was just made.
    pub(super) fn take(self: &Arc<Self>, activity: Arc<Activity>) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            activity,
            leave: Notify::new(),
            asked: AtomicBool::new(false),
            number: self.next.fetch_add(1, Relaxed),
            seats: self.clone(),
        });
        self.taken().insert(seat.number, Arc::downgrade(&seat));
        seat
    }

    /// Asks those that have been silent the longest to leave. Not more often than is useful.
    pub(super) fn make_room(&self) {
        {
            let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
            if called.is_some_and(|at| at.elapsed() < EVERY) {
                return;
            }
            *called = Some(Instant::now());
        }
        // Upgraded, a seat may be dropped here, which takes it off the list: not while that is locked.
        let seats: Vec<Arc<Seat>> = {
            let taken = self.taken();
            taken
                .values()
                .filter_map(std::sync::Weak::upgrade)
                .collect()
        };
        let mut silent: Vec<(Duration, &Arc<Seat>)> = seats
            .iter()
            .filter(|seat| !seat.is_asked_to_leave())
            .filter_map(|seat| Some((seat.activity.silent_for()?, seat)))
            .filter(|(silent, _)| *silent >= SILENT)
            .collect();
        silent.sort_unstable_by_key(|(silent, _)| std::cmp::Reverse(*silent));
        for (_, seat) in silent.into_iter().take(LEAVE) {
            seat.asked.store(true, Relaxed);
            seat.leave.notify_one();
        }
    }
}
