//! Firmware images that are shaped like OVMF's, every part of what they say about themselves changeable.

/// Size of a page, in bytes.
const PAGE: usize = 4096;

/// A GUID as it stands in memory.
pub type Guid = [u8; 16];

/// `96b582de-1fb2-45f7-baea-a366c55a082d`: the footer of the table.
pub const TABLE_FOOTER: Guid = *b"\xde\x82\xb5\x96\xb2\x1f\xf7\x45\xba\xea\xa3\x66\xc5\x5a\x08\x2d";
/// `dc886566-984a-4798-a75e-5585a7bf67cc`: where the SEV metadata is.
pub const SEV_METADATA: Guid = *b"\x66\x65\x88\xdc\x4a\x98\x98\x47\xa7\x5e\x55\x85\xa7\xbf\x67\xcc";
/// `7255371f-3a3b-4b04-927b-1da6efa8d454`: memory for the hashes of a kernel.
pub const SEV_HASH_TABLE: Guid =
    *b"\x1f\x37\x55\x72\x3b\x3a\x04\x4b\x92\x7b\x1d\xa6\xef\xa8\xd4\x54";
/// `00f771de-1a7e-4fcb-890e-68c77e2fb44e`: where application processors begin.
pub const SEV_ES_RESET_BLOCK: Guid =
    *b"\xde\x71\xf7\x00\x7e\x1a\xcb\x4f\x89\x0e\x68\xc7\x7e\x2f\xb4\x4e";

/// Address, size and type of a section of SEV metadata.
pub type Section = (u32, u32, u32);

/// An image, described. [`Firmware::build`] writes what it says, right or wrong.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// Size in bytes.
    pub size: usize,
    /// What code and data are made from.
    pub seed: u64,
    /// The table's entries but for the SEV metadata's, which is nearest to the footer; from there to its beginning.
    pub entries: Vec<(Guid, Vec<u8>)>,
    /// The sections; `None` for no SEV metadata at all.
    pub sections: Option<Vec<Section>>,
    /// Signature of the SEV metadata.
    pub signature: [u8; 4],
    /// Version of the SEV metadata.
    pub version: u32,
    /// Added to the length that the SEV metadata says it has.
    pub excess: u32,
    /// Bytes between the SEV metadata's beginning and the image's end.
    pub metadata_from_end: u32,
}

impl Firmware {
    /// Of this size, with the sections and entries of OVMF's AmdSev build.
    pub fn amd_sev(size: usize) -> Firmware {
        Firmware {
            size,
            seed: 1,
            entries: vec![
                (SEV_ES_RESET_BLOCK, 0x0080_b004_u32.to_le_bytes().to_vec()),
                (SEV_HASH_TABLE, pair(0x0081_0c00, 0x400)),
            ],
            sections: Some(vec![
                (0x80_0000, 0x9000, 1),
                (0x80_a000, 0x3000, 1),
                (0x80_d000, 0x1000, 2),
                (0x80_e000, 0x1000, 3),
                (0x81_1000, 0xf000, 1),
                (0x81_0000, 0x1000, 0x10),
            ]),
            signature: *b"ASEV",
            version: 1,
            excess: 0,
            metadata_from_end: 0x600,
        }
    }

    /// As [`Firmware::amd_sev`], and does not look for hashes of a kernel.
    pub fn generic(size: usize) -> Firmware {
        let mut firmware = Firmware::amd_sev(size);
        firmware.entries.retain(|(guid, _)| *guid != SEV_HASH_TABLE);
        let sections = firmware.sections.iter_mut().flatten();
        sections
            .filter(|section| section.2 == 0x10)
            .for_each(|section| section.2 = 1);
        firmware
    }

    /// Sets the data of an entry, which is added where there is none.
    pub fn set(&mut self, guid: Guid, data: Vec<u8>) {
        self.entries.retain(|(other, _)| *other != guid);
        self.entries.push((guid, data));
    }

    /// The image.
    pub fn build(&self) -> Vec<u8> {
        let mut image = self.contents();
        let mut table = Vec::new();
        for (guid, data) in self.entries.iter().rev() {
            put_entry(&mut table, *guid, data);
        }
        if self.sections.is_some() {
            put_entry(
                &mut table,
                SEV_METADATA,
                &self.metadata_from_end.to_le_bytes(),
            );
        }
        let length = table.len();
        table.extend((length as u16 + 18).to_le_bytes());
        table.extend(TABLE_FOOTER);
        overwrite(&mut image, self.size - 32 - table.len(), &table);
        if let Some(sections) = &self.sections {
            let mut metadata = self.signature.to_vec();
            let length = 16 + 12 * sections.len() as u32;
            for number in [length + self.excess, self.version, sections.len() as u32] {
                metadata.extend(number.to_le_bytes());
            }
            for (gpa, size, kind) in sections {
                [gpa, size, kind]
                    .iter()
                    .for_each(|number| metadata.extend(number.to_le_bytes()));
            }
            let at = self.size.saturating_sub(self.metadata_from_end as usize);
            overwrite(&mut image, at, &metadata);
        }
        image
    }

    /// Half of it filler, which firmware has much of; half of it like code.
    fn contents(&self) -> Vec<u8> {
        let mut image = vec![0xff; self.size];
        let mut state = self.seed | 1;
        for byte in &mut image[self.size / 2 / PAGE * PAGE..] {
            // xorshift64: the same on every machine.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
        image
    }
}

/// Two numbers as an entry's data.
pub fn pair(first: u32, second: u32) -> Vec<u8> {
    [first.to_le_bytes(), second.to_le_bytes()].concat()
}

/// Data, length, GUID: entries are read from the end.
fn put_entry(table: &mut Vec<u8>, guid: Guid, data: &[u8]) {
    table.extend(data);
    table.extend((data.len() as u16 + 18).to_le_bytes());
    table.extend(guid);
}

fn overwrite(image: &mut [u8], at: usize, bytes: &[u8]) {
    let place = image.iter_mut().skip(at).zip(bytes);
    place.for_each(|(place, byte)| *place = *byte);
}
