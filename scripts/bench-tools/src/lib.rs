//! Shared by the benchmark programs: ONNX Runtime sessions without a server around them, connections and figures.
//!
//! What is measured here is the ceiling: the same library, settings and session pools as the enclave's,
//! and nothing that proves anything.
#![forbid(unsafe_code)]

pub mod cpu;
pub mod figures;
pub mod flat;
pub mod http;
pub mod lines;
pub mod model;
pub mod tls;
pub mod window;
