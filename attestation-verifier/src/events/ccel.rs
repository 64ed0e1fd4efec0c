//! The log that firmware leaves in the ACPI table CCEL: TCG PC Client Platform Firmware Profile §10.2, the
//! crypto-agile form, with measurement registers in place of PCRs (Intel TDX Virtual Firmware Design Guide §8,
//! UEFI CC measurement protocol): register 0 is MRTD, 1 to 4 are RTMR0 to RTMR3.

use super::{Digest384, Event, EventLogError, Replay};

/// EV_NO_ACTION: words between the events, extended into nothing.
const NO_ACTION: u32 = 3;
const TPM_ALG_SHA384: u16 = 0x000c;
/// Most algorithms of a log: TCG's registry has about a dozen hashes.
const MOST_ALGORITHMS: u32 = 16;
const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";

/// `content`: how long the log is without the padding behind it. Its last event may reach into what looks like
/// padding: an event that ends in zeros.
pub(super) fn replay(log: &[u8], content: usize) -> Result<Replay, EventLogError> {
    let mut reader = Reader { log, at: 0 };
    let algorithms = specification(&mut reader)?;
    let mut replay = Replay::new();
    while reader.at < content {
        let register = reader.u32()?;
        let kind = reader.u32()?;
        let digest = digests(&mut reader, &algorithms)?;
        // What it is about: nothing rests on it, because the digest need not be of these bytes.
        let size = reader.u32()?;
        reader.skip(size)?;
        if kind == NO_ACTION {
            continue;
        }
        let (1..=4, Ok(register)) = (register, u8::try_from(register)) else {
            return reader.wrong("an event in a register that cannot be extended");
        };
        replay.extend(Event {
            register: register - 1,
            kind,
            digest,
            content: None,
        })?;
    }
    Ok(replay)
}

/// An event's digests, one by each algorithm of the log, in any order. Returns the one by SHA-384: RTMRs know no other.
fn digests(reader: &mut Reader, algorithms: &[(u16, u16)]) -> Result<Digest384, EventLogError> {
    const WHAT: &str = "not one digest by each algorithm that the first event names";
    if usize::try_from(reader.u32()?) != Ok(algorithms.len()) {
        return reader.wrong(WHAT);
    }
    let mut left = algorithms.to_vec();
    let mut own = None;
    for _ in algorithms {
        let algorithm = reader.u16()?;
        let Some(place) = left.iter().position(|(id, _)| *id == algorithm) else {
            return reader.wrong(WHAT);
        };
        let (_, size) = left.swap_remove(place);
        if algorithm == TPM_ALG_SHA384 {
            own = Some(reader.array()?);
        } else {
            reader.skip(size.into())?;
        }
    }
    match own {
        Some(digest) => Ok(digest),
        None => reader.wrong(WHAT),
    }
}

/// The first event, still in the old form, says how the others are written (§10.4.5.1). Returns the algorithms of their
/// digests and how long each one's are.
fn specification(reader: &mut Reader) -> Result<Vec<(u16, u16)>, EventLogError> {
    let first = (reader.u32()?, reader.u32()?, reader.array::<20>()?);
    if first != (0, NO_ACTION, [0; 20]) {
        return reader.wrong("the first event is no EV_NO_ACTION");
    }
    let size = reader.u32()?;
    let start = reader.at;
    if reader.array::<16>()? != *SIGNATURE {
        return reader.wrong("the first event is no Spec ID Event03");
    }
    let _platform_class = reader.u32()?;
    let [_minor, major, _errata, _uintn] = reader.array::<4>()?;
    if major != 2 {
        return reader.wrong("not version 2 of the specification");
    }
    let count = reader.u32()?;
    let mut algorithms: Vec<(u16, u16)> = Vec::new();
    if count > MOST_ALGORITHMS {
        return reader.wrong("more algorithms than a log has");
    }
    for _ in 0..count {
        let (id, size) = (reader.u16()?, reader.u16()?);
        if algorithms.iter().any(|(before, _)| *before == id) {
            return reader.wrong("an algorithm twice");
        }
        algorithms.push((id, size));
    }
    if !algorithms.contains(&(TPM_ALG_SHA384, 48)) {
        return reader.wrong("not SHA-384 among the algorithms");
    }
    let [vendor] = reader.array::<1>()?;
    reader.skip(vendor.into())?;
    if reader.at.checked_sub(start) != usize::try_from(size).ok() {
        return reader.wrong("the first event has another size than it says");
    }
    Ok(algorithms)
}

struct Reader<'a> {
    log: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn wrong<T>(&self, what: &'static str) -> Result<T, EventLogError> {
        let offset = self.at;
        Err(EventLogError::Bytes { offset, what })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EventLogError> {
        match self.log.get(self.at..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => self.wrong("the log ends within an event"),
        }
    }

    fn u16(&mut self) -> Result<u16, EventLogError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, EventLogError> {
        self.array().map(u32::from_le_bytes)
    }

    fn skip(&mut self, bytes: u32) -> Result<(), EventLogError> {
        let end = usize::try_from(bytes)
            .ok()
            .and_then(|n| self.at.checked_add(n));
        match end {
            Some(end) if end <= self.log.len() => {
                self.at = end;
                Ok(())
            }
            _ => self.wrong("the log ends within an event"),
        }
    }
}
