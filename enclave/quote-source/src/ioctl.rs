//! The two calls of `/dev/sev-guest` (Linux `include/uapi/linux/sev-guest.h`), and all of this crate's `unsafe`.
//!
//! Requests and responses are byte arrays: their fields are read and written where they are used, in safe code.

use std::os::fd::AsFd;

use rustix::{
    io,
    ioctl::{Opcode, Updater, ioctl, opcode},
};

/// Bytes of `struct snp_report_req`: report data, VMPL, reserved.
pub(crate) const REPORT_REQUEST: usize = 96;
/// Bytes of `struct snp_ext_report_req`: the former, the certificates' address and length, padding.
pub(crate) const EXTENDED_REQUEST: usize = 112;
/// Bytes of `struct snp_report_resp`.
pub(crate) const RESPONSE: usize = 4_000;
/// Bytes for certificates: the most that the driver takes (`SEV_FW_BLOB_MAX_SIZE`).
pub(crate) const CERTIFICATES: usize = 0x4000;

/// `struct snp_guest_request_ioctl`.
#[repr(C)]
#[derive(Default)]
struct GuestRequest {
    /// A byte in C, followed by padding.
    message_version: u64,
    request: u64,
    response: u64,
    /// `exitinfo2`: the firmware's error in the lower half, the host's in the upper.
    errors: u64,
}

const GET_REPORT: Opcode = opcode::read_write::<GuestRequest>(b'S', 0);
const GET_EXTENDED_REPORT: Opcode = opcode::read_write::<GuestRequest>(b'S', 2);

/// What a call came to, and `exitinfo2` after it.
pub(crate) struct Outcome {
    pub(crate) result: io::Result<()>,
    pub(crate) firmware: u32,
    pub(crate) host: u32,
}

/// `SNP_GET_REPORT`.
pub(crate) fn report(
    device: impl AsFd,
    request: &[u8; REPORT_REQUEST],
    response: &mut [u8; RESPONSE],
) -> Outcome {
    // The driver only reads the request; a copy is what may be written to all the same.
    let mut request = *request;
    call::<GET_REPORT>(device, &mut request, response)
}

/// `SNP_GET_EXT_REPORT`.
pub(crate) fn extended_report(
    device: impl AsFd,
    request: &[u8; REPORT_REQUEST],
    response: &mut [u8; RESPONSE],
    certificates: &mut [u8; CERTIFICATES],
) -> Outcome {
    let mut extended = [0; EXTENDED_REQUEST];
    extended[..REPORT_REQUEST].copy_from_slice(request);
    let address = certificates.as_mut_ptr().expose_provenance() as u64;
    extended[96..104].copy_from_slice(&address.to_ne_bytes());
    extended[104..108].copy_from_slice(&(CERTIFICATES as u32).to_ne_bytes());
    call::<GET_EXTENDED_REPORT>(device, &mut extended, response)
}

fn call<const OPCODE: Opcode>(
    device: impl AsFd,
    request: &mut [u8],
    response: &mut [u8; RESPONSE],
) -> Outcome {
    let mut argument = GuestRequest {
        message_version: 1,
        request: request.as_mut_ptr().expose_provenance() as u64,
        response: response.as_mut_ptr().expose_provenance() as u64,
        errors: 0,
    };
    // SAFETY: `OPCODE` is one of the two constants above, whose argument is this structure. Through it the driver reads and
    // writes the request (of the length that goes with `OPCODE`), writes at most RESPONSE bytes of response and, to the
    // address in an extended request, at most CERTIFICATES bytes. All are borrowed exclusively by this function or its
    // caller until the call has returned, and any bytes are valid in them.
    #[allow(unsafe_code, reason = "the kernel has no other interface")]
    let result = unsafe { ioctl(device, Updater::<OPCODE, _>::new(&mut argument)) };
    Outcome {
        result,
        firmware: argument.errors as u32,
        host: (argument.errors >> 32) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As every other client of the device has them.
    #[test]
    fn the_calls_have_the_kernels_numbers() {
        assert_eq!(GET_REPORT, 0xc020_5300);
        assert_eq!(GET_EXTENDED_REPORT, 0xc020_5302);
    }
}
