//! One decision in the list. `decisions.js` makes the same of an event.

use maud::{Markup, html};

use super::{Shown, amount, explain, filter};
use crate::{
    console::{
        parts::{Badge, Meaning},
        text::{
            money::{self, nanos},
            time,
        },
    },
    rpc::proto::{Decision, DecisionEvent, Violation},
};

/// The columns of the list; numbers from the eighth on.
const COLUMNS: [&str; 10] =
    ["Time", "Result", "Why", "Team", "Key", "Model", "Operation", "Input", "Output", "Reserved"];
const NUMBERS: usize = 7;

pub(super) fn head() -> Markup {
    html! {
        thead { tr {
            @for (place, name) in COLUMNS.iter().enumerate() {
                th.num[place >= NUMBERS] scope="col" { (name) }
            }
        } }
    }
}

/// The row, and below it why it was denied, if that is asked for.
pub(super) fn row(shown: &Shown<'_>, event: &DecisionEvent) -> Markup {
    let is_open = event.id == shown.query.open;
    let facts = event.request.as_ref();
    html! {
        tr.open[is_open] data-id=(event.id) {
            th scope="row" { (when(shown, event, is_open)) }
            td { (result(event)) }
            td { (why(event)) }
            td { (event.team) }
            td { (event.key) }
            td { bdi { (event.model) } }
            td { (operation(event)) }
            td.num { (facts.map(amount::input).unwrap_or_default()) }
            td.num { (facts.map(amount::output).unwrap_or_default()) }
            td.num { @if let Some(cost) = &event.reserved_cost { (money::request(nanos(Some(cost)))) } }
        }
        @if is_open { tr.explain { td colspan=(COLUMNS.len()) { (explain::of(shown, event)) } } }
    }
}

/// The time; where a limit refused, or would have, it leads to the numbers.
fn when(shown: &Shown<'_>, event: &DecisionEvent, is_open: bool) -> Markup {
    let now = shown.view.now();
    let at = event.time.as_ref().and_then(|at| time::zoned(at, now));
    let text = html! { @if let Some(at) = at { (time::millisecond(&at, now)) } };
    let open = if is_open { "" } else { event.id.as_str() };
    html! {
        @if refused(event).is_empty() { (text) }
        @else { a href=(shown.opening(open)) aria-current=[is_open.then_some("true")] { (text) } }
    }
}

/// What refused; if nothing did, what is in shadow and would have.
pub(super) fn refused(event: &DecisionEvent) -> &[Violation] {
    match event.violations.is_empty() {
        true => &event.shadow_violations,
        false => &event.violations,
    }
}

fn result(event: &DecisionEvent) -> Markup {
    let badge = |meaning, words: &str| html! { (Badge(meaning, words.to_owned())) };
    match event.decision() {
        Decision::Denied => badge(Meaning::Over, "denied"),
        Decision::Allowed if event.degraded => badge(Meaning::Warn, "without the store"),
        Decision::Allowed if !event.shadow_violations.is_empty() => badge(Meaning::Warn, "in shadow"),
        Decision::Allowed => html! { span.quiet { "allowed" } },
        Decision::Unspecified => html! { "–" },
    }
}

/// The first reason, and how many more there are.
fn why(event: &DecisionEvent) -> Markup {
    let refused = refused(event);
    html! {
        @if let Some(first) = refused.first() { span.reason { (filter::name(first.reason())) } }
        @if refused.len() > 1 { " " span.quiet { "and " (refused.len() - 1) " more" } }
    }
}

/// The operation in words; empty: the caller alone was enough to deny.
pub(super) fn operation(event: &DecisionEvent) -> String {
    let full = event.operation().as_str_name();
    let short = full.strip_prefix("OPERATION_").unwrap_or(full);
    match short {
        "UNSPECIFIED" => String::new(),
        short => short.to_ascii_lowercase().replace('_', " "),
    }
}
