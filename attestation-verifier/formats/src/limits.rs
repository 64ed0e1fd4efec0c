//! Bounds of the specification, checked before parsing ("Conventions").

/// A bundle file, and an evidence file: bytes.
pub const MAX_BUNDLE: usize = 4 << 20;
/// Nesting of arrays and objects in JSON; `{}` is 1.
pub const MAX_DEPTH: usize = 16;
/// A receipt (COSE_Sign1): bytes.
pub const MAX_RECEIPT: usize = 4 << 10;
/// A keyset (JCS): bytes.
pub const MAX_KEYSET: usize = 8 << 10;
/// Names and other text in our objects: bytes of UTF-8.
pub const MAX_TEXT: usize = 256;
/// Evidence objects in a bundle, one per purpose.
pub const MAX_EVIDENCE: usize = 3;
/// A quote or report: bytes.
pub const MAX_QUOTE: usize = 16 << 10;
/// All members of one evidence object's collateral, decoded: bytes.
pub const MAX_COLLATERAL: usize = 1 << 20;
/// Entries of `chain`, and of `crls`.
pub const MAX_COLLATERAL_ITEMS: usize = 16;
/// An event log, its padding trimmed: bytes.
pub const MAX_EVENT_LOG: usize = 1 << 20;
/// Hashes of an inclusion or consistency proof.
pub const MAX_PROOF_HASHES: usize = 64;
/// Signatures of a note beside the one by the log's own key.
pub const MAX_UNKNOWN_SIGNATURES: usize = 16;
/// Attachments of a bundle.
pub const MAX_ATTACHMENTS: usize = 64;
/// The caller's nonce: bytes, at least.
pub const MIN_NONCE: usize = 8;
/// The caller's nonce: bytes, at most.
pub const MAX_NONCE: usize = 64;
/// The greatest integer in our JSON, 2^53 − 1; its negative is the least.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;
/// One of the header fields that this crate reads: bytes.
pub const MAX_HEADER: usize = 4 << 10;
