//! Walks JSON without keeping it.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};

/// Walks any value and adds up what a function says of each string in it; names of fields are not values. Unlike
/// `serde`'s own way to ignore a value, it descends, so that the parser's bound on nesting holds.
#[derive(Clone, Copy)]
pub(super) struct Sum(pub(super) fn(&str) -> u64);

impl<'de> DeserializeSeed<'de> for Sum {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sum {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_i64<E>(self, _: i64) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_u64<E>(self, _: u64) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_f64<E>(self, _: f64) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_str<E>(self, text: &str) -> Result<u64, E> {
        Ok((self.0)(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
        let mut sum = 0_u64;
        while let Some(part) = items.next_element_seed(self)? {
            sum = sum.saturating_add(part);
        }
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<u64, A::Error> {
        let mut sum = 0_u64;
        while entries.next_key_seed(Sum(nothing))?.is_some() {
            sum = sum.saturating_add(entries.next_value_seed(self)?);
        }
        Ok(sum)
    }
}

const fn nothing(_: &str) -> u64 {
    0
}

/// Any value, walked and forgotten.
pub(super) const SKIP: Sum = Sum(nothing);
/// The characters of the text in a value.
pub(super) const CHARACTERS: Sum = Sum(|text| u64::try_from(text.chars().count()).unwrap_or(u64::MAX));

/// The bytes of the text in a value: of a string, or of all strings in a list or an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TextBytes(pub(super) u64);

impl<'de> Deserialize<'de> for TextBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Sum(|text| u64::try_from(text.len()).unwrap_or(u64::MAX)).deserialize(deserializer).map(Self)
    }
}
