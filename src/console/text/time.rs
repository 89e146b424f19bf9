//! Times in the organization's zone, with UTC on hover and the instant for programs.

use jiff::{SignedDuration, Unit, Zoned, civil::Date};
use maud::{Markup, html};

use super::NO_BREAK;

/// An instant from the wire, in the zone of `now`; `None` if no calendar has it.
pub(in super::super) fn zoned(timestamp: &prost_types::Timestamp, now: &Zoned) -> Option<Zoned> {
    let instant = jiff::Timestamp::new(timestamp.seconds, timestamp.nanos).ok()?;
    Some(instant.to_zoned(now.time_zone().clone()))
}

/// To the minute: today `14:32`, else `Mon 16 Nov, 09:04`, with the year where it is another one.
pub(in super::super) fn minute(at: &Zoned, now: &Zoned) -> Markup {
    element(at, &on_its_day(at, now, "%H:%M"))
}

/// The same to the second.
pub(in super::super) fn second(at: &Zoned, now: &Zoned) -> Markup {
    element(at, &on_its_day(at, now, "%H:%M:%S"))
}

/// The same to the millisecond, for streams.
pub(in super::super) fn millisecond(at: &Zoned, now: &Zoned) -> Markup {
    element(at, &on_its_day(at, now, "%H:%M:%S%.3f"))
}

/// The same to the minute, of an instant from the wire; a dash if it is not set.
pub(in super::super) fn minute_of(timestamp: Option<&prost_types::Timestamp>, now: &Zoned) -> Markup {
    match timestamp.and_then(|timestamp| zoned(timestamp, now)) {
        Some(at) => minute(&at, now),
        None => html! { "–" },
    }
}

/// The same to the minute, as a text.
pub(in super::super) fn minute_text(at: &Zoned, now: &Zoned) -> String {
    on_its_day(at, now, "%H:%M")
}

fn on_its_day(at: &Zoned, now: &Zoned, clock: &str) -> String {
    let clock = at.strftime(clock).to_string();
    match at.date() == now.date() {
        true => clock,
        false => format!("{}, {clock}", day(at.date(), now.date())),
    }
}

fn element(at: &Zoned, text: &str) -> Markup {
    let instant = at.timestamp();
    html! {
        time datetime=(instant.round(Unit::Millisecond).unwrap_or(instant))
            title=(format!("{} UTC", instant.strftime("%Y-%m-%d %H:%M:%S"))) { (text) }
    }
}

/// A day: `Tue 24 Nov`, with the year where it is not that of `today`.
pub(in super::super) fn day(date: Date, today: Date) -> String {
    let text = date.strftime("%a %-d %b").to_string();
    match date.year() == today.year() {
        true => text,
        false => format!("{text} {}", date.year()),
    }
}

/// The end of a period, for a forecast: `30 Nov`.
pub(in super::super) fn short_day(date: Date) -> String {
    format!("{}{NO_BREAK}{}", date.day(), date.strftime("%b"))
}

/// A month: `November 2026`.
pub(in super::super) fn month(date: Date) -> String {
    date.strftime("%B %Y").to_string()
}

/// A length of time in its two largest units: `41 s`, `10 min 6 s`, `18 h 40 min`, `3 d 2 h`; below a second in milliseconds.
pub(in super::super) fn span(length: SignedDuration) -> String {
    let (seconds, ms) = (length.as_secs().max(0), length.subsec_millis().max(0));
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let parts = match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, 0) => return format!("{ms}{NO_BREAK}ms"),
        (0, 0, 0, seconds) => [(seconds, "s"), (0, "")],
        (0, 0, minutes, seconds) => [(minutes, "min"), (seconds, "s")],
        (0, hours, minutes, _) => [(hours, "h"), (minutes, "min")],
        (days, hours, ..) => [(days, "d"), (hours, "h")],
    };
    let parts = parts.into_iter().filter(|(number, _)| *number > 0);
    parts.map(|(number, unit)| format!("{number}{NO_BREAK}{unit}")).collect::<Vec<_>>().join(" ")
}

/// How long ago, and when: `2 min 5 s ago`.
pub(in super::super) fn ago(at: &Zoned, now: &Zoned) -> String {
    let length = now.timestamp().duration_since(at.timestamp());
    match length.as_secs() {
        ..1 => "now".to_owned(),
        _ => format!("{} ago", span(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        text.parse().unwrap()
    }

    #[test]
    fn times_are_of_the_zone_and_say_their_day_unless_it_is_today() {
        let now = at("2026-11-18T14:32:14.5+01:00[Europe/Berlin]");
        assert_eq!(
            minute(&now, &now).into_string(),
            "<time datetime=\"2026-11-18T13:32:14.5Z\" title=\"2026-11-18 13:32:14 UTC\">14:32</time>"
        );
        for (other, text) in [
            ("2026-11-16T09:04:00+01:00[Europe/Berlin]", ">Mon 16 Nov, 09:04<"),
            ("2025-12-31T23:59:00+01:00[Europe/Berlin]", ">Wed 31 Dec 2025, 23:59<"),
        ] {
            assert!(minute(&at(other), &now).into_string().contains(text), "{text}");
        }
        assert!(millisecond(&now, &now).into_string().contains(">14:32:14.500<"));
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, text) in [
            (41, "41\u{a0}s"),
            (606, "10\u{a0}min 6\u{a0}s"),
            (600, "10\u{a0}min"),
            (67_200, "18\u{a0}h 40\u{a0}min"),
            (266_400, "3\u{a0}d 2\u{a0}h"),
            (-5, "0\u{a0}ms"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text);
        }
        assert_eq!(span(SignedDuration::from_millis(250)), "250\u{a0}ms");
    }
}
