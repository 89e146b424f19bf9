//! The overview as a page.

use jiff::ToSpan as _;
use maud::{Markup, html};

use super::{
    Query, attention, days,
    gather::{Budgeted, Gathered},
    month_before, service, teams,
};
use crate::{
    console::{
        parts::{BudgetBar, Size, live},
        team::Then,
        text::{
            money::{self, nanos},
            number, time,
        },
        view::View,
    },
    domain::rbac::Permission,
    rpc::proto::UsageAmounts,
};

/// The page, below the head of the frame.
pub(super) fn body(view: &View, asked: &Query, gathered: &Gathered, title: &str) -> Markup {
    let may_read = view.may(Permission::ReadSpend);
    html! {
        (head(view, asked, gathered, title))
        div.split.split-aside {
            section #live-answer data-live {
                h2 #org .visually-hidden { "The organization's budget" }
                @if may_read {
                    (answer(view, gathered))
                    @if gathered.present { (tiles(view, gathered)) }
                } @else { (without_spend(view)) }
            }
            section.aside #live-now data-live { (attention::list(view, gathered)) (service::lines(&gathered.now)) }
            @if may_read { (days::section(view, gathered)) }
        }
        (teams::section(view, asked, gathered))
    }
}

/// The teams alone, below the head of the frame.
pub(super) fn alone(view: &View, asked: &Query, gathered: &Gathered) -> Markup {
    html! {
        (head(view, asked, gathered, "Teams"))
        (teams::section(view, asked, gathered))
    }
}

fn head(view: &View, asked: &Query, gathered: &Gathered, title: &str) -> Markup {
    // Earlier months differ in nothing but spend.
    let before = month_before(gathered.first, view.now().date()).filter(|_| view.may(Permission::ReadSpend));
    let month = |date: jiff::civil::Date| date.strftime("%Y-%m").to_string();
    html! {
        div.head {
            h1 { (title) }
            @if gathered.present {
                p.quiet {
                    (time::minute(view.now(), view.now())) ", " (time::day(view.now().date(), view.now().date()))
                    ", day " (view.now().day()) " of " (gathered.first.days_in_month())
                }
            }
            div.end {
                @if let Some(before) = before {
                    a href=(view.query(asked.path(), &[("month", &month(before))])) { (before.strftime("%B")) }
                }
                @if !gathered.present { " " a href=(view.address(asked.path())) { "This month" } }
                @if gathered.present { (live::mark(view, "budgets,alerts", "")) }
            }
        }
    }
}

/// For readers who may not see what is spent.
fn without_spend(view: &View) -> Markup {
    html! {
        p.answer {
            span.big { (view.snapshot().policy.organization.id) }
            "You may see what needs attention, as far as it concerns you, and not what is spent."
        }
    }
}

/// One number, and one or two sentences.
fn answer(view: &View, gathered: &Gathered) -> Markup {
    let cost = gathered.by_team.values().map(|amounts| nanos(amounts.cost.as_ref())).sum::<i128>();
    let Some(budget) = gathered.budgets.iter().find(|budget| budget.team.is_empty()) else {
        return html! {
            p.answer {
                span.big { (money::sum(cost)) " " span.of { "spent" @if gathered.present { " so far" } } }
                "The organization has no budget of the month, or you may not see it."
            }
        };
    };
    let Budgeted { limit, spent, reserved, .. } = *budget;
    let (part, whole) = teams::through(gathered, view.now());
    let pace = gathered.present.then(|| limit * part / whole.max(1));
    html! {
        p.answer {
            span.big { (money::sum(spent)) " " span.of { "of " (money::sum(limit)) " spent" } }
            @if gathered.present { (course(view, gathered, budget)) }
        }
        div.tight {
            (BudgetBar { size: Size::Large, name: "The organization", limit, spent, reserved, pace })
            ul.legend {
                li { span.key.key-spent {} "Spent " b { (money::sum(spent)) } }
                @if gathered.present { li { span.key.key-reserved {} "Reserved " b { (money::sum(reserved)) } } }
                li { span.key.key-left {} "Remaining " b { (money::sum(limit - spent - reserved)) } }
                @if let Some(pace) = pace { li { span.key.key-pace {} "Pace " b { (money::short(pace)) } } }
            }
        }
    }
}

/// How the month ends.
fn course(view: &View, gathered: &Gathered, budget: &Budgeted) -> Markup {
    let last = time::short_day(gathered.end.yesterday().unwrap_or(gathered.end));
    let today = view.now().date();
    match (&budget.ends, budget.projected) {
        _ if budget.spent >= budget.limit => html! {
            strong { "Nothing is left." }
            @match budget.then {
                Some(Then::Warned) => " The budget warns only, so requests are allowed.",
                Some(Then::Counted) => " The budget is in shadow mode, so requests are allowed.",
                _ => " Requests that cost anything are denied until the month ends.",
            }
        },
        (Some(ends), projected) => html! {
            "At this pace it ends about " strong { (time::day(ends.date(), today)) }
            @match budget.then {
                Some(Then::Warned) => ", then requests are allowed with a warning.",
                Some(Then::Counted) => ". The budget is in shadow mode, so nothing is denied then.",
                _ => ", then requests are denied.",
            }
            @if let Some(projected) = projected {
                @if budget.refuses() { " Without the budget it would be about " } @else { " It would be about " }
                strong { (money::about(projected)) } " by " (last) "."
            }
        },
        (None, Some(0)) => html! { "Nothing was spent yet." },
        (None, Some(projected)) => html! {
            "On course for about " strong { (money::about(projected)) } " by " (last) ", inside the budget."
        },
        (None, None) => html! { "There is no forecast yet: it rests on the last days." },
    }
}

fn tiles(view: &View, gathered: &Gathered) -> Markup {
    let of_day = |days_ago: i64| {
        let date = view.now().date().saturating_sub(days_ago.days());
        let rows = gathered.days.iter().filter(|row| {
            let start = row.start_time.as_ref().and_then(|start| time::zoned(start, view.now()));
            start.is_some_and(|start| start.date() == date)
        });
        rows.filter_map(|row| Some(nanos(row.amounts.as_ref()?.cost.as_ref()))).sum::<i128>()
    };
    let requests = total(gathered.today.values(), |amounts| amounts.request_count);
    let refused: i64 = gathered.refused.values().sum();
    let share = number::share(refused.into(), (requests + refused).into());
    html! {
        dl.tiles {
            div {
                dt { "Spent today" } dd { (money::sum(of_day(0))) }
                @if view.now().day() > 1 { dd { (money::short(of_day(1))) " all of yesterday" } }
            }
            div { dt { "Requests today" } dd { (number::count(requests)) } dd { "with a report" } }
            div {
                dt { "Refused today" }
                dd {
                    @if refused > 0 && view.may(Permission::ReadDecisions) {
                        a href=(view.query("/decisions", &[("result", "denied")])) { (number::count(refused)) }
                    } @else { (number::count(refused)) }
                }
                dd { @if let Some(share) = share { (share) " of what was asked" } }
            }
            @if let Some(unsettled) = gathered.unsettled {
                div { dt { "Unsettled" } dd { (number::count(unsettled)) } dd { "in flight, or never reported" } }
            }
        }
    }
}

fn total<'a>(rows: impl Iterator<Item = &'a UsageAmounts>, of: fn(&UsageAmounts) -> i64) -> i64 {
    rows.map(of).fold(0, i64::saturating_add)
}
