//! Tensor elements: from JSON or from the wire into the binary extension's bytes.

use touchstone_formats::commitment::Datatype;

use super::{
    ProtocolError,
    json::{Number, Reader, Result},
};

/// What is left of the bytes that all inputs of a request may hold together.
pub(super) struct Budget {
    limit: usize,
    left: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, left: limit }
    }

    /// Takes `bytes` away before they are allocated.
    pub(super) fn take(&mut self, bytes: usize) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(ProtocolError::TooLarge {
                what: "bytes of tensor data",
                limit: self.limit as u64,
                found: (self.limit - self.left) as u64 + bytes as u64,
            }),
        }
    }
}

/// The number of elements of a shape. A shape with a zero among huge dimensions has none, and is
/// refused all the same: the runtime multiplies them too.
pub(super) fn element_count(name: &str, shape: &[u64]) -> Result<u64> {
    let product = shape.iter().try_fold(1u64, |product, dim| {
        product
            .checked_mul((*dim).max(1))
            .filter(|product| *product <= i64::MAX as u64)
    });
    match product {
        Some(_) if shape.contains(&0) => Ok(0),
        Some(product) => Ok(product),
        None => Err(ProtocolError::input(
            name,
            format!("shape {shape:?} is too large"),
        )),
    }
}

/// Reads a `data` member: all elements in one flat array, or nested exactly as the shape is.
pub(super) fn read_elements(
    reader: &mut Reader<'_>,
    name: &str,
    datatype: Datatype,
    shape: &[u64],
    budget: &mut Budget,
) -> Result<Vec<u8>> {
    let count = element_count(name, shape)?;
    if matches!(datatype, Datatype::Fp16 | Datatype::Bf16) {
        let problem = format!("{datatype} travels in the binary extension alone, not in JSON");
        return Err(ProtocolError::input(name, problem));
    }
    // Every element takes at least a digit and a comma of the text: that bounds what a shape can
    // make us allocate, before anything is read.
    let count = usize::try_from(count)
        .ok()
        .filter(|count| *count <= reader.remaining() / 2 + 1);
    let Some(count) = count else {
        let problem = format!("shape {shape:?} has more elements than the request can hold");
        return Err(ProtocolError::input(name, problem));
    };
    let mut elements = Elements {
        name,
        datatype,
        shape,
        count,
        read: 0,
        out: match datatype.size() {
            Some(size) => {
                let bytes = count.saturating_mul(size);
                budget.take(bytes)?;
                Vec::with_capacity(bytes)
            }
            None => Vec::new(),
        },
        budget,
    };
    let nested = {
        let mut look = reader.clone();
        shape.len() > 1 && look.take(b'[') && look.peek() == Some(b'[')
    };
    if nested {
        elements.nested(reader, shape)?;
    } else {
        elements.flat(reader)?;
    }
    if elements.read != count {
        let problem = format!(
            "shape {shape:?} has {count} elements, data holds {}",
            elements.read
        );
        return Err(ProtocolError::input(name, problem));
    }
    Ok(elements.out)
}

struct Elements<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [u64],
    /// How many elements the shape has.
    count: usize,
    read: usize,
    out: Vec<u8>,
    budget: &'a mut Budget,
}

impl Elements<'_> {
    fn nested(&mut self, reader: &mut Reader<'_>, shape: &[u64]) -> Result<()> {
        let Some((dim, inner)) = shape.split_first() else {
            return Ok(());
        };
        if inner.is_empty() {
            let before = self.read;
            self.flat(reader)?;
            return self.same_length((self.read - before) as u64, *dim);
        }
        let mut length = 0;
        reader.array(|reader| {
            length += 1;
            self.nested(reader, inner)
        })?;
        self.same_length(length, *dim)
    }

    fn same_length(&self, found: u64, dim: u64) -> Result<()> {
        if found == dim {
            return Ok(());
        }
        let problem = format!(
            "data is nested otherwise than shape {:?}: {found} values where it says {dim}",
            self.shape
        );
        Err(ProtocolError::input(self.name, problem))
    }

    /// One array of elements. The datatype is looked at once, outside the loop.
    fn flat(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        match self.datatype {
            Datatype::Bool => self.each(reader, |out, reader, _| {
                out.push(u8::from(reader.boolean()?));
                Ok(())
            }),
            Datatype::Uint8 => self.each(reader, integer::<u8, 1>),
            Datatype::Uint16 => self.each(reader, integer::<u16, 2>),
            Datatype::Uint32 => self.each(reader, integer::<u32, 4>),
            Datatype::Uint64 => self.each(reader, integer::<u64, 8>),
            Datatype::Int8 => self.each(reader, integer::<i8, 1>),
            Datatype::Int16 => self.each(reader, integer::<i16, 2>),
            Datatype::Int32 => self.each(reader, integer::<i32, 4>),
            Datatype::Int64 => self.each(reader, integer::<i64, 8>),
            Datatype::Fp32 => self.each(reader, float::<f32, 4>),
            Datatype::Fp64 => self.each(reader, float::<f64, 8>),
            Datatype::Bytes => self.each(reader, |out, reader, budget| {
                let text = reader.string()?;
                budget.take(text.len().saturating_add(4))?;
                let length = u32::try_from(text.len())
                    .map_err(|_| Element::Value("longer than 4 GiB".into()))?;
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }),
            // Refused by read_elements; here so that a new datatype does not compile unseen.
            Datatype::Fp16 | Datatype::Bf16 => Ok(()),
        }
    }

    #[inline]
    fn each(
        &mut self,
        reader: &mut Reader<'_>,
        read: impl Fn(&mut Vec<u8>, &mut Reader<'_>, &mut Budget) -> std::result::Result<(), Element>,
    ) -> Result<()> {
        let Self {
            name,
            datatype,
            shape,
            count,
            read: index,
            out,
            budget,
        } = self;
        reader.array(|reader| {
            if *index == *count {
                let problem =
                    format!("shape {shape:?} has {count} elements, data holds more than that");
                return Err(ProtocolError::input(name, problem));
            }
            read(out, reader, budget).map_err(|e| match e {
                Element::Json(error) => in_element(name, *datatype, *index, error),
                Element::Value(found) => ProtocolError::input(
                    name,
                    format!("element {index} is {found}, which is no {datatype}"),
                ),
            })?;
            *index += 1;
            Ok(())
        })
    }
}

