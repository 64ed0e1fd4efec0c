//! The library behind SHA-2 and Ed25519: ring, or AWS-LC where the feature `aws-lc-rs` says so. One of them per build;
//! their interfaces are the same as far as this crate uses them, and so are the answers.

#[cfg(feature = "aws-lc-rs")]
pub(crate) use aws_lc_rs::{digest, signature};
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) use ring::{digest, signature};
