//! The model behind the kit's own server, `digits` version 1 of its [`World`]: it gives its inputs back. Every answer has
//! a receipt, logged and quoted as it was asked for.

use serde_json::{Value, json};
use touchstone_formats::headers::{OpeningSalts, State, TouchstoneRequest, TouchstoneResponse};
use touchstone_formats::{Bundle, Datatype, GuaranteeSet, Openings};

use super::message::Message;
use crate::mint::{Exchange, Tensor, World};

/// The header that says where the binary part of a body begins.
const HEADER_LENGTH: &str = "inference-header-content-length";

/// An answer with what goes with it.
pub(super) struct Answered {
    pub(super) answer: Message,
    /// The receipt's id, hexadecimal.
    pub(super) id: String,
    /// The bundle as a host serves it, without openings.
    pub(super) bundle: Vec<u8>,
}

/// Answers an inference request; else the status of a problem and what it is.
pub(super) fn answer(
    world: &World,
    request: &Message,
    number: u64,
    now: u64,
) -> Result<Answered, (u16, &'static str)> {
    let (method, target) = request.request();
    let model = world.models.first().ok_or((404, "no model"))?;
    let targets = [
        format!("/v2/models/{}/infer", model.name),
        format!("/v2/models/{}/versions/{}/infer", model.name, model.version),
    ];
    if method != "POST" || !targets.iter().any(|known| known == target) {
        return Err((404, "nothing here but inference by one model"));
    }
    let asked = TouchstoneRequest::parse(request.header("touchstone").unwrap_or_default())
        .map_err(|_| (400, "the Touchstone header is malformed"))?;
    let header_length = request
        .header(HEADER_LENGTH)
        .map(|text| text.parse::<u64>().map_err(|_| (400, "no header length")))
        .transpose()?;
    let inputs = tensors(&request.body, header_length).ok_or((400, "no tensors"))?;

    let mut exchange = Exchange::json(number);
    exchange.method = method.into();
    exchange.target = target.into();
    exchange.request_header_length = header_length;
    exchange.request_body = request.body.clone();
    exchange.nonce = asked.nonce;
    exchange.require = asked.require.unwrap_or_else(GuaranteeSet::default_set);
    let (header, tail) = outputs(&inputs, header_length.is_some(), &hex::encode(exchange.cti));
    exchange.response_header_length = header_length.map(|_| header.len() as u64);
    exchange.response_body = [header, tail].concat();
    exchange.inputs = inputs.clone();
    exchange.outputs = inputs;

    // Receipts of a world are five seconds older than the moment at which it is judged.
    let world = World {
        at: now + 5,
        ..world.clone()
    };
    let minted = world.mint(exchange).among(number, 0).finish();
    let exchange = &minted.exchange;
    let state = TouchstoneResponse {
        id: exchange.cti,
        keyset: world.keyset.digest(),
        require: exchange.require,
        state: State::Sealed,
    };
    let salts = OpeningSalts {
        request: Some(exchange.salts.request),
        response: Some(exchange.salts.response),
        inputs: Some(exchange.salts.inputs),
        outputs: Some(exchange.salts.outputs),
    };
    let content_type = match exchange.response_header_length {
        Some(_) => "application/octet-stream",
        None => "application/json",
    };
    let mut answer = Message::answer(200, content_type, exchange.response_body.clone());
    answer.set("touchstone", &state.to_string());
    answer.set("touchstone-openings", &salts.to_string());
    if let Some(length) = exchange.response_header_length {
        answer.set(HEADER_LENGTH, &length.to_string());
    }
    let bundle = Bundle {
        openings: Openings::default(),
        ..minted.bundle.clone()
    };
    Ok(Answered {
        answer,
        id: hex::encode(exchange.cti),
        bundle: bundle.to_file(),
    })
}

/// The inputs of a request. `None` when it is none, or has JSON of a type that this model does not read.
fn tensors(body: &[u8], header_length: Option<u64>) -> Option<Vec<Tensor>> {
    let split = match header_length {
        Some(length) => usize::try_from(length).ok()?,
        None => body.len(),
    };
    let (header, mut tail) = body.split_at_checked(split)?;
    let header: Value = serde_json::from_slice(header).ok()?;
    let mut inputs = Vec::new();
    for input in header["inputs"].as_array()? {
        let datatype: Datatype = input["datatype"].as_str()?.parse().ok()?;
        let shape = input["shape"].as_array()?;
        let data = match input["parameters"]["binary_data_size"].as_u64() {
            Some(size) => {
                let (data, rest) = tail.split_at_checked(usize::try_from(size).ok()?)?;
                tail = rest;
                data.to_vec()
            }
            None => {
                let mut data = Vec::new();
                elements(datatype, &input["data"], &mut data)?;
                data
            }
        };
        let tensor = Tensor {
            name: input["name"].as_str()?.into(),
            datatype,
            shape: shape.iter().map(Value::as_u64).collect::<Option<_>>()?,
            data,
        };
        // What the commitments are over: refused here, where the mint would panic.
        let count = tensor
            .shape
            .iter()
            .try_fold(1u64, |n, d| n.checked_mul(*d))?;
        if count.checked_mul(datatype.size()? as u64)? != tensor.data.len() as u64
            || inputs.iter().any(|t: &Tensor| t.name == tensor.name)
        {
            return None;
        }
        inputs.push(tensor);
    }
    Some(inputs)
}

