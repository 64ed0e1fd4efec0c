//! configfs-tsm: `report/<entry>/{inblob, outblob, auxblob, generation, privlevel, privlevel_floor, provider}`.
//!
//! Details that a client can stumble over are those of the kernel: `inblob` counts when its file is closed, and takes 64 bytes;
//! every write counts in `generation`; a report is made when one is first read after a write, and kept until the next; a binary
//! attribute is read as a whole when its file is first read.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use fuser::{
    FileType, Filesystem, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, consts::FOPEN_DIRECT_IO,
};
use libc::{
    EACCES, EBADF, EBUSY, EEXIST, EFBIG, EINVAL, EIO, EISDIR, ENOENT, ENOTDIR, ENOTTY, ENXIO, EPERM,
};
use touchstone_formats::evidence::Tee;

use crate::{
    Faults, Firmware, Mounted,
    mounted::{Shared, attributes, lock},
};

/// Most bytes of `inblob`.
const INBLOB_MAX: usize = 64;
/// The highest privilege level.
const PRIVLEVEL_MAX: u8 = 3;
/// Nothing is cached by the kernel.
const TTL: Duration = Duration::ZERO;
/// The root's inode. That of an entry is a multiple of [`STEP`], and those of its files follow it.
const ROOT: u64 = 1;
const STEP: u64 = 16;

/// What goes wrong when a report is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This `errno`.
    Errno(i32),
    /// Another process writes its report data before the report is made.
    Race,
    /// Another process writes its report data after the report was made, before anything else is read.
    LateRace,
    /// Another process writes its report data, and for those there is this `errno`.
    RaceErrno(i32),
    /// A report for other report data, without any write.
    Lie,
    /// The last 100 bytes are missing.
    Truncate,
    /// A report without an end.
    Endless,
    /// A report of no bytes.
    Empty,
    /// No answer until the fault is cleared.
    Hang,
}

/// How it behaves, and what it has seen.
pub struct Tsm {
    /// The provider's name; `None`: there is none.
    pub provider: Option<String>,
    /// The lowest privilege level; `None`: the provider has no such levels.
    pub privilege_floor: Option<u8>,
    /// What goes wrong.
    pub faults: Faults<Fault>,
    /// How many reports were made.
    pub reports: u64,
    /// What makes them.
    pub firmware: Box<dyn Firmware>,
    entries: BTreeMap<String, Entry>,
    made: u64,
    files: BTreeMap<u64, Open>,
    opened: u64,
    hanging: Vec<ReplyData>,
}

#[derive(Default)]
struct Entry {
    ino: u64,
    inblob: Vec<u8>,
    privlevel: u8,
    written: u64,
    read: u64,
    outblob: Option<Vec<u8>>,
    auxblob: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attribute {
    Inblob,
    Outblob,
    Auxblob,
    Generation,
    Privlevel,
    PrivlevelFloor,
    Provider,
}

use Attribute::{Auxblob, Generation, Inblob, Outblob, Privlevel, PrivlevelFloor, Provider};

const ATTRIBUTES: [(Attribute, &str); 7] = [
    (Inblob, "inblob"),
    (Outblob, "outblob"),
    (Auxblob, "auxblob"),
    (Generation, "generation"),
    (Privlevel, "privlevel"),
    (PrivlevelFloor, "privlevel_floor"),
    (Provider, "provider"),
];

impl Attribute {
    fn is_written(self) -> bool {
        matches!(self, Inblob | Privlevel)
    }
}

/// An open file: what was written and not yet closed, or what its first read gave.
#[derive(Default)]
struct Open {
    ino: u64,
    written: Vec<u8>,
    read: Option<Vec<u8>>,
    endless: bool,
}

impl Tsm {
    /// Behind this firmware, with the provider that the kernel has for it.
    pub fn new(tee: Tee, firmware: impl Firmware) -> Self {
        let (provider, privilege_floor) = match tee {
            Tee::SevSnp => ("sev_guest", Some(0)),
            Tee::Tdx => ("tdx_guest", None),
        };
        Self {
            provider: Some(provider.into()),
            privilege_floor,
            faults: Faults::default(),
            reports: 0,
            firmware: Box::new(firmware),
            entries: BTreeMap::new(),
            made: 0,
            files: BTreeMap::new(),
            opened: 0,
            hanging: Vec::new(),
        }
    }

