//! Oblivious HTTP (RFC 9458) and Binary HTTP (RFC 9292): a request as one sealed message that only the holder of a key can
//! open, and an answer that only the sender of that request can. Decoding, bounds and framing; the keys' life, what a
//! request means and which replays are refused is for whoever calls.
//!
//! Nothing cryptographic is ours: HPKE (RFC 9180) is the crate `hpke`, HKDF and the AEAD of answers are ring's. There is one suite,
//! the one that RFC 9458 uses itself: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod bhttp;
mod keys;
mod sealed;

pub use keys::{GatewayKey, PublicKey};
pub use sealed::{ANSWER_OVERHEAD, Opened, REQUEST_OVERHEAD, Responder, Waiting};

/// Media type of an encapsulated request.
pub const REQUEST_TYPE: &str = "message/ohttp-req";
/// Media type of an encapsulated answer.
pub const ANSWER_TYPE: &str = "message/ohttp-res";
/// The problem type of a request that was encapsulated to another key (RFC 9458 §5.3).
pub const KEY_PROBLEM: &str = "https://iana.org/assignments/http-problem-types#ohttp-key";

/// Why something could not be opened or sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Key configurations that cannot be read.
    #[error("key configurations: {0}")]
    Configuration(&'static str),
    /// No configuration of a suite that is spoken here.
    #[error("no key configuration of X25519, HKDF-SHA256 and AES-128-GCM")]
    Suite,
    /// A request for another key, or another suite.
    #[error("encapsulated to key {found:02x?} (id, KEM, KDF, AEAD): expected {expected:02x?}")]
    OtherKey {
        /// The request's header.
        found: [u8; 7],
        /// The header of requests to this key.
        expected: [u8; 7],
    },
    /// Shorter than a sealed message can be.
    #[error("{found} bytes: expected {least} at least")]
    Short {
        /// Its length.
        found: usize,
        /// The shortest that a message of its kind can be.
        least: usize,
    },
    /// What does not open: altered, cut off, sealed for another key, or the answer to another request.
    #[error("it does not open: altered, truncated, or sealed for another key or another request")]
    Open,
    /// Longer than the cipher seals.
    #[error("too long to be sealed")]
    Long,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}
