//! The metadata of TDX virtual firmware: which memory the VMM adds to a trust domain before it runs, with which bytes, and
//! what of that is measured into MRTD. Sources: Intel TDX Virtual Firmware Design Guide §11; QEMU, `hw/i386/tdvf.c` and
//! `target/i386/kvm/tdx.c`; EDK II, `OvmfPkg/ResetVector/X64/IntelTdxMetadata.nasm.inc`.
//!
//! Refused is all that QEMU refuses, and all of which the measurement would not follow from the firmware's bytes.

use std::ops::Range;

use crate::ovmf::{Ovmf, OvmfError, PAGE};

/// The most sections that metadata may have; OVMF has six.
pub const MAX_SECTIONS: usize = 64;

/// The most memory that all sections together may cover, in bytes: it bounds the work of measuring. OVMF's cover 5 MiB.
pub const MAX_MEMORY: u64 = 64 << 20;

/// Size of the header, and of each section's entry, in bytes.
const HEADER: usize = 16;
const ENTRY: usize = 32;

/// Attribute of a section: its bytes are measured into MRTD.
const MR_EXTEND: u32 = 1;

/// Why firmware cannot be measured for TDX.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TdvfError {
    /// Its table of GUIDs cannot be read.
    #[error(transparent)]
    Ovmf(#[from] OvmfError),
    /// It is not firmware for TDX.
    #[error("firmware: no TDX metadata in its GUID table: it was not built for TDX")]
    NoMetadata,
    /// The metadata ends behind the image's end.
    #[error("firmware: TDX metadata at offset {offset:#x} ends outside the image")]
    Outside {
        /// Where it begins.
        offset: usize,
    },
    /// Not the one form of metadata that is known.
    #[error("firmware: TDX metadata: {field} is {found:#x}, expected {expected:#x}")]
    Header {
        /// Field of the header.
        field: &'static str,
        /// What stands there.
        found: u32,
        /// What must.
        expected: u32,
    },
    /// No sections, or more than firmware has.
    #[error("firmware: TDX metadata: {found} sections; expected 1 to {MAX_SECTIONS}")]
    SectionCount {
        /// How many.
        found: u32,
    },
    /// What a VMM does with such a section is not known here (nor to QEMU).
    #[error("firmware: TDX metadata, section {index}: unknown type {found:#x}")]
    SectionType {
        /// Which section, from 0.
        index: usize,
        /// Its type.
        found: u32,
    },
    /// Attributes of which only the first bit is known to QEMU.
    #[error("firmware: TDX metadata, section {index}: unknown attributes {found:#x}")]
    Attributes {
        /// Which section, from 0.
        index: usize,
        /// Its attributes.
        found: u32,
    },
    /// A section that cannot be loaded, or whose measurement would not follow from the firmware's bytes.
    #[error(
        "firmware: TDX metadata, section {index} ({kind}, {gpa:#x}, {size:#x} bytes): {wrong}",
        kind = kind.name()
    )]
    Section {
        /// Which section, from 0.
        index: usize,
        /// What it is for.
        kind: SectionKind,
        /// Its guest physical address.
        gpa: u64,
        /// Its size in memory, in bytes.
        size: u64,
        /// What is wrong.
        wrong: &'static str,
    },
    /// A section that QEMU needs, or that makes the measurement mean something, is not there.
    #[error("firmware: TDX metadata: no section {}", kind.name())]
    Missing {
        /// Which kind of section.
        kind: SectionKind,
    },
}

/// What a section is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// 0, boot firmware volume: the firmware's code.
    Bfv,
    /// 1, configuration firmware volume: the store of EFI variables.
    Cfv,
    /// 2: the list of memory that the VMM writes (the hand-off block).
    TdHob,
    /// 3: memory that is zero when the domain begins to run.
    TempMem,
}

impl SectionKind {
    fn of(number: u32) -> Option<SectionKind> {
        Some(match number {
            0 => SectionKind::Bfv,
            1 => SectionKind::Cfv,
            2 => SectionKind::TdHob,
            3 => SectionKind::TempMem,
            _ => return None,
        })
    }

    /// Its name in the design guide.
    pub fn name(self) -> &'static str {
        match self {
            SectionKind::Bfv => "BFV",
            SectionKind::Cfv => "CFV",
            SectionKind::TdHob => "TD_HOB",
            SectionKind::TempMem => "TempMem",
        }
    }

    /// Whether its bytes are the firmware's.
    fn has_bytes(self) -> bool {
        matches!(self, SectionKind::Bfv | SectionKind::Cfv)
    }
}

/// Memory that the VMM adds to the domain before it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// What it is for.
    pub kind: SectionKind,
    /// Guest physical address, a multiple of 4096.
    pub gpa: u64,
    /// Size in bytes, a multiple of 4096, never 0.
    pub size: u64,
    /// Offset of its bytes in the image; 0 where there are none.
    pub offset: usize,
    /// Its bytes, which are at most `size`, and exactly as many where they are measured.
    pub data: &'a [u8],
    /// Whether they are measured into MRTD.
    pub measured: bool,
}

impl Section<'_> {
    /// The addresses it covers.
    pub fn memory(&self) -> Range<u64> {
        self.gpa..self.gpa.saturating_add(self.size)
    }

    /// How many pages of 4 KiB it has.
    pub fn pages(&self) -> u64 {
        self.size / PAGE as u64
    }
}

/// The sections of firmware, in the order of its metadata, in which the VMM adds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tdvf<'a> {
    sections: Vec<Section<'a>>,
}

