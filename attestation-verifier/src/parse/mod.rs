//! Parsing: bytes to fields, with every rule of form and no judgement.
//!
//! What parses is well-formed, nothing more: none of it is trusted before
//! [`crate::authenticate`] has seen it.

pub mod cert;
pub mod crl;
pub(crate) mod der;
pub mod snp;
pub mod vek;
