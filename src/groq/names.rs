//! Names of fields. Groq's reader may ignore case, so a name that could be taken for another one is refused.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor},
};

use super::json::SKIP;

/// The prefix of the error for a misspelt name; the correct name follows.
const MISSPELT: &str = "to be written in lower case: ";

/// A name as case-insensitive readers see it, including letters that only some of them fold (`ſ`, the Kelvin sign).
pub(super) fn folded(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.to_uppercase().to_lowercase())
}

/// An error if a case-insensitive reader could take `name` for one of `known`.
pub(super) fn check<E: Error>(name: &str, known: &[&'static str]) -> Result<(), E> {
    let folded = folded(name);
    match known.iter().find(|known| ***known == *folded && *folded != *name) {
        Some(known) => Err(E::custom(format_args!("{MISSPELT}{known}"))),
        None => Ok(()),
    }
}

/// The correct name, if the error is about a misspelt one.
pub(super) fn misspelt(error: &serde_json::Error) -> Option<String> {
    error.to_string().strip_prefix(MISSPELT)?.split(' ').next().map(str::to_owned)
}

/// Reads the values of the fields with these names from an object, each at most once.
pub(super) fn known<'de, const N: usize, V, D>(
    names: [&'static str; N],
    deserializer: D,
) -> Result<[V; N], D::Error>
where
    V: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(Known { names, values: PhantomData })
}

struct Known<const N: usize, V> {
    names: [&'static str; N],
    values: PhantomData<V>,
}

impl<'de, const N: usize, V: Deserialize<'de> + Default> Visitor<'de> for Known<N, V> {
    type Value = [V; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<[V; N], A::Error> {
        let mut values = std::array::from_fn::<Option<V>, N, _>(|_| None);
        while let Some(field) = entries.next_key::<Cow<'_, str>>()? {
            check(&field, &self.names)?;
            match self.names.iter().zip(&mut values).find(|(name, _)| **name == field.as_ref()) {
                Some((_, Some(_))) => return Err(A::Error::custom("a field is given twice")),
                Some((_, value)) => *value = Some(entries.next_value()?),
                None => {
                    entries.next_value_seed(SKIP)?;
                }
            }
        }
        Ok(values.map(Option::unwrap_or_default))
    }
}

/// Finds which of these names it is, without storing it.
pub(super) struct Which<'n>(pub(super) &'n [&'static str]);

impl<'de> DeserializeSeed<'de> for Which<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Which<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}
