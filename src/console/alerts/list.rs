//! Alerts in rows: when, what, and how far each is on its way.

use maud::{Markup, html};

use super::{
    Asked,
    gather::{Gathered, LASTING},
};
use crate::{
    console::{
        decisions::denied,
        parts::{Badge, Meaning},
        text::{number, quoted, time},
        view::View,
    },
    rpc::proto::{Alert, AlertKind, AlertState, Delivery, DeliveryState, Reason, Severity, alert::Detail},
};

/// The form that narrows the list.
pub(super) fn filters(view: &View, asked: &Asked) -> Markup {
    let kinds = (1..).map_while(|number| AlertKind::try_from(number).ok());
    // Tests are not kept.
    let kinds: Vec<String> = kinds.filter(|kind| *kind != AlertKind::Test).map(short).collect();
    html! {
        form.filters.no-print method="get" action=(view.address("/alerts")) {
            div.field {
                label for="state" { "State" }
                select id="state" name="state" {
                    @for (value, words) in [("", "all"), ("open", "open, or a moment"), ("resolved", "over")] {
                        option value=(value) selected[asked.state == value] { (words) }
                    }
                }
            }
            div.field {
                label for="kind" { "Kind" }
                select id="kind" name="kind" {
                    option value="" { "all" }
                    @for kind in kinds { option value=(kind) selected[asked.kind == kind] { (kind.replace('_', " ")) } }
                }
            }
            div.field {
                label for="team" { "Team" }
                input id="team" name="team" value=(asked.team) placeholder="all" autocomplete="off";
            }
            div.field {
                label for="since" { "Since" }
                input id="since" name="since" type="date" value=(asked.since);
            }
            button { "Show" }
            @if asked.is_filtered() { a href=(view.address("/alerts")) { "Show all" } }
        }
    }
}

