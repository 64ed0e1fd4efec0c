//! How often a vendor is asked: pauses between requests, `Retry-After`, and pauses that grow after failures.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex as SyncMutex;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::cache::write_atomically;
use crate::item::{Item, Vendor};

/// How patient to be. All bounds, so that no server can hold a caller for ever.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Shortest time between two requests for VCEK certificates. AMD's service refuses (429) who asks more often than every 10 s.
    pub between_vceks: Duration,
    /// Most attempts for one piece.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause between two attempts, also one that `Retry-After` asks for; who asks for more is not asked again for now.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            between_vceks: Duration::from_secs(10),
            attempts: 4,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// The pause after the `failures`-th failure (from 1): doubled each time, bounded, and of random length between half and
    /// the whole of it, so that a thousand hosts do not come back in the same second.
    pub fn pause(&self, failures: u32) -> Duration {
        let doubled = self
            .first_pause
            .saturating_mul(1 << failures.saturating_sub(1).min(16));
        jitter(doubled.min(self.longest_pause))
    }
}

/// Between half of it and the whole of it.
pub(crate) fn jitter(whole: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness the pause is whole: nothing secret depends on it.
    if SystemRandom::new().fill(&mut random).is_err() {
        return whole;
    }
    let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    whole.mul_f64(0.5 + share / 2.0)
}

/// How long `Retry-After` asks to wait: seconds, or an HTTP date (RFC 9110 §10.2.3).
pub(crate) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More than fits is longer than anybody waits.
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or(Duration::ZERO))
}

/// Keeps the pauses, of all who fetch through it, and between runs of the command.
#[derive(Debug)]
pub(crate) struct Pacer {
    patience: Patience,
    /// When the last VCEK was asked for, for other processes: a file with nothing in it but its time.
    asked: Option<PathBuf>,
    /// When the next VCEK may be asked for. Locked while waiting: who comes later waits longer.
    vcek: Mutex<Option<Instant>>,
    /// Until when a vendor wants to be left alone.
    quiet: SyncMutex<HashMap<Vendor, Instant>>,
}

impl Pacer {
    pub fn new(patience: Patience, cache: Option<&Path>) -> Pacer {
        Pacer {
            patience,
            asked: cache.map(|folder| folder.join(".vcek-asked")),
            vcek: Mutex::default(),
            quiet: SyncMutex::default(),
        }
    }

    /// Waits until this may be asked for. `Err`: the vendor wants to be left alone for longer than anybody waits.
    pub async fn turn(&self, item: &Item) -> Result<(), Duration> {
        let now = Instant::now();
        let quiet = {
            let quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
            quiet.get(&item.vendor()).copied()
        };
        if let Some(left) = quiet.and_then(|until| until.checked_duration_since(now)) {
            if left > self.patience.longest_pause {
                return Err(left);
            }
            tokio::time::sleep(left).await;
        }
        if !matches!(item, Item::Vcek { .. }) {
            return Ok(());
        }
        let mut next = self.vcek.lock().await;
        if let Some(at) = *next {
            tokio::time::sleep_until(at).await;
        }
        // Also after a pause of our own: another process may have asked during it.
        tokio::time::sleep(self.since_another_process()).await;
        *next = Some(Instant::now() + self.patience.between_vceks);
        if let Some(path) = &self.asked {
            // A pause that is not remembered is no reason not to fetch.
            let _ = write_atomically(path, millis().to_string().as_bytes());
        }
        Ok(())
    }

    /// The vendor asked to be left alone for so long.
    pub fn be_quiet(&self, vendor: Vendor, wait: Duration) {
        const LONGEST: Duration = Duration::from_secs(3600);
        let until = Instant::now() + wait.min(LONGEST);
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = quiet.entry(vendor).or_insert(until);
        *entry = until.max(*entry);
    }

    /// What is left of the pause that the last process began.
    fn since_another_process(&self) -> Duration {
        let read = |path: &PathBuf| {
            std::fs::metadata(path).ok()?.is_file().then_some(())?;
            let mut text = String::new();
            let file = File::open(path).ok()?;
            file.take(32).read_to_string(&mut text).ok()?;
            text.parse::<u64>().ok()
        };
        let Some(asked) = self.asked.as_ref().and_then(read) else {
            return Duration::ZERO;
        };
        // A clock that was set back must not make this wait for ever.
        let passed = Duration::from_millis(millis().saturating_sub(asked));
        self.patience.between_vceks.saturating_sub(passed)
    }
}

fn millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(retry_after("120", now), seconds(120));
        let date = httpdate::fmt_http_date(now + Duration::from_secs(90));
        assert_eq!(retry_after(&date, now), seconds(90));
        let past = httpdate::fmt_http_date(now - Duration::from_secs(90));
        assert_eq!(retry_after(&past, now), seconds(0));
        assert_eq!(retry_after(&"9".repeat(40), now), Some(Duration::MAX));
        for bad in ["", "soon", "-1", "1.5"] {
            assert_eq!(retry_after(bad, now), None, "{bad}");
        }
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let patience = Patience::default();
        for (failures, whole) in [(1, 1.0), (2, 2.0), (3, 4.0), (10, 60.0), (u32::MAX, 60.0)] {
            let pause = patience.pause(failures).as_secs_f64();
            assert!(
                (whole / 2.0..=whole).contains(&pause),
                "{failures}: {pause}"
            );
        }
    }

    fn vcek() -> Item {
        Item::of_target(&format!(
            "/vcek/v1/Genoa/{}?blSPL=1&teeSPL=0&snpSPL=1&ucodeSPL=1",
            "ab".repeat(64)
        ))
        .unwrap()
        .0
    }

    #[tokio::test(start_paused = true)]
    async fn vceks_are_ten_seconds_apart_and_other_things_do_not_wait() {
        let pacer = Pacer::new(Patience::default(), None);
        let start = Instant::now();
        for n in 0..3 {
            pacer.turn(&vcek()).await.unwrap();
            pacer.turn(&Item::QeIdentity).await.unwrap();
            assert_eq!(start.elapsed().as_secs(), 10 * n);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_process_counts_too() {
        let folder = tempfile::tempdir().unwrap();
        let first = Pacer::new(Patience::default(), Some(folder.path()));
        first.turn(&vcek()).await.unwrap();
        let second = Pacer::new(Patience::default(), Some(folder.path()));
        let start = Instant::now();
        second.turn(&vcek()).await.unwrap();
        assert!(
            start.elapsed() > Duration::from_secs(9),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn another_process_counts_also_between_our_own_requests() {
        let folder = tempfile::tempdir().unwrap();
        let pacer = || Pacer::new(Patience::default(), Some(folder.path()));
        let first = pacer();
        // A long time ago; and another process asks while this one pauses.
        first.turn(&vcek()).await.unwrap();
        std::fs::write(folder.path().join(".vcek-asked"), "1").unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        pacer().turn(&vcek()).await.unwrap();
        let start = Instant::now();
        first.turn(&vcek()).await.unwrap();
        assert!(
            start.elapsed() > Duration::from_secs(9),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_vendor_is_left_alone_and_the_other_is_not() {
        let pacer = Pacer::new(Patience::default(), None);
        pacer.be_quiet(Vendor::Kds, Duration::from_secs(30));
        let start = Instant::now();
        pacer.turn(&Item::QeIdentity).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 0);
        pacer.turn(&vcek()).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 30);
        pacer.be_quiet(Vendor::Kds, Duration::from_secs(999_999));
        let left = pacer.turn(&vcek()).await.unwrap_err();
        assert!(left > Duration::from_secs(3500) && left <= Duration::from_secs(3600));
    }
}
