//! A synthetic AMD PKI, made fresh for each run: ARK → ASK → VCEK, ARK → ASVK → VLEK, and the ARK's CRL.
//!
//! The shapes were read off AMD's own certificates (tests compare them byte for byte with the real
//! ones where those are at hand): name attributes, serial numbers, RSASSA-PSS parameters with the
//! default trailer field written out, extension order, `productName` with and without a stepping, bare `hwID` bytes.
//! What differs is what a verifier must be able to tell: subjects are `SIM-ARK-<Product>`,
//! `SIM-SEV-<Product>` and `SIM-SEV-VLEK-<Product>`, and no real key ever signed any of it.

pub mod asn1;
mod certificate;
mod keys;
mod pki;
mod product;

pub use certificate::{Certificate, Crl, Extension, Name, Revoked, oid, pss, pss_sha384};
pub use keys::{Curve, RsaKey, VekKey};
pub use pki::{Pki, PkiKeys, pem};
pub use product::{Product, Tcb};
