//! The protocol's documents about the server and its models. All are complete JSON bodies.

use bytes::Bytes;

use crate::models::Model;

/// `GET /v2`. `version` is the enclave's package version.
pub fn server_document(_version: &str) -> Bytes {
    unimplemented!()
}

/// `GET /v2/models/<name>[/versions/<v>]`; `versions` are all that are loaded of this name.
pub fn model_document(_model: &Model, _versions: &[&str]) -> Bytes {
    unimplemented!()
}

/// `GET /v2/health/live`. Goes with status 200.
pub fn live_document() -> Bytes {
    Bytes::from_static(br#"{"live":true}"#)
}

/// `GET /v2/health/ready`, and `GET /v2/models/<name>[/versions/<v>]/ready` with the model's name.
/// Goes with status 200 when `ready`, 503 otherwise.
pub fn ready_document(_name: Option<&str>, _ready: bool) -> Bytes {
    unimplemented!()
}
