//! The caller's side of the Open Inference Protocol v2: inference requests out of tensors, and
//! the tensors of an answer.
//!
//! Tensors are held as the binary extension carries them, so that their digest (formats.md §4)
//! is the same whichever encoding travelled. JSON numbers are rounded once, from their decimal
//! text, by the standard library's correctly rounding parser.

use std::fmt;

use attestation_verifier::exchange::OwnedTensor;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use touchstone_formats::commitment::Datatype;

/// Why tensors cannot be sent, or an answer's cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OipError {
    /// JSON has no way to say it: a number that is not finite, 16-bit floats, bytes that are no text.
    #[error("tensor {name:?}: {what} cannot be written in JSON, only in the binary encoding")]
    NotInJson {
        /// The tensor.
        name: String,
        /// What of it.
        what: String,
    },
    /// A tensor's data is not what its datatype says.
    #[error("tensor {name:?}: {what}")]
    Data {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The answer's JSON is not that of an inference answer.
    #[error("not an inference answer: {0}")]
    Json(#[from] serde_json::Error),
    /// The lengths in the answer do not fit its body.
    #[error("the answer's lengths: {0}")]
    Length(String),
}

type Result<T> = std::result::Result<T, OipError>;

/// How tensors travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Binary tensor extension, both ways.
    Binary,
    /// Plain JSON, both ways.
    Json,
}

/// An inference request's body and its `Inference-Header-Content-Length`.
#[derive(Debug, PartialEq)]
pub struct Body {
    /// The bytes to send.
    pub bytes: Vec<u8>,
    /// Length of the JSON part when binary tensors follow it.
    pub header_length: Option<u64>,
}

/// The only Content-Type that goes with a body, of a request or an answer (formats.md §4).
pub fn content_type(header_length: Option<u64>) -> &'static str {
    match header_length {
        Some(_) => "application/octet-stream",
        None => "application/json",
    }
}

/// Path of the inference endpoint; every byte of a name outside the unreserved set is escaped.
pub fn target(model: &str, version: Option<&str>) -> String {
    let mut path = format!("/v2/models/{}", escape(model));
    if let Some(version) = version {
        path.push_str("/versions/");
        path.push_str(&escape(version));
    }
    path + "/infer"
}

