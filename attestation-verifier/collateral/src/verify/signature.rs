//! Who signed a certificate, a list or a text. The algorithms are the two that the vendors use, and the verifier's own.

use attestation_verifier::crypto::{p256_sha256, p256_sha256_der, rsa_pss_sha384};
use attestation_verifier::parse::cert::{Certificate, PublicKey};
use attestation_verifier::parse::crl::Crl;

/// What both certificates and lists have.
struct Signed<'a> {
    tbs: &'a [u8],
    signature: &'a [u8],
    pss: bool,
    ecdsa: bool,
}

/// Whether `issuer` issued this certificate: the name and the signature.
pub(super) fn issued(issuer: &Certificate, certificate: &Certificate) -> bool {
    let signed = Signed {
        tbs: certificate.tbs(),
        signature: &certificate.signature,
        pss: certificate.signed_with_pss_sha384,
        ecdsa: certificate.signed_with_ecdsa_sha256,
    };
    issuer.subject == certificate.issuer && by(issuer, signed)
}

/// Whether `issuer` made this list: the name and the signature.
pub(super) fn listed(issuer: &Certificate, crl: &Crl) -> bool {
    let signed = Signed {
        tbs: crl.tbs(),
        signature: &crl.signature,
        pss: crl.signed_with_pss_sha384,
        ecdsa: crl.signed_with_ecdsa_sha256,
    };
    issuer.subject == crl.issuer && by(issuer, signed)
}

/// Whether this P-256 key signed a text, r ‖ s.
pub(super) fn said(signer: &Certificate, text: &[u8], signature: &[u8]) -> bool {
    match &signer.key {
        PublicKey::P256(point) => p256_sha256(point, text, signature),
        _ => false,
    }
}

fn by(issuer: &Certificate, signed: Signed<'_>) -> bool {
    let Signed {
        tbs,
        signature,
        pss,
        ecdsa,
    } = signed;
    match &issuer.key {
        PublicKey::Rsa(key) => pss && rsa_pss_sha384(key, tbs, signature),
        PublicKey::P256(point) => ecdsa && p256_sha256_der(point, tbs, signature),
        PublicKey::P384(_) | PublicKey::Other => false,
    }
}
