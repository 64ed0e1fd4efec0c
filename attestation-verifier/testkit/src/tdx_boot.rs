//! Firmware for TDX and kernels with an EFI stub, every part of what they say about themselves changeable.

use crate::firmware::{Guid, TABLE_FOOTER};

/// `e47a6535-984a-4798-865e-4685a7bf8ec2`: where the TDX metadata is.
pub const TDX_METADATA: Guid = *b"\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf\x8e\xc2";

/// A section's entry in the metadata, number by number.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// DataOffset, in the image.
    pub offset: u32,
    /// RawDataSize, in bytes.
    pub raw: u32,
    /// MemoryAddress.
    pub gpa: u64,
    /// MemoryDataSize, in bytes.
    pub size: u64,
    /// Type: 0 code, 1 variables, 2 hand-off block, 3 memory.
    pub kind: u32,
    /// Attributes: 1 measured.
    pub attributes: u32,
}

/// Firmware in the shape of OVMF's: variables, code that ends at 4 GiB, memory, a hand-off block.
#[derive(Clone, Debug)]
pub struct TdxFirmware {
    /// Bytes of variables, a multiple of 4096.
    pub variables: u32,
    /// Bytes of code, a multiple of 4096.
    pub code: u32,
    /// The metadata's sections.
    pub sections: Vec<Entry>,
    /// Signature, length, version, number of sections; as they should be where `None`.
    pub header: [Option<u32>; 4],
    /// What the table of GUIDs holds beside the footer: where the metadata is.
    pub guid: Guid,
    /// What code and variables are made from.
    pub seed: u64,
}

impl TdxFirmware {
    /// Firmware with all that OVMF has.
    pub fn new(variables: u32, code: u32) -> TdxFirmware {
        let base = (1u64 << 32) - u64::from(variables + code);
        let entry = |offset, raw, gpa, size, kind, attributes| Entry {
            offset,
            raw,
            gpa,
            size,
            kind,
            attributes,
        };
        let (v, c) = (u64::from(variables), u64::from(code));
        TdxFirmware {
            variables,
            code,
            sections: vec![
                entry(variables, code, base + v, c, 0, 1),
                entry(0, variables, base, v, 1, 0),
                entry(0, 0, 0x81_0000, 0x1_0000, 3, 0),
                entry(0, 0, 0x80_b000, 0x2000, 3, 0),
                entry(0, 0, 0x80_9000, 0x2000, 2, 0),
                entry(0, 0, 0x80_0000, 0x6000, 3, 0),
            ],
            header: [None; 4],
            guid: TDX_METADATA,
            seed: 1,
        }
    }

    /// The image.
    pub fn image(&self) -> Vec<u8> {
        let mut image = noise(self.seed, (self.variables + self.code) as usize);
        let count = self.sections.len() as u32;
        let right = [u32::from_le_bytes(*b"TDVF"), 16 + 32 * count, 1, count];
        let mut metadata = Vec::new();
        for (right, wrong) in right.into_iter().zip(self.header) {
            metadata.extend(wrong.unwrap_or(right).to_le_bytes());
        }
        for entry in &self.sections {
            metadata.extend(entry.offset.to_le_bytes());
            metadata.extend(entry.raw.to_le_bytes());
            metadata.extend(entry.gpa.to_le_bytes());
            metadata.extend(entry.size.to_le_bytes());
            metadata.extend(entry.kind.to_le_bytes());
            metadata.extend(entry.attributes.to_le_bytes());
        }
        let from_end = 0xc00;
        let at = image.len() - from_end;
        put(&mut image, at, &metadata);
        let mut table = (from_end as u32).to_le_bytes().to_vec();
        table.extend(22u16.to_le_bytes());
        table.extend(self.guid);
        table.extend(40u16.to_le_bytes());
        table.extend(TABLE_FOOTER);
        let at = image.len() - 32 - table.len();
        put(&mut image, at, &table);
        image
    }
}

