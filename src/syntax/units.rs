//! Durations and sizes as people write them: `"250ms"`, `"1h30m"`, `"64KiB"`.

use std::time::Duration;

/// The units of time, the longest first, in milliseconds.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// The units of size in bytes.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A duration: whole numbers, each with its unit (`d`, `h`, `m`, `s`, `ms`), the longest first and each unit at most once.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    parse_duration_ms(text).map(Duration::from_millis)
}

/// [`parse_duration`] in milliseconds.
pub(crate) fn parse_duration_ms(text: &str) -> Option<u64> {
    let (mut rest, mut units, mut total) = (text, TIMES.as_slice(), 0_u64);
    while !rest.is_empty() {
        let (number, unit, after) = next_part(rest)?;
        let position = units.iter().position(|(name, _)| *name == unit)?;
        let (_, ms) = units.get(position)?;
        total = total.checked_add(number.checked_mul(*ms)?)?;
        units = units.get(position + 1..)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// A size: one whole number with its unit (`B`, `KiB`, `MiB`, `GiB`).
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit, rest) = next_part(text)?;
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*bytes).filter(|_| rest.is_empty())
}

/// A duration as [`parse_duration`] reads it, to the millisecond.
pub(crate) fn duration_text(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (unit, ms) in TIMES {
        let ms = u128::from(ms);
        if rest >= ms {
            text.push_str(&format!("{}{unit}", rest / ms));
            rest %= ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A size as [`parse_size`] reads it, in the largest unit that it is a multiple of.
pub(crate) fn size_text(bytes: u64) -> String {
    let unit = SIZES.iter().find(|(_, size)| bytes != 0 && bytes.is_multiple_of(*size));
    unit.map_or_else(|| format!("{bytes}B"), |(unit, size)| format!("{}{unit}", bytes / size))
}

/// The number and the unit at the beginning of `text`, and the rest.
fn next_part(text: &str) -> Option<(u64, &str, &str)> {
    let (number, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    Some((number.parse().ok()?, unit, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_written_as_they_are_read() {
        for text in ["0s", "1ms", "250ms", "10s", "1m", "1m30s", "1h30m", "365d", "1d1h1m1s1ms"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
        for text in ["0B", "1B", "1000B", "64KiB", "1MiB", "1025KiB", "3GiB"] {
            assert_eq!(size_text(parse_size(text).unwrap()), text);
        }
    }

    #[test]
    fn times_and_sizes_are_read_as_people_write_them() {
        for (text, ms) in [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("1h30m", Some(5_400_000)),
            ("1d12h", Some(129_600_000)),
            ("0s", Some(0)),
            ("1m5ms", Some(60_005)),
            ("10m", Some(600_000)),
            ("7d", Some(604_800_000)),
            ("5m", Some(300_000)),
            ("1m30s250ms", Some(90_250)),
            ("2d", Some(172_800_000)),
            ("", None),
            ("30", None),
            ("10", None),
            ("5", None),
            ("s", None),
            ("m", None),
            ("30 s", None),
            ("5 m", None),
            ("-1s", None),
            ("-5m", None),
            ("1.5s", None),
            ("1.5h", None),
            ("30m1h", None),
            ("1s1m", None),
            ("30s1m", None),
            ("1s1s", None),
            ("1m1m", None),
            ("1m2m", None),
            ("5M", None),
            ("99999999999999999999d", None),
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
