//! Tests the calendar against known clock changes and against every time zone.

use jiff::civil::{DateTime, date};

use super::*;

fn calendar(zone: &str) -> Calendar {
    Calendar::new(parse_time_zone(zone).unwrap())
}

/// The instant of an RFC 3339 text.
fn at(text: &str) -> Timestamp {
    let instant: jiff::Timestamp = text.parse().unwrap();
    Timestamp(u64::try_from(instant.as_millisecond()).unwrap())
}

fn hours(period: CalendarPeriod) -> u64 {
    period.end.since(period.start) / 3_600_000
}

#[test]
fn tells_day_week_and_month() {
    let days = calendar("UTC").today(at("2026-11-23T11:39:55Z"));
    assert_eq!((days.day_number(), days.month_number()), (20_261_123, 202_611));
    let expected = [
        (Period::Day, 20_261_123, "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"),
        (Period::Week, 20_261_123, "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
        (Period::Month, 20_261_101, "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
    ];
    for (period, first_day, start, end) in expected {
        let expected = CalendarPeriod { period, first_day, start: at(start), end: at(end) };
        assert_eq!(days.of(period), expected);
    }
}

#[test]
fn a_day_holds_to_its_last_millisecond() {
    let calendar = calendar("Europe/Berlin");
    let days = calendar.today(at("2026-11-30T12:00:00Z"));
    let midnight = at("2026-11-30T23:00:00Z");
    assert!(days.covers(days.day.start) && days.covers(Timestamp(midnight.0 - 1)));
    assert!(!days.covers(midnight) && !days.covers(Timestamp(days.day.start.0 - 1)));
    assert_eq!(calendar.today(midnight).month_number(), 202_612);
}

#[test]
fn days_of_berlin_have_23_24_or_25_hours() {
    let calendar = calendar("Europe/Berlin");
    for (noon, length) in [
        ("2026-03-29T10:00:00Z", 23),
        ("2026-03-30T10:00:00Z", 24),
        ("2026-10-25T11:00:00Z", 25),
        ("2026-10-26T11:00:00Z", 24),
    ] {
        assert_eq!(hours(calendar.today(at(noon)).day), length, "{noon}");
    }
    assert_eq!(hours(calendar.today(at("2026-03-29T10:00:00Z")).week), 7 * 24 - 1);
    assert_eq!(hours(calendar.today(at("2026-03-29T10:00:00Z")).month), 31 * 24 - 1);
    assert_eq!(hours(calendar.today(at("2026-10-25T11:00:00Z")).month), 31 * 24 + 1);
}

#[test]
fn odd_offsets_move_midnight() {
    let nepal = calendar("Asia/Kathmandu");
    assert_eq!(nepal.today(at("2026-11-22T18:14:59Z")).day_number(), 20_261_122);
    let days = nepal.today(at("2026-11-22T18:15:00Z"));
    assert_eq!((days.day_number(), days.day.start), (20_261_123, at("2026-11-22T18:15:00Z")));
}

#[test]
fn a_day_that_was_left_out_does_not_exist() {
    // Samoa skipped 30 December 2011: 29 was followed by 31 at midnight.
    let samoa = calendar("Pacific/Apia");
    let last = samoa.today(at("2011-12-30T09:59:59.999Z"));
    assert_eq!((last.day_number(), hours(last.day)), (20_111_229, 24));
    let next = samoa.today(at("2011-12-30T10:00:00Z"));
    assert_eq!((next.day_number(), hours(next.day)), (20_111_231, 24));
    assert_eq!((hours(next.week), hours(next.month)), (6 * 24, 30 * 24));
}

#[test]
fn a_day_without_midnight_begins_when_clocks_resume() {
    // Brazil sprang forward at midnight of 4 November 2018; Lebanon does so each spring.
    for (zone, noon, first_day, start) in [
        ("America/Sao_Paulo", "2018-11-04T14:00:00Z", 20_181_104, "2018-11-04T03:00:00Z"),
        ("Asia/Beirut", "2026-03-29T09:00:00Z", 20_260_329, "2026-03-28T22:00:00Z"),
    ] {
        let day = calendar(zone).today(at(noon)).day;
        assert_eq!((day.first_day, day.start, hours(day)), (first_day, at(start), 23), "{zone}");
    }
}

#[test]
fn a_repeated_midnight_begins_one_day_only() {
    // Newfoundland fell back at 00:01 on 29 October 2006, to 23:01 of the day before.
    let calendar = calendar("America/St_Johns");
    let day = calendar.today(at("2006-10-29T12:00:00Z")).day;
    assert_eq!((day.first_day, day.start, hours(day)), (20_061_029, at("2006-10-29T02:30:00Z"), 25));
    for within in ["2006-10-29T02:30:00Z", "2006-10-29T02:45:00Z", "2006-10-29T03:30:00Z"] {
        assert_eq!(calendar.today(at(within)).day, day, "{within}");
    }
}

#[test]
fn leap_years_have_a_29th_of_february() {
    let calendar = calendar("UTC");
    let days = calendar.today(at("2028-02-29T12:00:00Z"));
    assert_eq!((days.day_number(), hours(days.month)), (20_280_229, 29 * 24));
    assert_eq!(hours(calendar.month_periods(202_702).unwrap()), 28 * 24);
    assert_eq!(hours(calendar.month_periods(210_002).unwrap()), 28 * 24);
}

#[test]
fn weeks_go_over_the_end_of_the_year() {
    let calendar = calendar("UTC");
    // The year 2026 ends on a Thursday.
    let old = calendar.today(at("2026-12-31T23:59:59Z"));
    let new = calendar.today(at("2027-01-01T00:00:00Z"));
    assert_eq!((old.week, old.week.first_day), (new.week, 20_261_228));
    assert_eq!((old.month_number(), new.month_number()), (202_612, 202_701));
    assert_eq!(calendar.today(at("2027-01-04T00:00:00Z")).week.first_day, 20_270_104);
}

#[test]
fn months_by_number_are_those_of_their_days() {
    for zone in ["UTC", "Europe/Berlin", "Pacific/Apia", "America/Sao_Paulo"] {
        let calendar = calendar(zone);
        for month in [201_112, 201_811, 202_603, 202_610, 202_612] {
            let period = calendar.month_periods(month).unwrap();
            assert_eq!(calendar.today(period.start).month, period);
            assert_eq!(calendar.today(Timestamp(period.end.0 - 1)).month, period);
        }
    }
}

#[test]
fn reads_months() {
    for (text, month) in [("2026-11", 202_611), ("1970-01", 197_001), ("9999-12", 999_912)] {
        assert_eq!(parse_month(text), Ok(month));
        calendar("UTC").month_periods(month).unwrap();
    }
    for text in
        ["", "-", "2026", "2026-1", "2026-13", "2026-00", "1969-12", "2026-11-01", "+026-11", "٢٠٢٦-11"]
    {
        assert_eq!(parse_month(text), Err(CalendarError::Month(text.to_owned())));
    }
    for number in [0, 202_600, 202_613, 196_912, 1_000_001, u32::MAX] {
        assert!(calendar("UTC").month_periods(number).is_err(), "{number}");
    }
}

#[test]
fn reads_time_zones_and_suggests_one() {
    for name in ["UTC", "Europe/Berlin", "europe/berlin", "Asia/Kathmandu"] {
        parse_time_zone(name).unwrap();
    }
    for (wrong, right) in [
        ("Berlin", "Europe/Berlin"),
        ("Europe/Berln", "Europe/Berlin"),
        ("America/New York", "America/New_York"),
        ("Asia/Katmandoo", "Asia/Katmandu"),
        ("utcc", "UTC"),
    ] {
        let message = format!("`{wrong}` is not a time zone; did you mean `{right}`?");
        assert_eq!(parse_time_zone(wrong).unwrap_err().to_string(), message);
    }
    for wrong in ["", "+02:00", "Etc/Unknown", "../etc/passwd", &"x".repeat(10_000)] {
        assert!(parse_time_zone(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn time_ends_without_an_error() {
    for zone in ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
        let calendar = calendar(zone);
        let first = calendar.today(Timestamp(0));
        assert!(first.covers(Timestamp(0)) && first.month.covers(Timestamp(0)), "{zone}");
        let last = calendar.today(Timestamp(u64::MAX));
        assert_eq!(last.day.end, FOREVER, "{zone}");
        assert!(last.covers(Timestamp(u64::MAX - 1)), "{zone}");
    }
}

/// In every zone, around every clock change: each instant lies in its own day, week and month, periods join without a gap,
/// and a day begins with its date.
#[test]
fn periods_divide_time_in_every_zone() {
    let from = jiff::Timestamp::UNIX_EPOCH;
    let until: jiff::Timestamp = "2040-01-01T00:00:00Z".parse().unwrap();
    for name in jiff::tz::db().available() {
        let Ok(zone) = parse_time_zone(name.as_str()) else { continue };
        let calendar = Calendar::new(zone.clone());
        for change in zone.following(from).take_while(|change| change.timestamp() < until) {
            let change = u64::try_from(change.timestamp().as_millisecond()).unwrap();
            let (hour, before) = (3_600_000, |ms| Timestamp(change.saturating_sub(ms)));
            let after = |ms| Timestamp(change + ms);
            for now in
                [before(25 * hour), before(1), after(0), after(hour / 2), after(hour), after(25 * hour)]
            {
                let days = calendar.today(now);
                let context = format!("{name:?} at {}", instant(now));
                for period in [Period::Day, Period::Week, Period::Month] {
                    let period = days.of(period);
                    assert!(period.covers(now), "{context}: {period:?}");
                    assert!(
                        period.start <= days.day.start && days.day.end <= period.end,
                        "{context}: {period:?}"
                    );
                }
                assert!(days.covers(Timestamp(days.day.end.0 - 1)), "{context}");
                let begins = zone.to_datetime(instant(days.day.start));
                assert!(days.day.start.0 == 0 || begins.date() == civil(days.day.first_day), "{context}");
                let next = calendar.today(days.day.end).day;
                assert_eq!(next.start, days.day.end, "{context}");
            }
        }
    }
}

fn civil(number: u32) -> Date {
    let part = |value: u32| i8::try_from(value % 100).unwrap();
    date(i16::try_from(number / 10_000).unwrap(), part(number / 100), part(number))
}

#[test]
fn weeks_begin_on_monday() {
    let calendar = calendar("Europe/Berlin");
    let mut now = at("2026-01-01T00:00:00Z");
    for _ in 0..800 {
        let week = calendar.today(now).week;
        let begins: DateTime = TimeZone::get("Europe/Berlin").unwrap().to_datetime(instant(week.start));
        assert_eq!((begins.weekday(), begins.hour()), (jiff::civil::Weekday::Monday, 0));
        now = now.plus(86_400_000);
    }
}
