//! The keys of the team that can be used.

use maud::{Markup, html};

use super::gather::{Keys, Question};
use crate::{
    console::text::time::{self, zoned},
    rpc::proto::{KeyOrigin, VirtualKey},
};

/// The section, which leads to the page of keys.
pub(super) fn section(question: Question<'_>, keys: &Keys) -> Markup {
    let team = question.team;
    let all = question.view.query("/keys", &[("team", team)]);
    html! {
        section {
            div.section-head {
                h2 #keys { "Keys" }
                p.end {
                    a href=(all) { @if keys.has_more { "All keys of " (team) } @else { "Keys of " (team) } }
                }
            }
            @if keys.shown.is_empty() {
                p.empty {
                    strong { "No key of " (team) " can be used." }
                    " A gateway may name the team by itself. The policy declares keys, as " code { "[teams." (team) ".keys.NAME]" }
                    ", and they are created on the page of keys, or with " code { "tollgate keys create" } "."
                }
            } @else {
                div.table role="region" aria-label={ "Keys of " (team) } tabindex="0" {
                    table.stick {
                        thead { tr {
                            th scope="col" { "Key" }
                            th scope="col" { "Last use" }
                            th scope="col" { "Expires" }
                            th scope="col" { "From" }
                        } }
                        tbody { @for key in &keys.shown { (row(question, key)) } }
                    }
                }
                @if keys.has_more { p.pager { "The first " (keys.shown.len()) ", by name." } }
            }
        }
    }
}

fn row(question: Question<'_>, key: &VirtualKey) -> Markup {
    let now = question.view.now();
    let uses = key.secrets.iter().filter_map(|secret| secret.last_use_time.as_ref());
    let last = uses.max_by_key(|at| (at.seconds, at.nanos)).and_then(|at| zoned(at, now));
    html! {
        tr {
            th scope="row" { a href=(address(question, &key.name)) { (key.name) } }
            td {
                @match &last {
                    Some(last) => (time::minute(last, now)),
                    None => span.quiet { "not used yet" },
                }
            }
            td { @if key.expire_time.is_some() { (time::minute_of(key.expire_time.as_ref(), now)) } @else { "never" } }
            td { @if key.origin() == KeyOrigin::Declared { "the policy" } @else { "created" } }
        }
    }
}

/// The address of a key's page.
pub(super) fn address(question: Question<'_>, key: &str) -> String {
    question.view.query(&format!("/keys/{key}"), &[("team", question.team)])
}
