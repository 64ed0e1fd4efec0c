//! The extensions of AMD's versioned endorsement key certificates (AMD 57230, VCEK and VLEK
//! certificate format).
//!
//! All stand under 1.3.6.1.4.1.3704.1. Those that say something this crate relies on must be
//! there exactly once; the reserved ones and the structure's version may be absent, and must be
//! well-formed where they are present.

use super::cert::{CertError, Certificate, shown};
use super::der::{IA5_STRING, INTEGER, Reader};
use crate::product::Product;

/// Contents of the OID 1.3.6.1.4.1.3704.1, AMD's arc for these extensions.
const ARC: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01];

const STRUCT_VERSION: (&[u8], &str) = (&[1], "structVersion");
const PRODUCT_NAME: (&[u8], &str) = (&[2], "productName");
const BL_SPL: (&[u8], &str) = (&[3, 1], "blSPL");
const TEE_SPL: (&[u8], &str) = (&[3, 2], "teeSPL");
const SNP_SPL: (&[u8], &str) = (&[3, 3], "snpSPL");
const SPL_4: (&[u8], &str) = (&[3, 4], "spl4");
const SPL_5: (&[u8], &str) = (&[3, 5], "spl5");
const SPL_6: (&[u8], &str) = (&[3, 6], "spl6");
const SPL_7: (&[u8], &str) = (&[3, 7], "spl7");
const UCODE_SPL: (&[u8], &str) = (&[3, 8], "ucodeSPL");
const FMC_SPL: (&[u8], &str) = (&[3, 9], "fmcSPL");
const HWID: (&[u8], &str) = (&[4], "hwID");
const CSP_ID: (&[u8], &str) = (&[5], "cspID");

/// Whether an extension's OID stands in AMD's arc.
pub(crate) fn is_amd(oid: &[u8]) -> bool {
    oid.starts_with(ARC)
}

/// Which kind of endorsement key a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VekIdentity {
    /// A VCEK: the chip's own key. Its hardware id, 64 bytes, or 8 from Turin on.
    Chip(Vec<u8>),
    /// A VLEK: a key that AMD gave to a cloud provider, named here.
    Provider(String),
}

/// What AMD's extensions say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VekExtensions {
    /// productName as it stands there, stepping and all (`Milan-B0`).
    pub product_name: String,
    /// The product of it. Certificates are known whose stepping is wrong, so it is not used.
    pub product: Product,
    /// Patch levels of the TCB the key was derived for.
    pub tcb: VekTcb,
    /// Chip or provider.
    pub identity: VekIdentity,
}

/// Patch levels, as the extensions say them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VekTcb {
    /// fmcSPL; from Turin on.
    pub fmc: Option<u8>,
    /// blSPL.
    pub bootloader: u8,
    /// teeSPL.
    pub tee: u8,
    /// snpSPL.
    pub snp: u8,
    /// ucodeSPL.
    pub microcode: u8,
}

