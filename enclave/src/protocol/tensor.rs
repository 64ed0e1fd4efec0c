//! Tensors as the protocol and the receipts see them.

use bytes::Bytes;
use touchstone_formats::commitment::{Datatype, TensorRef};

/// A named tensor with its data in the binary tensor data extension's encoding: row-major
/// little-endian; BYTES elements each led by a u32 length; BOOL 0 or 1 (formats.md §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// The tensor's name, UTF-8.
    pub name: String,
    /// Its element type.
    pub datatype: Datatype,
    /// Its dimensions, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
    /// Its elements. The length agrees with `datatype` and `shape`.
    pub data: Bytes,
}

impl Tensor {
    /// What the tensors digest is taken over.
    pub fn as_tensor_ref(&self) -> TensorRef<'_> {
        TensorRef {
            name: &self.name,
            datatype: self.datatype,
            shape: &self.shape,
            data: &self.data,
        }
    }
}

/// An input or output that a model declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name.
    pub name: String,
    /// The element type.
    pub datatype: Datatype,
    /// The dimensions, −1 where the model leaves one open. Empty for a scalar, and for a tensor of
    /// which the model states no shape at all: the runtime does not tell the two apart.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Whether a tensor of this shape fits. An empty shape leaves it to the runtime.
    pub fn accepts(&self, shape: &[u64]) -> bool {
        self.shape.is_empty()
            || self.shape.len() == shape.len()
                && self.shape.iter().zip(shape).all(|(spec, dim)| {
                    // Negative means any.
                    u64::try_from(*spec).is_ok_and(|spec| spec == *dim) || *spec < 0
                })
    }
}

/// What one inference gave: the outputs asked for, in the order asked for (the model's own order if
/// the request named none).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InferOutput {
    /// The outputs.
    pub outputs: Vec<Tensor>,
}

impl InferOutput {
    /// What the outputs digest is taken over.
    pub fn tensor_refs(&self) -> Vec<TensorRef<'_>> {
        self.outputs.iter().map(Tensor::as_tensor_ref).collect()
    }
}
