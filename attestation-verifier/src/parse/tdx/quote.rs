//! Quotes of version 4 and 5 (Intel TDX DCAP Quoting Library API, appendix A.3 and A.4) with TD reports of
//! TDX 1.0 and 1.5.

use std::fmt;

use touchstone_formats::text::hex_encode;

use crate::parse::cert::Certificate;

/// Length of a report by an SGX enclave.
pub const QE_REPORT_LENGTH: usize = 384;

/// Which TD report a quote holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TdVersion {
    /// 584 bytes: in quotes of version 4, and in version 5 as body type 2.
    V1_0,
    /// 648 bytes: in quotes of version 5 as body type 3.
    V1_5,
}

impl TdVersion {
    /// `1.0`, `1.5`.
    pub fn name(self) -> &'static str {
        match self {
            TdVersion::V1_0 => "1.0",
            TdVersion::V1_5 => "1.5",
        }
    }
}

/// What a TD says of itself (A.3.2 and A.4.2, "TD Quote Body"). Numbers are little-endian on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdReport {
    /// Which of the two layouts it has.
    pub version: TdVersion,
    /// TEE_TCB_SVN: security versions, of the TDX module in bytes 0 and 1.
    pub tee_tcb_svn: [u8; 16],
    /// MRSEAM: measurement of the TDX module.
    pub mr_seam: [u8; 48],
    /// MRSIGNERSEAM: who signed the TDX module; zero is Intel.
    pub mr_signer_seam: [u8; 48],
    /// SEAMATTRIBUTES.
    pub seam_attributes: [u8; 8],
    /// TDATTRIBUTES.
    pub td_attributes: u64,
    /// XFAM.
    pub xfam: u64,
    /// MRTD: measurement of the TD's first contents.
    pub mr_td: [u8; 48],
    /// MRCONFIGID.
    pub mr_config_id: [u8; 48],
    /// MROWNER.
    pub mr_owner: [u8; 48],
    /// MROWNERCONFIG.
    pub mr_owner_config: [u8; 48],
    /// RTMR0 to RTMR3: what was measured at run time.
    pub rtmr: [[u8; 48]; 4],
    /// REPORTDATA.
    pub report_data: [u8; 64],
    /// TEE_TCB_SVN_2: the security versions after the module was updated under the running TD; in 1.5 alone.
    pub tee_tcb_svn_2: Option<[u8; 16]>,
    /// MRSERVICETD: the service TDs bound to this one; in 1.5 alone.
    pub mr_service_td: Option<[u8; 48]>,
}

/// The quoting enclave's report of itself (Intel SDM volume 3D, REPORT), as it was received.
#[derive(Clone, PartialEq, Eq)]
pub struct QeReport {
    pub(super) raw: [u8; QE_REPORT_LENGTH],
}

impl fmt::Debug for QeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QeReport({})", hex_encode(&self.raw))
    }
}

impl QeReport {
    /// The whole report, which the PCK signed.
    pub fn raw(&self) -> &[u8; QE_REPORT_LENGTH] {
        &self.raw
    }

    /// N bytes at an offset. All callers are within the report's fixed length.
    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut out = [0; N];
        for (to, from) in out.iter_mut().zip(self.raw.iter().skip(offset)) {
            *to = *from;
        }
        out
    }

    /// CPUSVN.
    pub fn cpu_svn(&self) -> [u8; 16] {
        self.at(0)
    }

    /// MISCSELECT, little-endian on the wire.
    pub fn miscselect(&self) -> u32 {
        u32::from_le_bytes(self.at(16))
    }

    /// ATTRIBUTES, flags and XFRM.
    pub fn attributes(&self) -> [u8; 16] {
        self.at(48)
    }

    /// MRENCLAVE.
    pub fn mrenclave(&self) -> [u8; 32] {
        self.at(64)
    }

    /// MRSIGNER.
    pub fn mrsigner(&self) -> [u8; 32] {
        self.at(128)
    }

    /// ISVPRODID.
    pub fn isvprodid(&self) -> u16 {
        u16::from_le_bytes(self.at(256))
    }

    /// ISVSVN.
    pub fn isvsvn(&self) -> u16 {
        u16::from_le_bytes(self.at(258))
    }

    /// REPORTDATA.
    pub fn report_data(&self) -> [u8; 64] {
        self.at(320)
    }
}

/// A well-formed quote. Nothing says yet that it is genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// 4 or 5.
    pub version: u16,
    /// The header's user data: Intel's library puts a platform identifier into its first 16 bytes.
    pub user_data: [u8; 20],
    /// What the TD says of itself.
    pub report: TdReport,
    /// The bytes that the attestation key signed, as received: header and body.
    pub signed: Vec<u8>,
    /// The attestation key's signature, r ‖ s, 32 bytes each, big-endian.
    pub signature: [u8; 64],
    /// The attestation key on P-256, x ‖ y.
    pub attestation_key: [u8; 64],
    /// The quoting enclave's report, which binds the attestation key.
    pub qe_report: QeReport,
    /// The PCK's signature over it, r ‖ s.
    pub qe_report_signature: [u8; 64],
    /// What the quoting enclave bound beside the key.
    pub qe_auth_data: Vec<u8>,
    /// The certificates of the PCK chain in the order in which they stand there; the first is the PCK's.
    pub pck_chain: Vec<Certificate>,
}
