//! Days, weeks and months in the organization's time zone.
//!
//! Every period begins when its first day begins, and a day ends when the next begins. Whatever a zone does to its clocks,
//! each instant lies in exactly one day, one week and one month.

use jiff::{civil::Date, tz::TimeZone};
use thiserror::Error;

use super::{Timestamp, limit::Period};

/// The end of time, for instants beyond the calendar, which ends with the year 9999.
const FOREVER: Timestamp = Timestamp(u64::MAX);

/// An invalid time zone or month.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CalendarError {
    /// Not in the IANA time zone database.
    #[error("`{name}` is not a time zone; did you mean `{nearest}`?")]
    TimeZone {
        /// As it was written.
        name: String,
        /// The most similar known name.
        nearest: String,
    },
    /// Not a month from 1970 to 9999.
    #[error("`{0}` is not a month; write it as `2026-11`")]
    Month(String),
    /// Not a day from 1970 to 9999.
    #[error("`{0}` is not a day; write it as `2026-11-23`")]
    Day(String),
}

/// One day, week or month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalendarPeriod {
    /// Which kind of period it is.
    pub period: Period,
    /// Its first day, as `20261101`.
    pub first_day: u32,
    /// Its first instant; the epoch if it began earlier.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
}

impl CalendarPeriod {
    /// Whether the instant lies in it.
    #[must_use]
    pub fn covers(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }
}

/// The day, the week and the month that contain an instant. Valid for the whole day: see [`Self::covers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days {
    /// From midnight, or from where the zone's clocks resume if there is none.
    pub day: CalendarPeriod,
    /// From Monday.
    pub week: CalendarPeriod,
    /// From the first of the month.
    pub month: CalendarPeriod,
}

impl Days {
    /// Whether this is also the answer for the instant `at`, which it is until the day ends.
    #[must_use]
    pub fn covers(&self, at: Timestamp) -> bool {
        self.day.covers(at)
    }

    /// The period of this kind.
    #[must_use]
    pub const fn of(&self, period: Period) -> CalendarPeriod {
        match period {
            Period::Day => self.day,
            Period::Week => self.week,
            Period::Month => self.month,
        }
    }

    /// The month, as `202611`.
    #[must_use]
    pub const fn month_number(&self) -> u32 {
        self.month.first_day / 100
    }

    /// The day, as `20261123`.
    #[must_use]
    pub const fn day_number(&self) -> u32 {
        self.day.first_day
    }
}

/// The calendar of a time zone.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
}

impl Calendar {
    /// The calendar of this zone.
    #[must_use]
    pub const fn new(zone: TimeZone) -> Self {
        Self { zone }
    }

    /// The zone's IANA name; `None` if it has none.
    #[must_use]
    pub fn zone_name(&self) -> Option<&str> {
        self.zone.iana_name()
    }

    /// The day, week and month of an instant. Past the year 9999, the last day never ends.
    #[must_use]
    pub fn today(&self, at: Timestamp) -> Days {
        let instant = instant(at);
        let mut date = self.zone.to_datetime(instant).date();
        let at = at.min(timestamp(instant));
        // Where clocks go back across midnight, yesterday's date appears again after today has begun. It counts as today.
        while self.end_of_day(date) <= at
            && let Ok(next) = date.tomorrow()
        {
            date = next;
        }
        // Where clocks go forward across midnight, today's date can appear before today begins. It counts as yesterday.
        while at < self.start_of(date)
            && let Ok(previous) = date.yesterday()
        {
            date = previous;
        }
        let monday = back(date, date.weekday().to_monday_zero_offset());
        Days {
            day: self.period(Period::Day, date, date.tomorrow()),
            week: self.period(Period::Week, monday, forward(monday, 7)),
            month: self.month(date.first_of_month()),
        }
    }

    /// A month, given as `202611`.
    ///
    /// # Errors
    ///
    /// There is no such month from 1970 to 9999.
    pub fn month_periods(&self, month_number: u32) -> Result<CalendarPeriod, CalendarError> {
        let first = first_of(month_number).ok_or_else(|| CalendarError::Month(month_number.to_string()))?;
        Ok(self.month(first))
    }

    /// The first instant of a day, given as `20261123`; `None` if there is no such day.
    #[must_use]
    pub fn start_of_day(&self, day: u32) -> Option<Timestamp> {
        date_of(day).map(|date| self.start_of(date))
    }

    fn month(&self, first: Date) -> CalendarPeriod {
        self.period(Period::Month, first, first.last_of_month().tomorrow())
    }

    fn period(&self, period: Period, first: Date, next: Result<Date, jiff::Error>) -> CalendarPeriod {
        let end = next.map_or(FOREVER, |next| self.start_of(next));
        CalendarPeriod { period, first_day: day_number(first), start: self.start_of(first), end }
    }

    fn end_of_day(&self, date: Date) -> Timestamp {
        date.tomorrow().map_or(FOREVER, |next| self.start_of(next))
    }

    /// The first midnight of a day. If there is no midnight, the instant an hour's gap later; so if the whole day was
    /// skipped, the midnight of the next day.
    fn start_of(&self, date: Date) -> Timestamp {
        let midnight = date.at(0, 0, 0, 0);
        self.zone.to_timestamp(midnight).map_or(FOREVER, timestamp)
    }
}

