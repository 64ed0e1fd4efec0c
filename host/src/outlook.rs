//! Until when verifiers will accept this platform, as the log tells it.
//!
//! The host judges nothing. `touchstone collateral serve` does, and leaves what it found beside the collateral (`status.json`,
//! docs/collateral.md); whoever reads this host's log should not have to look there.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use serde::Deserialize;
use touchstone_formats::text::printable;

/// From when on the log warns.
const SOON: Duration = Duration::from_secs(7 * 86_400);
/// How often it does.
const EVERY: Duration = Duration::from_secs(3600);
/// The file, at most: bytes.
const MOST: u64 = 256 << 10;
/// Words of it that are logged, at most: characters.
const MOST_WORDS: usize = 500;

/// What was last told.
#[derive(Debug, Default)]
pub(crate) struct Outlook(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    words: String,
    /// When the platform is refused; `None`: not that anybody knows.
    refused: Option<SystemTime>,
    warned: Option<Instant>,
    /// When the file was written that was read last, and its length.
    seen: Option<(SystemTime, u64)>,
}

/// The members that are looked at.
#[derive(Deserialize)]
struct Status {
    words: String,
    seconds_left: Option<u64>,
}

impl Outlook {
    /// Reads the file if it has changed: it is written anew every minute, and says the same most of the time.
    pub fn refresh(&self, path: &Path) {
        let metadata = fs::metadata(path).ok();
        let stamp = metadata.and_then(|m| Some((m.modified().ok()?, m.len())));
        let seen = std::mem::replace(&mut self.lock().seen, stamp);
        if seen != stamp {
            self.read(path);
        }
        self.warn();
    }

    /// From when on the platform is refused; `None`: not that anybody knows.
    pub fn refused(&self) -> Option<SystemTime> {
        self.lock().refused
    }

    /// Reads the file; what it says is logged when it is new.
    fn read(&self, path: &Path) {
        let Some((status, at)) = status(path) else {
            let mut told = self.lock();
            *told = Told {
                seen: told.seen,
                ..Told::default()
            };
            return;
        };
        let words: String = status.words.chars().take(MOST_WORDS).collect();
        let words = printable(&words);
        let left = status.seconds_left.map(Duration::from_secs);
        {
            let mut told = self.lock();
            if told.words != words {
                tracing::info!("{words}");
                told.warned = None;
            }
            told.words = words;
            told.refused = left.and_then(|left| at.checked_add(left));
        }
    }

    /// Warns, now and then, when the platform is about to be refused, or is already. Returns whether it did.
    fn warn(&self) -> bool {
        let mut told = self.lock();
        let soon = SystemTime::now() + SOON;
        let due = told.warned.is_none_or(|at| at.elapsed() >= EVERY);
        if !due || told.refused.is_none_or(|refused| refused >= soon) {
            return false;
        }
        told.warned = Some(Instant::now());
        tracing::warn!("{}", told.words);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file, and when it was written: its seconds count from then.
fn status(path: &Path) -> Option<(Status, SystemTime)> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(MOST)
        .read_to_end(&mut bytes)
        .ok()?;
    let at = fs::metadata(path).ok()?.modified().ok()?;
    Some((serde_json::from_slice(&bytes).ok()?, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_is_warned_of_once_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        let outlook = Outlook::default();
        let told = |text: &str| {
            fs::write(&path, text).unwrap();
            outlook.refresh(&path);
            outlook.lock().warned.is_some()
        };
        assert!(!told(
            r#"{"words":"in a year","seconds_left":31536000,"more":[]}"#
        ));
        assert!(!told(r#"{"words":"never","seconds_left":null}"#));
        assert!(told(r#"{"words":"in a day\u001b","seconds_left":86400}"#));
        assert_eq!(outlook.lock().words, "in a day\\u{1b}");
        assert!(!outlook.warn(), "not again so soon");
        outlook.lock().warned = Instant::now().checked_sub(EVERY);
        assert!(outlook.warn(), "but after an hour");
        assert!(told(r#"{"words":"refused","seconds_left":0}"#));
        // Half a file, or none, says nothing.
        assert!(!told(r#"{"words":"ref"#));
        fs::remove_file(&path).unwrap();
        outlook.refresh(&path);
        assert!(!outlook.warn());
    }
}
