//! Commitments and the digests they hide (§4).

use crate::digest::Hasher;
use crate::{Digest, FormatError, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a commitment is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The request, claim -65604.
    Request,
    /// The response, claim -65605.
    Response,
    /// The input tensors, claim -65606.
    Inputs,
    /// The output tensors, claim -65607.
    Outputs,
}

impl Role {
    /// All roles, in the order of their claims.
    pub const ALL: [Role; 4] = [Role::Request, Role::Response, Role::Inputs, Role::Outputs];

    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Role::Request => "request",
            Role::Response => "response",
            Role::Inputs => "inputs",
            Role::Outputs => "outputs",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// 16 random bytes, one salt for each commitment.
pub type Salt = [u8; 16];

/// Hides `digest` behind `salt`.
pub fn commit(role: Role, salt: &Salt, digest: &Digest) -> Digest {
    let prefix: &[u8] = match role {
        Role::Request => b"touchstone/commit/v1\nrequest\n",
        Role::Response => b"touchstone/commit/v1\nresponse\n",
        Role::Inputs => b"touchstone/commit/v1\ninputs\n",
        Role::Outputs => b"touchstone/commit/v1\noutputs\n",
    };
    Digest::of_parts(&[prefix, salt, &digest.0])
}

/// Digest of a request: `target` as received, `header_length` the Inference-Header-Content-Length,
/// `body` after transfer decoding.
pub fn request_digest(
    method: &str,
    target: &str,
    header_length: Option<u64>,
    body: &[u8],
) -> Digest {
    Digest::of_parts(&[
        b"touchstone/request/v1\n",
        method.as_bytes(),
        b"\n",
        target.as_bytes(),
        b"\n",
        length_or_dash(header_length).as_bytes(),
        b"\n",
        body,
    ])
}

/// Digest of a response: the answer's own status, and as [`request_digest`].
pub fn response_digest(status: u16, header_length: Option<u64>, body: &[u8]) -> Digest {
    Digest::of_parts(&[
        b"touchstone/response/v1\n",
        status.to_string().as_bytes(),
        b"\n",
        length_or_dash(header_length).as_bytes(),
        b"\n",
        body,
    ])
}

fn length_or_dash(length: Option<u64>) -> String {
    length.map_or_else(|| "-".to_owned(), |length| length.to_string())
}

/// A datatype of the Open Inference Protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs)] // The names say it.
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

impl Datatype {
    /// All of them.
    pub const ALL: [Datatype; 14] = [
        Datatype::Bool,
        Datatype::Uint8,
        Datatype::Uint16,
        Datatype::Uint32,
        Datatype::Uint64,
        Datatype::Int8,
        Datatype::Int16,
        Datatype::Int32,
        Datatype::Int64,
        Datatype::Fp16,
        Datatype::Bf16,
        Datatype::Fp32,
        Datatype::Fp64,
        Datatype::Bytes,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Datatype::Bool => "BOOL",
            Datatype::Uint8 => "UINT8",
            Datatype::Uint16 => "UINT16",
            Datatype::Uint32 => "UINT32",
            Datatype::Uint64 => "UINT64",
            Datatype::Int8 => "INT8",
            Datatype::Int16 => "INT16",
            Datatype::Int32 => "INT32",
            Datatype::Int64 => "INT64",
            Datatype::Fp16 => "FP16",
            Datatype::Bf16 => "BF16",
            Datatype::Fp32 => "FP32",
            Datatype::Fp64 => "FP64",
            Datatype::Bytes => "BYTES",
        }
    }

    /// Bytes of one element; none for `BYTES`, whose elements lead with their length.
    pub fn size(self) -> Option<usize> {
        Some(match self {
            Datatype::Bool | Datatype::Uint8 | Datatype::Int8 => 1,
            Datatype::Uint16 | Datatype::Int16 | Datatype::Fp16 | Datatype::Bf16 => 2,
            Datatype::Uint32 | Datatype::Int32 | Datatype::Fp32 => 4,
            Datatype::Uint64 | Datatype::Int64 | Datatype::Fp64 => 8,
            Datatype::Bytes => return None,
        })
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Datatype {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Datatype {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        crate::text::deserialize_str(from, "a datatype", str::parse)
    }
}

impl FromStr for Datatype {
    type Err = FormatError;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|datatype| datatype.name() == name)
            .ok_or_else(|| {
                FormatError::value(
                    "datatype",
                    name,
                    "a datatype of the Open Inference Protocol",
                )
            })
    }
}

/// A tensor, its data as in the binary extension: row-major, little-endian, `BOOL` 0 or 1,
/// each element of `BYTES` led by its length as u32.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    /// Its name, unique among the tensors of one side.
    pub name: &'a str,
    /// Of its elements.
    pub datatype: Datatype,
    /// Dimensions, none for a scalar.
    pub shape: &'a [u64],
    /// The elements.
    pub data: &'a [u8],
}

/// Digest of all tensors of one side, given in any order.
///
/// # Errors
/// A name that stands twice; data that is not what shape and datatype say.
pub fn tensors_digest(tensors: &[TensorRef<'_>]) -> Result<Digest> {
    let mut sorted: Vec<&TensorRef<'_>> = tensors.iter().collect();
    sorted.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    for (tensor, next) in sorted.iter().zip(sorted.iter().skip(1)) {
        if tensor.name == next.name {
            return Err(FormatError::value(
                "tensor name",
                tensor.name,
                "each name once",
            ));
        }
    }
    let mut hash = Hasher::new();
    hash.update(b"touchstone/tensors/v1\n");
    hash.update(&u64_le(sorted.len()));
    for tensor in sorted {
        tensor.check()?;
        length_prefixed(&mut hash, tensor.name.as_bytes());
        length_prefixed(&mut hash, tensor.datatype.name().as_bytes());
        hash.update(&u64_le(tensor.shape.len()));
        for dimension in tensor.shape {
            hash.update(&dimension.to_le_bytes());
        }
        length_prefixed(&mut hash, tensor.data);
    }
    Ok(hash.finish())
}

fn length_prefixed(hash: &mut Hasher, bytes: &[u8]) {
    hash.update(&u64_le(bytes.len()));
    hash.update(bytes);
}

fn u64_le(length: usize) -> [u8; 8] {
    (length as u64).to_le_bytes()
}

impl TensorRef<'_> {
    /// Whether the data is what shape and datatype say.
    fn check(&self) -> Result<()> {
        let elements = self
            .shape
            .iter()
            .try_fold(1_u64, |product, dimension| product.checked_mul(*dimension));
        let fits = match (elements, self.datatype.size()) {
            (None, _) => false,
            (Some(elements), Some(size)) => {
                elements.checked_mul(size as u64) == Some(self.data.len() as u64)
                    && (self.datatype != Datatype::Bool || self.data.iter().all(|byte| *byte <= 1))
            }
            (Some(elements), None) => self.count_byte_strings() == Some(elements),
        };
        if fits {
            return Ok(());
        }
        Err(FormatError::value(
            "tensor data",
            format_args!(
                "{} {} {:?}: {} bytes",
                self.name,
                self.datatype,
                self.shape,
                self.data.len()
            ),
            "the elements that shape and datatype say, as in the binary extension",
        ))
    }

    fn count_byte_strings(&self) -> Option<u64> {
        let mut rest = self.data;
        let mut count = 0;
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<4>()?;
            rest = after.get(u32::from_le_bytes(*length) as usize..)?;
            count += 1;
        }
        Some(count)
    }
}
