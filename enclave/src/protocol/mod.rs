//! The Open Inference Protocol, version 2, over REST: bytes to tensors and back.
//!
//! Nothing here knows about sockets, sessions or receipts. A request body becomes an
//! [`InferRequest`] whose tensors already hold the bytes of the binary tensor data extension, the
//! very bytes that formats.md §4 hashes, whichever of the two encodings the client chose.
//! An [`InferOutput`] becomes a response body in the encoding the request asked for.

pub(crate) mod elements;
mod error;
mod json;
mod metadata;
mod request;
mod response;
mod tensor;
#[cfg(test)]
mod tests;

pub use error::ProtocolError;
pub use metadata::{live_document, model_document, ready_document, server_document};
pub use request::{InferRequest, Limits, RequestedOutput, TouchstoneParameters, parse_request};
pub use response::{EncodedResponse, encode_response};
pub use tensor::{InferOutput, Tensor, TensorSpec};
