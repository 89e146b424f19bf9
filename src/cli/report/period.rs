//! The days that a report is about.

use clap::Args;

use crate::{
    cli::screen::Failure,
    domain::calendar::{parse_day, parse_month},
    report_text::{Interval, day_text},
};

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
    pub(super) fn days(&self) -> Result<Interval, Failure> {
        let day = |text: &str| parse_day(text).map_err(|error| Failure::new(error.to_string()));
        if let (Some(from), Some(to)) = (&self.from, &self.to) {
            let (from, to) = (day(from)?, day(to)?);
            let is_before = || Failure::new(format!("`{}` is before `{}`", day_text(to), day_text(from)));
            return Interval::from_to(from, to).ok_or_else(is_before);
        }
        if let Some(week) = &self.week {
            return Ok(Interval::week_of(week.as_deref().map_or_else(|| Ok(today()), day)?));
        }
        let month = match &self.month {
            Some(month) => parse_month(month).map_err(|error| Failure::new(error.to_string()))?,
            None => today() / 100,
        };
        Ok(Interval::month(month))
    }
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
        let days = |period: Period| {
            let Interval { first, end } = period.days().unwrap();
            (first, end)
        };
        assert_eq!(days(period(Some("2026-11-29"), None, None)), (20_261_123, 20_261_130));
        assert_eq!(days(period(Some("2026-12-31"), None, None)), (20_261_228, 20_270_104));
        assert_eq!(days(period(None, Some("2026-12"), None)), (20_261_201, 20_270_101));
        assert_eq!(days(period(None, None, Some(("2026-02-28", "2026-02-28")))), (20_260_228, 20_260_301));
        assert!(period(None, None, Some(("2026-02-28", "2026-02-27"))).days().is_err());
        assert!(period(None, Some("2026-13"), None).days().is_err());
    }
}
