//! Groq's own keys: which one requests go out with, and which one Groq refuses. Never the keys themselves.

use maud::{Markup, html};

use crate::{
    console::{
        parts::{Badge, Meaning},
        text::{number, time},
        view::View,
    },
    rpc::proto::{UpstreamKey, UpstreamKeyState},
};

/// The keys of all projects.
pub(super) fn section(view: &View, keys: &[UpstreamKey]) -> Markup {
    html! {
        section {
            div.section-head { h2 #upstream { "Groq's keys" } p { "As all replicas of the last minute see them together." } }
            @if keys.is_empty() {
                p.empty {
                    strong { "There is no key of Groq's here." }
                    " The policy says where those of each project are, with " code { "[projects.NAME]" } ". Without it, gateways hold them."
                }
            } @else {
                div.table role="region" aria-label="Groq's keys" tabindex="0" {
                    table.stick.dense {
                        thead { tr {
                            th scope="col" { "Key" }
                            th scope="col" { "State" }
                            th scope="col" { "Last used" }
                            th scope="col" { "Refused" }
                            th.num scope="col" { "Requests" }
                            th scope="col" { "There since" }
                            th scope="col" { "Found in" }
                            th.num scope="col" { "Replicas" }
                        } }
                        tbody { @for key in keys { (row(view, key)) } }
                    }
                }
            }
        }
    }
}

fn row(view: &View, key: &UpstreamKey) -> Markup {
    let at = |time: &Option<prost_types::Timestamp>, never: &str| match time {
        Some(_) => time::minute_of(time.as_ref(), view.now()),
        None => html! { (never) },
    };
    html! {
        tr {
            th scope="row" { code { (key.name) } }
            td { (state(key)) }
            td { (at(&key.last_use_time, "never")) }
            td { (at(&key.refuse_time, "never")) }
            (number::cell(key.request_count))
            td { (at(&key.create_time, "–")) }
            td { code { (key.place) } }
            (number::cell(i64::try_from(key.replicas.len()).unwrap_or(i64::MAX)))
        }
    }
}

fn state(key: &UpstreamKey) -> Markup {
    html! {
        @match key.state() {
            UpstreamKeyState::Refused => {
                (Badge(Meaning::Over, "refused".to_owned())) span.sub { "put another in its place" }
            }
            UpstreamKeyState::Used => span.quiet { "used" },
            UpstreamKeyState::Standby => span.quiet { "standby" },
            UpstreamKeyState::Unspecified => span.quiet { "not known" },
        }
    }
}
