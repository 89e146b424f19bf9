//! The rows of a report: what each cost now and before, and for teams their budgets and refused requests.

use std::collections::HashMap;

use maud::{Markup, html};

use super::{
    asked::{Asked, DIMENSIONS},
    gather::Gathered,
    period::Period,
};
use crate::{
    console::{
        parts::{BudgetBar, Size},
        text::{
            money::{self, nanos},
            number,
        },
        view::View,
    },
    report_text::value,
    rpc::proto::{UsageAmounts, UsageRow},
};

/// The table, and how to get it as a file.
pub(super) fn section(view: &View, asked: &Asked, period: &Period, gathered: &Gathered) -> Markup {
    let refused = refused(gathered);
    html! {
        section {
            div.section-head {
                h2 #rows { "Cost by " (names(gathered).join(", ").to_lowercase()) }
                p.end.links.no-print {
                    @for (path, words) in [("/reports.csv", "CSV"), ("/reports.json", "JSON"), ("/reports.focus.csv", "FOCUS 1.2")] {
                        a href=(asked.address(view, path, &[("after", "")])) { (words) } " "
                    }
                }
            }
            @if gathered.usage.rows.is_empty() {
                p.empty {
                    strong { "Nothing was spent." }
                    @if asked.is_filtered() { " Nothing that the filters leave, at least." }
                    @else { " Usage is here as soon as a gateway reports what a request used, with " code { "RecordUsage" } "." }
                }
            } @else {
                div.table role="region" aria-label="Cost of each row" tabindex="0" {
                    table.stick {
                        (head(view, asked, period, gathered))
                        tbody { @for of in &gathered.usage.rows { (row(view, gathered, &refused, of)) } }
                        (foot(gathered, &refused))
                    }
                }
                (pager(view, asked, gathered))
            }
        }
    }
}

/// What rows are by, for people.
fn names(gathered: &Gathered) -> Vec<String> {
    let name = |path: &String| {
        let known = DIMENSIONS.iter().find(|(known, _)| known == path).map(|(_, words)| (*words).to_owned());
        known.unwrap_or_else(|| path.trim_start_matches("labels.").to_owned())
    };
    gathered.by.iter().map(name).collect()
}

/// Refused requests by team.
fn refused(gathered: &Gathered) -> HashMap<String, i64> {
    let mut refused = HashMap::new();
    for row in gathered.denials.iter().flatten() {
        let team = row.dimensions.as_ref().map(|of| of.team.clone()).unwrap_or_default();
        *refused.entry(team).or_default() += row.request_count;
    }
    refused
}

fn head(view: &View, asked: &Asked, period: &Period, gathered: &Gathered) -> Markup {
    let order = asked.text("order");
    let column = |by: &str, words: &str| {
        let is_it = order == by || order.is_empty() && by == "cost";
        html! {
            th.num scope="col" aria-sort=[is_it.then_some("descending")] {
                a href=(asked.address(view, "/reports", &[("order", by), ("after", "")])) { (words) }
            }
        }
    };
    html! {
        thead { tr {
            @for name in names(gathered) { th scope="col" { (name) } }
            (column("cost", &period.name()))
            @if gathered.before.is_some() { th.num scope="col" { (period.name_before()) } th.num scope="col" { "Change" } }
            (column("request_count", "Requests"))
            @if gathered.is_by_team() {
                @if gathered.denials.is_some() { th.num scope="col" { "Refused" } th.num scope="col" { "Of what was asked" } }
                th.num scope="col" { "Budget of the month" }
                th.no-print scope="col" { span.visually-hidden { "As a bar" } }
                th.num scope="col" { "Used" }
            } @else {
                (column("input_tokens", "Input tokens"))
                (column("output_tokens", "Output tokens"))
                th.num scope="col" { "Share" }
            }
        } }
    }
}

