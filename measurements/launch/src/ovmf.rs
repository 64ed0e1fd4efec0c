//! What an OVMF image says about itself: the table of GUIDs at its end, and through it where a confidential guest
//! begins, which memory is measured before it runs, and where hashes of a kernel are put.
//!
//! The table's footer ends 32 bytes before the end of the image, and is read backwards: each entry is data, then a
//! length (u16, which counts itself, the GUID and the data), then a GUID. All numbers are little-endian. Sources:
//! EDK II, `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm` and `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`; QEMU,
//! `hw/i386/pc_sysfw_ovmf.c`.
//!
//! [`Ovmf::parse`] reads the table alone; each question after that is answered from it, so that firmware with something
//! wrong in what only SEV-SNP uses can still be measured for TDX, and the other way round.

use std::fmt;

/// Size of a page, in bytes. Firmware is measured in pages.
pub const PAGE: usize = 4096;

/// The largest image, in bytes: QEMU maps no more than this below 4 GiB (`max-fw-size`).
pub const MAX_FIRMWARE: usize = 16 << 20;

/// First address behind the image: firmware ends at 4 GiB.
pub const FOUR_GIB: u64 = 1 << 32;

/// The most sections that SEV metadata may have; OVMF has seven.
pub const MAX_SECTIONS: usize = 64;

/// The most memory that sections may cover, in bytes; OVMF's cover less than 200 KiB. Bounds the work of measuring.
pub const MAX_SECTION_MEMORY: u64 = 64 << 20;

/// Bytes between the footer of the table and the end of the image.
const BEHIND_FOOTER: usize = 32;

/// A length (u16) and a GUID.
const ENTRY_HEADER: usize = 18;

/// A GUID as it stands in memory: the first three groups little-endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// `96b582de-1fb2-45f7-baea-a366c55a082d`: the table's footer.
    pub const TABLE_FOOTER: Guid = guid(0x96b582de, 0x1fb2, 0x45f7, 0xbaea_a366_c55a_082d);
    /// `dc886566-984a-4798-a75e-5585a7bf67cc`: where the SEV metadata is.
    pub const SEV_METADATA: Guid = guid(0xdc886566, 0x984a, 0x4798, 0xa75e_5585_a7bf_67cc);
    /// `7255371f-3a3b-4b04-927b-1da6efa8d454`: memory for the hashes of kernel, initrd and command line.
    pub const SEV_HASH_TABLE: Guid = guid(0x7255371f, 0x3a3b, 0x4b04, 0x927b_1da6_efa8_d454);
    /// `00f771de-1a7e-4fcb-890e-68c77e2fb44e`: where application processors begin.
    pub const SEV_ES_RESET_BLOCK: Guid = guid(0x00f771de, 0x1a7e, 0x4fcb, 0x890e_68c7_7e2f_b44e);
    /// `e47a6535-984a-4798-865e-4685a7bf8ec2`: where the TDX metadata is.
    pub const TDX_METADATA: Guid = guid(0xe47a6535, 0x984a, 0x4798, 0x865e_4685_a7bf_8ec2);
}

