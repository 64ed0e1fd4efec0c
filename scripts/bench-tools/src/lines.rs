//! The same thing again and again, on several lines at once, for a while.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    figures::{Latencies, joined, per},
    window::{Phase, Window},
};

/// How much of it, and beside which servers.
#[derive(clap::Args, Clone, Debug)]
pub struct Measured {
    /// How many lines
    #[arg(long)]
    pub connections: usize,
    /// Seconds before the window opens
    #[arg(long, default_value_t = 0.5)]
    pub warm_up: f64,
    /// Seconds that are measured
    #[arg(long)]
    pub seconds: f64,
    /// A process whose CPU time counts as the server's
    #[arg(long = "server-pid")]
    pub server_pids: Vec<u32>,
}

impl Measured {
    /// Does it on every line until the time is over, and counts what both begins and ends in the window.
    ///
    /// # Errors
    /// The first error of doing it; a server that is gone; a line that hangs.
    pub async fn run<D, F>(&self, doing: D) -> Result<serde_json::Value>
    where
        D: Fn() -> F + Clone + Send + 'static,
        F: Future<Output = Result<()>> + Send,
    {
        let phase = Arc::new(Phase::default());
        let line = |phase: Arc<Phase>, doing: D| async move {
            let mut taken = Latencies::default();
            while !phase.over() {
                let (counts, began) = (phase.counts(), Instant::now());
                doing().await?;
                if counts && phase.counts() {
                    taken.note(began.elapsed());
                }
            }
            anyhow::Ok(taken)
        };
        let tasks: Vec<_> = (0..self.connections)
            .map(|_| tokio::spawn(line(Arc::clone(&phase), doing.clone())))
            .collect();
        let pids = &self.server_pids;
        let window = Window::measure(&phase, self.warm_up, self.seconds, pids, None).await?;
        let mut all = Latencies::default();
        for task in tasks {
            let done = tokio::time::timeout(Duration::from_secs(60), task).await;
            all.extend(done.context("a line hangs")???);
        }
        let done = all.count() as f64;
        let figures = serde_json::json!({
            "connections": self.connections, "seconds": window.seconds,
            "cpu_seconds": window.cpu.as_secs_f64(), "load_cpu_seconds": window.own_cpu.as_secs_f64(),
            "per_second": done / window.seconds, "per_cpu_second": per(done, window.cpu),
            "per_load_cpu_second": per(done, window.own_cpu),
        });
        Ok(joined([figures, all.percentiles()]))
    }
}
