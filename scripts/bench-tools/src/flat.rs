//! The `data` of a JSON tensor: numbers, flat or in nested arrays, read in one pass.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, SeqAccess, Visitor};

/// Row-major numbers. 64-bit integers beyond 2^53 would be rounded: the benchmarks send none.
#[derive(Debug, Default, PartialEq)]
pub struct Flat(pub Vec<f64>);

struct Into_<'a>(&'a mut Vec<f64>);

impl<'de> DeserializeSeed<'de> for Into_<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Into_<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers in arrays")
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.push(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.push(value as f64);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.push(value as f64);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element_seed(Into_(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut flat = Flat::default();
        Into_(&mut flat.0).deserialize(deserializer)?;
        Ok(flat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_and_flat_are_equal() {
        let flat: Flat = serde_json::from_str("[1,-2,0.5,4]").unwrap();
        let nested: Flat = serde_json::from_str("[[1,-2],[0.5,4]]").unwrap();
        assert_eq!(flat, nested);
        assert!(serde_json::from_str::<Flat>("[\"1\"]").is_err());
    }
}
