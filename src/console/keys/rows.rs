//! The rows of the list of keys.

use maud::{Markup, html};

use super::{
    limits,
    standing::{Standing, last_use_words},
};
use crate::{
    console::{
        text::{
            money::{self, nanos},
            number, time,
        },
        view::View,
    },
    domain::rbac::Permission,
    rpc::proto::{KeyOrigin, KeyState, KeyUsage, VirtualKey},
};

/// Where a key is read: its name is not enough where several teams declare it.
pub(super) fn address(view: &View, key: &VirtualKey, asked: &[(&str, &str)]) -> String {
    let team = [("team", key.team.as_str())];
    let asked: Vec<_> = team.into_iter().chain(asked.iter().copied()).collect();
    view.query(&format!("/keys/{}", key.name), &asked)
}

/// The keys of a page.
pub(super) fn table(view: &View, keys: &[VirtualKey]) -> Markup {
    let month = view.now().strftime("%B").to_string();
    html! {
        div.table role="region" aria-label="Keys" tabindex="0" {
            table.stick.dense {
                thead { tr {
                    th scope="col" { "Key" }
                    th scope="col" { "State" }
                    th.num scope="col" { (month) }
                    th scope="col" { "Team" }
                    th scope="col" { "Last used" }
                    th.num scope="col" { "Requests today" }
                    th scope="col" { "Expires" }
                    th scope="col" { "Narrower than its team" }
                    th scope="col" { span.visually-hidden { "What can be done" } }
                } }
                tbody { @for key in keys { (row(view, key)) } }
            }
        }
    }
}

fn row(view: &View, key: &VirtualKey) -> Markup {
    let KeyUsage { requests_today, cost_this_month, .. } = key.usage.clone().unwrap_or_default();
    let is_declared = key.origin() == KeyOrigin::Declared;
    html! {
        tr {
            th.wrap scope="row" {
                a href=(address(view, key, &[])) { (key.name) }
                @if is_declared { span.sub { "declared in the policy" } }
            }
            td.wrap { (Standing::of(view, key).cell()) }
            td.num { (money::sum(nanos(cost_this_month.as_ref()))) }
            td.wrap { (key.team) }
            td { (last_use_words(view, key)) }
            (number::cell(requests_today))
            td {
                @if key.expire_time.is_some() { (time::minute_of(key.expire_time.as_ref(), view.now())) }
                @else { "never" }
            }
            td.wrap { (limits::short(key.limits.as_ref())) }
            td { (can_be_done(view, key)) }
        }
    }
}

fn can_be_done(view: &View, key: &VirtualKey) -> Markup {
    let is_created = key.origin() == KeyOrigin::Created && key.state() != KeyState::Revoked;
    html! {
        @if is_created && view.may_for(Permission::RotateKeys, &key.team) {
            div.actions {
                a href=(format!("{}#rotate", address(view, key, &[]))) {
                    "Rotate…" span.visually-hidden { " " (key.name) }
                }
                a.danger href=(address(view, key, &[("ask", "revoke")])) {
                    "Revoke…" span.visually-hidden { " " (key.name) }
                }
            }
        }
    }
}
