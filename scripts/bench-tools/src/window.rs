//! The time in which a load program counts: after a warm-up, for so many seconds, beside the CPU time that the
//! servers used in it.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::cpu::process_cpu;

// 0 is the warm-up.
const MEASURE: u8 = 1;
const END: u8 = 2;

/// Tells the workers of a load program whether what they do counts.
#[derive(Debug, Default)]
pub struct Phase(AtomicU8);

impl Phase {
    /// What begins now and ends while this is still true counts.
    pub fn counts(&self) -> bool {
        self.0.load(Ordering::Relaxed) == MEASURE
    }

    /// Workers stop.
    pub fn over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == END
    }
}

/// What went by in the window.
#[derive(Debug)]
pub struct Window {
    /// Seconds.
    pub seconds: f64,
    /// CPU time of the servers.
    pub cpu: Duration,
    /// CPU time of the load program itself.
    pub own_cpu: Duration,
}

impl Window {
    /// Opens the window after `warm_up` seconds and closes it after `seconds`, or once `enough` says so.
    ///
    /// # Errors
    /// When one of the `servers` (process ids) is gone.
    pub async fn measure(
        phase: &Phase,
        warm_up: f64,
        seconds: f64,
        servers: &[u32],
        enough: Option<&(dyn Fn() -> bool + Sync)>,
    ) -> Result<Self> {
        tokio::time::sleep(Duration::from_secs_f64(warm_up)).await;
        let spent = || {
            let pids = servers.iter().map(|pid| process_cpu(*pid));
            pids.sum::<Result<Duration>>()
        };
        let own = std::process::id();
        let (cpu, own_cpu, started) = (spent()?, process_cpu(own)?, Instant::now());
        phase.0.store(MEASURE, Ordering::Relaxed);
        let end = started + Duration::from_secs_f64(seconds);
        while Instant::now() < end && !enough.is_some_and(|enough| enough()) {
            let left = end.saturating_duration_since(Instant::now());
            // Only a run that ends by count needs to look often.
            let nap = enough.map_or(left, |_| Duration::from_millis(5));
            tokio::time::sleep(nap.min(left)).await;
        }
        phase.0.store(END, Ordering::Relaxed);
        Ok(Self {
            seconds: started.elapsed().as_secs_f64(),
            cpu: spent()? - cpu,
            own_cpu: process_cpu(own)? - own_cpu,
        })
    }
}
