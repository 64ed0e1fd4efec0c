//! An inference request: body bytes to tensors.

use bytes::Bytes;
use touchstone_formats::commitment::TensorRef;

use super::{ProtocolError, Tensor};

/// Bounds on a request, beyond the length of its body (which the caller has already limited).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most tensors in a request, and most outputs it may name.
    pub tensors: usize,
    /// Most dimensions of a tensor.
    pub rank: usize,
    /// Most bytes of tensor data, all inputs together, after decoding.
    pub tensor_bytes: usize,
    /// Longest name of a tensor and longest request id, in bytes.
    pub text: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tensors: 256, rank: 16, tensor_bytes: 64 << 20, text: 1024 }
    }
}

/// A parsed request. Its inputs are complete and bounded, and not yet compared with any model:
/// [`Model::check`](crate::models::Model::check) does that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InferRequest {
    /// The caller's id, echoed in the answer.
    pub id: Option<String>,
    /// The inputs, in the order given; names unique.
    pub inputs: Vec<Tensor>,
    /// The outputs asked for, in order, names unique; `None` means all.
    pub outputs: Option<Vec<RequestedOutput>>,
    /// The request's `binary_data_output`: outputs without a `binary_data` of their own are binary.
    pub binary_data_output: bool,
    /// What the request says to Touchstone through its parameters.
    pub touchstone: TouchstoneParameters,
}

impl InferRequest {
    /// What the inputs digest is taken over.
    pub fn tensor_refs(&self) -> Vec<TensorRef<'_>> {
        self.inputs.iter().map(Tensor::as_tensor_ref).collect()
    }
}

/// One entry of a request's `outputs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedOutput {
    /// The output's name.
    pub name: String,
    /// Its own `binary_data` parameter, if given.
    pub binary_data: Option<bool>,
}

/// The request parameters of formats.md §9, for clients that cannot set headers. As text: the
/// service parses and compares them with the `Touchstone` header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TouchstoneParameters {
    /// `touchstone_require`, such as `logged signed`.
    pub require: Option<String>,
    /// `touchstone_nonce`, lower-case hex.
    pub nonce: Option<String>,
}

/// Reads a request body. `header_length` is the Inference-Header-Content-Length, if the request
/// had one: then the first so many bytes are JSON and the rest is tensor data.
///
/// # Errors
/// [`ProtocolError`] with status 400 or 413. Memory stays within a small multiple of the body.
pub fn parse_request(
    _body: &Bytes,
    _header_length: Option<u64>,
    _limits: &Limits,
) -> Result<InferRequest, ProtocolError> {
    unimplemented!()
}
