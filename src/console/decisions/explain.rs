//! Why a request was refused: every limit with its numbers, when the same request passes, and what it was.

use jiff::{SignedDuration, Zoned};
use maud::{Markup, html};

use super::{Shown, amount, filter, row};
use crate::{
    console::{
        parts::{BudgetBar, Size},
        text::{
            money::{self, nanos},
            number, quoted, time,
        },
    },
    rpc::{
        proto::{DecisionEvent, Quantity, RequestFacts, Violation},
        to_json,
    },
};

/// The explanation of a row that is open.
pub(super) fn of(shown: &Shown<'_>, event: &DecisionEvent) -> Markup {
    let now = shown.view.now();
    let at = event.time.as_ref().and_then(|at| time::zoned(at, now));
    let refused = row::refused(event);
    html! {
        div.explain-in {
            h3 { (sentence(event, refused, at.as_ref(), now)) }
            @if !event.violations.is_empty() {
                p.quiet { "A denial changes no counter." }
                (limits("Limits that refused", &event.violations, Some((at.as_ref(), now))))
            }
            @if !event.shadow_violations.is_empty() {
                @if !event.violations.is_empty() { p.quiet { "Limits in shadow would have refused it as well:" } }
                (limits("Limits in shadow", &event.shadow_violations, None))
            }
            (facts(event))
            (json(event))
            p.actions { a href=(shown.opening("")) { "Close" } }
        }
    }
}

/// How many refused, and when the same request passes.
fn sentence(event: &DecisionEvent, refused: &[Violation], at: Option<&Zoned>, now: &Zoned) -> Markup {
    let would = if event.violations.is_empty() {
        " in shadow would have refused this request"
    } else {
        " refused this request"
    };
    let longest = refused.iter().filter_map(delay).max();
    html! {
        @match refused.len() {
            0 => "No limit refused this request",
            1 => { "One limit" (would) },
            2 => { "Two limits" (would) },
            more => { (more) " limits" (would) },
        }
        // Nothing has to pass where nothing refused.
        @if event.violations.is_empty() {}
        @else if refused.iter().any(|violation| !violation.retryable) { "; waiting does not help" }
        @else if let (Some(longest), Some(at)) = (longest, at) {
            "; the same one passes after " (time::span(up(longest))) ", at " (time::second(&after(at, longest), now))
        }
    }
}

fn delay(violation: &Violation) -> Option<SignedDuration> {
    let delay = violation.retry_delay.as_ref().filter(|_| violation.retryable)?;
    Some(SignedDuration::new(delay.seconds, delay.nanos))
}

/// A whole number of seconds, never too early; below a second as it is.
fn up(delay: SignedDuration) -> SignedDuration {
    match delay.subsec_nanos() {
        1.. if delay.as_secs() > 0 => SignedDuration::from_secs(delay.as_secs().saturating_add(1)),
        _ => delay,
    }
}

fn after(at: &Zoned, delay: SignedDuration) -> Zoned {
    at.saturating_add(up(delay))
}

/// When a request was refused, if that is known, and when the page is made; `None`: it was not, as the limits are in shadow.
type Moment<'z> = Option<(Option<&'z Zoned>, &'z Zoned)>;

fn limits(name: &str, refused: &[Violation], moment: Moment<'_>) -> Markup {
    html! {
        div.table role="region" aria-label=(name) tabindex="0" {
            table.stack role="table" {
                thead role="rowgroup" { tr role="row" {
                    th role="columnheader" scope="col" { "Limit" }
                    th role="columnheader" scope="col" { "Reason" }
                    th role="columnheader" scope="col" { span.visually-hidden { "As a bar" } }
                    @for name in ["Permits", "Used", "Asked", "Too much by"] {
                        th.num role="columnheader" scope="col" { (name) }
                    }
                    @if moment.is_some() { th role="columnheader" scope="col" { "The same request passes" } }
                } }
                tbody role="rowgroup" { @for violation in refused { (limit(violation, moment)) } }
            }
        }
    }
}

