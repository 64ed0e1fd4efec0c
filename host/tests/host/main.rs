//! The host against a fake enclave: in this process where that is enough, as a process of its own
//! where it is to be killed.

mod abuse;
mod client;
#[allow(dead_code, reason = "the bench uses more of it")]
mod enclave;
mod fleet;
mod hostile;
mod hybrid;
mod killed;
mod manifest;
mod operation;
mod passthrough;
mod raw;
mod receipts;
mod relay;
mod restart;
mod run;
mod sealed;
#[allow(dead_code, reason = "the bench prints more of it")]
mod siege;
