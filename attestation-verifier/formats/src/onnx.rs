//! Which files an ONNX model asks the runtime to open, read from its protobuf.
//!
//! ONNX Runtime resolves a tensor's external data by path, for a model in memory below the working
//! directory. formats.md §5 wants the bytes hashed to be the bytes loaded, so nothing may be left
//! for it to resolve. [`external_files`] finds every location, wherever in the file a tensor can
//! stand: graphs, the graphs inside nodes' attributes, sparse tensors, functions, training info.
//! [`embed`] then puts the bytes themselves into every tensor but the main graph's own
//! initializers, whose files the runtime takes from memory by name.
//!
//! The walk reads protobuf as the runtime's own parser does and refuses what two parsers could
//! read in two ways: groups, a message given twice where the schema has one, over-long tags.
//! Numbers of fields and messages are those of onnx.proto, which never reuses one.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::model::{ENTRY, SETTINGS};

/// Deepest nesting of messages, as in the runtime's own parser.
const MAX_DEPTH: usize = 100;

/// Most different external files of a model.
const MAX_FILES: usize = crate::model::MAX_FILES;

/// Why a model's protobuf was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// No protobuf, or one that can be read in more than one way.
    #[error("no sound ONNX protobuf: {0}")]
    Malformed(&'static str),
    /// The ORT flatbuffer format, which this reader cannot look into.
    #[error("an ORT-format model; only ONNX protobuf is served")]
    OrtFormat,
    /// A tensor's external data is described in a way that is not served.
    #[error("tensor {tensor:?}: {problem}")]
    External {
        /// The tensor's name.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// More external files than are served.
    #[error("more than {MAX_FILES} external data files")]
    TooMany,
}

type Result<T> = std::result::Result<T, OnnxError>;

/// The locations of all external data in `model`, checked to be relative paths without `..`.
///
/// # Errors
/// [`OnnxError`].
pub fn external_files(model: &[u8]) -> Result<BTreeSet<String>> {
    if model.get(4..8) == Some(b"ORTM") {
        return Err(OnnxError::OrtFormat);
    }
    let mut files = BTreeSet::new();
    walk(Message::Model, model, 0, &mut |tensor, _| {
        files.insert(tensor.location.clone());
        if files.len() > MAX_FILES {
            Err(OnnxError::TooMany)
        } else {
            Ok(None)
        }
    })?;
    Ok(files)
}

/// Checks that every range of external data lies inside its file, for who knows the files by size alone (in
/// bytes, by location).
///
/// # Errors
/// [`OnnxError`].
pub fn check_ranges(model: &[u8], sizes: &BTreeMap<String, u64>) -> Result<()> {
    walk(Message::Model, model, 0, &mut |tensor, _| {
        tensor.range(sizes.get(&tensor.location).copied())?;
        Ok(None)
    })?;
    Ok(())
}

/// The model with the external data of all tensors inside it, save that of the main graph's
/// initializers. `None` if that changes nothing. Checks that every range of external data, the main
/// graph's included, lies inside its file.
///
/// # Errors
/// [`OnnxError`].
pub fn embed<B: AsRef<[u8]>>(model: &[u8], files: &BTreeMap<String, B>) -> Result<Option<Vec<u8>>> {
    walk(Message::Model, model, 0, &mut |tensor, place| {
        let file = files.get(&tensor.location).map(AsRef::as_ref);
        let range = tensor.range(file.map(|file| file.len() as u64))?;
        if place == Place::MainInitializer {
            return Ok(None);
        }
        // Both ends are within a slice's length, so they are numbers of this machine's.
        let data = file.and_then(|file| file.get(range.start as usize..range.end as usize));
        let data = data.ok_or(OnnxError::Malformed("cut short"))?;
        Ok(Some(tensor.with_data(data)))
    })
}

/// The messages that can hold a tensor, at any depth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Graph { main: bool },
    Node,
    Attribute,
    Function,
    Training,
    Sparse,
    Tensor(Place),
}

/// Where a tensor stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    MainInitializer,
    Elsewhere,
}

