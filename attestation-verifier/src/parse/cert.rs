//! X.509 certificates of AMD's and Intel's hierarchies, as far as their form goes (RFC 5280, AMD 57230, Intel SGX PCK
//! Certificate and CRL Profile).
//!
//! [`Certificate::parse`] accepts one DER encoding of a version 3 certificate and nothing that
//! could be written differently without breaking its signature: strict DER throughout, the
//! signature algorithm said twice in the same bytes, no extension twice, no unused bits.

use std::collections::BTreeSet;
use std::ops::Range;

use thiserror::Error;
use touchstone_formats::text::hex_encode;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::der::{self, BIT_STRING, BOOLEAN, DerError, INTEGER, NULL, OID, Reader, SEQUENCE};

/// Why bytes are not a certificate or CRL that is well-formed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CertError {
    /// Not strict DER.
    #[error(transparent)]
    Der(#[from] DerError),
    /// DER, and not what it should be.
    #[error("{0}")]
    Form(String),
    /// An extension that stands there twice.
    #[error("the extension {0} twice")]
    Twice(String),
    /// An extension that has to be there and is not.
    #[error("no extension {0}")]
    Missing(&'static str),
    /// An extension whose value is not of its form.
    #[error("the extension {name} is {found}; expected {expected}")]
    Extension {
        /// Its name in the vendor's specification, or its OID.
        name: String,
        /// The value, hex.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
}

/// A subject's public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// DER of an RSAPublicKey (PKCS #1).
    Rsa(Vec<u8>),
    /// Uncompressed point on P-384, 97 bytes.
    P384(Vec<u8>),
    /// Uncompressed point on P-256, 65 bytes.
    P256(Vec<u8>),
    /// Anything else; nothing in either hierarchy.
    Other,
}

/// An extension, value not interpreted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Contents of the OID's encoding.
    pub oid: Vec<u8>,
    /// Dotted form, for people.
    pub name: String,
    /// Whether it is critical.
    pub critical: bool,
    /// Contents of the OCTET STRING.
    pub value: Vec<u8>,
}

/// A well-formed certificate. Nothing says yet that it is genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    tbs: Range<usize>,
    /// Contents of the signature BIT STRING.
    pub signature: Vec<u8>,
    /// Both algorithm identifiers say RSASSA-PSS with SHA-384, MGF1 of SHA-384, 48 bytes of salt.
    pub signed_with_pss_sha384: bool,
    /// Both algorithm identifiers say ECDSA with SHA-256.
    pub signed_with_ecdsa_sha256: bool,
    /// Serial number, contents of the INTEGER.
    pub serial: Vec<u8>,
    /// DER of the issuer's name.
    pub issuer: Vec<u8>,
    /// DER of the subject's name.
    pub subject: Vec<u8>,
    /// The issuer's name, for people.
    pub issuer_words: String,
    /// The issuer's common name; empty if it has none or several.
    pub issuer_cn: String,
    /// The subject's name, for people.
    pub subject_words: String,
    /// The subject's common name; empty if it has none or several.
    pub subject_cn: String,
    /// First second of validity, Unix time.
    pub not_before: u64,
    /// Last second of validity, Unix time.
    pub not_after: u64,
    /// The subject's public key.
    pub key: PublicKey,
    /// basicConstraints: `None` if absent, else cA and the path length.
    pub basic_constraints: Option<(bool, Option<u32>)>,
    /// keyUsage: `None` if absent, else its flags (bit 0 digitalSignature … bit 5 keyCertSign,
    /// bit 6 cRLSign).
    pub key_usage: Option<u16>,
    /// All extensions, in order, no OID twice.
    pub extensions: Vec<Extension>,
}

/// `digitalSignature` in [`Certificate::key_usage`].
pub const DIGITAL_SIGNATURE: u16 = 1 << 0;
/// `keyCertSign` in [`Certificate::key_usage`].
pub const KEY_CERT_SIGN: u16 = 1 << 5;
/// `cRLSign` in [`Certificate::key_usage`].
pub const CRL_SIGN: u16 = 1 << 6;

pub(crate) const OID_BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
pub(crate) const OID_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];

