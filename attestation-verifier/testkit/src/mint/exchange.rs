//! A question and its answer, as both sides of the wire have them.

use std::io;
use std::path::Path;

use serde_json::json;
use touchstone_formats::commitment::{request_digest, response_digest, tensors_digest};
use touchstone_formats::{Datatype, Digest, GuaranteeSet, Opening, Openings, Salt, TensorRef, jcs};

use super::derive;

/// A tensor by value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name.
    pub name: String,
    /// Datatype.
    pub datatype: Datatype,
    /// Shape.
    pub shape: Vec<u64>,
    /// Row-major little-endian bytes, as in the binary extension.
    pub data: Vec<u8>,
}

impl Tensor {
    /// An FP32 tensor.
    pub fn fp32(name: &str, shape: &[u64], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
            data,
        }
    }

    fn by_ref(&self) -> TensorRef<'_> {
        TensorRef {
            name: &self.name,
            datatype: self.datatype,
            shape: &self.shape,
            data: &self.data,
        }
    }
}

/// The salts of the four commitments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salts {
    /// Of the request.
    pub request: Salt,
    /// Of the response.
    pub response: Salt,
    /// Of the input tensors.
    pub inputs: Salt,
    /// Of the output tensors.
    pub outputs: Salt,
}

/// A question and its answer. Every field may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What makes this exchange differ from others: identifier, salts and nonce follow from it.
    pub number: u64,
    /// HTTP method.
    pub method: String,
    /// Request target as received.
    pub target: String,
    /// Inference-Header-Content-Length of the request.
    pub request_header_length: Option<u64>,
    /// Body of the request.
    pub request_body: Vec<u8>,
    /// HTTP status of the answer: 200, or that of a refusal.
    pub status: u16,
    /// Inference-Header-Content-Length of the answer.
    pub response_header_length: Option<u64>,
    /// Body of the answer.
    pub response_body: Vec<u8>,
    /// The tensors in the request.
    pub inputs: Vec<Tensor>,
    /// The tensors in the answer.
    pub outputs: Vec<Tensor>,
    /// The caller's nonce.
    pub nonce: Option<Vec<u8>>,
    /// The guarantees that were asked for.
    pub require: GuaranteeSet,
    /// The receipt's identifier.
    pub cti: [u8; 16],
    /// The salts.
    pub salts: Salts,
}

