//! `/dev/sev-guest`: a folder with one file, `sev-guest`, that answers the driver's two calls for reports.
//!
//! FUSE hands over the call's own structure, and gives it back changed. What its addresses point to is read and written where the
//! driver would: in the memory of the process that calls, through `/proc/<pid>/mem`.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use fuser::{
    FileType, Filesystem, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, Request,
};
use libc::{EFAULT, EINVAL, EIO, ENOENT, ENOTTY};

use crate::{
    Faults, Firmware, Mounted,
    mounted::{Shared, attributes, lock},
};

const TTL: Duration = Duration::ZERO;
const ROOT: u64 = 1;
const DEVICE: u64 = 2;
/// The device's name in the folder.
const NAME: &str = "sev-guest";

const GET_REPORT: u32 = 0xc020_5300;
const GET_EXTENDED_REPORT: u32 = 0xc020_5302;
/// Bytes of the call's structure, and of what it points to.
const CALL: usize = 32;
const REPORT_REQUEST: usize = 96;
const EXTENDED_REQUEST: usize = 112;
const RESPONSE: usize = 4_000;
/// Most bytes of certificates that the driver passes on.
const CERTIFICATES_MAX: usize = 0x4000;
/// The firmware's "invalid parameter".
const INVALID_PARAMETER: u32 = 0x16;
/// In the upper half of `exitinfo2`: the host wants more room for certificates.
const HOST_INVALID_LENGTH: u64 = 1 << 32;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with this `errno`, and this `exitinfo2` (the host's error in its upper half).
    Errno(i32, u64),
    /// The firmware answers with this status in place of a report.
    Status(u32),
    /// The response says that the report is so long.
    Length(u32),
    /// A report for other report data.
    Lie,
    /// No answer until the fault is cleared.
    Hang,
}

/// How it behaves, and what it has seen.
pub struct SevGuest {
    /// What makes the reports.
    pub firmware: Box<dyn Firmware>,
    /// The most privileged level that the guest may ask for.
    pub vmpl_floor: u8,
    /// Whether the driver hands out the report that it got when certificates did not fit (kernels differ).
    pub report_despite_certificates: bool,
    /// In place of the firmware's certificate table.
    pub certificates: Option<Vec<u8>>,
    /// What goes wrong.
    pub faults: Faults<Fault>,
    /// How many reports were made.
    pub reports: u64,
    open: usize,
    hanging: Vec<ReplyIoctl>,
}

impl SevGuest {
    /// In front of this firmware.
    pub fn new(firmware: impl Firmware) -> Self {
        Self {
            firmware: Box::new(firmware),
            vmpl_floor: 0,
            report_despite_certificates: false,
            certificates: None,
            faults: Faults::default(),
            reports: 0,
            open: 0,
            hanging: Vec::new(),
        }
    }

    /// Mounts it on a folder.
    ///
    /// # Errors
    /// What the system says.
    pub fn mount(self, place: &Path) -> io::Result<Mounted<Self>> {
        let state = Arc::new(Mutex::new(self));
        Mounted::mount(place, "sev-guest", state.clone(), Files(state))
    }

    /// No fault from now on; what hangs is answered with EIO.
    pub fn clear_fault(&mut self) {
        self.faults.clear();
        self.release();
    }

    /// How many calls hang.
    pub fn hanging(&self) -> usize {
        self.hanging.len()
    }

    /// Serves one call; gives its result and its structure, as the driver leaves it.
    fn call(&mut self, pid: u32, number: u32, structure: &[u8]) -> (i32, [u8; CALL]) {
        let mut back = [0; CALL];
        if structure.len() != CALL {
            return (-EINVAL, back);
        }
        back.copy_from_slice(structure);
        if back[0] == 0 {
            return (-EINVAL, back);
        }
        let extended = match number {
            GET_REPORT => false,
            GET_EXTENDED_REPORT => true,
            _ => return (-ENOTTY, back),
        };
        match self.report(pid, extended, u64_at(&back, 8), u64_at(&back, 16)) {
            Ok(()) => {
                back[24..].fill(0);
                (0, back)
            }
            Err((errno, errors)) => {
                back[24..].copy_from_slice(&errors.to_le_bytes());
                (-errno, back)
            }
        }
    }