impl Certificate {
    /// Reads one certificate, exactly.
    ///
    /// # Errors
    /// [`CertError`] says which rule of form is broken.
    pub fn parse(bytes: &[u8]) -> Result<Certificate, CertError> {
        if bytes.len() > LONGEST {
            return Err(CertError::Form("a certificate of over 16 KiB".into()));
        }
        let outer = Outer::split(bytes)?;
        // Version 3 writes [0] first; what follows is serial number, then the algorithm.
        let mut inner = outer.tbs_reader;
        inner.optional(0xa0)?;
        inner.expect(INTEGER)?;
        outer.same_algorithm(inner.expect(SEQUENCE)?.whole)?;

        let (rest, parsed) = X509Certificate::from_der(bytes).map_err(|e| form(&e))?;
        if !rest.is_empty() {
            return Err(CertError::Form("bytes after the certificate".into()));
        }
        let tbs = &parsed.tbs_certificate;
        if tbs.version() != X509Version::V3 {
            return Err(CertError::Form(format!(
                "version {}, expected 3",
                tbs.version().0 + 1
            )));
        }
        if tbs.issuer_uid.is_some() || tbs.subject_uid.is_some() {
            return Err(CertError::Form("a unique identifier".into()));
        }
        // RFC 5280 §4.1.2.2 allows 20 bytes, and Intel's serial numbers use every bit of them.
        if tbs.serial.bits() > 160 || tbs.raw_serial().first().is_some_and(|b| b & 0x80 != 0) {
            return Err(CertError::Form(
                "a serial number negative or over 20 bytes".into(),
            ));
        }
        let (not_before, not_after) = (tbs.validity().not_before, tbs.validity().not_after);
        let mut basic_constraints = None;
        let mut key_usage = None;
        for extension in tbs.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(bc) => {
                    constraints_of_own_types(extension.value)?;
                    basic_constraints = Some((bc.ca, bc.path_len_constraint));
                }
                ParsedExtension::KeyUsage(usage) => {
                    Reader::new(extension.value).expect(BIT_STRING)?;
                    key_usage = Some(usage.flags);
                }
                ParsedExtension::ParseError { .. } => {
                    return Err(CertError::Extension {
                        name: extension.oid.to_id_string(),
                        found: shown(extension.value),
                        expected: "the value its standard defines",
                    });
                }
                _ => {}
            }
        }
        Ok(Certificate {
            der: bytes.to_vec(),
            tbs: outer.tbs.clone(),
            signature: outer.signature.to_vec(),
            signed_with_pss_sha384: is_pss_sha384(outer.algorithm),
            signed_with_ecdsa_sha256: is_ecdsa_sha256(outer.algorithm),
            serial: tbs.raw_serial().to_vec(),
            issuer: tbs.issuer().as_raw().to_vec(),
            subject: tbs.subject().as_raw().to_vec(),
            issuer_words: name_words(tbs.issuer())?,
            issuer_cn: common_name(tbs.issuer()),
            subject_words: name_words(tbs.subject())?,
            subject_cn: common_name(tbs.subject()),
            not_before: unix(not_before),
            not_after: unix(not_after),
            key: public_key(tbs.subject_pki.raw),
            basic_constraints,
            key_usage,
            extensions: extensions(tbs.extensions())?,
        })
    }

    /// The whole certificate, as it was read.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The bytes its signature is over, as they were read.
    pub fn tbs(&self) -> &[u8] {
        self.der.get(self.tbs.clone()).unwrap_or_default()
    }

    /// Whether it is a CA that may sign certificates: cA true and keyCertSign.
    pub fn may_sign_certificates(&self) -> bool {
        matches!(self.basic_constraints, Some((true, _))) && self.key_may(KEY_CERT_SIGN)
    }

    /// Whether its keyUsage is there and allows this ([`KEY_CERT_SIGN`], [`CRL_SIGN`], [`DIGITAL_SIGNATURE`]).
    pub fn key_may(&self, usage: u16) -> bool {
        self.key_usage.is_some_and(|flags| flags & usage != 0)
    }

    /// A critical extension that nothing here understands.
    pub fn unknown_critical(&self) -> Option<&Extension> {
        self.extensions.iter().find(|e| {
            e.critical
                && e.oid != OID_BASIC_CONSTRAINTS
                && e.oid != OID_KEY_USAGE
                && !super::vek::is_amd(&e.oid)
        })
    }
}

/// The outer structure that certificates and CRLs share: TBS, algorithm, signature.
pub(super) struct Outer<'a> {
    pub(super) tbs: Range<usize>,
    pub(super) tbs_reader: Reader<'a>,
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
}

