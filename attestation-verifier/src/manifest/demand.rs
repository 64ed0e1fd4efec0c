//! What a policy demands of manifests: its table `[manifest]`.

use toml::{Table, Value};

use super::keys::{PublicKey, Signer, Signers, SignersError};
use super::types::Manifest;
use super::{KeyError, ManifestError, check};
use touchstone_formats::text::shown;

/// Which manifest, how new, signed by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The name it must have.
    pub name: String,
    /// The least version that is accepted.
    pub minimum_version: u64,
    /// Whose signatures count, and how many there must be.
    pub signers: Signers,
}

/// Why a table `[manifest]` does not stand (exit 1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DemandError {
    /// The file is no TOML.
    #[error("not TOML: {0}")]
    Toml(String),
    /// A key that has to be there is not.
    #[error("{key} is missing")]
    Missing {
        /// The key, with its table.
        key: String,
    },
    /// A key that has no place there.
    #[error("{key} is not a key of a policy")]
    Unknown {
        /// The key, with its table.
        key: String,
    },
    /// A value of the wrong form.
    #[error("{key} is {found}; expected {expected}")]
    Value {
        /// The key, with its table.
        key: String,
        /// What the file has, shortened.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// No key.
    #[error("{key}: {error}")]
    Key {
        /// The key, with its table.
        key: String,
        /// What is wrong with it.
        error: KeyError,
    },
    /// No name.
    #[error("manifest.name: {0}")]
    Name(ManifestError),
    /// Keys that cannot be judged by.
    #[error("manifest: {0}")]
    Signers(#[from] SignersError),
}

/// What a manifest is refused for (exit 4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is another.
    #[error("it is named {found:?}, and {expected:?} is demanded")]
    Name {
        /// Its name.
        found: String,
        /// The one that is demanded.
        expected: String,
    },
    /// It is too old.
    #[error("it has version {found}, and {minimum} is the least that is accepted")]
    Version {
        /// Its version.
        found: u64,
        /// The least.
        minimum: u64,
    },
}

impl Refused {
    /// The check that this is reported under.
    pub fn id(&self) -> &'static str {
        match self {
            Refused::Name { .. } => "manifest.name",
            Refused::Version { .. } => "manifest.version",
        }
    }
}

type Result<T> = std::result::Result<T, DemandError>;

impl Demand {
    /// Reads the table `[manifest]` of a policy file, and nothing else of it: not whether the policy stands.
    ///
    /// # Errors
    /// No TOML, no such table, and as [`Self::from_table`].
    pub fn from_policy(text: &str) -> Result<Demand> {
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| DemandError::Toml(error.to_string()))?;
        match member("", &table, "manifest")? {
            Value::Table(table) => Demand::from_table(table),
            other => wrong("manifest", other, "a table"),
        }
    }

    /// Reads the table `[manifest]` of a policy.
    ///
    /// # Errors
    /// A key missing, unknown or of a wrong form, and signers that cannot be judged by.
    pub fn from_table(table: &Table) -> Result<Demand> {
        let known = ["name", "minimum_version", "threshold", "signer"];
        no_others("manifest", table, &known)?;
        let name = text("manifest", table, "name")?;
        check::name("name", name).map_err(DemandError::Name)?;
        let most = (1_i64 << 53) - 1;
        let minimum_version = number(table, "minimum_version", 0..=most)?;
        let threshold = number(table, "threshold", 0..=i64::from(u16::MAX))?;
        let signers = match member("manifest", table, "signer")? {
            Value::Array(signers) => signers.iter().enumerate(),
            other => return wrong("manifest.signer", other, "one [[manifest.signer]] or more"),
        };
        let signers = signers.map(|(index, value)| {
            let at = format!("manifest.signer[{}]", index.saturating_add(1));
            let Value::Table(table) = value else {
                return wrong(&at, value, "a table");
            };
            no_others(&at, table, &["name", "key"])?;
            let key = PublicKey::parse(text(&at, table, "key")?);
            Ok(Signer {
                name: text(&at, table, "name")?.to_owned(),
                key: key.map_err(|error| DemandError::Key {
                    key: format!("{at}.key"),
                    error,
                })?,
            })
        });
        let signers = signers.collect::<Result<Vec<Signer>>>()?;
        let threshold = usize::try_from(threshold).unwrap_or(usize::MAX);
        Ok(Demand {
            name: name.to_owned(),
            minimum_version,
            signers: Signers::new(signers, threshold)?,
        })
    }

    /// What of its name and version is not as demanded, first its name.
    pub fn refuses(&self, manifest: &Manifest) -> Vec<Refused> {
        let mut refused = Vec::new();
        if manifest.name != self.name {
            refused.push(Refused::Name {
                found: manifest.name.clone(),
                expected: self.name.clone(),
            });
        }
        if manifest.version < self.minimum_version {
            refused.push(Refused::Version {
                found: manifest.version,
                minimum: self.minimum_version,
            });
        }
        refused
    }
}

fn wrong<T>(key: &str, found: &Value, expected: &'static str) -> Result<T> {
    Err(DemandError::Value {
        key: key.to_owned(),
        found: shown(&found.to_string()),
        expected,
    })
}

fn no_others(at: &str, table: &Table, known: &[&str]) -> Result<()> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(DemandError::Unknown {
            key: format!("{at}.{}", shown(key)),
        }),
    }
}

fn member<'a>(at: &str, table: &'a Table, key: &str) -> Result<&'a Value> {
    table.get(key).ok_or_else(|| DemandError::Missing {
        key: format!("{at}.{key}").trim_start_matches('.').to_owned(),
    })
}

fn text<'a>(at: &str, table: &'a Table, key: &str) -> Result<&'a str> {
    let value = member(at, table, key)?;
    match value.as_str() {
        Some(text) => Ok(text),
        None => wrong(&format!("{at}.{key}"), value, "a text"),
    }
}

fn number(table: &Table, key: &str, range: std::ops::RangeInclusive<i64>) -> Result<u64> {
    let value = member("manifest", table, key)?;
    match value.as_integer() {
        Some(number) if range.contains(&number) => Ok(number.unsigned_abs()),
        _ => wrong(&format!("manifest.{key}"), value, "a number from 0"),
    }
}
