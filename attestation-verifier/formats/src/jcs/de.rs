//! A serde reader of JSON that was checked: canonical, at most 16 levels deep.
//!
//! Why not serde_json: derived types accept an array wherever they accept an object, so that two
//! texts would give one value; its errors know lines, not offsets; and text borrowed from the
//! input is not copied here.

use super::check::{plain, unescape};
use crate::{FormatError, Result};
use serde::Deserialize;
use serde::de::value::{BorrowedStrDeserializer, CowStrDeserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use std::borrow::Cow;
use std::fmt;

/// A value kept as it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Raw<'a>(pub &'a str);

const RAW: &str = "$touchstone::Raw";

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> std::result::Result<Raw<'de>, E> {
                Ok(Raw(text))
            }
        }

        from.deserialize_newtype_struct(RAW, Text)
    }
}

/// Reads a value from JSON that [`super::check_with_view`] accepted.
pub(crate) fn from_checked<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T> {
    let mut reader = Reader { json, at: 0 };
    T::deserialize(&mut reader).map_err(|error| FormatError::Json {
        offset: error.offset.unwrap_or(0),
        message: error.message,
    })
}

struct Reader<'de> {
    json: &'de str,
    at: usize,
}

/// What a type refused, and where.
#[derive(Debug)]
struct Refused {
    offset: Option<usize>,
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        // serde quotes names and values of the input: bound what a message can hold, and let nothing of it
        // be acted upon where it is printed.
        let bounded: String = message.to_string().chars().take(400).collect();
        Self {
            offset: None,
            message: crate::text::printable(&bounded),
        }
    }
}

type Read<T> = std::result::Result<T, Refused>;

impl<'de> Reader<'de> {
    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn refuse<T>(&self, message: &str) -> Read<T> {
        Err(Refused {
            offset: Some(self.at),
            message: message.into(),
        })
    }

    /// Runs one reading; an error without an offset gets that of the value it is about.
    fn located<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        let start = self.at;
        read(self).map_err(|mut error| {
            error.offset.get_or_insert(start);
            error
        })
    }

    fn take(&mut self, byte: u8) -> Read<()> {
        if self.peek() != Some(byte) {
            return self.refuse(&format!("expected {:?}", char::from(byte)));
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Read<Cow<'de, str>> {
        self.take(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = self.json.as_bytes().get(self.at..).unwrap_or_default();
            self.at += plain(rest);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(_) => self.at += 1,
                None => return self.refuse("expected the end of the string"),
            }
        }
        let inside = self.json.get(start..self.at).unwrap_or("");
        self.at += 1;
        Ok(if escaped {
            Cow::Owned(unescape(inside))
        } else {
            Cow::Borrowed(inside)
        })
    }

    /// Passes over one value and gives it as written.
    fn skip(&mut self) -> Read<&'de str> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                Some(b'}' | b']') => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                }
                Some(b',' | b':') => {
                    self.at += 1;
                    continue;
                }
                Some(_) => self.scalar(),
                None => return self.refuse("expected a value"),
            }
            if depth == 0 {
                return Ok(self.json.get(start..self.at).unwrap_or(""));
            }
        }
    }

    /// Passes over a number or literal.
    fn scalar(&mut self) {
        while let Some(byte) = self.peek() {
            if matches!(byte, b',' | b']' | b'}' | b':') {
                break;
            }
            self.at += 1;
        }
    }

    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Read<V::Value> {
        let start = self.at;
        self.scalar();
        let text = self.json.get(start..self.at).unwrap_or("");
        if let Ok(number) = text.parse::<u64>() {
            visitor.visit_u64(number)
        } else if let Ok(number) = text.parse::<i64>() {
            visitor.visit_i64(number)
        } else {
            self.refuse("expected an integer")
        }
    }

    fn literal(&mut self, literal: &str) -> Read<()> {
        let start = self.at;
        self.scalar();
        if self.json.get(start..self.at) == Some(literal) {
            return Ok(());
        }
        self.refuse("expected null, true or false")
    }

    fn array<V: Visitor<'de>>(&mut self, visitor: V) -> Read<V::Value> {
        self.take(b'[')?;
        let value = visitor.visit_seq(Items {
            reader: self,
            first: true,
        })?;
        if self.peek() != Some(b']') {
            return self.refuse("found more values than the type has");
        }
        self.at += 1;
        Ok(value)
    }

    fn object<V: Visitor<'de>>(&mut self, visitor: V) -> Read<V::Value> {
        self.take(b'{')?;
        let value = visitor.visit_map(Items {
            reader: self,
            first: true,
        })?;
        self.take(b'}')?;
        Ok(value)
    }

    fn any<V: Visitor<'de>>(&mut self, visitor: V) -> Read<V::Value> {
        match self.peek() {
            Some(b'{') => self.object(visitor),
            Some(b'[') => self.array(visitor),
            Some(b'"') => match self.string()? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            Some(b'n') => {
                self.literal("null")?;
                visitor.visit_unit()
            }
            Some(b't') => {
                self.literal("true")?;
                visitor.visit_bool(true)
            }
            Some(b'f') => {
                self.literal("false")?;
                visitor.visit_bool(false)
            }
            _ => self.number(visitor),
        }
    }
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.located(|reader| reader.any(visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.located(|reader| {
            if reader.peek() == Some(b'n') {
                reader.literal("null")?;
                return visitor.visit_none();
            }
            visitor.visit_some(reader)
        })
    }

    /// An object, and nothing else.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        self.located(|reader| {
            if reader.peek() != Some(b'{') {
                return reader.refuse("expected an object");
            }
            reader.object(visitor)
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Read<V::Value> {
        self.located(|reader| {
            if name == RAW {
                let value = reader.skip()?;
                return visitor.visit_borrowed_str(value);
            }
            visitor.visit_newtype_struct(reader)
        })
    }

    /// The names of variants alone; variants with content are not used by our formats.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        self.located(|reader| match reader.string()? {
            Cow::Borrowed(name) => visitor.visit_enum(BorrowedStrDeserializer::new(name)),
            owned => {
                let name: CowStrDeserializer<'_, Refused> = owned.into_deserializer();
                visitor.visit_enum(name)
            }
        })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.located(|reader| {
            reader.skip()?;
            visitor.visit_unit()
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier
    }
}

/// The items of an array or the members of an object.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    first: bool,
}

impl Items<'_, '_> {
    /// Whether another item follows; stands before it then.
    fn more(&mut self, end: u8) -> Read<bool> {
        if self.reader.peek() == Some(end) {
            return Ok(false);
        }
        if !self.first {
            self.reader.take(b',')?;
        }
        self.first = false;
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Read<Option<T::Value>> {
        if !self.more(b']')? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        if !self.more(b'}')? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Read<V::Value> {
        self.reader.take(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}