    /// Mounts it: `place` is what `/sys/kernel/config/tsm/report` is.
    ///
    /// # Errors
    /// What the system says.
    pub fn mount(self, place: &Path) -> io::Result<Mounted<Self>> {
        let state = Arc::new(Mutex::new(self));
        Mounted::mount(place, "configfs-tsm", state.clone(), Files(state))
    }

    /// Makes an entry, as a process outside would.
    ///
    /// # Panics
    /// Without a provider.
    pub fn make_entry(&mut self, name: &str) {
        self.mkdir(name).expect("a provider, and no such entry");
    }

    /// The names of the entries.
    pub fn entries(&self) -> Vec<&str> {
        self.entries.keys().map(String::as_str).collect()
    }

    /// No fault from now on; what hangs is answered with EIO.
    pub fn clear_fault(&mut self) {
        self.faults.clear();
        self.release();
    }

    /// How many reads hang.
    pub fn hanging(&self) -> usize {
        self.hanging.len()
    }

    fn mkdir(&mut self, name: &str) -> Result<u64, i32> {
        if self.provider.is_none() {
            return Err(ENXIO);
        }
        if self.entries.contains_key(name) {
            return Err(EEXIST);
        }
        self.made += 1;
        let ino = self.made * STEP;
        let entry = Entry {
            ino,
            ..Entry::default()
        };
        self.entries.insert(name.into(), entry);
        Ok(ino)
    }

    fn is_visible(&self, attribute: Attribute) -> bool {
        match attribute {
            Privlevel | PrivlevelFloor => self.privilege_floor.is_some(),
            Auxblob => self.provider.as_deref() == Some("sev_guest"),
            _ => true,
        }
    }

    /// The entry and attribute of a file's inode.
    fn attribute(&self, ino: u64) -> Option<(String, Attribute)> {
        let (name, _) = self
            .entries
            .iter()
            .find(|(_, entry)| entry.ino == ino / STEP * STEP)?;
        let index = usize::try_from(ino % STEP).ok()?.checked_sub(1)?;
        let (attribute, _) = ATTRIBUTES.get(index)?;
        self.is_visible(*attribute)
            .then(|| (name.clone(), *attribute))
    }

    fn kind(&self, ino: u64) -> Option<FileType> {
        if ino == ROOT || self.entries.values().any(|entry| entry.ino == ino) {
            return Some(FileType::Directory);
        }
        self.attribute(ino).map(|_| FileType::RegularFile)
    }

    fn lookup(&self, parent: u64, name: &str) -> Option<u64> {
        if parent == ROOT {
            return self.entries.get(name).map(|entry| entry.ino);
        }
        self.entries.values().find(|entry| entry.ino == parent)?;
        let index = ATTRIBUTES
            .iter()
            .position(|(attribute, known)| *known == name && self.is_visible(*attribute))?;
        Some(parent + 1 + index as u64)
    }

    /// What a file gives that is read now.
    fn read(&mut self, name: &str, attribute: Attribute) -> Result<Vec<u8>, i32> {
        let provider = self.provider.clone();
        let floor = self.privilege_floor;
        let entry = self.entries.get_mut(name).ok_or(ENOENT)?;
        let line = |text: String| Ok(format!("{text}\n").into_bytes());
        match attribute {
            Inblob | Privlevel => Err(EACCES),
            Generation => line(entry.written.to_string()),
            Provider => line(provider.ok_or(ENXIO)?),
            PrivlevelFloor => line(floor.unwrap_or(0).to_string()),
            Outblob | Auxblob if entry.inblob.is_empty() => Err(EINVAL),
            Outblob | Auxblob => {
                if entry.outblob.is_none() || entry.read != entry.written {
                    self.make(name)?;
                }
                let entry = &self.entries[name];
                Ok(match attribute {
                    Outblob => entry.outblob.clone().unwrap_or_default(),
                    _ => entry.auxblob.clone(),
                })
            }
        }
    }

