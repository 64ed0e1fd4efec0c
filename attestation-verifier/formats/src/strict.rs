//! What serde's derive leaves open and the specification does not: a member that may be absent is
//! not the same as one that may be null, a version member has one value, and text has a bound.

use crate::error::bounded;
use crate::limits::MAX_TEXT;
use crate::{FormatError, Result};
use serde::{Deserialize, Deserializer};

/// For `#[serde(default, deserialize_with = "present")]`: the member may be absent, never null.
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// For `#[serde(deserialize_with = "nullable")]`: the member may be null, never absent.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> std::result::Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

/// Text of at most 256 bytes ("Conventions").
pub(crate) fn text(field: &'static str, text: &str) -> Result<()> {
    bounded(field, text.len(), MAX_TEXT)
}

/// A caller's nonce: 8 to 64 bytes (§4, claim 10).
pub(crate) fn nonce(nonce: &[u8]) -> Result<()> {
    use crate::limits::{MAX_NONCE, MIN_NONCE};
    if (MIN_NONCE..=MAX_NONCE).contains(&nonce.len()) {
        return Ok(());
    }
    Err(FormatError::value(
        "nonce",
        format_args!("{} bytes", nonce.len()),
        "8 to 64 bytes",
    ))
}

/// Makes a unit type that stands for one fixed string in JSON, for `v` members.
macro_rules! version {
    ($(#[$doc:meta])* $vis:vis $name:ident = $text:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        $vis struct $name;

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(
                &self,
                to: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                to.serialize_str($text)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(
                from: D,
            ) -> std::result::Result<Self, D::Error> {
                crate::text::deserialize_str(from, $text, |found| {
                    if found == $text {
                        return Ok($name);
                    }
                    Err(crate::FormatError::value("v", found, $text))
                })
            }
        }
    };
}
pub(crate) use version;

/// For lists: at most `N` items, refused before one more is kept.
pub(crate) fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const N: usize>(
    from: D,
) -> std::result::Result<Vec<T>, D::Error> {
    use serde::de::{Error, SeqAccess, Visitor};
    struct Items<T, const N: usize>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Items<T, N> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "an array of at most {N} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(
            self,
            mut items: A,
        ) -> std::result::Result<Vec<T>, A::Error> {
            let mut out = Vec::new();
            while let Some(item) = items.next_element()? {
                if out.len() == N {
                    return Err(A::Error::custom(format_args!(
                        "found more than {N} items, expected at most {N}"
                    )));
                }
                out.push(item);
            }
            Ok(out)
        }
    }

    from.deserialize_seq(Items::<T, N>(std::marker::PhantomData))
}
