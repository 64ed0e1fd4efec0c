//! A synthetic AMD PKI, made fresh for each run: ARK → ASK → VCEK, ARK → ASVK → VLEK, and the ARK's CRL.
//!
//! The shapes were read off AMD's own certificates (tests compare them byte for byte with the real
//! ones where those are at hand): name attributes, serial numbers, RSASSA-PSS parameters with the
//! default trailer field written out, extension order, `productName` with and without a stepping, bare `hwID` bytes.
//! What differs is what a verifier must be able to tell: subjects are `SIM-ARK-<Product>`,
//! `SIM-SEV-<Product>` and `SIM-SEV-VLEK-<Product>`, and no real key ever signed any of it.

pub mod oid;
mod pki;
mod product;
mod pss;

pub use crate::x509::{Certificate, Crl, Curve, Extension, Name, Revoked, RsaKey, asn1, pem};
pub use pki::{Pki, PkiKeys};
pub use product::{Product, Tcb};
pub use pss::{pss, pss_sha384};

/// A versioned endorsement key (VCEK or VLEK): the key that signs reports.
pub type VekKey = crate::x509::EcKey;
