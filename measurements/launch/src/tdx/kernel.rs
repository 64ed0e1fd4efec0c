//! A Linux kernel as QEMU hands it to OVMF. Sources: Linux, `Documentation/arch/x86/boot.rst`; QEMU, `x86_load_linux` in
//! `hw/i386/x86-common.c` (`x86.c` before 9.1) and `pc_q35_init` in `hw/i386/pc_q35.c`.
//!
//! QEMU writes into the kernel's setup header what a boot loader would, although a kernel that is started by its EFI stub
//! reads none of it, and the firmware measures the kernel with it.

use super::pe::{self, PeError};
use crate::hash::Sha384;

/// The largest kernel, in bytes.
pub const MAX_KERNEL: usize = 1 << 30;

/// The first version of the boot protocol that has all that is read here: 2.12, of Linux 3.8.
const MIN_PROTOCOL: u16 = 0x020c;

/// Where QEMU would put the command line of a kernel that is loaded high.
const CMDLINE_ADDRESS: u32 = 0x20000;

/// `heap_end_ptr`: 512 bytes less than there are between the setup header, at 0x10000, and the command line.
const HEAP_END: u16 = 0xfe00;

/// What QEMU keeps for ACPI tables at the end of memory below 4 GiB, in bytes (`acpi_data_size`).
const ACPI_DATA: u64 = 0x28000;

/// How much of the guest's memory is below 4 GiB on a Q35 machine: all of it if less than 2.75 GiB, else 2 GiB.
const LOW_MEMORY: (u64, u64) = (0xb000_0000, 0x8000_0000);

/// Bits of `loadflags`: the kernel is loaded at 1 MiB; the heap's end is given.
const LOADED_HIGH: u8 = 1;
const CAN_USE_HEAP: u8 = 0x80;

/// Bit of `xloadflags`: the initrd may be anywhere.
const CAN_BE_LOADED_ABOVE_4G: u16 = 2;

/// Why a kernel cannot be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// It is larger than kernels are.
    #[error("kernel: {found} bytes, more than the {MAX_KERNEL} that are read")]
    TooLarge {
        /// Bytes given.
        found: usize,
    },
    /// It has no setup header of Linux.
    #[error("kernel: not a Linux kernel (bzImage): no signature \"HdrS\" at offset 0x202")]
    NotLinux,
    /// Its boot protocol is older than what is known here.
    #[error("kernel: boot protocol {found:#06x}, older than {MIN_PROTOCOL:#06x} (2.12)")]
    Protocol {
        /// Which version it has.
        found: u16,
    },
    /// It is made for the first megabyte of memory.
    #[error("kernel: not loaded high (loadflags {found:#04x})")]
    LoadedLow {
        /// Its loadflags.
        found: u8,
    },
    /// It is shorter than its setup code.
    #[error("kernel: {found} bytes, shorter than the {expected} of its setup code")]
    TooShort {
        /// Bytes given.
        found: usize,
        /// Bytes that it says it has at least.
        expected: usize,
    },
    /// QEMU starts no guest with so little memory for that initrd.
    #[error(
        "initrd: {size} bytes do not fit below {limit:#x}, where QEMU puts it with {memory:#x} bytes of memory"
    )]
    InitrdDoesNotFit {
        /// Its size in bytes.
        size: u64,
        /// The highest address it may reach.
        limit: u64,
        /// The guest's memory in bytes.
        memory: u64,
    },
    /// It is no program that firmware can start.
    #[error(transparent)]
    Pe(#[from] PeError),
}

/// A bzImage with an EFI stub.
#[derive(Clone, Debug)]
pub struct Kernel<'a> {
    image: &'a [u8],
    /// Highest address for an initrd, by the kernel's word.
    initrd_max: u32,
}

