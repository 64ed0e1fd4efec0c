//! Answers: what is written, and that both encodings carry the same tensors.

use serde_json::Value;
use touchstone_formats::commitment::{Datatype, tensors_digest};

use super::super::{response::encode, *};

/// Bytes that look random and are the same on every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn tensor(&mut self, datatype: Datatype) -> Tensor {
        let shape: Vec<u64> = (0..self.next() % 4).map(|_| self.next() % 5).collect();
        let count: u64 = shape.iter().product();
        let mut data = Vec::new();
        for _ in 0..count {
            match datatype {
                Datatype::Bool => data.push(self.next() as u8 & 1),
                Datatype::Bytes => {
                    let text: String = (0..self.next() % 9)
                        .filter_map(|_| char::from_u32(self.next() as u32 % 0x11_0000))
                        .collect();
                    data.extend_from_slice(&(text.len() as u32).to_le_bytes());
                    data.extend_from_slice(text.as_bytes());
                }
                // Any finite number, exponents of all sizes.
                Datatype::Fp32 => loop {
                    let number = f32::from_bits(self.next() as u32);
                    if number.is_finite() {
                        break data.extend_from_slice(&number.to_le_bytes());
                    }
                },
                Datatype::Fp64 => loop {
                    let number = f64::from_bits(self.next());
                    if number.is_finite() {
                        break data.extend_from_slice(&number.to_le_bytes());
                    }
                },
                _ => data.extend_from_slice(
                    &self.next().to_le_bytes()[..datatype.size().expect("fixed size")],
                ),
            }
        }
        Tensor {
            name: format!("t-{datatype}"),
            datatype,
            shape,
            data: data.into(),
        }
    }
}

/// The inputs of a request made of an answer's outputs: what a client would send back.
fn back(response: &EncodedResponse) -> InferRequest {
    let length = response
        .header_length
        .map_or(response.body.len(), |length| length as usize);
    let mut document: Value = serde_json::from_slice(&response.body[..length]).expect("JSON");
    // Numbers must not pass through serde_json's f64 on their way: cut the text instead.
    let text = std::str::from_utf8(&response.body[..length]).expect("UTF-8");
    let at = text.find("\"outputs\":").expect("outputs");
    document.as_object_mut().expect("an object");
    let mut body = format!("{{\"inputs\":{}", &text[at + "\"outputs\":".len()..]).into_bytes();
    let header = response.header_length.map(|_| body.len() as u64);
    body.extend_from_slice(&response.body[length..]);
    parse_request(&body.into(), header, &Limits::default()).expect("an answer reads like a request")
}

#[test]
fn both_encodings_carry_the_same_tensors() {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let in_json = Datatype::ALL
        .into_iter()
        .filter(|d| !matches!(d, Datatype::Fp16 | Datatype::Bf16));
    let in_json: Vec<Datatype> = in_json.collect();
    for _ in 0..200 {
        let outputs: Vec<Tensor> = in_json
            .iter()
            .map(|datatype| noise.tensor(*datatype))
            .collect();
        let output = InferOutput { outputs };
        let json =
            encode("m", "1", &InferRequest::default(), &output, None).expect("finite numbers");
        let binary = InferRequest {
            binary_data_output: true,
            ..InferRequest::default()
        };
        let binary = encode("m", "1", &binary, &output, None).expect("anything");
        assert_eq!(json.header_length, None);
        assert!(binary.header_length.is_some());
        let (json, binary) = (back(&json), back(&binary));
        assert_eq!(json.inputs, output.outputs);
        assert_eq!(binary.inputs, output.outputs);
        let digest = tensors_digest(&output.tensor_refs()).expect("a digest");
        assert_eq!(
            tensors_digest(&json.tensor_refs()).expect("a digest"),
            digest
        );
        assert_eq!(
            tensors_digest(&binary.tensor_refs()).expect("a digest"),
            digest
        );
    }
}

fn fp32(name: &str, numbers: &[f32]) -> Tensor {
    let data: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    Tensor {
        name: name.into(),
        datatype: Datatype::Fp32,
        shape: vec![numbers.len() as u64],
        data: data.into(),
    }
}

#[test]
fn answers_are_written_as_the_protocol_says() {
    let output = InferOutput {
        outputs: vec![
            fp32("p", &[0.1, -0.0, 1e-40, 3.0, f32::MAX]),
            fp32("q", &[]),
        ],
    };
    let request = InferRequest {
        id: Some("i\"d".into()),
        ..InferRequest::default()
    };
    let answer = encode("model", "7", &request, &output, Some("00ff")).expect("finite");
    assert_eq!(
        std::str::from_utf8(&answer.body).expect("UTF-8"),
        concat!(
            r#"{"model_name":"model","model_version":"7","id":"i\"d","parameters":{"touchstone_id":"00ff"},"#,
            r#""outputs":[{"name":"p","datatype":"FP32","shape":[5],"data":[0.1,-0.0,1e-40,3.0,3.4028235e+38]},"#,
            r#"{"name":"q","datatype":"FP32","shape":[0],"data":[]}]}"#
        )
    );
    let request = InferRequest {
        outputs: Some(vec![
            RequestedOutput {
                name: "p".into(),
                binary_data: Some(true),
            },
            RequestedOutput {
                name: "q".into(),
                binary_data: None,
            },
        ]),
        ..InferRequest::default()
    };
    let answer = encode("model", "7", &request, &output, None).expect("finite");
    let header = concat!(
        r#"{"model_name":"model","model_version":"7","outputs":[{"name":"p","datatype":"FP32","shape":[5],"#,
        r#""parameters":{"binary_data_size":20}},{"name":"q","datatype":"FP32","shape":[0],"data":[]}]}"#
    );
    assert_eq!(answer.header_length, Some(header.len() as u64));
    assert_eq!(
        answer.body,
        [header.as_bytes(), &output.outputs[0].data].concat()
    );
}

#[test]
fn what_json_cannot_carry_is_said_so() {
    let encode_one = |tensor: Tensor, binary_data_output| {
        let request = InferRequest {
            binary_data_output,
            ..InferRequest::default()
        };
        encode(
            "m",
            "1",
            &request,
            &InferOutput {
                outputs: vec![tensor],
            },
            None,
        )
    };
    let wrong = |tensor: &Tensor, says: &str| {
        let error = encode_one(tensor.clone(), false).expect_err(says);
        assert_eq!(error.status(), 422);
        assert!(error.to_string().contains(says), "{error}");
        encode_one(tensor.clone(), true).expect("binary carries it");
    };
    for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        wrong(
            &fp32("y", &[1.0, number]),
            "output \"y\" holds a number that is not finite",
        );
    }
    encode_one(fp32("y", &[1.0, 2.0]), false).expect("the twin");
    let fp64 = Tensor {
        name: "y".into(),
        datatype: Datatype::Fp64,
        shape: vec![1],
        data: f64::INFINITY.to_le_bytes().to_vec().into(),
    };
    wrong(&fp64, "not finite");
    let half = Tensor {
        name: "h".into(),
        datatype: Datatype::Fp16,
        shape: vec![1],
        data: vec![0, 0x3c].into(),
    };
    wrong(&half, "output \"h\" is FP16");
    let bytes = Tensor {
        name: "b".into(),
        datatype: Datatype::Bytes,
        shape: vec![1],
        data: vec![1, 0, 0, 0, 0xff].into(),
    };
    wrong(&bytes, "not UTF-8 text");
}