/// JSON numbers, nested or flat, as little-endian bytes.
fn elements(datatype: Datatype, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    if let Value::Array(items) = value {
        return items
            .iter()
            .try_for_each(|item| elements(datatype, item, out));
    }
    match datatype {
        Datatype::Bool => out.push(u8::from(value.as_bool()?)),
        Datatype::Fp64 => out.extend(value.as_f64()?.to_le_bytes()),
        // Rounded once, from decimal: not by way of FP64.
        Datatype::Fp32 => out.extend(value.to_string().parse::<f32>().ok()?.to_le_bytes()),
        Datatype::Uint64 => out.extend(value.as_u64()?.to_le_bytes()),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => {
            let bytes = value.as_u64()?.to_le_bytes();
            out.extend(bytes.get(..datatype.size()?)?);
        }
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 | Datatype::Int64 => {
            let bytes = value.as_i64()?.to_le_bytes();
            out.extend(bytes.get(..datatype.size()?)?);
        }
        _ => return None,
    }
    Some(())
}

/// The inputs as the outputs of an answer: its JSON and, where that is asked for, its binary part.
fn outputs(tensors: &[Tensor], binary: bool, id: &str) -> (Vec<u8>, Vec<u8>) {
    let mut tail = Vec::new();
    let mut described = Vec::new();
    for tensor in tensors {
        let mut output =
            json!({"name": tensor.name, "datatype": tensor.datatype.name(), "shape": tensor.shape});
        if binary {
            output["parameters"] = json!({"binary_data_size": tensor.data.len()});
            tail.extend_from_slice(&tensor.data);
        } else {
            output["data"] = numbers(tensor);
        }
        described.push(output);
    }
    let header = json!({"model_name": "digits", "model_version": "1",
        "parameters": {"touchstone_id": id}, "outputs": described});
    (header.to_string().into_bytes(), tail)
}

/// A tensor's elements as JSON that reads back as the same bytes.
fn numbers(tensor: &Tensor) -> Value {
    fn each<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> Value) -> Value {
        data.as_chunks::<N>().0.iter().map(|c| value(*c)).collect()
    }
    let data = tensor.data.as_slice();
    match tensor.datatype {
        Datatype::Bool => each(data, |[b]| json!(b == 1)),
        Datatype::Uint8 => each(data, |b| json!(u8::from_le_bytes(b))),
        Datatype::Uint16 => each(data, |b| json!(u16::from_le_bytes(b))),
        Datatype::Uint32 => each(data, |b| json!(u32::from_le_bytes(b))),
        Datatype::Uint64 => each(data, |b| json!(u64::from_le_bytes(b))),
        Datatype::Int8 => each(data, |b| json!(i8::from_le_bytes(b))),
        Datatype::Int16 => each(data, |b| json!(i16::from_le_bytes(b))),
        Datatype::Int32 => each(data, |b| json!(i32::from_le_bytes(b))),
        Datatype::Int64 => each(data, |b| json!(i64::from_le_bytes(b))),
        Datatype::Fp64 => each(data, |b| json!(f64::from_le_bytes(b))),
        // Widening is exact, and what is read back is rounded to the same FP32.
        _ => each(data, |b| json!(f32::from_le_bytes(b))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_binary_give_the_same_tensors() {
        let json = br#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[[0.1,16777217.0],[-2,3e-7]]},
            {"name":"n","datatype":"INT8","shape":[2],"data":[-1,127]}]}"#;
        let inputs = tensors(json, None).unwrap();
        let floats: Vec<u8> = [0.1f32, 16_777_216.0, -2.0, 3e-7]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        assert_eq!(inputs[0].data, floats);
        assert_eq!(inputs[1].data, [255, 127]);
        for binary in [false, true] {
            let (header, tail) = outputs(&inputs, binary, "id");
            let text = String::from_utf8(header)
                .unwrap()
                .replace("outputs", "inputs");
            let length = binary.then_some(text.len() as u64);
            let body = [text.as_bytes(), &tail].concat();
            assert_eq!(tensors(&body, length).unwrap(), inputs);
        }
        for bad in [
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1]}]}"#,
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[4294967296,4294967296],"data":[1]}]}"#,
            r#"{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"data":["a"]}]}"#,
            "{}",
            "",
        ] {
            assert!(tensors(bad.as_bytes(), None).is_none(), "{bad}");
        }
        assert!(tensors(b"{}", Some(99)).is_none());
    }
}