impl<'a> Outer<'a> {
    pub(super) fn split(bytes: &'a [u8]) -> Result<Outer<'a>, CertError> {
        let whole = der::strict(bytes)?;
        if whole.tag != SEQUENCE {
            return Err(CertError::Form("not a SEQUENCE".into()));
        }
        let mut reader = whole.reader();
        let tbs = reader.expect(SEQUENCE)?;
        let algorithm = reader.expect(SEQUENCE)?;
        let signature = reader.expect(BIT_STRING)?;
        reader.end()?;
        let Some((0, signature)) = signature.contents.split_first().map(|(n, s)| (*n, s)) else {
            return Err(CertError::Form("a signature with unused bits".into()));
        };
        let start = bytes.len() - whole.contents.len();
        Ok(Outer {
            tbs: start..start + tbs.whole.len(),
            tbs_reader: tbs.reader(),
            algorithm: algorithm.whole,
            signature,
        })
    }

    /// RFC 5280 §4.1.1.2: the algorithm is said twice. The outer one is not signed, so it has to
    /// be the same bytes.
    pub(super) fn same_algorithm(&self, inner: &[u8]) -> Result<(), CertError> {
        if inner == self.algorithm {
            return Ok(());
        }
        Err(CertError::Form(
            "signature algorithms inside and outside differ".into(),
        ))
    }
}

/// Bytes in an error: whoever made them does not decide how long it gets.
pub(super) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 96;
    match bytes.get(..MOST) {
        Some(start) if bytes.len() > MOST => {
            format!("{} bytes beginning {}", bytes.len(), hex_encode(start))
        }
        _ => hex_encode(bytes),
    }
}

/// Longest certificate. AMD's and Intel's have less than 2 KiB; what is read of one takes twenty times its room.
const LONGEST: usize = 16 << 10;
/// Longest name, DER. AMD's have about 120 bytes.
const LONGEST_NAME: usize = 512;

/// A name in words, for people.
pub(super) fn name_words(name: &X509Name<'_>) -> Result<String, CertError> {
    if name.as_raw().len() > LONGEST_NAME {
        return Err(CertError::Form(format!(
            "a name of over {LONGEST_NAME} bytes"
        )));
    }
    Ok(name.to_string())
}

pub(super) fn form(error: &dyn std::fmt::Display) -> CertError {
    CertError::Form(error.to_string())
}

pub(super) fn unix(time: ASN1Time) -> u64 {
    // Before 1970 means "since ever" to us.
    u64::try_from(time.timestamp()).unwrap_or(0)
}

