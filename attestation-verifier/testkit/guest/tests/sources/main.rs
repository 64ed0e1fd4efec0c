//! The kernel's quote sources, from the file to the verdict: the real clients on simulated interfaces of the kernel.

mod common;
mod enclave;
mod programs;
mod sev_guest;
mod tsm;
