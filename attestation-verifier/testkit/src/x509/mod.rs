//! What both vendors' synthetic PKIs are made of: certificates and revocation lists as plain descriptions, a DER writer
//! that writes anything it is told, and keys.

pub mod asn1;
mod certificate;
mod keys;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use certificate::{Certificate, Crl, Extension, Name, Revoked, Vendor, key_id, oid};
pub use keys::{Curve, EcKey, RsaKey, Signer};

/// DER in PEM armour, lines of 64.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}