pub(super) fn extensions(parsed: &[X509Extension<'_>]) -> Result<Vec<Extension>, CertError> {
    well_formed(parsed)?;
    Ok(parsed.iter().map(extension).collect())
}

/// The first critical one, if all are well-formed.
pub(super) fn critical(parsed: &[X509Extension<'_>]) -> Result<Option<Extension>, CertError> {
    well_formed(parsed)?;
    Ok(parsed.iter().find(|e| e.critical).map(extension))
}

/// basicConstraints is a SEQUENCE of a BOOLEAN and an INTEGER, each left out perhaps (RFC 5280 §4.2.1.9). A reader that goes by the
/// numbers of tags takes those of another class for them.
fn constraints_of_own_types(value: &[u8]) -> Result<(), DerError> {
    let mut inner = Reader::new(value).expect(SEQUENCE)?.reader();
    inner.optional(BOOLEAN)?;
    inner.optional(INTEGER)?;
    inner.end()
}

pub(super) fn extension(parsed: &X509Extension<'_>) -> Extension {
    Extension {
        oid: parsed.oid.as_bytes().to_vec(),
        name: parsed.oid.to_id_string(),
        critical: parsed.critical,
        value: parsed.value.to_vec(),
    }
}

fn well_formed(parsed: &[X509Extension<'_>]) -> Result<(), CertError> {
    // A set: a megabyte of collateral has room for a hundred thousand extensions.
    let mut seen = BTreeSet::new();
    for extension in parsed {
        let oid = extension.oid.as_bytes();
        if !seen.insert(oid) {
            return Err(CertError::Twice(extension.oid.to_id_string()));
        }
        // Values of the standard's own extensions (2.5.29.…) are DER; AMD's HWID is not.
        if oid.starts_with(&[0x55, 0x1d]) {
            der::strict(extension.value)?;
        }
    }
    Ok(())
}

fn common_name(name: &X509Name<'_>) -> String {
    let mut names = name.iter_common_name();
    match (names.next().map(|cn| cn.as_str()), names.next()) {
        (Some(Ok(cn)), None) => cn.to_owned(),
        _ => String::new(),
    }
}

const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Reads a SubjectPublicKeyInfo (already strict DER).
fn public_key(spki: &[u8]) -> PublicKey {
    read_key(spki).ok().flatten().unwrap_or(PublicKey::Other)
}

fn read_key(spki: &[u8]) -> Result<Option<PublicKey>, DerError> {
    let mut reader = Reader::new(spki).expect(SEQUENCE)?.reader();
    let mut algorithm = reader.expect(SEQUENCE)?.reader();
    let key = reader.expect(BIT_STRING)?.contents;
    reader.end()?;
    let Some((0, key)) = key.split_first().map(|(unused, key)| (*unused, key)) else {
        return Ok(None);
    };
    match algorithm.expect(OID)?.contents {
        OID_RSA => {
            // RFC 3279 §2.3.1: the parameters are NULL. The key is DER inside the BIT STRING, modulus and exponent:
            // a library that would take it in another form as well is not asked.
            algorithm.expect(NULL)?;
            algorithm.end()?;
            der::strict(key)?;
            let mut numbers = Reader::new(key).expect(SEQUENCE)?.reader();
            numbers.expect(INTEGER)?;
            numbers.expect(INTEGER)?;
            numbers.end()?;
            Ok(Some(PublicKey::Rsa(key.to_vec())))
        }
        OID_EC => {
            let curve = algorithm.expect(OID)?.contents;
            algorithm.end()?;
            Ok(match (curve, key) {
                (OID_P384, [4, point @ ..]) if point.len() == 96 => {
                    Some(PublicKey::P384(key.to_vec()))
                }
                (OID_P256, [4, point @ ..]) if point.len() == 64 => {
                    Some(PublicKey::P256(key.to_vec()))
                }
                _ => None,
            })
        }
        _ => Ok(None),
    }
}

const OID_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const OID_MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
const OID_SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];

/// Whether an AlgorithmIdentifier is RSASSA-PSS with SHA-384, MGF1 of SHA-384, 48 bytes of salt
/// (AMD 57230 §3). AMD's older certificates say the default trailerField explicitly, against DER;
/// the newer ones leave it out. Both are signed that way.
pub(super) fn is_pss_sha384(algorithm: &[u8]) -> bool {
    read_pss(algorithm).is_ok_and(|right| right)
}

/// Whether an AlgorithmIdentifier is ECDSA with SHA-256, without parameters (RFC 5758 §3.2).
pub(super) fn is_ecdsa_sha256(algorithm: &[u8]) -> bool {
    const WHOLE: &[u8] = &[
        0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
    ];
    algorithm == WHOLE
}

fn read_pss(algorithm: &[u8]) -> Result<bool, DerError> {
    let mut outer = Reader::new(algorithm).expect(SEQUENCE)?.reader();
    let oid = outer.expect(OID)?.contents;
    let mut parameters = outer.expect(SEQUENCE)?.reader();
    outer.end()?;

    let mut hash = parameters.expect(0xa0)?.reader();
    let hash_right = sha384(&mut hash)?;
    hash.end()?;

    let mut mgf_tag = parameters.expect(0xa1)?.reader();
    let mut mgf = mgf_tag.expect(SEQUENCE)?.reader();
    mgf_tag.end()?;
    let mgf_right = mgf.expect(OID)?.contents == OID_MGF1 && sha384(&mut mgf)?;
    mgf.end()?;

    let mut salt = parameters.expect(0xa2)?.reader();
    let salt_right = salt.expect(INTEGER)?.contents == [48];
    salt.end()?;

    let trailer_right = match parameters.optional(0xa3)? {
        None => true,
        Some(tagged) => {
            let mut trailer = tagged.reader();
            let right = trailer.expect(INTEGER)?.contents == [1];
            trailer.end()?;
            right
        }
    };
    parameters.end()?;
    Ok(oid == OID_PSS && hash_right && mgf_right && salt_right && trailer_right)
}

/// The AlgorithmIdentifier of SHA-384, parameters NULL or absent (RFC 4055 §2.1).
fn sha384(reader: &mut Reader<'_>) -> Result<bool, DerError> {
    let mut algorithm = reader.expect(SEQUENCE)?.reader();
    let oid = algorithm.expect(OID)?.contents;
    algorithm.optional(NULL)?;
    algorithm.end()?;
    Ok(oid == OID_SHA384)
}
