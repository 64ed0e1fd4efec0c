//! Reports, quotes, certificates, revocation lists and Intel's signed texts, field by field, with offsets and the names
//! of their specifications, for `touchstone show`.
//!
//! Nothing here is judged: what is shown may be forged in every field. What is not well-formed is not shown, but
//! named: where, and which field.

mod snp;
mod tdx;
mod x509;

use std::fmt::{self, Display, Write as _};

use serde::Serialize;
use touchstone_formats::text::printable;

pub use snp::snp_report;
pub use tdx::{qe_identity, tcb_info, tdx_quote};
pub use x509::{certificate, crl};

/// Something that has fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Structure {
    /// What it is.
    pub title: String,
    /// Where its fields are specified.
    pub source: &'static str,
    /// The fields in their order.
    pub fields: Vec<Field>,
    /// What is inside it and has fields of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Structure>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Where it begins, bytes from the start of the whole; none where the encoding has no fixed places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
    /// Its name in the specification.
    pub name: String,
    /// The value: a number, lower-case hex, or a text.
    pub value: String,
    /// What the value says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
}

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Malformed {
    /// What they should be.
    pub what: &'static str,
    /// Where it goes wrong, bytes from the start, where that is known.
    pub offset: Option<usize>,
    /// The field.
    pub field: String,
    /// What was found, and what was expected.
    pub reason: String,
}

impl Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.what)?;
        if let Some(offset) = self.offset {
            write!(f, "byte 0x{offset:03x}, ")?;
        }
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl Structure {
    fn new(title: impl Into<String>, source: &'static str) -> Structure {
        Structure {
            title: title.into(),
            source,
            fields: Vec::new(),
            parts: Vec::new(),
        }
    }

    fn push(&mut self, offset: Option<usize>, name: &str, value: String, meaning: Option<String>) {
        self.fields.push(Field {
            offset,
            name: name.to_owned(),
            value,
            meaning,
        });
    }

    /// A field at a place.
    fn at(&mut self, offset: usize, name: &str, value: impl Display) {
        self.push(Some(offset), name, value.to_string(), None);
    }

    /// A field at a place, and what it says.
    fn at_means(&mut self, offset: usize, name: &str, value: impl Display, meaning: impl Display) {
        let meaning = Some(meaning.to_string());
        self.push(Some(offset), name, value.to_string(), meaning);
    }

    /// A field without a place.
    fn field(&mut self, name: &str, value: impl Display) {
        self.push(None, name, value.to_string(), None);
    }
}

/// Lines for people: the title, then a field a line. No control character of whoever made the bytes gets out.
impl Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", OneLine(&self.title), self.source)?;
        for field in &self.fields {
            let mut line = String::from("  ");
            if let Some(offset) = field.offset {
                let _ = write!(line, "0x{offset:03x} ");
            }
            let _ = write!(line, "{:<20} {}", field.name, OneLine(&field.value));
            if let Some(meaning) = &field.meaning {
                let _ = write!(line, ": {}", OneLine(meaning));
            }
            writeln!(f, "{line}")?;
        }
        for part in &self.parts {
            for line in part.to_string().lines() {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

struct OneLine<'a>(&'a str);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(self.0))
    }
}

/// The names of the bits that are one.
fn names(field: u64, bits: &[(u32, &str)]) -> String {
    let set: Vec<&str> = bits
        .iter()
        .filter(|(bit, _)| field >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect();
    if set.is_empty() {
        "none set".to_owned()
    } else {
        set.join(" ")
    }
}