impl Message {
    /// What the length-delimited field of this number is, and whether the schema has it once only.
    fn child(self, field: u32) -> Option<(Message, bool)> {
        use Message::{Attribute, Function, Graph, Model, Node, Sparse, Tensor, Training};
        let inner = Graph { main: false };
        let tensor = Tensor(Place::Elsewhere);
        Some(match (self, field) {
            (Model, 7) => (Graph { main: true }, true),
            (Model, 20) => (Training, false),
            (Model, 25) => (Function, false),
            (Graph { .. }, 1) => (Node, false),
            (Graph { main: true }, 5) => (Tensor(Place::MainInitializer), false),
            (Graph { main: false }, 5) => (tensor, false),
            (Graph { .. }, 15) => (Sparse, false),
            (Node, 5) => (Attribute, false),
            (Attribute, 5) => (tensor, true),
            (Attribute, 6) => (inner, true),
            (Attribute, 10) => (tensor, false),
            (Attribute, 11) => (inner, false),
            (Attribute, 22) => (Sparse, true),
            (Attribute, 23) => (Sparse, false),
            (Function, 7) => (Node, false),
            (Function, 11) => (Attribute, false),
            (Training, 1 | 2) => (inner, true),
            (Sparse, 1 | 2) => (tensor, true),
            _ => return None,
        })
    }
}

/// A tensor whose data is elsewhere.
struct External<'a> {
    name: String,
    location: String,
    offset: u64,
    /// `None`: up to the end of the file.
    length: Option<u64>,
    message: &'a [u8],
}

type OnTensor<'f> = dyn FnMut(&External<'_>, Place) -> Result<Option<Vec<u8>>> + 'f;

/// Visits every tensor with external data below `bytes`. Gives the message anew where the visitor
/// replaced a tensor, `None` where nothing changed.
fn walk(
    message: Message,
    bytes: &[u8],
    depth: usize,
    on_tensor: &mut OnTensor<'_>,
) -> Result<Option<Vec<u8>>> {
    if depth > MAX_DEPTH {
        return Err(OnnxError::Malformed("messages nested too deeply"));
    }
    if let Message::Tensor(place) = message {
        return match read_tensor(bytes)? {
            Some(tensor) => on_tensor(&tensor, place),
            None => Ok(None),
        };
    }
    let mut changed: Option<Vec<u8>> = None;
    let mut once: u64 = 0;
    let mut fields = Fields { bytes, at: 0 };
    while let Some(field) = fields.next()? {
        let new = match (field.value, message.child(field.number)) {
            (Value::Bytes(inner), Some((child, single))) => {
                // Protobuf merges a second such message into the first.
                if single && once & (1 << field.number) != 0 {
                    return Err(OnnxError::Malformed("a single message given twice"));
                }
                once |= u64::from(single) << field.number;
                walk(child, inner, depth + 1, on_tensor)?
            }
            _ => None,
        };
        match (&mut changed, new) {
            (None, None) => {}
            (Some(out), None) => out.extend_from_slice(field.whole),
            (_, Some(new)) => {
                let out = changed
                    .get_or_insert_with(|| bytes.get(..field.start).unwrap_or_default().to_vec());
                write_bytes(out, field.number, &new);
            }
        }
    }
    Ok(changed)
}

/// Reads a TensorProto. `None` if its data is its own.
fn read_tensor(message: &[u8]) -> Result<Option<External<'_>>> {
    let mut name = String::new();
    let mut entries: BTreeMap<&str, &str> = BTreeMap::new();
    let mut external: Option<bool> = None;
    let mut own_data = false;
    let mut twice = None;
    let mut fields = Fields {
        bytes: message,
        at: 0,
    };
    while let Some(field) = fields.next()? {
        match (field.number, field.value) {
            (8, Value::Bytes(text)) => name = String::from_utf8_lossy(text).into_owned(),
            (13, Value::Bytes(entry)) => {
                let (key, value) = read_entry(entry)?;
                if entries.insert(key, value).is_some() {
                    twice = Some(key);
                }
            }
            (14, Value::Varint(location)) => {
                let before = external.replace(location == 1);
                if before.is_some() || location > 1 {
                    return Err(OnnxError::Malformed("data_location is unclear"));
                }
            }
            // float_data, int32_data, string_data, int64_data, raw_data, double_data, uint64_data
            (4..=7 | 9..=11, _) => own_data = true,
            _ => {}
        }
    }
    let external = external.unwrap_or(false);
    if !external && entries.is_empty() {
        return Ok(None);
    }
    let refuse = |problem: String| {
        Err(OnnxError::External {
            tensor: name.chars().take(128).collect(),
            problem,
        })
    };
    if let Some(key) = twice {
        return refuse(format!("external_data has {key:?} twice"));
    }
    if !external {
        return refuse("external_data without data_location EXTERNAL".into());
    }
    if own_data {
        return refuse("has external data and data of its own".into());
    }
    let mut location = None;
    let mut offset = 0;
    let mut length = None;
    for (key, value) in entries {
        let number = || {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            value.parse::<u64>().ok().filter(|_| digits)
        };
        match (key, number()) {
            ("location", _) => location = Some(value),
            ("offset", Some(number)) => offset = number,
            ("length", Some(number)) => length = Some(number),
            ("checksum", _) => {}
            _ => return refuse(format!("external_data {key:?} is {value:?}")),
        }
    }
    let Some(location) = location else {
        return refuse("external data has no location".into());
    };
    if let Err(problem) = check_location(location) {
        return refuse(format!("external data location {location:?} {problem}"));
    }
    Ok(Some(External {
        name,
        location: location.to_owned(),
        offset,
        length,
        message,
    }))
}

