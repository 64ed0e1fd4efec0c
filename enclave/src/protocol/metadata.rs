//! The protocol's documents about the server and its models. All are complete JSON bodies.

use bytes::Bytes;
use serde_json::{Value, json};

use super::TensorSpec;
use crate::models::Model;

/// `GET /v2`. `version` is the enclave's package version.
pub fn server_document(version: &str) -> Bytes {
    body(json!({ "name": "touchstone", "version": version, "extensions": ["binary_tensor_data"] }))
}

/// `GET /v2/models/<name>[/versions/<v>]`; `versions` are all that are loaded of this name.
pub fn model_document(model: &Model, versions: &[&str]) -> Bytes {
    describe(&model.name, versions, &model.inputs, &model.outputs)
}

fn describe(name: &str, versions: &[&str], inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Bytes {
    let tensors = |specs: &[TensorSpec]| -> Vec<Value> {
        let one = |spec: &TensorSpec| json!({ "name": spec.name, "datatype": spec.datatype.name(), "shape": spec.shape });
        specs.iter().map(one).collect()
    };
    body(json!({
        "name": name,
        "versions": versions,
        "platform": "onnxruntime_onnx",
        "inputs": tensors(inputs),
        "outputs": tensors(outputs),
    }))
}

/// `GET /v2/health/live`. Goes with status 200.
pub fn live_document() -> Bytes {
    Bytes::from_static(br#"{"live":true}"#)
}

/// `GET /v2/health/ready`, and `GET /v2/models/<name>[/versions/<v>]/ready` with the model's name.
/// Goes with status 200 when `ready`, 503 otherwise.
pub fn ready_document(name: Option<&str>, ready: bool) -> Bytes {
    body(match name {
        Some(name) => json!({ "name": name, "ready": ready }),
        None => json!({ "ready": ready }),
    })
}

fn body(document: Value) -> Bytes {
    document.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchstone_formats::commitment::Datatype;

    #[test]
    fn documents_read_as_the_protocol_says() {
        let read = |bytes: Bytes| serde_json::from_slice::<Value>(&bytes).expect("JSON");
        assert_eq!(
            read(server_document("1.2.3")),
            json!({ "name": "touchstone", "version": "1.2.3", "extensions": ["binary_tensor_data"] })
        );
        let input = TensorSpec {
            name: "X".into(),
            datatype: Datatype::Fp32,
            shape: vec![-1, 64],
        };
        let output = TensorSpec {
            name: "label".into(),
            datatype: Datatype::Bytes,
            shape: vec![-1],
        };
        assert_eq!(
            read(describe("digits", &["1", "2"], &[input], &[output])),
            json!({
                "name": "digits", "versions": ["1", "2"], "platform": "onnxruntime_onnx",
                "inputs": [{ "name": "X", "datatype": "FP32", "shape": [-1, 64] }],
                "outputs": [{ "name": "label", "datatype": "BYTES", "shape": [-1] }],
            })
        );
        assert_eq!(read(live_document()), json!({ "live": true }));
        assert_eq!(read(ready_document(None, false)), json!({ "ready": false }));
        assert_eq!(
            read(ready_document(Some("m"), true)),
            json!({ "name": "m", "ready": true })
        );
    }
}
