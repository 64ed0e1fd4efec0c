//! The writer.

use super::check::plain;
use crate::limits::{MAX_DEPTH, MAX_INTEGER};
use crate::{FormatError, Result};
use serde::Serialize;
use serde_json::{Map, Number, Value};

pub(super) fn write<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let value = serde_json::to_value(value).map_err(|error| FormatError::Json {
        offset: 0,
        message: error.to_string(),
    })?;
    let mut out = Vec::with_capacity(256);
    write_value(&mut out, &value, MAX_DEPTH)?;
    Ok(out)
}

fn write_value(out: &mut Vec<u8>, value: &Value, levels: usize) -> Result<()> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(_) => {
            return Err(FormatError::value("json", value, "no boolean"));
        }
        Value::Number(number) => write_integer(out, number)?,
        Value::String(text) => write_string(out, text),
        Value::Array(values) => {
            let levels = one_less(levels)?;
            out.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(out, value, levels)?;
            }
            out.push(b']');
        }
        Value::Object(members) => write_object(out, members, one_less(levels)?)?,
    }
    Ok(())
}

fn one_less(levels: usize) -> Result<usize> {
    levels.checked_sub(1).ok_or(FormatError::TooLong {
        field: "json depth",
        found: MAX_DEPTH + 1,
        limit: MAX_DEPTH,
    })
}

fn write_object(out: &mut Vec<u8>, members: &Map<String, Value>, levels: usize) -> Result<()> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    out.push(b'{');
    for (index, (name, value)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        write_value(out, value, levels)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_integer(out: &mut Vec<u8>, number: &Number) -> Result<()> {
    const WITHIN: &str = "an integer within ±(2^53−1)";
    let magnitude = number
        .as_u64()
        .or_else(|| number.as_i64().map(i64::unsigned_abs))
        .ok_or_else(|| FormatError::value("json", number, WITHIN))?;
    if magnitude > MAX_INTEGER {
        return Err(FormatError::value("json", number, WITHIN));
    }
    out.extend_from_slice(number.to_string().as_bytes());
    Ok(())
}

/// RFC 8785 §3.2.2.2.
fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some((itself, [byte, after @ ..])) = rest.split_at_checked(plain(rest)) {
        out.extend_from_slice(itself);
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}
