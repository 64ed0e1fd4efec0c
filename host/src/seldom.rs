//! Log lines that callers can bring about as often as they like: one a second of each kind, with the number of those left out.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Time from one line to the next.
const EVERY: Duration = Duration::from_secs(1);

/// Whose turn it is to be logged, of one kind of line. A `static` where it is used.
#[derive(Debug)]
pub struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// One that has not logged yet.
    pub const fn new() -> Self {
        Self(Mutex::new((None, 0)))
    }

    /// Whether a line may be logged at this time, and if so how many were left out since the last.
    pub fn turn(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (said, unsaid) = &mut *state;
        if said.is_some_and(|said| now.saturating_duration_since(said) < EVERY) {
            *unsaid = unsaid.saturating_add(1);
            return None;
        }
        *said = Some(now);
        Some(std::mem::take(unsaid))
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Self::new()
    }
}

/// Logs at most one line a second from where it stands, with `more`, the number of those left out since; the rest is for `debug`.
macro_rules! seldom {
    ($level:ident, $($what:tt)+) => {{
        static TURNS: $crate::seldom::Seldom = $crate::seldom::Seldom::new();
        match TURNS.turn(std::time::Instant::now()) {
            Some(more) => tracing::$level!(more, $($what)+),
            None => tracing::debug!($($what)+),
        }
    }};
}
pub(crate) use seldom;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_there_were() {
        let (turns, start) = (Seldom::new(), Instant::now());
        assert_eq!(turns.turn(start), Some(0));
        for milliseconds in [0, 1, 999] {
            assert_eq!(
                turns.turn(start + Duration::from_millis(milliseconds)),
                None
            );
        }
        assert_eq!(turns.turn(start + EVERY), Some(3));
        assert_eq!(turns.turn(start + EVERY), None);
        assert_eq!(turns.turn(start + 3 * EVERY), Some(1));
    }
}
