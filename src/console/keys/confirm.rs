//! What is asked before something ends for good: what still uses it.

use maud::{Markup, html};

use super::{
    form::token,
    rows::address,
    standing::{live, moment},
};
use crate::{
    console::{
        frame::Tab,
        refusal::Faults,
        text::{
            money::{self, nanos},
            number,
            time::zoned,
        },
        view::View,
    },
    domain::rbac::Permission,
    rpc::proto::{KeyOrigin, KeySecret, KeyState, VirtualKey},
};

/// The page that asks before a key is revoked.
pub(super) fn revoke(view: &View, key: &VirtualKey, faults: &Faults) -> Markup {
    let title = format!("Revoke {}?", key.name);
    let used: i64 = live(key).iter().map(|secret| secret.requests_last_24_hours).fold(0, i64::saturating_add);
    let cost = key.usage.as_ref().map(|usage| money::short(nanos(usage.cost_this_month.as_ref())));
    let content = html! {
        (head(view, key, &title))
        (faults.banner())
        p.answer {
            @if used > 0 {
                span.big { (number::of(used, "request")) " " span.of { "came with it in the last 24 hours" } }
            } @else {
                span.big { "No request " span.of { "came with it in the last 24 hours" } }
            }
            @if let Some(cost) = cost { "It cost " (cost) " this month. " }
            "Once it is revoked, requests with any of its secrets are refused on every replica within a second, with "
            code { "key_revoked" } ". That is for ever: its name is not given again, and its usage stays in the reports."
        }
        @if !live(key).is_empty() { ul.gap { @for secret in live(key) { li { (uses(view, secret)) } } } }
        @if can_be_changed(view, key) {
            form method="post" action=(view.address(&format!("/keys/{}/revoke", key.name))) {
                (token(view))
                input type="hidden" name="team" value=(key.team);
                div.actions {
                    button.danger { "Revoke " (key.name) }
                    a href=(address(view, key, &[])) { "Keep it" }
                }
            }
        } @else { (cannot(view, key)) }
    };
    view.page(Tab::Keys, &title, content)
}

/// The page that asks before one of a key's secrets ends.
pub(super) fn revoke_secret(view: &View, key: &VirtualKey, id: &str, faults: &Faults) -> Markup {
    let title = format!("End a secret of {}?", key.name);
    let live = live(key);
    let found = live.iter().find(|secret| secret.secret_id == id);
    let content = html! {
        (head(view, key, &title))
        (faults.banner())
        @match found {
            Some(secret) if can_be_changed(view, key) => {
                p.answer {
                    span.big { (number::of(secret.requests_last_24_hours, "request")) " " span.of { "came with it in the last 24 hours" } }
                    (uses(view, secret)) " Once it has ended, requests with it are refused on every replica within a second."
                    @if live.len() == 2 { " The key's other secret stays." }
                    @else { " It is the key's only live secret." }
                }
                form method="post" action=(view.address(&format!("/keys/{}/secrets/{}/revoke", key.name, secret.secret_id))) {
                    (token(view))
                    input type="hidden" name="team" value=(key.team);
                    @if secret.requests_last_24_hours > 0 || faults.is("SECRET_IN_USE") {
                        p.gap {
                            label { input type="checkbox" name="force" value="1"; "End it all the same, though it is in use" }
                        }
                    }
                    div.actions {
                        button.danger { "End secret " (secret.secret_id) }
                        a href=(address(view, key, &[])) { "Keep it" }
                    }
                }
            }
            Some(_) => (cannot(view, key)),
            None => {
                p.empty {
                    strong { "The key has no live secret of this id." }
                    a href=(address(view, key, &[])) { "Back to the key" }
                }
            }
        }
    };
    view.page(Tab::Keys, &title, content)
}

fn head(view: &View, key: &VirtualKey, title: &str) -> Markup {
    html! {
        p.crumbs { a href=(view.address("/keys")) { "Keys" } a href=(address(view, key, &[])) { (key.name) } }
        div.head { h1 { (title) } }
    }
}

/// How a secret is used.
fn uses(view: &View, secret: &KeySecret) -> Markup {
    let last = secret.last_use_time.as_ref().and_then(|at| zoned(at, view.now()));
    html! {
        "Secret " code { (secret.secret_id) } ": "
        @match last {
            Some(at) => { (number::of(secret.requests_last_24_hours, "request")) " in 24 hours, the last one " (moment(view, &at)) "." }
            None => "never used.",
        }
    }
}

fn can_be_changed(view: &View, key: &VirtualKey) -> bool {
    let is_changeable = key.origin() == KeyOrigin::Created && key.state() != KeyState::Revoked;
    is_changeable && view.may_for(Permission::RotateKeys, &key.team)
}

/// Why there is no button.
fn cannot(view: &View, key: &VirtualKey) -> Markup {
    let why = match (key.origin(), key.state()) {
        (KeyOrigin::Declared, _) => "The policy declares this key, and it is ended there.",
        (_, KeyState::Revoked) => "This key is revoked already.",
        _ => "The policy's [access] says who may end keys.",
    };
    html! { p.empty { strong { (why) } a href=(address(view, key, &[])) { "Back to the key" } } }
}
