//! Amounts, times and names as people read and write them.

use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};

use crate::{
    domain::text::disturbs,
    rpc::{google_type::Money, proto},
};
pub(super) use crate::{
    domain::text::{dollars, group},
    report_text::{instant, nanos},
};

const NANOS: i128 = 1_000_000_000;

/// [`dollars`] of an amount that may be unset.
pub(super) fn money(money: Option<&Money>) -> String {
    money.map_or_else(|| "-".to_owned(), |set| dollars(nanos(Some(set))))
}

/// What fits into a cell of a table.
const CELL: usize = 72;

/// A text written by others: nothing in it moves the cursor, breaks the line or turns the direction of reading.
pub(super) fn plain(text: &str) -> String {
    text.trim().chars().filter(|c| !disturbs(*c)).collect()
}

/// The same, cut to fit into a cell.
pub(super) fn shown(text: &str) -> String {
    let cell = plain(text);
    match cell.char_indices().nth(CELL) {
        None => cell,
        Some(_) => cell.chars().take(CELL - 1).chain(['…']).collect(),
    }
}

/// How an actor was recognised, and its name.
pub(super) fn actor(actor: &proto::Actor) -> String {
    let kind = actor.kind().as_str_name().trim_start_matches("ACTOR_KIND_").to_ascii_lowercase();
    shown(&format!("{kind} {}", actor.name))
}

/// A number of what a limit counts, with its unit if that is not obvious.
pub(super) fn amount(quantity: proto::Quantity, value: i64) -> String {
    let sign = if value < 0 { "-" } else { "" };
    match quantity {
        proto::Quantity::NanoUsd => dollars(value.into()),
        proto::Quantity::AudioMilliseconds => {
            let ms = value.unsigned_abs();
            format!("{sign}{}.{:03}s", group((ms / 1000).into()), ms % 1000)
        }
        _ => format!("{sign}{}", group(value.unsigned_abs().into())),
    }
}

/// A length of time from the wire, in words such as `1m 5s`.
pub(super) fn delay(duration: &prost_types::Duration) -> String {
    let words = format!("{:#}", SignedDuration::new(duration.seconds, duration.nanos));
    if words.is_empty() { "0s".to_owned() } else { words }
}

/// [`delay`], rounded up to the second.
pub(super) fn whole_seconds(duration: &prost_types::Duration) -> String {
    let seconds = duration.seconds.saturating_add(i64::from(duration.nanos > 0));
    delay(&prost_types::Duration { seconds, nanos: 0 })
}

/// An instant from the wire to the minute in a time zone, such as `2026-11-23 14:05`; in UTC if the zone is not known here.
pub(super) fn minute(timestamp: &prost_types::Timestamp, zone: &str) -> String {
    let at = Timestamp::new(timestamp.seconds, timestamp.nanos).ok();
    let local = at.and_then(|at| at.in_tz(zone).ok());
    local.map_or_else(|| instant(timestamp), |local| local.strftime("%Y-%m-%d %H:%M").to_string())
}

/// [`money`] to the cent, for amounts that are no more exact than that.
pub(super) fn cents(money: Option<&Money>) -> String {
    const CENT: i128 = NANOS / 100;
    money.map_or_else(|| "-".to_owned(), |set| dollars(nanos(Some(set)) / CENT * CENT))
}

/// The instant `delay` from now, rounded up to the second, as RFC 3339 in UTC.
pub(super) fn instant_after(delay: &prost_types::Duration) -> String {
    let second = i64::from(delay.nanos > 0) + delay.seconds + 1;
    let at = Timestamp::now().as_second().saturating_add(second);
    Timestamp::from_second(at).map_or_else(|_| "-".to_owned(), |instant| instant.to_string())
}

/// A length of time as people write it: `90s`, `1m30s`, `250ms`, `3d`, always with its unit.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.parse::<f64>().is_ok_and(f64::is_finite) {
        return Err(format!(
            "`{text}` has no unit; for seconds write {text}s (the units are ms, s, m, h and d)"
        ));
    }
    if let Some(duration) = crate::syntax::units::parse_duration(text) {
        return Ok(duration);
    }
    let parsed = text
        .parse::<SignedDuration>()
        .map_err(|_| format!("`{text}` is not a length of time, such as 90s, 1m30s or 3d"))?;
    Duration::try_from(parsed).map_err(|_| "a length of time cannot be negative".to_owned())
}

/// An instant: one as written, or as long ago as a length of time says.
pub(super) fn parse_when(text: &str) -> Result<prost_types::Timestamp, String> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(prost_types::Timestamp {
            seconds: instant.as_second(),
            nanos: instant.subsec_nanosecond(),
        });
    }
    let ago = parse_duration(text).map_err(|_| {
        format!("`{text}` is neither an instant such as 2026-11-24T10:00:00Z nor a length of time")
    })?;
    Ok(SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH).into())
}

/// A length of time for the wire.
pub(super) fn to_wire(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_shown_in_their_zone() {
        let at = prost_types::Timestamp { seconds: 1_795_428_000, nanos: 999_000_000 };
        assert_eq!(minute(&at, "UTC"), "2026-11-23 10:00");
        assert_eq!(minute(&at, "Asia/Kolkata"), "2026-11-23 15:30");
        assert_eq!(minute(&at, "Middle-earth/Bree"), "2026-11-23T10:00:00.999Z");
        let money = Money { units: 12, nanos: 349_999_999, ..Money::default() };
        assert_eq!([cents(Some(&money)), cents(None)], ["$12.34", "-"]);
    }

    #[test]
    fn durations_are_read() {
        for (text, ms) in
            [("90s", 90_000), ("1m30s", 90_000), ("250ms", 250), ("1.5s", 1500), ("3d", 259_200_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["90", "0", "1.5", "-3"] {
            assert!(
                parse_duration(text).is_err_and(|error| error.contains(&format!("write {text}s"))),
                "{text}"
            );
        }
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("soon").is_err());
    }
}
