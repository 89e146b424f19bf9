//! Days as exports write them.

use jiff::{Timestamp, civil, tz::TimeZone};

/// Seconds since 1970 have ten digits until 2286, milliseconds thirteen.
const SECONDS_DIGITS: usize = 10;
const MILLIS_DIGITS: usize = 13;

/// The day in UTC, as `20261123`: of `2026-11-23`, of a time on it with or without an offset, or of seconds or milliseconds since 1970.
/// `11/12/2026` is none: it may be either of two days.
pub(super) fn parse_day(text: &str) -> Option<u32> {
    if text.len() > 40 {
        return None;
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        let instant = match text.len() {
            SECONDS_DIGITS => Timestamp::from_second(number),
            MILLIS_DIGITS => Timestamp::from_millisecond(number),
            _ => return None,
        };
        return instant.ok().and_then(of);
    }
    // `2026-11-23 10:00:00 UTC` is how some tools write it.
    let text = text.strip_suffix(" UTC").unwrap_or(text);
    if let Ok(instant) = text.parse::<Timestamp>() {
        return of(instant);
    }
    let date = text.parse::<civil::DateTime>().map(civil::DateTime::date);
    date.or_else(|_| text.parse::<civil::Date>()).ok().and_then(number)
}

/// The day of an instant in UTC, as `20261123`.
#[must_use]
pub fn day_of(seconds: i64) -> Option<u32> {
    Timestamp::from_second(seconds).ok().and_then(of)
}

fn of(instant: Timestamp) -> Option<u32> {
    number(instant.to_zoned(TimeZone::UTC).date())
}

/// A day of the calendar that reports know.
fn number(date: civil::Date) -> Option<u32> {
    let year = u32::try_from(date.year()).ok().filter(|year| *year >= 1970)?;
    let (month, day) = (u32::try_from(date.month()).ok()?, u32::try_from(date.day()).ok()?);
    Some(year * 10_000 + month * 100 + day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_in_utc() {
        for text in [
            "2026-11-23",
            "1795392000",
            "1795478399",
            "1795392000000",
            "2026-11-23T00:00:00Z",
            "2026-11-23 23:59:59",
            "2026-11-23 10:00:00 UTC",
            "2026-11-24T05:29:59+05:30",
        ] {
            assert_eq!(parse_day(text), Some(20_261_123), "{text}");
        }
        for text in
            ["", "11/12/2026", "23.11.2026", "2026-11", "2026-11-31", "1789", "-1", "Total", "1969-12-31"]
        {
            assert_eq!(parse_day(text), None, "{text}");
        }
    }
}
