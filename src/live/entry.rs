//! The form of the registry's entries: a JSON object with the version of the form, `v`, and `critical`.
//!
//! Releases that share a store read each other's entries. One of an unknown kind is kept and passed over, unless it is critical: it
//! can refuse requests, so a process that does not know it must not decide. The names of these two members say so whatever the
//! rest is.

use std::marker::PhantomData;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        DeserializeSeed, Error as _, IntoDeserializer as _, MapAccess, Visitor, value::MapAccessDeserializer,
    },
};

/// The version that is written, and the only one that is read.
const VERSION: u64 = 1;

/// The bytes of an entry that can refuse requests.
///
/// # Errors
/// The record has a form that JSON has not.
pub(crate) fn to_bytes<T: Serialize>(record: &T) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Entry<'a, T> {
        v: u64,
        critical: bool,
        #[serde(flatten)]
        record: &'a T,
    }
    serde_json::to_vec(&Entry { v: VERSION, critical: true, record })
}

/// The record in an entry. Entries from before versions have none and are of the first.
///
/// # Errors
/// It is no such record, or of a later version.
pub(super) fn from_bytes<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes).map(|Entry(record)| record)
}

/// Whether an entry of an unknown kind says that it can refuse requests.
pub(super) fn is_critical(bytes: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    struct Mark {
        #[serde(default)]
        critical: bool,
    }
    // What is no object says nothing.
    serde_json::from_slice::<Mark>(bytes).unwrap_or_default().critical
}

/// A record behind the members of every entry. `flatten` would not let the record refuse members that it does not know.
struct Entry<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor(PhantomData))
    }
}

struct EntryVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for EntryVisitor<T> {
    type Value = Entry<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an entry of the registry")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(RecordMembers(map))).map(Entry)
    }
}

/// The members of the record alone.
struct RecordMembers<A>(A);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for RecordMembers<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.0.next_key::<String>()? {
            match key.as_str() {
                "v" => match self.0.next_value::<u64>()? {
                    VERSION => {}
                    later => return Err(A::Error::custom(format_args!("version {later} is not known"))),
                },
                // Known entries refuse requests without being told.
                "critical" => {
                    let _: bool = self.0.next_value()?;
                }
                _ => return seed.deserialize(key.into_deserializer()).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Record {
        name: String,
        #[serde(default)]
        count: u64,
    }

    #[test]
    fn an_entry_is_read_as_it_is_written_and_without_a_version_as_the_first() {
        let record = Record { name: "n".to_owned(), count: 2 };
        let bytes = to_bytes(&record).unwrap();
        assert_eq!(bytes, br#"{"v":1,"critical":true,"name":"n","count":2}"#);
        assert_eq!(from_bytes::<Record>(&bytes).unwrap(), record);
        assert_eq!(from_bytes::<Record>(br#"{"name":"n","count":2}"#).unwrap(), record);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            r#"{"v":2,"name":"n"}"#,
            r#"{"name":"n","until":3}"#,
            r#"{"v":1}"#,
            r#"{"v":"1","name":"n"}"#,
            "[]",
            "{",
            "",
        ] {
            assert!(from_bytes::<Record>(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_word_makes_an_entry_critical() {
        for (text, is) in [
            (r#"{"v":7,"critical":true,"limit":[1]}"#, true),
            (r#"{"critical":false}"#, false),
            (r#"{"critical":1}"#, false),
            (r#"{"v":1}"#, false),
            ("true", false),
            ("\u{0}\u{1}", false),
            ("", false),
        ] {
            assert_eq!(is_critical(text.as_bytes()), is, "{text}");
        }
    }
}