/// A bzImage with an EFI stub: a setup header and PE headers over sections of noise, signed if `signature` is not 0.
#[derive(Clone, Debug)]
pub struct LinuxKernel {
    /// Version of the boot protocol.
    pub protocol: u16,
    /// Bit 0: loaded high.
    pub loadflags: u8,
    /// Bit 1: an initrd may be anywhere.
    pub xloadflags: u16,
    /// Highest address of an initrd, if it may not.
    pub initrd_max: u32,
    /// Bytes of the section behind the setup code.
    pub text: usize,
    /// Bytes behind the sections that are no signature.
    pub trailing: usize,
    /// Bytes of the signature; 0 for none.
    pub signature: usize,
    /// How many data directories the headers have.
    pub directories: u32,
}

impl Default for LinuxKernel {
    fn default() -> LinuxKernel {
        LinuxKernel {
            protocol: 0x20f,
            loadflags: 1,
            xloadflags: 0x7f,
            initrd_max: 0x7fff_ffff,
            text: 0x2200,
            trailing: 0,
            signature: 0x5c0,
            directories: 6,
        }
    }
}

impl LinuxKernel {
    /// The file.
    pub fn image(&self) -> Vec<u8> {
        let end = 0x1000 + self.text + self.trailing;
        let mut image = noise(7, end + self.signature);
        if self.signature > 0 {
            // WIN_CERTIFICATE: its length, revision 2.0, PKCS #7.
            put(&mut image, end, &(self.signature as u32).to_le_bytes());
            put(&mut image, end + 4, &[0, 2, 2, 0]);
        }
        put(&mut image, 0, b"MZ");
        put(&mut image, 0x3c, &0x40u32.to_le_bytes());
        let optional_size = 112 + 8 * self.directories as u16;
        let mut headers = b"PE\0\0".to_vec();
        headers.extend(0x8664u16.to_le_bytes());
        headers.extend(3u16.to_le_bytes());
        headers.extend([0; 12]);
        headers.extend(optional_size.to_le_bytes());
        headers.extend(0x206u16.to_le_bytes());
        let mut optional = noise(9, optional_size.into());
        put(&mut optional, 0, &0x20bu16.to_le_bytes());
        put(&mut optional, 32, &0x1000u32.to_le_bytes());
        put(&mut optional, 36, &0x200u32.to_le_bytes());
        put(&mut optional, 60, &0x400u32.to_le_bytes());
        put(&mut optional, 108, &self.directories.to_le_bytes());
        for directory in optional[112..].as_chunks_mut::<8>().0 {
            *directory = [0; 8];
        }
        if self.directories > 4 && self.signature > 0 {
            put(&mut optional, 112 + 32, &(end as u32).to_le_bytes());
            put(
                &mut optional,
                112 + 36,
                &(self.signature as u32).to_le_bytes(),
            );
        }
        headers.extend(optional);
        // Not in the order of their offsets, and one without bytes.
        let text = (b".text\0\0\0", 0x1000, self.text as u32);
        for (name, offset, size) in [text, (b".setup\0\0", 0x400, 0xc00), (b".bss\0\0\0\0", 0, 0)] {
            headers.extend(name);
            headers.extend(size.to_le_bytes());
            headers.extend((offset as u32 + 0x1_0000).to_le_bytes());
            headers.extend(size.to_le_bytes());
            headers.extend((offset as u32).to_le_bytes());
            headers.extend([0; 16]);
        }
        put(&mut image, 0x40, &headers);
        // The setup header: 7 sectors behind the first.
        put(&mut image, 0x1f1, &[7]);
        put(&mut image, 0x202, b"HdrS");
        put(&mut image, 0x206, &self.protocol.to_le_bytes());
        put(&mut image, 0x210, &[0, self.loadflags]);
        put(&mut image, 0x218, &[0; 8]);
        put(&mut image, 0x22c, &self.initrd_max.to_le_bytes());
        put(&mut image, 0x236, &self.xloadflags.to_le_bytes());
        image
    }
}

/// Writes bytes over others.
pub fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

/// Bytes without a pattern, the same each time (xorshift64*).
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}
