//! A report as a page.

use maud::{Markup, html};

use super::{
    asked::{Asked, FILTERS, Wrong},
    denials, form,
    gather::Gathered,
    period::Period,
    rows, spend,
};
use crate::console::{
    text::{
        money::{self, nanos},
        number, time,
    },
    view::View,
};

/// Below this many billionths of a dollar, what moved is not worth a sentence.
const MOVED: i128 = 10_000_000;

/// The page, below the head of the frame.
pub(super) fn body(view: &View, asked: &Asked, period: &Period, gathered: &Gathered) -> Markup {
    html! {
        (head(view, asked, period))
        (answer(view, period, gathered))
        (filtered(asked))
        (form::form(view, asked, Some(period), None))
        (rows::section(view, asked, period, gathered))
        (spend::section(view, period, gathered))
        (denials::section(gathered))
    }
}

/// The page in place of a report that cannot be.
pub(super) fn wrong(view: &View, asked: &Asked, wrong: &Wrong) -> Markup {
    html! {
        div.head {
            h1 { "Reports" }
            div.end.no-print { (form::periods(view, asked, None)) }
        }
        div.banner.banner-over role="alert" {
            p { strong { "There is no such report." } " What is wrong stands at its field." }
        }
        (form::form(view, asked, None, Some(wrong)))
    }
}

fn head(view: &View, asked: &Asked, period: &Period) -> Markup {
    let organization = &view.snapshot().policy.organization.id;
    let zone = view.zone().iana_name().unwrap_or("UTC");
    html! {
        div.head {
            h1 { (period.title()) }
            div.end.no-print { (form::periods(view, asked, Some(period.interval))) }
            p.only-print.small {
                "Tollgate, organization " (organization) "; times of " (zone) "; made " (time::minute(view.now(), view.now()))
                " on " (time::day(view.now().date(), view.now().date())) " " (view.now().year())
            }
        }
    }
}

/// What it cost, and what moved.
fn answer(view: &View, period: &Period, gathered: &Gathered) -> Markup {
    let total = gathered.usage.total.as_ref().map_or(0, |total| nanos(total.cost.as_ref()));
    let before = gathered.before.as_ref().map(|before| nanos(before.total.cost.as_ref()));
    let change = before.and_then(|before| number::change(total, before));
    html! {
        p.answer {
            span.big {
                (money::sum(total)) " "
                span.of { (period.within()) @if let Some(change) = change { ", " (change) " on " (period.other()) } }
            }
            @match before {
                None => { "There is nothing to compare it with: usage of " (period.other()) " is not kept. " (movers(gathered, false)) }
                Some(0) if total > 0 => { "Nothing was spent in " (period.other()) ". " (movers(gathered, false)) }
                Some(_) => { (movers(gathered, true)) }
            }
            (of_month(view, period, gathered))
        }
    }
}

/// Who spent most, and, where there is something to compare with, whose spend changed most.
fn movers(gathered: &Gathered, compares: bool) -> Markup {
    let teams = &gathered.teams;
    let Some((most, now, before)) = teams.first().filter(|(_, now, _)| *now > 0 && teams.len() > 1) else {
        return html! {};
    };
    let moved = teams.iter().max_by_key(|(_, now, before)| (now - before).abs());
    let moved = moved.filter(|(team, now, before)| team != most && (now - before).abs() >= MOVED);
    html! {
        "Most of it by " strong { (most) } @if compares { (by_how_much(*now - *before)) } ". "
        @if let Some((team, now, before)) = moved.filter(|_| compares) {
            strong { (team) } " moved most" (by_how_much(now - before)) ". "
        }
    }
}

fn by_how_much(change: i128) -> Markup {
    html! {
        @match change {
            MOVED.. => { ", up " (money::short(change)) }
            0 => { ", as before" }
            ..=-10_000_000 => { ", down " (money::short(-change)) }
            _ => { ", about as before" }
        }
    }
}

/// What the organization spent of its budget in the month.
fn of_month(view: &View, period: &Period, gathered: &Gathered) -> Markup {
    let Some(spend) = gathered.budgets.get("") else { return html! {} };
    let Some(budget) = &spend.budget else { return html! {} };
    let Some(month) = period.month() else { return html! {} };
    let present = month == view.now().date().first_of_month();
    html! {
        " " (month.strftime("%B")) @if present { " stands at " } @else { " ended at " }
        (money::short(nanos(spend.spent.as_ref()))) " of " (money::short(nanos(Some(budget)))) "."
    }
}

/// What the report is narrowed to, also on paper.
fn filtered(asked: &Asked) -> Markup {
    let named = FILTERS.iter().map(|(name, words)| (words, asked.values(name)));
    let named: Vec<_> = named.filter(|(_, values)| !values.is_empty()).collect();
    html! {
        @if !named.is_empty() {
            p.quiet.gap-small {
                "Only of "
                @for (place, (words, values)) in named.iter().enumerate() {
                    @if place > 0 { "; " }
                    (words.to_lowercase()) " " (values.join(", "))
                }
                "."
            }
        }
    }
}
