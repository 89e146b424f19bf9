//! What people paused, and the forms that pause and resume.

use maud::{Markup, html};

use super::{
    gather::Listed,
    page::{Query, Sent},
    target::{KINDS, covered, parts, words},
};
use crate::{
    console::{
        fields::TOKEN,
        parts::{Control, Kind},
        refusal::Faults,
        text::time,
        view::View,
    },
    domain::rbac::Permission,
    rpc::proto::Pause,
};

/// The most characters of a reason, if each is one byte.
pub(super) const MAX_REASON: u16 = 256;

/// What is paused.
pub(super) fn section(view: &View, asked: &Query, pauses: &Listed<Pause>, sent: &Sent) -> Markup {
    let may_resume = view.may(Permission::Pause);
    html! {
        section.near {
            h2 #paused .visually-hidden { "Paused now" }
            @if let Sent::Resume { faults, .. } = sent { (faults.banner()) }
            @if pauses.rows.is_empty() {
                p.empty {
                    strong { "Nothing is paused." }
                    " A pause denies new requests of a team, of a key, for a model or of the whole organization within a second, until it is "
                    "resumed: here, or with " code { "tollgate pause" } "."
                }
            } @else {
                div.table role="region" aria-label="Pauses" tabindex="0" {
                    table.stack.stick role="table" {
                        thead role="rowgroup" { tr role="row" {
                            th role="columnheader" scope="col" { "Paused" }
                            th role="columnheader" scope="col" { "Why" }
                            th role="columnheader" scope="col" { "By" }
                            th role="columnheader" scope="col" { "Since" }
                            @if may_resume { th role="columnheader" scope="col" { "Resume" } }
                        } }
                        tbody role="rowgroup" {
                            @for (place, pause) in pauses.rows.iter().enumerate() { (row(view, pause, place, may_resume, sent)) }
                        }
                    }
                }
            }
            @if !asked.pauses.is_empty() || !pauses.next.is_empty() {
                p.pager {
                    span { "The organization first, then teams, keys and models by name." }
                    span.end {
                        @if !asked.pauses.is_empty() { a rel="first" href=(view.address("/pauses")) { "From the first" } }
                        @if !pauses.next.is_empty() {
                            a rel="next" href=(view.query("/pauses", &[("pauses", &pauses.next)])) { "After" }
                        }
                    }
                }
            }
        }
    }
}

fn row(view: &View, pause: &Pause, place: usize, may_resume: bool, sent: &Sent) -> Markup {
    let Some(target) = pause.target.as_ref().and_then(|target| target.target.as_ref()) else {
        return html! {};
    };
    let (kind, name) = parts(target);
    // Without `[access]`, no one says who they are.
    let by = pause.actor.as_ref().map(|actor| actor.name.as_str()).filter(|name| !name.is_empty());
    html! {
        tr role="row" {
            th role="rowheader" scope="row" { span { (words(view, target)) } span.sub { (covered(target)) } }
            td.long.whole role="cell" data-label="Why" { "“" (pause.reason) "”" }
            td.long role="cell" data-label="By" { (by.unwrap_or("anyone")) }
            td role="cell" data-label="Since" { (time::minute_of(pause.create_time.as_ref(), view.now())) }
            @if may_resume { td.whole role="cell" { (resume_form(view, kind, name, place, sent)) } }
        }
    }
}

fn resume_form(view: &View, kind: &str, name: &str, place: usize, sent: &Sent) -> Markup {
    // What was typed belongs to one row.
    let (typed, fault) = match sent {
        Sent::Resume { kind: of, name: named, reason, faults } if of == kind && named == name => {
            (reason.as_str(), faults.of("reason"))
        }
        _ => ("", None),
    };
    let label = format!("Why {kind} {name} is resumed");
    html! {
        form.inline method="post" action=(view.address("/pauses/end")) {
            (hidden(view))
            input type="hidden" name="kind" value=(kind);
            input type="hidden" name="name" value=(name);
            (Control {
                id: &format!("resume-{place}"), name: "reason", label: &label, quiet: true, value: typed, placeholder: "why",
                most: MAX_REASON, required: true, fault, ..Control::default()
            })
            button { "Resume" span.visually-hidden { " " (kind) " " (name) } }
        }
    }
}

/// What proves that a form is of this page.
pub(super) fn hidden(view: &View) -> Markup {
    html! { input type="hidden" name=(TOKEN) value=(view.form_token().unwrap_or_default()); }
}

/// The form that pauses.
pub(super) fn form(view: &View, sent: &Sent) -> Markup {
    let none = Faults::default();
    let (kind, name, reason, faults) = match sent {
        Sent::Pause { kind, name, reason, faults } => (kind.as_str(), name.as_str(), reason.as_str(), faults),
        Sent::Nothing { kind, name } => (kind.as_str(), name.as_str(), "", &none),
        Sent::Resume { .. } | Sent::Lift { .. } => ("", "", "", &none),
    };
    html! {
        section {
            form.panel method="post" action=(format!("{}#pause", view.address("/pauses"))) {
                (hidden(view))
                h2 #pause { "Pause" }
                (faults.banner())
                p.quiet.prose {
                    "New requests are denied within a second, until it is resumed. Requests that were allowed earlier continue. Pausing what "
                    "is paused replaces the reason."
                }
                div.fields.gap {
                    (Control {
                        id: "pause-kind", name: "kind", label: "What", kind: Kind::Choice(&KINDS), value: kind, fault: faults.of("kind"),
                        ..Control::default()
                    })
                    (Control {
                        id: "pause-name", name: "name", label: "Name", value: name, most: 256, fault: faults.of("name"),
                        hint: "of a model also the beginning, with * at the end; empty for the whole organization", ..Control::default()
                    })
                    (Control {
                        id: "pause-reason", name: "reason", label: "Why", value: reason, most: MAX_REASON, required: true,
                        hint: "denied callers read it", fault: faults.of("reason"), ..Control::default()
                    })
                }
                div.actions { button.primary { "Pause" } }
            }
        }
    }
}
