//! Reading a TOML settings file strictly: whatever is not asked for is an error in the end.
//!
//! A [`Section`] is one table. Each read takes its key out and checks type and bounds;
//! [`Section::finish`] refuses what is left. An error names the key with its table, what was found
//! and what is expected. No I/O, and nothing but the text is looked at.
#![forbid(unsafe_code)]

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use thiserror::Error;
use toml::{Table, Value};

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

/// A table being read. Every read takes its key out; [`finish`](Self::finish) refuses what is left.
///
/// Defaults are the program's own and are not held to the bounds of what may be written.
///
/// # Errors
/// A read gives [`ConfigError::Value`] for a value of the wrong type or out of bounds, and
/// [`ConfigError::Missing`] for a key without a value or a default.
#[derive(Debug)]
#[must_use = "keys that nothing read are found by finish()"]
pub struct Section {
    prefix: String,
    table: Table,
    known: Vec<&'static str>,
}

impl Section {
    /// The outermost table of a settings file.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`]
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        match text.parse() {
            Ok(table) => Ok(Self::new(String::new(), table)),
            Err(error) => {
                let error: toml::de::Error = error;
                Err(ConfigError::Syntax(error.to_string()))
            }
        }
    }

    fn new(prefix: String, table: Table) -> Self {
        Self {
            prefix,
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
    pub fn section(&mut self, name: &'static str) -> Result<Self, ConfigError> {
        let table = match self.take(name) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => return Err(self.wrong(name, &other, &format!("a table [{name}]"))),
        };
        Ok(Self::new(format!("{}.", self.key(name)), table))
    }

    /// The sub-tables of a sub-table, by their names, which the settings file chooses; absent is the same as empty. A
    /// name is 1 to 32 lower-case letters, digits and `-`.
    pub fn named_sections(
        &mut self,
        name: &'static str,
    ) -> Result<Vec<(String, Self)>, ConfigError> {
        let outer = self.section(name)?;
        let prefix = outer.prefix.clone();
        let mut sections = Vec::with_capacity(outer.table.len());
        for (inner, value) in outer.table {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if !(1..=32).contains(&inner.len()) || !inner.bytes().all(plain) {
                return Err(ConfigError::Value {
                    key: prefix.trim_end_matches('.').into(),
                    found: format!("{inner:?}"),
                    expected: "names of 1 to 32 lower-case letters, digits and `-`".into(),
                });
            }
            match value {
                Value::Table(table) => {
                    sections.push((inner.clone(), Self::new(format!("{prefix}{inner}."), table)));
                }
                other => {
                    return Err(ConfigError::Value {
                        key: format!("{prefix}{inner}"),
                        found: other.to_string().trim().into(),
                        expected: format!("a table [{prefix}{inner}]"),
                    });
                }
            }
        }
        Ok(sections)
    }

    /// A text out of which `read` makes the value, when one is given; `expected` says of what form.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value.as_str().and_then(read) {
            Some(read) => Ok(Some(read)),
            None => Err(self.wrong(name, &value, expected)),
        }
    }

    /// A text out of which `read` makes the value; `expected` says of what form.
    pub fn parsed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        self.optional(name, expected, read)?
            .ok_or_else(|| self.missing(name, expected))
    }

    /// A text of so many bytes without control characters.
    pub fn text(
        &mut self,
        name: &'static str,
        default: Option<&str>,
        bytes: RangeInclusive<usize>,
    ) -> Result<String, ConfigError> {
        let expected = plain_text(&bytes);
        self.optional(name, &expected, |text| plain(text, &bytes))?
            .or_else(|| default.map(str::to_owned))
            .ok_or_else(|| self.missing(name, &expected))
    }

    /// A list of at most `most` texts, out of each of which `read` makes a value; `expected` says of what form.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        most: usize,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        let expected = format!("a list of at most {most}: {expected}");
        let Some(value) = self.take(name) else {
            return Err(self.missing(name, &expected));
        };
        value
            .as_array()
            .filter(|items| items.len() <= most)
            .and_then(|items| {
                let read = |item: &Value| item.as_str().and_then(&read);
                items.iter().map(read).collect()
            })
            .ok_or_else(|| self.wrong(name, &value, &expected))
    }

    /// One of a few words.
    pub fn choice(
        &mut self,
        name: &'static str,
        default: &str,
        choices: &[&str],
    ) -> Result<String, ConfigError> {
        let expected = format!("one of: {}", choices.join(", "));
        let chosen = self.optional(name, &expected, |text| {
            choices.contains(&text).then(|| text.to_owned())
        })?;
        Ok(chosen.unwrap_or_else(|| default.to_owned()))
    }

    /// A path of 1 to 4096 bytes without control characters, when one is given.
    pub fn path(&mut self, name: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        let bytes = 1..=4_096;
        self.optional(name, &plain_text(&bytes), |text| {
            plain(text, &bytes).map(PathBuf::from)
        })
    }

    /// A [`path`](Self::path) that must be given.
    pub fn required_path(&mut self, name: &'static str) -> Result<PathBuf, ConfigError> {
        self.path(name)?.ok_or_else(|| self.missing(name, "a path"))
    }

    /// True or false.
    pub fn boolean(&mut self, name: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.take(name) {
            None => Ok(default),
            Some(Value::Boolean(value)) => Ok(value),
            Some(other) => Err(self.wrong(name, &other, "true or false")),
        }
    }

    /// A whole number.
    pub fn integer(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let given = self.optional_integer(name, range)?;
        Ok(given.unwrap_or(default))
    }

    /// A whole number, when one is given.
    pub fn optional_integer(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let number = value
            .as_integer()
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| range.contains(number));
        match number {
            Some(number) => Ok(Some(number)),
            None => {
                let expected = format!("a whole number from {} to {}", range.start(), range.end());
                Err(self.wrong(name, &value, &expected))
            }
        }
    }

    /// A whole number that fits the machine's sizes, because `range` does.
    pub fn size(
        &mut self,
        name: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ConfigError> {
        let range = *range.start() as u64..=*range.end() as u64;
        self.integer(name, default as u64, range)
            .map(|number| number as usize)
    }

    /// A time, written as a whole number of milliseconds.
    pub fn milliseconds(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<Duration, ConfigError> {
        self.integer(name, default, range)
            .map(Duration::from_millis)
    }

    /// Refuses every key that was not read.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`]
    pub fn finish(self) -> Result<(), ConfigError> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(name) => Err(ConfigError::Unknown {
                key: self.key(name),
                expected: self.known.join(", "),
            }),
        }
    }
}

/// What [`plain`] lets through, in words.
fn plain_text(bytes: &RangeInclusive<usize>) -> String {
    format!(
        "a text of {} to {} bytes without control characters",
        bytes.start(),
        bytes.end()
    )
}

fn plain(text: &str, bytes: &RangeInclusive<usize>) -> Option<String> {
    let stands = bytes.contains(&text.len()) && !text.chars().any(char::is_control);
    stands.then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