/// The GUID `a-b-c-d`, whose last two groups are given as one number.
pub(crate) const fn guid(a: u32, b: u16, c: u16, d: u64) -> Guid {
    let (a, b, c, d) = (
        a.to_le_bytes(),
        b.to_le_bytes(),
        c.to_le_bytes(),
        d.to_be_bytes(),
    );
    Guid([
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6],
        d[7],
    ])
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, d @ ..] = self.0;
        let a = u32::from_le_bytes([a0, a1, a2, a3]);
        let (b, c) = (u16::from_le_bytes([b0, b1]), u16::from_le_bytes([c0, c1]));
        let (d, e) = d.split_at(2);
        let (d, e) = (hex::encode(d), hex::encode(e));
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d}-{e}")
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why bytes are no firmware that can be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OvmfError {
    /// The image is larger than firmware can be.
    #[error("firmware: {found} bytes, more than the {MAX_FIRMWARE} that fit below 4 GiB")]
    TooLarge {
        /// Bytes given; one more than the limit where reading ended there.
        found: usize,
    },
    /// The image does not consist of pages.
    #[error("firmware: {found} bytes, which is no multiple of {PAGE} (one page at least)")]
    NotPages {
        /// Bytes given.
        found: usize,
    },
    /// No table of GUIDs: this is no OVMF image, or one that is too old.
    #[error(
        "firmware: no GUID table (expected {expected} at offset {offset:#x}, found {found})",
        expected = Guid::TABLE_FOOTER
    )]
    NoTable {
        /// Offset in the image.
        offset: usize,
        /// What stands there.
        found: Guid,
    },
    /// A length in the table does not fit.
    #[error("firmware: GUID table, entry {guid} at offset {offset:#x}: length {found} is {wrong}")]
    EntryLength {
        /// The entry.
        guid: Guid,
        /// Offset of its length in the image.
        offset: usize,
        /// Its length.
        found: u16,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// Bytes are left over at the table's beginning.
    #[error("firmware: GUID table: {left} bytes before its first entry belong to none")]
    TableRest {
        /// How many.
        left: usize,
    },
    /// A GUID stands twice: programs would differ in which they take.
    #[error("firmware: GUID table: {guid} stands twice")]
    EntryTwice {
        /// The GUID.
        guid: Guid,
    },
    /// An entry that is needed is not there.
    #[error("firmware: no {what} in its GUID table ({guid})")]
    EntryMissing {
        /// What the entry is for.
        what: &'static str,
        /// The GUID.
        guid: Guid,
    },
    /// An entry's data is not as long as it must be.
    #[error("firmware: GUID table, {what}: {found} bytes, expected {expected}")]
    EntrySize {
        /// What the entry is for.
        what: &'static str,
        /// Its length, without GUID and length.
        found: usize,
        /// What it must be.
        expected: usize,
    },
    /// Metadata begins outside the image.
    #[error(
        "firmware: {what}: {offset_from_end:#x} bytes before the end of the image is outside it"
    )]
    MetadataPlace {
        /// Which metadata.
        what: &'static str,
        /// Bytes from the end of the image.
        offset_from_end: u32,
    },
    /// SEV metadata that is not of the one form that is known.
    #[error("firmware: SEV metadata: {field} is {found:#x}, expected {expected:#x}")]
    Metadata {
        /// Field of its header.
        field: &'static str,
        /// What stands there.
        found: u32,
        /// What must.
        expected: u32,
    },
    /// More sections than firmware has.
    #[error("firmware: SEV metadata: {found} sections; expected 1 to {MAX_SECTIONS}")]
    SectionCount {
        /// How many.
        found: u32,
    },
    /// A section whose type nobody here knows: what is measured for it is unknown too.
    #[error("firmware: SEV metadata, section {index}: unknown type {found:#x}")]
    SectionType {
        /// Which section, from 0.
        index: usize,
        /// Its type.
        found: u32,
    },
    /// A section whose place cannot be right.
    #[error("firmware: SEV metadata, section {index} ({gpa:#x}, {size:#x} bytes): {wrong}")]
    Section {
        /// Which section, from 0.
        index: usize,
        /// Its guest physical address.
        gpa: u32,
        /// Its size in bytes.
        size: u32,
        /// What is wrong.
        wrong: &'static str,
    },
    /// A section that is needed is not there.
    #[error("firmware: SEV metadata: no section {}", kind.name())]
    SectionMissing {
        /// Its kind.
        kind: SectionKind,
    },
    /// The address of application processors, or of the table of hashes, cannot be right.
    #[error("firmware: {what}: address {gpa:#x}: {wrong}")]
    Address {
        /// Whose address.
        what: &'static str,
        /// The address.
        gpa: u64,
        /// What is wrong.
        wrong: &'static str,
    },
}

