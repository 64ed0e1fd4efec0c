//! The host's side of the control protocol: `GET` and `POST` to the enclave's control listener.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::{sync::Semaphore, time::timeout};
use touchstone_formats::{
    Catalog, Digest,
    control::{Ack, Batches, Keysets, MAX_BATCHES, MAX_WAIT, PATH, PendingReceipt, Status},
    evidence::{Collateral, CollateralFile},
    text::{Hex16, hex_encode},
};

use crate::{
    pending::Id,
    relay::upstream::{Failure, Upstream},
};

/// Longest time for a short request.
const SHORT: Duration = Duration::from_secs(5);
/// Longest answer to a short request: catalogs and keysets are well below.
const SHORT_ANSWER: usize = 8 << 20;
/// Longest answer with batches: the enclave stops near [`MAX_BATCHES`], after at most one more batch.
const LONG_ANSWER: usize = 8 * MAX_BATCHES;
/// Questions about single receipts under way at once: callers cause them, and the enclave has few
/// control connections to give.
const QUESTIONS: usize = 8;
/// Unused connections that are worth keeping.
pub const CONNECTIONS: usize = QUESTIONS;

/// Why the enclave's control side gave no answer.
#[derive(Debug, Error)]
pub enum ControlError {
    /// No answer.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// No answer in time.
    #[error("{path}: no answer within {} s", .within.as_secs())]
    Timeout {
        /// What was asked.
        path: String,
        /// How long was waited.
        within: Duration,
    },
    /// An answer that the protocol does not know.
    #[error("{path}: found status {found}")]
    Status {
        /// What was asked.
        path: String,
        /// The answer's status.
        found: StatusCode,
    },
    /// A body that the protocol does not know.
    #[error("{path}: {error}")]
    Body {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        error: String,
    },
    /// Too many questions at once.
    #[error("too many questions about single receipts at once")]
    Busy,
}

/// A client of the control listener.
#[derive(Debug)]
pub struct Control {
    upstream: Arc<Upstream>,
    questions: Semaphore,
}

impl Control {
    /// A client of `upstream`, the enclave's control listener.
    pub fn new(upstream: Arc<Upstream>) -> Arc<Self> {
        Arc::new(Self {
            upstream,
            questions: Semaphore::new(QUESTIONS),
        })
    }

    /// Closes connections that nobody uses any more, for ever.
    pub async fn sweep(self: Arc<Self>) {
        self.upstream.clone().sweep().await;
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        within: Duration,
        limit: usize,
    ) -> Result<(StatusCode, Bytes), ControlError> {
        let asked = self.upstream.ask(&method, path, &body, limit);
        let answer = timeout(within, asked).await;
        Ok(answer.map_err(|_| ControlError::Timeout {
            path: shown(path),
            within,
        })??)
    }

    /// `None` stands for 404.
    async fn get(
        &self,
        path: &str,
        within: Duration,
        limit: usize,
    ) -> Result<Option<Bytes>, ControlError> {
        match self
            .ask(Method::GET, path, Bytes::new(), within, limit)
            .await?
        {
            (StatusCode::OK, body) => Ok(Some(body)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (found, _) => Err(ControlError::Status {
                path: shown(path),
                found,
            }),
        }
    }

    /// How the enclave is.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn status(&self) -> Result<Status, ControlError> {
        let path = format!("{PATH}/status");
        let body = self.get(&path, SHORT, SHORT_ANSWER).await?;
        read(&path, &found(&path, body)?)
    }

