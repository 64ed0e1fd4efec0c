//! DSSE v1: what is signed, and signatures over it.

use super::PublicKey;
use super::statement::Statement;
use crate::crypto::p256_sha256_der;

/// `payloadType` of the envelope (in-toto attestation framework v1, Envelope).
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Pre-authentication encoding (DSSE v1.0.2, protocol): the bytes that a signature is over.
pub fn pae(payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {PAYLOAD_TYPE} {} ",
        PAYLOAD_TYPE.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

/// A signature that is none of this key over this manifest, in any form that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "these {found} bytes are no signature of key {key} over this manifest, neither as DER nor as r and s of 32 bytes each"
)]
pub struct NotSigned {
    /// Its length, bytes.
    pub found: usize,
    /// The key.
    pub key: PublicKey,
}

/// How a signer wrote his signature. A manifest has DER alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureForm {
    /// DER of an Ecdsa-Sig-Value (RFC 3279 §2.2.3).
    Der,
    /// r and s, big-endian, 32 bytes each (IEEE P1363), as PKCS#11 has it.
    Raw,
}

impl Statement {
    /// The bytes to sign: ECDSA P-256 with SHA-256 over them.
    pub fn to_sign(&self) -> Vec<u8> {
        pae(self.payload())
    }
}

/// The signature as DER, verified; it may come as r and s too.
pub(super) fn settle(
    key: &PublicKey,
    message: &[u8],
    signature: &[u8],
) -> Result<(Vec<u8>, SignatureForm), NotSigned> {
    if verify(key, message, signature) {
        return Ok((signature.to_vec(), SignatureForm::Der));
    }
    if let Ok(raw) = <&[u8; 64]>::try_from(signature) {
        let der = der(raw);
        if verify(key, message, &der) {
            return Ok((der, SignatureForm::Raw));
        }
    }
    Err(NotSigned {
        found: signature.len(),
        key: *key,
    })
}

pub(super) fn verify(key: &PublicKey, message: &[u8], der: &[u8]) -> bool {
    p256_sha256_der(key.point(), message, der)
}

/// DER of r and s. Neither has more than 33 bytes, so that every length is one byte.
fn der(raw: &[u8; 64]) -> Vec<u8> {
    let (r, s) = raw.split_at(32);
    let numbers = [integer(r), integer(s)].concat();
    [&[0x30, one_byte(numbers.len())][..], &numbers].concat()
}

fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = number.get(zeros..).unwrap_or_default();
    // A leading zero keeps the number positive, and is the whole of zero.
    let positive = digits.first().is_some_and(|first| *first < 0x80);
    let sign: &[u8] = if positive { &[] } else { &[0] };
    let length = one_byte(sign.len().saturating_add(digits.len()));
    [&[0x02, length], sign, digits].concat()
}

fn one_byte(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_dsse() {
        // The protocol's own vector has another type; the form is the same.
        assert_eq!(
            pae(b"hello world"),
            b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"
        );
        assert_eq!(pae(b""), b"DSSEv1 28 application/vnd.in-toto+json 0 ");
    }

    #[test]
    fn numbers_are_written_as_der_has_them() {
        let mut raw = [0; 64];
        raw[31] = 0x7f;
        raw[62] = 0x80;
        assert_eq!(der(&raw), [0x30, 8, 0x02, 1, 0x7f, 0x02, 3, 0, 0x80, 0]);
        assert_eq!(der(&[0; 64]), [0x30, 6, 0x02, 1, 0, 0x02, 1, 0]);
        assert_eq!(der(&[0xff; 64]).len(), 2 + 2 * 35);
    }
}
