//! The two calls that no safe crate makes: device-mapper's ioctls, and binding a packet socket to a network card.
//!
//! All `unsafe` of this crate is in this file.
#![allow(unsafe_code)]

use std::{ffi::c_void, os::fd::BorrowedFd};

use rustix::{
    io,
    ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode},
    net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
};

/// `sizeof(struct dm_ioctl)`, which is part of each opcode.
pub const DM_HEADER: usize = 312;
/// Offset of `data_size` in it: how many bytes the kernel may read and write.
const DM_DATA_SIZE: usize = 12;
/// Bytes of every call: the header, and room for one table line.
pub const DM_BUFFER: usize = 4096;

/// One of device-mapper's ioctls (`linux/dm-ioctl.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmCommand {
    /// `DM_DEV_CREATE`
    Create,
    /// `DM_DEV_REMOVE`
    Remove,
    /// `DM_DEV_SUSPEND`, which without its flag resumes.
    Resume,
    /// `DM_TABLE_LOAD`
    Load,
}

struct DmCall<'a> {
    command: DmCommand,
    buffer: &'a mut [u8; DM_BUFFER],
}

// SAFETY: the opcode is one of the four, all of which read `data_size` bytes at the pointer and write at most as many
// (`ctl_ioctl` in drivers/md/dm-ioctl.c). `as_ptr` gives a buffer of DM_BUFFER bytes that is borrowed for as long as the
// call lasts, and `dm` below has written DM_BUFFER there as `data_size`. The kernel copies: it asks for no alignment.
unsafe impl Ioctl for DmCall<'_> {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        let number = match self.command {
            DmCommand::Create => 3,
            DmCommand::Remove => 4,
            DmCommand::Resume => 6,
            DmCommand::Load => 9,
        };
        opcode::read_write::<[u8; DM_HEADER]>(0xfd, number)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.buffer.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> io::Result<()> {
        Ok(())
    }
}

/// Calls device-mapper by its control device. `buffer` is a `struct dm_ioctl` with what belongs behind it.
///
/// # Errors
/// What the system says.
pub fn dm(
    control: BorrowedFd<'_>,
    command: DmCommand,
    buffer: &mut [u8; DM_BUFFER],
) -> io::Result<()> {
    let size = (DM_BUFFER as u32).to_ne_bytes();
    for (to, from) in buffer.iter_mut().skip(DM_DATA_SIZE).zip(size) {
        *to = from;
    }
    // SAFETY: see the implementation above. On a descriptor that is not device-mapper's, the opcode means nothing (its
    // group and size are device-mapper's alone), and the kernel refuses it.
    unsafe { ioctl(control, DmCall { command, buffer }) }
}

/// `struct sockaddr_ll`: a network card, and an Ethernet protocol.
#[derive(Debug, Clone, Copy)]
pub struct LinkLayer {
    /// The card's index.
    pub index: u32,
    /// The protocol, such as 0x0800.
    pub protocol: u16,
}

// SAFETY: `bytes` is a `struct sockaddr_ll` (linux/if_packet.h, 20 bytes: family, protocol, index, and twelve that binding
// does not look at), and lives until `f` returns. The kernel copies: it asks for no alignment.
unsafe impl SocketAddrArg for LinkLayer {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let [f0, f1] = (libc::AF_PACKET as u16).to_ne_bytes();
        let [p0, p1] = self.protocol.to_be_bytes();
        let [i0, i1, i2, i3] = self.index.to_ne_bytes();
        let mut bytes = [0; 20];
        for (to, from) in bytes.iter_mut().zip([f0, f1, p0, p1, i0, i1, i2, i3]) {
            *to = from;
        }
        f(bytes.as_ptr().cast(), bytes.len() as SocketAddrLen)
    }
}
