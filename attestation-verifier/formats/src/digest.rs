//! SHA-256 digests.

use crate::backend::digest::{Context, SHA256, digest};
use crate::{FormatError, Result, text};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A SHA-256 digest. Shown, and written in JSON, as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// 32 zero bytes: "none before" in a catalog.
    pub const ZERO: Digest = Digest([0; 32]);

    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Self::from_backend(digest(&SHA256, bytes))
    }

    /// SHA-256 of the parts joined, without joining them.
    pub fn of_parts(parts: &[&[u8]]) -> Digest {
        let mut hash = Hasher::new();
        for part in parts {
            hash.update(part);
        }
        hash.finish()
    }

    /// Reads 64 lower-case hex digits.
    ///
    /// # Errors
    /// Another length, upper case, anything else.
    pub fn from_hex(hex: &str) -> Result<Digest> {
        text::hex_array(hex).map(Digest)
    }

    fn from_backend(digest: crate::backend::digest::Digest) -> Digest {
        let mut out = [0; 32];
        // SHA-256 is 32 bytes by definition; zip cannot leave a byte out.
        for (to, from) in out.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Digest(out)
    }
}

/// SHA-256 over bytes that come in pieces.
#[derive(Clone)]
pub struct Hasher(Context);

impl Hasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Hashes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes given.
    pub fn finish(self) -> Digest {
        Digest::from_backend(self.0.finish())
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::hex_encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::str::FromStr for Digest {
    type Err = FormatError;

    fn from_str(hex: &str) -> Result<Self> {
        Self::from_hex(hex)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        text::deserialize_str(from, "64 lower-case hex digits", Self::from_hex)
    }
}
