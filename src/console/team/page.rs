//! The page of a team: the answer first, then its course, who spends, what was refused, and what holds.

use jiff::civil::Date;
use maud::{Markup, html};

use super::{
    Query, aside,
    course::{self, Course},
    gather::{Gathered, Question, Spend},
    keys, limits, path, refusals,
    standing::Standing,
};
use crate::{
    console::{
        overview::month_before,
        parts::{Badge, Meaning, live},
        text::{
            money::{self, nanos},
            number, time,
        },
    },
    rpc::proto::{LimitMode, Pause, pause_target::Target},
};

/// The page, below the head of the frame.
pub(super) fn body(question: Question<'_>, asked: &Query, gathered: &Gathered) -> Markup {
    let stop = stop(gathered);
    html! {
        (head(question, gathered, stop.is_some()))
        div #live-state data-live {
            @if let Some(pause) = stop { (banner(question, pause)) }
            @else if is_shadow(gathered) { (shadow(question)) }
        }
        div #live-whole data-live-class .is-paused[stop.is_some()] {
            div.split {
                section #live-course data-live {
                    @match &gathered.spend {
                        Some(spend) => (course(question, spend)),
                        None => (without_spend(question)),
                    }
                }
                div #live-aside data-live { (aside::sections(question, gathered)) }
            }
            @if let Some(spend) = &gathered.spend {
                div #live-breakdowns data-live .pair.breakdowns {
                    @for by in &spend.breakdowns { (by.shown(question, asked)) }
                }
                div #live-refusals data-live { (refusals::section(question, spend)) }
            }
            @if let Some(found) = &gathered.keys { (keys::section(question, found)) }
        }
    }
}

/// The pause of the team as a whole.
fn stop(gathered: &Gathered) -> Option<&Pause> {
    gathered.pauses.iter().find(|pause| {
        let target = pause.target.as_ref().and_then(|target| target.target.as_ref());
        matches!(target, Some(Target::Team(_) | Target::Organization(_)))
    })
}

fn is_shadow(gathered: &Gathered) -> bool {
    let limits = gathered.words.as_ref().and_then(|words| words.limits.as_ref());
    limits.is_some_and(|limits| limits.mode() == LimitMode::Shadow)
}

fn head(question: Question<'_>, gathered: &Gathered, is_paused: bool) -> Markup {
    let Question { view, team, first, .. } = question;
    let before = month_before(first, question.today());
    let to = |month: Date| {
        let month = if month == question.today().first_of_month() { None } else { Some(month) };
        let month = month.map(|month| month.strftime("%Y-%m").to_string()).unwrap_or_default();
        view.query(&path(team), &[("month", &month)])
    };
    html! {
        p.crumbs {
            a href=(view.address("/teams")) { "Teams" } "Team"
        }
        div.head {
            h1 { (team) }
            @if question.is_present() {
                span #live-badge data-live { @if let Some(badge) = badge(gathered, is_paused) { " " (badge) } }
                p.quiet { (time::minute(view.now(), view.now())) ", " (time::day(question.today(), question.today())) }
            } @else { p.quiet { (time::month(first)) } }
            @if gathered.spend.is_some() {
                div.end {
                    @if let Some(before) = before { a href=(to(before)) { (before.strftime("%B")) } }
                    @if !question.is_present() { " " a href=(to(question.today())) { "This month" } }
                    @else { (live::mark(view, "budgets", team)) }
                }
            }
        }
    }
}

/// The worst of what is not as it should be.
fn badge(gathered: &Gathered, is_paused: bool) -> Option<Badge> {
    let budgets = || gathered.spend.iter().flat_map(|spend| &spend.budgets);
    let spent = || budgets().filter(|budget| budget.spent >= budget.limit);
    let (meaning, words) = match () {
        () if is_paused => (Meaning::Paused, "paused"),
        () if spent().any(Standing::refuses) => (Meaning::Over, "budget spent"),
        () if spent().next().is_some() => (Meaning::Over, "over budget, refuses nothing"),
        () if budgets().any(|budget| budget.ends.is_some()) => (Meaning::Warn, "too fast"),
        () if is_shadow(gathered) => (Meaning::Plain, "in shadow"),
        () => return None,
    };
    Some(Badge(meaning, words.to_owned()))
}

fn banner(question: Question<'_>, pause: &Pause) -> Markup {
    let is_all =
        matches!(pause.target.as_ref().and_then(|of| of.target.as_ref()), Some(Target::Organization(_)));
    html! {
        div.banner.banner-paused {
            p {
                strong { @if is_all { "Everything is paused." } @else { (question.team) " is paused." } }
                " " (aside::said(question, pause)) ". "
                "All requests of " (question.team) " are denied until it is resumed."
            }
        }
    }
}

fn shadow(question: Question<'_>) -> Markup {
    html! {
        div.banner {
            p {
                strong { (question.team) " is in shadow mode." }
                " What the policy says of it is counted and reported, and denies nothing, except where its keys have limits of their own. "
                "Without " code { "mode = \"shadow\"" } " in the policy it holds."
            }
        }
    }
}

/// The answer, and what remains of each budget.
fn course(question: Question<'_>, spend: &Spend) -> Markup {
    let own = spend.budgets.first();
    html! {
        h2 #course .visually-hidden { "The budget" }
        p.answer {
            @match own {
                Some(budget) => {
                    span.big { (money::sum(budget.spent)) " " span.of { "of " (money::sum(budget.limit)) " " (budget.within()) } }
                    (course::sentence(question, budget))
                    // Another may end before it.
                    @for other in spend.budgets.iter().skip(1).filter(|other| other.spent >= other.limit || other.ends.is_some()) {
                        " " (other.name()) ": " (course::sentence(question, other))
                    }
                }
                None => {
                    span.big { (money::sum(of_month(question, spend))) " " span.of { "in " (question.first.strftime("%B")) } }
                    (question.team) " has no budget of its own; the organization's holds."
                }
            }
        }
        @if spend.spooled.0 > 0 {
            p.quiet {
                (number::of(spend.spooled.0, "report")) " of usage (" (money::exact(spend.spooled.1)) ") wait to be booked. "
                "Replicas keep them until the store has taken them."
            }
        }
        @for (place, budget) in spend.budgets.iter().enumerate() {
            @if place > 0 {
                div.section-head.gap-large {
                    h2 { (budget.name()) }
                    p { (money::sum(budget.spent)) " of " (money::sum(budget.limit)) ". " (course::sentence(question, budget)) }
                }
            }
            (Course::of(question, budget, spend).figure(place == 0))
        }
        @if question.is_present() { (limits::section(question, &spend.limits)) }
    }
}

/// What the days of the month cost.
fn of_month(question: Question<'_>, spend: &Spend) -> i128 {
    let start = question.begin(question.first).timestamp().as_second();
    let days = spend.days.iter().filter(|row| row.start_time.as_ref().is_some_and(|at| at.seconds >= start));
    days.filter_map(|row| Some(nanos(row.amounts.as_ref()?.cost.as_ref()))).sum()
}

/// For readers who may not see what teams spend.
fn without_spend(question: Question<'_>) -> Markup {
    let limits = question.view.snapshot().policy.teams.get(question.team);
    let models = limits.map_or(0, |team| team.models.len());
    html! {
        p.answer {
            span.big { (question.team) }
            "may use " (number::of(i64::try_from(models).unwrap_or(0), "model"))
            ", or patterns of them. You may see what the policy says of it, and not what it spends."
        }
    }
}