    fn make(&mut self, name: &str) -> Result<(), i32> {
        if self.provider.is_none() {
            return Err(ENOTTY);
        }
        let fault = self.faults.take();
        let entry = self.entries.get_mut(name).ok_or(ENOENT)?;
        match fault {
            Some(Fault::Errno(errno)) => return Err(errno),
            Some(Fault::Race | Fault::RaceErrno(_)) => {
                entry.inblob = vec![0xEE; INBLOB_MAX];
                entry.written += 1;
            }
            _ => {}
        }
        if let Some(Fault::RaceErrno(errno)) = fault {
            return Err(errno);
        }
        let mut report_data: [u8; 64] = entry.inblob.clone().try_into().map_err(|_| EINVAL)?;
        if fault == Some(Fault::Lie) {
            report_data = report_data.map(|byte| !byte);
        }
        let mut made = self.firmware.report(report_data, entry.privlevel)?;
        match fault {
            Some(Fault::Truncate) => made.quote.truncate(made.quote.len().saturating_sub(100)),
            Some(Fault::Empty) => made.quote.clear(),
            _ => {}
        }
        entry.outblob = Some(made.quote);
        entry.auxblob = made.certificates;
        entry.read = entry.written;
        if fault == Some(Fault::LateRace) {
            entry.inblob = vec![0xEE; INBLOB_MAX];
            entry.written += 1;
        }
        self.reports += 1;
        Ok(())
    }

    /// What closing a file does.
    fn commit(&mut self, fh: u64) -> Result<(), i32> {
        let file = self.files.get_mut(&fh).ok_or(EBADF)?;
        let (ino, written) = (file.ino, std::mem::take(&mut file.written));
        if written.is_empty() {
            return Ok(());
        }
        let (name, attribute) = self.attribute(ino).ok_or(ENOENT)?;
        let entry = self.entries.get_mut(&name).ok_or(ENOENT)?;
        if attribute == Inblob {
            entry.inblob = written;
            entry.written += 1;
        }
        Ok(())
    }

    fn write(&mut self, fh: u64, data: &[u8]) -> Result<(), i32> {
        let ino = self.files.get(&fh).ok_or(EBADF)?.ino;
        let (name, attribute) = self.attribute(ino).ok_or(ENOENT)?;
        let floor = self.privilege_floor.unwrap_or(0);
        match attribute {
            Inblob => {
                let file = self.files.get_mut(&fh).ok_or(EBADF)?;
                if file.written.len() + data.len() > INBLOB_MAX {
                    return Err(EFBIG);
                }
                file.written.extend(data);
                Ok(())
            }
            Privlevel => {
                let level = std::str::from_utf8(data).ok();
                let level: Option<u8> = level.and_then(|text| text.trim_end().parse().ok());
                let level = level
                    .filter(|level| (floor..=PRIVLEVEL_MAX).contains(level))
                    .ok_or(EINVAL)?;
                let entry = self.entries.get_mut(&name).ok_or(ENOENT)?;
                entry.privlevel = level;
                entry.written += 1;
                Ok(())
            }
            _ => Err(EACCES),
        }
    }
}

impl Shared for Tsm {
    fn release(&mut self) {
        for reply in self.hanging.drain(..) {
            reply.error(EIO);
        }
    }

    fn open_files(&self) -> usize {
        self.files.len()
    }
}

struct Files(Arc<Mutex<Tsm>>);

impl Filesystem for Files {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        let tsm = lock(&self.0);
        let found = name.to_str().and_then(|name| tsm.lookup(parent, name));
        match found.and_then(|ino| Some((ino, tsm.kind(ino)?))) {
            Some((ino, kind)) => reply.entry(&TTL, &attributes(ino, kind, 0o755), 0),
            None => reply.error(ENOENT),
        }
    }

    fn getattr(&mut self, _: &Request<'_>, ino: u64, _: Option<u64>, reply: ReplyAttr) {
        match lock(&self.0).kind(ino) {
            Some(kind) => reply.attr(&TTL, &attributes(ino, kind, 0o755)),
            None => reply.error(ENOENT),
        }
    }

    fn setattr(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<fuser::TimeOrNow>,
        _mtime: Option<fuser::TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _fh: Option<u64>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<u32>,
        reply: ReplyAttr,
    ) {
        // A shell's `>` truncates, which means nothing here.
        match lock(&self.0).kind(ino) {
            Some(kind) => reply.attr(&TTL, &attributes(ino, kind, 0o755)),
            None => reply.error(ENOENT),
        }
    }

    fn mkdir(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = match name.to_str() {
            Some(name) if parent == ROOT => lock(&self.0).mkdir(name),
            _ => Err(EPERM),
        };
        match made {
            Ok(ino) => reply.entry(&TTL, &attributes(ino, FileType::Directory, 0o755), 0),
            Err(errno) => reply.error(errno),
        }
    }

