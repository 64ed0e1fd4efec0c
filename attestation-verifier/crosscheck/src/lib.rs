//! A second opinion on Touchstone's verifier: the same evidence, genuine and mutated, judged by it and by libraries of others.
//!
//! | judge | what it judges |
//! | --- | --- |
//! | `sev` (with its pure Rust cryptography) | SEV-SNP: the chain, and the report's signature over its own re-encoding |
//! | `dcap-qvl` | TDX whole: chains, revocation, collateral, TCB levels, the TD's attributes |
//! | `tdx-quote` | TDX quotes: the attestation key's signature, the quoting enclave's report under the PCK |
//!
//! What Touchstone accepts, all of them have to accept; see [`run`]. What they accept and Touchstone refuses is theirs to explain.
//!
//! Tests only: `tdx-quote` is AGPL-3.0-or-later, and nothing that people link may depend on this crate.

mod mutate;
pub mod random;
pub mod run;
pub mod snp;
pub mod tdx;
