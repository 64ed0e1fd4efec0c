//! Looking at an enclave again and again: does it answer, does it take requests, which models has it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use touchstone_formats::{Catalog, control::Status};

use super::{Condition, Fleet, Member, Models};
use crate::{control::ControlError, relay::upstream::Failure};

/// How often an enclave that is away is looked for, at least: one that comes back is found soon.
const SEEK: Duration = Duration::from_millis(250);
/// Answers that may fail to come before an enclave that can be connected to counts as away.
const PATIENCE: u32 = 3;
/// Shortest time between two looks, whatever asks for them.
const BREATH: Duration = Duration::from_millis(20);

impl Fleet {
    /// Looks at one enclave until told to stop.
    pub(crate) async fn watch_health(
        self: Arc<Self>,
        member: Arc<Member>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut silent = 0;
        loop {
            let began = Instant::now();
            let number = member.begun.fetch_add(1, Relaxed).saturating_add(1);
            let look = async {
                let status = member.control.status().await;
                member.judge(status, &mut silent).await;
            };
            let stopped = async { stop.wait_for(|stop| *stop).await.is_ok() };
            tokio::select! {
                () = look => {}
                _ = stopped => return,
            }
            member.refusing.store(false, Relaxed);
            member.looked.send_replace(number);
            let pause = match member.health().condition {
                Condition::Serving | Condition::Draining => self.health_interval,
                _ => self.health_interval.min(SEEK),
            };
            let rest = async {
                if timeout(pause, member.look.notified()).await.is_ok() {
                    sleep(BREATH.saturating_sub(began.elapsed())).await;
                }
            };
            let stopped = async { stop.wait_for(|stop| *stop).await.is_ok() };
            tokio::select! {
                () = rest => {}
                _ = stopped => return,
            }
        }
    }
}

impl Member {
    async fn judge(&self, status: Result<Status, ControlError>, silent: &mut u32) {
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                tracing::debug!(enclave = %self.name, %error, "an enclave did not say how it is");
                *silent = silent.saturating_add(1);
                let refused = matches!(error, ControlError::Failure(Failure::Unreachable { .. }));
                if refused || *silent >= PATIENCE {
                    self.set_health(|health| health.condition = Condition::Away);
                }
                return;
            }
        };
        *silent = 0;
        let known = self.health().models;
        let models = match status.catalog_digest {
            Some(digest) if known.as_ref().is_some_and(|known| known.digest == digest) => known,
            Some(digest) => match self.control.catalog(digest).await {
                Ok(Some(text)) => Catalog::parse(text.as_bytes())
                    .ok()
                    .map(|catalog| Arc::new(Models::new(digest, catalog))),
                Ok(None) => None,
                Err(error) => {
                    tracing::debug!(enclave = %self.name, %error, "an enclave did not give its catalog");
                    None
                }
            },
            // What it had when it was last seen says which requests wait for it.
            None => known,
        };
        let condition = match (status.serving, status.draining) {
            (_, true) => Condition::Draining,
            (true, false) => Condition::Serving,
            (false, false) => Condition::Starting,
        };
        let known = self.health();
        let before = known.status.as_ref();
        // Its end is known before the first receipt under it comes.
        if before.map(|before| before.keyset_digest) != Some(status.keyset_digest) {
            self.puller.keyset_is_unknown();
        }
        let same_boot = before.map(|before| before.boot == status.boot);
        if known.condition == Condition::Away || same_boot != Some(true) {
            self.puller.try_now();
        }
        if self.is_held() && same_boot == Some(false) {
            tracing::info!(enclave = %self.name, "started anew: requests are sent to this enclave again");
            self.held.store(false, Relaxed);
        }
        self.set_health(|health| {
            health.condition = condition;
            health.status = Some(status);
            health.models = models;
        });
    }
}
