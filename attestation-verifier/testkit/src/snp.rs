//! SEV-SNP attestation reports (AMD 56860, ATTESTATION_REPORT), versions 2, 3 and 5.

use crate::amd::{Product, VekKey};

/// Length of a report.
pub const REPORT_LENGTH: usize = 0x4a0;
/// Length of the part that is signed.
pub const SIGNED_LENGTH: usize = 0x2a0;
/// Length of one of `r` and `s` in the signature: little-endian, padded with zeros.
pub const SIGNATURE_PART: usize = 72;

/// Bits of POLICY.
pub mod policy {
    /// Simultaneous multithreading allowed.
    pub const SMT: u64 = 1 << 16;
    /// Reserved, must be one.
    pub const RESERVED_ONE: u64 = 1 << 17;
    /// Association with a migration agent allowed.
    pub const MIGRATE_MA: u64 = 1 << 18;
    /// Debugging allowed.
    pub const DEBUG: u64 = 1 << 19;
    /// Only on one socket.
    pub const SINGLE_SOCKET: u64 = 1 << 20;
    /// CXL allowed.
    pub const CXL_ALLOW: u64 = 1 << 21;
    /// AES-256-XTS demanded.
    pub const MEM_AES_256_XTS: u64 = 1 << 22;
    /// RAPL must be off.
    pub const RAPL_DIS: u64 = 1 << 23;
    /// Ciphertext hiding demanded.
    pub const CIPHERTEXT_HIDING: u64 = 1 << 24;
    /// Page move and swap commands disabled.
    pub const PAGE_SWAP_DISABLE: u64 = 1 << 25;
}

/// Bits of PLATFORM_INFO.
pub mod platform_info {
    /// SMT is on.
    pub const SMT: u64 = 1;
    /// Transparent SME is on.
    pub const TSME: u64 = 1 << 1;
    /// The memory has ECC.
    pub const ECC: u64 = 1 << 2;
    /// RAPL is off.
    pub const RAPL_DIS: u64 = 1 << 3;
    /// Ciphertext hiding is on.
    pub const CIPHERTEXT_HIDING: u64 = 1 << 4;
    /// Alias checking was done since the last reset (BadRAM).
    pub const ALIAS_CHECK_COMPLETE: u64 = 1 << 5;
}

/// Bits of the word at 0x48.
pub mod flags {
    /// AUTHOR_KEY_EN.
    pub const AUTHOR_KEY_EN: u32 = 1;
    /// MASK_CHIP_KEY.
    pub const MASK_CHIP_KEY: u32 = 1 << 1;
    /// The three bits of SIGNING_KEY.
    pub const SIGNING_KEY_MASK: u32 = 7 << 2;
    /// SIGNING_KEY = VCEK.
    pub const SIGNED_BY_VCEK: u32 = 0;
    /// SIGNING_KEY = VLEK.
    pub const SIGNED_BY_VLEK: u32 = 1 << 2;
    /// SIGNING_KEY = none.
    pub const SIGNED_BY_NONE: u32 = 7 << 2;
}

/// A report before it is signed. Every field may be changed; fields that a version does not have are not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// 0x000. 2, 3 and 5 are known.
    pub version: u32,
    /// 0x004
    pub guest_svn: u32,
    /// 0x008, see [`policy`].
    pub policy: u64,
    /// 0x010
    pub family_id: [u8; 16],
    /// 0x020
    pub image_id: [u8; 16],
    /// 0x030
    pub vmpl: u32,
    /// 0x034. 1 is ECDSA P-384 with SHA-384.
    pub signature_algo: u32,
    /// 0x038, see [`crate::amd::Tcb::to_bytes`].
    pub current_tcb: [u8; 8],
    /// 0x040, see [`platform_info`].
    pub platform_info: u64,
    /// 0x048, see [`flags`].
    pub flags: u32,
    /// 0x050
    pub report_data: [u8; 64],
    /// 0x090
    pub measurement: [u8; 48],
    /// 0x0C0
    pub host_data: [u8; 32],
    /// 0x0E0
    pub id_key_digest: [u8; 48],
    /// 0x110
    pub author_key_digest: [u8; 48],
    /// 0x140
    pub report_id: [u8; 32],
    /// 0x160. All ones: no migration agent.
    pub report_id_ma: [u8; 32],
    /// 0x180
    pub reported_tcb: [u8; 8],
    /// 0x188, family, model, stepping. From version 3.
    pub cpuid: [u8; 3],
    /// 0x1A0. On Turin eight bytes, then zeros.
    pub chip_id: [u8; 64],
    /// 0x1E0
    pub committed_tcb: [u8; 8],
    /// 0x1E8, build, minor, major.
    pub current_version: [u8; 3],
    /// 0x1EC, build, minor, major.
    pub committed_version: [u8; 3],
    /// 0x1F0
    pub launch_tcb: [u8; 8],
    /// 0x1F8, from version 5.
    pub launch_mit_vector: u64,
    /// 0x200, from version 5.
    pub current_mit_vector: u64,
    /// Bytes written over the finished report before it is signed: (offset, bytes). For reserved fields.
    pub patches: Vec<(usize, Vec<u8>)>,
}

