//! The checks a policy decides: one entry per check id, and nothing else is a key.
//!
//! This table is the only place that knows which checks there are. The parser, the template,
//! the appraisal's order and `docs/checks.md` follow it, and tests hold that they do.

mod snp;
mod tdx;

use touchstone_formats::evidence::Tee;

pub(crate) use tdx::EventPattern;

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
    /// A bit mask of 64 bits, written `"0x1f"`.
    Mask,
    /// A table of TCB floors by product.
    Floors,
    /// A list of 64-bit fields, each written `"0x602e7"` (or one bare field), compared exactly.
    Fields,
    /// The last day on which something is tolerated, `"YYYY-MM-DD"`, or `"none"`. Waivers end, too: a
    /// waiver of such a check needs `until`.
    Day,
    /// A list of events of an event log (or one bare event): `"name=<payload in hex>"`, `"name=*"` for any
    /// payload, `"sha384:<96 hex>"` for one that has no name.
    Events,
}

impl Form {
    /// The form in words.
    pub fn words(self) -> String {
        match self {
            Form::Flag => "true or false".into(),
            Form::Number => "a number from 0".into(),
            Form::Word(words) => format!("one of {words:?}"),
            Form::Numbers => "a list of numbers, or one".into(),
            Form::Words(words) => format!("a list of words out of {words:?}, or one"),
            Form::Texts => "a list of texts, or one".into(),
            Form::Hexes(bytes) => {
                format!(
                    "a list of strings of {} lower-case hex digits, or one",
                    bytes * 2
                )
            }
            Form::Mask => "a mask like \"0x1f\": lower-case hex without leading zeros".into(),
            Form::Floors => {
                "a table of products, each with bootloader, tee, snp, microcode (and fmc for Turin)"
                    .into()
            }
            Form::Fields => {
                "a list of 64-bit fields like \"0x602e7\" (lower-case hex without leading zeros), or one".into()
            }
            Form::Day => "a day, \"YYYY-MM-DD\", or \"none\"; a waiver of it needs until".into(),
            Form::Events => {
                "a list of events, \"name=<payload in hex>\", \"name=*\" or \"sha384:<96 hex digits>\", or one".into()
            }
        }
    }
}

/// One check that a policy must name.
#[derive(Debug, PartialEq)]
pub struct CheckSpec {
    /// Stable id; also the policy's key.
    pub id: &'static str,
    /// What `expect` takes.
    pub form: Form,
    /// What is checked, and what is expected of it.
    pub summary: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// Where it is specified.
    pub source: &'static str,
    /// The template's value, as TOML.
    pub template: &'static str,
    /// A failure means that the platform's operator is behind, not that the caller's rules are
    /// narrow (class `operations` instead of `policy`).
    pub operations: bool,
}

/// The checks that a policy for this TEE must name, in the order of the template.
pub fn check_ids(tee: Tee) -> &'static [CheckSpec] {
    match tee {
        Tee::SevSnp => snp::CHECKS,
        Tee::Tdx => tdx::CHECKS,
    }
}

/// `expect` of `snp.chain.crl` and `tdx.chain.crl`.
pub(crate) const CRL_STATES: &[&str] = &["current"];

const fn policy_check(
    id: &'static str,
    form: Form,
    summary: &'static str,
    why: &'static str,
    source: &'static str,
    template: &'static str,
) -> CheckSpec {
    CheckSpec {
        id,
        form,
        summary,
        why,
        source,
        template,
        operations: false,
    }
}

const fn platform_check(
    id: &'static str,
    form: Form,
    summary: &'static str,
    why: &'static str,
    source: &'static str,
    template: &'static str,
) -> CheckSpec {
    CheckSpec {
        operations: true,
        ..policy_check(id, form, summary, why, source, template)
    }
}