/// What a section of SEV metadata is for: `OvmfSevMetadata.asm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// 1: memory that firmware uses before it can accept any itself.
    SecMemory,
    /// 2: the page into which AMD's secure processor puts the guest's keys.
    Secrets,
    /// 3: the page of CPUID values.
    Cpuid,
    /// 4: the calling area of an SVSM.
    SvsmCaa,
    /// 16: the page of the table of hashes (`SNP_KERNEL_HASHES`).
    KernelHashes,
}

impl SectionKind {
    /// The kind that has this number.
    pub fn of(number: u32) -> Option<SectionKind> {
        Some(match number {
            1 => SectionKind::SecMemory,
            2 => SectionKind::Secrets,
            3 => SectionKind::Cpuid,
            4 => SectionKind::SvsmCaa,
            0x10 => SectionKind::KernelHashes,
            _ => return None,
        })
    }

    /// Its name in EDK II.
    pub fn name(self) -> &'static str {
        match self {
            SectionKind::SecMemory => "SNP_SEC_MEM",
            SectionKind::Secrets => "SNP_SECRETS",
            SectionKind::Cpuid => "SNP_CPUID",
            SectionKind::SvsmCaa => "SVSM_CAA",
            SectionKind::KernelHashes => "SNP_KERNEL_HASHES",
        }
    }

    /// Whether it is one page, no more.
    fn one_page(self) -> bool {
        matches!(
            self,
            SectionKind::Secrets | SectionKind::Cpuid | SectionKind::KernelHashes
        )
    }
}

/// Guest memory that is measured before firmware runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Guest physical address, a multiple of [`PAGE`].
    pub gpa: u32,
    /// Size in bytes, a multiple of [`PAGE`], never 0.
    pub size: u32,
    /// What it is for.
    pub kind: SectionKind,
}

/// Memory in which firmware looks for the hashes of kernel, initrd and command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashTableArea {
    /// Guest physical address.
    pub gpa: u32,
    /// Size in bytes.
    pub size: u32,
}

/// An image whose GUID table could be read.
#[derive(Clone, Debug)]
pub struct Ovmf<'a> {
    image: &'a [u8],
    entries: Vec<(Guid, &'a [u8])>,
}

impl<'a> Ovmf<'a> {
    /// Reads the GUID table. Errors: [`OvmfError`] from `TooLarge` to `EntryTwice`.
    pub fn parse(image: &'a [u8]) -> Result<Ovmf<'a>, OvmfError> {
        let found = image.len();
        if found > MAX_FIRMWARE {
            return Err(OvmfError::TooLarge { found });
        }
        if found == 0 || !found.is_multiple_of(PAGE) {
            return Err(OvmfError::NotPages { found });
        }
        let (table, _) = image
            .split_at_checked(found - BEHIND_FOOTER)
            .unwrap_or_default();
        let (footer, length, before) = last_entry(table);
        let offset = before.len();
        if footer != Guid::TABLE_FOOTER {
            return Err(OvmfError::NoTable {
                offset: offset + 2,
                found: footer,
            });
        }
        let wrong = |guid, offset, found, wrong| OvmfError::EntryLength {
            guid,
            offset,
            found,
            wrong,
        };
        let inside = usize::from(length)
            .checked_sub(ENTRY_HEADER)
            .ok_or_else(|| wrong(footer, offset, length, "shorter than the entry itself"))?;
        let start = offset
            .checked_sub(inside)
            .ok_or_else(|| wrong(footer, offset, length, "longer than the image"))?;
        let mut rest = before.get(start..).unwrap_or_default();
        let mut entries: Vec<(Guid, &[u8])> = Vec::new();
        while rest.len() >= ENTRY_HEADER {
            let (guid, length, before) = last_entry(rest);
            let offset = start + before.len();
            let size = usize::from(length)
                .checked_sub(ENTRY_HEADER)
                .ok_or_else(|| wrong(guid, offset, length, "shorter than the entry itself"))?;
            let data = before
                .len()
                .checked_sub(size)
                .and_then(|at| before.split_at_checked(at))
                .ok_or_else(|| {
                    wrong(
                        guid,
                        offset,
                        length,
                        "longer than what is left of the table",
                    )
                })?;
            entries.push((guid, data.1));
            rest = data.0;
        }
        if !rest.is_empty() {
            return Err(OvmfError::TableRest { left: rest.len() });
        }
        let mut guids: Vec<Guid> = entries.iter().map(|(guid, _)| *guid).collect();
        guids.sort_unstable();
        if let Some([guid, _]) = guids.array_windows().find(|[a, b]| a == b) {
            return Err(OvmfError::EntryTwice { guid: *guid });
        }
        Ok(Ovmf { image, entries })
    }

    /// The whole image.
    pub fn image(&self) -> &'a [u8] {
        self.image
    }

