//! What a liar can make of genuine certificates and revocation lists: the same text, with keys and signatures of his own.
//!
//! Keys are ECDSA, of this run alone. AMD's certificates are signed by RSASSA-PSS, for which this program cannot make keys: in
//! AMD's place the liar signs by ECDSA, or leaves the genuine signature standing.

use attestation_verifier::parse::cert::{Certificate, PublicKey};
use attestation_verifier::parse::crl::Crl;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair,
};
use touchstone_formats::text::base64_encode;

/// ecdsa-with-SHA256 and ecdsa-with-SHA384 (RFC 5758 §3.2), as AlgorithmIdentifiers.
const ECDSA_SHA256: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];
const ECDSA_SHA384: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03,
];
/// A SubjectPublicKeyInfo of P-384 up to its point (RFC 5480 §2).
const P384_INFO: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];

/// A key of the liar's own.
pub struct Key {
    pkcs8: Vec<u8>,
    fixed: &'static EcdsaSigningAlgorithm,
    asn1: &'static EcdsaSigningAlgorithm,
    algorithm: [u8; 12],
    point: Vec<u8>,
}

impl Key {
    /// A key on P-256, as in Intel's hierarchy.
    pub fn p256() -> Option<Key> {
        Key::new(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            ECDSA_SHA256,
        )
    }

    /// A key on P-384, as AMD's chips have.
    pub fn p384() -> Option<Key> {
        Key::new(
            &ECDSA_P384_SHA384_FIXED_SIGNING,
            &ECDSA_P384_SHA384_ASN1_SIGNING,
            ECDSA_SHA384,
        )
    }

    fn new(
        fixed: &'static EcdsaSigningAlgorithm,
        asn1: &'static EcdsaSigningAlgorithm,
        algorithm: [u8; 12],
    ) -> Option<Key> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(fixed, &random).ok()?;
        let pkcs8 = document.as_ref().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(fixed, &pkcs8, &random).ok()?;
        let point = pair.public_key().as_ref().to_vec();
        Some(Key {
            pkcs8,
            fixed,
            asn1,
            algorithm,
            point,
        })
    }

    /// The public key, an uncompressed point.
    pub fn point(&self) -> &[u8] {
        &self.point
    }

    /// r ‖ s, big-endian.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.signature(self.fixed, message)
    }

    fn signature(
        &self,
        algorithm: &'static EcdsaSigningAlgorithm,
        message: &[u8],
    ) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &self.pkcs8, &random).ok()?;
        let signature = pair.sign(&random, message).ok()?;
        Some(signature.as_ref().to_vec())
    }

    /// A SIGNED of X.509: what is signed, the algorithm, the signature.
    fn signed(&self, tbs: &[u8]) -> Option<Vec<u8>> {
        let signature = self.signature(self.asn1, tbs)?;
        let bits = element(0x03, &[&[0], signature.as_slice()].concat());
        Some(element(
            0x30,
            &[tbs, self.algorithm.as_slice(), &bits].concat(),
        ))
    }
}

/// The certificate with another key in it, and its issuer's signature left standing.
pub fn rekeyed(certificate: &[u8], key: &Key) -> Option<Vec<u8>> {
    let parsed = Certificate::parse(certificate).ok()?;
    match &parsed.key {
        PublicKey::P256(point) | PublicKey::P384(point) if point.len() == key.point.len() => {
            replaced(certificate, point, &key.point)
        }
        _ => None,
    }
}

/// The certificate with the liar's key in it, signed by the liar in its issuer's place.
pub fn reissued(certificate: &[u8], key: &Key, issuer: &Key) -> Option<Vec<u8>> {
    let parsed = Certificate::parse(certificate).ok()?;
    let tbs = match &parsed.key {
        PublicKey::P256(point) | PublicKey::P384(point) if point.len() == key.point.len() => {
            replaced(parsed.tbs(), point, &key.point)?
        }
        // An RSA key gives way to one on P-384.
        _ => with_p384_key(parsed.tbs(), key)?,
    };
    issuer.signed(&with_algorithm(&tbs, certificate, parsed.tbs(), issuer)?)
}

/// The revocation list, signed by the liar in its issuer's place; for lists that are signed by ECDSA.
pub fn reissued_list(list: &[u8], issuer: &Key) -> Option<Vec<u8>> {
    let parsed = Crl::parse(list).ok()?;
    issuer.signed(parsed.tbs())
}

/// PEM in its strict form.
pub fn pem(certificates: &[Vec<u8>]) -> String {
    let mut out = String::new();
    for der in certificates {
        out += "-----BEGIN CERTIFICATE-----\n";
        let base64 = base64_encode(der);
        let mut rest = base64.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            out += line;
            out += "\n";
            rest = after;
        }
        out += "-----END CERTIFICATE-----\n";
    }
    out
}

/// What is signed of a certificate says its algorithm too; a liar makes the two agree.
fn with_algorithm(
    tbs: &[u8],
    certificate: &[u8],
    genuine_tbs: &[u8],
    issuer: &Key,
) -> Option<Vec<u8>> {
    let (_, contents) = contents(certificate)?;
    let after = contents.get(genuine_tbs.len()..)?;
    let algorithm = after.get(..length(after)?)?;
    if algorithm == issuer.algorithm {
        return Some(tbs.to_vec());
    }
    let (tag, inner) = self::contents(tbs)?;
    Some(element(
        tag,
        &replaced(inner, algorithm, &issuer.algorithm)?,
    ))
}

fn with_p384_key(tbs: &[u8], key: &Key) -> Option<Vec<u8>> {
    let (tag, inner) = contents(tbs)?;
    // The SubjectPublicKeyInfo is the one element that begins with rsaEncryption (RFC 3279 §2.3.1).
    const RSA: [u8; 15] = [
        0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    let at = inner.windows(RSA.len()).position(|w| w == RSA)?;
    // Its header has four bytes: keys of 2048 bits and more.
    let start = at.checked_sub(4)?;
    let info = inner.get(start..)?;
    let info = info.get(..length(info)?)?;
    let own = [P384_INFO.as_slice(), &key.point].concat();
    Some(element(tag, &replaced(inner, info, &own)?))
}

/// One run of bytes in the place of another; none if that is not there.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let at = bytes.windows(old.len()).position(|w| w == old)?;
    let (before, after) = (bytes.get(..at)?, bytes.get(at + old.len()..)?);
    Some([before, new, after].concat())
}

/// An element of DER.
fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let bytes = length.to_be_bytes();
    let significant = bytes.iter().skip_while(|byte| **byte == 0);
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let significant: Vec<u8> = significant.copied().collect();
        out.push(0x80 | significant.len() as u8);
        out.extend(significant);
    }
    out.extend_from_slice(contents);
    out
}

/// Length of header and contents of the element at the beginning.
fn length(der: &[u8]) -> Option<usize> {
    let first = usize::from(*der.get(1)?);
    if first < 0x80 {
        return Some(2 + first);
    }
    let count = first & 0x7f;
    let bytes = der.get(2..2 + count.min(4))?;
    let length = bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b));
    Some(2 + count + length)
}

/// Tag and contents of the element at the beginning.
fn contents(der: &[u8]) -> Option<(u8, &[u8])> {
    let whole = length(der)?;
    let first = *der.get(1)?;
    let header = if first < 0x80 {
        2
    } else {
        2 + usize::from(first & 0x7f)
    };
    Some((*der.first()?, der.get(header..whole)?))
}
