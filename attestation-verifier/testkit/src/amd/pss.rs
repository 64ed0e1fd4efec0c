//! The signature algorithm of AMD's certificates.

use super::asn1;

/// `AlgorithmIdentifier` for RSASSA-PSS, SHA-384, MGF1-SHA-384, salt 48.
///
/// AMD writes the default `trailerField` out in its roots, its intermediates and its older leaves, although DER forbids
/// the encoding of defaults; its newer leaves leave it away. Both forms are in the field.
pub fn pss_sha384(trailer_field: bool) -> Vec<u8> {
    pss("2.16.840.1.101.3.4.2.2", 48, trailer_field)
}

/// `AlgorithmIdentifier` for RSASSA-PSS with one hash for message and mask.
pub fn pss(hash: &str, salt: u64, trailer_field: bool) -> Vec<u8> {
    let hash = asn1::sequence(&[&asn1::oid(hash), &asn1::tlv(asn1::NULL, &[])]);
    let mask = asn1::sequence(&[&asn1::oid("1.2.840.113549.1.1.8"), &hash]);
    let trailer = if trailer_field {
        asn1::explicit(3, &asn1::number(1))
    } else {
        Vec::new()
    };
    let parameters = asn1::sequence(&[
        &asn1::explicit(0, &hash),
        &asn1::explicit(1, &mask),
        &asn1::explicit(2, &asn1::number(salt)),
        &trailer,
    ]);
    asn1::sequence(&[&asn1::oid("1.2.840.113549.1.1.10"), &parameters])
}
