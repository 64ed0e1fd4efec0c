//! An inference request: body bytes to tensors.

use bytes::Bytes;
use touchstone_formats::commitment::{Datatype, TensorRef};

use super::{
    ProtocolError, Tensor,
    elements::{Budget, check_binary, element_count, read_elements},
    json::{Reader, Result, shorten},
};

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
        Self {
            tensors: 256,
            rank: 16,
            tensor_bytes: 64 << 20,
            text: 1024,
        }
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

    /// Whether the output of this name was asked for in the binary encoding.
    pub fn wants_binary(&self, output: &str) -> bool {
        self.outputs
            .iter()
            .flatten()
            .find(|requested| requested.name == output)
            .and_then(|requested| requested.binary_data)
            .unwrap_or(self.binary_data_output)
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
/// Members that the protocol does not name are skipped, as its other servers do. Parameters that
/// would change the meaning of the request and cannot be honoured are refused, as is anything
/// that two readers could understand in two ways.
///
/// # Errors
/// [`ProtocolError`] with status 400 or 413. Memory stays within a small multiple of the body.
pub fn parse_request(
    body: &Bytes,
    header_length: Option<u64>,
    limits: &Limits,
) -> Result<InferRequest> {
    let json_length = match header_length {
        None => body.len(),
        Some(length) => usize::try_from(length)
            .ok()
            .filter(|length| *length <= body.len())
            .ok_or_else(|| {
                ProtocolError::Malformed(format!(
                    "Inference-Header-Content-Length is {length}, the body has {} bytes",
                    body.len()
                ))
            })?,
    };
    let mut request = InferRequest::default();
    let mut inputs: Option<Vec<Input>> = None;
    let mut budget = Budget::new(limits.tensor_bytes);
    let mut reader = Reader::new(body.get(..json_length).unwrap_or_default())?;
    reader.object(|reader, name| {
        match name {
            "id" if !reader.null()? => request.id = Some(text(reader, "id", limits)?),
            "parameters" if !reader.null()? => request_parameters(reader, &mut request)?,
            "inputs" => inputs = Some(read_inputs(reader, limits, &mut budget)?),
            "outputs" if !reader.null()? => {
                // An empty list asks for all, as no list does.
                request.outputs =
                    Some(read_outputs(reader, limits)?).filter(|outputs| !outputs.is_empty());
            }
            "id" | "parameters" | "outputs" => {}
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    reader.end()?;
    let inputs = inputs.ok_or_else(|| ProtocolError::Malformed("\"inputs\" is missing".into()))?;
    request.inputs = attach_binary(inputs, body, json_length, header_length, budget)?;
    Ok(request)
}

/// An input whose binary data, if it has any, has not been found yet.
struct Input {
    name: String,
    datatype: Datatype,
    shape: Vec<u64>,
    count: u64,
    data: Data,
}

enum Data {
    Read(Vec<u8>),
    Binary(u64),
}

fn text(reader: &mut Reader<'_>, what: &'static str, limits: &Limits) -> Result<String> {
    let text = reader.string()?;
    if text.len() > limits.text {
        return Err(ProtocolError::TooLarge {
            what: if what == "id" {
                "bytes of the request's id"
            } else {
                "bytes of a tensor's name"
            },
            limit: limits.text as u64,
            found: text.len() as u64,
        });
    }
    Ok(text.into_owned())
}

fn read_inputs(
    reader: &mut Reader<'_>,
    limits: &Limits,
    budget: &mut Budget,
) -> Result<Vec<Input>> {
    let mut inputs: Vec<Input> = Vec::new();
    reader.array(|reader| {
        at_most("input tensors", inputs.len() + 1, limits.tensors)?;
        let input = read_input(reader, limits, budget)?;
        if inputs.iter().any(|other| other.name == input.name) {
            return Err(ProtocolError::input(&input.name, "given twice".into()));
        }
        inputs.push(input);
        Ok(())
    })?;
    Ok(inputs)
}

fn read_input(reader: &mut Reader<'_>, limits: &Limits, budget: &mut Budget) -> Result<Input> {
    let mut name = None;
    let mut datatype: Option<Datatype> = None;
    let mut shape: Option<Vec<u64>> = None;
    let mut binary: Option<u64> = None;
    let mut read: Option<Vec<u8>> = None;
    // Where `data` stands, when it came before the members that say how to read it.
    let mut postponed: Option<Reader<'_>> = None;
    let mut has_data = false;
    reader.object(|reader, member| {
        match member {
            "name" => name = Some(text(reader, "name", limits)?),
            "datatype" => datatype = Some(read_datatype(reader)?),
            "shape" => shape = Some(read_shape(reader, limits)?),
            "parameters" if !reader.null()? => binary = input_parameters(reader)?,
            "parameters" => {}
            "data" => {
                has_data = true;
                if let (Some(name), Some(datatype), Some(shape)) = (&name, datatype, &shape) {
                    read = Some(read_elements(reader, name, datatype, shape, budget)?);
                } else {
                    postponed = Some(reader.clone());
                    reader.skip()?;
                }
            }
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    let name = name.ok_or_else(|| ProtocolError::Malformed("an input has no \"name\"".into()))?;
    let missing = |what: &str| ProtocolError::input(&name, format!("\"{what}\" is missing"));
    let datatype = datatype.ok_or_else(|| missing("datatype"))?;
    let shape = shape.ok_or_else(|| missing("shape"))?;
    let count = element_count(&name, &shape)?;
    let data = match (has_data, binary) {
        (true, None) => match (read, postponed) {
            (Some(data), _) => Data::Read(data),
            (None, Some(mut reader)) => {
                Data::Read(read_elements(&mut reader, &name, datatype, &shape, budget)?)
            }
            (None, None) => return Err(missing("data")),
        },
        (false, Some(size)) => Data::Binary(size),
        (true, Some(_)) => {
            return Err(ProtocolError::input(
                &name,
                "has both \"data\" and binary_data_size".into(),
            ));
        }
        (false, None) => return Err(missing("data")),
    };
    Ok(Input {
        name,
        datatype,
        shape,
        count,
        data,
    })
}

fn read_datatype(reader: &mut Reader<'_>) -> Result<Datatype> {
    let name = reader.string()?;
    name.parse().map_err(|_| {
        ProtocolError::Malformed(format!(
            "datatype {:?} is none of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, \
             INT64, FP16, BF16, FP32, FP64, BYTES",
            shorten(&name)
        ))
    })
}

fn read_shape(reader: &mut Reader<'_>, limits: &Limits) -> Result<Vec<u64>> {
    let mut shape = Vec::new();
    reader.array(|reader| {
        at_most("dimensions of a tensor", shape.len() + 1, limits.rank)?;
        shape.push(unsigned(reader, "a dimension (an integer, 0 or more)")?);
        Ok(())
    })?;
    Ok(shape)
}

/// A plain unsigned integer.
fn unsigned(reader: &mut Reader<'_>, expected: &str) -> Result<u64> {
    let mut look = reader.clone();
    let number = look.number()?;
    match number.text.parse() {
        // `parse` refuses signs (save `+`, which is no JSON), fractions and exponents.
        Ok(value) => {
            *reader = look;
            Ok(value)
        }
        Err(_) => Err(reader.error(expected)),
    }
}

fn request_parameters(reader: &mut Reader<'_>, request: &mut InferRequest) -> Result<()> {
    reader.object(|reader, name| match name {
        "binary_data_output" => {
            request.binary_data_output = reader.boolean()?;
            Ok(())
        }
        "touchstone_require" => {
            request.touchstone.require = Some(bounded_string(reader)?);
            Ok(())
        }
        "touchstone_nonce" => {
            request.touchstone.nonce = Some(bounded_string(reader)?);
            Ok(())
        }
        "sequence_id" | "sequence_start" | "sequence_end" => {
            only_neutral(reader, name, "models here keep no state between requests")
        }
        "priority" => only_neutral(reader, name, "requests are served in the order they come"),
        "timeout" => only_neutral(reader, name, "the server's own time limits hold"),
        // A misspelt demand must not become no demand.
        _ if name.starts_with("touchstone_") => Err(unsupported(
            name,
            "known are touchstone_require and touchstone_nonce",
        )),
        _ => reader.skip(),
    })
}

fn bounded_string(reader: &mut Reader<'_>) -> Result<String> {
    let text = reader.string()?;
    at_most("bytes of a touchstone parameter", text.len(), 256)?;
    Ok(text.into_owned())
}

fn input_parameters(reader: &mut Reader<'_>) -> Result<Option<u64>> {
    let mut binary = None;
    reader.object(|reader, name| {
        match name {
            "binary_data_size" => binary = Some(unsigned(reader, "a size in bytes")?),
            _ if name.starts_with("shared_memory_") => {
                return Err(unsupported(name, "tensors travel in the request"));
            }
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(binary)
}

fn read_outputs(reader: &mut Reader<'_>, limits: &Limits) -> Result<Vec<RequestedOutput>> {
    let mut outputs: Vec<RequestedOutput> = Vec::new();
    reader.array(|reader| {
        at_most("requested outputs", outputs.len() + 1, limits.tensors)?;
        let output = read_output(reader, limits)?;
        if outputs.iter().any(|other| other.name == output.name) {
            return Err(ProtocolError::output(
                &output.name,
                "asked for twice".into(),
            ));
        }
        outputs.push(output);
        Ok(())
    })?;
    Ok(outputs)
}

fn read_output(reader: &mut Reader<'_>, limits: &Limits) -> Result<RequestedOutput> {
    let mut name = None;
    let mut binary_data = None;
    reader.object(|reader, member| {
        match member {
            "name" => name = Some(text(reader, "name", limits)?),
            "parameters" if !reader.null()? => reader.object(|reader, parameter| {
                match parameter {
                    "binary_data" => binary_data = Some(reader.boolean()?),
                    "classification" => only_neutral(
                        reader,
                        parameter,
                        "it would replace the output's values by labels; ask for the output itself",
                    )?,
                    _ if parameter.starts_with("shared_memory_") => {
                        return Err(unsupported(parameter, "tensors travel in the answer"));
                    }
                    _ => reader.skip()?,
                }
                Ok(())
            })?,
            "parameters" => {}
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    let name =
        name.ok_or_else(|| ProtocolError::Malformed("a requested output has no \"name\"".into()))?;
    Ok(RequestedOutput { name, binary_data })
}

/// Accepts a parameter only with the value that asks for nothing.
fn only_neutral(reader: &mut Reader<'_>, name: &str, why: &'static str) -> Result<()> {
    let neutral = match reader.peek() {
        Some(b'"') => reader.string()?.is_empty(),
        Some(b't' | b'f') => !reader.boolean()?,
        Some(b'n') => reader.null()?,
        _ => reader.number()?.text == "0",
    };
    if neutral {
        Ok(())
    } else {
        Err(unsupported(name, why))
    }
}

/// Gives each input the bytes that its `binary_data_size` claims, in order, none left over.
fn attach_binary(
    inputs: Vec<Input>,
    body: &Bytes,
    json_length: usize,
    header_length: Option<u64>,
    mut budget: Budget,
) -> Result<Vec<Tensor>> {
    let mut at = json_length;
    let mut tensors = Vec::with_capacity(inputs.len());
    for Input {
        name,
        datatype,
        shape,
        count,
        data,
    } in inputs
    {
        let data = match data {
            Data::Read(data) => Bytes::from(data),
            Data::Binary(_) if header_length.is_none() => {
                return Err(ProtocolError::input(
                    &name,
                    "binary_data_size without an Inference-Header-Content-Length header".into(),
                ));
            }
            Data::Binary(size) => {
                let length = usize::try_from(size)
                    .ok()
                    .filter(|size| *size <= body.len() - at);
                let Some(length) = length else {
                    return Err(ProtocolError::input(
                        &name,
                        format!(
                            "binary_data_size is {size}, {} bytes are left in the body",
                            body.len() - at
                        ),
                    ));
                };
                budget.take(length)?;
                let data = body.slice(at..at + length);
                at += length;
                check_binary(&name, datatype, &shape, count, &data)?;
                data
            }
        };
        tensors.push(Tensor {
            name,
            datatype,
            shape,
            data,
        });
    }
    if at != body.len() {
        return Err(ProtocolError::Malformed(format!(
            "{} bytes after the JSON belong to no input",
            body.len() - at
        )));
    }
    Ok(tensors)
}

fn at_most(what: &'static str, found: usize, limit: usize) -> Result<()> {
    if found > limit {
        return Err(ProtocolError::TooLarge {
            what,
            limit: limit as u64,
            found: found as u64,
        });
    }
    Ok(())
}

#[cold]
fn unsupported(name: &str, why: &'static str) -> ProtocolError {
    ProtocolError::Parameter {
        name: shorten(name),
        why,
    }
}
