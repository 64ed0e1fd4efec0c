//! What bounds a caller's connection: time, and how many there are.
//!
//! Every connection has one timer, however many requests it carries. The parts of the connection note
//! what they are doing in [`Activity`]; the connection's task closes it when a deadline has passed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// What a connection is doing, and until when it may go on doing it.
///
/// Written and read by one task alone, though that task may move between threads: relaxed atomics
/// make it `Sync` without a lock.
#[derive(Debug)]
pub struct Activity {
    start: Instant,
    header_timeout: Duration,
    idle_timeout: Duration,
    phase: AtomicU8,
    /// Milliseconds since `start`; `u64::MAX`: none.
    deadline: AtomicU64,
}

impl Activity {
    /// A connection that was just made and has `idle_timeout` to say something.
    pub fn new(header_timeout: Duration, idle_timeout: Duration) -> Arc<Self> {
        let activity = Self {
            start: Instant::now(),
            header_timeout,
            idle_timeout,
            phase: AtomicU8::new(IDLE),
            deadline: AtomicU64::new(u64::MAX),
        };
        activity.idle();
        Arc::new(activity)
    }

    fn set(&self, phase: u8, within: Option<Duration>) {
        let deadline = match within {
            Some(within) => {
                u64::try_from((self.start.elapsed().saturating_add(within)).as_millis())
                    .unwrap_or(u64::MAX)
            }
            None => u64::MAX,
        };
        self.phase.store(phase, Relaxed);
        self.deadline.store(deadline, Relaxed);
    }

    /// Bytes came in: if nothing else was going on, a head has begun.
    pub fn received(&self) {
        if self.phase.load(Relaxed) == IDLE {
            self.set(HEAD, Some(self.header_timeout));
        }
    }

    /// A head is complete; the request has time-outs of its own.
    pub fn requested(&self) {
        self.set(BUSY, None);
    }

    /// A piece of the answer was handed over; the next has to follow in time.
    pub fn progressed(&self) {
        self.set(BUSY, Some(self.idle_timeout));
    }

    /// The answer was handed over whole.
    pub fn idle(&self) {
        self.set(IDLE, Some(self.idle_timeout));
    }

    /// How long it has waited for a request, or for the rest of a head; `None`: it is at work.
    pub fn silent_for(&self) -> Option<Duration> {
        let allowed = match self.phase.load(Relaxed) {
            IDLE => self.idle_timeout,
            HEAD => self.header_timeout,
            _ => return None,
        };
        let left = self.deadline()?.saturating_duration_since(Instant::now());
        Some(allowed.saturating_sub(left))
    }

    /// When this connection has to be closed if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match self.deadline.load(Relaxed) {
            u64::MAX => None,
            milliseconds => self.start.checked_add(Duration::from_millis(milliseconds)),
        }
    }
}

/// Raises this process's limit of open files to what the system allows it, and says how many that is.
/// A relay needs two for every request under way; the usual soft limit of 1,024 is for programs that
/// use `select`.
pub fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE_TIME: Duration = Duration::from_secs(60);

    fn left(activity: &Activity) -> Option<Duration> {
        activity
            .deadline()
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    #[test]
    fn deadlines_follow_the_phases() {
        let near = |left: Option<Duration>, expected: Duration| {
            left.is_some_and(|left| left <= expected && left + Duration::from_secs(2) > expected)
        };
        let activity = Activity::new(HEADER, IDLE_TIME);
        assert!(near(left(&activity), IDLE_TIME));
        activity.received();
        assert!(near(left(&activity), HEADER));
        activity.requested();
        assert_eq!(left(&activity), None);
        // Bytes of a body, or of the next request, do not start a head.
        activity.received();
        assert_eq!(left(&activity), None);
        activity.progressed();
        assert!(near(left(&activity), IDLE_TIME));
        activity.idle();
        activity.received();
        assert!(near(left(&activity), HEADER));
    }

    #[test]
    fn more_bytes_of_a_head_give_no_more_time() {
        let activity = Activity::new(HEADER, IDLE_TIME);
        activity.received();
        let deadline = activity.deadline();
        std::thread::sleep(Duration::from_millis(5));
        activity.received();
        assert_eq!(activity.deadline(), deadline);
    }
}