impl Report {
    /// A report with which a strict policy has no quarrel but its measurement: no debugging, no migration, high TCBs all
    /// equal, ECC, alias check complete, no migration agent, VMPL 0, a chip that says who it is.
    pub fn new(product: Product, version: u32) -> Self {
        let tcb = product.high_tcb().to_bytes(product);
        let mut chip_id = [0; 64];
        for (byte, n) in chip_id.iter_mut().take(product.hwid_length()).zip(1u8..) {
            *byte = n.wrapping_mul(0x1d) ^ 0xa5;
        }
        Self {
            version,
            guest_svn: 0,
            policy: policy::RESERVED_ONE | policy::SMT,
            family_id: [0; 16],
            image_id: [0; 16],
            vmpl: 0,
            signature_algo: 1,
            current_tcb: tcb,
            platform_info: platform_info::SMT
                | platform_info::ECC
                | platform_info::ALIAS_CHECK_COMPLETE,
            flags: flags::SIGNED_BY_VCEK,
            report_data: [0; 64],
            measurement: [0x5a; 48],
            host_data: [0; 32],
            id_key_digest: [0; 48],
            author_key_digest: [0; 48],
            report_id: [0x1d; 32],
            report_id_ma: [0xff; 32],
            reported_tcb: tcb,
            cpuid: product.cpuid(),
            chip_id,
            committed_tcb: tcb,
            current_version: product.firmware(),
            committed_version: product.firmware(),
            launch_tcb: tcb,
            launch_mit_vector: 1,
            current_mit_vector: 1,
            patches: Vec::new(),
        }
    }

    /// Reads a report, a real one say, as the starting point of a lie. Reserved bytes and the signature are dropped.
    /// `None` when it is shorter than a report.
    pub fn from_bytes(report: &[u8]) -> Option<Self> {
        fn take<const N: usize>(report: &[u8], at: usize) -> Option<[u8; N]> {
            report.get(at..at + N)?.try_into().ok()
        }
        let u32_at = |at| take(report, at).map(u32::from_le_bytes);
        let u64_at = |at| take(report, at).map(u64::from_le_bytes);
        if report.len() < REPORT_LENGTH {
            return None;
        }
        Some(Self {
            version: u32_at(0x000)?,
            guest_svn: u32_at(0x004)?,
            policy: u64_at(0x008)?,
            family_id: take(report, 0x010)?,
            image_id: take(report, 0x020)?,
            vmpl: u32_at(0x030)?,
            signature_algo: u32_at(0x034)?,
            current_tcb: take(report, 0x038)?,
            platform_info: u64_at(0x040)?,
            flags: u32_at(0x048)?,
            report_data: take(report, 0x050)?,
            measurement: take(report, 0x090)?,
            host_data: take(report, 0x0c0)?,
            id_key_digest: take(report, 0x0e0)?,
            author_key_digest: take(report, 0x110)?,
            report_id: take(report, 0x140)?,
            report_id_ma: take(report, 0x160)?,
            reported_tcb: take(report, 0x180)?,
            cpuid: take(report, 0x188)?,
            chip_id: take(report, 0x1a0)?,
            committed_tcb: take(report, 0x1e0)?,
            current_version: take(report, 0x1e8)?,
            committed_version: take(report, 0x1ec)?,
            launch_tcb: take(report, 0x1f0)?,
            launch_mit_vector: u64_at(0x1f8)?,
            current_mit_vector: u64_at(0x200)?,
            patches: Vec::new(),
        })
    }

    /// The report with a signature of zeros.
    ///
    /// # Panics
    /// When a patch does not fit.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0; REPORT_LENGTH];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x000, &self.version.to_le_bytes());
        put(0x004, &self.guest_svn.to_le_bytes());
        put(0x008, &self.policy.to_le_bytes());
        put(0x010, &self.family_id);
        put(0x020, &self.image_id);
        put(0x030, &self.vmpl.to_le_bytes());
        put(0x034, &self.signature_algo.to_le_bytes());
        put(0x038, &self.current_tcb);
        put(0x040, &self.platform_info.to_le_bytes());
        put(0x048, &self.flags.to_le_bytes());
        put(0x050, &self.report_data);
        put(0x090, &self.measurement);
        put(0x0c0, &self.host_data);
        put(0x0e0, &self.id_key_digest);
        put(0x110, &self.author_key_digest);
        put(0x140, &self.report_id);
        put(0x160, &self.report_id_ma);
        put(0x180, &self.reported_tcb);
        if self.version >= 3 {
            put(0x188, &self.cpuid);
        }
        put(0x1a0, &self.chip_id);
        put(0x1e0, &self.committed_tcb);
        put(0x1e8, &self.current_version);
        put(0x1ec, &self.committed_version);
        put(0x1f0, &self.launch_tcb);
        if self.version >= 5 {
            put(0x1f8, &self.launch_mit_vector.to_le_bytes());
            put(0x200, &self.current_mit_vector.to_le_bytes());
        }
        for (at, bytes) in &self.patches {
            put(*at, bytes);
        }
        out
    }

    /// The report signed by `key`: 1184 bytes.
    pub fn sign(&self, key: &VekKey) -> Vec<u8> {
        let mut out = self.to_bytes();
        let signature = key.sign(&out[..SIGNED_LENGTH]);
        let (r, s) = signature.split_at(signature.len() / 2);
        for (part, at) in [(r, SIGNED_LENGTH), (s, SIGNED_LENGTH + SIGNATURE_PART)] {
            for (to, from) in out[at..].iter_mut().zip(part.iter().rev()) {
                *to = *from;
            }
        }
        out
    }
}
