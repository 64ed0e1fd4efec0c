//! A simulated machine, SEV-SNP or TDX, behind the quote agent protocol (`docs/quote-agent.md`).
//!
//! The enclave does not know that it is simulated: it dials a Unix socket and gets reports that are valid to the
//! byte, under a root made up for the run. Like the hardware it makes one quote at a time. Faults can be switched
//! on and off while it runs, by [`PlatformHandle::set_fault`] or, for the program, by a control file.
//!
//! ```
//! use std::time::Duration;
//! use touchstone_testkit::amd::Product;
//! use touchstone_testkit::machine::Machine;
//! use touchstone_testkit::platform::{Fault, PlatformConfig, SimulatedPlatform};
//!
//! let folder = tempfile::tempdir()?;
//! let machine = Machine::new(Product::Genoa, 5, 1_790_000_000);
//! let mut config = PlatformConfig::new(folder.path().join("agent.sock"), machine);
//! config.latency = Duration::from_millis(5);
//! let platform = SimulatedPlatform::start(config)?;
//!
//! platform.set_fault(Fault::Busy, Some(3)); // the next three requests, then as before
//! assert_eq!(platform.counters().requests, 0);
//! # Ok::<(), std::io::Error>(())
//! ```

mod fault;
mod guest;
mod server;

pub use fault::{Fault, FaultPlan};
pub use server::{Counters, PlatformConfig, PlatformHandle, Protocol, SimulatedPlatform};
