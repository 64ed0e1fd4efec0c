//! Strict Ed25519.
//!
//! The library underneath (ring, or AWS-LC) checks what RFC 8032 asks of a signature (s below the
//! group order, R compared as bytes), but takes any public key that decodes, those of small order
//! included: under such a key one signature fits many messages. So a public key is checked here when
//! it is read.

use crate::backend::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use crate::{FormatError, Result};

/// The y coordinates of the eight points of small order, and the two non-canonical ways to write
/// two of them, little-endian, sign bit clear. The list is libsodium's
/// (`ge25519_has_small_order` in `ed25519_ref10.c`); a test shows that the library accepts a forged
/// signature under every one, whatever its sign bit.
const SMALL_ORDER_Y: [[u8; 32]; 7] = [
    // 0: order 4
    y(0x00, [0x00; 30], 0x00),
    // 1: order 1
    y(0x01, [0x00; 30], 0x00),
    // order 8
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    // order 8
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    // p − 1: order 2
    y(0xec, [0xff; 30], 0x7f),
    // p, which is 0 again
    y(0xed, [0xff; 30], 0x7f),
    // p + 1, which is 1 again
    y(0xee, [0xff; 30], 0x7f),
];

const fn y(first: u8, middle: [u8; 30], last: u8) -> [u8; 32] {
    let mut out = [middle[0]; 32];
    out[0] = first;
    out[31] = last;
    out
}

/// Refuses public keys of small order and those not written canonically (y ≥ 2^255 − 19).
///
/// # Errors
/// [`FormatError::Value`] naming `field`.
pub fn check_public_key(field: &'static str, key: &[u8; 32]) -> Result<()> {
    let mut y = *key;
    y[31] &= 0x7f;
    let refused = |expected| {
        Err(FormatError::value(
            field,
            crate::text::hex_encode(key),
            expected,
        ))
    };
    if SMALL_ORDER_Y.contains(&y) {
        return refused("an Ed25519 public key that is not of small order");
    }
    // p = 2^255 − 19 is 0xed, thirty times 0xff, 0x7f.
    let [first, middle @ .., last] = y;
    if last == 0x7f && middle == [0xff; 30] && first >= 0xed {
        return refused("an Ed25519 public key written canonically");
    }
    Ok(())
}

/// Whether `signature` is one of `message` under `key`; never under a key that
/// [`check_public_key`] refuses.
pub fn verify(key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    check_public_key("public key", key).is_ok()
        && UnparsedPublicKey::new(&ED25519, key)
            .verify(message, signature)
            .is_ok()
}

/// The key pair of a seed, and its public key.
pub(crate) fn key_pair(seed: &[u8; 32]) -> Result<(Ed25519KeyPair, [u8; 32])> {
    let refused = || FormatError::value("seed", "32 bytes", "an Ed25519 seed");
    let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| refused())?;
    let public = key
        .public_key()
        .as_ref()
        .try_into()
        .map_err(|_| refused())?;
    Ok((key, public))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The identity, as R, and s = 0: under a key of small order, a signature of every message
    /// whose hash is a multiple of the key's order.
    fn forged() -> [u8; 64] {
        let mut signature = [0; 64];
        signature[0] = 1;
        signature
    }

    #[test]
    fn small_order_keys_are_refused_and_the_library_would_take_them() {
        for y in SMALL_ORDER_Y {
            for sign in [0, 0x80] {
                let mut key = y;
                key[31] |= sign;
                let error = check_public_key("key", &key).unwrap_err().to_string();
                assert!(error.contains("small order"), "{error}");
                // That the library finds a forged signature true is what shows the table right: the
                // point decodes, and a small multiple of it is the identity.
                let library = UnparsedPublicKey::new(&ED25519, key);
                let accepted = (0..=255_u8).any(|m| library.verify(&[m], &forged()).is_ok());
                // AWS-LC itself refuses those of them that are not written canonically.
                let stricter = cfg!(feature = "aws-lc-rs");
                assert!(accepted || stricter, "{key:02x?}");
                assert!(!(0..=255_u8).any(|m| verify(&key, &[m], &forged())));
            }
        }
    }

    #[test]
    fn keys_that_are_not_canonical_are_refused() {
        for low in 0xed..=0xff {
            let mut key = [0xff; 32];
            key[0] = low;
            for last in [0x7f, 0xff] {
                key[31] = last;
                assert!(check_public_key("key", &key).is_err());
            }
        }
        let mut largest = [0xff; 32];
        largest[0] = 0xeb; // p − 2
        largest[31] = 0x7f;
        assert!(check_public_key("key", &largest).is_ok());
    }

    #[test]
    fn signatures_hold_for_their_message_and_key_alone() {
        let (pair, key) = key_pair(&[3; 32]).unwrap();
        let signature = pair.sign(b"message");
        assert!(verify(&key, b"message", signature.as_ref()));
        assert!(!verify(&key, b"messages", signature.as_ref()));
        assert!(!verify(
            &key_pair(&[4; 32]).unwrap().1,
            b"message",
            signature.as_ref()
        ));
        assert!(!verify(&key, b"message", &signature.as_ref()[..63]));
        // s + L is the same number to the curve, and another signature to strict verifiers.
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut malleable: [u8; 64] = signature.as_ref().try_into().unwrap();
        let mut carry = 0;
        for (byte, add) in malleable[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert!(!verify(&key, b"message", &malleable));
    }
}
