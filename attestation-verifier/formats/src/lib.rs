//! The wire formats of Touchstone, version 1: what the enclave writes, the host stores and the
//! verifier reads. The specification is `docs/formats.md`; section numbers in this crate are its.
//!
//! Every `parse` here decodes and applies bounds, and judges nothing: a parsed receipt is one that
//! is *written* as the specification says, not one that is true. Whoever reads hostile bytes gets a
//! [`FormatError`], never a panic, and work and memory stay in proportion to the input, whose
//! size is checked first.
//!
//! What this crate does not do: no sockets, no clock, no randomness, no files, no attestation
//! evidence beyond finding REPORT_DATA in it.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod backend;
pub mod bundle;
pub mod catalog;
mod cbor;
pub mod certificate_table;
pub mod checkpoint;
pub mod commitment;
pub mod config;
pub mod control;
pub mod digest;
pub mod ed25519;
mod error;
pub mod evidence;
pub mod guarantee;
pub mod headers;
pub mod jcs;
pub mod keyset;
pub mod limits;
pub mod merkle;
pub mod model;
pub mod onnx;
pub mod quote_agent;
pub mod receipt;
pub mod report_data;
pub mod session;
mod strict;
pub mod text;

pub use bundle::{Attachment, Bundle, Opening, Openings};
pub use catalog::{Catalog, CatalogModel};
pub use checkpoint::{Checkpoint, LogKey, LogSigner, NoteSignature, SignedNote, TlogProof};
pub use commitment::{Datatype, Role, Salt, TensorRef};
pub use digest::Digest;
pub use error::FormatError;
pub use evidence::{
    Collateral, CollateralFile, EventLog, Evidence, SnpCollateral, TdxCollateral, Tee,
};
pub use guarantee::{Guarantee, GuaranteeSet};
pub use keyset::{Keyset, ReceiptKey};
pub use merkle::RightEdge;
pub use model::{ModelFile, ModelManifest};
pub use receipt::{Claims, PaymentClaim, Receipt, ReceiptSigner};
pub use report_data::Purpose;
pub use session::{SessionAnswer, SessionRequest};

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, FormatError>;
