//! ONNX Runtime: loading the pinned library, sessions, and running them.

mod cpu;
mod lease;
mod library;
pub(crate) mod session;
mod values;

pub use lease::{Busy, InferError, Lease, Speed};
pub use library::{Runtime, RuntimeError};

/// The first 500 characters of what the runtime said.
fn cut(message: &str) -> String {
    match message.char_indices().nth(500) {
        None => message.to_owned(),
        Some((end, _)) => format!("{}…", message.get(..end).unwrap_or_default()),
    }
}