    /// Tells the enclave to take no more requests, and to seal all it holds. It goes on until it is told
    /// to end.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn drain(&self) -> Result<(), ControlError> {
        let path = format!("{PATH}/drain");
        match self
            .ask(Method::POST, &path, Bytes::new(), SHORT, SHORT_ANSWER)
            .await?
        {
            (StatusCode::ACCEPTED, _) => Ok(()),
            (found, _) => Err(ControlError::Status { path, found }),
        }
    }

    /// The keysets of this boot with their evidence.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn keysets(&self) -> Result<Keysets, ControlError> {
        let path = format!("{PATH}/keysets");
        let body = self.get(&path, SHORT, SHORT_ANSWER).await?;
        read(&path, &found(&path, body)?)
    }

    /// Batches after a number; none when there was none for as long as the protocol lets one wait.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn batches(&self, after: u64) -> Result<Batches, ControlError> {
        let path = format!("{PATH}/batches?after={after}&wait={MAX_WAIT}");
        let within = Duration::from_secs(MAX_WAIT) + 2 * SHORT;
        let body = self.get(&path, within, LONG_ANSWER).await?;
        let body = found(&path, body)?;
        // Megabytes of hex and base64: not on a thread that relays.
        tokio::task::spawn_blocking(move || read(&path, &body))
            .await
            .map_err(|error| ControlError::Body {
                path: "batches".into(),
                error: error.to_string(),
            })?
    }

    /// Tells the enclave that batches are stored. `false`: it is another boot.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn acknowledge(&self, boot: Id, through: u64) -> Result<bool, ControlError> {
        let path = format!("{PATH}/ack");
        let ack = Ack {
            boot: Hex16(boot),
            through,
        };
        let body = serde_json::to_vec(&ack).map_err(|error| ControlError::Body {
            path: path.clone(),
            error: error.to_string(),
        })?;
        match self
            .ask(Method::POST, &path, body.into(), SHORT, SHORT_ANSWER)
            .await?
        {
            (StatusCode::NO_CONTENT, _) => Ok(true),
            (StatusCode::CONFLICT, _) => Ok(false),
            (found, _) => Err(ControlError::Status { path, found }),
        }
    }

    /// A receipt that is not in an acknowledged batch yet.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn receipt(&self, id: Id) -> Result<Option<PendingReceipt>, ControlError> {
        let _question = self.question().await?;
        let path = format!("{PATH}/receipts/{}", hex_encode(&id));
        let body = self.get(&path, SHORT, SHORT_ANSWER).await?;
        body.map(|body| read(&path, &body)).transpose()
    }

    /// What certificates the platform's host puts beside quotes.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn collateral(&self) -> Result<Option<Collateral>, ControlError> {
        let path = format!("{PATH}/collateral");
        let body = self.get(&path, SHORT, SHORT_ANSWER).await?;
        let file = body.map(|body| CollateralFile::parse(&body)).transpose();
        file.map(|file| file.map(|file| file.collateral))
            .map_err(|_| ControlError::Body {
                path,
                error: "no collateral file".into(),
            })
    }

    /// The catalog with this digest; its canonical JSON.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn catalog(&self, digest: Digest) -> Result<Option<String>, ControlError> {
        let wrong = |error: String| ControlError::Body {
            path: format!("{PATH}/objects/…"),
            error,
        };
        let Some(body) = self.object(digest).await? else {
            return Ok(None);
        };
        Catalog::parse(&body).map_err(|_| wrong("no catalog".into()))?;
        String::from_utf8(body.into())
            .map(Some)
            .map_err(|error| wrong(error.to_string()))
    }

    /// The object with this digest.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn object(&self, digest: Digest) -> Result<Option<Bytes>, ControlError> {
        let _question = self.question().await?;
        let path = format!("{PATH}/objects/{digest}");
        let Some(body) = self.get(&path, SHORT, SHORT_ANSWER).await? else {
            return Ok(None);
        };
        if Digest::of(&body) != digest {
            return Err(ControlError::Body {
                path: shown(&path),
                error: "found an object with another digest".into(),
            });
        }
        Ok(Some(body))
    }

    async fn question(&self) -> Result<tokio::sync::SemaphorePermit<'_>, ControlError> {
        match timeout(SHORT, self.questions.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(ControlError::Busy),
        }
    }
}

/// A path as errors show it: without the id or digest at its end, which no log is to hold.
fn shown(path: &str) -> String {
    for prefix in ["/objects/", "/receipts/"] {
        if let Some((before, _)) = path.split_once(prefix) {
            return format!("{before}{prefix}…");
        }
    }
    path.to_owned()
}

fn found(path: &str, body: Option<Bytes>) -> Result<Bytes, ControlError> {
    body.ok_or_else(|| ControlError::Status {
        path: shown(path),
        found: StatusCode::NOT_FOUND,
    })
}

fn read<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, ControlError> {
    // Its own words may hold what it found.
    serde_json::from_slice(body).map_err(|error| ControlError::Body {
        path: shown(path),
        error: format!(
            "not the JSON that it should be, at line {}, column {}",
            error.line(),
            error.column()
        ),
    })
}