/// Why an element could not be read.
enum Element {
    Json(ProtocolError),
    /// A number that the datatype does not have, as it was written.
    Value(String),
}

impl From<ProtocolError> for Element {
    fn from(error: ProtocolError) -> Self {
        Self::Json(error)
    }
}

#[cold]
fn in_element(name: &str, datatype: Datatype, index: usize, error: ProtocolError) -> ProtocolError {
    match error {
        ProtocolError::Malformed(text) => ProtocolError::input(
            name,
            format!("element {index} cannot be read as {datatype}: {text}"),
        ),
        other => other,
    }
}

#[cold]
fn not_of_type(number: Number<'_>) -> Element {
    Element::Value(super::json::shorten(number.text))
}

/// An exact integer: no fraction, no exponent, in range.
#[inline]
fn integer<T: std::str::FromStr + LittleEndian<N>, const N: usize>(
    out: &mut Vec<u8>,
    reader: &mut Reader<'_>,
    _: &mut Budget,
) -> std::result::Result<(), Element> {
    let number = reader.number()?;
    // Rust reads "-0" as no unsigned integer; JSON means zero by it.
    let text = if number.text == "-0" {
        "0"
    } else {
        number.text
    };
    match text.parse::<T>() {
        Ok(value) if number.integer => out.extend_from_slice(&value.bytes()),
        _ => return Err(not_of_type(number)),
    }
    Ok(())
}

/// A decimal rounded once into its type, ties to even, as `str::parse` does; formats.md §4. A
/// number beyond the type's range would become infinite and is refused.
#[inline]
fn float<T: std::str::FromStr + LittleEndian<N> + Finite, const N: usize>(
    out: &mut Vec<u8>,
    reader: &mut Reader<'_>,
    _: &mut Budget,
) -> std::result::Result<(), Element> {
    let number = reader.number()?;
    match number.text.parse::<T>() {
        Ok(value) if value.finite() => out.extend_from_slice(&value.bytes()),
        _ => return Err(not_of_type(number)),
    }
    Ok(())
}

trait LittleEndian<const N: usize> {
    fn bytes(self) -> [u8; N];
}

trait Finite {
    fn finite(&self) -> bool;
}

macro_rules! little_endian {
    ($($type:ty, $size:literal);*) => {
        $(impl LittleEndian<$size> for $type {
            #[inline]
            fn bytes(self) -> [u8; $size] {
                self.to_le_bytes()
            }
        })*
    };
}
little_endian!(u8, 1; u16, 2; u32, 4; u64, 8; i8, 1; i16, 2; i32, 4; i64, 8; f32, 4; f64, 8);

impl Finite for f32 {
    fn finite(&self) -> bool {
        self.is_finite()
    }
}

impl Finite for f64 {
    fn finite(&self) -> bool {
        self.is_finite()
    }
}

/// Checks data that came in the binary extension: its length, and that every byte means something.
pub(super) fn check_binary(
    name: &str,
    datatype: Datatype,
    shape: &[u64],
    count: u64,
    data: &[u8],
) -> Result<()> {
    if let Some(size) = datatype.size() {
        if count.checked_mul(size as u64) != Some(data.len() as u64) {
            let problem = format!(
                "shape {shape:?} of {datatype} takes {} bytes, binary_data_size is {}",
                u128::from(count) * size as u128,
                data.len()
            );
            return Err(ProtocolError::input(name, problem));
        }
        if datatype == Datatype::Bool
            && let Some(byte) = data.iter().find(|byte| **byte > 1)
        {
            return Err(ProtocolError::input(
                name,
                format!("a BOOL is 0 or 1, found byte {byte}"),
            ));
        }
        return Ok(());
    }
    let found = bytes_elements(data).try_fold(0u64, |count, element| element.map(|_| count + 1));
    match found {
        Some(found) if found == count => Ok(()),
        Some(found) => Err(ProtocolError::input(
            name,
            format!("shape {shape:?} has {count} elements, the binary data holds {found}"),
        )),
        None => Err(ProtocolError::input(
            name,
            "a BYTES element ends after the end of the data".into(),
        )),
    }
}

/// The elements of BYTES data: each a u32 length and so many bytes. `None`, and then nothing more,
/// where the data is cut short.
pub(crate) fn bytes_elements(data: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let data = rest.filter(|data| !data.is_empty())?;
        let element = data.split_first_chunk::<4>().and_then(|(length, after)| {
            after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        });
        rest = element.map(|(_, after)| after);
        Some(element.map(|(element, _)| element))
    })
}