fn escape(segment: &str) -> String {
    let mut out = String::new();
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Encodes an inference request for these inputs, asking for all outputs.
pub fn request(inputs: &[OwnedTensor], encoding: Encoding) -> Result<Body> {
    let mut descriptions = Vec::with_capacity(inputs.len());
    let mut tail = Vec::new();
    for tensor in inputs {
        let mut description = Map::new();
        description.insert("name".into(), json!(tensor.name));
        description.insert("shape".into(), json!(tensor.shape));
        description.insert("datatype".into(), json!(tensor.datatype.to_string()));
        match encoding {
            Encoding::Binary => {
                let size = json!({ "binary_data_size": tensor.data.len() });
                description.insert("parameters".into(), size);
                tail.extend_from_slice(&tensor.data);
            }
            Encoding::Json => {
                description.insert("data".into(), Value::Array(to_json(tensor)?));
            }
        }
        descriptions.push(Value::Object(description));
    }
    let mut object = Map::new();
    object.insert("inputs".into(), Value::Array(descriptions));
    if encoding == Encoding::Binary {
        object.insert("parameters".into(), json!({ "binary_data_output": true }));
    }
    let mut bytes = serde_json::to_vec(&Value::Object(object))?;
    let header_length = (encoding == Encoding::Binary).then_some(bytes.len() as u64);
    bytes.extend_from_slice(&tail);
    Ok(Body {
        bytes,
        header_length,
    })
}

/// The elements of a tensor as JSON values, flat.
fn to_json(tensor: &OwnedTensor) -> Result<Vec<Value>> {
    let not_in_json = |what: String| OipError::NotInJson {
        name: tensor.name.clone(),
        what,
    };
    fn each<const N: usize>(
        data: &[u8],
        value: impl Fn([u8; N]) -> Result<Value>,
    ) -> Result<Vec<Value>> {
        data.as_chunks::<N>()
            .0
            .iter()
            .map(|chunk| value(*chunk))
            .collect()
    }
    let data = tensor.data.as_slice();
    match tensor.datatype {
        Datatype::Bool => each(data, |[b]| Ok(json!(b == 1))),
        Datatype::Uint8 => each(data, |b| Ok(json!(u8::from_le_bytes(b)))),
        Datatype::Uint16 => each(data, |b| Ok(json!(u16::from_le_bytes(b)))),
        Datatype::Uint32 => each(data, |b| Ok(json!(u32::from_le_bytes(b)))),
        Datatype::Uint64 => each(data, |b| Ok(json!(u64::from_le_bytes(b)))),
        Datatype::Int8 => each(data, |b| Ok(json!(i8::from_le_bytes(b)))),
        Datatype::Int16 => each(data, |b| Ok(json!(i16::from_le_bytes(b)))),
        Datatype::Int32 => each(data, |b| Ok(json!(i32::from_le_bytes(b)))),
        Datatype::Int64 => each(data, |b| Ok(json!(i64::from_le_bytes(b)))),
        Datatype::Fp32 => each(data, |b| {
            let x = f32::from_le_bytes(b);
            if !x.is_finite() {
                return Err(not_in_json(x.to_string()));
            }
            // The shortest text that reads back as this f32; through f64 it would be longer, and
            // would still round to the same f32.
            Ok(serde_json::from_str(&serde_json::to_string(&x)?)?)
        }),
        Datatype::Fp64 => each(data, |b| {
            let x = f64::from_le_bytes(b);
            if !x.is_finite() {
                return Err(not_in_json(x.to_string()));
            }
            Ok(json!(x))
        }),
        Datatype::Bytes => {
            let (mut out, mut rest) = (Vec::new(), data);
            while let Some((length, tail)) = rest.split_first_chunk::<4>() {
                let (text, tail) = tail
                    .split_at_checked(u32::from_le_bytes(*length) as usize)
                    .ok_or_else(|| OipError::Data {
                        name: tensor.name.clone(),
                        what: "a BYTES element runs past the data".into(),
                    })?;
                let text = std::str::from_utf8(text)
                    .map_err(|_| not_in_json("a BYTES element that is not UTF-8".into()))?;
                out.push(json!(text));
                rest = tail;
            }
            Ok(out)
        }
        Datatype::Fp16 | Datatype::Bf16 => Err(not_in_json(tensor.datatype.to_string())),
    }
}

#[derive(Deserialize)]
struct ResponseHeader {
    outputs: Vec<OutputHeader>,
}

#[derive(Deserialize)]
struct OutputHeader {
    name: String,
    datatype: String,
    shape: Vec<u64>,
    parameters: Option<OutputParameters>,
    data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct OutputParameters {
    binary_data_size: Option<u64>,
}

/// The tensors of an inference answer.
pub fn outputs(body: &[u8], header_length: Option<u64>) -> Result<Vec<OwnedTensor>> {
    let split = header_length.map_or(Some(body.len()), |n| usize::try_from(n).ok());
    let (header, mut tail) = split
        .and_then(|at| body.split_at_checked(at))
        .ok_or_else(|| {
            OipError::Length("Inference-Header-Content-Length is more than the body".into())
        })?;
    let header: ResponseHeader = serde_json::from_slice(header)?;
    let mut tensors = Vec::with_capacity(header.outputs.len());
    for output in header.outputs {
        let datatype: Datatype = output.datatype.parse().map_err(|_| {
            data_error(
                &output.name,
                format!("unknown datatype {:?}", output.datatype),
            )
        })?;
        let size = output.parameters.and_then(|p| p.binary_data_size);
        let data = match (size, output.data) {
            (Some(size), None) => {
                let (data, rest) = usize::try_from(size)
                    .ok()
                    .and_then(|at| tail.split_at_checked(at))
                    .ok_or_else(|| {
                        OipError::Length("binary_data_size is more than the body".into())
                    })?;
                tail = rest;
                data.to_vec()
            }
            (None, Some(data)) => {
                let mut out = Vec::new();
                from_json(datatype, data.get(), 0, &mut out)
                    .map_err(|what| data_error(&output.name, what))?;
                out
            }
            _ => {
                let what = "expected either data or binary_data_size".into();
                return Err(data_error(&output.name, what));
            }
        };
        tensors.push(OwnedTensor {
            name: output.name,
            datatype,
            shape: output.shape,
            data,
        });
    }
    if !tail.is_empty() {
        let what = format!("{} bytes after the last output", tail.len());
        return Err(OipError::Length(what));
    }
    Ok(tensors)
}

fn data_error(name: &str, what: String) -> OipError {
    OipError::Data {
        name: name.to_owned(),
        what,
    }
}

/// Appends the elements of a JSON array, nested or flat, in order. The error says what is wrong.
fn from_json(
    datatype: Datatype,
    text: &str,
    depth: usize,
    out: &mut Vec<u8>,
) -> std::result::Result<(), String> {
    /// Arrays within arrays: more than any tensor has dimensions.
    const DEPTH: usize = 32;
    if text.starts_with('[') {
        if depth >= DEPTH {
            return Err("data is nested too deep".into());
        }
        let elements = Elements {
            datatype,
            depth: depth + 1,
            out,
        };
        return serde_json::Deserializer::from_str(text)
            .deserialize_seq(elements)
            .map_err(|e| e.to_string())?;
    }
    macro_rules! number {
        ($t:ty) => {{
            let value: $t = text
                .parse()
                .map_err(|e| format!("{datatype} element {}: {e}", shown(text)))?;
            out.extend_from_slice(&value.to_le_bytes());
        }};
    }
    match datatype {
        Datatype::Bool => match text {
            "true" => out.push(1),
            "false" => out.push(0),
            _ => return Err(format!("BOOL element {}", shown(text))),
        },
        Datatype::Uint8 => number!(u8),
        Datatype::Uint16 => number!(u16),
        Datatype::Uint32 => number!(u32),
        Datatype::Uint64 => number!(u64),
        Datatype::Int8 => number!(i8),
        Datatype::Int16 => number!(i16),
        Datatype::Int32 => number!(i32),
        Datatype::Int64 => number!(i64),
        Datatype::Fp32 => number!(f32),
        Datatype::Fp64 => number!(f64),
        Datatype::Bytes => {
            let element: String = serde_json::from_str(text).map_err(|e| e.to_string())?;
            let length = u32::try_from(element.len()).map_err(|e| e.to_string())?;
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(element.as_bytes());
        }
        Datatype::Fp16 | Datatype::Bf16 => return Err(format!("{datatype} is not for JSON")),
    }
    Ok(())
}

/// The elements of an array, each taken as it is read: a list of them would take many times the answer's length.
struct Elements<'a> {
    datatype: Datatype,
    depth: usize,
    out: &'a mut Vec<u8>,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = std::result::Result<(), String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(
        self,
        mut items: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let mut read = Ok(());
        while let Some(item) = items.next_element::<&RawValue>()? {
            // The first element that is wrong is the one to be told of.
            if read.is_ok() {
                read = from_json(self.datatype, item.get(), self.depth, self.out);
            }
        }
        Ok(read)
    }
}