    /// Makes a report in the caller's memory. An error is an `errno`, which may be 0, and `exitinfo2`.
    fn report(
        &mut self,
        pid: u32,
        extended: bool,
        request_at: u64,
        response_at: u64,
    ) -> Result<(), (i32, u64)> {
        let fault = self.faults.take();
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .map_err(|_| (EFAULT, 0xff))?;
        let read =
            |bytes: &mut [u8], at| memory.read_exact_at(bytes, at).map_err(|_| (EFAULT, 0xff));
        let write = |bytes: &[u8], at| memory.write_all_at(bytes, at).map_err(|_| (EFAULT, 0xff));
        let mut request = [0; EXTENDED_REQUEST];
        let length = if extended {
            EXTENDED_REQUEST
        } else {
            REPORT_REQUEST
        };
        read(&mut request[..length], request_at)?;
        let mut report_data = [0; 64];
        report_data.copy_from_slice(&request[..64]);
        let room = u32_at(&request, 104) as usize;
        if room > CERTIFICATES_MAX || !room.is_multiple_of(4096) {
            return Err((EINVAL, 0xff));
        }
        match fault {
            Some(Fault::Errno(errno, errors)) => return Err((errno, errors)),
            Some(Fault::Lie) => report_data = report_data.map(|byte| !byte),
            _ => {}
        }

        let vmpl = u32_at(&request, 64);
        let made = match u8::try_from(vmpl).ok().filter(|&vmpl| vmpl <= 3) {
            Some(vmpl) if vmpl >= self.vmpl_floor => self
                .firmware
                .report(report_data, vmpl)
                .map(Some)
                .map_err(|errno| (errno, 0xff))?,
            _ => None,
        };
        let table = self.certificates.clone();
        let table = table.or(made.as_ref().map(|made| made.certificates.clone()));
        let table = table.unwrap_or_default();
        let mut response = vec![0; RESPONSE];
        let (status, length) = match (&made, fault) {
            (_, Some(Fault::Status(status))) => (status, 0),
            (None, _) => (INVALID_PARAMETER, 0),
            (Some(made), fault) => {
                response[32..32 + made.quote.len()].copy_from_slice(&made.quote);
                self.reports += 1;
                match fault {
                    Some(Fault::Length(length)) => (0, length),
                    _ => (0, made.quote.len() as u32),
                }
            }
        };
        response[..4].copy_from_slice(&status.to_le_bytes());
        response[4..8].copy_from_slice(&length.to_le_bytes());
        if extended && table.len() > room {
            let pages = table.len().div_ceil(4096) * 4096;
            request[104..108].copy_from_slice(&(pages as u32).to_le_bytes());
            write(&request, request_at)?;
            if self.report_despite_certificates {
                write(&response, response_at)?;
                return Err((0, HOST_INVALID_LENGTH));
            }
            return Err((EIO, HOST_INVALID_LENGTH));
        }
        if extended && room > 0 {
            let mut all = table;
            all.resize(room, 0);
            write(&all, u64_at(&request, 96))?;
        }
        write(&response, response_at)
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

impl Mounted<SevGuest> {
    /// The device's file.
    pub fn device(&self) -> PathBuf {
        self.path().join(NAME)
    }
}

impl Shared for SevGuest {
    fn release(&mut self) {
        for reply in self.hanging.drain(..) {
            reply.error(EIO);
        }
    }

    fn open_files(&self) -> usize {
        self.open
    }
}

struct Files(Arc<Mutex<SevGuest>>);

fn kind(ino: u64) -> Option<FileType> {
    match ino {
        ROOT => Some(FileType::Directory),
        DEVICE => Some(FileType::RegularFile),
        _ => None,
    }
}

impl Filesystem for Files {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        if parent == ROOT && name == NAME {
            reply.entry(&TTL, &attributes(DEVICE, FileType::RegularFile, 0o600), 0);
        } else {
            reply.error(ENOENT);
        }
    }

    fn getattr(&mut self, _: &Request<'_>, ino: u64, _: Option<u64>, reply: ReplyAttr) {
        match kind(ino) {
            Some(kind) => reply.attr(&TTL, &attributes(ino, kind, 0o700)),
            None => reply.error(ENOENT),
        }
    }

    fn open(&mut self, _: &Request<'_>, _ino: u64, _flags: i32, reply: ReplyOpen) {
        lock(&self.0).open += 1;
        reply.opened(0, 0);
    }

    fn release(
        &mut self,
        _: &Request<'_>,
        _ino: u64,
        _fh: u64,
        _flags: i32,
        _lock_owner: Option<u64>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.0).open -= 1;
        reply.ok();
    }

    fn ioctl(
        &mut self,
        request: &Request<'_>,
        ino: u64,
        _fh: u64,
        _flags: u32,
        number: u32,
        structure: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        if ino != DEVICE {
            return reply.error(ENOTTY);
        }
        let mut device = lock(&self.0);
        if device.faults.fault() == Some(Fault::Hang) {
            device.faults.take();
            device.hanging.push(reply);
            return;
        }
        let (result, structure) = device.call(request.pid(), number, structure);
        reply.ioctl(result, &structure);
    }
}
