//! Reads NumPy `.npy` files into tensors as the Open Inference Protocol's binary extension
//! carries them: row-major, little-endian, BYTES elements each led by a u32 length.
//!
//! Only the header of the format needs parsing, and it is one line of fixed shape; a general
//! reader of Python literals would recurse on, and allocate for, whatever a file says.

use anyhow::{Context, Result, bail, ensure};
use attestation_verifier::exchange::OwnedTensor;
use touchstone_formats::commitment::Datatype;

/// NumPy's own bound on header text (`max_header_size`).
const MAX_HEADER: usize = 10_000;
/// NumPy's bound on dimensions.
const MAX_RANK: usize = 32;

/// Parses a whole `.npy` file as the tensor `name`.
pub fn parse(name: &str, file: &[u8]) -> Result<OwnedTensor> {
    let (header, data) = split(file)?;
    let header = Header::parse(header)?;
    ensure!(
        !header.fortran_order || header.shape.len() < 2,
        "the array is in Fortran order; save numpy.ascontiguousarray(array) instead"
    );
    let count = header
        .shape
        .iter()
        .try_fold(1u64, |n, &dim| n.checked_mul(dim))
        .and_then(|n| usize::try_from(n).ok())
        .context("shape: more elements than memory can hold")?;
    let (datatype, data) = elements(&header.descr, count, data)?;
    Ok(OwnedTensor {
        name: name.to_owned(),
        datatype,
        shape: header.shape,
        data,
    })
}

/// Splits a file into its header text and the bytes after it.
fn split(file: &[u8]) -> Result<(&str, &[u8])> {
    let rest = file
        .strip_prefix(b"\x93NUMPY")
        .context("not a .npy file: no \\x93NUMPY magic")?;
    let (version, rest) = rest
        .split_first_chunk::<2>()
        .context("file ends in its version")?;
    let (length, rest) = match version {
        [1, 0] => {
            let (n, rest) = rest
                .split_first_chunk::<2>()
                .context("file ends in its header")?;
            (usize::from(u16::from_le_bytes(*n)), rest)
        }
        [2 | 3, 0] => {
            let (n, rest) = rest
                .split_first_chunk::<4>()
                .context("file ends in its header")?;
            (u32::from_le_bytes(*n) as usize, rest)
        }
        [major, minor] => bail!("version: expected 1.0, 2.0 or 3.0, found {major}.{minor}"),
    };
    ensure!(
        length <= MAX_HEADER,
        "header: at most {MAX_HEADER} bytes, found {length}"
    );
    let (header, data) = rest
        .split_at_checked(length)
        .context("file ends in its header")?;
    Ok((
        std::str::from_utf8(header).context("header: not UTF-8")?,
        data,
    ))
}

