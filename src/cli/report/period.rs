//! The days that a report is about.

use clap::Args;

use crate::{
    cli::screen::Failure,
    domain::calendar::{day_before, first_days, next_day, parse_day, parse_month},
    domain::limit,
};

/// The first day, and the day after the last, as `20261123`.
pub(super) type Days = (u32, u32);

/// Which days: of a week, of a month, or from one to another.
#[derive(Args)]
#[group(id = "days", multiple = true)]
pub(super) struct Period {
    /// The week from Monday that has this day [default: today]
    #[arg(long, value_name = "DAY", num_args = 0..=1, conflicts_with_all = ["month", "from"])]
    week: Option<Option<String>>,
    /// A month, such as 2026-11 [default: the current one, if no other days are given]
    #[arg(long, value_name = "MONTH", conflicts_with = "from")]
    month: Option<String>,
    /// The first day, such as 2026-11-01
    #[arg(long, value_name = "DAY", requires = "to")]
    from: Option<String>,
    /// The last day
    #[arg(long, value_name = "DAY", requires = "from")]
    to: Option<String>,
}

impl Period {
    pub(super) fn days(&self) -> Result<Days, Failure> {
        let day = |text: &str| parse_day(text).map_err(|error| Failure::new(error.to_string()));
        let after = |day: u32| next_day(day).unwrap_or(day);
        if let (Some(from), Some(to)) = (&self.from, &self.to) {
            let (from, to) = (day(from)?, day(to)?);
            if to < from {
                return Err(Failure::new(format!("`{}` is before `{}`", text(to), text(from))));
            }
            return Ok((from, after(to)));
        }
        if let Some(week) = &self.week {
            let within = week.as_deref().map_or_else(|| Ok(today()), day)?;
            let firsts = first_days(within).into_iter().flatten();
            let monday = firsts.filter(|(of, _)| *of == limit::Period::Week).map(|(_, first)| first).next();
            let monday = monday.unwrap_or(within);
            return Ok((monday, (0..7).fold(monday, |day, _| after(day))));
        }
        let month = match &self.month {
            Some(month) => parse_month(month).map_err(|error| Failure::new(error.to_string()))?,
            None => today() / 100,
        };
        let next = if month % 100 == 12 { month + 89 } else { month + 1 };
        Ok((month * 100 + 1, next * 100 + 1))
    }
}

/// As many days as these, just before them.
pub(super) fn before((start, end): Days) -> Days {
    let (mut first, mut day) = (start, start);
    while day < end {
        first = day_before(first).unwrap_or(first);
        day = next_day(day).unwrap_or(end);
    }
    (first, start)
}

/// The whole months that these days are in.
pub(super) fn months((start, end): Days) -> Days {
    let of = last((start, end)) / 100;
    let next = if of % 100 == 12 { (of / 100 + 1) * 100 + 1 } else { of + 1 };
    (start / 100 * 100 + 1, next * 100 + 1)
}

/// The last of these days.
pub(super) fn last((start, end): Days) -> u32 {
    day_before(end).unwrap_or(start)
}

/// A day as `2026-11-23`.
pub(super) fn text(day: u32) -> String {
    format!("{:04}-{:02}-{:02}", day / 10_000, day / 100 % 100, day % 100)
}

fn today() -> u32 {
    let date = jiff::Zoned::now().date().to_string();
    parse_day(&date).unwrap_or(19_700_101)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(week: Option<&str>, month: Option<&str>, days: Option<(&str, &str)>) -> Period {
        Period {
            week: week.map(|day| Some(day.to_owned())),
            month: month.map(str::to_owned),
            from: days.map(|days| days.0.to_owned()),
            to: days.map(|days| days.1.to_owned()),
        }
    }

    #[test]
    fn weeks_months_and_days_end_with_the_day_after_their_last() {
        let days = |period: Period| period.days().unwrap();
        assert_eq!(days(period(Some("2026-11-29"), None, None)), (20_261_123, 20_261_130));
        assert_eq!(days(period(Some("2026-12-31"), None, None)), (20_261_228, 20_270_104));
        assert_eq!(days(period(None, Some("2026-12"), None)), (20_261_201, 20_270_101));
        assert_eq!(days(period(None, None, Some(("2026-02-28", "2026-02-28")))), (20_260_228, 20_260_301));
        assert!(period(None, None, Some(("2026-02-28", "2026-02-27"))).days().is_err());
        assert!(period(None, Some("2026-13"), None).days().is_err());
    }

    #[test]
    fn days_are_in_whole_months() {
        assert_eq!(months((20_261_115, 20_261_201)), (20_261_101, 20_261_201));
        assert_eq!(months((20_261_115, 20_270_102)), (20_261_101, 20_270_201));
        assert_eq!(months((20_261_201, 20_261_202)), (20_261_201, 20_270_101));
    }

    #[test]
    fn the_period_before_has_as_many_days() {
        assert_eq!(before((20_261_123, 20_261_130)), (20_261_116, 20_261_123));
        assert_eq!(before((20_260_301, 20_260_302)), (20_260_228, 20_260_301));
        assert_eq!(last((20_260_301, 20_260_302)), 20_260_301);
    }
}
