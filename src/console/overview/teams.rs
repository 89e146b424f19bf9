//! Each team with its budget of the month, by what ends first.

use std::collections::HashMap;

use jiff::Zoned;
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    Query,
    gather::{Budgeted, Gathered},
};
use crate::{
    console::{
        decisions,
        parts::{Badge, BudgetBar, Meaning, Size},
        text::{
            money::{self, nanos},
            number, time,
        },
        view::View,
    },
    domain::rbac::Permission,
};

/// How many teams are on a page.
const PAGE: usize = 50;

/// What teams are sorted by: the most of it first, but names from A, and what is left or ends from the least or the soonest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sort {
    /// What ends first.
    #[default]
    Pace,
    Team,
    Spent,
    Remaining,
    Requests,
    Refused,
}

impl Sort {
    /// As `aria-sort` says it.
    const fn order(self) -> &'static str {
        match self {
            Self::Pace | Self::Team | Self::Remaining => "ascending",
            Self::Spent | Self::Requests | Self::Refused => "descending",
        }
    }
}

/// One team.
struct Line<'g> {
    team: &'g str,
    budget: Option<&'g Budgeted>,
    spent: i128,
    requests: i64,
    refused: i64,
}

/// The table with its search and its pages.
pub(super) fn section(view: &View, asked: &Query, gathered: &Gathered) -> Markup {
    let lines = lines(view, asked, gathered);
    let pages = lines.len().div_ceil(PAGE).max(1);
    let page = asked.page.clamp(1, pages);
    let shown = lines.iter().skip((page - 1) * PAGE).take(PAGE);
    let pace = gathered.present.then(|| through(gathered, view.now()));
    html! {
        section {
            div.section-head {
                h2 #teams { @if asked.alone { (time::month(gathered.first)) } @else { "Teams" } }
                @if let Some((part, whole)) = pace {
                    p {
                        "The mark on each bar is where the calendar is: "
                        (number::share(part, whole).unwrap_or_default()) " of the month."
                    }
                }
                @if pages > 1 || !asked.q.is_empty() { div.end { (search(view, asked)) } }
            }
            @if lines.is_empty() {
                p.empty {
                    @if asked.q.is_empty() && !view.snapshot().policy.teams.is_empty() { strong { "There is no team that you may see." } }
                    @else if asked.q.is_empty() { strong { "There is no team." } " The policy names them, as " code { "[teams.NAME]" } "." }
                    @else { strong { "No team has “" (asked.q) "” in its name." } }
                }
            } @else {
                @if view.may(Permission::ReadSpend) {
                    div.table role="region" aria-label="Teams and their budgets" tabindex="0" {
                        table.stack.stick #live-teams data-live role="table" {
                            (head(view, asked, gathered))
                            tbody role="rowgroup" { @for line in shown { (row(view, gathered, line)) } }
                            @if asked.q.is_empty() { (foot(gathered, &lines)) }
                        }
                    }
                } @else { (without_spend(view, shown)) }
                @if pages > 1 { (pager(view, asked, page, pages, lines.len())) }
            }
        }
    }
}

/// The teams, for readers who may not see what they spend.
fn without_spend<'l>(view: &View, lines: impl Iterator<Item = &'l Line<'l>>) -> Markup {
    let teams = &view.snapshot().policy.teams;
    let models = |line: &Line<'_>| {
        let models = teams.get(line.team).map(|team| team.models.iter().map(ToString::to_string));
        models.map(|models| models.collect::<Vec<_>>().join(", ")).unwrap_or_default()
    };
    html! {
        div.table role="region" aria-label="Teams" tabindex="0" {
            table.stick {
                thead { tr { th scope="col" { "Team" } th scope="col" { "Models" } } }
                tbody {
                    @for line in lines {
                        tr {
                            th scope="row" {
                                a href=(view.address(&format!("/teams/{}", line.team))) { (line.team) } " "
                                @if let Some(badge) = line.badge(view) { (badge) }
                            }
                            td.long { (models(line)) }
                        }
                    }
                }
            }
        }
    }
}

/// Every team that the reader may see, whether or not it has a budget or spent anything.
fn lines<'g>(view: &'g View, asked: &Query, gathered: &'g Gathered) -> Vec<Line<'g>> {
    let budgets: HashMap<&str, &Budgeted> =
        gathered.budgets.iter().map(|budget| (budget.team.as_str(), budget)).collect();
    let teams = view.snapshot().policy.teams.keys().filter(|team| view.sees(team));
    let named = teams.filter(|team| asked.q.is_empty() || team.contains(asked.q.as_str()));
    let mut lines: Vec<_> = named
        .map(|team| {
            let budget = budgets.get(&**team).copied();
            let cost = gathered.by_team.get(&**team).map_or(0, |amounts| nanos(amounts.cost.as_ref()));
            let counted = if gathered.present { &gathered.today } else { &gathered.by_team };
            Line {
                team,
                budget,
                spent: budget.map_or(cost, |budget| budget.spent),
                requests: counted.get(&**team).map_or(0, |amounts| amounts.request_count),
                refused: gathered.refused.get(&**team).copied().unwrap_or(0),
            }
        })
        .collect();
    lines.sort_by(|a, b| a.team.cmp(b.team));
    lines.sort_by(|a, b| match asked.sort {
        Sort::Team => std::cmp::Ordering::Equal,
        Sort::Pace => a.urgency().cmp(&b.urgency()),
        Sort::Spent => b.spent.cmp(&a.spent),
        Sort::Remaining => a.remaining().cmp(&b.remaining()),
        Sort::Requests => b.requests.cmp(&a.requests),
        Sort::Refused => b.refused.cmp(&a.refused),
    });
    lines
}