/// The header dictionary.
#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl Header {
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (450, 64), }` in any order of keys.
    fn parse(text: &str) -> Result<Header> {
        let mut cursor = Cursor(text);
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        cursor.expect('{')?;
        while !cursor.eat('}') {
            match cursor.string()?.as_str() {
                "descr" if descr.is_none() => {
                    cursor.expect(':')?;
                    descr = Some(
                        cursor
                            .string()
                            .context("descr: only plain element types are supported")?,
                    );
                }
                "fortran_order" if fortran.is_none() => {
                    cursor.expect(':')?;
                    fortran = Some(cursor.boolean()?);
                }
                "shape" if shape.is_none() => {
                    cursor.expect(':')?;
                    shape = Some(cursor.tuple()?);
                }
                other => bail!("header: unknown or repeated key {other:?}"),
            }
            if !cursor.eat(',') {
                cursor.expect('}')?;
                break;
            }
        }
        ensure!(
            cursor.0.trim().is_empty(),
            "header: text after the closing brace"
        );
        Ok(Header {
            descr: descr.context("header: no 'descr'")?,
            fortran_order: fortran.context("header: no 'fortran_order'")?,
            shape: shape.context("header: no 'shape'")?,
        })
    }
}

/// What is left of a header.
struct Cursor<'a>(&'a str);

impl Cursor<'_> {
    fn eat(&mut self, c: char) -> bool {
        let rest = self.0.trim_start();
        match rest.strip_prefix(c) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, c: char) -> Result<()> {
        ensure!(
            self.eat(c),
            "header: expected {c:?} before {:?}",
            self.excerpt()
        );
        Ok(())
    }

    fn excerpt(&self) -> String {
        self.0.chars().take(20).collect()
    }

    fn string(&mut self) -> Result<String> {
        let quote = if self.eat('"') { '"' } else { '\'' };
        if quote == '\'' {
            self.expect('\'')?;
        }
        let (text, rest) = self
            .0
            .split_once(quote)
            .context("header: unclosed string")?;
        ensure!(!text.contains('\\'), "header: escapes are not supported");
        let text = text.to_owned();
        self.0 = rest;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool> {
        let rest = self.0.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = rest.strip_prefix(word) {
                self.0 = rest;
                return Ok(value);
            }
        }
        bail!("header: expected True or False before {:?}", self.excerpt())
    }

    fn tuple(&mut self) -> Result<Vec<u64>> {
        let mut dims = Vec::new();
        self.expect('(')?;
        while !self.eat(')') {
            ensure!(
                dims.len() < MAX_RANK,
                "shape: more than {MAX_RANK} dimensions"
            );
            let rest = self.0.trim_start();
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (digits, rest) = rest.split_at(end);
            dims.push(
                digits
                    .parse()
                    .with_context(|| format!("shape: bad dimension {digits:?}"))?,
            );
            // Python 2 wrote long integers as `3L`.
            self.0 = rest.strip_prefix('L').unwrap_or(rest);
            if !self.eat(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(dims)
    }
}

/// Turns `count` elements of NumPy type `descr` into a datatype and its wire bytes.
fn elements(descr: &str, count: usize, data: &[u8]) -> Result<(Datatype, Vec<u8>)> {
    let mut chars = descr.chars();
    let (order, kind) = (chars.next().unwrap_or(' '), chars.next().unwrap_or(' '));
    let unsupported = || {
        format!(
            "descr: element type {descr:?} has no datatype in the Open Inference Protocol; \
             expected bool, int8…int64, uint8…uint64, float16, float32, float64, or strings (S, U)"
        )
    };
    let size: usize = chars.as_str().parse().ok().with_context(unsupported)?;
    let big = match (order, kind, size) {
        ('<', ..) => false,
        ('>', ..) => true,
        ('|', 'S', _) | ('|', _, 1) => false,
        _ => bail!(unsupported()),
    };
    let datatype = match (kind, size) {
        ('b', 1) => Datatype::Bool,
        ('u', 1) => Datatype::Uint8,
        ('u', 2) => Datatype::Uint16,
        ('u', 4) => Datatype::Uint32,
        ('u', 8) => Datatype::Uint64,
        ('i', 1) => Datatype::Int8,
        ('i', 2) => Datatype::Int16,
        ('i', 4) => Datatype::Int32,
        ('i', 8) => Datatype::Int64,
        ('f', 2) => Datatype::Fp16,
        ('f', 4) => Datatype::Fp32,
        ('f', 8) => Datatype::Fp64,
        ('S' | 'U', _) => Datatype::Bytes,
        _ => bail!(unsupported()),
    };
    let width = if kind == 'U' {
        size.checked_mul(4)
    } else {
        Some(size)
    };
    let expected = width
        .and_then(|w| w.checked_mul(count))
        .context("data: too large")?;
    ensure!(
        data.len() == expected,
        "data: expected {expected} bytes for this shape and type, found {}",
        data.len()
    );
    let bytes = match kind {
        'S' => strings(count, data, size, |element| Ok(element.to_vec()))?,
        'U' => strings(count, data, size * 4, |element| utf8(element, big))?,
        'b' => {
            ensure!(
                data.iter().all(|&b| b < 2),
                "data: a bool other than 0 or 1"
            );
            data.to_vec()
        }
        _ if big => data
            .chunks_exact(size)
            .flat_map(|e| e.iter().rev().copied())
            .collect(),
        _ => data.to_vec(),
    };
    Ok((datatype, bytes))
}

/// Fixed-width, NUL-padded strings as length-prefixed BYTES elements.
fn strings(
    count: usize,
    data: &[u8],
    width: usize,
    decode: impl Fn(&[u8]) -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    // A count of zero-width elements is not bounded by the file's size.
    ensure!(
        width > 0 || count <= MAX_HEADER,
        "data: too many empty strings"
    );
    let mut out = Vec::with_capacity(data.len());
    for i in 0..count {
        let mut text = decode(data.get(i * width..(i + 1) * width).unwrap_or_default())?;
        while text.last() == Some(&0) {
            text.pop();
        }
        out.extend_from_slice(
            &u32::try_from(text.len())
                .context("data: string too long")?
                .to_le_bytes(),
        );
        out.extend_from_slice(&text);
    }
    Ok(out)
}

/// UCS-4 code points as UTF-8.
fn utf8(element: &[u8], big: bool) -> Result<Vec<u8>> {
    let mut text = String::new();
    for chunk in element.as_chunks::<4>().0 {
        let code = if big {
            u32::from_be_bytes(*chunk)
        } else {
            u32::from_le_bytes(*chunk)
        };
        text.push(char::from_u32(code).context("data: not a Unicode scalar value")?);
    }
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}   \n");
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend_from_slice(&(header.len() as u16).to_le_bytes());
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(data);
        out
    }

    fn error(bytes: &[u8]) -> String {
        format!("{:#}", parse("x", bytes).unwrap_err())
    }

    #[test]
    fn numbers_of_either_byte_order_become_little_endian() {
        let little = parse(
            "x",
            &file("<f4", "False", "(1, 2)", &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]),
        );
        let big = parse(
            "x",
            &file(">f4", "False", "(1, 2)", &[0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0]),
        );
        let little = little.unwrap();
        assert_eq!(little.shape, [1, 2]);
        assert_eq!(little.datatype, Datatype::Fp32);
        assert_eq!(little.data, big.unwrap().data);
    }

    #[test]
    fn every_datatype_that_numpy_has() {
        let cases: [(&str, usize, Datatype); 12] = [
            ("|b1", 1, Datatype::Bool),
            ("|u1", 1, Datatype::Uint8),
            ("<u2", 2, Datatype::Uint16),
            ("<u4", 4, Datatype::Uint32),
            ("<u8", 8, Datatype::Uint64),
            ("|i1", 1, Datatype::Int8),
            ("<i2", 2, Datatype::Int16),
            ("<i4", 4, Datatype::Int32),
            ("<i8", 8, Datatype::Int64),
            ("<f2", 2, Datatype::Fp16),
            ("<f4", 4, Datatype::Fp32),
            ("<f8", 8, Datatype::Fp64),
        ];
        for (descr, size, datatype) in cases {
            let tensor = parse("x", &file(descr, "False", "(3,)", &vec![1; 3 * size])).unwrap();
            assert_eq!(
                (tensor.datatype, tensor.data.len()),
                (datatype, 3 * size),
                "{descr}"
            );
        }
    }

    #[test]
    fn strings_become_length_prefixed_bytes() {
        let bytes = parse("x", &file("|S3", "False", "(2,)", b"hi\0abc")).unwrap();
        assert_eq!(bytes.datatype, Datatype::Bytes);
        assert_eq!(bytes.data, b"\x02\0\0\0hi\x03\0\0\0abc");
        let unicode = parse("x", &file("<U2", "False", "(1,)", b"\xe9\0\0\0\0\0\0\0")).unwrap();
        assert_eq!(unicode.data, b"\x02\0\0\0\xc3\xa9");
        let scalar = parse("x", &file("<i8", "False", "()", &7i64.to_le_bytes())).unwrap();
        assert_eq!((scalar.shape.len(), scalar.data.len()), (0, 8));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_by_name() {
        assert!(parse("x", &file("<f4", "False", "(2, 2)", &[0; 16])).is_ok());
        assert!(error(&file("<f4", "True", "(2, 2)", &[0; 16])).contains("Fortran"));
        assert!(error(&file("<f4", "False", "(2, 2)", &[0; 15])).contains("expected 16 bytes"));
        assert!(error(&file("<f4", "False", "(2, 2)", &[0; 17])).contains("found 17"));
        assert!(error(&file("<c8", "False", "(1,)", &[0; 8])).contains("\"<c8\""));
        assert!(error(&file("|O", "False", "(1,)", &[0; 8])).contains("\"|O\""));
        assert!(error(&file("|V2", "False", "(1,)", &[0; 2])).contains("\"|V2\""));
        assert!(error(&file("|b1", "False", "(1,)", &[2])).contains("bool"));
        assert!(error(&file("<f4", "False", "(-1,)", &[])).contains("dimension"));
        let huge = "(4294967296, 4294967296)";
        assert!(error(&file("<f4", "False", huge, &[])).contains("more elements"));
        assert!(error(&file("|S0", "False", "(4294967296,)", &[])).contains("empty strings"));
        assert!(error(b"PK\x03\x04").contains("magic"));
        assert!(error(b"\x93NUMPY\x01\x00\xff\xff{").contains("10000"));
    }

    #[test]
    fn no_truncation_or_bit_flip_of_the_header_panics() {
        let whole = file("<f4", "False", "(1, 2)", &[0; 8]);
        for end in 0..whole.len() {
            assert!(parse("x", &whole[..end]).is_err());
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = parse("x", &flipped);
        }
    }
}
