//! Manifests: what somebody who rebuilt and measured the software says a platform must report, signed.
//!
//! A manifest file is JSON lines, each a sigstore bundle v0.3 with the signature of one signer over the same in-toto
//! Statement (docs/manifests.md). [`SignedFile::parse`] reads one and judges nothing; [`SignedFile::authenticate`] gives
//! an [`Authentic`] manifest, which nothing else can make; what is said then about time ([`Authentic::validity`]), about
//! versions already accepted ([`Accepted`]) and about a platform's measurement ([`Manifest::entries`]) is judged one by
//! one by the caller.
//!
//! What this module does not do: no clock, no files, no private keys. Who signs takes [`Statement::to_sign`] to wherever
//! the key is and brings the signature to [`Statement::signed_line`].

mod accepted;
mod authentic;
mod bundle;
mod check;
mod demand;
mod diff;
mod dsse;
mod error;
mod json;
mod keys;
mod measured;
mod statement;
mod tcb;
mod types;

pub use accepted::{Accepted, Rollback, StateError};
pub use authentic::{Authentic, Invalid, NotAuthentic};
pub use bundle::{BUNDLE_MEDIA_TYPE, Line, SignedFile};
pub use check::{Finding, lint};
pub use demand::{Demand, DemandError, Refused};
pub use diff::{Change, Direction, diff};
pub use dsse::{NotSigned, PAYLOAD_TYPE, SignatureForm, pae};
pub use error::ManifestError;
pub use keys::{KeyError, PublicKey, Signer, Signers, SignersError};
pub use measured::{Measured, MeasuredIngredient};
pub use statement::{PREDICATE_TYPE, STATEMENT_TYPE, Statement};
pub use types::{
    Entry, Ingredient, Manifest, Measurement, MinimumTcb, Model, Origin, OsBinding, Platform,
    QuoteSource, Register, Release, Reported, Role, SnpMeasurement, TdxMeasurement,
};

/// A manifest file, a draft and a state file: bytes.
pub const MAX_FILE: usize = 4 << 20;
/// Lines of a manifest file, and so signatures that are verified.
pub const MAX_LINES: usize = 64;
/// The signed statement: bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Keys that a caller may name.
pub const MAX_SIGNERS: usize = 32;
/// Releases of a manifest.
pub const MAX_RELEASES: usize = 64;
/// Platforms of a release.
pub const MAX_PLATFORMS: usize = 64;
/// Measurements of a platform.
pub const MAX_MEASUREMENTS: usize = 4096;
/// Values that RTMR0 may have in one measurement.
pub const MAX_RTMR0: usize = 256;
/// Models of a manifest.
pub const MAX_MODELS: usize = 1024;
/// Configurations of a model.
pub const MAX_CONFIGS: usize = 256;
/// Names, versions and other short words: bytes of UTF-8.
pub const MAX_NAME: usize = 256;
/// Where an ingredient comes from: characters.
pub const MAX_SOURCE: usize = 500;
/// How far a signer's clock may be ahead of the time of judgement, seconds.
pub const CLOCK_SKEW: u64 = 300;
