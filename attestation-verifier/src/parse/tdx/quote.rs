//! Quotes of version 4 and 5 (Intel TDX DCAP Quoting Library API, appendix A.3 and A.4) with TD reports of
//! TDX 1.0 and 1.5.
//!
//! ```text
//! header, 48 bytes     version, key type, TEE type, 4 reserved, QE vendor, user data
//! version 5 only       body type (2 TD 1.0, 3 TD 1.5), body size
//! body, 584 or 648     what the TD says of itself               -- signed up to here by the attestation key
//! size                 of all that follows
//! signature, key       r, s, x, y
//! type 6, size         certification data:
//!   QE report, signature, size and bytes of what the QE bound, type 5, size, PEM of the PCK chain
//! ```
//!
//! Every size has to fit exactly, every reserved byte is zero, and nothing stands behind the end.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;
use touchstone_formats::text::hex_encode;

use crate::parse::cert::{CertError, Certificate};
use crate::parse::pem::{self, PemError};
use crate::roots::Roots;

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
    pub pck_chain: Arc<[Certificate]>,
}

/// Length of a quote's header.
const HEADER_LENGTH: usize = 48;
/// Intel's vendor id of quoting enclaves.
const INTEL_QE_VENDOR: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];
/// PCK, its CA, the root.
const MOST_CERTIFICATES: usize = 3;
/// Bytes of a QE report that are reserved (Intel SDM volume 3D, table "Layout of REPORT").
const QE_RESERVED: [Range<usize>; 4] = [21..32, 96..128, 160..192, 262..304];

/// Why bytes are no quote.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QuoteError {
    /// They end too early.
    #[error("{found} bytes where {field} needs {expected}")]
    Short {
        /// What is cut off.
        field: &'static str,
        /// How many bytes are left for it.
        found: usize,
        /// How many it has.
        expected: usize,
    },
    /// Bytes behind the end that the quote itself declares.
    #[error("{found} bytes after the end of {field}")]
    Trailing {
        /// What has ended.
        field: &'static str,
        /// How many bytes there are behind it.
        found: usize,
    },
    /// A number that says another kind or version.
    #[error("{field} is {found}; expected {expected}")]
    Value {
        /// Name of the field.
        field: &'static str,
        /// What it is.
        found: u32,
        /// What it may be.
        expected: &'static str,
    },
    /// The quoting enclave is another vendor's.
    #[error("QE vendor id is {}; expected Intel's, 939a7233f79c4ca9940a0db3957f0607", hex_encode(.found))]
    Vendor {
        /// What it is.
        found: [u8; 16],
    },
    /// A byte that must be zero is not.
    #[error("byte {offset} of {field} is 0x{found:02x}; reserved, must be zero")]
    Reserved {
        /// The header or the QE report.
        field: &'static str,
        /// Offset in it.
        offset: usize,
        /// The byte.
        found: u8,
    },
    /// The PCK chain is not PEM of two or three certificates.
    #[error("PCK chain: {0}")]
    Pem(#[from] PemError),
    /// A certificate of the PCK chain is not well-formed.
    #[error("PCK chain, certificate {index}: {error}")]
    Certificate {
        /// Its place, from 1.
        index: usize,
        /// What is wrong with it.
        error: CertError,
    },
}

impl Quote {
    /// Reads a quote: every rule of form, no judgement.
    ///
    /// # Errors
    /// [`QuoteError`] names the first rule that is broken.
    pub fn parse(bytes: &[u8]) -> Result<Quote, QuoteError> {
        Quote::parse_with(bytes, |pem| pck_chain(pem, &Roots::none()))
    }

