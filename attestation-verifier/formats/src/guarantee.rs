//! The closed set of guarantees (§1).

use crate::text::shown;
use crate::{FormatError, Result};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A guarantee. The order is the bytewise order of the names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Guarantee {
    /// In the enclave's log, under a checkpoint that a quote covers. Implies [`Guarantee::Signed`].
    Logged,
    /// Reserved; version 1 knows the name and delivers it nowhere.
    Proven,
    /// A quote was made for this receipt alone. Implies [`Guarantee::Signed`].
    Quoted,
    /// Two independent enclaves agree, or the verifier ran the model itself.
    Recomputed,
    /// Signed by a key that a quote binds to a measured enclave.
    Signed,
}

impl Guarantee {
    /// All of them, in order.
    pub const ALL: [Guarantee; 5] = [
        Guarantee::Logged,
        Guarantee::Proven,
        Guarantee::Quoted,
        Guarantee::Recomputed,
        Guarantee::Signed,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Guarantee::Logged => "logged",
            Guarantee::Proven => "proven",
            Guarantee::Quoted => "quoted",
            Guarantee::Recomputed => "recomputed",
            Guarantee::Signed => "signed",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Guarantee {
    type Err = FormatError;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|guarantee| guarantee.name() == name)
            .ok_or_else(|| FormatError::UnknownGuarantee { name: shown(name) })
    }
}

/// A set of guarantees: never empty, and closed (`logged` and `quoted` each bring `signed`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuaranteeSet(u8);

impl GuaranteeSet {
    /// The set of these guarantees and of what they imply. Repetition is no error here.
    ///
    /// # Errors
    /// No guarantee at all.
    pub fn close(guarantees: impl IntoIterator<Item = Guarantee>) -> Result<Self> {
        let mut bits = 0;
        for guarantee in guarantees {
            bits |= guarantee.bit();
        }
        if bits == 0 {
            return Err(refused("the empty set", "at least one guarantee"));
        }
        if bits & (Guarantee::Logged.bit() | Guarantee::Quoted.bit()) != 0 {
            bits |= Guarantee::Signed.bit();
        }
        Ok(Self(bits))
    }

    /// Reads a set that must be written as the specification says: closed, sorted bytewise,
    /// without repetition, not empty.
    ///
    /// # Errors
    /// Any other way to write a set; [`FormatError::UnknownGuarantee`] for an unknown name.
    pub fn parse_wire(names: &[&str]) -> Result<Self> {
        let mut reader = WireReader::default();
        for name in names {
            reader.push(name)?;
        }
        reader.finish()
    }

    /// As [`Self::parse_wire`], from names with one space between (`touchstone_require`).
    ///
    /// # Errors
    /// As [`Self::parse_wire`].
    pub fn parse_wire_words(words: &str) -> Result<Self> {
        let mut reader = WireReader::default();
        for name in words.split(' ') {
            reader.push(name)?;
        }
        reader.finish()
    }

    /// Reads what a person wrote (an option, a setting): names with one space between, in any order,
    /// each once; closes the set.
    ///
    /// # Errors
    /// No name, a repeated name; [`FormatError::UnknownGuarantee`] for an unknown one.
    pub fn parse_words(words: &str) -> Result<Self> {
        let mut seen = 0;
        for name in words.split(' ') {
            if name.is_empty() {
                return Err(refused(name, "names with one space between"));
            }
            let bit = Guarantee::from_str(name)?.bit();
            if seen & bit != 0 {
                return Err(refused(name, "each guarantee once"));
            }
            seen |= bit;
        }
        Self::close(Self(seen).iter())
    }

    /// Whether the set has this guarantee.
    pub fn contains(&self, guarantee: Guarantee) -> bool {
        self.0 & guarantee.bit() != 0
    }

    /// The guarantees, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = Guarantee> + use<> {
        let set = *self;
        Guarantee::ALL
            .into_iter()
            .filter(move |guarantee| set.contains(*guarantee))
    }

    /// Whether every guarantee of `other` is in this set.
    pub fn is_superset(&self, other: &Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What is in either. (The union of closed sets is closed.)
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names on the wire, sorted.
    pub fn names(&self) -> Vec<&'static str> {
        self.iter().map(Guarantee::name).collect()
    }

    /// `logged signed`: the default as shipped.
    pub fn default_set() -> Self {
        Self(Guarantee::Logged.bit() | Guarantee::Signed.bit())
    }
}

/// Collects names one by one, in the order of the wire, so that a reader needs no list of them.
#[derive(Default)]
pub(crate) struct WireReader {
    bits: u8,
    last: Option<Guarantee>,
}

impl WireReader {
    pub(crate) fn push(&mut self, name: &str) -> Result<()> {
        let guarantee = Guarantee::from_str(name)?;
        if self.last.is_some_and(|last| last >= guarantee) {
            return Err(refused(name, "names sorted bytewise, each once"));
        }
        self.last = Some(guarantee);
        self.bits |= guarantee.bit();
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<GuaranteeSet> {
        let closed = GuaranteeSet::close(GuaranteeSet(self.bits).iter())?;
        if closed.0 != self.bits {
            return Err(refused(
                &GuaranteeSet(self.bits).to_string(),
                "a set closed under implication",
            ));
        }
        Ok(closed)
    }
}

fn refused(found: &str, expected: &'static str) -> FormatError {
    FormatError::value("guarantees", found, expected)
}

impl fmt::Display for GuaranteeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(" "))
    }
}

impl fmt::Debug for GuaranteeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({self})")
    }
}

impl Serialize for GuaranteeSet {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(Guarantee::name))
    }
}

impl<'de> Deserialize<'de> for GuaranteeSet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = GuaranteeSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of guarantee names")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut names: A,
            ) -> std::result::Result<GuaranteeSet, A::Error> {
                use serde::de::Error;
                let mut reader = WireReader::default();
                while let Some(name) = names.next_element::<String>()? {
                    reader.push(&name).map_err(A::Error::custom)?;
                }
                reader.finish().map_err(A::Error::custom)
            }
        }

        from.deserialize_seq(Names)
    }
}