/// What lasts at the moment.
pub(super) fn open(view: &View, asked: &Asked, gathered: &Gathered) -> Markup {
    html! {
        @if asked.after.is_empty() && asked.state != "resolved" {
            section {
                div.section-head { h2 #open { "Open" } p.end { (number::count(length(&gathered.open))) } }
                @if gathered.open.is_empty() {
                    p.empty { strong { "Nothing." } " Cooldowns, pauses, refused keys, outages, missing reports, drift and rejected policies are here as long as they last." }
                } @else { (table(view, &gathered.open, "Open alerts")) }
            }
        }
    }
}

/// All others, the newest first.
pub(super) fn all(view: &View, asked: &Asked, gathered: &Gathered) -> Markup {
    html! {
        section {
            div.section-head { h2 #past { "Moments, and what is over" } }
            @if gathered.alerts.is_empty() {
                p.empty {
                    @if asked.is_filtered() { strong { "None that the filters leave." } }
                    @else { strong { "There was none." } " A budget that crosses one of its " code { "alerts" } " in the policy is here within a second." }
                }
            } @else { (table(view, &gathered.alerts, "Moments, and alerts that are over")) }
            @if !gathered.next.is_empty() || !asked.after.is_empty() {
                p.pager {
                    span.end {
                        @if !asked.after.is_empty() { a href=(asked.address(view, "")) { "Newest" } }
                        @if !gathered.next.is_empty() { a rel="next" href=(asked.address(view, &gathered.next)) { "Older" } }
                    }
                }
            }
        }
    }
}

fn length(alerts: &[Alert]) -> i64 {
    i64::try_from(alerts.len()).unwrap_or(i64::MAX)
}

fn table(view: &View, alerts: &[Alert], name: &str) -> Markup {
    html! {
        div.table role="region" aria-label=(name) tabindex="0" {
            table.stack role="table" {
                thead role="rowgroup" { tr role="row" {
                    @for head in ["When", "What", "Team", "Sent to"] { th role="columnheader" scope="col" { (head) } }
                } }
                tbody role="rowgroup" { @for alert in alerts { (row(view, alert)) } }
            }
        }
    }
}

fn row(view: &View, alert: &Alert) -> Markup {
    let lasts = LASTING.contains(&alert.kind());
    html! {
        tr role="row" id={ "a-" (alert.id) } {
            th.nowrap role="rowheader" scope="row" {
                (time::minute_of(alert.create_time.as_ref(), view.now()))
                @if let Some(end) = &alert.resolve_time { span.sub { "until " (time::minute_of(Some(end), view.now())) } }
                @else if lasts && alert.state() == AlertState::Open { span.sub { (since(view, alert)) } }
            }
            td.long.whole role="cell" {
                (quoted::words(&alert.summary)) " "
                @if alert.state() == AlertState::Open {
                    @match alert.severity() {
                        Severity::Critical => { (Badge(Meaning::Over, "critical".to_owned())) }
                        Severity::Warning => { (Badge(Meaning::Warn, "warning".to_owned())) }
                        _ => {}
                    }
                }
                span.sub {
                    (short(alert.kind()).replace('_', " ")) @if !alert.limit_id.is_empty() { ", " code { (alert.limit_id) } }
                    @if alert.state() == AlertState::Open { (denials(view, alert)) }
                }
            }
            td role="cell" data-label="Team" {
                @if alert.team.is_empty() { span.quiet { "all" } }
                @else if view.snapshot().policy.teams.contains_key(&*alert.team) {
                    a href=(view.address(&format!("/teams/{}", alert.team))) { (alert.team) }
                } @else { (alert.team) }
            }
            td.two role="cell" data-label="Sent to" {
                @if alert.deliveries.is_empty() { span.quiet { "nowhere" } }
                @else { ul.deliveries { @for delivery in &alert.deliveries { li { (way(view, delivery)) } } } }
            }
        }
    }
}

/// What it has denied of late, if it is of what denies.
fn denials(view: &View, alert: &Alert) -> Markup {
    let of = |reason, asked: &[(&str, &str)]| denied(view, &alert.team, reason, asked);
    match (alert.kind(), &alert.detail) {
        (AlertKind::BudgetExhausted, _) if !alert.key.is_empty() || !alert.user.is_empty() => {
            of(Reason::KeyBudgetExhausted, &[("key", &alert.key)])
        }
        (AlertKind::BudgetExhausted, _) if alert.team.is_empty() => {
            of(Reason::OrganizationBudgetExhausted, &[])
        }
        (AlertKind::BudgetExhausted, _) => of(Reason::TeamBudgetExhausted, &[]),
        (AlertKind::Pause, _) => of(Reason::Paused, &[("key", &alert.key)]),
        // Of whichever team: the one that it names has only reported it.
        (AlertKind::UpstreamCooldown, Some(Detail::Cooldown(cooldown))) => {
            denied(view, "", Reason::UpstreamRateLimited, &[("model", &cooldown.model)])
        }
        (AlertKind::StoreOutage, _) => of(Reason::StoreUnavailable, &[]),
        _ => html! {},
    }
}

fn since(view: &View, alert: &Alert) -> String {
    let start = alert.create_time.as_ref().and_then(|at| time::zoned(at, view.now()));
    let lasted = start.map(|start| view.now().timestamp().duration_since(start.timestamp()));
    lasted.map(|lasted| format!("for {}", time::span(lasted))).unwrap_or_default()
}

/// How far an alert is on its way to a receiver.
fn way(view: &View, delivery: &Delivery) -> Markup {
    let receiver = &delivery.receiver;
    let attempts = number::of(delivery.attempt_count.into(), "attempt");
    let (next, last) = (delivery.next_attempt_time.as_ref(), delivery.last_attempt_time.as_ref());
    html! {
        @match delivery.state() {
            DeliveryState::Sent => { (receiver) span.quiet { ", sent " (time::minute_of(last, view.now())) } }
            DeliveryState::Failing => {
                (receiver) " " (Badge(Meaning::Warn, "failing".to_owned()))
                span.sub {
                    (attempts) @if next.is_some() { ", the next " (time::minute_of(next, view.now())) }
                    @if !delivery.error.is_empty() { ": " (delivery.error) }
                }
            }
            DeliveryState::Expired => {
                (receiver) " " (Badge(Meaning::Over, "given up".to_owned()))
                span.sub { (attempts) @if !delivery.error.is_empty() { ": " (delivery.error) } }
            }
            DeliveryState::Pending | DeliveryState::Unspecified => { (receiver) span.quiet { ", waiting" } }
        }
    }
}

/// The name of a kind in the contract, without its prefix.
fn short(kind: AlertKind) -> String {
    kind.as_str_name().trim_start_matches("ALERT_KIND_").to_ascii_lowercase()
}
