//! The digest by which firmware measures a program: Authenticode's, with SHA-384. Sources: Microsoft, "Windows
//! Authenticode Portable Executable Signature Format", "Calculating the PE Image Hash"; EDK II,
//! `OvmfPkg/Tcg/TdTcg2Dxe/MeasureBootPeCoff.c`, which appends no zeros where a file's size is no multiple of 8.
//!
//! The digest is over the whole file but its checksum, the place of its signature, and the signature. Files in which that
//! would not be so (bytes between sections, sections that overlap) are refused.

use ring::digest::{Context, SHA384};

use crate::hash::Sha384;

/// The most sections of a program; Windows loads no more.
const MAX_SECTIONS: u16 = 96;

/// Offsets from the signature `PE\0\0`: COFF header, then optional header of PE32+.
const MACHINE: usize = 4;
const SECTION_COUNT: usize = 6;
const OPTIONAL_SIZE: usize = 20;
const OPTIONAL: usize = 24;
const HEADERS_SIZE: usize = OPTIONAL + 60;
const CHECKSUM: usize = OPTIONAL + 64;
const DIRECTORY_COUNT: usize = OPTIONAL + 108;
const CERTIFICATES: usize = OPTIONAL + 112 + 8 * 4;

/// Why a file is not a program whose digest is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// The file ends within its headers.
    #[error("kernel: it ends within its PE headers, at offset {offset:#x}")]
    Truncated {
        /// Where something was looked for.
        offset: usize,
    },
    /// A number in its headers is not the one that firmware for x86-64 expects.
    #[error("kernel: PE header, {field}: {found:#x}, expected {expected:#x}")]
    Field {
        /// Which.
        field: &'static str,
        /// What stands there.
        found: u32,
        /// What must.
        expected: u32,
    },
    /// More sections than a program has.
    #[error("kernel: {found} PE sections, more than {MAX_SECTIONS}")]
    SectionCount {
        /// How many.
        found: u16,
    },
    /// Headers, sections and signature do not make up the file.
    #[error("kernel: {what} at {offset:#x}, {size:#x} bytes: {wrong}")]
    Layout {
        /// Which part of it.
        what: &'static str,
        /// Where it begins.
        offset: usize,
        /// Its size in bytes.
        size: usize,
        /// What is wrong with that.
        wrong: &'static str,
    },
}

/// The Authenticode digest of a program for x86-64.
///
/// # Errors
/// [`PeError`]: it is none, or has bytes that the digest would not be over.
pub fn authenticode(file: &[u8]) -> Result<Sha384, PeError> {
    let header = number(file, 0x3c)?;
    let at = |field: usize| header.saturating_add(field);
    expect("DOS signature", u32::from(half(file, 0)?), 0x5a4d)?;
    expect("signature", number(file, header)? as u32, 0x4550)?;
    expect("machine", u32::from(half(file, at(MACHINE))?), 0x8664)?;
    expect("format", u32::from(half(file, at(OPTIONAL))?), 0x20b)?;
    let sections = half(file, at(SECTION_COUNT))?;
    if sections > MAX_SECTIONS {
        return Err(PeError::SectionCount { found: sections });
    }
    let headers = number(file, at(HEADERS_SIZE))?;
    let table = at(OPTIONAL).saturating_add(half(file, at(OPTIONAL_SIZE))?.into());
    let table_end = table.saturating_add(usize::from(sections) * 40);
    // The fifth directory says where the signature is; a file of fewer directories has none.
    let signed = number(file, at(DIRECTORY_COUNT))? > 4;
    let (certificates, signature) = match signed {
        true => (
            at(CERTIFICATES)..at(CERTIFICATES + 8),
            number(file, at(CERTIFICATES + 4))?,
        ),
        false => (at(CHECKSUM + 4)..at(CHECKSUM + 4), 0),
    };
    if headers < table_end.max(certificates.end) || headers > file.len() {
        return Err(layout(
            "headers",
            0,
            headers,
            "they do not hold what they should",
        ));
    }
    let signature_at = match signature {
        0 => file.len(),
        _ => number(file, certificates.start)?,
    };
    if signature_at.checked_add(signature) != Some(file.len()) {
        return Err(layout(
            "signature",
            signature_at,
            signature,
            "it does not end the file",
        ));
    }
    let end = sections_end(file, table, sections, headers)?;
    if signature_at < end {
        return Err(layout(
            "signature",
            signature_at,
            signature,
            "it begins within a section",
        ));
    }
    let mut context = Context::new(&SHA384);
    for part in [
        0..at(CHECKSUM),
        at(CHECKSUM + 4)..certificates.start,
        certificates.end..signature_at,
    ] {
        let offset = part.end;
        context.update(file.get(part).ok_or(PeError::Truncated { offset })?);
    }
    Ok(Sha384::finish(context))
}

/// Where the last section ends. They follow the headers and each other: then, and only then, is hashing them in the order
/// of their offsets the same as hashing the file.
fn sections_end(file: &[u8], table: usize, count: u16, headers: usize) -> Result<usize, PeError> {
    let mut places = Vec::with_capacity(count.into());
    for index in 0..usize::from(count) {
        let entry = table.saturating_add(40 * index);
        let size = number(file, entry.saturating_add(16))?;
        let offset = number(file, entry.saturating_add(20))?;
        if size > 0 {
            places.push((offset, size));
        }
    }
    places.sort_unstable();
    let mut end = headers;
    for (offset, size) in places {
        if offset != end {
            let wrong = "it does not begin where headers or another section end";
            return Err(layout("section", offset, size, wrong));
        }
        end = offset.saturating_add(size);
        if end > file.len() {
            return Err(layout("section", offset, size, "it ends behind the file"));
        }
    }
    Ok(end)
}

fn layout(what: &'static str, offset: usize, size: usize, wrong: &'static str) -> PeError {
    PeError::Layout {
        what,
        offset,
        size,
        wrong,
    }
}

fn expect(field: &'static str, found: u32, expected: u32) -> Result<(), PeError> {
    if found == expected {
        return Ok(());
    }
    Err(PeError::Field {
        field,
        found,
        expected,
    })
}

/// Four bytes, little-endian: an offset, a size or a signature.
fn number(file: &[u8], offset: usize) -> Result<usize, PeError> {
    let bytes = file.get(offset..).and_then(|rest| rest.first_chunk());
    // A usize has 32 bits at least.
    bytes.map_or(Err(PeError::Truncated { offset }), |bytes| {
        Ok(u32::from_le_bytes(*bytes) as usize)
    })
}

/// Two bytes, little-endian.
fn half(file: &[u8], offset: usize) -> Result<u16, PeError> {
    let bytes = file.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.map_or(Err(PeError::Truncated { offset }), |bytes| {
        Ok(u16::from_le_bytes(*bytes))
    })
}
