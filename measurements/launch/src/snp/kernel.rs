//! The table of hashes through which firmware knows kernel, initrd and command line, and the page it is measured in: QEMU,
//! `build_kernel_loader_hashes` in `target/i386/sev.c` (with `kernel-hashes=on`).

use super::SnpError;
use crate::hash::Sha256;
use crate::ovmf::{Guid, PAGE, guid};

/// Size of the table in bytes: a header, three entries, zeros up to a multiple of 16.
pub const TABLE_SIZE: usize = (HEADER + 3 * ENTRY).next_multiple_of(16);

/// A GUID and a length.
const HEADER: usize = 18;
/// A GUID, a length and a SHA-256 digest.
const ENTRY: usize = HEADER + 32;

const TABLE: Guid = guid(0x9438d606, 0x4f22, 0x4cc9, 0xb479_a793_d411_fd21);
const CMDLINE: Guid = guid(0x97d02dd8, 0xbd20, 0x4c94, 0xaa78_e771_4d36_ab2a);
const INITRD: Guid = guid(0x44baf731, 0x3a2f, 0x4bd7, 0x9af1_41e2_9169_781d);
const KERNEL: Guid = guid(0x4de79437, 0xabd2, 0x427f, 0xb835_d5b1_72d2_045b);

/// What boots after the firmware, by its hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Of the kernel's file. QEMU leaves its header alone for confidential guests.
    pub kernel: Sha256,
    /// Of the initrd's file; of nothing where there is none.
    pub initrd: Sha256,
    /// Of the command line with the NUL that ends it.
    pub cmdline: Sha256,
}

impl Kernel {
    /// From the hashes of two files and the command line itself. Errors: the line holds a NUL.
    pub fn new(kernel: Sha256, initrd: Option<Sha256>, cmdline: &[u8]) -> Result<Kernel, SnpError> {
        if let Some(at) = cmdline.iter().position(|byte| *byte == 0) {
            return Err(SnpError::Cmdline { at });
        }
        Ok(Kernel {
            kernel,
            initrd: initrd.unwrap_or_else(|| Sha256::of(b"")),
            cmdline: Sha256::of(&[cmdline, b"\0"].concat()),
        })
    }

    /// The table: [`TABLE_SIZE`] bytes.
    pub fn table(&self) -> Vec<u8> {
        let mut table = Vec::with_capacity(TABLE_SIZE);
        let mut put = |guid: Guid, length: usize, bytes: &[u8]| {
            table.extend(guid.0);
            table.extend((length as u16).to_le_bytes());
            table.extend(bytes);
        };
        put(TABLE, HEADER + 3 * ENTRY, &[]);
        put(CMDLINE, ENTRY, &self.cmdline.0);
        put(INITRD, ENTRY, &self.initrd.0);
        put(KERNEL, ENTRY, &self.kernel.0);
        table.resize(TABLE_SIZE, 0);
        table
    }

    /// The page with the table at this offset, zeros around it. The offset leaves room for the table.
    pub(super) fn page(&self, offset: usize) -> Vec<u8> {
        let mut page = vec![0; offset];
        page.extend(self.table());
        page.resize(PAGE, 0);
        page
    }
}