impl Exchange {
    /// A question and an answer in JSON, with values whose decimal form is not exact, for `logged signed`, with a nonce of 32 bytes.
    pub fn json(number: u64) -> Self {
        let cti: [u8; 16] = derive(number, "cti");
        let request = json!({"inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.1, 0.5, -2.25, 3.0e-7]}
        ]});
        let response = json!({"model_name": "digits", "model_version": "1",
            "parameters": {"touchstone_id": hex::encode(cti)},
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.75, 0.25]}]});
        Self {
            number,
            method: "POST".into(),
            target: "/v2/models/digits/infer".into(),
            request_header_length: None,
            request_body: request.to_string().into_bytes(),
            status: 200,
            response_header_length: None,
            response_body: response.to_string().into_bytes(),
            inputs: vec![Tensor::fp32("x", &[1, 4], &[0.1, 0.5, -2.25, 3.0e-7])],
            outputs: vec![Tensor::fp32("y", &[1, 2], &[0.75, 0.25])],
            nonce: Some(derive::<32>(number, "nonce").to_vec()),
            require: GuaranteeSet::default_set(),
            cti,
            salts: Salts {
                request: derive(number, "salt request"),
                response: derive(number, "salt response"),
                inputs: derive(number, "salt inputs"),
                outputs: derive(number, "salt outputs"),
            },
        }
    }

    /// The same question and answer with binary tensors.
    pub fn binary(number: u64) -> Self {
        let mut exchange = Self::json(number);
        let size = |tensor: &Tensor| json!({"binary_data_size": tensor.data.len()});
        let (x, y) = (&exchange.inputs[0], &exchange.outputs[0]);
        let request = json!({"inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": size(x)}
        ], "parameters": {"binary_data_output": true}});
        let response = json!({"model_name": "digits", "model_version": "1",
            "parameters": {"touchstone_id": hex::encode(exchange.cti)},
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": size(y)}]});
        let join = |head: serde_json::Value, data: &[u8]| {
            let mut body = head.to_string().into_bytes();
            let length = body.len() as u64;
            body.extend_from_slice(data);
            (Some(length), body)
        };
        let (request_length, request_body) = join(request, &x.data);
        let (response_length, response_body) = join(response, &y.data);
        (exchange.request_header_length, exchange.request_body) = (request_length, request_body);
        (exchange.response_header_length, exchange.response_body) =
            (response_length, response_body);
        exchange
    }

    /// A refusal after admission.
    pub fn refusal(number: u64, status: u16) -> Self {
        let mut exchange = Self::json(number);
        let problem = json!({"type": "about:blank", "status": status, "title": "Refused", "error": "refused"});
        exchange.status = status;
        exchange.response_body = problem.to_string().into_bytes();
        exchange.outputs.clear();
        exchange
    }

    /// The same exchange under other guarantees, such as `"quoted"`; what they imply is added.
    ///
    /// # Panics
    /// When a name is unknown.
    #[must_use]
    pub fn requiring(mut self, words: &str) -> Self {
        self.require = GuaranteeSet::parse_words(words).expect("names of guarantees");
        self
    }

    /// Whether it is a refusal.
    pub fn refused(&self) -> bool {
        self.status != 200
    }

    /// Digest of the request.
    pub fn request_digest(&self) -> Digest {
        request_digest(
            &self.method,
            &self.target,
            self.request_header_length,
            &self.request_body,
        )
    }

    /// Digest of the response.
    pub fn response_digest(&self) -> Digest {
        response_digest(
            self.status,
            self.response_header_length,
            &self.response_body,
        )
    }

    /// Digest of the input tensors.
    pub fn inputs_digest(&self) -> Digest {
        digest_of(&self.inputs)
    }

    /// Digest of the output tensors.
    pub fn outputs_digest(&self) -> Digest {
        digest_of(&self.outputs)
    }

    /// What the caller adds to the bundle. A refusal has none for tensors.
    pub fn openings(&self) -> Openings {
        let opening = |salt: Salt, digest: Digest| Some(Opening { salt, digest });
        let tensors = |o: Option<Opening>| o.filter(|_| !self.refused());
        Openings {
            request: opening(self.salts.request, self.request_digest()),
            response: opening(self.salts.response, self.response_digest()),
            inputs: tensors(opening(self.salts.inputs, self.inputs_digest())),
            outputs: tensors(opening(self.salts.outputs, self.outputs_digest())),
        }
    }

    /// Writes the caller's side of it as `touchstone ask` does: `request.bin`, `expect.json`, `response.bin`, `response.json`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_to(&self, folder: &Path, asked_at: u64) -> io::Result<()> {
        let expect = json!({"v": "touchstone/expect/1", "method": self.method, "target": self.target,
            "header_length": self.request_header_length, "model": "digits",
            "nonce": self.nonce.as_ref().map(hex::encode), "require": self.require.names(),
            "request_sha256": Digest::of(&self.request_body), "asked_at": asked_at});
        let response = json!({"v": "touchstone/response/1", "status": self.status,
            "header_length": self.response_header_length});
        let file = |value: &serde_json::Value| jcs::to_file(value).map_err(io::Error::other);
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("request.bin"), &self.request_body)?;
        std::fs::write(folder.join("expect.json"), file(&expect)?)?;
        std::fs::write(folder.join("response.bin"), &self.response_body)?;
        std::fs::write(folder.join("response.json"), file(&response)?)
    }
}

fn digest_of(tensors: &[Tensor]) -> Digest {
    let tensors: Vec<_> = tensors.iter().map(Tensor::by_ref).collect();
    tensors_digest(&tensors).expect("tensors whose names differ and whose data fits their shape")
}
