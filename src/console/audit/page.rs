//! The audit log as a page.

use maud::{Markup, html};
use serde_json::Value;

use super::{
    Asked,
    changes::{Field, changes},
};
use crate::{
    console::{
        parts::{Badge, Meaning},
        text::{number, time},
        view::View,
    },
    rpc::{
        AUDIT_ACTIONS,
        proto::{Actor, AuditEvent},
        struct_to_json,
    },
};

/// Fields of an event that is not opened by its address. With them, a page of events stays small.
const FEW: usize = 12;
/// Fields of an event that is.
const MANY: usize = 500;
/// Characters of a value of an event that is not opened by its address.
const SHORT: usize = 120;

/// The page, below the head of the frame.
pub(super) fn body(view: &View, asked: &Asked, events: &[AuditEvent], next: &str) -> Markup {
    html! {
        div.head { h1 { "Audit" } p.quiet { "Who changed what, and who was refused, the newest first" } }
        (filters(view, asked))
        section.near {
            h2.visually-hidden { "Events" }
            @if events.is_empty() { (empty(asked)) } @else {
                div.table role="region" aria-label="Events of the audit log" tabindex="0" {
                    table.stack role="table" {
                        thead role="rowgroup" { tr role="row" {
                            @for head in ["When", "Who", "What", "On what", "Outcome"] { th role="columnheader" scope="col" { (head) } }
                        } }
                        tbody role="rowgroup" { @for event in events { (row(view, asked, event)) } }
                    }
                }
            }
            @if !next.is_empty() || !asked.after.is_empty() {
                p.pager {
                    span.end {
                        @if !asked.after.is_empty() { a href=(asked.address(view, "", "")) { "Newest" } }
                        @if !next.is_empty() { a rel="next" href=(asked.address(view, next, "")) { "Older" } }
                    }
                }
            }
        }
    }
}

fn filters(view: &View, asked: &Asked) -> Markup {
    let text = |name: &str, words: &str, value: &str| {
        html! {
            div.field {
                label for=(name) { (words) }
                input id=(name) name=(name) value=(value) placeholder="all" autocomplete="off";
            }
        }
    };
    let day = |name: &str, words: &str, value: &str| {
        html! {
            div.field {
                label for=(name) { (words) }
                input id=(name) name=(name) type="date" value=(value);
            }
        }
    };
    html! {
        form.filters.no-print method="get" action=(view.address("/audit")) {
            (day("since", "First day", &asked.since))
            (day("until", "Last day", &asked.until))
            (text("actor", "Who", &asked.actor))
            div.field {
                label for="action" { "What" }
                select id="action" name="action" {
                    option value="" { "all" }
                    @for action in AUDIT_ACTIONS { option value=(action) selected[asked.action == action] { (action) } }
                }
            }
            (text("subject", "On what, from its beginning", &asked.subject))
            button { "Show" }
            @if asked.is_filtered() { a href=(view.address("/audit")) { "Show all" } }
        }
    }
}

fn empty(asked: &Asked) -> Markup {
    html! {
        p.empty {
            @if asked.is_filtered() || !asked.after.is_empty() {
                strong { "No event that the filters leave." }
            } @else {
                strong { "The store has no event." }
                " Changes and refused callers are here as soon as they happen, if the setting " code { "audit_sinks" } " has "
                code { "store" } ". Without it they are only in the other places that it names, such as a file."
            }
        }
    }
}

fn row(view: &View, asked: &Asked, event: &AuditEvent) -> Markup {
    let is_open = !event.id.is_empty() && asked.open == event.id;
    let address = format!("{}#e-{}", asked.address(view, &asked.after, &event.id), event.id);
    let done = event.outcome == "done";
    html! {
        tr role="row" id={ "e-" (event.id) } {
            th.nowrap role="rowheader" scope="row" {
                a href=(address) {
                    @match event.time.as_ref().and_then(|at| time::zoned(at, view.now())) {
                        Some(at) => (time::second(&at, view.now())),
                        None => "–",
                    }
                }
            }
            td.long role="cell" data-label="Who" { (who(event.actor.as_ref())) }
            td.nowrap role="cell" data-label="What" { code { (event.action) } }
            td.long.whole role="cell" data-label="On what" {
                @if event.subject.is_empty() { span.quiet { "–" } } @else { (event.subject) }
                (difference(event, is_open, &address))
            }
            td role="cell" data-label="Outcome" {
                @if done { "done" } @else { (Badge(Meaning::Warn, event.outcome.replace('_', " "))) }
                @if !event.replica.is_empty() { span.sub { "by " (event.replica) } }
            }
        }
    }
}

fn who(actor: Option<&Actor>) -> Markup {
    let Some(actor) = actor else { return html! { "–" } };
    let kind = actor.kind().as_str_name().trim_start_matches("ACTOR_KIND_").replace('_', " ").to_lowercase();
    html! {
        @if actor.name.is_empty() { (kind) } @else { (actor.name) }
        span.sub {
            @if !actor.name.is_empty() { (kind) }
            @if !actor.address.is_empty() { @if !actor.name.is_empty() { ", " } "from " (actor.address) }
        }
    }
}

/// What changed, folded; opened by the address, all of it.
fn difference(event: &AuditEvent, is_open: bool, address: &str) -> Markup {
    let json = |fields: Option<&prost_types::Struct>| {
        fields.and_then(|fields| struct_to_json(fields).ok()).unwrap_or(Value::Null)
    };
    let (fields, same) = changes(&json(event.before.as_ref()), &json(event.after.as_ref()));
    if fields.is_empty() {
        return html! {};
    }
    let most = if is_open { MANY } else { FEW };
    let shown = fields.iter().take(most);
    let cut = |text: &str| !is_open && text.chars().nth(SHORT).is_some();
    let is_cut = fields.len() > most
        || shown
            .clone()
            .any(|field| [&field.before, &field.after].iter().any(|of| of.as_deref().is_some_and(cut)));
    html! {
        details.changes open[is_open] {
            summary { (number::of(i64::try_from(fields.len()).unwrap_or(0), "field")) @if event.before.is_some() { " changed" } }
            dl { @for field in shown { (changed(field, is_open)) } }
            @if same > 0 { p.quiet.small { (same) " more did not change." } }
            @if is_cut && !is_open { p.small { a href=(address) { "All of it" } } }
            @else if is_cut { p.quiet.small { (fields.len() - most) " more are not shown: " code { "tollgate audit list --json" } " has them." } }
        }
    }
}

fn changed(field: &Field, is_open: bool) -> Markup {
    let short = |text: &str| match is_open {
        true => text.to_owned(),
        false => text.chars().take(SHORT).collect(),
    };
    html! {
        dt { (field.path) }
        dd {
            @if let Some(before) = &field.before { del { (short(before)) } " " }
            @if let Some(after) = &field.after { ins { (short(after)) } }
        }
    }
}
