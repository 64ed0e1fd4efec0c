//! Running a model.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ort::{ErrorCode, session::Session};
use tokio::sync::OwnedSemaphorePermit;

use super::values;
use crate::{
    models::Model,
    protocol::{InferOutput, InferRequest},
};

/// No session became free in time; answer 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all sessions of this model are busy; try again soon")]
pub struct Busy;

/// An inference that gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The runtime refused the inputs (status 400).
    #[error("the model refused these inputs: {0}")]
    Inputs(String),
    /// The runtime failed (status 500).
    #[error("the model failed: {0}")]
    Failed(String),
}

impl InferError {
    /// The HTTP status that answers this error: 400 or 500.
    pub fn status(&self) -> u16 {
        match self {
            Self::Inputs(_) => 400,
            Self::Failed(_) => 500,
        }
    }

    /// A short title (RFC 9457).
    pub fn title(&self) -> &'static str {
        match self {
            Self::Inputs(_) => "Inputs refused by the model",
            Self::Failed(_) => "Inference failed",
        }
    }
}

/// How long a model's runs have lately taken, and for how much input: moving averages.
#[derive(Debug)]
pub struct Speed {
    nanoseconds: AtomicU64,
    bytes: AtomicU64,
}

impl Speed {
    /// Below this, running inline costs less than handing over to another thread.
    const FAST: Duration = Duration::from_micros(300);

    fn note(&self, took: Duration, bytes: usize) {
        average(
            &self.nanoseconds,
            u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        );
        average(&self.bytes, bytes as u64);
    }

    fn is_fast(&self) -> bool {
        u128::from(self.nanoseconds.load(Ordering::Relaxed)) < Self::FAST.as_nanos()
    }

    /// Whether `bytes` of input are about as much as those that were fast, or so few that they
    /// cannot matter.
    fn is_usual(&self, bytes: usize) -> bool {
        bytes as u64
            <= self
                .bytes
                .load(Ordering::Relaxed)
                .saturating_mul(4)
                .max(4096)
    }
}

/// Moves an average an eighth of the way. Two threads that do it at once may lose one of the two
/// values; an average survives that.
fn average(value: &AtomicU64, new: u64) {
    let before = value.load(Ordering::Relaxed);
    value.store(before - before / 8 + new / 8, Ordering::Relaxed);
}

impl Default for Speed {
    /// Slow until it has shown otherwise.
    fn default() -> Self {
        Self {
            nanoseconds: AtomicU64::new(1_000_000),
            bytes: AtomicU64::new(0),
        }
    }
}

/// A session on loan; it goes back to its pool when dropped.
pub struct Lease {
    model: Arc<Model>,
    /// `None` only while it is dropped.
    session: Option<Session>,
    /// Released after `drop` has put the session back.
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    pub(crate) fn new(model: Arc<Model>, session: Session, permit: OwnedSemaphorePermit) -> Self {
        Self {
            model,
            session: Some(session),
            _permit: permit,
        }
    }

    /// Whose session it is.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Runs the model. Synchronous and possibly slow: see [`usually_fast`](Self::usually_fast).
    /// The request must have passed [`Model::check`]; one that has not is an error, never a crash.
    ///
    /// # Errors
    /// [`InferError`]; the session stays usable.
    pub fn run(&mut self, request: &InferRequest) -> Result<InferOutput, InferError> {
        let start = Instant::now();
        // ort checks some of what the runtime hands it with asserts. Between runs a session holds
        // no state that a panic could have left half changed.
        let result = catch_unwind(AssertUnwindSafe(|| self.run_session(request)))
            .unwrap_or_else(|_| Err(InferError::Failed("the ort crate panicked".into())));
        self.model
            .speed()
            .note(start.elapsed(), input_bytes(request));
        result
    }

    fn run_session(&mut self, request: &InferRequest) -> Result<InferOutput, InferError> {
        let session = self
            .session
            .as_mut()
            .ok_or(InferError::Failed("no session".into()))?;
        let mut inputs = Vec::with_capacity(request.inputs.len());
        for tensor in &request.inputs {
            // The runtime reads names up to their first NUL, so only the model's own reach it.
            let known = self
                .model
                .inputs
                .iter()
                .find(|spec| spec.name == tensor.name);
            let spec = known.ok_or_else(|| InferError::Inputs("an unknown input".into()))?;
            inputs.push((spec.name.as_str(), values::input(tensor)?));
        }
        let outputs = session.run(inputs).map_err(|e| {
            let message = super::cut(e.message());
            match e.code() {
                ErrorCode::InvalidArgument => InferError::Inputs(message),
                _ => InferError::Failed(message),
            }
        })?;
        // Every output is computed, whichever were asked for: the answer to one question does not
        // depend on what else was asked.
        let one = |name: &str| match outputs.get(name) {
            Some(value) => values::output(name, value),
            None => Err(InferError::Failed(format!("no output {name:?}"))),
        };
        let outputs: Result<Vec<_>, _> = match &request.outputs {
            Some(requested) => requested.iter().map(|output| one(&output.name)).collect(),
            None => self
                .model
                .outputs
                .iter()
                .map(|spec| one(&spec.name))
                .collect(),
        };
        Ok(InferOutput { outputs: outputs? })
    }

    /// Whether this model's runs have lately taken less than 300 µs: then running inline on an
    /// async thread costs less than handing over to a blocking one.
    pub fn usually_fast(&self) -> bool {
        self.model.speed().is_fast()
    }

    /// Whether this request will be fast as well: the model [usually is](Self::usually_fast), and
    /// there is not much more input than usual. A huge batch for a fast model must not hold up an
    /// async thread.
    pub fn fast_for(&self, request: &InferRequest) -> bool {
        self.usually_fast() && self.model.speed().is_usual(input_bytes(request))
    }
}

fn input_bytes(request: &InferRequest) -> usize {
    request.inputs.iter().map(|input| input.data.len()).sum()
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.model.give_back(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_slow_until_it_has_been_fast_for_a_while() {
        let speed = Speed::default();
        assert!(!speed.is_fast());
        speed.note(Duration::from_micros(20), 256);
        assert!(!speed.is_fast(), "one fast run proves little");
        for _ in 0..20 {
            speed.note(Duration::from_micros(20), 256);
        }
        assert!(speed.is_fast());
        for _ in 0..3 {
            speed.note(Duration::from_millis(5), 256);
        }
        assert!(!speed.is_fast());
    }

    #[test]
    fn a_much_larger_input_is_not_expected_to_be_as_fast() {
        let speed = Speed::default();
        assert!(
            speed.is_usual(4096) && !speed.is_usual(4097),
            "nothing is known yet"
        );
        for _ in 0..100 {
            speed.note(Duration::from_micros(20), 100_000);
        }
        assert!(speed.is_usual(300_000) && !speed.is_usual(500_000));
    }
}