impl VekExtensions {
    /// Reads the extensions of an endorsement key's certificate.
    ///
    /// # Errors
    /// [`CertError`] names the extension that is missing or not of its form.
    pub fn read(certificate: &Certificate) -> Result<VekExtensions, CertError> {
        let find = |(suffix, _): (&[u8], &str)| {
            let mut oid = ARC.to_vec();
            oid.extend_from_slice(suffix);
            certificate
                .extensions
                .iter()
                .find(|e| e.oid == oid)
                .map(|e| e.value.as_slice())
        };
        let required =
            |which: (&'static [u8], &'static str)| find(which).ok_or(CertError::Missing(which.1));
        let level = |which| required(which).and_then(|value| small(which.1, value));
        let optional = |which: (&'static [u8], &'static str)| {
            find(which).map(|value| small(which.1, value)).transpose()
        };

        optional(STRUCT_VERSION)?;
        let product_name = text(PRODUCT_NAME.1, required(PRODUCT_NAME)?)?;
        let Some(product) = product_of(&product_name) else {
            return Err(CertError::Extension {
                name: PRODUCT_NAME.1.into(),
                found: product_name,
                expected: "Milan, Genoa or Turin, with or without a stepping",
            });
        };
        for reserved in [SPL_4, SPL_5, SPL_6, SPL_7] {
            // Reserved components of a TCB version are zero (ABI 56860, TCB_VERSION).
            if optional(reserved)?.is_some_and(|level| level != 0) {
                return Err(CertError::Extension {
                    name: reserved.1.into(),
                    found: "not zero".into(),
                    expected: "zero: it is reserved",
                });
            }
        }
        let fmc = optional(FMC_SPL)?;
        if fmc.is_some() != product.has_fmc() {
            return Err(match fmc {
                None => CertError::Missing(FMC_SPL.1),
                Some(found) => CertError::Extension {
                    name: FMC_SPL.1.into(),
                    found: found.to_string(),
                    expected: "absent: this product has no FMC",
                },
            });
        }
        let tcb = VekTcb {
            fmc,
            bootloader: level(BL_SPL)?,
            tee: level(TEE_SPL)?,
            snp: level(SNP_SPL)?,
            microcode: level(UCODE_SPL)?,
        };
        let identity = match (find(HWID), find(CSP_ID)) {
            (Some(hwid), None) if hwid.len() == product.hwid_length() => {
                VekIdentity::Chip(hwid.to_vec())
            }
            (Some(hwid), None) => {
                return Err(CertError::Extension {
                    name: HWID.1.into(),
                    found: format!("{} bytes: {}", hwid.len(), shown(hwid)),
                    expected: "the bare hardware id: 64 bytes, or 8 from Turin on",
                });
            }
            (None, Some(csp)) => VekIdentity::Provider(text(CSP_ID.1, csp)?),
            (Some(_), Some(_)) => {
                return Err(CertError::Form(
                    "both hwID and cspID: a VCEK or a VLEK?".into(),
                ));
            }
            (None, None) => return Err(CertError::Missing("hwID or cspID")),
        };
        Ok(VekExtensions {
            product_name,
            product,
            tcb,
            identity,
        })
    }
}

/// `Milan`, `Milan-B0`: the product, and a stepping of a letter and a digit.
fn product_of(name: &str) -> Option<Product> {
    match name.split_once('-') {
        None => Product::from_name(name),
        Some((product, stepping)) => match stepping.as_bytes() {
            [b'A'..=b'Z', b'0'..=b'9'] => Product::from_name(product),
            _ => None,
        },
    }
}

fn wrong(name: &str, value: &[u8], expected: &'static str) -> CertError {
    CertError::Extension {
        name: name.into(),
        found: shown(value),
        expected,
    }
}

/// A DER INTEGER from 0 to 255, and nothing after it.
fn small(name: &'static str, value: &[u8]) -> Result<u8, CertError> {
    let expected = "a DER INTEGER from 0 to 255";
    let mut reader = Reader::new(value);
    let contents = match reader
        .expect(INTEGER)
        .and_then(|e| reader.end().map(|()| e.contents))
    {
        Ok(contents) if super::der::minimal_integer(contents) => contents,
        _ => return Err(wrong(name, value, expected)),
    };
    match contents {
        [n @ 0..=0x7f] | [0, n] => Ok(*n),
        _ => Err(wrong(name, value, expected)),
    }
}

/// A DER IA5String of 1 to 64 printable characters, and nothing after it.
fn text(name: &'static str, value: &[u8]) -> Result<String, CertError> {
    let expected = "a DER IA5String of 1 to 64 printable characters";
    let mut reader = Reader::new(value);
    let contents = match reader
        .expect(IA5_STRING)
        .and_then(|e| reader.end().map(|()| e.contents))
    {
        Ok(contents) => contents,
        Err(_) => return Err(wrong(name, value, expected)),
    };
    let printable = contents.iter().all(|b| (0x20..0x7f).contains(b));
    match std::str::from_utf8(contents) {
        Ok(text) if printable && (1..=64).contains(&contents.len()) => Ok(text.to_owned()),
        _ => Err(wrong(name, value, expected)),
    }
}
