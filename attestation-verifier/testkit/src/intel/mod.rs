//! A synthetic Intel PKI, made fresh for each run: SGX Root CA → PCK Platform or Processor CA → PCK certificate, SGX Root
//! CA → TCB Signing → TCB info and QE identity, and the revocation lists of root and PCK CAs.
//!
//! The shapes were read off Intel's own certificates, lists and JSON (tests compare them byte for byte with the real ones
//! where those are at hand) and off Intel's "SGX PCK Certificate and CRL Profile Specification" and "PCS API v4". What
//! differs is what a verifier must be able to tell: the authorities' names begin with `SIM `, addresses end in `.invalid`,
//! and no real key ever signed any of it.

mod pki;
mod sgx;
mod tcb;

pub use pki::{PckCa, Pki, PkiKeys};
pub use sgx::{Configuration, Entry, SgxExtensions, oid, sgx_extension};
pub use tcb::{
    Component, IsvLevel, QeIdentity, Tcb, TcbInfo, TcbLevel, TdxModule, TdxModuleIdentity,
};
