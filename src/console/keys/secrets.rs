//! The secrets of a key, and whether its old one is still used.

use maud::{Markup, html};

use super::{
    form::token,
    rows::address,
    standing::{live, moment},
};
use crate::{
    console::{
        parts::{Control, Kind},
        refusal::Faults,
        text::{
            number,
            time::{self, zoned},
        },
        view::View,
    },
    domain::rbac::Permission,
    rpc::proto::{KeyOrigin, KeySecret, KeyState, VirtualKey},
};

/// For how long the secret of before can stay valid, in seconds, and in words.
pub(super) const OVERLAPS: [(&str, &str); 7] = [
    ("86400", "24 hours"),
    ("3600", "1 hour"),
    ("259200", "3 days"),
    ("604800", "7 days"),
    ("2592000", "30 days"),
    ("7776000", "90 days"),
    ("0", "not at all: it ends at once"),
];

/// The secrets, as far as they are known.
pub(super) fn section(view: &View, key: &VirtualKey) -> Markup {
    if key.origin() == KeyOrigin::Declared {
        return html! {
            section {
                div.section-head { h2 #secrets { "Secret" } }
                p.empty {
                    strong { "The policy holds the digest of its secret." }
                    " It is replaced there; how often it is used is not counted. " code { "tollgate keys hash --generate " (key.name) }
                    " makes another and its lines for the policy."
                }
            }
        };
    }
    let live = live(key);
    html! {
        section {
            div.section-head { h2 #secrets { (heading(key, &live)) } }
            @if let [.., old, _] = *live { (rotation(view, old)) }
            div.table role="region" aria-label="Secrets of the key" tabindex="0" {
                table.stick {
                    thead { tr {
                        th scope="col" { "Secret" }
                        th scope="col" { "Last used" }
                        th scope="col" { "Ends" }
                        th.num scope="col" { "Requests today" }
                        th.num scope="col" { "In 24 hours" }
                        th scope="col" { "Since" }
                        th scope="col" { span.visually-hidden { "What can be done" } }
                    } }
                    tbody { @for secret in key.secrets.iter().rev() { (row(view, key, secret, &live)) } }
                }
            }
        }
    }
}

/// What one wants to know first of secrets.
fn heading(key: &VirtualKey, live: &[&KeySecret]) -> String {
    match (key.state(), live) {
        (KeyState::Revoked, _) => "Its secrets ended with it".to_owned(),
        (_, [.., old, _]) if old.requests_last_24_hours > 0 => {
            let requests = number::of(old.requests_last_24_hours, "request");
            format!("{requests} of the last 24 hours still came with the old secret")
        }
        (_, [.., _, _]) => "Nothing uses the old secret any more".to_owned(),
        _ => "Secret".to_owned(),
    }
}

/// Until when the secret of before is taken, and when it last was.
fn rotation(view: &View, old: &KeySecret) -> Markup {
    let last = old.last_use_time.as_ref().and_then(|at| zoned(at, view.now()));
    html! {
        p.quiet.gap-after {
            @match last {
                Some(at) => { "The last one " (moment(view, &at)) ". " }
                None => { "It was never used. " }
            }
            @if old.end_time.is_some() {
                "Requests with it are refused from " (time::minute_of(old.end_time.as_ref(), view.now())) "."
            }
        }
    }
}

fn row(view: &View, key: &VirtualKey, secret: &KeySecret, live: &[&KeySecret]) -> Markup {
    let place = live.iter().position(|of| of.secret_id == secret.secret_id);
    let which = match (place, live.len()) {
        (None, _) => "ended",
        (Some(0), 2) => "old",
        (Some(_), 2) => "new",
        (Some(_), _) => "",
    };
    let last = secret.last_use_time.as_ref().and_then(|at| zoned(at, view.now()));
    let can_end = place.is_some() && live.len() > 1 && view.may_for(Permission::RotateKeys, &key.team);
    html! {
        tr {
            th scope="row" { code { (secret.secret_id) } @if !which.is_empty() { " " (which) } }
            td.nowrap { @match last { Some(at) => (moment(view, &at)), None => "never" } }
            td.nowrap {
                @if secret.end_time.is_some() { (time::minute_of(secret.end_time.as_ref(), view.now())) }
                @else { "with the key" }
            }
            (number::cell(secret.requests_today))
            (number::cell(secret.requests_last_24_hours))
            td.nowrap { (time::minute_of(secret.create_time.as_ref(), view.now())) }
            td.nowrap {
                @if can_end {
                    a.danger href=(address(view, key, &[("ask", "revoke-secret"), ("secret", &secret.secret_id)])) {
                        "End…" span.visually-hidden { " secret " (secret.secret_id) }
                    }
                }
            }
        }
    }
}

/// The form that gives the key another secret. `overlap`: what was chosen, in seconds.
pub(super) fn rotate_form(view: &View, key: &VirtualKey, overlap: &str, faults: &Faults) -> Markup {
    let live = live(key);
    let newest = key.secrets.last().map(|secret| secret.secret_id.as_str()).unwrap_or_default();
    let may_need_force = live.len() > 1 || faults.is("SECRET_IN_USE");
    html! {
        form.panel method="post" action=(format!("{}#rotate", view.address(&format!("/keys/{}/rotate", key.name)))) {
            (token(view))
            input type="hidden" name="team" value=(key.team);
            input type="hidden" name="newest" value=(newest);
            h2 #rotate { "Rotate" }
            (faults.banner())
            p.quiet.prose {
                "The key gets another secret with the same rights, which is shown once. Workloads move to it while both are valid."
                @if let [old, _] = *live { " At most two are live: the old one, " code { (old.secret_id) } ", ends at once." }
            }
            div.filters.gap {
                (Control {
                    id: "overlap", name: "overlap", label: "The present secret stays valid for", kind: Kind::Choice(&OVERLAPS),
                    value: overlap, fault: faults.of("overlap"), ..Control::default()
                })
            }
            @if may_need_force {
                p.gap {
                    label { input type="checkbox" name="force" value="1"; "End what has to end at once, even if it is in use" }
                }
            }
            div.actions { button { "Rotate" } span.quiet.small { "The secret is shown once, on the next page." } }
        }
    }
}
