//! An inference answer: tensors to body bytes.

use bytes::Bytes;

use super::{InferOutput, InferRequest, ProtocolError};
use crate::models::Model;

/// A response body, ready to be hashed and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedResponse {
    /// The body.
    pub body: Bytes,
    /// The Inference-Header-Content-Length that goes with it. `Some` means the content type is
    /// `application/octet-stream`, `None` that it is `application/json`.
    pub header_length: Option<u64>,
}

/// Writes the answer to `request` in the encoding that it asked for. `touchstone_id` (32 hex) goes
/// into `parameters.touchstone_id` when given.
///
/// # Errors
/// Status 422 when JSON was asked for and cannot carry an output (formats.md §9).
pub fn encode_response(
    _model: &Model,
    _request: &InferRequest,
    _output: &InferOutput,
    _touchstone_id: Option<&str>,
) -> Result<EncodedResponse, ProtocolError> {
    unimplemented!()
}
