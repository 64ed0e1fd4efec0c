//! The catalog: what can be asked for (§5).

use crate::limits::MAX_INTEGER;
use crate::strict;
use crate::{Digest, FormatError, Result, jcs};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One model of a catalog.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogModel {
    /// The operator's word. ≤ 256 bytes.
    pub name: String,
    /// The operator's word. ≤ 256 bytes.
    pub version: String,
    /// What its files are.
    pub model_digest: Digest,
    /// All else that shapes its answers.
    pub config_digest: Digest,
}

/// One epoch of a catalog. `v` is implied: `touchstone/catalog/1`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Catalog {
    /// The keyset under which it holds.
    pub keyset_digest: Digest,
    /// 0 for the first of a keyset; every change is one more.
    pub epoch: u64,
    /// Digest of the epoch before, [`Digest::ZERO`] for the first.
    pub previous: Digest,
    /// The models; (name, version) is unique. The order is the enclave's.
    pub models: Vec<CatalogModel>,
}

impl Catalog {
    /// Reads the JCS bytes of a catalog.
    ///
    /// # Errors
    /// Not canonical, members missing or unknown, a name out of bounds, a pair of name and version
    /// that stands twice.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        crate::error::bounded("catalog", bytes.len(), crate::limits::MAX_BUNDLE)?;
        jcs::from_slice(bytes)
    }

    /// The canonical bytes.
    pub fn to_jcs(&self) -> Vec<u8> {
        // Strings and one integer; an epoch does not reach 2^53.
        jcs::must_write(jcs::to_vec(self))
    }

    /// SHA-256 of [`Self::to_jcs`]: claim -65603, and the object of its log entry.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_jcs())
    }

    fn check(&self) -> Result<()> {
        if self.epoch > MAX_INTEGER {
            return Err(FormatError::value("epoch", self.epoch, "at most 2^53−1"));
        }
        for model in &self.models {
            strict::text("model name", &model.name)?;
            strict::text("model version", &model.version)?;
        }
        let mut keys: Vec<_> = self
            .models
            .iter()
            .map(|model| (model.name.as_str(), model.version.as_str()))
            .collect();
        keys.sort_unstable();
        for (key, next) in keys.iter().zip(keys.iter().skip(1)) {
            if key == next {
                return Err(FormatError::value(
                    "models",
                    format_args!("{} version {} twice", key.0, key.1),
                    "each pair of name and version once",
                ));
            }
        }
        Ok(())
    }
}

strict::version!(V = "touchstone/catalog/1");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(rename = "v")]
    _v: V,
    keyset_digest: Digest,
    epoch: u64,
    previous: Digest,
    models: Vec<CatalogModel>,
}

impl Serialize for Catalog {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut object = to.serialize_struct("Catalog", 5)?;
        object.serialize_field("v", &V)?;
        object.serialize_field("keyset_digest", &self.keyset_digest)?;
        object.serialize_field("epoch", &self.epoch)?;
        object.serialize_field("previous", &self.previous)?;
        object.serialize_field("models", &self.models)?;
        object.end()
    }
}

impl<'de> Deserialize<'de> for Catalog {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let wire = Wire::deserialize(from)?;
        let catalog = Catalog {
            keyset_digest: wire.keyset_digest,
            epoch: wire.epoch,
            previous: wire.previous,
            models: wire.models,
        };
        catalog.check().map_err(serde::de::Error::custom)?;
        Ok(catalog)
    }
}