fn read_entry(message: &[u8]) -> Result<(&str, &str)> {
    let (mut key, mut value) = (None, None);
    let mut fields = Fields {
        bytes: message,
        at: 0,
    };
    while let Some(field) = fields.next()? {
        let place = match field.number {
            1 => &mut key,
            2 => &mut value,
            _ => continue,
        };
        let Value::Bytes(bytes) = field.value else {
            continue;
        };
        let text = std::str::from_utf8(bytes)
            .map_err(|_| OnnxError::Malformed("external_data is not UTF-8"))?;
        if place.replace(text).is_some() {
            return Err(OnnxError::Malformed(
                "an external_data entry says a thing twice",
            ));
        }
    }
    Ok((key.unwrap_or_default(), value.unwrap_or_default()))
}

/// A relative path that stays inside the model's folder and is spelt in one way only.
fn check_location(location: &str) -> std::result::Result<(), &'static str> {
    if location.starts_with('/') {
        return Err("is absolute");
    }
    if location.split('/').any(|part| part == "..") {
        return Err("contains \"..\"");
    }
    if location.is_empty()
        || location
            .split('/')
            .any(|part| part.is_empty() || part == ".")
    {
        return Err("has an empty or \".\" part");
    }
    // `*` is what the runtime marks addresses in its own memory with.
    if location
        .chars()
        .any(|c| c.is_control() || matches!(c, '\\' | '*'))
    {
        return Err("has a character that is not served");
    }
    if location.len() > 256 {
        return Err("is longer than 256 bytes");
    }
    if location == ENTRY || location == SETTINGS {
        return Err("is not a data file");
    }
    Ok(())
}

impl External<'_> {
    /// Which bytes of its file of `size` bytes (`None`: there is none) the data is.
    fn range(&self, size: Option<u64>) -> Result<std::ops::Range<u64>> {
        let refuse = |problem| OnnxError::External {
            tensor: self.name.clone(),
            problem,
        };
        let Some(size) = size else {
            return Err(refuse(format!(
                "external data file {:?} is missing",
                self.location
            )));
        };
        let end = match self.length {
            None => Some(size),
            Some(length) => self.offset.checked_add(length),
        };
        match end {
            Some(end) if self.offset <= end && end <= size => Ok(self.offset..end),
            _ => Err(refuse(format!(
                "external data at {} of length {} is outside {:?} of {size} bytes",
                self.offset,
                self.length
                    .map_or("all the rest".to_owned(), |length| length.to_string()),
                self.location,
            ))),
        }
    }

    /// The tensor with `data` as its raw_data, and nothing external.
    fn with_data(&self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.message.len() + data.len() + 16);
        let mut fields = Fields {
            bytes: self.message,
            at: 0,
        };
        // The message was read before, so no error can come.
        while let Ok(Some(field)) = fields.next() {
            if !matches!(field.number, 13 | 14) {
                out.extend_from_slice(field.whole);
            }
        }
        write_bytes(&mut out, 9, data);
        out
    }
}

/// The fields of one protobuf message, in order.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

struct Field<'a> {
    number: u32,
    value: Value<'a>,
    /// Where the field starts in its message.
    start: usize,
    /// The field's bytes, tag and length included.
    whole: &'a [u8],
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<Field<'a>>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let start = self.at;
        let tag = self.varint()?;
        let tag = u32::try_from(tag).map_err(|_| OnnxError::Malformed("a tag beyond 32 bits"))?;
        if self.at - start > 5 || tag >> 3 == 0 {
            return Err(OnnxError::Malformed("an impossible tag"));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                let length =
                    usize::try_from(length).map_err(|_| OnnxError::Malformed("cut short"))?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(OnnxError::Malformed("a group or an unknown wire type")),
        };
        let whole = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(Some(Field {
            number: tag >> 3,
            value,
            start,
            whole,
        }))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let taken = self
            .at
            .checked_add(length)
            .and_then(|end| Some((end, self.bytes.get(self.at..end)?)));
        let (end, taken) = taken.ok_or(OnnxError::Malformed("cut short"))?;
        self.at = end;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self
                .bytes
                .get(self.at)
                .ok_or(OnnxError::Malformed("cut short"))?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(OnnxError::Malformed("a varint beyond 64 bits"))
    }
}

fn write_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    write_varint(out, u64::from(number) << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests;