impl<'a> Kernel<'a> {
    /// Reads the setup header and the PE headers.
    ///
    /// # Errors
    /// [`KernelError`]: no such kernel, or one that is too old.
    pub fn parse(image: &'a [u8]) -> Result<Kernel<'a>, KernelError> {
        let found = image.len();
        if found > MAX_KERNEL {
            return Err(KernelError::TooLarge { found });
        }
        if field(image, 0x202) != Some(*b"HdrS") {
            return Err(KernelError::NotLinux);
        }
        let protocol = field(image, 0x206).map_or(0, u16::from_le_bytes);
        if protocol < MIN_PROTOCOL {
            return Err(KernelError::Protocol { found: protocol });
        }
        let [loadflags] = field(image, 0x211).unwrap_or_default();
        if loadflags & LOADED_HIGH == 0 {
            return Err(KernelError::LoadedLow { found: loadflags });
        }
        // In sectors of 512 bytes, without the first; 0 means 4.
        let [sectors] = field(image, 0x1f1).unwrap_or_default();
        let sectors = if sectors == 0 { 4 } else { sectors };
        let expected = (usize::from(sectors) + 1) * 512;
        if found < expected {
            return Err(KernelError::TooShort { found, expected });
        }
        let xloadflags = field(image, 0x236).map_or(0, u16::from_le_bytes);
        let initrd_max = match xloadflags & CAN_BE_LOADED_ABOVE_4G {
            0 => field(image, 0x22c).map_or(0, u32::from_le_bytes),
            _ => u32::MAX,
        };
        let kernel = Kernel { image, initrd_max };
        kernel.digest()?;
        Ok(kernel)
    }

    /// By which firmware measures it as it is.
    ///
    /// # Errors
    /// [`KernelError::Pe`].
    pub fn digest(&self) -> Result<Sha384, KernelError> {
        Ok(pe::authenticode(self.image)?)
    }

    /// By which firmware measures it with what QEMU writes into its setup header, beside an initrd of `initrd` bytes in a
    /// guest of `memory` bytes.
    ///
    /// # Errors
    /// [`KernelError`]: the initrd does not fit, or what QEMU writes makes it no program any more.
    pub fn patched_digest(&self, initrd: u64, memory: u64) -> Result<Sha384, KernelError> {
        Ok(pe::authenticode(&self.patched(initrd, memory)?)?)
    }

    /// The kernel with what QEMU writes into its setup header.
    ///
    /// # Errors
    /// [`KernelError::InitrdDoesNotFit`].
    pub fn patched(&self, initrd: u64, memory: u64) -> Result<Vec<u8>, KernelError> {
        let (address, size) = self.initrd_place(initrd, memory)?;
        let mut image = self.image.to_vec();
        let mut put = |offset: usize, bytes: &[u8]| {
            // All of it is in the first two sectors, which every kernel has.
            for (byte, new) in image.iter_mut().skip(offset).zip(bytes) {
                *byte = *new;
            }
        };
        // type_of_loader: QEMU
        put(0x210, &[0xb0]);
        let [loadflags] = field(self.image, 0x211).unwrap_or_default();
        put(0x211, &[loadflags | CAN_USE_HEAP]);
        // ramdisk_image, ramdisk_size
        put(0x218, &address.to_le_bytes());
        put(0x21c, &size.to_le_bytes());
        put(0x224, &HEAP_END.to_le_bytes());
        // cmd_line_ptr
        put(0x228, &CMDLINE_ADDRESS.to_le_bytes());
        Ok(image)
    }

    /// Address and size of the initrd: as high as may be, at the beginning of a page.
    fn initrd_place(&self, initrd: u64, memory: u64) -> Result<(u32, u32), KernelError> {
        let low = match memory < LOW_MEMORY.0 {
            true => memory,
            false => LOW_MEMORY.1,
        };
        let below = low.saturating_sub(ACPI_DATA);
        let limit = u64::from(self.initrd_max).min(below.saturating_sub(1));
        let address = limit
            .checked_sub(initrd)
            .filter(|_| initrd < limit)
            .map(|at| at & !0xfff);
        let place = address.map(|address| (u32::try_from(address), u32::try_from(initrd)));
        match place {
            Some((Ok(address), Ok(size))) => Ok((address, size)),
            _ => Err(KernelError::InitrdDoesNotFit {
                size: initrd,
                limit,
                memory,
            }),
        }
    }
}

/// `N` bytes of the setup header.
fn field<const N: usize>(image: &[u8], offset: usize) -> Option<[u8; N]> {
    image
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .copied()
}