    /// The same; `read` reads the PEM of the PCK chain, as [`pck_chain`] does.
    pub(super) fn parse_with(
        bytes: &[u8],
        read: impl FnOnce(&[u8]) -> Result<Arc<[Certificate]>, QuoteError>,
    ) -> Result<Quote, QuoteError> {
        let mut reader = Bytes(bytes);
        let mut header = Bytes(reader.take("the header", HEADER_LENGTH)?);
        let version = header.u16("the version")?;
        if !matches!(version, 4 | 5) {
            return Err(value("the version", version, "4 or 5"));
        }
        let key_type = header.u16("the attestation key type")?;
        if key_type != 2 {
            let expected = "2 (ECDSA with P-256)";
            return Err(value("the attestation key type", key_type, expected));
        }
        let tee_type = header.u32("the TEE type")?;
        if tee_type != 0x81 {
            return Err(value("the TEE type", tee_type, "129 (TDX); 0 is SGX"));
        }
        for (offset, found) in (8..).zip(header.array::<4>("the header")?) {
            if found != 0 {
                let field = "the header";
                return Err(QuoteError::Reserved {
                    field,
                    offset,
                    found,
                });
            }
        }
        let found = header.array("the QE vendor id")?;
        if found != INTEL_QE_VENDOR {
            return Err(QuoteError::Vendor { found });
        }
        let user_data = header.array("the user data")?;

        let td = if version == 4 {
            TdVersion::V1_0
        } else {
            body_of_version_5(&mut reader)?
        };
        let body = reader.take("the body", td.length())?;
        let report = TdReport::read(td, body)?;
        let signed = bytes.len() - reader.0.len();
        let signed = bytes.get(..signed).unwrap_or_default().to_vec();

        let size = reader.u32("the size of the signature data")?;
        let mut data = Bytes(reader.sized("the signature data", size)?);
        reader.end("the quote")?;
        let signature = data.array("the signature")?;
        let attestation_key = data.array("the attestation key")?;
        let mut certification = data.certification(6, "6 (QE report and its certification)")?;
        data.end("the certification data")?;
        let qe_report = QeReport::read(certification.array("the QE report")?)?;
        let qe_report_signature = certification.array("the QE report's signature")?;
        let size = certification.u16("the size of the QE's authentication data")?;
        let field = "the QE's authentication data";
        let qe_auth_data = certification.take(field, usize::from(size))?.to_vec();
        let chain = certification.certification(5, "5 (PCK chain)")?;
        certification.end("the PCK chain")?;
        Ok(Quote {
            version,
            user_data,
            report,
            signed,
            signature,
            attestation_key,
            qe_report,
            qe_report_signature,
            qe_auth_data,
            pck_chain: read(chain.0)?,
        })
    }
}

/// Where a quote has its body, if its header says that it is of a version that is read here.
pub(crate) fn body(quote: &[u8]) -> Option<Range<usize>> {
    let (start, td) = match quote {
        [4, 0, ..] => (HEADER_LENGTH, TdVersion::V1_0),
        [5, 0, rest @ ..] => {
            let mut after = Bytes(rest.get(HEADER_LENGTH - 2..)?);
            let td = body_of_version_5(&mut after).ok()?;
            (quote.len() - after.0.len(), td)
        }
        _ => return None,
    };
    Some(start..start + td.length())
}

/// Body type and size, which stand before the body since version 5 (A.4.2).
fn body_of_version_5(reader: &mut Bytes<'_>) -> Result<TdVersion, QuoteError> {
    let td = match reader.u16("the body type")? {
        2 => TdVersion::V1_0,
        3 => TdVersion::V1_5,
        other => {
            let expected = "2 (TD 1.0) or 3 (TD 1.5)";
            return Err(value("the body type", other, expected));
        }
    };
    let size = reader.u32("the body size")?;
    let expected = match td {
        TdVersion::V1_0 => "584",
        TdVersion::V1_5 => "648",
    };
    if usize::try_from(size) == Ok(td.length()) {
        Ok(td)
    } else {
        Err(value("the body size", size, expected))
    }
}

fn value(field: &'static str, found: impl Into<u32>, expected: &'static str) -> QuoteError {
    QuoteError::Value {
        field,
        found: found.into(),
        expected,
    }
}

