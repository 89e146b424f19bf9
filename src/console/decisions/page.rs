//! The list as a page. `decisions.js` keeps it up to date by the ids and the data that are in it.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::{
    BEFORE_ALL, ROWS, Shown,
    filter::{self, Outcome},
    row,
};
use crate::{
    console::text::{number, time},
    domain::rbac::{Permission, TeamScope},
    rpc::proto::DecisionEvent,
};

/// The most teams that are offered to choose from. Past them, a name is typed.
const TEAMS: usize = 100;
const NOTE: &str = "input in tokens as estimated, output as asked for";

/// The page, below the head of the frame.
pub(super) fn body(shown: &Shown<'_>) -> Markup {
    let view = shown.view;
    let after = shown.last.unwrap_or(BEFORE_ALL);
    let mut events = shown.filter.pairs();
    events.extend([("topics", "decisions"), ("after", after)]);
    html! {
        (head(shown))
        (filters(shown))
        section.near #decisions data-events=(view.query("/events", &events))
            data-page=(view.query("/decisions", &shown.filter.pairs()))
            data-zone=(view.zone().iana_name().unwrap_or("UTC")) data-now=(view.now().timestamp().as_second())
            data-minute=(seconds(shown)) data-newer=(shown.newer) data-held[shown.is_held()] {
            h2.visually-hidden { "The list, the newest first" }
            @if is_gone(shown) {
                p.empty { strong { "This decision is not kept any more." } " The last 1,000 are, for 10 minutes." }
            }
            (empty(shown))
            div.table.table-long role="region" aria-label="Decisions, the newest first" tabindex="0"
                hidden[shown.rows.is_empty()] {
                table.stick.dense {
                    (row::head())
                    tbody { @for event in &shown.rows { (row::row(shown, event)) } }
                }
            }
            (foot(shown))
        }
    }
}

/// Whether a decision is asked for that is not there.
fn is_gone(shown: &Shown<'_>) -> bool {
    let open = &shown.query.open;
    !open.is_empty() && !shown.rows.iter().any(|event| event.id == *open)
}

fn head(shown: &Shown<'_>) -> Markup {
    let newest = shown.rows.first().map_or("", |event| event.id.as_str());
    let held = shown.is_held();
    html! {
        div.head {
            h1 { "Decisions" }
            p.quiet.live[held].live-held[held] #tally role="status" { (tally(shown)) }
            form.end #hold method="get" action=(shown.view.address("/decisions")) {
                @for (name, value) in shown.filter.pairs() {
                    @if !value.is_empty() { input type="hidden" name=(name) value=(value); }
                }
                @if held { button { "Follow" } }
                @else {
                    @if !shown.query.open.is_empty() { input type="hidden" name="open" value=(shown.query.open); }
                    input type="hidden" name="hold" value=(newest);
                    button { "Hold the list" }
                }
            }
        }
    }
}

/// The last minute in a line. `decisions.js` writes the same.
fn tally(shown: &Shown<'_>) -> String {
    let sum = |of: fn(&(i64, usize, usize)) -> usize| shown.minute.iter().map(of).sum::<usize>();
    let (all, denied) = (sum(|second| second.1), sum(|second| second.2));
    let mut line = match (all, denied) {
        (0, _) => "None in the last minute".to_owned(),
        (all, 0) => format!("{} in the last minute, none of them denied", count(all)),
        (all, denied) => format!("{} in the last minute, {} of them denied", count(all), count(denied)),
    };
    if shown.is_held() {
        // Writing to a string cannot fail.
        let _ = write!(line, "; held, {} newer", count(shown.newer));
    }
    line
}

