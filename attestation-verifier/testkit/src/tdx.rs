//! TDX quotes (Intel TDX DCAP Quoting Library API, appendix A.3 for version 4, A.4 for version 5) with bodies of TDX 1.0
//! and 1.5, signed by an attestation key that a quoting enclave vouches for.
//!
//! [`Quote::sign`] puts everything together from the inside out: body and header are signed by the attestation key, whose
//! hash stands in the quoting enclave's report, which the PCK signs. What is changed before is signed with the rest; what
//! [`Quote`] can also be told is which of these links to break.

use ring::digest::{SHA256, digest};

use crate::x509::EcKey;

/// Length of the header.
pub const HEADER_LENGTH: usize = 48;
/// Length of a TDX 1.0 body.
pub const TD_1_0_LENGTH: usize = 584;
/// Length of a TDX 1.5 body.
pub const TD_1_5_LENGTH: usize = 648;
/// Length of an SGX enclave's report.
pub const QE_REPORT_LENGTH: usize = 384;

/// Bits of TDATTRIBUTES (Intel TDX Module ABI, "ATTRIBUTES").
pub mod attributes {
    /// The host may debug the TD.
    pub const DEBUG: u64 = 1;
    /// No #VE on pending pages: what keeps a host from injecting exceptions.
    pub const SEPT_VE_DISABLE: u64 = 1 << 28;
    /// A migration TD may move it.
    pub const MIGRATABLE: u64 = 1 << 29;
    /// Supervisor protection keys.
    pub const PKS: u64 = 1 << 30;
    /// Key Locker.
    pub const KL: u64 = 1 << 31;
    /// Performance monitoring.
    pub const PERFMON: u64 = 1 << 63;
}

/// The header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 0x00. 4 and 5 are known.
    pub version: u16,
    /// 0x02. 2 is ECDSA P-256.
    pub attestation_key_type: u16,
    /// 0x04. 0x81 is TDX.
    pub tee_type: u32,
    /// 0x08. Once QE and PCE SVN; zero.
    pub reserved: [u8; 4],
    /// 0x0C
    pub qe_vendor_id: [u8; 16],
    /// 0x1C. The first 16 bytes are the quoting enclave's name for the platform.
    pub user_data: [u8; 20],
}

impl Header {
    /// Intel's quoting enclave.
    pub const INTEL: [u8; 16] = [
        0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06,
        0x07,
    ];

    /// The 48 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        [
            &self.version.to_le_bytes()[..],
            &self.attestation_key_type.to_le_bytes(),
            &self.tee_type.to_le_bytes(),
            &self.reserved,
            &self.qe_vendor_id,
            &self.user_data,
        ]
        .concat()
    }
}

/// A body: what the TDX module and the guest say. Every field may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdReport {
    /// 0x000
    pub tee_tcb_svn: [u8; 16],
    /// 0x010
    pub mr_seam: [u8; 48],
    /// 0x040. Zero: Intel's module.
    pub mr_signer_seam: [u8; 48],
    /// 0x070. Zero.
    pub seam_attributes: [u8; 8],
    /// 0x078, see [`attributes`].
    pub td_attributes: u64,
    /// 0x080
    pub xfam: u64,
    /// 0x088
    pub mr_td: [u8; 48],
    /// 0x0B8
    pub mr_config_id: [u8; 48],
    /// 0x0E8
    pub mr_owner: [u8; 48],
    /// 0x118
    pub mr_owner_config: [u8; 48],
    /// 0x148
    pub rtmr: [[u8; 48]; 4],
    /// 0x208
    pub report_data: [u8; 64],
    /// 0x248, from 1.5. `None`: a 1.0 body.
    pub v1_5: Option<Td15>,
}

/// What a 1.5 body has beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Td15 {
    /// 0x248. The TDX module now, after updates that kept the TD.
    pub tee_tcb_svn_2: [u8; 16],
    /// 0x258. Zero: no service TD is bound.
    pub mr_service_td: [u8; 48],
}

impl TdReport {
    /// A 1.0 body with which a strict policy has no quarrel but its measurements: a recent TDX module of Intel's, no
    /// debugging, no migration, SEPT_VE_DISABLE, no owner, no configuration, RTMR3 unused.
    pub fn v1_0() -> Self {
        let mut tee_tcb_svn = [0; 16];
        tee_tcb_svn[..3].copy_from_slice(&[13, 1, 8]);
        Self {
            tee_tcb_svn,
            mr_seam: [0x5e; 48],
            mr_signer_seam: [0; 48],
            seam_attributes: [0; 8],
            td_attributes: attributes::SEPT_VE_DISABLE,
            // x87, SSE, AVX, AVX-512, PKRU, AMX, CET.
            xfam: 0x6_1ae7,
            mr_td: [0x7d; 48],
            mr_config_id: [0; 48],
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            rtmr: [[0xa0; 48], [0xa1; 48], [0xa2; 48], [0; 48]],
            report_data: [0; 64],
            v1_5: None,
        }
    }

