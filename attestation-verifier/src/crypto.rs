//! The few primitives this crate verifies with, in one place, so that another implementation
//! can stand behind them without a change elsewhere: ring, or AWS-LC where the feature `aws-lc-rs` says so. One of
//! them per build; what they accept is the same.
//!
//! Each verification is one call; [`Budget`] counts them, because hostile evidence decides how
//! many there would be, and asks [`Known`] first, because genuine evidence is much the same every time.

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs::{digest, signature};
#[cfg(not(feature = "aws-lc-rs"))]
use ring::{digest, signature};

use digest::{Context, SHA256, SHA384};
use signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED,
    RSA_PSS_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm,
};

use crate::known::{Fact, Known};

/// SHA-256, for pins and for what a quoting enclave binds.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    sha256_parts(&[bytes])
}

/// SHA-256 of the parts, one after the other.
pub(crate) fn sha256_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

/// SHA-384 of the parts, one after the other.
pub(crate) fn sha384(parts: &[&[u8]]) -> [u8; 48] {
    let mut hash = Context::new(&SHA384);
    for part in parts {
        hash.update(part);
    }
    let mut out = [0; 48];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

/// Most signature checks one evidence object may cost (formats.md, conventions).
pub(crate) const MOST_SIGNATURE_CHECKS: u32 = 20;

/// How many signature checks are left. One whose answer is known counts as well: what is refused for having too
/// many is refused whoever judges it, and whatever he saw before.
#[derive(Debug)]
pub(crate) struct Budget<'a> {
    left: u32,
    known: &'a Known,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(known: &'a Known) -> Budget<'a> {
        Budget {
            left: MOST_SIGNATURE_CHECKS,
            known,
        }
    }

    /// ECDSA P-384 with SHA-384. `point` is the uncompressed point (97 bytes), `r_s` both
    /// numbers big-endian, 48 bytes each. False too when the budget is spent.
    pub(crate) fn p384_sha384(&mut self, point: &[u8], message: &[u8], r_s: &[u8; 96]) -> bool {
        self.verify(Fact::P384, &ECDSA_P384_SHA384_FIXED, point, message, r_s)
    }

    /// ECDSA P-256 with SHA-256. `point` is the uncompressed point (65 bytes), `r_s` both
    /// numbers big-endian, 32 bytes each. False too when the budget is spent.
    pub(crate) fn p256_sha256(&mut self, point: &[u8], message: &[u8], r_s: &[u8; 64]) -> bool {
        self.verify(Fact::P256, &ECDSA_P256_SHA256_FIXED, point, message, r_s)
    }

    /// The same with the signature as certificates have it: DER of an Ecdsa-Sig-Value (RFC 3279
    /// §2.2.3), and nothing but its one encoding. False too when the budget is spent.
    pub(crate) fn p256_sha256_der(&mut self, point: &[u8], message: &[u8], der: &[u8]) -> bool {
        self.verify(Fact::P256Der, &ECDSA_P256_SHA256_ASN1, point, message, der)
    }

    /// RSASSA-PSS with SHA-384, MGF1 of SHA-384 and 48 bytes of salt. `key` is the DER of an
    /// RSAPublicKey of 2048 to 8192 bits. False too when the budget is spent.
    pub(crate) fn rsa_pss_sha384(&mut self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let algorithm = &RSA_PSS_2048_8192_SHA384;
        self.verify(Fact::RsaPss, algorithm, key, message, signature)
    }

    fn verify(
        &mut self,
        fact: Fact,
        algorithm: &'static dyn VerificationAlgorithm,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        self.known.signed(fact, &[key, message, signature], || {
            UnparsedPublicKey::new(algorithm, key)
                .verify(message, signature)
                .is_ok()
        })
    }
}

/// ECDSA P-256 with SHA-256 of a manifest: as [`Budget::p256_sha256_der`], outside of any evidence's budget. The caller
/// bounds how many there are.
pub(crate) fn manifest_p256_sha256_der(point: &[u8; 65], message: &[u8], der: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(message, der)
        .is_ok()
}

#[cfg(test)]
mod wycheproof;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_ends() {
        let known = Known::new();
        let mut budget = Budget::new(&known);
        for _ in 0..MOST_SIGNATURE_CHECKS {
            assert!(!budget.p384_sha384(&[0; 97], b"", &[0; 96]));
        }
        assert_eq!(budget.left, 0);
        assert!(!budget.rsa_pss_sha384(&[], b"", &[]));
        assert!(!budget.p256_sha256(&[], b"", &[0; 64]));
        assert!(!budget.p256_sha256_der(&[], b"", &[]));
        assert_eq!(budget.left, 0);
        let work = known.work();
        assert_eq!(work.signatures, u64::from(MOST_SIGNATURE_CHECKS));
        assert_eq!(work.remembered, 0);
    }
}
