//! Reading one TOML table strictly: whatever is not asked for is an error in the end.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use thiserror::Error;
use toml::{Table, Value};
use touchstone_formats::digest::Digest;

use super::Address;

/// A settings file that does not stand.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Not TOML, or a key twice.
    #[error("not a TOML file: {0}")]
    Syntax(String),
    /// A key that must be there and is not.
    #[error("key `{key}` is missing; expected {expected}")]
    Missing {
        /// The key, with its table.
        key: String,
        /// What should stand there.
        expected: String,
    },
    /// A key that nothing reads.
    #[error("unknown key `{key}`; expected one of: {expected}")]
    Unknown {
        /// The key, with its table.
        key: String,
        /// The keys that this table knows.
        expected: String,
    },
    /// A value of the wrong type or out of bounds.
    #[error("key `{key}`: found {found}, expected {expected}")]
    Value {
        /// The key, with its table.
        key: String,
        /// What was found.
        found: String,
        /// What is expected.
        expected: String,
    },
}

/// A table being read. Every read takes its key out; `finish` refuses what is left.
pub(super) struct Section {
    prefix: String,
    table: Table,
    known: Vec<&'static str>,
}

impl Section {
    pub(super) fn root(table: Table) -> Self {
        Self {
            prefix: String::new(),
            table,
            known: Vec::new(),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.table.remove(name)
    }

    fn wrong(&self, name: &str, found: &Value, expected: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            key: self.key(name),
            found: found.to_string().trim().into(),
            expected: expected.into(),
        }
    }

    fn missing(&self, name: &str, expected: impl Into<String>) -> ConfigError {
        ConfigError::Missing {
            key: self.key(name),
            expected: expected.into(),
        }
    }

    /// A sub-table; absent is the same as empty.
    pub(super) fn section(&mut self, name: &'static str) -> Result<Section, ConfigError> {
        let table = match self.take(name) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => return Err(self.wrong(name, &other, format!("a table [{name}]"))),
        };
        Ok(Section {
            prefix: format!("{}{name}.", self.prefix),
            table,
            known: Vec::new(),
        })
    }

    pub(super) fn text(
        &mut self,
        name: &'static str,
        default: Option<&str>,
        bytes: RangeInclusive<usize>,
    ) -> Result<String, ConfigError> {
        let expected = format!(
            "a text of {} to {} bytes without control characters",
            bytes.start(),
            bytes.end()
        );
        match self.take(name) {
            Some(Value::String(text))
                if bytes.contains(&text.len()) && !text.chars().any(char::is_control) =>
            {
                Ok(text)
            }
            Some(other) => Err(self.wrong(name, &other, expected)),
            None => default
                .map(str::to_owned)
                .ok_or_else(|| self.missing(name, expected)),
        }
    }

    pub(super) fn choice(
        &mut self,
        name: &'static str,
        default: Option<&str>,
        choices: &[&str],
    ) -> Result<String, ConfigError> {
        let expected = format!("one of: {}", choices.join(", "));
        match self.take(name) {
            Some(Value::String(text)) if choices.contains(&text.as_str()) => Ok(text),
            Some(other) => Err(self.wrong(name, &other, expected)),
            None => default
                .map(str::to_owned)
                .ok_or_else(|| self.missing(name, expected)),
        }
    }

    pub(super) fn integer(
        &mut self,
        name: &'static str,
        default: Option<u64>,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        match self.take(name) {
            Some(Value::Integer(number)) => match u64::try_from(number) {
                Ok(number) if range.contains(&number) => Ok(number),
                _ => Err(self.wrong(name, &Value::Integer(number), expected)),
            },
            Some(other) => Err(self.wrong(name, &other, expected)),
            None => default.ok_or_else(|| self.missing(name, expected)),
        }
    }

    pub(super) fn bytes(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<usize, ConfigError> {
        self.integer(name, Some(default), range)
            .map(|bytes| bytes as usize)
    }

    pub(super) fn milliseconds(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<Duration, ConfigError> {
        self.integer(name, Some(default), range)
            .map(Duration::from_millis)
    }

    pub(super) fn path(&mut self, name: &'static str) -> Result<PathBuf, ConfigError> {
        self.text(name, None, 1..=4_096)
            .map(PathBuf::from)
            .map_err(|error| match error {
                ConfigError::Missing { key, .. } => ConfigError::Missing {
                    key,
                    expected: "a path".into(),
                },
                other => other,
            })
    }

    pub(super) fn digest(&mut self, name: &'static str) -> Result<Digest, ConfigError> {
        let expected = "a SHA-256: 64 lower-case hex digits";
        match self.take(name) {
            Some(Value::String(text)) => Digest::from_hex(&text)
                .map_err(|_| self.wrong(name, &Value::String(text), expected)),
            Some(other) => Err(self.wrong(name, &other, expected)),
            None => Err(self.missing(name, expected)),
        }
    }

    pub(super) fn address(&mut self, name: &'static str) -> Result<Address, ConfigError> {
        let expected = "\"tcp://<ip>:<port>\" or \"vsock://[<cid>]:<port>\"";
        match self.take(name) {
            Some(Value::String(text)) => text
                .parse()
                .map_err(|()| self.wrong(name, &Value::String(text), expected)),
            Some(other) => Err(self.wrong(name, &other, expected)),
            None => Err(self.missing(name, expected)),
        }
    }

    /// Refuses every key that was not read.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(name) => Err(ConfigError::Unknown {
                key: format!("{}{name}", self.prefix),
                expected: self.known.join(", "),
            }),
        }
    }
}
