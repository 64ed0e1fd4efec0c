//! Reading one TOML table strictly: whatever is not asked for is an error in the end.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use thiserror::Error;
use toml::{Table, Value};

use crate::address::Address;

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

    fn wrong(&self, name: &str, found: &Value, expected: &str) -> ConfigError {
        ConfigError::Value {
            key: self.key(name),
            found: found.to_string().trim().into(),
            expected: expected.into(),
        }
    }

    fn missing(&self, name: &str, expected: &str) -> ConfigError {
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
            Some(other) => return Err(self.wrong(name, &other, &format!("a table [{name}]"))),
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
        default: &str,
    ) -> Result<String, ConfigError> {
        match self.take(name) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.wrong(name, &other, "a text")),
            None => Ok(default.to_owned()),
        }
    }

    pub(super) fn choice(
        &mut self,
        name: &'static str,
        choices: &[&str],
    ) -> Result<Option<String>, ConfigError> {
        match self.take(name) {
            Some(Value::String(text)) if choices.contains(&text.as_str()) => Ok(Some(text)),
            Some(other) => {
                Err(self.wrong(name, &other, &format!("one of: {}", choices.join(", "))))
            }
            None => Ok(None),
        }
    }

    pub(super) fn integer(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        match self.take(name) {
            Some(Value::Integer(number)) => match u64::try_from(number) {
                Ok(number) if range.contains(&number) => Ok(number),
                _ => Err(self.wrong(name, &Value::Integer(number), &expected)),
            },
            Some(other) => Err(self.wrong(name, &other, &expected)),
            None => Ok(default),
        }
    }

    /// An integer that fits the machine's sizes; `range` must.
    pub(super) fn size(
        &mut self,
        name: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ConfigError> {
        self.integer(
            name,
            default as u64,
            *range.start() as u64..=*range.end() as u64,
        )
        .map(|number| number as usize)
    }

    pub(super) fn milliseconds(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<Duration, ConfigError> {
        self.integer(name, default, range)
            .map(Duration::from_millis)
    }

    /// A path, when one is given.
    pub(super) fn path(&mut self, name: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        match self.take(name) {
            Some(Value::String(text)) if !text.is_empty() && !text.contains('\0') => {
                Ok(Some(PathBuf::from(text)))
            }
            Some(other) => Err(self.wrong(name, &other, "a path")),
            None => Ok(None),
        }
    }

    pub(super) fn required_path(&mut self, name: &'static str) -> Result<PathBuf, ConfigError> {
        self.path(name)?.ok_or_else(|| self.missing(name, "a path"))
    }

    pub(super) fn address(&mut self, name: &'static str) -> Result<Address, ConfigError> {
        let expected = "\"tcp://<ip>:<port>\" or \"vsock://<cid>:<port>\"";
        match self.take(name) {
            Some(Value::String(text)) => text
                .parse()
                .map_err(|()| self.wrong(name, &Value::String(text), expected)),
            Some(other) => Err(self.wrong(name, &other, expected)),
            None => Err(self.missing(name, expected)),
        }
    }

    pub(super) fn listener(&mut self, name: &'static str) -> Result<SocketAddr, ConfigError> {
        let expected = "\"tcp://<ip>:<port>\"";
        match self.take(name) {
            Some(Value::String(text)) => text
                .strip_prefix("tcp://")
                .and_then(|address| address.parse().ok())
                .ok_or_else(|| self.wrong(name, &Value::String(text), expected)),
            Some(other) => Err(self.wrong(name, &other, expected)),
            None => Err(self.missing(name, expected)),
        }
    }

    /// Refuses every key that was not read.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(name) => Err(ConfigError::Unknown {
                key: self.key(name),
                expected: self.known.join(", "),
            }),
        }
    }
}
