//! The service on real sockets, in front of a quote source made for these tests. That source fills the right
//! number of bytes with the report data in the right place and signs nothing: what is tested is
//! the enclave's plumbing, not evidence.

#[path = "service/admission.rs"]
mod admission;
#[path = "service/agent.rs"]
mod agent;
#[path = "service/catalog.rs"]
mod catalog;
#[path = "service/control.rs"]
mod control;
#[path = "service/follower.rs"]
mod follower;
#[path = "service/headers.rs"]
mod headers;
#[path = "service/limits.rs"]
mod limits;
#[path = "service/ohttp.rs"]
mod ohttp;
#[path = "service/onnx.rs"]
mod onnx;
#[path = "service/process.rs"]
mod process;
#[path = "service/receipts.rs"]
mod receipts;
#[path = "service/rotation.rs"]
mod rotation;
#[path = "service/sealing.rs"]
mod sealing;
#[path = "service/session.rs"]
mod session;
#[path = "service/session_limits.rs"]
mod session_limits;
#[path = "service/source.rs"]
mod source;
#[path = "service/support.rs"]
mod support;
#[path = "service/tls.rs"]
mod tls;
