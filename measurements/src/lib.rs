//! What is measured and pinned: the build statement, whose digest is a keyset's `software`, and
//! the one binary that is not built from this source, ONNX Runtime.
//!
//! Data stands in `onnxruntime/`, for scripts; the same values stand here as constants, for
//! programs; a test compares the two. No I/O.
#![forbid(unsafe_code)]

pub mod build;
pub mod onnxruntime;

pub use build::BuildStatement;
