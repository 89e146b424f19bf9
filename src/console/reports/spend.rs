//! Spend by day, or by month of a longer report, by model: as columns, and in numbers.

use std::collections::BTreeMap;

use jiff::{ToSpan as _, civil::Date};
use maud::{Markup, html};

use super::{gather::Gathered, period::Period};
use crate::{
    console::{
        parts::{Column, SERIES, Stacked},
        text::{
            money::{self, nanos},
            time,
        },
        view::View,
    },
    rpc::proto::UsageRow,
};

/// Models with a series of their own; all others are one.
const NAMED: usize = SERIES.len() - 1;
/// The most marks below the columns.
const MARKS: usize = 8;

/// The cost of each model on each day, or in each month.
struct Spend {
    /// The models with a series of their own, the most expensive first; then, if there are others, those.
    series: Vec<(String, i128)>,
    /// Each day or month from its first day, with the cost of each series.
    columns: Vec<(Date, Vec<i128>)>,
    by_day: bool,
}

/// The drawing and the table; nothing for a single day.
pub(super) fn section(view: &View, period: &Period, gathered: &Gathered) -> Markup {
    let spend = Spend::of(view, period, gathered);
    if spend.series.is_empty() || spend.columns.len() < 2 {
        return html! {};
    }
    html! {
        section {
            div.section-head {
                h2 #spend { @if spend.by_day { "Days" } @else { "Months" } }
                p { "Settled cost in dollars, by model" }
            }
            figure {
                figcaption {
                    ul.legend {
                        @for ((model, cost), class) in spend.series.iter().zip(SERIES) {
                            li { span class={ "key key-" (class) } {} (model) " " b { (money::sum(*cost)) } }
                        }
                    }
                }
                (spend.drawing(view, period))
                details.numbers { summary { "The same in numbers" } (spend.table(view, period)) }
            }
        }
    }
}

impl Spend {
    fn of(view: &View, period: &Period, gathered: &Gathered) -> Self {
        let parts = |row| part(view, row);
        let mut models: BTreeMap<&str, i128> = BTreeMap::new();
        for (_, model, cost) in gathered.columns.iter().filter_map(parts) {
            *models.entry(model).or_default() += cost;
        }
        let mut models: Vec<_> = models.into_iter().filter(|(_, cost)| *cost > 0).collect();
        models.sort_by_key(|(_, cost)| -cost);
        let others: i128 = models.iter().skip(NAMED).map(|(_, cost)| cost).sum();
        models.truncate(NAMED);
        let mut columns: BTreeMap<Date, Vec<i128>> = BTreeMap::new();
        for date in dates(view, period, gathered.by_day) {
            columns.insert(date, vec![0; SERIES.len()]);
        }
        for (date, model, cost) in gathered.columns.iter().filter_map(parts) {
            let place = models.iter().position(|(named, _)| *named == model).unwrap_or(NAMED);
            let column = columns.range_mut(..=date).next_back().map(|(_, parts)| parts);
            if let Some(part) = column.and_then(|parts| parts.get_mut(place)) {
                *part += cost;
            }
        }
        let mut series: Vec<_> = models.iter().map(|(model, cost)| ((*model).to_owned(), *cost)).collect();
        if others > 0 {
            series.push(("other models".to_owned(), others));
        }
        Self { series, columns: columns.into_iter().collect(), by_day: gathered.by_day }
    }

    /// The day or month in words.
    fn name(&self, date: Date, today: Date) -> String {
        if self.by_day { time::day(date, today) } else { time::month(date) }
    }

    fn drawing(&self, view: &View, period: &Period) -> Markup {
        let today = view.now().date();
        let every = self.columns.len().div_ceil(MARKS).max(1);
        let columns: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .map(|(place, (date, parts))| Column {
                mark: (place % every == 0).then(|| match (self.by_day, self.columns.len()) {
                    (true, ..=7) => date.strftime("%a").to_string(),
                    (true, _) if place == 0 || usize::from(date.day().unsigned_abs()) <= every => {
                        time::short_day(*date)
                    }
                    (true, _) => date.day().to_string(),
                    (false, _) => date.strftime("%b").to_string(),
                }),
                title: format!("{}: {}", self.name(*date, today), money::short(parts.iter().sum())),
                parts: parts.clone(),
                partial: self.by_day && *date == today
                    || !self.by_day && date.first_of_month() == today.first_of_month(),
            })
            .collect();
        let sum = |(date, parts): &(Date, Vec<i128>)| (parts.iter().sum::<i128>(), *date);
        let most = self.columns.iter().map(sum).max().unwrap_or_default();
        let least = self.columns.iter().map(sum).min().unwrap_or_default();
        let described = |(cost, date): (i128, Date)| {
            format!(
                "{} {} {}",
                money::short(cost),
                if self.by_day { "on" } else { "in" },
                self.name(date, today)
            )
        };
        Stacked {
            id: "spend",
            title: &format!("Spend in {}, by model", period.title()),
            description: &format!("From {} to {}.", described(least), described(most)),
            columns: &columns,
            level: None,
            write: money::at_scale,
        }
        .draw()
    }

    fn table(&self, view: &View, period: &Period) -> Markup {
        let today = view.now().date();
        html! {
            div.table.table-tall role="region" aria-label="Spend by model" tabindex="0" {
                table.stick {
                    thead { tr {
                        th scope="col" { @if self.by_day { "Day" } @else { "Month" } }
                        @for (model, _) in &self.series { th.num scope="col" { (model) } }
                        th.num scope="col" { "All" }
                    } }
                    tbody {
                        @for (date, parts) in &self.columns {
                            tr {
                                th scope="row" { (self.name(*date, today)) }
                                @for (_, part) in self.series.iter().zip(parts) { td.num { (money::sum(*part)) } }
                                td.num { (money::sum(parts.iter().sum())) }
                            }
                        }
                    }
                    tfoot { tr {
                        th scope="row" { (period.name()) }
                        @for (_, cost) in &self.series { td.num { (money::sum(*cost)) } }
                        td.num { (money::sum(self.series.iter().map(|(_, cost)| cost).sum())) }
                    } }
                }
            }
        }
    }
}

/// The days of the report that have begun, or where its months begin.
fn dates(view: &View, period: &Period, by_day: bool) -> Vec<Date> {
    let end = period.end().min(view.now().date().saturating_add(1.day()));
    let first = period.first();
    if by_day {
        return first.series(1.day()).take_while(|date| *date < end).collect();
    }
    let months = first.first_of_month().series(1.month()).skip(1).take_while(|date| *date < end);
    std::iter::once(first).chain(months).collect()
}

/// The day on which a row begins, its model and its cost.
fn part<'r>(view: &View, row: &'r UsageRow) -> Option<(Date, &'r str, i128)> {
    let date = time::zoned(row.start_time.as_ref()?, view.now())?.date();
    let cost = nanos(row.amounts.as_ref()?.cost.as_ref());
    Some((date, &row.dimensions.as_ref()?.model, cost))
}
