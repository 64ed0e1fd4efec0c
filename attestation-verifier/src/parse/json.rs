//! JSON that somebody else signed, as text.
//!
//! The signature is over the text, so it need not be canonical; but two readers must not see two things in it: a member that
//! stands twice is refused wherever it stands, also where nothing here reads it. Members that are not known are passed over: the
//! services add some.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess,
    Visitor,
};
use thiserror::Error as ThisError;
use touchstone_formats::limits::MAX_DEPTH;

/// Longest text. Intel's have less than 20 KiB.
const MOST_BYTES: usize = 256 << 10;
/// Most members of one object. Intel's have at most a dozen.
const MOST_MEMBERS: usize = 64;
/// Longest explanation of what is wrong: whoever made the text does not decide how long it gets.
const LONGEST: usize = 200;

/// Why a text is refused.
#[derive(Clone, Debug, ThisError, PartialEq, Eq)]
#[error("{0}")]
pub struct JsonError(String);

impl JsonError {
    pub(crate) fn new(reason: impl fmt::Display) -> JsonError {
        JsonError(reason.to_string().chars().take(LONGEST).collect())
    }
}

/// Reads a text of at most 256 KiB, nested at most 16 deep, no object with over 64 members and none of them twice.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, JsonError> {
    read_within(text, MOST_BYTES)
}

/// The same for texts of another length, in bytes.
pub(crate) fn read_within<T: DeserializeOwned>(text: &str, most: usize) -> Result<T, JsonError> {
    if text.len() > most {
        return Err(JsonError::new(format_args!("over {} KiB", most >> 10)));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    Walk { left: MAX_DEPTH }
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(JsonError::new)?;
    serde_json::from_str(text).map_err(JsonError::new)
}

/// Reads any value for its form alone.
#[derive(Clone, Copy)]
struct Walk {
    /// How much deeper it may be nested.
    left: usize,
}

impl Walk {
    fn deeper<E: Error>(self) -> Result<Walk, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Walk { left }),
            None => Err(E::custom("nested more than 16 deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut seen: Vec<Name<'de>> = Vec::new();
        while let Some(name) = members.next_key::<Name<'de>>()? {
            if seen.contains(&name) {
                return Err(A::Error::custom(format_args!(
                    "the member {:?} twice",
                    name.0
                )));
            }
            if seen.len() == MOST_MEMBERS {
                return Err(A::Error::custom("an object with over 64 members"));
            }
            seen.push(name);
            members.next_value_seed(inner)?;
        }
        Ok(())
    }
}

/// A member's name, copied only where it has escapes.
#[derive(PartialEq, Eq)]
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(name.into()))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(name.to_owned().into()))
            }
        }

        from.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn members_stand_once_wherever_they_stand() {
        for good in [
            "{}",
            r#" {"a":1,"b":{"a":[{"a":null},{"a":-1.5e3}]}} "#,
            r#"{"a":true,"A":"\u00e9"}"#,
        ] {
            read::<Value>(good).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":[1,{"y":{"a":1,"b":2,"a":3}}]}"#,
            r#"{"a":1}x"#,
            r#"{"a":1}{"#,
            r#"{"a":01}"#,
            r#"{"a":1,}"#,
            "{'a':1}",
            "",
            "\u{feff}{}",
        ] {
            assert!(read::<Value>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn depth_size_and_reasons_are_bounded() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(read::<Value>(&nested(MAX_DEPTH)).is_ok());
        assert!(read::<Value>(&nested(MAX_DEPTH + 1)).is_err());
        assert!(read::<Value>(&nested(100_000)).is_err());
        let long = format!("\"{}\"", "a".repeat(MOST_BYTES));
        assert!(read::<Value>(&long).is_err());
        let members = |n: usize| {
            let members: Vec<String> = (0..n).map(|i| format!("\"{i}\":{{}}")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(read::<Value>(&members(MOST_MEMBERS)).is_ok());
        assert!(read::<Value>(&members(MOST_MEMBERS + 1)).is_err());
        let name = "n".repeat(10_000);
        let twice = format!("{{\"{name}\":1,\"{name}\":1}}");
        assert!(read::<Value>(&twice).unwrap_err().to_string().len() <= LONGEST);
    }
}
