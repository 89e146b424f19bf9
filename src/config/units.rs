//! Durations, sizes and shares as people write them in settings: `"250ms"`, `"1h30m"`, `"64KiB"`, `"1%"`.

use std::{fmt, time::Duration};

use serde::{Deserialize as _, Deserializer, de};

/// The units of time, the longest first, in milliseconds.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// The units of size in bytes.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A duration: whole numbers, each with its unit (`d`, `h`, `m`, `s`, `ms`), the longest first and each unit at most once.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut units, mut total) = (text, TIMES.as_slice(), 0_u64);
    while !rest.is_empty() {
        let (number, unit, after) = next_part(rest)?;
        let position = units.iter().position(|(name, _)| *name == unit)?;
        let (_, ms) = units.get(position)?;
        total = total.checked_add(number.checked_mul(*ms)?)?;
        units = units.get(position + 1..)?;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// A size: one whole number with its unit (`B`, `KiB`, `MiB`, `GiB`).
fn parse_size(text: &str) -> Option<u64> {
    let (number, unit, rest) = next_part(text)?;
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*bytes).filter(|_| rest.is_empty())
}

/// The number and the unit at the beginning of `text`, and the rest.
fn next_part(text: &str) -> Option<(u64, &str, &str)> {
    let (number, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    Some((number.parse().ok()?, unit, rest))
}

/// [`Duration`] from its text.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer
        .deserialize_any(Text(parse_duration, "a length of time in quotes such as \"30s\" or \"1h30m\""))
}

/// A number of bytes from its text.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(Text(parse_size, "a size in quotes such as \"64KiB\" or \"1MiB\""))
}

/// A share in parts per million, with up to four decimal places of a percent.
pub(super) fn share_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let share = || {
        let (whole, part) = text.strip_suffix('%')?.split_once('.').unwrap_or((text.strip_suffix('%')?, "0"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok());
        let whole: u32 = digits(whole)??;
        let part: u32 = if part.len() <= 4 { digits(&format!("{part:0<4}"))?? } else { return None };
        let share = whole.checked_mul(10_000)?.checked_add(part)?;
        (share <= 1_000_000).then_some(share)
    };
    match text.as_str() {
        "" | "off" => Ok(None),
        "denials" => Ok(Some(0)),
        _ => share().map(Some).ok_or_else(|| {
            de::Error::custom(format!(
                "`{text}` is not `off`, `denials`, or a share from 0% to 100% such as `1%`"
            ))
        }),
    }
}

/// A value that is read from text, and an example of its format.
struct Text<T>(fn(&str) -> Option<T>, &'static str);

impl<T> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::custom(format!("`{text}` is not {}", self.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_as_people_write_them() {
        for (text, ms) in [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("1h30m", Some(5_400_000)),
            ("1d12h", Some(129_600_000)),
            ("0s", Some(0)),
            ("1m5ms", Some(60_005)),
            ("", None),
            ("30", None),
            ("s", None),
            ("30 s", None),
            ("-1s", None),
            ("1.5s", None),
            ("30m1h", None),
            ("1s1s", None),
            ("99999999999999999999s", None),
            ("999999999999999999d", None),
        ] {
            assert_eq!(parse_duration(text), ms.map(Duration::from_millis), "{text}");
        }
        for (text, bytes) in [
            ("0B", Some(0)),
            ("64KiB", Some(65_536)),
            ("1MiB", Some(1 << 20)),
            ("2GiB", Some(2 << 30)),
            ("1MB", None),
            ("1048576", None),
            ("1MiB1B", None),
            ("MiB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