impl<'a> Tdvf<'a> {
    /// Reads the metadata.
    ///
    /// # Errors
    /// [`TdvfError`]: it is no firmware for TDX, or firmware of which MRTD cannot be said.
    pub fn parse(ovmf: &Ovmf<'a>) -> Result<Tdvf<'a>, TdvfError> {
        let offset = ovmf.tdx_metadata_offset()?.ok_or(TdvfError::NoMetadata)?;
        let image = ovmf.image();
        let outside = TdvfError::Outside { offset };
        let metadata = image.get(offset..).unwrap_or_default();
        let Some((header, entries)) = metadata.split_first_chunk::<HEADER>() else {
            return Err(outside);
        };
        let [signature, length, version, count] = numbers(*header);
        expect("signature", signature, u32::from_le_bytes(*b"TDVF"))?;
        expect("version", version, 1)?;
        if count == 0 || count > MAX_SECTIONS as u32 {
            return Err(TdvfError::SectionCount { found: count });
        }
        expect("length", length, HEADER as u32 + ENTRY as u32 * count)?;
        let entries = entries.get(..ENTRY * count as usize).ok_or(outside)?;
        let mut sections: Vec<Section<'a>> = Vec::with_capacity(count as usize);
        let mut memory = 0u64;
        for (index, entry) in entries.as_chunks::<ENTRY>().0.iter().enumerate() {
            let section = section(image, index, entry)?;
            memory = memory.saturating_add(section.size);
            let wrong = if sections.iter().any(|other| overlap(other, &section)) {
                "it overlaps another"
            } else if section.kind == SectionKind::TdHob
                && sections.iter().any(|other| other.kind == section.kind)
            {
                "there is one of its kind already"
            } else if memory > MAX_MEMORY {
                "there is more memory in sections than firmware can need"
            } else {
                sections.push(section);
                continue;
            };
            return Err(refused(index, &section, wrong));
        }
        for kind in [SectionKind::Bfv, SectionKind::TdHob] {
            if !sections.iter().any(|section| section.kind == kind) {
                return Err(TdvfError::Missing { kind });
            }
        }
        Ok(Tdvf { sections })
    }

    /// The sections, in their order.
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// The stores of EFI variables, which firmware measures into RTMR0 when it begins to run.
    pub fn variables(&self) -> impl Iterator<Item = &'a [u8]> {
        self.sections
            .iter()
            .filter(|section| section.kind == SectionKind::Cfv)
            .map(|section| section.data)
    }
}

/// One entry of the metadata, and what holds of a section by itself.
fn section<'a>(
    image: &'a [u8],
    index: usize,
    entry: &[u8; ENTRY],
) -> Result<Section<'a>, TdvfError> {
    let [
        offset,
        raw,
        gpa,
        gpa_high,
        size,
        size_high,
        kind,
        attributes,
    ] = numbers(*entry);
    let wide = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    let kind = SectionKind::of(kind).ok_or(TdvfError::SectionType { index, found: kind })?;
    if attributes & !MR_EXTEND != 0 {
        return Err(TdvfError::Attributes {
            index,
            found: attributes,
        });
    }
    let mut section = Section {
        kind,
        gpa: wide(gpa, gpa_high),
        size: wide(size, size_high),
        offset: offset as usize,
        data: &[],
        measured: attributes & MR_EXTEND != 0,
    };
    let page = PAGE as u64;
    let data = section
        .offset
        .checked_add(raw as usize)
        .and_then(|end| image.get(section.offset..end));
    let wrong = if section.size == 0 {
        "it is empty"
    } else if !section.gpa.is_multiple_of(page) || !section.size.is_multiple_of(page) {
        "it does not consist of pages"
    } else if section.gpa.checked_add(section.size).is_none() {
        "it reaches behind the last address"
    } else if u64::from(raw) > section.size {
        "its bytes are more than its memory"
    } else if kind.has_bytes() && raw == 0 {
        "its kind has bytes in the image"
    } else if !kind.has_bytes() && raw != 0 {
        "its kind has no bytes in the image"
    } else if data.is_none() {
        "its bytes end outside the image (the code alone, without its variables, is not the whole firmware)"
    } else if section.measured && u64::from(raw) != section.size {
        "it is measured, and not all of its memory is bytes of the image"
    } else if kind == SectionKind::Bfv && !section.measured {
        "it is code, and not measured"
    } else {
        section.data = data.unwrap_or_default();
        return Ok(section);
    };
    Err(refused(index, &section, wrong))
}

fn overlap(a: &Section<'_>, b: &Section<'_>) -> bool {
    let (a, b) = (a.memory(), b.memory());
    a.start < b.end && b.start < a.end
}

fn refused(index: usize, section: &Section<'_>, wrong: &'static str) -> TdvfError {
    TdvfError::Section {
        index,
        kind: section.kind,
        gpa: section.gpa,
        size: section.size,
        wrong,
    }
}

fn expect(field: &'static str, found: u32, expected: u32) -> Result<(), TdvfError> {
    if found == expected {
        return Ok(());
    }
    Err(TdvfError::Header {
        field,
        found,
        expected,
    })
}

/// `M` little-endian numbers out of `N` = 4 · `M` bytes.
fn numbers<const N: usize, const M: usize>(bytes: [u8; N]) -> [u32; M] {
    const { assert!(N == 4 * M) };
    let mut numbers = [0; M];
    for (number, chunk) in numbers.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *number = u32::from_le_bytes(*chunk);
    }
    numbers
}