/// The month of a text such as `2026-11`, as `202611`.
///
/// # Errors
///
/// It is not four digits, a hyphen and two digits, or no month from 1970 to 9999.
pub fn parse_month(text: &str) -> Result<u32, CalendarError> {
    let number = |digits: &str, length: usize| -> Option<u32> {
        let plain = digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    text.split_once('-')
        .and_then(|(year, month)| Some(number(year, 4)? * 100 + number(month, 2)?))
        .filter(|month| first_of(*month).is_some())
        .ok_or_else(|| CalendarError::Month(text.to_owned()))
}

/// The day of a text such as `2026-11-23`, as `20261123`.
///
/// # Errors
///
/// It is not a month, a hyphen and two digits, or no day from 1970 to 9999.
pub fn parse_day(text: &str) -> Result<u32, CalendarError> {
    let wrong = || CalendarError::Day(text.to_owned());
    let (month, day) = text.rsplit_once('-').ok_or_else(wrong)?;
    let month = parse_month(month).map_err(|_| wrong())?;
    let digits = Some(day).filter(|day| day.len() == 2 && day.bytes().all(|byte| byte.is_ascii_digit()));
    let day = digits.and_then(|day| day.parse::<u32>().ok()).map(|day| month * 100 + day);
    day.filter(|day| date_of(*day).is_some()).ok_or_else(wrong)
}

/// The day after one given as `20261123`; `None` if there is no such day, or none after it.
#[must_use]
pub fn next_day(day: u32) -> Option<u32> {
    date_of(day)?.tomorrow().ok().map(day_number)
}

/// The day before one given as `20261123`.
#[must_use]
pub fn day_before(day: u32) -> Option<u32> {
    date_of(day)?.yesterday().ok().map(day_number)
}

/// The time zone of an IANA name such as `Europe/Berlin`, in any case.
///
/// # Errors
///
/// There is no zone with that name; the error suggests the most similar one.
pub fn parse_time_zone(name: &str) -> Result<TimeZone, CalendarError> {
    match TimeZone::get(name) {
        Ok(zone) if !zone.is_unknown() => Ok(zone),
        _ => Err(CalendarError::TimeZone { name: name.to_owned(), nearest: nearest_zone(name) }),
    }
}

/// The name most similar to a wrong one, which may be a whole name or the place alone (`Berlin`).
fn nearest_zone(wrong: &str) -> String {
    // No name is longer; computing a distance takes time proportional to the product of the lengths.
    const LONGEST: usize = 40;
    let wrong: String = wrong.chars().take(LONGEST).collect::<String>().to_lowercase().replace(' ', "_");
    let distance = |known: &str| {
        let known = known.to_lowercase();
        let place = known.rsplit('/').next().unwrap_or(&known);
        edits(&wrong, &known).min(edits(&wrong, place))
    };
    jiff::tz::db()
        .available()
        .map(|known| known.as_str().to_owned())
        .filter(|known| known != "Etc/Unknown")
        .min_by_key(|known| (distance(known), known.len()))
        .unwrap_or_else(|| "UTC".to_owned())
}

/// How many characters to insert, delete or replace to get from one text to the other (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (deleted, a) in from.chars().enumerate() {
        let mut left = deleted + 1;
        let mut next = vec![left];
        for ((b, diagonal), above) in to.chars().zip(&row).zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(a != b)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

fn instant(at: Timestamp) -> jiff::Timestamp {
    i64::try_from(at.0)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or(jiff::Timestamp::MAX)
}

/// An instant before the epoch counts as the epoch; only the very first day, week and month can begin there.
fn timestamp(instant: jiff::Timestamp) -> Timestamp {
    Timestamp(u64::try_from(instant.as_millisecond()).unwrap_or(0))
}

/// The first days of the day, the week and the month that contain a day given as `20261123`; `None` if there is no such
/// day.
#[must_use]
pub fn first_days(day: u32) -> Option<[(Period, u32); 3]> {
    let date = date_of(day)?;
    let monday = back(date, date.weekday().to_monday_zero_offset());
    Some([
        (Period::Day, day),
        (Period::Week, day_number(monday)),
        (Period::Month, day_number(date.first_of_month())),
    ])
}

fn date_of(day: u32) -> Option<Date> {
    let part = |value: u32| i8::try_from(value % 100).ok();
    Date::new(i16::try_from(day / 10_000).ok()?, part(day / 100)?, part(day)?).ok()
}

fn back(date: Date, days: i8) -> Date {
    date.saturating_sub(jiff::Span::new().days(days))
}

fn forward(date: Date, days: i8) -> Result<Date, jiff::Error> {
    date.checked_add(jiff::Span::new().days(days))
}

/// A day as `20261123`. Dates here are never before 1969.
fn day_number(date: Date) -> u32 {
    let (year, month, day) =
        (date.year().unsigned_abs(), date.month().unsigned_abs(), date.day().unsigned_abs());
    u32::from(year) * 10_000 + u32::from(month) * 100 + u32::from(day)
}

/// The first day of a month given as `202611`, from 1970 to 9999.
fn first_of(month_number: u32) -> Option<Date> {
    let year = i16::try_from(month_number / 100).ok().filter(|year| *year >= 1970)?;
    Date::new(year, i8::try_from(month_number % 100).ok()?, 1).ok()
}

#[cfg(test)]
mod tests;
