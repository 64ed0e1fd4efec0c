//! The configuration object of a model: all that shapes an answer beside the model's files (§5).

use crate::{Digest, FormatError, Result, jcs};
use serde_json::{Map, Value};

/// The `v` member of a configuration object.
pub const VERSION: &str = "touchstone/config/1";

/// SHA-256 of the object's JCS.
///
/// # Errors
/// `v` is not [`VERSION`]; something hashed JSON cannot hold (a boolean, a floating-point number).
pub fn config_digest(object: &Map<String, Value>) -> Result<Digest> {
    let v = object.get("v").and_then(Value::as_str).unwrap_or("no v");
    if v != VERSION {
        return Err(FormatError::value("config v", v, VERSION));
    }
    Ok(Digest::of(&jcs::to_vec(object)?))
}
