//! The days that a report is about.

use crate::domain::{
    calendar::{day_before, first_days, next_day},
    limit::Period,
};

/// Days in a row, each as `20261123`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    /// The first of them.
    pub(crate) first: u32,
    /// The day after the last.
    pub(crate) end: u32,
}

impl Interval {
    /// From one day to another, both included; `None` if the last is before the first.
    pub(crate) fn from_to(first: u32, last: u32) -> Option<Self> {
        (first <= last).then(|| Self { first, end: after(last) })
    }

    /// The week from Monday that has this day.
    pub(crate) fn week_of(day: u32) -> Self {
        let firsts = first_days(day).into_iter().flatten();
        let monday = firsts.filter(|(of, _)| *of == Period::Week).map(|(_, first)| first).next();
        let monday = monday.unwrap_or(day);
        Self { first: monday, end: (0..7).fold(monday, |day, _| after(day)) }
    }

    /// A month, given as `202611`.
    pub(crate) const fn month(month: u32) -> Self {
        Self { first: month * 100 + 1, end: next_month(month) * 100 + 1 }
    }

    /// As many days as these, just before them.
    pub(crate) fn before(self) -> Self {
        let (mut first, mut day) = (self.first, self.first);
        while day < self.end {
            first = day_before(first).unwrap_or(first);
            day = next_day(day).unwrap_or(self.end);
        }
        Self { first, end: self.first }
    }

    /// The last of these days.
    pub(crate) fn last(self) -> u32 {
        day_before(self.end).unwrap_or(self.first)
    }
}

fn after(day: u32) -> u32 {
    next_day(day).unwrap_or(day)
}

const fn next_month(month: u32) -> u32 {
    if month % 100 == 12 { month + 89 } else { month + 1 }
}

/// A day as `2026-11-23`.
pub(crate) fn day_text(day: u32) -> String {
    format!("{:04}-{:02}-{:02}", day / 10_000, day / 100 % 100, day % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn interval(first: u32, end: u32) -> Interval {
        Interval { first, end }
    }

    #[test]
    fn weeks_months_and_days_end_with_the_day_after_their_last() {
        assert_eq!(Interval::week_of(20_261_129), interval(20_261_123, 20_261_130));
        assert_eq!(Interval::week_of(20_261_231), interval(20_261_228, 20_270_104));
        assert_eq!(Interval::month(202_612), interval(20_261_201, 20_270_101));
        assert_eq!(Interval::from_to(20_260_228, 20_260_228), Some(interval(20_260_228, 20_260_301)));
        assert_eq!(Interval::from_to(20_260_228, 20_260_227), None);
    }

    #[test]
    fn the_period_before_has_as_many_days() {
        assert_eq!(interval(20_261_123, 20_261_130).before(), interval(20_261_116, 20_261_123));
        assert_eq!(interval(20_260_301, 20_260_302).before(), interval(20_260_228, 20_260_301));
        assert_eq!(interval(20_260_301, 20_260_302).last(), 20_260_301);
        assert_eq!(day_text(20_260_301), "2026-03-01");
    }
}
