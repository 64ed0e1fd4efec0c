//! Tensors between the protocol's bytes and the runtime's values.

use bytes::Bytes;
use half::{bf16, f16};
use ort::{
    session::SessionInputValue,
    value::{DynValue, PrimitiveTensorElementType, Shape, Tensor as Value, TensorRef, ValueType},
};
use touchstone_formats::commitment::Datatype;
use zerocopy::{FromBytes, Immutable, IntoBytes, TryFromBytes};

use super::{InferError, session::datatype};
use crate::protocol::{Tensor, elements::bytes_elements};

// The binary extension is little-endian, and the runtime wants the machine's own order.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "little-endian machines only"
);

/// The runtime's view of an input. Its bytes are not copied, unless they lie unaligned in the
/// request's body.
pub(super) fn input(tensor: &Tensor) -> Result<SessionInputValue<'_>, InferError> {
    let shape = || -> Result<Vec<i64>, InferError> {
        let dims = tensor.shape.iter().map(|dim| i64::try_from(*dim));
        dims.collect::<Result<_, _>>()
            .map_err(|_| wrong(tensor, "its shape is too large"))
    };
    let shape = shape()?;
    match tensor.datatype {
        Datatype::Bool => match <[bool]>::try_ref_from_bytes(&tensor.data) {
            Ok(elements) => view(tensor, shape, elements),
            Err(_) => Err(wrong(tensor, "a BOOL is 0 or 1")),
        },
        Datatype::Uint8 => number::<u8>(tensor, shape),
        Datatype::Uint16 => number::<u16>(tensor, shape),
        Datatype::Uint32 => number::<u32>(tensor, shape),
        Datatype::Uint64 => number::<u64>(tensor, shape),
        Datatype::Int8 => number::<i8>(tensor, shape),
        Datatype::Int16 => number::<i16>(tensor, shape),
        Datatype::Int32 => number::<i32>(tensor, shape),
        Datatype::Int64 => number::<i64>(tensor, shape),
        Datatype::Fp16 => number::<f16>(tensor, shape),
        Datatype::Bf16 => number::<bf16>(tensor, shape),
        Datatype::Fp32 => number::<f32>(tensor, shape),
        Datatype::Fp64 => number::<f64>(tensor, shape),
        Datatype::Bytes => strings(tensor, shape),
    }
}

fn number<T>(tensor: &Tensor, shape: Vec<i64>) -> Result<SessionInputValue<'_>, InferError>
where
    T: PrimitiveTensorElementType + FromBytes + IntoBytes + Immutable + Clone + Default,
    T: std::fmt::Debug + 'static,
{
    if let Ok(elements) = <[T]>::ref_from_bytes(&tensor.data) {
        return view(tensor, shape, elements);
    }
    let mut elements = vec![T::default(); tensor.data.len() / size_of::<T>()];
    let bytes = elements.as_mut_slice().as_mut_bytes();
    if bytes.len() != tensor.data.len() {
        return Err(wrong(tensor, "its data is no whole number of elements"));
    }
    bytes.copy_from_slice(&tensor.data);
    match Value::from_array((shape, elements)) {
        Ok(value) => Ok(value.into()),
        Err(e) => Err(wrong(tensor, &e.to_string())),
    }
}

fn view<'a, T>(
    tensor: &Tensor,
    shape: Vec<i64>,
    elements: &'a [T],
) -> Result<SessionInputValue<'a>, InferError>
where
    T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
{
    match TensorRef::from_array_view((shape, elements)) {
        Ok(value) => Ok(value.into()),
        Err(e) => Err(wrong(tensor, &e.to_string())),
    }
}

fn strings(tensor: &Tensor, shape: Vec<i64>) -> Result<SessionInputValue<'_>, InferError> {
    let mut elements = Vec::new();
    for element in bytes_elements(&tensor.data) {
        let element = element.ok_or_else(|| wrong(tensor, "a BYTES element is cut short"))?;
        let text = std::str::from_utf8(element)
            .ok()
            .filter(|text| !text.contains('\0'));
        let Some(text) = text else {
            let problem = "the runtime's strings are UTF-8 without NUL; a BYTES element is not";
            return Err(wrong(tensor, problem));
        };
        // ort takes owned strings only, or static ones.
        elements.push(text.to_owned());
    }
    match Value::from_string_array((shape, elements.as_slice())) {
        Ok(value) => Ok(value.into()),
        Err(e) => Err(wrong(tensor, &e.to_string())),
    }
}

#[cold]
fn wrong(tensor: &Tensor, problem: &str) -> InferError {
    InferError::Inputs(super::cut(&format!("input {:?}: {problem}", tensor.name)))
}

/// An output's bytes, as the binary extension writes them.
pub(super) fn output(name: &str, value: &DynValue) -> Result<Tensor, InferError> {
    let failed =
        |problem: String| InferError::Failed(super::cut(&format!("output {name:?}: {problem}")));
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(failed(format!("is {}, no tensor", value.dtype())));
    };
    let Some(datatype) = datatype(*ty) else {
        return Err(failed(format!("has elements of type {ty}")));
    };
    let shape: Option<Vec<u64>> = shape.iter().map(|dim| u64::try_from(*dim).ok()).collect();
    let shape = shape.ok_or_else(|| failed("has a negative dimension".into()))?;
    let data = match datatype {
        Datatype::Bool => copy::<bool>(value),
        Datatype::Uint8 => copy::<u8>(value),
        Datatype::Uint16 => copy::<u16>(value),
        Datatype::Uint32 => copy::<u32>(value),
        Datatype::Uint64 => copy::<u64>(value),
        Datatype::Int8 => copy::<i8>(value),
        Datatype::Int16 => copy::<i16>(value),
        Datatype::Int32 => copy::<i32>(value),
        Datatype::Int64 => copy::<i64>(value),
        Datatype::Fp16 => copy::<f16>(value),
        Datatype::Bf16 => copy::<bf16>(value),
        Datatype::Fp32 => copy::<f32>(value),
        Datatype::Fp64 => copy::<f64>(value),
        Datatype::Bytes => copy_strings(value),
    }
    .map_err(|e| failed(e.to_string()))?;
    Ok(Tensor {
        name: name.to_owned(),
        datatype,
        shape,
        data,
    })
}

fn copy<T>(value: &DynValue) -> ort::Result<Bytes>
where
    T: PrimitiveTensorElementType + IntoBytes + Immutable,
{
    let (_, elements): (&Shape, &[T]) = value.try_extract_tensor()?;
    Ok(Bytes::copy_from_slice(elements.as_bytes()))
}

fn copy_strings(value: &DynValue) -> ort::Result<Bytes> {
    let (_, strings) = value.try_extract_strings()?;
    let mut data = Vec::with_capacity(strings.iter().map(|text| 4 + text.len()).sum());
    for text in &strings {
        let length = u32::try_from(text.len())
            .map_err(|_| ort::Error::new("a string of more than 4 GiB"))?;
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(text.as_bytes());
    }
    Ok(data.into())
}
