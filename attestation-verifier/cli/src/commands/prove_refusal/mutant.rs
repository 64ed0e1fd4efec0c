//! What a mutant is, and the numbers that mutants are made from.

use serde::Serialize;
use touchstone_formats::Digest;

use super::subject::Files;

/// How something was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One bit.
    Bit,
    /// A field has another plausible value; what is signed is not signed again.
    Field,
    /// A genuine thing in the place of another.
    Swap,
    /// Something is cut off, or added.
    Length,
    /// The same content, written in a way that is not the one way.
    Encoding,
    /// Collateral is gone, or out of its time.
    Collateral,
    /// A lie that is signed, by keys of the liar's own.
    Signed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] = [
        Kind::Bit,
        Kind::Field,
        Kind::Swap,
        Kind::Length,
        Kind::Encoding,
        Kind::Collateral,
        Kind::Signed,
    ];

    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Bit => "bit",
            Kind::Field => "field",
            Kind::Swap => "swap",
            Kind::Length => "length",
            Kind::Encoding => "encoding",
            Kind::Collateral => "collateral",
            Kind::Signed => "signed lie",
        }
    }
}

/// Something that must be refused.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// How it was changed.
    pub kind: Kind,
    /// What was changed.
    pub place: String,
    /// Into what.
    pub change: String,
    /// The files that differ.
    pub files: Files,
    /// The time at which it is judged, if it is that which is changed; Unix seconds.
    pub at: Option<u64>,
}

impl Mutant {
    /// A mutant of some files.
    pub fn new(
        kind: Kind,
        place: impl Into<String>,
        change: impl Into<String>,
        files: Files,
    ) -> Mutant {
        Mutant {
            kind,
            place: place.into(),
            change: change.into(),
            files,
            at: None,
        }
    }

    /// Digest of files and time: what tells mutants apart.
    pub fn digest(&self) -> [u8; 32] {
        let time = self.at.map(u64::to_le_bytes).unwrap_or_default();
        let mut parts: Vec<Vec<u8>> = vec![time.to_vec()];
        for (path, bytes) in &self.files {
            parts.push(path.as_os_str().as_encoded_bytes().to_vec());
            parts.push(Digest::of(bytes).0.to_vec());
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Digest::of_parts(&parts).0
    }
}

/// Numbers that follow from a seed (SplitMix64). Nothing secret is made from them: the keys are a liar's, for one run.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Those of a seed.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    /// Bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }

    /// Puts a list into another order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for n in (1..list.len()).rev() {
            list.swap(n, self.below(n + 1));
        }
    }
}
