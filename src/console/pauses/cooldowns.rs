//! Models that are left alone after a 429 of Groq, and the forms that lift it.

use maud::{Markup, html};

use super::{
    gather::Listed,
    page::{Query, Sent},
    paused::{MAX_REASON, hidden},
};
use crate::{
    console::{
        parts::Control,
        text::time::{self, span, zoned},
        view::View,
    },
    domain::rbac::Permission,
    rpc::proto::{Cooldown, ServiceTier},
};

/// The cooldowns in force.
pub(super) fn section(view: &View, asked: &Query, cooldowns: &Listed<Cooldown>, sent: &Sent) -> Markup {
    let may_lift = view.may(Permission::LiftCooldowns);
    html! {
        section {
            div.section-head { h2 #cooldowns { "Cooldowns" } p { "Requests for a model are denied after Groq answered 429, until it is over." } }
            @if let Sent::Lift { faults, .. } = sent { (faults.banner()) }
            @if cooldowns.rows.is_empty() {
                p.empty {
                    strong { "No model is in cooldown." }
                    " One begins when a gateway, or Envoy, reports that Groq answered 429, and ends by itself."
                }
            } @else {
                div.table role="region" aria-label="Cooldowns" tabindex="0" {
                    table.stack.stick role="table" {
                        thead role="rowgroup" { tr role="row" {
                            th role="columnheader" scope="col" { "Model" }
                            th role="columnheader" scope="col" { "Until" }
                            th role="columnheader" scope="col" { "Project" }
                            th role="columnheader" scope="col" { "Service tier" }
                            th role="columnheader" scope="col" { "Reported by" }
                            th role="columnheader" scope="col" { "Began" }
                            th role="columnheader" scope="col" { "Groq asked for" }
                            @if may_lift { th role="columnheader" scope="col" { "Lift" } }
                        } }
                        tbody role="rowgroup" {
                            @for (place, cooldown) in cooldowns.rows.iter().enumerate() { (row(view, cooldown, place, may_lift, sent)) }
                        }
                    }
                }
            }
            @if !asked.cooldowns.is_empty() || !cooldowns.next.is_empty() {
                p.pager {
                    span { "By project, model and service tier." }
                    span.end {
                        @if !asked.cooldowns.is_empty() { a rel="first" href=(view.address("/pauses")) { "From the first" } }
                        @if !cooldowns.next.is_empty() {
                            a rel="next" href=(view.query("/pauses", &[("cooldowns", &cooldowns.next)])) { "After" }
                        }
                    }
                }
            }
        }
    }
}

/// A tier as forms and logs write it.
pub(super) const fn tier(tier: ServiceTier) -> &'static str {
    match tier {
        ServiceTier::OnDemand => "on_demand",
        ServiceTier::Flex => "flex",
        ServiceTier::Auto => "auto",
        ServiceTier::Performance => "performance",
        ServiceTier::Unspecified => "",
    }
}

fn row(view: &View, cooldown: &Cooldown, place: usize, may_lift: bool, sent: &Sent) -> Markup {
    let now = view.now();
    let end = cooldown.end_time.as_ref().and_then(|end| zoned(end, now));
    let began = cooldown.start_time.as_ref().and_then(|start| zoned(start, now));
    let asked = cooldown.requested_delay.as_ref();
    let asked = asked.map(|delay| jiff::SignedDuration::new(delay.seconds, delay.nanos));
    html! {
        tr role="row" {
            th role="rowheader" scope="row" { (cooldown.model) }
            td role="cell" data-label="Until" {
                @if let Some(end) = &end {
                    (time::second(end, now)) span.sub { "in " (span(end.timestamp().duration_since(now.timestamp()))) }
                }
            }
            td.long role="cell" data-label="Project" { (cooldown.project) }
            td role="cell" data-label="Service tier" { (tier(cooldown.service_tier())) }
            td.long role="cell" data-label="Reported by" {
                a href=(view.address(&format!("/teams/{}", cooldown.reporter_team))) { (cooldown.reporter_team) }
            }
            td role="cell" data-label="Began" { @if let Some(began) = &began { (time::second(began, now)) } }
            td role="cell" data-label="Groq asked for" { @if let Some(asked) = asked { (span(asked)) } @else { "–" } }
            @if may_lift { td.whole role="cell" { (lift_form(view, cooldown, place, sent)) } }
        }
    }
}

fn lift_form(view: &View, cooldown: &Cooldown, place: usize, sent: &Sent) -> Markup {
    let of_tier = tier(cooldown.service_tier());
    // What was typed belongs to one row.
    let (typed, fault) = match sent {
        Sent::Lift { project, model, service_tier, reason, faults }
            if *project == cooldown.project && *model == cooldown.model && service_tier == of_tier =>
        {
            (reason.as_str(), faults.of("reason"))
        }
        _ => ("", None),
    };
    let label = format!("Why the cooldown of {} is lifted", cooldown.model);
    html! {
        form.inline method="post" action=(format!("{}#cooldowns", view.address("/cooldowns/lift"))) {
            (hidden(view))
            input type="hidden" name="project" value=(cooldown.project);
            input type="hidden" name="model" value=(cooldown.model);
            input type="hidden" name="service_tier" value=(of_tier);
            (Control {
                id: &format!("lift-{place}"), name: "reason", label: &label, quiet: true, value: typed, placeholder: "why",
                most: MAX_REASON, required: true, fault, ..Control::default()
            })
            button { "Lift" span.visually-hidden { " the cooldown of " (cooldown.model) } }
        }
    }
}
