//! Walks JSON without storing it.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::names::{Which, folded};

/// Walks any value and sums up what two functions return for each string in it, given the name of the string's field
/// (empty: none). Unlike `serde`'s own way to ignore a value, it descends, so the parser's bound on nesting applies.
#[derive(Clone, Copy)]
struct Walk<'n> {
    of: [Measure; 2],
    field: &'n str,
}

type Measure = fn(field: &str, text: &str) -> u64;

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = (u64, u64);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(u64, u64), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = (u64, u64);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(u64, u64), E> {
        Ok((0, 0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<(u64, u64), E> {
        Ok((0, 0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<(u64, u64), E> {
        Ok((0, 0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<(u64, u64), E> {
        Ok((0, 0))
    }

    fn visit_unit<E>(self) -> Result<(u64, u64), E> {
        Ok((0, 0))
    }

    fn visit_str<E>(self, text: &str) -> Result<(u64, u64), E> {
        let [first, second] = self.of.map(|measure| measure(self.field, text));
        Ok((first, second))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(u64, u64), A::Error> {
        let mut sum = (0, 0);
        while let Some(part) = items.next_element_seed(self)? {
            sum = add(sum, part);
        }
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(u64, u64), A::Error> {
        let mut sum = (0, 0);
        while let Some(field) = entries.next_key::<Cow<'_, str>>()? {
            sum = add(sum, entries.next_value_seed(Walk { field: &field, ..self })?);
        }
        Ok(sum)
    }
}

const fn add(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0.saturating_add(b.0), a.1.saturating_add(b.1))
}

/// Sums up what a function returns for each string in a value.
#[derive(Clone, Copy)]
pub(super) struct Sum(Measure);

impl Sum {
    /// This sum and another one, in one walk.
    pub(super) const fn and(self, other: Self) -> Sums<'static> {
        Sums { of: [self.0, other.0], field: "" }
    }
}

impl<'de> DeserializeSeed<'de> for Sum {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        self.and(SKIP).deserialize(deserializer).map(|(sum, _)| sum)
    }
}

/// Two sums in one walk, over a value in a field.
#[derive(Clone, Copy)]
pub(super) struct Sums<'n> {
    of: [Measure; 2],
    field: &'n str,
}

impl Sums<'static> {
    /// Over a value in `field`.
    pub(super) const fn in_field(self, field: &str) -> Sums<'_> {
        Sums { of: self.of, field }
    }
}

impl<'de> DeserializeSeed<'de> for Sums<'_> {
    type Value = (u64, u64);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(u64, u64), D::Error> {
        Walk { of: self.of, field: self.field }.deserialize(deserializer)
    }
}

/// Any value, walked and discarded.
pub(super) const SKIP: Sum = Sum(|_, _| 0);
/// The characters of the text in a value.
pub(super) const CHARACTERS: Sum = Sum(|_, text| u64::try_from(text.chars().count()).unwrap_or(u64::MAX));
/// The bytes of the text in a value.
const BYTES: Sum = Sum(|_, text| u64::try_from(text.len()).unwrap_or(u64::MAX));
/// The addresses in a content part: those of images and files that are not inline data.
pub(super) const LINKS: Sum = Sum(|field, text| {
    let names_a_place =
        matches!(&*folded(field), "url" | "image_url" | "video_url" | "audio_url" | "file_url" | "file_id");
    let is_data = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    u64::from(names_a_place && !is_data)
});

/// The body with a replacement for each lone half of a surrogate pair (`\ud800`). JSON permits these and Groq accepts them,
/// but the parser, whose strings are UTF-8, does not. The length stays the same, so positions in the copy are valid in the
/// body.
pub(super) fn without_lone_surrogates(body: &[u8]) -> Cow<'_, [u8]> {
    let mut copy = Cow::Borrowed(body);
    let mut at = 0;
    while let Some(found) = body.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += found;
        at += match escaped(body, at) {
            Some(0xD800..=0xDBFF) if matches!(escaped(body, at + 6), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => {
                if let Some(half) = copy.to_mut().get_mut(at..at + 6) {
                    half.copy_from_slice(b"\\ufffd");
                }
                6
            }
            // Whatever is escaped here, it is not a backslash that escapes the next character.
            _ => 2,
        };
    }
    copy
}

/// The body with zeros for the digits of every exponent. JSON permits numbers of any size, but the parser does not; no such
/// number is of use here.
pub(super) fn without_exponents(body: &[u8]) -> Vec<u8> {
    let mut copy = body.to_vec();
    let (mut in_string, mut escaped, mut in_exponent) = (false, false, false);
    for byte in &mut copy {
        if in_string {
            (in_string, escaped) = (escaped || *byte != b'"', !escaped && *byte == b'\\');
            continue;
        }
        match *byte {
            b'"' => in_string = true,
            b'e' | b'E' => in_exponent = true,
            b'0'..=b'9' if in_exponent => *byte = b'0',
            b'+' | b'-' => {}
            _ => in_exponent = false,
        }
    }
    copy
}

/// The code unit of the escape `\uXXXX` at `at`.
fn escaped(body: &[u8], at: usize) -> Option<u16> {
    let digits = body.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

/// A raw value; `None`: absent, or `null`.
pub(super) type Raw<'a> = Option<&'a RawValue>;

/// The values of the fields with these names in a JSON object; `None` if `json` is not an object. If a name occurs several
/// times, the last value that is not `null` counts.
pub(super) fn raw_fields<'a, const N: usize>(
    json: &'a str,
    names: [&'static str; N],
) -> Option<[Raw<'a>; N]> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let values = deserializer.deserialize_map(RawFields { names }).ok()?;
    deserializer.end().ok().map(|()| values)
}

struct RawFields<const N: usize> {
    names: [&'static str; N],
}

impl<'de, const N: usize> Visitor<'de> for RawFields<N> {
    type Value = [Raw<'de>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        while let Some(place) = entries.next_key_seed(Which(&self.names))? {
            match place.and_then(|place| values.get_mut(place)) {
                Some(value) => *value = entries.next_value::<Raw<'de>>()?.or(*value),
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

/// An answer as text that the parser accepts, whatever its strings contain: without a byte order mark at the beginning, and
/// with replacements for invalid characters.
pub(super) fn readable(answer: &[u8]) -> Cow<'_, str> {
    match without_lone_surrogates(answer.strip_prefix(BYTE_ORDER_MARK).unwrap_or(answer)) {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// The mark that some writers put before a text.
pub(super) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The bytes of the text in a value: a string, or all strings in a list or an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TextBytes(pub(super) u64);

impl<'de> Deserialize<'de> for TextBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BYTES.deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exponents_are_replaced() {
        for (body, expected) in [
            (r#"{"e":1e999,"a":-2.5E+40}"#, r#"{"e":1e000,"a":-2.5E+00}"#),
            (r#"["1e999\"2e9",true,12,{"e9":3}]"#, r#"["1e999\"2e9",true,12,{"e9":3}]"#),
            (r#"["\\",1e5]"#, r#"["\\",1e0]"#),
        ] {
            assert_eq!(without_exponents(body.as_bytes()), expected.as_bytes(), "{body}");
        }
    }

    #[test]
    fn only_halves_that_stand_alone_are_replaced() {
        for (body, expected) in [
            (r#""a""#, r#""a""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\uDE00\uD83D""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ud83dx\ude00""#, r#""\ufffdx\ufffd""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83d""#, r#""\\\ufffd""#),
            (r#""\ud83"#, r#""\ud83"#),
            (r#""\u+d8f""#, r#""\u+d8f""#),
            ("\\", "\\"),
        ] {
            assert_eq!(without_lone_surrogates(body.as_bytes()), expected.as_bytes(), "{body}");
        }
    }
}
