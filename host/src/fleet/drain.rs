//! Taking an enclave out of service without a request that fails: nothing more goes there, what is under
//! way ends, the enclave seals, all of it is fetched and acknowledged. Then it can be stopped.

use std::{
    sync::{PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::{Condition, Fleet, Member};
use crate::control::ControlError;

/// How often it is looked at whether it is done.
const EVERY: Duration = Duration::from_millis(20);

/// Why an enclave was not drained.
#[derive(Debug, Error)]
pub enum DrainError {
    /// The settings name no such enclave.
    #[error("there is no enclave {0:?}")]
    Unknown(String),
    /// No other enclave takes requests.
    #[error("no other enclave takes requests; `force` drains this one all the same")]
    Last,
    /// The enclave was not told.
    #[error("the enclave could not be told: {0}")]
    Control(#[from] ControlError),
    /// It goes on, and nothing new is sent there; it is not done yet.
    #[error(
        "not done in time: {requests} requests, {connections} TLS connections under way, {pending} receipts to be sealed, \
         batches to be acknowledged: {unacknowledged}"
    )]
    NotInTime {
        /// Requests being relayed to it.
        requests: usize,
        /// TLS connections passed through to it.
        connections: usize,
        /// Receipts that wait for their seal.
        pending: u64,
        /// Whether batches are not acknowledged yet.
        unacknowledged: bool,
    },
}

impl Fleet {
    /// Sends nothing more to an enclave, waits until its requests and connections have ended, has it
    /// seal all it holds, and waits until that is stored and acknowledged.
    ///
    /// TLS connections cannot be moved to another enclave, nor is it seen when a request on one has ended: they have
    /// `within` to end by themselves, and then the enclave, which is told to drain all the same, answers what comes on
    /// them with 503.
    ///
    /// # Errors
    /// [`DrainError`]. Except for [`DrainError::Unknown`] and [`DrainError::Last`] nothing is sent there any more.
    pub async fn drain(&self, name: &str, within: Duration, force: bool) -> Result<(), DrainError> {
        let member = self.named(name)?;
        let other = |other: &&std::sync::Arc<Member>| {
            other.index != member.index
                && !other.is_held()
                && other.health().condition == Condition::Serving
        };
        {
            let _one_at_a_time = self.draining.lock().unwrap_or_else(PoisonError::into_inner);
            if !force && self.members().iter().find(other).is_none() {
                return Err(DrainError::Last);
            }
            member.held.store(true, Relaxed);
        }
        tracing::info!(enclave = %member.name, "nothing more is sent to this enclave: it is drained");
        let end = Instant::now() + within;
        while (member.requests() > 0 || member.passed() > 0) && Instant::now() < end {
            sleep(EVERY).await;
        }
        member.control.drain().await?;
        // Sealing has time of its own, whatever the callers took.
        let end = Instant::now() + within.max(Duration::from_secs(5));
        loop {
            let status = member.control.status().await?;
            // It has no keyset any more once its log is closed.
            let done = status.draining
                && status.keyset_digest.is_none()
                && status.pending == 0
                && status.batches.oldest == 0
                && member.requests() == 0;
            if done {
                tracing::info!(enclave = %member.name, "drained: it can be stopped");
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(DrainError::NotInTime {
                    requests: member.requests(),
                    connections: member.passed(),
                    pending: status.pending,
                    unacknowledged: status.batches.oldest != 0,
                });
            }
            sleep(EVERY).await;
        }
    }

    /// Sends requests to an enclave again. One that was drained takes none before it is started anew, and
    /// then it is sent requests without this.
    ///
    /// # Errors
    /// [`DrainError::Unknown`].
    pub fn resume(&self, name: &str) -> Result<(), DrainError> {
        let member = self.named(name)?;
        member.held.store(false, Relaxed);
        member.look.notify_one();
        tracing::info!(enclave = %member.name, "requests are sent to this enclave again");
        Ok(())
    }

    fn named(&self, name: &str) -> Result<&std::sync::Arc<Member>, DrainError> {
        let mut members = self.members().iter();
        members
            .find(|member| member.name == name)
            .ok_or_else(|| DrainError::Unknown(name.to_owned()))
    }
}
