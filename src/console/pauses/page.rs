//! The page of pauses and cooldowns.

use axum::{
    Extension,
    response::{IntoResponse as _, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use tonic_types::StatusExt as _;

use super::{
    cooldowns,
    gather::{Gathered, gather},
    paused, upstream,
};
use crate::{
    console::{asked::Asked, fault::Fault, frame::Tab, refusal::Faults, text::number, view::View},
    domain::rbac::Permission,
};

/// What of the page is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Query {
    /// Where the page of pauses begins.
    #[serde(default)]
    pub(super) pauses: String,
    /// Where the page of cooldowns begins.
    #[serde(default)]
    pub(super) cooldowns: String,
    /// What the form that pauses is to have: a kind and a name.
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    /// What was done a moment ago.
    #[serde(default)]
    done: String,
}

/// A form that was sent and not carried out.
pub(super) enum Sent {
    /// None was.
    Nothing {
        kind: String,
        name: String,
    },
    Pause {
        kind: String,
        name: String,
        reason: String,
        faults: Faults,
    },
    Resume {
        kind: String,
        name: String,
        reason: String,
        faults: Faults,
    },
    Lift {
        project: String,
        model: String,
        service_tier: String,
        reason: String,
        faults: Faults,
    },
}

impl Sent {
    /// What is wrong with it.
    pub(super) fn faults(&self) -> Faults {
        match self {
            Self::Nothing { .. } => Faults::default(),
            Self::Pause { faults, .. } | Self::Resume { faults, .. } | Self::Lift { faults, .. } => {
                faults.clone()
            }
        }
    }
}

/// The page.
pub(super) async fn show(
    Extension(view): Extension<View>,
    Asked(asked): Asked<Query>,
) -> Result<Response, Fault> {
    let gathered = match gather(&view, &asked).await {
        Err(status)
            if status.get_details_error_info().is_some_and(|info| info.reason == "PAGE_TOKEN_INVALID") =>
        {
            return Ok(Redirect::to(&view.address("/pauses")).into_response());
        }
        gathered => gathered?,
    };
    let Query { kind, name, done, .. } = asked.clone();
    let body = body(&view, &asked, &gathered, &done, &Sent::Nothing { kind, name });
    Ok(body.into_response())
}

/// From an address that takes forms only to the page.
pub(super) async fn back(Extension(view): Extension<View>) -> Redirect {
    Redirect::to(&view.address("/pauses"))
}

/// The page with a form that was not carried out.
pub(super) async fn with_form(view: &View, sent: &Sent) -> Response {
    let asked = Query::default();
    // The form is told what became of it even if the lists cannot be read.
    let gathered = gather(view, &asked).await.unwrap_or_default();
    (sent.faults().http(), body(view, &asked, &gathered, "", sent)).into_response()
}

/// How many things are paused, for those who may see it.
pub(in super::super) fn count(view: &View) -> usize {
    match view.may(Permission::ReadPauses) {
        true => view.snapshot().pauses.iter().count(),
        false => 0,
    }
}

fn body(view: &View, asked: &Query, gathered: &Gathered, done: &str, sent: &Sent) -> Markup {
    let paused = gathered.pauses.as_ref().map(|_| count(view));
    // Of several pages, one does not say how many there are.
    let whole = gathered.cooldowns.as_ref().filter(|of| of.next.is_empty() && asked.cooldowns.is_empty());
    let cooling = whole.map(|cooldowns| cooldowns.rows.len());
    let number_of = |number: usize, what: &str| number::of(i64::try_from(number).unwrap_or(i64::MAX), what);
    let has_no_row = match sent {
        Sent::Resume { .. } => gathered.pauses.is_none(),
        Sent::Lift { .. } => gathered.cooldowns.is_none(),
        Sent::Nothing { .. } | Sent::Pause { .. } => false,
    };
    let content = html! {
        (done_banner(done))
        @if has_no_row { (sent.faults().banner()) }
        div.head {
            h1 { "Pauses" }
            p.quiet {
                @if let Some(paused) = paused { (number_of(paused, "pause")) }
                @if let Some(cooling) = cooling { ", " (number_of(cooling, "cooldown")) }
            }
            @if view.may(Permission::Pause) { div.end { a.button href="#pause" { "Pause…" } } }
        }
        @if let Some(pauses) = &gathered.pauses { (paused::section(view, asked, pauses, sent)) }
        @if view.may(Permission::Pause) { (paused::form(view, sent)) }
        @if let Some(cooldowns) = &gathered.cooldowns { (cooldowns::section(view, asked, cooldowns, sent)) }
        @if let Some(keys) = &gathered.upstream_keys { (upstream::section(view, keys)) }
    };
    view.page(Tab::Pauses, "Pauses", content)
}

fn done_banner(done: &str) -> Markup {
    let (what, then) = match done {
        "paused" => (
            "It is paused.",
            "New requests for it are denied on every replica within a second, with the reason.",
        ),
        "resumed" => ("It is resumed.", "Requests for it pass again on every replica within a second."),
        "was-not-paused" => {
            ("It was not paused.", "Another person may have resumed it. Nothing was changed.")
        }
        "lifted" => (
            "The cooldown is lifted.",
            "Requests pass at once. The next 429 that is reported begins another.",
        ),
        _ => return html! {},
    };
    html! { div.banner.banner-ok role="status" { p { strong { (what) } " " (then) } } }
}
