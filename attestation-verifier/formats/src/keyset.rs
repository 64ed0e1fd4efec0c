//! The keyset: who signs, who logs, what runs (§2).

use crate::error::bounded;
use crate::limits::{MAX_INTEGER, MAX_KEYSET};
use crate::strict::{self, nullable, present};
use crate::text::{self, Base64Bytes};
use crate::{Digest, FormatError, LogKey, Result, ed25519, jcs};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The Ed25519 key that receipts are signed with; `ed25519:<base64>` in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReceiptKey(pub [u8; 32]);

/// One keyset. `v` is implied: `touchstone/keyset/1`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keyset {
    /// The operator's word for the service; the enclave does not certify it. ≤ 256 bytes.
    pub name: String,
    /// Digest of the keyset that this one replaced by rotation.
    pub previous: Option<Digest>,
    /// First second of its life, Unix time by the guest's clock.
    pub not_before: u64,
    /// Last second of its life.
    pub not_after: u64,
    /// Signs receipts.
    pub receipt_key: ReceiptKey,
    /// Signs checkpoints.
    pub log: LogKey,
    /// SHA-256 of the TLS key's SubjectPublicKeyInfo; absent when TLS does not end inside.
    pub tls_spki_sha256: Option<Digest>,
    /// `application/ohttp-keys`; absent when Oblivious HTTP is not spoken.
    pub ohttp_keys: Option<Base64Bytes>,
    /// Digest of the build statement.
    pub software: Digest,
    /// Digest of the JCS of every setting that entered after measurement.
    pub config: Digest,
}

impl Keyset {
    /// Reads the JCS bytes of a keyset.
    ///
    /// # Errors
    /// More than 8 KiB, not canonical, a member missing, unknown or out of its bounds, a key of
    /// small order.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        bounded("keyset", bytes.len(), MAX_KEYSET)?;
        jcs::from_slice(bytes)
    }

    /// The canonical bytes, which [`Self::digest`] is over.
    pub fn to_jcs(&self) -> Vec<u8> {
        // The one thing that could not be written is a time past 2^53, which no clock shows and
        // `parse` refuses.
        jcs::must_write(jcs::to_vec(self))
    }

    /// `keyset_digest`.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_jcs())
    }
}

strict::version!(V = "touchstone/keyset/1");

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: V,
    name: String,
    #[serde(deserialize_with = "nullable")]
    previous: Option<Digest>,
    not_before: u64,
    not_after: u64,
    receipt_key: ReceiptKey,
    log: LogKey,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    tls_spki_sha256: Option<Digest>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    ohttp_keys: Option<Base64Bytes>,
    software: Digest,
    config: Digest,
}

impl Serialize for Keyset {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        Wire {
            v: V,
            name: self.name.clone(),
            previous: self.previous,
            not_before: self.not_before,
            not_after: self.not_after,
            receipt_key: self.receipt_key,
            log: self.log.clone(),
            tls_spki_sha256: self.tls_spki_sha256,
            ohttp_keys: self.ohttp_keys.clone(),
            software: self.software,
            config: self.config,
        }
        .serialize(to)
    }
}

impl<'de> Deserialize<'de> for Keyset {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let wire = Wire::deserialize(from)?;
        let keyset = Keyset {
            name: wire.name,
            previous: wire.previous,
            not_before: wire.not_before,
            not_after: wire.not_after,
            receipt_key: wire.receipt_key,
            log: wire.log,
            tls_spki_sha256: wire.tls_spki_sha256,
            ohttp_keys: wire.ohttp_keys,
            software: wire.software,
            config: wire.config,
        };
        keyset.check().map_err(serde::de::Error::custom)?;
        Ok(keyset)
    }
}

impl Keyset {
    /// The bounds that the types do not hold, also when a keyset comes inside another object.
    fn check(&self) -> Result<()> {
        strict::text("keyset name", &self.name)?;
        for (field, time) in [
            ("not_before", self.not_before),
            ("not_after", self.not_after),
        ] {
            if time > MAX_INTEGER {
                return Err(FormatError::value(field, time, "at most 2^53−1"));
            }
        }
        if self
            .ohttp_keys
            .as_ref()
            .is_some_and(|keys| keys.0.is_empty())
        {
            return Err(FormatError::value("ohttp_keys", "", "absent, never empty"));
        }
        // An escape has six characters; all that is of one length has not half a KiB.
        let names = 6 * (self.name.len() + self.log.name.len());
        let keys = self.ohttp_keys.as_ref().map_or(0, |keys| keys.0.len());
        if names.saturating_add(keys.saturating_mul(2)) <= MAX_KEYSET / 2 {
            return Ok(());
        }
        bounded("keyset", self.to_jcs().len(), MAX_KEYSET)
    }
}

const PREFIX: &str = "ed25519:";

impl fmt::Display for ReceiptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", text::base64_encode(&self.0))
    }
}

impl fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ReceiptKey {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self> {
        let base64 = text
            .strip_prefix(PREFIX)
            .ok_or_else(|| FormatError::value("receipt_key", text, "ed25519:<base64>"))?;
        let key = text::base64_array(base64)?;
        ed25519::check_public_key("receipt_key", &key)?;
        Ok(Self(key))
    }
}

impl Serialize for ReceiptKey {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReceiptKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        text::deserialize_str(from, "ed25519:<base64 of a public key>", str::parse)
    }
}