/// The beginning of an element, harmless on a terminal: it may be as long as the answer, and a liar's.
fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(datatype: Datatype, shape: &[u64], data: &[u8]) -> OwnedTensor {
        OwnedTensor {
            name: "x".into(),
            datatype,
            shape: shape.to_vec(),
            data: data.to_vec(),
        }
    }

    #[test]
    fn targets_escape_what_a_path_segment_cannot_hold() {
        assert_eq!(target("digits_cnn", None), "/v2/models/digits_cnn/infer");
        assert_eq!(
            target("a/b ?", Some("1")),
            "/v2/models/a%2Fb%20%3F/versions/1/infer"
        );
    }

    #[test]
    fn binary_requests_put_the_bytes_after_the_header() {
        let x = tensor(Datatype::Fp32, &[1, 2], &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
        let body = request(std::slice::from_ref(&x), Encoding::Binary).unwrap();
        let at = body.header_length.unwrap() as usize;
        assert_eq!(&body.bytes[at..], &x.data[..]);
        let header: Value = serde_json::from_slice(&body.bytes[..at]).unwrap();
        assert_eq!(header["inputs"][0]["parameters"]["binary_data_size"], 8);
        assert_eq!(header["parameters"]["binary_data_output"], true);
        assert_eq!(content_type(body.header_length), "application/octet-stream");
    }

    #[test]
    fn json_requests_read_back_as_the_same_bytes() {
        let floats: Vec<u8> = [0.1f32, -0.0, 1e38, 1.0, f32::MIN_POSITIVE, 16_777_217.0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let cases = [
            tensor(Datatype::Fp32, &[6], &floats),
            tensor(Datatype::Fp64, &[1], &0.1f64.to_le_bytes()),
            tensor(Datatype::Int64, &[1], &i64::MIN.to_le_bytes()),
            tensor(Datatype::Uint64, &[1], &u64::MAX.to_le_bytes()),
            tensor(Datatype::Bool, &[2], &[0, 1]),
            tensor(Datatype::Bytes, &[2], b"\x02\0\0\0h\"\0\0\0\0"),
        ];
        for case in cases {
            let body = request(std::slice::from_ref(&case), Encoding::Json).unwrap();
            assert_eq!(body.header_length, None);
            let text = String::from_utf8(body.bytes)
                .unwrap()
                .replace("\"inputs\"", "\"outputs\"");
            assert_eq!(outputs(text.as_bytes(), None).unwrap(), [case]);
        }
    }

    #[test]
    fn what_json_cannot_carry_is_refused() {
        let nan = tensor(Datatype::Fp32, &[1], &f32::NAN.to_le_bytes());
        let half = tensor(Datatype::Fp16, &[1], &[0, 0]);
        let raw = tensor(Datatype::Bytes, &[1], b"\x01\0\0\0\xff");
        for case in [nan, half, raw] {
            let error = request(std::slice::from_ref(&case), Encoding::Json).unwrap_err();
            assert!(matches!(error, OipError::NotInJson { .. }), "{error}");
            assert!(request(&[case], Encoding::Binary).is_ok());
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_harmless_words() {
        let wrong = |datatype: &str, element: &str| {
            let text = format!(
                r#"{{"outputs":[{{"name":"y","datatype":"{datatype}","shape":[1],"data":[{element}]}}]}}"#
            );
            outputs(text.as_bytes(), None).unwrap_err().to_string()
        };
        for datatype in ["FP32", "BOOL", "INT8"] {
            let said = wrong(datatype, "\"\u{9b}31m\u{7f}\"");
            assert!(said.contains("\\u{9b}31m\\u{7f}"), "{said}");
            assert!(!said.chars().any(char::is_control), "{said:?}");
        }
        let first = wrong("FP32", r#"1,[2,"x"],"y""#);
        assert!(
            first.ends_with(r#"FP32 element \"x\": invalid float literal"#),
            "{first}"
        );
        let long = wrong("FP32", &format!("\"{}\"", "x".repeat(1000)));
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn answers_of_both_encodings_give_the_same_tensor() {
        let json =
            br#"{"outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[[0.1,2]]}]}"#;
        let header = br#"{"outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}"#;
        let mut binary = header.to_vec();
        binary.extend_from_slice(&0.1f32.to_le_bytes());
        binary.extend_from_slice(&2f32.to_le_bytes());
        let decoded = outputs(json, None).unwrap();
        assert_eq!(
            decoded,
            outputs(&binary, Some(header.len() as u64)).unwrap()
        );
        binary.push(0);
        assert!(
            outputs(&binary, Some(header.len() as u64)).is_err(),
            "a byte too many"
        );
        binary.truncate(header.len() + 7);
        assert!(
            outputs(&binary, Some(header.len() as u64)).is_err(),
            "a byte too few"
        );
        assert!(outputs(&binary, Some(1 << 40)).is_err());
    }
}
