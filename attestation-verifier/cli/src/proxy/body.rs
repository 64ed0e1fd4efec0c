//! Reading a client's body within bounds: its own length, what all bodies together may hold, and time.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Most bytes of a body that are read only so that the answer reaches its sender, and the longest time for them.
const REST: usize = 1 << 20;
const REST_TIME: Duration = Duration::from_millis(100);
/// Bytes that one permit stands for.
const UNIT: usize = 1 << 10;

/// Bytes of bodies that all requests together may hold.
#[derive(Clone, Debug)]
pub struct Held(Arc<Semaphore>);

/// What one request holds of it; given back when dropped.
pub type Share = OwnedSemaphorePermit;

impl Held {
    /// So many bytes in all.
    pub fn new(bytes: usize) -> Held {
        Held(Arc::new(Semaphore::new(bytes / UNIT)))
    }

    fn take(&self, bytes: usize) -> Result<Share, Problem> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        self.0
            .clone()
            .try_acquire_many_owned(units)
            .map_err(|_| Problem::busy("too many bytes of requests are held"))
    }

    /// Reads a whole body of at most `limit` bytes.
    ///
    /// # Errors
    /// 413 beyond the limit (before anything is read, if Content-Length says so), 503 when all bodies together
    /// hold too much, 408 when it takes too long, 400 for trailers and for a body that breaks off.
    pub async fn read(
        &self,
        body: &mut Incoming,
        limit: usize,
        time: Duration,
    ) -> Result<(Bytes, Share), Problem> {
        tokio::time::timeout(time, self.collect(body, limit))
            .await
            .unwrap_or_else(|_| {
                Err(Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "Request too slow",
                    "the body did not come in time",
                ))
            })
    }

    async fn collect(&self, body: &mut Incoming, limit: usize) -> Result<(Bytes, Share), Problem> {
        let too_large = || {
            Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "Request too large",
                format!("a request body may have {limit} bytes here"),
            )
        };
        let declared = match body.size_hint().exact() {
            None => None,
            Some(length) => Some(
                usize::try_from(length)
                    .ok()
                    .filter(|length| *length <= limit)
                    .ok_or_else(too_large)?,
            ),
        };
        let mut share = self.take(declared.unwrap_or_default())?;
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| Problem::bad(format!("the body cannot be read: {error}")))?;
            let data = frame.into_data().map_err(|_| {
                Problem::bad("trailers are refused: they are outside the request digest")
            })?;
            let length = first.len().max(rest.len()) + data.len();
            if length > limit {
                return Err(too_large());
            }
            if declared.is_none() {
                share.merge(self.take(data.len())?);
            }
            // Most bodies come in one piece, which is then not copied.
            if first.is_empty() {
                first = data;
                continue;
            }
            if rest.is_empty() {
                rest.reserve(declared.unwrap_or(length));
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
        let whole = match rest.is_empty() {
            true => first,
            false => rest.freeze(),
        };
        Ok((whole, share))
    }
}

/// Reads what is left of a body that nobody wants, if it is small and on its way already. False if it is not: then
/// the connection cannot be used for another request.
pub async fn discard(mut body: Incoming) -> bool {
    let rest = async {
        let mut left = REST;
        while let Some(frame) = body.frame().await {
            let length = frame.ok()?.data_ref().map_or(0, Bytes::len);
            left = left.checked_sub(length)?;
        }
        Some(())
    };
    tokio::time::timeout(REST_TIME, rest).await == Ok(Some(()))
}
