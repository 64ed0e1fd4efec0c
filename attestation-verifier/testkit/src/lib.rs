//! Touchstone's test kit: everything a test needs in order to lie convincingly.
//!
//! **Nothing in this crate may ever be linked into `enclave`, `host` or a released verifier.**
//! It holds private keys of certificate authorities that it makes up, signs reports of machines that
//! do not exist, and panics where a program that people rely on must return an error. It is a
//! dev-dependency of tests, and the home of two programs, `simulated-platform` and `man-in-the-middle`. A test
//! over `cargo metadata` holds the line: `tests/layering.rs`.
//!
//! | module | what it makes |
//! | --- | --- |
//! | [`amd`] | a synthetic AMD PKI: ARK, ASK, ASVK, VCEK, VLEK, CRL, shaped like the real ones |
//! | [`intel`] | a synthetic Intel PKI: root, PCK CAs, PCK and TCB signing certificates, CRLs, TCB info, QE identity |
//! | [`x509`] | what both are made of: certificates and CRLs as descriptions, keys, a DER writer |
//! | [`snp`] | SEV-SNP attestation reports, versions 2, 3 and 5, signed by such a VCEK or VLEK |
//! | [`tdx`] | TDX quotes, versions 4 and 5, bodies of TDX 1.0 and 1.5, signed by a quoting enclave's key |
//! | [`events`] | event logs of TDX guests, and their replay into RTMRs |
//! | [`firmware`] | images like OVMF's, every part of what they say about themselves changeable |
//! | [`tdx_boot`] | firmware for TDX and kernels with an EFI stub, every part of what they say about themselves changeable |
//! | [`machine`] | a simulated machine: chip, firmware, one launched guest; its quotes and their collateral |
//! | [`platform`] | such a machine behind the quote agent protocol, with latency and faults |
//! | [`mint`] | complete bundles without an enclave, every ingredient changeable before it is signed |
//! | [`mitm`] | a man in the middle between any client and an enclave, with every lie by name |
//! | [`mutate`] | bit flips, truncations, edits of JSON: lies that are *not* signed again |
//! | [`policy`] | the strict policy template with a few values changed |
//! | [`stack`] | the real programs on loopback, for end-to-end tests |
//! | [`vendor`] | servers like AMD's and Intel's, about such a machine, with every fault a server has |
//! | [`worst`] | evidence of the shapes that cost a verifier most, within the format's limits |
//! | [`fixtures`] | where real evidence and models lie, and how a test says that it was skipped |
//!
//! # Lies must be re-signed
//!
//! A test that flips a bit in a signed object shows only that the signature is checked. Every object here
//! is therefore a plain description whose fields are public: change what you like, *then* sign it.
//!
//! ```
//! use touchstone_testkit::amd::{Pki, Product, VekKey};
//! use touchstone_testkit::snp::Report;
//!
//! let now = 1_790_000_000;
//! let pki = Pki::new(Product::Genoa, now);
//! let key = VekKey::p384();
//! let mut report = Report::new(Product::Genoa, 5);
//! let vcek = pki.vcek(&key, &report).sign(&pki.keys.ask);
//!
//! report.policy |= 1 << 19; // DEBUG: a lie which carries a good signature
//! assert_eq!(report.sign(&key).len(), 1184);
//! # assert!(!vcek.is_empty());
//! ```
//!
//! # Panics
//!
//! Functions that build test data panic when the impossible happens (no randomness, a key that cannot
//! sign). Functions that touch files or sockets return errors.

pub mod amd;
pub mod events;
pub mod firmware;
pub mod fixtures;
pub mod intel;
pub mod machine;
pub mod mint;
pub mod mitm;
pub mod mutate;
pub mod platform;
pub mod policy;
pub mod snp;
pub mod stack;
pub mod tdx;
pub mod tdx_boot;
pub mod vendor;
pub mod worst;
pub mod x509;