fn row(view: &View, gathered: &Gathered, refused: &HashMap<String, i64>, row: &UsageRow) -> Markup {
    let dimensions = row.dimensions.clone().unwrap_or_default();
    let values: Vec<String> = gathered.by.iter().map(|path| value(&dimensions, path)).collect();
    let amounts = row.amounts.clone().unwrap_or_default();
    let before = gathered.before.as_ref().map(|before| before.of(&values));
    let named = |path: &str, value: &str| {
        let is_team = path == "team" && view.snapshot().policy.teams.contains_key(value);
        html! {
            @if value.is_empty() { span.quiet { "none" } }
            @else if is_team { a href=(view.address(&format!("/teams/{value}"))) { (value) } }
            @else { (value) }
        }
    };
    html! {
        tr {
            @for (place, (path, value)) in gathered.by.iter().zip(&values).enumerate() {
                @if place == 0 { th scope="row" { (named(path, value)) } } @else { td.long { (named(path, value)) } }
            }
            (costs(&amounts, before))
            @if gathered.is_by_team() { (of_team(gathered, refused, &dimensions.team, &amounts)) }
            @else { (of_other(gathered, &amounts)) }
        }
    }
}

/// The cost now and before, and requests.
fn costs(amounts: &UsageAmounts, before: Option<Option<i128>>) -> Markup {
    let cost = nanos(amounts.cost.as_ref());
    html! {
        td.num { (money::sum(cost)) }
        @match before {
            None => {}
            Some(None) => { td.num { "–" } td.num { "–" } }
            Some(Some(before)) => {
                td.num { (money::sum(before)) }
                td.num { @if before == 0 && cost > 0 { "new" } @else { (number::change(cost, before).unwrap_or_else(|| "–".to_owned())) } }
            }
        }
        (number::cell(amounts.request_count))
    }
}

fn of_team(
    gathered: &Gathered,
    refused: &HashMap<String, i64>,
    team: &str,
    amounts: &UsageAmounts,
) -> Markup {
    let count = refused.get(team).copied().unwrap_or(0);
    let spend = gathered.budgets.get(team);
    let budget = spend.and_then(|spend| spend.budget.as_ref()).map(|budget| nanos(Some(budget)));
    let spent = spend.map_or(0, |spend| nanos(spend.spent.as_ref()));
    html! {
        @if gathered.denials.is_some() { (refusals(count, amounts.request_count)) }
        @if let Some(limit) = budget {
            td.num { (money::sum(limit)) }
            td.rowbar.no-print { (BudgetBar { size: Size::Thin, name: "", limit, spent, reserved: 0, pace: None }) }
            td.num { (number::share(spent, limit).unwrap_or_else(|| "–".to_owned())) }
        } @else { td.num { "–" } td.rowbar.no-print {} td.num { "–" } }
    }
}

fn refusals(refused: i64, answered: i64) -> Markup {
    let share = number::share(refused.into(), i128::from(refused) + i128::from(answered));
    html! { (number::cell(refused)) td.num { (share.unwrap_or_else(|| "–".to_owned())) } }
}

fn of_other(gathered: &Gathered, amounts: &UsageAmounts) -> Markup {
    let total = gathered.usage.total.as_ref().map_or(0, |total| nanos(total.cost.as_ref()));
    let share = number::share(nanos(amounts.cost.as_ref()), total);
    html! {
        (number::cell(amounts.input_tokens))
        (number::cell(amounts.output_tokens))
        td.num { (share.unwrap_or_else(|| "–".to_owned())) }
    }
}

/// The sums of all rows, of all pages.
fn foot(gathered: &Gathered, refused: &HashMap<String, i64>) -> Markup {
    let total = gathered.usage.total.clone().unwrap_or_default();
    let before = gathered.before.as_ref().map(|before| Some(nanos(before.total.cost.as_ref())));
    let all: HashMap<String, i64> = [(String::new(), refused.values().sum())].into();
    html! {
        tfoot { tr {
            th scope="row" { "All" }
            @for _ in gathered.by.iter().skip(1) { td {} }
            (costs(&total, before))
            @if gathered.is_by_team() { (of_team(gathered, &all, "", &total)) } @else { (of_other(gathered, &total)) }
        } }
    }
}

fn pager(view: &View, asked: &Asked, gathered: &Gathered) -> Markup {
    let next = gathered.usage.next_page_token.as_str();
    let is_first = asked.text("after").is_empty();
    html! {
        @if !next.is_empty() || !is_first {
            p.pager {
                span { (number::count(i64::try_from(gathered.usage.rows.len()).unwrap_or(0))) " rows of more; downloads have all of them" }
                span.end {
                    @if !is_first { a href=(asked.address(view, "/reports", &[("after", "")])) { "First page" } }
                    @if !next.is_empty() { a rel="next" href=(asked.address(view, "/reports", &[("after", next)])) { "After" } }
                }
            }
        }
    }
}