impl Line<'_> {
    fn remaining(&self) -> i128 {
        self.budget.map_or(i128::MAX, |budget| budget.limit - budget.spent - budget.reserved)
    }

    /// What is spent comes first, then what ends, the soonest first, then what has the least left, by its share.
    fn urgency(&self) -> (u8, i128) {
        let Some(budget) = self.budget else { return (3, -self.spent) };
        let left = |amount: i128| amount * 10_000 / budget.limit.max(1);
        match &budget.ends {
            _ if budget.spent >= budget.limit => (0, left(self.remaining())),
            Some(ends) => (1, ends.timestamp().as_second().into()),
            None => (2, left(self.remaining())),
        }
    }

    fn badge(&self, view: &View) -> Option<Badge> {
        let paused = view.may(Permission::ReadPauses)
            && view.snapshot().pauses.iter().any(|(target, _)| target.covers(self.team, None, None));
        let budget = self.budget;
        let over = budget.filter(|budget| budget.spent >= budget.limit);
        match (over, paused, budget.and_then(|budget| budget.ends.as_ref())) {
            (_, true, _) => Some(Badge(Meaning::Paused, "paused".to_owned())),
            (Some(budget), ..) if budget.refuses() => Some(Badge(Meaning::Over, "budget spent".to_owned())),
            (Some(_), ..) => Some(Badge(Meaning::Over, "over budget, refuses nothing".to_owned())),
            (None, _, Some(_)) => Some(Badge(Meaning::Warn, "too fast".to_owned())),
            (None, ..) => None,
        }
    }
}

/// How much of the month is over, in seconds, and how long it is.
pub(super) fn through(gathered: &Gathered, now: &Zoned) -> (i128, i128) {
    let at = |date: jiff::civil::Date| {
        date.to_zoned(now.time_zone().clone()).map_or(0, |at| i128::from(at.timestamp().as_second()))
    };
    let (first, end) = (at(gathered.first), at(gathered.end));
    (i128::from(now.timestamp().as_second()) - first, end - first)
}

fn head(view: &View, asked: &Query, gathered: &Gathered) -> Markup {
    let column = |sort: Sort, words: &str, class: &str| {
        let is_it = asked.sort == sort;
        html! {
            th role="columnheader" scope="col" class=(class)
                aria-sort=[is_it.then_some(sort.order())] {
                a href=(address(view, asked, sort, 1)) { (words) }
            }
        }
    };
    let counted = if gathered.present { "Requests today" } else { "Requests" };
    html! {
        thead role="rowgroup" { tr role="row" {
            (column(Sort::Team, "Team", ""))
            th role="columnheader" scope="col" { "Budget of the month" }
            @if gathered.present { (column(Sort::Pace, "At this pace", "")) }
            (column(Sort::Spent, "Spent", "num"))
            @if gathered.present { th.num role="columnheader" scope="col" { "Reserved" } }
            (column(Sort::Remaining, "Remaining", "num"))
            th.num role="columnheader" scope="col" { "Budget" }
            (column(Sort::Requests, counted, "num"))
            @if gathered.present { (column(Sort::Refused, "Refused", "num")) }
        } }
    }
}

fn row(view: &View, gathered: &Gathered, line: &Line<'_>) -> Markup {
    let budget = line.budget;
    let (part, whole) = through(gathered, view.now());
    let pace = budget.map(|budget| budget.limit * part / whole.max(1)).filter(|_| gathered.present);
    html! {
        tr role="row" {
            th role="rowheader" scope="row" {
                a href=(view.address(&format!("/teams/{}", line.team))) { (line.team) } " "
                @if gathered.present { @if let Some(badge) = line.badge(view) { (badge) } }
            }
            td.rowbar role="cell" {
                @if let Some(Budgeted { limit, spent, reserved, .. }) = budget {
                    (BudgetBar { size: Size::Row, name: line.team, limit: *limit, spent: *spent, reserved: *reserved, pace })
                } @else { span.quiet { "no budget of the month" } }
            }
            @if gathered.present { td.two role="cell" data-label="At this pace" { (forecast(view, gathered, budget)) } }
            td.num role="cell" data-label="Spent" { (money::sum(line.spent)) }
            @if gathered.present {
                td.num role="cell" data-label="Reserved" { (or_dash(budget.map(|budget| budget.reserved))) }
            }
            td.num role="cell" data-label="Remaining" {
                span.forecast-over[budget.is_some() && line.remaining() < 0] { (or_dash(budget.map(|_| line.remaining()))) }
            }
            td.num role="cell" data-label="Budget" { (or_dash(budget.map(|budget| budget.limit))) }
            td.num role="cell" data-label="Requests" { (number::count(line.requests)) }
            @if gathered.present { td.num role="cell" data-label="Refused today" { (refused(view, line)) } }
        }
    }
}

