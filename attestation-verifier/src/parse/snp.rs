//! SEV-SNP attestation reports (AMD 56860, SEV Secure Nested Paging Firmware ABI, table
//! ATTESTATION_REPORT), versions 2, 3 and 5.
//!
//! A [`Report`] keeps the 1,184 bytes as they were received; fields are read out of them and
//! nothing is ever encoded again, so that the signature is verified over what was sent. Every
//! byte and bit that the report's own version does not define must be zero, in the signed part
//! and behind it.

use std::fmt;
use std::ops::Range;

use thiserror::Error;
use touchstone_formats::text::hex_encode;

use super::vek::VekTcb;
use crate::product::{Cpuid, Product};

/// Length of a report.
pub const REPORT_LENGTH: usize = 0x4a0;
/// Length of the part that is signed.
pub const SIGNED_LENGTH: usize = 0x2a0;
/// Length of r and of s: 48 bytes little-endian, 24 bytes of zeros.
const PART_LENGTH: usize = 72;
const NUMBER_LENGTH: usize = 48;

/// Where a report has r and s, each little-endian; zeros behind them.
pub(crate) fn signature_numbers() -> [Range<usize>; 2] {
    [SIGNED_LENGTH, SIGNED_LENGTH + PART_LENGTH].map(|start| start..start + NUMBER_LENGTH)
}

/// Why bytes are no report.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReportError {
    /// Not 1,184 bytes.
    #[error("{found} bytes; a report has exactly 1184")]
    Length {
        /// How many there are.
        found: usize,
    },
    /// A version that no specification we know defines.
    #[error("version {found}; known are 2, 3 and 5")]
    Version {
        /// VERSION.
        found: u32,
    },
    /// SIGNATURE_ALGO is not ECDSA P-384 with SHA-384.
    #[error("signature algorithm {found}; 1 (ECDSA P-384 with SHA-384) is the only one")]
    Algorithm {
        /// SIGNATURE_ALGO.
        found: u32,
    },
    /// A byte that must be zero is not.
    #[error("byte 0x{offset:03x} is 0x{found:02x}; reserved in version {version}, must be zero")]
    ReservedByte {
        /// Offset in the report.
        offset: usize,
        /// The byte.
        found: u8,
        /// VERSION.
        version: u32,
    },
    /// A bit that must be zero is one.
    #[error("{field} is 0x{found:x}; bit {bit} is reserved in version {version}, must be zero")]
    ReservedBit {
        /// Name of the field.
        field: &'static str,
        /// The field.
        found: u64,
        /// Lowest offending bit.
        bit: u32,
        /// VERSION.
        version: u32,
    },
    /// Bit 17 of POLICY is zero.
    #[error("POLICY is 0x{found:x}; bit 17 must be one")]
    PolicyBit17 {
        /// POLICY.
        found: u64,
    },
    /// SIGNING_KEY has a value that is reserved.
    #[error("SIGNING_KEY is {found}; 2 to 6 are reserved")]
    SigningKey {
        /// SIGNING_KEY.
        found: u32,
    },
    /// CPUID fields of a processor whose report layout is not known.
    #[error("CPUID family 0x{family:x} model 0x{model:x} is no product whose TCB layout is known")]
    Product {
        /// CPUID_FAM_ID.
        family: u8,
        /// CPUID_MOD_ID.
        model: u8,
    },
    /// r or s is not below 2^384.
    #[error(
        "byte 0x{offset:03x} of the signature is 0x{found:02x}; r and s have 48 bytes, then zeros"
    )]
    SignatureNumber {
        /// Offset in the report.
        offset: usize,
        /// The byte.
        found: u8,
    },
}

/// Which key SIGNING_KEY names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// 0: the chip's own.
    Vcek,
    /// 1: one that AMD gave to a cloud provider.
    Vlek,
    /// 7: none, the report is not signed.
    None,
}

impl SigningKey {
    /// The word of `snp.signing_key`.
    pub fn word(self) -> &'static str {
        match self {
            SigningKey::Vcek => "vcek",
            SigningKey::Vlek => "vlek",
            SigningKey::None => "none",
        }
    }
}

/// A TCB version, eight bytes whose meaning depends on the product (ABI 56860, TCB_VERSION).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcbBytes(pub [u8; 8]);