    /// Guest physical address of its first byte: it ends at 4 GiB.
    pub fn gpa(&self) -> u64 {
        FOUR_GIB - self.image.len() as u64
    }

    /// The data of a GUID's entry.
    pub fn entry(&self, guid: Guid) -> Option<&'a [u8]> {
        let found = self.entries.iter().find(|(other, _)| *other == guid);
        found.map(|(_, data)| *data)
    }

    /// Where application processors begin, for SEV-ES and SEV-SNP: a linear address. Errors: there is no such entry, it is
    /// not four bytes long, or the address is 0 (which QEMU refuses too).
    pub fn reset_eip(&self) -> Result<u32, OvmfError> {
        let what = "SEV-ES reset block";
        let bytes = self.sized(Guid::SEV_ES_RESET_BLOCK, what)?;
        let [eip] = numbers::<4, 1>(bytes.ok_or(OvmfError::EntryMissing {
            what,
            guid: Guid::SEV_ES_RESET_BLOCK,
        })?);
        if eip == 0 {
            return Err(OvmfError::Address {
                what,
                gpa: 0,
                wrong: "application processors cannot begin there",
            });
        }
        Ok(eip)
    }

    /// Where the hashes of kernel, initrd and command line are put; `None` in firmware that looks for none. What the
    /// address must be is for those to judge who put them there.
    pub fn hash_table(&self) -> Result<Option<HashTableArea>, OvmfError> {
        let bytes = self.sized(Guid::SEV_HASH_TABLE, "SEV hash table")?;
        Ok(bytes.map(|bytes| {
            let [gpa, size] = numbers::<8, 2>(bytes);
            HashTableArea { gpa, size }
        }))
    }

    /// Where the TDX metadata begins: an offset in the image. `None` in firmware without.
    pub fn tdx_metadata_offset(&self) -> Result<Option<usize>, OvmfError> {
        let what = "TDX metadata";
        let Some(bytes) = self.sized(Guid::TDX_METADATA, what)? else {
            return Ok(None);
        };
        let [from_end] = numbers::<4, 1>(bytes);
        self.offset(what, from_end).map(Some)
    }

    /// The sections of the SEV metadata, in its order, which is the order they are measured in. Those of any firmware that
    /// can be measured: see [`check_sections`].
    pub fn sev_sections(&self) -> Result<Vec<Section>, OvmfError> {
        let what = "SEV metadata";
        let bytes = self
            .sized(Guid::SEV_METADATA, what)?
            .ok_or(OvmfError::EntryMissing {
                what,
                guid: Guid::SEV_METADATA,
            })?;
        let [from_end] = numbers::<4, 1>(bytes);
        let at = self.offset(what, from_end)?;
        let metadata = self.image.get(at..).unwrap_or_default();
        let Some((header, behind)) = metadata.split_first_chunk::<16>() else {
            return Err(OvmfError::MetadataPlace {
                what,
                offset_from_end: from_end,
            });
        };
        let [signature, size, version, count] = numbers::<16, 4>(*header);
        let expect = |field, found, expected| match found == expected {
            true => Ok(()),
            false => Err(OvmfError::Metadata {
                field,
                found,
                expected,
            }),
        };
        expect("signature", signature, u32::from_le_bytes(*b"ASEV"))?;
        expect("version", version, 1)?;
        if count == 0 || count > MAX_SECTIONS as u32 {
            return Err(OvmfError::SectionCount { found: count });
        }
        expect("length", size, 16 + 12 * count)?;
        let descriptions = behind
            .get(..12 * count as usize)
            .ok_or(OvmfError::MetadataPlace {
                what,
                offset_from_end: from_end,
            })?;
        let mut sections = Vec::with_capacity(count as usize);
        for (index, bytes) in descriptions.as_chunks::<12>().0.iter().enumerate() {
            let [gpa, size, kind] = numbers::<12, 3>(*bytes);
            let kind =
                SectionKind::of(kind).ok_or(OvmfError::SectionType { index, found: kind })?;
            sections.push(Section { gpa, size, kind });
        }
        check_sections(&sections, self.gpa())?;
        Ok(sections)
    }

    /// The data of an entry that is `N` bytes long.
    fn sized<const N: usize>(
        &self,
        guid: Guid,
        what: &'static str,
    ) -> Result<Option<[u8; N]>, OvmfError> {
        let Some(data) = self.entry(guid) else {
            return Ok(None);
        };
        let sized = data.try_into().map_err(|_| OvmfError::EntrySize {
            what,
            found: data.len(),
            expected: N,
        })?;
        Ok(Some(sized))
    }

    /// The offset in the image of what begins so many bytes before its end.
    fn offset(&self, what: &'static str, offset_from_end: u32) -> Result<usize, OvmfError> {
        let place = self.image.len().checked_sub(offset_from_end as usize);
        place
            .filter(|_| offset_from_end > 0)
            .ok_or(OvmfError::MetadataPlace {
                what,
                offset_from_end,
            })
    }
}

