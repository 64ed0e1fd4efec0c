//! The log of one keyset and its seals (formats.md §6), and what waits for the host.
//!
//! [`Log`] takes receipts in any order and lines them up by sequence number; its [`Sealer`] puts what is
//! lined up under one checkpoint and one quote while the next batch gathers; [`Outbox`] holds
//! what was sealed until the host says that it has it.

mod log;
mod outbox;
mod sealer;
mod wire;

pub use log::{Log, LoggedReceipt};
pub use outbox::{Outbox, OutgoingBatch, Range};
pub use sealer::Sealer;