/// How many were refused today. What is refused now, the page of decisions shows.
fn refused(view: &View, line: &Line<'_>) -> Markup {
    let count = number::count(line.refused);
    let address = decisions::address(view, line.team, &[("result", "denied")]).filter(|_| line.refused > 0);
    html! { @if let Some(address) = address { a href=(address) { (count) } } @else { (count) } }
}

fn or_dash(amount: Option<i128>) -> Markup {
    match amount {
        Some(amount) => money::sum(amount),
        None => html! { "–" },
    }
}

/// How the month ends at this pace.
pub(super) fn forecast(view: &View, gathered: &Gathered, budget: Option<&Budgeted>) -> Markup {
    let Some(budget) = budget else { return html! { "–" } };
    let last = time::short_day(gathered.end.yesterday().unwrap_or(gathered.end));
    let projected = budget.projected.map(money::about);
    match (&budget.ends, projected) {
        (_, Some(projected)) if budget.spent >= budget.limit => {
            html! { span.forecast.forecast-over { (projected) " by " (last) } }
        }
        (Some(ends), _) => {
            html! { span.forecast.forecast-warn { "ends about " (time::day(ends.date(), view.now().date())) } }
        }
        (None, Some(projected)) => html! { span.forecast { (projected) " by " (last) } },
        (None, None) => html! { span.quiet { "not known" } },
    }
}

/// The sums of all teams.
fn foot(gathered: &Gathered, lines: &[Line<'_>]) -> Markup {
    let sum = |of: fn(&Budgeted) -> i128| lines.iter().filter_map(|line| line.budget.map(of)).sum::<i128>();
    html! {
        tfoot role="rowgroup" { tr role="row" {
            th role="rowheader" scope="row" { "All teams" }
            td.rowbar role="cell" {}
            @if gathered.present { td.two role="cell" {} }
            td.num role="cell" data-label="Spent" { (money::sum(lines.iter().map(|line| line.spent).sum())) }
            @if gathered.present { td.num role="cell" data-label="Reserved" { (money::sum(sum(|budget| budget.reserved))) } }
            td.num role="cell" data-label="Remaining" {
                (money::sum(sum(|budget| budget.limit - budget.spent - budget.reserved)))
            }
            td.num role="cell" data-label="Budgets" { (money::sum(sum(|budget| budget.limit))) }
            td.num role="cell" data-label="Requests" { (number::count(lines.iter().map(|line| line.requests).sum())) }
            @if gathered.present {
                td.num role="cell" data-label="Refused today" { (number::count(lines.iter().map(|line| line.refused).sum())) }
            }
        } }
    }
}

fn search(view: &View, asked: &Query) -> Markup {
    html! {
        form.filters method="get" action=(view.address(asked.path())) role="search" {
            @if !asked.month.is_empty() { input type="hidden" name="month" value=(asked.month); }
            div.field {
                label.visually-hidden for="q" { "Part of a team's name" }
                input id="q" name="q" value=(asked.q) placeholder="all teams" autocomplete="off";
            }
            button { "Search" }
        }
    }
}

fn pager(view: &View, asked: &Query, page: usize, pages: usize, teams: usize) -> Markup {
    html! {
        p.pager {
            span { (number::count(i64::try_from(teams).unwrap_or(0))) " teams, page " (page) " of " (pages) }
            span.end {
                @if page > 1 { a rel="prev" href=(address(view, asked, asked.sort, page - 1)) { "Before" } }
                @if page < pages { a rel="next" href=(address(view, asked, asked.sort, page + 1)) { "After" } }
            }
        }
    }
}

/// The same page, sorted otherwise or turned over.
fn address(view: &View, asked: &Query, sort: Sort, page: usize) -> String {
    let sort = match sort {
        Sort::Pace => "",
        Sort::Team => "team",
        Sort::Spent => "spent",
        Sort::Remaining => "remaining",
        Sort::Requests => "requests",
        Sort::Refused => "refused",
    };
    let page = if page > 1 { page.to_string() } else { String::new() };
    view.query(asked.path(), &[("month", &asked.month), ("sort", sort), ("q", &asked.q), ("page", &page)])
}
