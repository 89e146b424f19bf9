//! What a key cost, by day and model.

use std::collections::BTreeMap;

use jiff::{ToSpan as _, civil::Date};
use maud::{Markup, html};

use crate::{
    console::{
        parts::{Column, SERIES, Stacked},
        text::{
            money::{self, nanos},
            number, time,
        },
        view::View,
    },
    rpc::proto::{Granularity, QueryUsageRequest, UsageFilter, UsageRow, VirtualKey},
};

/// How many days are shown.
const DAYS: i64 = 30;
/// Models with a series of their own; all others are one.
const NAMED: usize = SERIES.len() - 1;
/// The most rows of one answer.
const PAGE: i32 = 1_000;
/// More rows than a key has models on these days.
const MAX_PAGES: usize = 10;

/// Asks for what a key cost on each day by model.
pub(super) async fn gather(view: &View, key: &VirtualKey) -> Result<Vec<UsageRow>, tonic::Status> {
    let _turn = view.turn().await;
    let (first, end) = days(view);
    let filter =
        UsageFilter { teams: vec![key.team.clone()], keys: vec![key.name.clone()], ..Default::default() };
    let mut request = QueryUsageRequest {
        start_date: first.to_string(),
        end_date: end.to_string(),
        granularity: Granularity::Day.into(),
        group_by: vec!["model".to_owned()],
        filter: Some(filter),
        page_size: PAGE,
        ..Default::default()
    };
    let mut found = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = view.api().reports().query_usage(request.clone()).await?.into_inner();
        found.extend(page.rows);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(found)
}

/// The first day, and the day after the last.
fn days(view: &View) -> (Date, Date) {
    let end = view.now().date().saturating_add(1.day());
    (end.saturating_sub(DAYS.days()), end)
}

/// What one model was used for on one day, or on all.
#[derive(Clone, Copy, Default)]
struct Sum {
    cost: i128,
    requests: i64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.cost += other.cost;
        self.requests = self.requests.saturating_add(other.requests);
    }
}

/// What is drawn and tabulated.
struct Cost {
    /// The models, the most expensive first.
    models: Vec<(String, Sum)>,
    by_day: BTreeMap<Date, BTreeMap<String, Sum>>,
}

/// The section; `None`: the reader may not see spend.
pub(super) fn section(view: &View, rows: Option<&[UsageRow]>) -> Markup {
    let Some(rows) = rows else { return html! {} };
    let cost = Cost::of(view, rows);
    html! {
        section {
            div.section-head {
                h2 #cost { "Cost of the last 30 days" }
                @if !cost.models.is_empty() { p { "Settled, by model" } }
            }
            @if cost.models.is_empty() {
                p.empty { strong { "Nothing was used." } " Usage appears here as soon as a gateway reports it." }
            } @else {
                (cost.by_model())
                figure.gap {
                    figcaption { (cost.legend()) }
                    (cost.drawing(view))
                    details.numbers { summary { "The same in numbers" } (cost.table(view)) }
                }
            }
        }
    }
}

impl Cost {
    fn of(view: &View, rows: &[UsageRow]) -> Self {
        let mut by_day: BTreeMap<Date, BTreeMap<String, Sum>> = BTreeMap::new();
        let mut by_model: BTreeMap<String, Sum> = BTreeMap::new();
        for row in rows {
            let Some((date, model, sum)) = part(view, row) else { continue };
            by_day.entry(date).or_default().entry(model.clone()).or_default().add(sum);
            by_model.entry(model).or_default().add(sum);
        }
        let mut models: Vec<_> = by_model.into_iter().collect();
        models.sort_by_key(|(_, sum)| -sum.cost);
        Self { models, by_day }
    }

    fn all(&self) -> Sum {
        self.models.iter().fold(Sum::default(), |mut all, (_, sum)| {
            all.add(*sum);
            all
        })
    }

    fn by_model(&self) -> Markup {
        let all = self.all();
        html! {
            div.table role="region" aria-label="Cost by model" tabindex="0" {
                table {
                    thead { tr {
                        th scope="col" { "Model" } th.num scope="col" { "Cost" } th.num scope="col" { "Requests" }
                        th.num scope="col" { "Share" }
                    } }
                    tbody {
                        @for (model, sum) in &self.models {
                            tr {
                                th scope="row" { (model) }
                                td.num { (money::sum(sum.cost)) }
                                (number::cell(sum.requests))
                                td.num { (number::share(sum.cost, all.cost).unwrap_or_else(|| "–".to_owned())) }
                            }
                        }
                    }
                    tfoot { tr {
                        th scope="row" { "All" } td.num { (money::sum(all.cost)) } td.num { (number::count(all.requests)) } td {}
                    } }
                }
            }
        }
    }