/// The certificates, PCK's first. Intel's library ends the PEM with a zero byte, as C does its strings.
pub(super) fn pck_chain(pem: &[u8], roots: &Roots) -> Result<Arc<[Certificate]>, QuoteError> {
    let pem = pem.strip_suffix(&[0]).unwrap_or(pem);
    let ders = pem::certificates(pem, MOST_CERTIFICATES)?;
    if ders.len() < 2 {
        return Err(PemError::Count {
            found: ders.len(),
            expected: "the PCK's, its CA's and perhaps the root's",
        }
        .into());
    }
    (1..)
        .zip(ders)
        .map(|(index, der)| {
            if let Some(root) = roots.find(&der) {
                return Ok(root.clone());
            }
            Certificate::parse(&der).map_err(|error| QuoteError::Certificate { index, error })
        })
        .collect()
}

impl TdVersion {
    /// Length of the report in bytes.
    pub fn length(self) -> usize {
        match self {
            TdVersion::V1_0 => 584,
            TdVersion::V1_5 => 648,
        }
    }
}

impl TdReport {
    fn read(version: TdVersion, body: &[u8]) -> Result<TdReport, QuoteError> {
        let mut body = Bytes(body);
        let field = "the body";
        let report = TdReport {
            version,
            tee_tcb_svn: body.array(field)?,
            mr_seam: body.array(field)?,
            mr_signer_seam: body.array(field)?,
            seam_attributes: body.array(field)?,
            td_attributes: u64::from_le_bytes(body.array(field)?),
            xfam: u64::from_le_bytes(body.array(field)?),
            mr_td: body.array(field)?,
            mr_config_id: body.array(field)?,
            mr_owner: body.array(field)?,
            mr_owner_config: body.array(field)?,
            rtmr: [
                body.array(field)?,
                body.array(field)?,
                body.array(field)?,
                body.array(field)?,
            ],
            report_data: body.array(field)?,
            tee_tcb_svn_2: match version {
                TdVersion::V1_0 => None,
                TdVersion::V1_5 => Some(body.array(field)?),
            },
            mr_service_td: match version {
                TdVersion::V1_0 => None,
                TdVersion::V1_5 => Some(body.array(field)?),
            },
        };
        body.end(field)?;
        Ok(report)
    }
}

impl QeReport {
    fn read(raw: [u8; QE_REPORT_LENGTH]) -> Result<QeReport, QuoteError> {
        let field = "the QE report";
        for range in QE_RESERVED {
            let reserved = raw.iter().enumerate().take(range.end).skip(range.start);
            for (offset, &found) in reserved {
                if found != 0 {
                    return Err(QuoteError::Reserved {
                        field,
                        offset,
                        found,
                    });
                }
            }
        }
        Ok(QeReport { raw })
    }
}

/// Bytes not yet read; integers are little-endian.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, field: &'static str, expected: usize) -> Result<&'a [u8], QuoteError> {
        let Some((taken, rest)) = self.0.split_at_checked(expected) else {
            return Err(QuoteError::Short {
                field,
                found: self.0.len(),
                expected,
            });
        };
        self.0 = rest;
        Ok(taken)
    }

    /// As many bytes as a 32-bit size says.
    fn sized(&mut self, field: &'static str, size: u32) -> Result<&'a [u8], QuoteError> {
        self.take(field, usize::try_from(size).unwrap_or(usize::MAX))
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], QuoteError> {
        let taken = self.take(field, N)?;
        let mut out = [0; N];
        for (to, from) in out.iter_mut().zip(taken) {
            *to = *from;
        }
        Ok(out)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, QuoteError> {
        self.array(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, QuoteError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// Certification data of one type: type, size, and that many bytes (A.3.9).
    fn certification(
        &mut self,
        kind: u16,
        expected: &'static str,
    ) -> Result<Bytes<'a>, QuoteError> {
        let found = self.u16("the certification data type")?;
        if found != kind {
            return Err(value("the certification data type", found, expected));
        }
        let size = self.u32("the size of the certification data")?;
        self.sized("the certification data", size).map(Bytes)
    }

    fn end(&self, field: &'static str) -> Result<(), QuoteError> {
        match self.0.len() {
            0 => Ok(()),
            found => Err(QuoteError::Trailing { field, found }),
        }
    }
}