/// Holds that sections can be measured: each of pages, below `end` (where the firmware begins), none over another, one page
/// where one is all there can be, at most one of secrets, CPUID values and hashes, and no more memory than
/// [`MAX_SECTION_MEMORY`].
pub fn check_sections(sections: &[Section], end: u64) -> Result<(), OvmfError> {
    let mut memory = 0;
    for (index, section) in sections.iter().enumerate() {
        let Section { gpa, size, kind } = *section;
        let earlier = sections.get(..index).unwrap_or_default();
        let until = |section: &Section| u64::from(section.gpa) + u64::from(section.size);
        memory += u64::from(size);
        let wrong = if size == 0 {
            "it is empty"
        } else if !(gpa as usize).is_multiple_of(PAGE) || !(size as usize).is_multiple_of(PAGE) {
            "it does not consist of pages"
        } else if until(section) > end {
            "it reaches into the firmware"
        } else if kind.one_page() && size as usize != PAGE {
            "its kind is one page"
        } else if kind.one_page() && earlier.iter().any(|other| other.kind == kind) {
            "there is one of its kind already"
        } else if earlier
            .iter()
            .any(|other| u64::from(gpa) < until(other) && u64::from(other.gpa) < until(section))
        {
            "it overlaps another"
        } else if memory > MAX_SECTION_MEMORY {
            "there is more memory in sections than firmware can need"
        } else {
            continue;
        };
        return Err(OvmfError::Section {
            index,
            gpa,
            size,
            wrong,
        });
    }
    Ok(())
}

/// The last entry of a part of the table: its GUID, its length and what stands before its length. Of fewer bytes than an
/// entry has: zeros, which are no GUID that means anything, and nothing before.
fn last_entry(part: &[u8]) -> (Guid, u16, &[u8]) {
    let Some((before, guid)) = part.split_last_chunk::<16>() else {
        return (Guid([0; 16]), 0, &[]);
    };
    let Some((before, length)) = before.split_last_chunk::<2>() else {
        return (Guid([0; 16]), 0, &[]);
    };
    (Guid(*guid), u16::from_le_bytes(*length), before)
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
