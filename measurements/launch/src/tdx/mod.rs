//! What Intel TDX reports about how a trust domain was started: MRTD, which the TDX module computes while the VMM builds
//! the domain out of firmware, and RTMR1 and RTMR2, which firmware and kernel extend while they boot.
//!
//! Known is one way of booting: QEMU gives OVMF (a TDVF image) a kernel, an initrd and a command line, and OVMF starts the
//! kernel by its EFI stub. RTMR0 is not computed: it is over ACPI tables and a list of memory that the VMM makes up for
//! each shape of a guest.
//!
//! - [`tdvf`]: what firmware says is to be loaded, and what of it measured.
//! - [`mrtd`]: the measurement of that.
//! - [`kernel`]: a Linux kernel as QEMU hands it on.
//! - [`pe`]: how firmware measures a kernel.
//! - [`rtmr`]: the events of a boot, and the registers they come to.
//!
//! Versions differ in what they measure, and nothing in the bytes says which version will run them. Whoever measures has to
//! say it: [`mrtd::PageAddOrder`], [`rtmr::SetupHeader`], [`rtmr::Edk2`].

pub mod kernel;
pub mod mrtd;
pub mod pe;
pub mod rtmr;
pub mod tdvf;
