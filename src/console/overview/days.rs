//! Spend per day by model: as columns, and in numbers.

use std::collections::BTreeMap;

use jiff::{ToSpan as _, civil::Date};
use maud::{Markup, html};

use super::gather::Gathered;
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

/// How many times as much as the most expensive day a day of even spending may be, to be drawn.
const MAX_LEVEL: i128 = 3;

/// The cost of each model on each day.
struct Days {
    /// The models with a series of their own, the most expensive first; then, if there are others, those.
    series: Vec<(String, i128)>,
    /// The days from the first to the last that has begun, with the cost of each series.
    days: Vec<(Date, Vec<i128>)>,
}

/// The drawing and the table.
pub(super) fn section(view: &View, gathered: &Gathered) -> Markup {
    let days = Days::of(view, gathered);
    if days.series.is_empty() {
        return html! {
            section {
                div.section-head { h2 #perday { "Spend per day" } }
                p.empty {
                    strong { "Nothing was spent." }
                    " Spend appears here as soon as a gateway reports what a request used, with " code { "RecordUsage" } "."
                }
            }
        };
    }
    html! {
        section {
            div.section-head { h2 #perday { "Spend per day" } p { "Settled cost in dollars, by model" } }
            figure #live-days data-live {
                figcaption { (days.legend()) }
                (days.drawing(view, gathered))
                details.numbers { summary { "The same in numbers" } (days.table(view, gathered)) }
            }
        }
    }
}

impl Days {
    fn of(view: &View, gathered: &Gathered) -> Self {
        let mut by_model: BTreeMap<&str, i128> = BTreeMap::new();
        let mut by_day: BTreeMap<Date, Vec<(&str, i128)>> = BTreeMap::new();
        for (date, model, cost) in gathered.days.iter().filter_map(|row| part(view, row)) {
            *by_model.entry(model).or_default() += cost;
            by_day.entry(date).or_default().push((model, cost));
        }
        let mut models: Vec<_> = by_model.into_iter().filter(|(_, cost)| *cost > 0).collect();
        models.sort_by_key(|(_, cost)| -cost);
        let others: i128 = models.iter().skip(NAMED).map(|(_, cost)| cost).sum();
        models.truncate(NAMED);
        let place = |model: &str| models.iter().position(|(named, _)| *named == model).unwrap_or(NAMED);
        let last = gathered.end.min(view.now().date().saturating_add(1.day()));
        let dates = gathered.first.series(1.day()).take_while(|date| *date < last);
        let days = dates.map(|date| {
            let mut parts = vec![0; SERIES.len()];
            for (model, cost) in by_day.get(&date).into_iter().flatten() {
                if let Some(part) = parts.get_mut(place(model)) {
                    *part += cost;
                }
            }
            (date, parts)
        });
        let days = days.collect();
        let mut series: Vec<_> = models.iter().map(|(model, cost)| ((*model).to_owned(), *cost)).collect();
        if others > 0 {
            series.push(("other models".to_owned(), others));
        }
        Self { series, days }
    }

    fn legend(&self) -> Markup {
        html! {
            ul.legend {
                @for ((model, cost), class) in self.series.iter().zip(SERIES) {
                    li { span class={ "key key-" (class) } {} (model) " " b { (money::sum(*cost)) } }
                }
            }
        }
    }

    fn drawing(&self, view: &View, gathered: &Gathered) -> Markup {
        let today = view.now().date();
        let all = gathered.first.series(1.day()).take_while(|date| *date < gathered.end);
        let columns: Vec<_> = all.map(|date| self.column(date, today)).collect();
        let days = i128::try_from(columns.len()).unwrap_or(1);
        let budget = gathered.budgets.iter().find(|budget| budget.team.is_empty());
        let tallest = self.days.iter().map(|(_, parts)| parts.iter().sum::<i128>()).max().unwrap_or(0);
        let even = budget.map(|budget| budget.limit / days);
        // Far above all days it would leave them no height.
        let level = even.filter(|even| *even <= tallest * MAX_LEVEL);
        let level = level.map(|even| (even, format!("even pace {}", money::short(even))));
        let total: i128 = self.series.iter().map(|(_, cost)| cost).sum();
        let greatest = self.days.iter().max_by_key(|(_, parts)| parts.iter().sum::<i128>());
        let description = greatest.map_or_else(String::new, |(date, parts)| {
            format!(
                "{} in {}; the most on {}: {}.",
                money::short(total),
                crate::console::text::number::of(i64::try_from(self.days.len()).unwrap_or(0), "day"),
                time::day(*date, today),
                money::short(parts.iter().sum())
            )
        });
        let title = format!("Spend per day in {}, by model", time::month(gathered.first));
        Stacked {
            id: "days",
            title: &title,
            description: &description,
            columns: &columns,
            level,
            write: money::at_scale,
        }
        .draw()
    }

    /// Days to come have a place and no parts.
    fn column(&self, date: Date, today: Date) -> Column {
        let parts = self.days.iter().find(|(day, _)| *day == date).map(|(_, parts)| parts.clone());
        let parts = parts.unwrap_or_default();
        let named = self.series.iter().zip(&parts).filter(|(_, cost)| **cost > 0);
        let of: Vec<_> = named.map(|((model, _), cost)| format!("{model} {}", money::short(*cost))).collect();
        let day = time::day(date, today);
        let title = match (date > today, of.is_empty()) {
            (true, _) => day.clone(),
            (false, true) => format!("{day}: nothing"),
            (false, false) => format!("{day}: {} ({})", money::short(parts.iter().sum()), of.join(", ")),
        };
        let mark = match date.day() {
            1 => Some(time::short_day(date)),
            8 | 15 | 22 | 29 => Some(date.day().to_string()),
            _ => None,
        };
        Column { mark, title, parts, partial: date == today }
    }

    fn table(&self, view: &View, gathered: &Gathered) -> Markup {
        let today = view.now().date();
        let total: i128 = self.series.iter().map(|(_, cost)| cost).sum();
        html! {
            div.table.table-tall role="region" aria-label="Spend per day by model" tabindex="0" {
                table {
                    thead { tr {
                        th scope="col" { "Day" }
                        @for (model, _) in &self.series { th.num scope="col" { (model) } }
                        th.num scope="col" { "All" }
                    } }
                    tbody {
                        @for (date, parts) in self.days.iter().rev() {
                            tr {
                                th scope="row" {
                                    (time::day(*date, today))
                                    @if *date == today { ", until " (view.now().strftime("%H:%M")) }
                                }
                                @for (_, part) in self.series.iter().zip(parts) { td.num { (money::sum(*part)) } }
                                td.num { (money::sum(parts.iter().sum())) }
                            }
                        }
                    }
                    tfoot { tr {
                        th scope="row" { (time::month(gathered.first)) @if gathered.present { " so far" } }
                        @for (_, cost) in &self.series { td.num { (money::sum(*cost)) } }
                        td.num { (money::sum(total)) }
                    } }
                }
            }
        }
    }
}

/// The day, model and cost of a row.
fn part<'r>(view: &View, row: &'r UsageRow) -> Option<(Date, &'r str, i128)> {
    let date = time::zoned(row.start_time.as_ref()?, view.now())?.date();
    let cost = nanos(row.amounts.as_ref()?.cost.as_ref());
    Some((date, &row.dimensions.as_ref()?.model, cost))
}