fn count(number: usize) -> String {
    number::count(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The last minute for the script: `SECOND:ALL:DENIED`, separated by spaces.
fn seconds(shown: &Shown<'_>) -> String {
    let seconds = shown.minute.iter().map(|(second, all, denied)| format!("{second}:{all}:{denied}"));
    seconds.collect::<Vec<_>>().join(" ")
}

fn filters(shown: &Shown<'_>) -> Markup {
    let words = &shown.filter.words;
    html! {
        form.filters method="get" action=(shown.view.address("/decisions")) {
            @if shown.is_held() { input type="hidden" name="hold" value=(shown.query.hold); }
            (team(shown))
            (typed("key", "Key", &words.key, shown.rows.iter().map(|event| &event.key)))
            (typed("model", "Model", &words.model, shown.rows.iter().map(|event| &event.model)))
            div.field {
                label for="result" { "Result" }
                select id="result" name="result" {
                    @for outcome in Outcome::EACH {
                        option value=(outcome.word()) selected[outcome == shown.filter.outcome] { (outcome.name()) }
                    }
                }
            }
            div.field {
                label for="reason" { "Reason" }
                select id="reason" name="reason" {
                    option value="" { "all" }
                    @for reason in filter::reasons() {
                        option selected[Some(reason) == shown.filter.reason] { (filter::name(reason)) }
                    }
                }
            }
            button { "Show" }
        }
    }
}

/// Teams to choose from, as far as the reader may see them.
fn team(shown: &Shown<'_>) -> Markup {
    let asked = &shown.filter.words.team;
    let scope = shown.view.scope(Permission::ReadDecisions).unwrap_or(TeamScope::Teams(Default::default()));
    let teams = shown.view.snapshot().policy.teams.keys().filter(|team| scope.holds(team));
    let mut teams: Vec<&str> = teams.map(|team| &**team).take(TEAMS + 1).collect();
    teams.sort_unstable();
    // One that the policy has no more is still what is asked for.
    let is_other = !asked.is_empty() && !teams.contains(&asked.as_str());
    if teams.len() > TEAMS {
        return typed("team", "Team", asked, std::iter::empty());
    }
    html! {
        div.field {
            label for="team" { "Team" }
            select id="team" name="team" {
                option value="" { "all" }
                @if is_other { option selected { (asked) } }
                @for team in teams { option selected[team == asked] { (team) } }
            }
        }
    }
}

/// A name that is typed; what is in the list is offered.
fn typed<'e>(id: &str, label: &str, value: &str, seen: impl Iterator<Item = &'e String>) -> Markup {
    let mut seen: Vec<_> = seen.filter(|name| !name.is_empty()).collect();
    seen.sort_unstable();
    seen.dedup();
    html! {
        div.field {
            label for=(id) { (label) }
            input id=(id) name=(id) value=(value) placeholder="all" autocomplete="off" list={ (id) "-seen" };
            datalist id={ (id) "-seen" } { @for name in seen { option value=(name) {} } }
        }
    }
}

/// How decisions come to be here.
fn empty(shown: &Shown<'_>) -> Markup {
    html! {
        p.empty #none hidden[!shown.rows.is_empty()] {
            @if shown.is_held() {
                strong { "What was held is not kept any more." }
                " The last 1,000 decisions are, for 10 minutes."
            } @else {
                strong {
                    @if shown.filter.is_all() { "No decision has been made while someone watches." }
                    @else { "No decision of these has been made while someone watches." }
                }
                " Decisions appear here while a page like this is open, or was less than 30 seconds ago. Send one: "
                code { "tollgate authorize --team TEAM --model MODEL --input-tokens 100 --max-output-tokens 100" }
                ". Without a script, load the page again."
            }
        }
    }
}

fn foot(shown: &Shown<'_>) -> Markup {
    let now = shown.view.now();
    let last = shown.listed.checked_sub(1).and_then(|place| shown.rows.get(place));
    let since = last.and_then(|event: &&DecisionEvent| time::zoned(event.time.as_ref()?, now));
    let (first, end) = (shown.skipped + 1, shown.skipped + shown.listed);
    html! {
        p.pager {
            span {
                @if shown.is_held() && last.is_some() {
                    (count(first)) " to " (count(end)) " of " (count(shown.all)) "; "
                } @else if let Some(since) = since {
                    "At most " (ROWS) " are shown, these since " (time::second(&since, now)) " or later; "
                } @else { "At most " (ROWS) " are shown; " }
                (NOTE)
            }
            span #left-out hidden {}
            span.end {
                @if shown.skipped > 0 { a rel="first" href=(shown.page("")) { "Newest" } }
                a #older rel="next" href=(shown.page(last.map_or("", |last| last.id.as_str()))) hidden[end >= shown.all] { "Older" }
            }
        }
    }
}
