//! What the tests of TDX share.

use touchstone_launch::Sha384;
use touchstone_launch::ovmf::Ovmf;
use touchstone_launch::tdx::mrtd::{PageAddOrder, mrtd};
use touchstone_launch::tdx::rtmr::{Boot, BootError, Edk2, SetupHeader, replay};
use touchstone_launch::tdx::tdvf::{Tdvf, TdvfError};
pub use touchstone_testkit::tdx_boot::{
    Entry, LinuxKernel as Kernel, TdxFirmware as Firmware, noise, put,
};

/// MRTD of an image.
pub fn measure(image: &[u8], order: PageAddOrder) -> Result<Sha384, TdvfError> {
    let ovmf = Ovmf::parse(image)?;
    Ok(mrtd(&Tdvf::parse(&ovmf)?, order))
}

/// RTMR1 and RTMR2 of a boot.
pub fn boot(
    kernel: &[u8],
    initrd: &[u8],
    cmdline: &str,
    header: SetupHeader,
    edk2: Edk2,
) -> Result<[Sha384; 2], BootError> {
    let events = Boot::new(kernel, initrd, cmdline)?.events(header, edk2)?;
    Ok([replay(&events, 1), replay(&events, 2)])
}

/// 2 GiB, which the tests use where memory does not matter.
pub const MEMORY: u64 = 2 << 30;

/// With what QEMU writes, in a guest of [`MEMORY`].
pub const PATCHED: SetupHeader = SetupHeader::Patched { memory: MEMORY };