    /// The same as a 1.5 body.
    pub fn v1_5() -> Self {
        let report = Self::v1_0();
        Self {
            v1_5: Some(Td15 {
                tee_tcb_svn_2: report.tee_tcb_svn,
                mr_service_td: [0; 48],
            }),
            ..report
        }
    }

    /// 584 or 648 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = [
            &self.tee_tcb_svn[..],
            &self.mr_seam,
            &self.mr_signer_seam,
            &self.seam_attributes,
            &self.td_attributes.to_le_bytes(),
            &self.xfam.to_le_bytes(),
            &self.mr_td,
            &self.mr_config_id,
            &self.mr_owner,
            &self.mr_owner_config,
            self.rtmr.as_flattened(),
            &self.report_data,
        ]
        .concat();
        if let Some(more) = &self.v1_5 {
            out.extend_from_slice(&more.tee_tcb_svn_2);
            out.extend_from_slice(&more.mr_service_td);
        }
        out
    }
}

/// The quoting enclave's report (an SGX REPORT body). Every field may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QeReport {
    /// 0x000
    pub cpu_svn: [u8; 16],
    /// 0x010
    pub misc_select: u32,
    /// 0x030
    pub attributes: [u8; 16],
    /// 0x040
    pub mr_enclave: [u8; 32],
    /// 0x080
    pub mr_signer: [u8; 32],
    /// 0x100
    pub isv_prod_id: u16,
    /// 0x102
    pub isv_svn: u16,
    /// 0x140. `None`: SHA-256 of attestation key and authentication data, then zeros.
    pub report_data: Option<[u8; 64]>,
    /// Bytes written over the finished report before it is signed: (offset, bytes). For reserved fields.
    pub patches: Vec<(usize, Vec<u8>)>,
}

impl QeReport {
    /// A quoting enclave of Intel's, by what its report says: INIT, MODE64BIT, PROVISION_KEY; MRSIGNER and ISVPRODID as in
    /// Intel's identity of it, a security version above all that Intel had given by the end of 2026.
    pub fn new() -> Self {
        let mut attributes = [0; 16];
        (attributes[0], attributes[8]) = (0x15, 0xe7);
        Self {
            cpu_svn: [0; 16],
            misc_select: 0,
            attributes,
            mr_enclave: [0x0e; 32],
            mr_signer: [
                0xdc, 0x9e, 0x2a, 0x7c, 0x6f, 0x94, 0x8f, 0x17, 0x47, 0x4e, 0x34, 0xa7, 0xfc, 0x43,
                0xed, 0x03, 0x0f, 0x7c, 0x15, 0x63, 0xf1, 0xba, 0xbd, 0xdf, 0x63, 0x40, 0xc8, 0x2e,
                0x0e, 0x54, 0xa8, 0xc5,
            ],
            isv_prod_id: 2,
            isv_svn: 10,
            report_data: None,
            patches: Vec::new(),
        }
    }

    /// The 384 bytes, with this hash in REPORT_DATA unless it says otherwise.
    ///
    /// # Panics
    /// When a patch does not fit.
    fn to_bytes(&self, hash: &[u8]) -> Vec<u8> {
        let mut out = vec![0; QE_REPORT_LENGTH];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x000, &self.cpu_svn);
        put(0x010, &self.misc_select.to_le_bytes());
        put(0x030, &self.attributes);
        put(0x040, &self.mr_enclave);
        put(0x080, &self.mr_signer);
        put(0x100, &self.isv_prod_id.to_le_bytes());
        put(0x102, &self.isv_svn.to_le_bytes());
        match &self.report_data {
            Some(report_data) => put(0x140, report_data),
            None => put(0x140, hash),
        }
        for (at, bytes) in &self.patches {
            put(*at, bytes);
        }
        out
    }
}

impl Default for QeReport {
    fn default() -> Self {
        Self::new()
    }
}