impl TcbBytes {
    /// The components, in this product's layout; `None` if a byte reserved in it is not zero.
    pub fn read(self, product: Product) -> Option<VekTcb> {
        let [b0, b1, b2, b3, b4, b5, b6, microcode] = self.0;
        let (tcb, reserved) = if product.has_fmc() {
            let tcb = VekTcb {
                fmc: Some(b0),
                bootloader: b1,
                tee: b2,
                snp: b3,
                microcode,
            };
            (tcb, [b4, b5, b6, 0])
        } else {
            let tcb = VekTcb {
                fmc: None,
                bootloader: b0,
                tee: b1,
                snp: b6,
                microcode,
            };
            (tcb, [b2, b3, b4, b5])
        };
        (reserved == [0; 4]).then_some(tcb)
    }
}

/// Version of the SNP firmware (CURRENT_* and COMMITTED_*), ordered as versions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Firmware {
    /// API major.
    pub major: u8,
    /// API minor.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// Bits of POLICY.
pub mod policy {
    /// SMT is allowed.
    pub const SMT: u32 = 16;
    /// Reserved, must be one.
    pub const ONE: u32 = 17;
    /// Association with a migration agent is allowed.
    pub const MIGRATE_MA: u32 = 18;
    /// Debugging is allowed.
    pub const DEBUG: u32 = 19;
    /// Only one socket.
    pub const SINGLE_SOCKET: u32 = 20;
    /// CXL devices and memory are allowed.
    pub const CXL: u32 = 21;
    /// AES-256-XTS is required.
    pub const MEM_AES_256_XTS: u32 = 22;
    /// RAPL must be off.
    pub const RAPL_DIS: u32 = 23;
    /// Ciphertext hiding is required.
    pub const CIPHERTEXT_HIDING: u32 = 24;
    /// SNP_PAGE_MOVE, SNP_SWAP_OUT and SNP_SWAP_IN are off (version 5).
    pub const PAGE_SWAP_DISABLE: u32 = 25;
}

/// Bits of PLATFORM_INFO.
pub mod platform_info {
    /// SMT is on.
    pub const SMT: u32 = 0;
    /// TSME is on.
    pub const TSME: u32 = 1;
    /// The memory has ECC.
    pub const ECC: u32 = 2;
    /// RAPL is off.
    pub const RAPL_DIS: u32 = 3;
    /// Ciphertext hiding is on.
    pub const CIPHERTEXT_HIDING: u32 = 4;
    /// Memory aliases were looked for since the last reset, and there are none (version 3).
    pub const ALIAS_CHECK: u32 = 5;
    /// SEV-TIO is on (version 5).
    pub const TIO: u32 = 7;
}

/// A well-formed report. Nothing says yet that it is genuine.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    raw: [u8; REPORT_LENGTH],
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Report({})", hex_encode(&self.raw))
    }
}

impl Report {
    /// Reads a report: every rule of form, no judgement.
    ///
    /// # Errors
    /// [`ReportError`] names the first rule that is broken.
    pub fn parse(bytes: &[u8]) -> Result<Report, ReportError> {
        let raw = <[u8; REPORT_LENGTH]>::try_from(bytes)
            .map_err(|_| ReportError::Length { found: bytes.len() })?;
        let report = Report { raw };
        let version = report.version();
        if !matches!(version, 2 | 3 | 5) {
            return Err(ReportError::Version { found: version });
        }
        let algorithm = report.u32_at(0x034);
        if algorithm != 1 {
            return Err(ReportError::Algorithm { found: algorithm });
        }
        report.reserved_bytes()?;
        report.reserved_bits()?;
        if let Some(cpuid) = report.cpuid() {
            let product =
                Product::from_cpuid(cpuid.family, cpuid.model).ok_or(ReportError::Product {
                    family: cpuid.family,
                    model: cpuid.model,
                })?;
            report.check_tcb_layout(product)?;
        }
        for start in [SIGNED_LENGTH, SIGNED_LENGTH + PART_LENGTH] {
            for offset in start + NUMBER_LENGTH..start + PART_LENGTH {
                let found = report.at::<1>(offset)[0];
                if found != 0 {
                    return Err(ReportError::SignatureNumber { offset, found });
                }
            }
        }
        Ok(report)
    }

    /// Bytes no field of this version covers.
    fn reserved_bytes(&self) -> Result<(), ReportError> {
        let version = self.version();
        let ranges = [
            0x04c..0x050,
            // CPUID_FAM_ID, CPUID_MOD_ID, CPUID_STEP: from version 3.
            if version >= 3 { 0x18b } else { 0x188 }..0x1a0,
            0x1eb..0x1ec,
            0x1ef..0x1f0,
            // LAUNCH_MIT_VECTOR, CURRENT_MIT_VECTOR: from version 5.
            if version >= 5 { 0x208 } else { 0x1f8 }..SIGNED_LENGTH,
            SIGNED_LENGTH + 2 * PART_LENGTH..REPORT_LENGTH,
        ];
        for offset in ranges.into_iter().flatten() {
            let found = self.at::<1>(offset)[0];
            if found != 0 {
                return Err(ReportError::ReservedByte {
                    offset,
                    found,
                    version,
                });
            }
        }
        Ok(())
    }

