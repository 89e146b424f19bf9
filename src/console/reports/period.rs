//! The days of a report in words, and those that they are compared with.

use jiff::{ToSpan as _, civil::Date};

use super::asked::{date, number};
use crate::{
    console::text::{number as count, time},
    report_text::Interval,
};

/// What kind of days they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Week,
    Month,
    Days,
}

/// The days of a report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Period {
    pub(super) interval: Interval,
    kind: Kind,
    today: Date,
}

impl Period {
    /// These days, seen from `today`.
    pub(super) fn new(interval: Interval, today: Date) -> Self {
        let kind = match interval {
            _ if Interval::month(interval.first / 100) == interval => Kind::Month,
            _ if Interval::week_of(interval.first) == interval => Kind::Week,
            _ => Kind::Days,
        };
        Self { interval, kind, today }
    }

    /// The first day.
    pub(super) fn first(&self) -> Date {
        date(self.interval.first)
    }

    /// The day after the last.
    pub(super) fn end(&self) -> Date {
        date(self.interval.end)
    }

    /// The month of the last of these days that has begun; `None`: none has.
    pub(super) fn month(&self) -> Option<Date> {
        let last = date(self.interval.last()).min(self.today);
        (self.first() <= self.today).then(|| last.first_of_month())
    }

    /// How many days they are.
    pub(super) fn days(&self) -> i64 {
        i64::from((self.end() - self.first()).get_days())
    }

    /// Whether they have begun and are not over.
    pub(super) fn is_running(&self) -> bool {
        (self.first()..self.end()).contains(&self.today)
    }

    /// What they are compared with: the month or as many days before; as far as these have come, if they are not over.
    pub(super) fn before(&self) -> Interval {
        let whole = match self.kind {
            Kind::Month => Interval::month(number(self.first().saturating_sub(1.day())) / 100),
            Kind::Week | Kind::Days => self.interval.before(),
        };
        if !self.is_running() {
            return whole;
        }
        let so_far = i64::from((self.today - self.first()).get_days()) + 1;
        let end = date(whole.first).saturating_add(so_far.days());
        Interval { end: number(end).min(whole.end), ..whole }
    }

    /// `Week 46, Mon 9 Nov to Sun 15 Nov 2026`, `November 2026`.
    pub(super) fn title(&self) -> String {
        let last = date(self.interval.last());
        let days = match self.days() {
            1 => format!("{} {}", last.strftime("%a %-d %b"), last.year()),
            _ => {
                let first = time::day(self.first(), last);
                format!("{first} to {} {}", last.strftime("%a %-d %b"), last.year())
            }
        };
        match self.kind {
            Kind::Month => time::month(self.first()),
            Kind::Week => format!("{}, {days}", self.name()),
            Kind::Days => days,
        }
    }

    /// The head of its column.
    pub(super) fn name(&self) -> String {
        match self.kind {
            Kind::Month => self.first().strftime("%B").to_string(),
            Kind::Week => format!("Week {}", self.first().iso_week_date().week()),
            Kind::Days => "These days".to_owned(),
        }
    }

    /// The head of the column of what it is compared with.
    pub(super) fn name_before(&self) -> String {
        let before = date(self.before().first);
        match self.kind {
            Kind::Month => before.strftime("%B").to_string(),
            Kind::Week => format!("Week {}", before.iso_week_date().week()),
            Kind::Days => "Before".to_owned(),
        }
    }

    /// `in the week so far`.
    pub(super) fn within(&self) -> String {
        let of = match self.kind {
            Kind::Month => "in the month".to_owned(),
            Kind::Week => "in the week".to_owned(),
            Kind::Days => format!("in {}", count::of(self.days(), "day")),
        };
        if self.is_running() { format!("{of} so far") } else { of }
    }

    /// `the week before`, `the same days of October`.
    pub(super) fn other(&self) -> String {
        let of = match self.kind {
            Kind::Month => date(self.before().first).strftime("%B").to_string(),
            Kind::Week => "the week before".to_owned(),
            Kind::Days if self.is_running() => "as many days before".to_owned(),
            Kind::Days => format!("the {} before", count::of(self.days(), "day")),
        };
        match (self.kind, self.is_running()) {
            (Kind::Month | Kind::Week, true) => format!("the same days of {of}"),
            _ => of,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(first: u32, last: u32) -> Period {
        Period::new(Interval::from_to(first, last).unwrap(), "2026-11-18".parse().unwrap())
    }

    #[test]
    fn weeks_and_months_have_names() {
        let week = period(20_261_109, 20_261_115);
        assert_eq!(week.title(), "Week 46, Mon 9 Nov to Sun 15 Nov 2026");
        assert_eq!((week.name(), week.name_before()), ("Week 46".into(), "Week 45".into()));
        assert_eq!((week.within(), week.other()), ("in the week".into(), "the week before".into()));
        assert_eq!(week.before(), Interval::from_to(20_261_102, 20_261_108).unwrap());
        let month = period(20_261_001, 20_261_031);
        assert_eq!((month.title(), month.other()), ("October 2026".into(), "September".into()));
        assert_eq!(month.before(), Interval::month(202_609));
        let days = period(20_251_230, 20_260_102);
        assert_eq!(days.title(), "Tue 30 Dec 2025 to Fri 2 Jan 2026");
        assert_eq!(days.within(), "in 4\u{a0}days");
    }

    #[test]
    fn what_is_not_over_is_compared_as_far_as_it_has_come() {
        let week = period(20_261_116, 20_261_122);
        assert_eq!(week.before(), Interval::from_to(20_261_109, 20_261_111).unwrap());
        assert_eq!(
            (week.within(), week.other()),
            ("in the week so far".into(), "the same days of the week before".into())
        );
        let month = period(20_261_101, 20_261_130);
        assert_eq!(month.before(), Interval::from_to(20_261_001, 20_261_018).unwrap());
        assert_eq!(month.other(), "the same days of October");
    }

    #[test]
    fn budgets_are_of_the_last_month_that_has_begun() {
        let month = |first, last| period(first, last).month().map(|month| month.to_string());
        assert_eq!(month(20_261_001, 20_261_031).as_deref(), Some("2026-10-01"));
        assert_eq!(month(20_261_116, 20_261_122).as_deref(), Some("2026-11-01"));
        // It reaches into December, of which today knows nothing.
        assert_eq!(month(20_261_030, 20_261_206).as_deref(), Some("2026-11-01"));
        assert_eq!(month(20_261_119, 20_261_120), None);
    }

    #[test]
    fn a_longer_month_is_compared_with_all_of_a_shorter_one() {
        let march = Period::new(Interval::month(202_603), "2026-03-31".parse().unwrap());
        assert_eq!(march.before(), Interval::month(202_602));
    }
}