    /// The names and the sums of the series.
    fn series(&self) -> Vec<(&str, i128)> {
        let (named, others) = self.models.split_at(self.models.len().min(NAMED));
        let mut series: Vec<_> = named.iter().map(|(model, sum)| (model.as_str(), sum.cost)).collect();
        if !others.is_empty() {
            series.push(("other models", others.iter().map(|(_, sum)| sum.cost).sum()));
        }
        series
    }

    /// What each series cost on a day.
    fn parts(&self, date: Date) -> Vec<i128> {
        let day = self.by_day.get(&date);
        let cost = |model: &str| day.and_then(|day| day.get(model)).map_or(0, |sum| sum.cost);
        let (named, others) = self.models.split_at(self.models.len().min(NAMED));
        let mut parts: Vec<_> = named.iter().map(|(model, _)| cost(model)).collect();
        if !others.is_empty() {
            parts.push(others.iter().map(|(model, _)| cost(model)).sum());
        }
        parts
    }

    fn legend(&self) -> Markup {
        html! {
            ul.legend {
                @for ((model, cost), class) in self.series().iter().zip(SERIES) {
                    li { span class={ "key key-" (class) } {} (model) " " b { (money::sum(*cost)) } }
                }
            }
        }
    }

    fn drawing(&self, view: &View) -> Markup {
        let today = view.now().date();
        let (first, end) = days(view);
        let dates: Vec<_> = first.series(1.day()).take_while(|date| *date < end).collect();
        let columns: Vec<_> =
            dates.iter().enumerate().map(|(place, date)| self.column(place, *date, today)).collect();
        let greatest = dates.iter().max_by_key(|date| self.parts(**date).iter().sum::<i128>());
        let description = greatest.map_or_else(String::new, |date| {
            let most = self.parts(*date).iter().sum();
            let all = money::short(self.all().cost);
            format!("{all} in {DAYS} days; the most on {}: {}.", time::day(*date, today), money::short(most))
        });
        Stacked {
            id: "days",
            title: "Cost of the key per day, by model",
            description: &description,
            columns: &columns,
            level: None,
            write: money::at_scale,
        }
        .draw()
    }

    fn column(&self, place: usize, date: Date, today: Date) -> Column {
        let parts = self.parts(date);
        let day = time::day(date, today);
        let title = match parts.iter().sum::<i128>() {
            0 => format!("{day}: nothing"),
            sum => format!("{day}: {}", money::short(sum)),
        };
        let mark = match place % 7 {
            1 => Some(time::short_day(date)),
            _ => None,
        };
        Column { mark, title, parts, partial: date == today }
    }

    fn table(&self, view: &View) -> Markup {
        let today = view.now().date();
        let series = self.series();
        html! {
            div.table.table-tall role="region" aria-label="Cost per day by model" tabindex="0" {
                table {
                    thead { tr {
                        th scope="col" { "Day" }
                        @for (model, _) in &series { th.num scope="col" { (model) } }
                        th.num scope="col" { "All" }
                    } }
                    tbody {
                        @for date in self.by_day.keys().rev() {
                            @let parts = self.parts(*date);
                            tr {
                                th scope="row" {
                                    (time::day(*date, today))
                                    @if *date == today { ", until " (view.now().strftime("%H:%M")) }
                                }
                                @for part in &parts { td.num { (money::sum(*part)) } }
                                td.num { (money::sum(parts.iter().sum())) }
                            }
                        }
                    }
                    tfoot { tr {
                        th scope="row" { "30 days" }
                        @for (_, cost) in &series { td.num { (money::sum(*cost)) } }
                        td.num { (money::sum(self.all().cost)) }
                    } }
                }
            }
        }
    }
}

/// The day, model and sums of a row.
fn part(view: &View, row: &UsageRow) -> Option<(Date, String, Sum)> {
    let date = time::zoned(row.start_time.as_ref()?, view.now())?.date();
    let amounts = row.amounts.as_ref()?;
    let sum = Sum { cost: nanos(amounts.cost.as_ref()), requests: amounts.request_count };
    Some((date, row.dimensions.as_ref()?.model.clone(), sum))
}