    fn rmdir(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        let mut tsm = lock(&self.0);
        let open = |tsm: &Tsm, ino| tsm.files.values().any(|file| file.ino / STEP * STEP == ino);
        match name.to_str().and_then(|name| tsm.lookup(parent, name)) {
            Some(_) if parent != ROOT => reply.error(ENOTDIR),
            Some(ino) if open(&tsm, ino) => reply.error(EBUSY),
            Some(ino) => {
                tsm.entries.retain(|_, entry| entry.ino != ino);
                reply.ok();
            }
            None => reply.error(ENOENT),
        }
    }

    fn open(&mut self, _: &Request<'_>, ino: u64, flags: i32, reply: ReplyOpen) {
        let mut tsm = lock(&self.0);
        let Some((_, attribute)) = tsm.attribute(ino) else {
            return reply.error(if tsm.kind(ino).is_some() {
                EISDIR
            } else {
                ENOENT
            });
        };
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        if writes != attribute.is_written() {
            return reply.error(EACCES);
        }
        tsm.opened += 1;
        let fh = tsm.opened;
        let file = Open {
            ino,
            ..Open::default()
        };
        tsm.files.insert(fh, file);
        reply.opened(fh, FOPEN_DIRECT_IO);
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        fh: u64,
        offset: i64,
        size: u32,
        _flags: i32,
        _lock_owner: Option<u64>,
        reply: ReplyData,
    ) {
        let mut tsm = lock(&self.0);
        let Some((name, attribute)) = tsm.attribute(ino) else {
            return reply.error(ENOENT);
        };
        let Some(file) = tsm.files.get(&fh) else {
            return reply.error(EBADF);
        };
        if file.endless {
            return reply.data(&vec![0; size as usize]);
        }
        if file.read.is_none() {
            if attribute == Outblob {
                match tsm.faults.fault() {
                    Some(Fault::Hang) => {
                        tsm.faults.take();
                        return tsm.hanging.push(reply);
                    }
                    Some(Fault::Endless) => {
                        tsm.faults.take();
                        if let Some(file) = tsm.files.get_mut(&fh) {
                            file.endless = true;
                        }
                        return reply.data(&vec![0; size as usize]);
                    }
                    _ => {}
                }
            }
            match tsm.read(&name, attribute) {
                Ok(bytes) => {
                    if let Some(file) = tsm.files.get_mut(&fh) {
                        file.read = Some(bytes);
                    }
                }
                Err(errno) => return reply.error(errno),
            }
        }
        let bytes = tsm.files[&fh].read.as_deref().unwrap_or_default();
        let from = usize::try_from(offset).unwrap_or(0).min(bytes.len());
        let to = from.saturating_add(size as usize).min(bytes.len());
        reply.data(&bytes[from..to]);
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        _ino: u64,
        fh: u64,
        _offset: i64,
        data: &[u8],
        _write_flags: u32,
        _flags: i32,
        _lock_owner: Option<u64>,
        reply: ReplyWrite,
    ) {
        match lock(&self.0).write(fh, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&mut self, _: &Request<'_>, _ino: u64, fh: u64, _: u64, reply: ReplyEmpty) {
        match lock(&self.0).commit(fh) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn release(
        &mut self,
        _: &Request<'_>,
        _ino: u64,
        fh: u64,
        _flags: i32,
        _lock_owner: Option<u64>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.0).files.remove(&fh);
        reply.ok();
    }

    fn readdir(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _fh: u64,
        offset: i64,
        mut reply: ReplyDirectory,
    ) {
        let tsm = lock(&self.0);
        let names: Vec<&str> = match ino {
            ROOT => tsm.entries(),
            _ => ATTRIBUTES
                .iter()
                .filter(|(attribute, _)| tsm.is_visible(*attribute))
                .map(|(_, name)| *name)
                .collect(),
        };
        let from = usize::try_from(offset).unwrap_or(0);
        for (at, name) in names.into_iter().enumerate().skip(from) {
            let Some(found) = tsm.lookup(ino, name) else {
                continue;
            };
            let kind = tsm.kind(found).unwrap_or(FileType::RegularFile);
            if reply.add(found, at as i64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
