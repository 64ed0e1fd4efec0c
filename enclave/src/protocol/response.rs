//! An inference answer: tensors to body bytes.

use bytes::Bytes;
use serde::Serialize;
use touchstone_formats::commitment::Datatype;

use super::{InferOutput, InferRequest, ProtocolError, Tensor, elements::bytes_elements};
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
    model: &Model,
    request: &InferRequest,
    output: &InferOutput,
    touchstone_id: Option<&str>,
) -> Result<EncodedResponse, ProtocolError> {
    encode(&model.name, &model.version, request, output, touchstone_id)
}

pub(super) fn encode(
    model_name: &str,
    model_version: &str,
    request: &InferRequest,
    output: &InferOutput,
    touchstone_id: Option<&str>,
) -> Result<EncodedResponse, ProtocolError> {
    let binary: Vec<bool> = output
        .outputs
        .iter()
        .map(|tensor| request.wants_binary(&tensor.name))
        .collect();
    let mut json = Vec::with_capacity(estimate(output, &binary));
    json.extend_from_slice(br#"{"model_name":"#);
    value(&mut json, model_name);
    json.extend_from_slice(br#","model_version":"#);
    value(&mut json, model_version);
    if let Some(id) = &request.id {
        json.extend_from_slice(br#","id":"#);
        value(&mut json, id);
    }
    if let Some(id) = touchstone_id {
        json.extend_from_slice(br#","parameters":{"touchstone_id":"#);
        value(&mut json, id);
        json.push(b'}');
    }
    json.extend_from_slice(br#","outputs":["#);
    for (index, (tensor, binary)) in output.outputs.iter().zip(&binary).enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(br#"{"name":"#);
        value(&mut json, &tensor.name);
        json.extend_from_slice(br#","datatype":""#);
        json.extend_from_slice(tensor.datatype.name().as_bytes());
        json.extend_from_slice(br#"","shape":"#);
        value(&mut json, &tensor.shape);
        if *binary {
            json.extend_from_slice(br#","parameters":{"binary_data_size":"#);
            value(&mut json, &tensor.data.len());
            json.extend_from_slice(b"}}");
        } else {
            json.extend_from_slice(br#","data":["#);
            write_data(&mut json, tensor)?;
            json.extend_from_slice(b"]}");
        }
    }
    json.extend_from_slice(b"]}");
    if !binary.contains(&true) {
        return Ok(EncodedResponse {
            body: json.into(),
            header_length: None,
        });
    }
    let header_length = json.len() as u64;
    for (tensor, _) in output
        .outputs
        .iter()
        .zip(&binary)
        .filter(|(_, binary)| **binary)
    {
        json.extend_from_slice(&tensor.data);
    }
    Ok(EncodedResponse {
        body: json.into(),
        header_length: Some(header_length),
    })
}

/// About how long the body will be, so that it is allocated once in the usual case.
fn estimate(output: &InferOutput, binary: &[bool]) -> usize {
    let tensors = output.outputs.iter().zip(binary).map(|(tensor, binary)| {
        let data = match tensor.datatype.size() {
            _ if *binary => tensor.data.len(),
            // Decimal digits, a point and a comma take about three times what the value does.
            Some(_) => tensor.data.len().saturating_mul(3),
            None => tensor.data.len(),
        };
        data.saturating_add(tensor.name.len() + 128)
    });
    tensors.fold(256, usize::saturating_add)
}

/// Writes a value as JSON. Strings and integers cannot fail to be written to memory.
fn value<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    let written = serde_json::to_writer(json, value);
    debug_assert!(written.is_ok(), "text and integers are JSON");
}

fn write_data(json: &mut Vec<u8>, tensor: &Tensor) -> Result<(), ProtocolError> {
    let data = &tensor.data[..];
    match tensor.datatype {
        Datatype::Bool => each(json, data, |json, [byte]: [u8; 1]| {
            json.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
            true
        }),
        Datatype::Uint8 => each(json, data, |json, bytes| {
            plain(json, u8::from_le_bytes(bytes))
        }),
        Datatype::Uint16 => each(json, data, |json, bytes| {
            plain(json, u16::from_le_bytes(bytes))
        }),
        Datatype::Uint32 => each(json, data, |json, bytes| {
            plain(json, u32::from_le_bytes(bytes))
        }),
        Datatype::Uint64 => each(json, data, |json, bytes| {
            plain(json, u64::from_le_bytes(bytes))
        }),
        Datatype::Int8 => each(json, data, |json, bytes| {
            plain(json, i8::from_le_bytes(bytes))
        }),
        Datatype::Int16 => each(json, data, |json, bytes| {
            plain(json, i16::from_le_bytes(bytes))
        }),
        Datatype::Int32 => each(json, data, |json, bytes| {
            plain(json, i32::from_le_bytes(bytes))
        }),
        Datatype::Int64 => each(json, data, |json, bytes| {
            plain(json, i64::from_le_bytes(bytes))
        }),
        // serde_json writes the fewest digits that read back as the same f32 or f64.
        Datatype::Fp32 => each(json, data, |json, bytes| {
            let number = f32::from_le_bytes(bytes);
            number.is_finite() && plain(json, number)
        }),
        Datatype::Fp64 => each(json, data, |json, bytes| {
            let number = f64::from_le_bytes(bytes);
            number.is_finite() && plain(json, number)
        }),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(ProtocolError::BinaryOnly {
                name: tensor.name.clone(),
                datatype: tensor.datatype,
            });
        }
        Datatype::Bytes => return write_strings(json, tensor),
    }
    .then_some(())
    .ok_or_else(|| ProtocolError::NotFinite {
        name: tensor.name.clone(),
    })
}

/// Writes elements of `N` bytes, comma-separated, until `write` says no.
#[inline]
fn each<const N: usize>(
    json: &mut Vec<u8>,
    data: &[u8],
    write: impl Fn(&mut Vec<u8>, [u8; N]) -> bool,
) -> bool {
    let (elements, rest) = data.as_chunks::<N>();
    debug_assert!(rest.is_empty(), "a tensor's data is whole elements");
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        if !write(json, *element) {
            return false;
        }
    }
    true
}

#[inline]
fn plain(json: &mut Vec<u8>, number: impl Serialize) -> bool {
    value(json, &number);
    true
}

fn write_strings(json: &mut Vec<u8>, tensor: &Tensor) -> Result<(), ProtocolError> {
    for (index, element) in bytes_elements(&tensor.data).enumerate() {
        if index > 0 {
            json.push(b',');
        }
        match element.map(std::str::from_utf8) {
            Some(Ok(text)) => value(json, text),
            _ => {
                return Err(ProtocolError::NotText {
                    name: tensor.name.clone(),
                });
            }
        }
    }
    Ok(())
}