    /// Bits no field of this version covers.
    fn reserved_bits(&self) -> Result<(), ReportError> {
        let version = self.version();
        let policy = self.policy();
        if policy >> policy::ONE & 1 == 0 {
            return Err(ReportError::PolicyBit17 { found: policy });
        }
        // PAGE_SWAP_DISABLE came with version 5, ALIAS_CHECK_COMPLETE with 3, TIO with 5.
        let policy_bits = if version >= 5 { 26 } else { 25 };
        let platform_bits: u64 = match version {
            2 => 0x1f,
            3 => 0x3f,
            _ => 0xbf,
        };
        let fields = [
            ("POLICY", policy, (1 << policy_bits) - 1),
            ("PLATFORM_INFO", self.platform_info(), platform_bits),
            ("KEY_INFO", u64::from(self.key_info()), 0x1f),
        ];
        for (field, found, defined) in fields {
            let undefined = found & !defined;
            if undefined != 0 {
                let bit = undefined.trailing_zeros();
                return Err(ReportError::ReservedBit {
                    field,
                    found,
                    bit,
                    version,
                });
            }
        }
        match self.key_info() >> 2 & 7 {
            0 | 1 | 7 => Ok(()),
            found => Err(ReportError::SigningKey { found }),
        }
    }

    /// Reserved bytes of the four TCB versions, which depend on the product. A report of version 2
    /// does not name its product: the certificate does, and then this is called.
    pub(crate) fn check_tcb_layout(&self, product: Product) -> Result<(), ReportError> {
        let reserved = if product.has_fmc() { 4..7 } else { 2..6 };
        for start in [0x038, 0x180, 0x1e0, 0x1f0] {
            for offset in start + reserved.start..start + reserved.end {
                let found = self.at::<1>(offset)[0];
                if found != 0 {
                    let version = self.version();
                    return Err(ReportError::ReservedByte {
                        offset,
                        found,
                        version,
                    });
                }
            }
        }
        Ok(())
    }

