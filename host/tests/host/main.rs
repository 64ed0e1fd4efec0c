//! The host against a fake enclave: in this process where that is enough, as a process of its own
//! where it is to be killed.

mod client;
mod enclave;
mod raw;
mod receipts;
mod relay;
mod restart;
mod run;
