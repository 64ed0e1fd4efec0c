//! The checks a policy decides: one entry per check id, and nothing else is a key.

use touchstone_formats::evidence::Tee;

/// The form in which `expect` is written, and in which a verdict writes `found`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `true` or `false`.
    Flag,
    /// A number.
    Number,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of numbers (or one bare number).
    Numbers,
    /// A list of these words (or one bare word).
    Words(&'static [&'static str]),
    /// A list of texts (or one bare text).
    Texts,
    /// A list of lower-case hex strings of this many bytes (or one bare string).
    Hexes(usize),
    /// A table of TCB floors by product.
    Floors,
}

/// One check that a policy must name.
#[derive(Debug, PartialEq)]
pub struct CheckSpec {
    /// Stable id; also the policy's key.
    pub id: &'static str,
    /// What `expect` takes.
    pub form: Form,
    /// What is checked, for people.
    pub summary: &'static str,
    /// Why it matters, for people.
    pub why: &'static str,
    /// Where it is specified.
    pub source: &'static str,
    /// The template's value, as TOML, comments for its lines included.
    pub template: &'static str,
}

/// The checks that a policy for this TEE must name, in the order of the template.
pub fn check_ids(tee: Tee) -> &'static [CheckSpec] {
    match tee {
        Tee::SevSnp => SNP,
        Tee::Tdx => &[],
    }
}

static SNP: &[CheckSpec] = &[];
