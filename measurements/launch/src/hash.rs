//! Digests, by ring.

use std::fmt;

use ring::digest::{Context, SHA256, SHA384, digest};
use serde::{Serialize, Serializer};

/// A SHA-256 digest; hexadecimal in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(pub [u8; 32]);

/// A SHA-384 digest; hexadecimal in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha384(pub [u8; 48]);

impl Sha256 {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Sha256 {
        Sha256(array(digest(&SHA256, bytes).as_ref()))
    }
}

impl Sha384 {
    /// What a launch digest begins with, and what stands for the contents of pages that are not hashed.
    pub const ZERO: Sha384 = Sha384([0; 48]);

    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Sha384 {
        Sha384(array(digest(&SHA384, bytes).as_ref()))
    }

    /// Of what this context was fed.
    pub(crate) fn finish(context: Context) -> Sha384 {
        Sha384(array(context.finish().as_ref()))
    }
}

/// A SHA-256 digest of bytes that come part by part, which a file need not be held in memory for.
pub struct Sha256Stream {
    context: Context,
    size: u64,
}

impl Sha256Stream {
    /// Of nothing yet.
    #[allow(clippy::new_without_default)] // An empty digest is nobody's default.
    pub fn new() -> Sha256Stream {
        Sha256Stream {
            context: Context::new(&SHA256),
            size: 0,
        }
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The digest of all of them, and how many they were.
    pub fn finish(self) -> (Sha256, u64) {
        (Sha256(array(self.context.finish().as_ref())), self.size)
    }
}

/// A digest is as long as its algorithm says.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

macro_rules! text {
    ($name:ident, $bytes:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = hex::FromHexError;

            /// Reads hexadecimal digits, in either case.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }
    };
}

text!(Sha256, 32);
text!(Sha384, 48);