fn limit(violation: &Violation, moment: Moment<'_>) -> Markup {
    let Violation { limit, used, requested, .. } = *violation;
    let quantity = violation.quantity();
    // What is not tied to a counter has no numbers.
    let counts = quantity != Quantity::Unspecified;
    let number = |label: &str, value: i64| {
        html! {
            td.num role="cell" data-label=(label) { @if counts { (amount::of(quantity, value)) } @else { "–" } }
        }
    };
    let bar = BudgetBar {
        size: Size::Thin,
        name: "",
        limit: limit.into(),
        spent: used.into(),
        reserved: requested.into(),
        pace: None,
    };
    html! {
        tr role="row" {
            th role="rowheader" scope="row" {
                @if !violation.limit_id.is_empty() { code { (violation.limit_id) } }
                span.sub { (amount::unit(quantity)) }
            }
            td.whole role="cell" {
                span.reason { (filter::name(violation.reason())) }
                // The numbers say it where there are any.
                @if !counts { span.sub { bdi { (quoted::words(&violation.message)) } } }
            }
            td.rowbar role="cell" { @if counts { (bar) } }
            (number("Permits", limit))
            (number("Used", used))
            (number("Asked", requested))
            (number("Too much by", used.saturating_add(requested).saturating_sub(limit).max(0)))
            @if let Some((at, now)) = moment {
                td.two role="cell" data-label="The same request passes" { (passes(violation, at, now)) }
            }
        }
    }
}

fn passes(violation: &Violation, at: Option<&Zoned>, now: &Zoned) -> Markup {
    match (delay(violation), at) {
        (Some(delay), Some(at)) => html! {
            "after " (time::span(up(delay))) ", " (time::second(&after(at, delay), now))
        },
        _ if violation.retryable => html! { "later" },
        _ => html! { "never as it is: waiting does not help" },
    }
}

/// The event as programs get it.
fn json(event: &DecisionEvent) -> Markup {
    // Every message of the contract is JSON.
    let text = to_json(event).ok().and_then(|json| serde_json::to_string_pretty(&json).ok());
    html! {
        @if let Some(text) = text {
            details.numbers {
                summary { "As JSON" }
                p.quiet.small { "The " code { "DecisionEvent" } " that " code { "ReportService.StreamDecisions" } " tells programs of." }
                pre.json role="region" aria-label="The decision as JSON" tabindex="0" { (text) }
            }
        }
    }
}

fn facts(event: &DecisionEvent) -> Markup {
    let facts = event.request.clone().unwrap_or_default();
    let asked = row::refused(event).iter().find(|violation| violation.quantity() == Quantity::NanoUsd);
    html! {
        dl.facts {
            div { dt { "Asked by" } dd { (caller(event, &facts)) } }
            @if event.request.is_some() { div { dt { "For" } dd { (purpose(event, &facts)) } } }
            @if let Some(cost) = &event.reserved_cost {
                div { dt { "Worst case" } dd { (money::request(nanos(Some(cost)))) } }
            } @else if let Some(asked) = asked {
                div { dt { "Worst case" } dd { (money::request(asked.requested.into())) } }
            }
            div { dt { "Reservation" } dd {
                @if event.reservation_id.is_empty() { "none" } @else { code { (event.reservation_id) } }
            } }
            div { dt { "Decided by" } dd { "replica " (event.replica) } }
            div { dt { "Policy" } dd { code { (event.policy_revision) } } }
            div { dt { "Trace" } dd {
                @if event.trace_id.is_empty() { "not traced" } @else { code { (event.trace_id) } }
            } }
            @if !event.labels.is_empty() { div { dt { "Labels" } dd { bdi { (labels(event)) } } } }
        }
    }
}

fn caller(event: &DecisionEvent, facts: &RequestFacts) -> Markup {
    html! {
        @if event.team.is_empty() { "a caller of no team" } @else { (event.team) }
        @if !event.key.is_empty() { ", key " (event.key) }
        @if !facts.user.is_empty() { ", user " bdi { (facts.user) } }
    }
}

fn purpose(event: &DecisionEvent, facts: &RequestFacts) -> Markup {
    let is_tokens = facts.batch.is_none() && facts.audio_duration.is_none() && facts.character_count == 0;
    html! {
        (row::operation(event)) " with " bdi { (event.model) } ", " (amount::input(facts))
        @if is_tokens { " input tokens" }
        @if facts.max_output_tokens > 0 { ", " (number::of(facts.max_output_tokens, "output token")) }
    }
}

fn labels(event: &DecisionEvent) -> String {
    let mut labels: Vec<_> = event.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.sort();
    labels.join(", ")
}
