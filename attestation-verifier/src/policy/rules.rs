//! Rules: an expectation, or a waiver with its reason.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use touchstone_formats::Digest;

use crate::dates::end_of_day;

/// `{ expect = … }` or `{ waive = "reason" }`, exactly one of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule<T> {
    /// The check is made against this.
    Expect(T),
    /// The check is not made, and the verdict says so.
    Waive(Waiver),
}

impl<T> Rule<T> {
    /// The expectation in force, or the waiver that stands in its place.
    pub fn expected(&self) -> Option<&T> {
        match self {
            Rule::Expect(value) => Some(value),
            Rule::Waive(_) => None,
        }
    }
}

/// A waiver: a reason, and optionally the last day on which it waives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiver {
    /// Why the check is not made; never empty.
    pub reason: String,
    /// Last day (`YYYY-MM-DD`, UTC) on which the waiver holds; `None` = no end.
    pub until: Option<String>,
}

impl Waiver {
    /// Whether the waiver still waives at this time (unix seconds). After its last day it does
    /// not, and the check fails for want of an expectation.
    pub fn holds_at(&self, time: u64) -> bool {
        match &self.until {
            None => true,
            // An unreadable date was refused by the parser; here it would not waive.
            Some(day) => end_of_day(day).is_some_and(|end| time <= end),
        }
    }
}

/// An expectation in the form its check takes ([`super::Form`]).
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    /// A bit.
    Flag(bool),
    /// A floor.
    Number(u64),
    /// One word.
    Word(String),
    /// Bits that must be set; written `"0x1f"`.
    Mask(u64),
    /// Numbers that are accepted.
    Numbers(Vec<u64>),
    /// Words or hex strings that are accepted.
    Words(Vec<String>),
    /// Floors of TCB components per product.
    Floors(Floors),
    /// What the manifest lists that the policy's `[manifest]` asks for; written `"manifest"`.
    Manifest,
}

impl Expect {
    /// The value as a policy and a verdict write it.
    pub fn to_value(&self) -> Value {
        match self {
            Expect::Flag(flag) => (*flag).into(),
            Expect::Number(number) => (*number).into(),
            Expect::Word(word) => word.as_str().into(),
            Expect::Mask(mask) => format!("0x{mask:x}").into(),
            Expect::Numbers(numbers) => numbers.as_slice().into(),
            Expect::Words(words) => words.as_slice().into(),
            Expect::Floors(floors) => floors.to_value(),
            Expect::Manifest => json!(MANIFEST),
        }
    }
}

/// The word that stands for what a manifest lists.
pub(crate) const MANIFEST: &str = "manifest";

/// Digests that are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digests {
    /// These.
    These(Vec<Digest>),
    /// Those of the manifest that the policy's `[manifest]` asks for; written `"manifest"`.
    Manifest,
}

impl Digests {
    /// The value as a policy and a verdict write it.
    pub fn to_value(&self) -> Value {
        match self {
            Digests::These(list) => json!(list),
            Digests::Manifest => json!(MANIFEST),
        }
    }
}

/// Floors by product or product variant (`Genoa`, `Genoa-X`, …).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors(pub BTreeMap<String, Floor>);

impl Floors {
    /// As a policy and a verdict write it.
    pub fn to_value(&self) -> Value {
        Value::Object(
            self.0
                .iter()
                .map(|(name, f)| (name.clone(), f.to_value()))
                .collect(),
        )
    }
}

/// Least security version numbers of one product's TCB components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// FMC; products from Turin on have it, the ones before have not.
    pub fmc: Option<u8>,
    /// Boot loader of the security processor.
    pub bootloader: u8,
    /// Trusted execution environment (the security processor's OS).
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Lowest microcode patch level of all cores.
    pub microcode: u8,
}

impl Floor {
    /// As a policy and a verdict write it.
    pub fn to_value(self) -> Value {
        let mut object = Map::new();
        if let Some(fmc) = self.fmc {
            object.insert("fmc".into(), fmc.into());
        }
        object.insert("bootloader".into(), self.bootloader.into());
        object.insert("tee".into(), self.tee.into());
        object.insert("snp".into(), self.snp.into());
        object.insert("microcode".into(), self.microcode.into());
        Value::Object(object)
    }
}