    /// N bytes at an offset. All callers are within the report's fixed length.
    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut out = [0; N];
        for (to, from) in out.iter_mut().zip(self.raw.iter().skip(offset)) {
            *to = *from;
        }
        out
    }

    fn u32_at(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.at(offset))
    }

    fn u64_at(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.at(offset))
    }

    /// The whole report, as received.
    pub fn raw(&self) -> &[u8; REPORT_LENGTH] {
        &self.raw
    }

    /// The part that is signed, as received: bytes 0x000 to 0x29F.
    pub fn signed_part(&self) -> &[u8] {
        self.raw.get(..SIGNED_LENGTH).unwrap_or_default()
    }

    /// r and s as 48 bytes each, big-endian.
    pub fn signature(&self) -> [u8; 2 * NUMBER_LENGTH] {
        let mut out = [0; 2 * NUMBER_LENGTH];
        let r: [u8; NUMBER_LENGTH] = self.at(SIGNED_LENGTH);
        let s: [u8; NUMBER_LENGTH] = self.at(SIGNED_LENGTH + PART_LENGTH);
        let big_endian = r.iter().rev().chain(s.iter().rev());
        for (to, from) in out.iter_mut().zip(big_endian) {
            *to = *from;
        }
        out
    }

    /// VERSION.
    pub fn version(&self) -> u32 {
        self.u32_at(0x000)
    }

    /// GUEST_SVN.
    pub fn guest_svn(&self) -> u32 {
        self.u32_at(0x004)
    }

    /// POLICY, all bits as received.
    pub fn policy(&self) -> u64 {
        self.u64_at(0x008)
    }

    /// One bit of POLICY.
    pub fn policy_bit(&self, bit: u32) -> bool {
        self.policy() >> bit & 1 == 1
    }

    /// ABI version that the guest's owner demands of the firmware: (major, minor).
    pub fn policy_abi(&self) -> (u8, u8) {
        let [minor, major] = self.at(0x008);
        (major, minor)
    }

    /// FAMILY_ID.
    pub fn family_id(&self) -> [u8; 16] {
        self.at(0x010)
    }

    /// IMAGE_ID.
    pub fn image_id(&self) -> [u8; 16] {
        self.at(0x020)
    }

    /// VMPL; 0xffffffff in a report the host asked for.
    pub fn vmpl(&self) -> u32 {
        self.u32_at(0x030)
    }

    /// CURRENT_TCB.
    pub fn current_tcb(&self) -> TcbBytes {
        TcbBytes(self.at(0x038))
    }

    /// PLATFORM_INFO, all bits as received.
    pub fn platform_info(&self) -> u64 {
        self.u64_at(0x040)
    }

    /// One bit of PLATFORM_INFO.
    pub fn platform_bit(&self, bit: u32) -> bool {
        self.platform_info() >> bit & 1 == 1
    }

    /// The word at 0x48: AUTHOR_KEY_EN, MASK_CHIP_KEY, SIGNING_KEY.
    pub fn key_info(&self) -> u32 {
        self.u32_at(0x048)
    }

    /// AUTHOR_KEY_EN.
    pub fn author_key_enabled(&self) -> bool {
        self.key_info() & 1 == 1
    }

    /// MASK_CHIP_KEY: the firmware writes zeros instead of a signature.
    pub fn chip_key_masked(&self) -> bool {
        self.key_info() & 2 == 2
    }

    /// SIGNING_KEY.
    pub fn signing_key(&self) -> SigningKey {
        match self.key_info() >> 2 & 7 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            _ => SigningKey::None,
        }
    }

    /// REPORT_DATA.
    pub fn report_data(&self) -> [u8; 64] {
        self.at(0x050)
    }

    /// MEASUREMENT.
    pub fn measurement(&self) -> [u8; 48] {
        self.at(0x090)
    }

    /// HOST_DATA.
    pub fn host_data(&self) -> [u8; 32] {
        self.at(0x0c0)
    }

    /// ID_KEY_DIGEST.
    pub fn id_key_digest(&self) -> [u8; 48] {
        self.at(0x0e0)
    }

    /// AUTHOR_KEY_DIGEST.
    pub fn author_key_digest(&self) -> [u8; 48] {
        self.at(0x110)
    }

    /// REPORT_ID.
    pub fn report_id(&self) -> [u8; 32] {
        self.at(0x140)
    }

    /// REPORT_ID_MA; all ones without a migration agent.
    pub fn report_id_ma(&self) -> [u8; 32] {
        self.at(0x160)
    }

    /// REPORTED_TCB.
    pub fn reported_tcb(&self) -> TcbBytes {
        TcbBytes(self.at(0x180))
    }

    /// CPUID family, model and stepping; from version 3.
    pub fn cpuid(&self) -> Option<Cpuid> {
        let [family, model, stepping] = self.at(0x188);
        (self.version() >= 3).then_some(Cpuid {
            family,
            model,
            stepping,
        })
    }

    /// The product that the CPUID fields name; none before version 3.
    pub fn product(&self) -> Option<Product> {
        self.cpuid()
            .and_then(|cpuid| Product::from_cpuid(cpuid.family, cpuid.model))
    }

    /// CHIP_ID; all zero if the platform masks it.
    pub fn chip_id(&self) -> [u8; 64] {
        self.at(0x1a0)
    }

    /// COMMITTED_TCB.
    pub fn committed_tcb(&self) -> TcbBytes {
        TcbBytes(self.at(0x1e0))
    }

    /// CURRENT_MAJOR, CURRENT_MINOR, CURRENT_BUILD.
    pub fn current_firmware(&self) -> Firmware {
        let [build, minor, major] = self.at(0x1e8);
        Firmware {
            major,
            minor,
            build,
        }
    }

    /// COMMITTED_MAJOR, COMMITTED_MINOR, COMMITTED_BUILD.
    pub fn committed_firmware(&self) -> Firmware {
        let [build, minor, major] = self.at(0x1ec);
        Firmware {
            major,
            minor,
            build,
        }
    }

    /// LAUNCH_TCB.
    pub fn launch_tcb(&self) -> TcbBytes {
        TcbBytes(self.at(0x1f0))
    }

    /// LAUNCH_MIT_VECTOR; from version 5.
    pub fn launch_mitigations(&self) -> Option<u64> {
        (self.version() >= 5).then(|| self.u64_at(0x1f8))
    }

    /// CURRENT_MIT_VECTOR; from version 5.
    pub fn current_mitigations(&self) -> Option<u64> {
        (self.version() >= 5).then(|| self.u64_at(0x200))
    }
}
