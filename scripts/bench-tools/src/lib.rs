//! Shared by the benchmark programs: ONNX Runtime sessions without a server around them.
//!
//! What is measured here is the ceiling: the same library, settings and session pools as the enclave's,
//! and nothing that proves anything.
#![forbid(unsafe_code)]

pub mod cpu;
pub mod flat;
pub mod model;
