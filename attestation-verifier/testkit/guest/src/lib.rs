//! What a confidential VM's kernel shows its processes, without the hardware: configfs-tsm and `/dev/sev-guest`, as FUSE
//! file systems in front of simulated machines.
//!
//! A crate of its own beside the test kit, so that FUSE is built for the few tests that mount something. Nothing that is
//! released links it, and nothing that uses these files can tell: an enclave is given a path.
//!
//! - [`tsm`]: the folder that `tsm = …` of the enclave's settings names. Behaves as `drivers/virt/coco/tsm.c` and configfs do.
//! - [`sev_guest`]: the file that `device = …` names. Behaves as `drivers/virt/coco/sev-guest` does.
//! - [`Firmware`]: what makes the reports: a machine of the test kit, or ([`Agent`]) a quote agent's socket.
//!
//! Mounting needs `/dev/fuse` and the right to mount. A test asks [`unusable`] first, and says that it was skipped.

mod agent;
mod certificates;
mod fault;
mod firmware;
mod mounted;
pub mod sev_guest;
pub mod tsm;

pub use agent::Agent;
pub use certificates::certificate_table;
pub use fault::Faults;
pub use firmware::{Firmware, Made};
pub use mounted::{Mounted, Shared, unusable};