/// A quote before it is signed. Every field may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The header.
    pub header: Header,
    /// Version 5: the body's type, 2 for TDX 1.0, 3 for 1.5. `None`: as the body is.
    pub body_type: Option<u16>,
    /// Version 5: the body's declared length. `None`: as the body is.
    pub body_length: Option<u32>,
    /// The body.
    pub report: TdReport,
    /// Bytes written over header and body before they are signed: (offset from the quote's beginning, bytes).
    pub patches: Vec<(usize, Vec<u8>)>,
    /// The quoting enclave's report.
    pub qe_report: QeReport,
    /// Authentication data: Intel's enclave writes 32 bytes.
    pub qe_auth_data: Vec<u8>,
    /// Type of the outer certification data; 6 is "QE report certification data".
    pub certification_type: u16,
    /// Type of the inner one; 5 is "PCK certificate chain", PEM.
    pub pck_type: u16,
    /// What the inner one holds: PCK certificate, PCK CA, root, PEM; Intel ends it with a zero byte.
    pub pck_chain: Vec<u8>,
    /// An attestation key, `x ‖ y`, to be written in place of that of the key which signs.
    pub attestation_key: Option<[u8; 64]>,
    /// Lengths to be written in place of the true ones.
    pub lengths: Lengths,
    /// Bytes after the end; empty is honest.
    pub trailing: Vec<u8>,
}

/// Lengths declared in the part that follows the body. `None`: the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Of everything after it.
    pub signature_data: Option<u32>,
    /// Of the outer certification data.
    pub certification: Option<u32>,
    /// Of the authentication data.
    pub qe_auth_data: Option<u16>,
    /// Of the inner certification data.
    pub pck_chain: Option<u32>,
}

impl Quote {
    /// A quote of this version over this body.
    pub fn new(version: u16, report: TdReport, pck_chain: &str) -> Self {
        let mut user_data = [0; 20];
        user_data[..16].copy_from_slice(&[0x1d; 16]);
        Self {
            header: Header {
                version,
                attestation_key_type: 2,
                tee_type: 0x81,
                reserved: [0; 4],
                qe_vendor_id: Header::INTEL,
                user_data,
            },
            body_type: None,
            body_length: None,
            report,
            patches: Vec::new(),
            qe_report: QeReport::new(),
            qe_auth_data: (0..32).collect(),
            certification_type: 6,
            pck_type: 5,
            pck_chain: [pck_chain.as_bytes(), &[0]].concat(),
            attestation_key: None,
            lengths: Lengths::default(),
            trailing: Vec::new(),
        }
    }

    /// Header and body: what the attestation key signs.
    ///
    /// # Panics
    /// When a patch does not fit.
    pub fn to_be_signed(&self) -> Vec<u8> {
        let body = self.report.to_bytes();
        let mut out = self.header.to_bytes();
        if self.header.version >= 5 {
            let kind = if self.report.v1_5.is_some() { 3 } else { 2 };
            out.extend_from_slice(&self.body_type.unwrap_or(kind).to_le_bytes());
            let length = self.body_length.unwrap_or(body.len() as u32);
            out.extend_from_slice(&length.to_le_bytes());
        }
        out.extend_from_slice(&body);
        for (at, bytes) in &self.patches {
            out[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        out
    }

    /// The quote: header and body signed by `attestation_key`, the quoting enclave's report by `pck`, whoever's keys
    /// they are.
    ///
    /// # Panics
    /// When a patch does not fit, or with keys that are not on P-256.
    pub fn sign(&self, attestation_key: &EcKey, pck: &EcKey) -> Vec<u8> {
        let mut out = self.to_be_signed();
        let signature = attestation_key.sign(&out);
        let written_key = match &self.attestation_key {
            Some(key) => key,
            None => &attestation_key.public_key()[1..],
        };
        let hash = digest(&SHA256, &[written_key, &self.qe_auth_data].concat());
        let qe_report = self.qe_report.to_bytes(hash.as_ref());
        let auth_length = self.qe_auth_data.len() as u16;
        let inner = [
            &qe_report[..],
            // Intel's enclave has its report signed when it makes its key, not for each quote.
            &pck.sign_once(&qe_report),
            &(self.lengths.qe_auth_data.unwrap_or(auth_length)).to_le_bytes(),
            &self.qe_auth_data,
            &self.pck_type.to_le_bytes(),
            &length(self.lengths.pck_chain, &self.pck_chain),
            &self.pck_chain,
        ]
        .concat();
        let signature_data = [
            &signature[..],
            written_key,
            &self.certification_type.to_le_bytes(),
            &length(self.lengths.certification, &inner),
            &inner,
        ]
        .concat();
        out.extend_from_slice(&length(self.lengths.signature_data, &signature_data));
        out.extend_from_slice(&signature_data);
        out.extend_from_slice(&self.trailing);
        out
    }
}

fn length(told: Option<u32>, bytes: &[u8]) -> [u8; 4] {
    told.unwrap_or(bytes.len() as u32).to_le_bytes()
}
