//! One key: its use, its secrets, its limits, its cost, and the forms that change it.

use axum::{
    Extension,
    extract::Path,
    response::{IntoResponse as _, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use tonic::Status;

use super::{
    confirm, cost, form, limits,
    once::Once,
    rows::address,
    secrets,
    standing::{Standing, last_use_words},
    typed::Typed,
};
use crate::{
    console::{
        asked::Asked,
        fault::Fault,
        frame::Tab,
        refusal::Faults,
        text::{
            money::{self, nanos},
            number, time,
        },
        view::View,
    },
    domain::rbac::Permission,
    rpc::proto::{
        GetKeyRequest, KeyOrigin, KeyState, LimitStatus, ListLimitsRequest, Scope, UsageRow, VirtualKey,
    },
};

/// What of the page is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Query {
    /// The team, as several may declare a key of one name.
    #[serde(default)]
    team: String,
    /// What is to be confirmed: `revoke` or `revoke-secret`.
    #[serde(default)]
    ask: String,
    /// The secret that is to end.
    #[serde(default)]
    secret: String,
    /// What was done a moment ago.
    #[serde(default)]
    done: String,
}

/// A key with what is shown beside it. Of what its reader may not see, there is nothing.
pub(super) struct Found {
    pub(super) key: VirtualKey,
    days: Option<Vec<UsageRow>>,
    limits: Option<Vec<LimitStatus>>,
}

/// What the page has beside what is read of the key.
#[derive(Default)]
pub(super) struct Beside {
    /// A secret that was made just now.
    pub(super) once: Option<Once>,
    /// What was done a moment ago.
    pub(super) done: String,
    /// What stands in the form of changes, if it was sent and not carried out.
    pub(super) change: Option<(Typed, Faults)>,
    /// The overlap in the form that rotates, and what is wrong with it.
    pub(super) rotate: Option<(String, Faults)>,
}

/// The page.
pub(super) async fn show(
    Extension(view): Extension<View>,
    Path((_, name)): Path<(String, String)>,
    Asked(asked): Asked<Query>,
) -> Result<Response, Fault> {
    let found = gather(&view, &name, &asked.team).await?;
    let page = match asked.ask.as_str() {
        "revoke" => confirm::revoke(&view, &found.key, &Faults::default()),
        "revoke-secret" => confirm::revoke_secret(&view, &found.key, &asked.secret, &Faults::default()),
        _ => body(&view, &found, &Beside { done: asked.done, ..Beside::default() }),
    };
    Ok(page.into_response())
}

/// From an address that takes forms only to the key.
pub(super) async fn back(
    Extension(view): Extension<View>,
    Path((_, name)): Path<(String, String)>,
) -> Redirect {
    Redirect::to(&view.address(&format!("/keys/{}", encoded(&name))))
}

/// The same from that of one secret.
pub(super) async fn back_of_secret(
    view: Extension<View>,
    Path((organization, name, _)): Path<(String, String, String)>,
) -> Redirect {
    back(view, Path((organization, name))).await
}

/// A name from an address, as it stands in one. Names that are good stay as they are.
fn encoded(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

/// Reads a key, and what it used.
pub(super) async fn gather(view: &View, name: &str, team: &str) -> Result<Found, Status> {
    let request = GetKeyRequest { name: name.to_owned(), team: team.to_owned() };
    let key = view.api().keys().get_key(request).await?.into_inner().key.unwrap_or_default();
    if !view.may_for(Permission::ReadSpend, &key.team) {
        return Ok(Found { key, days: None, limits: None });
    }
    let request = ListLimitsRequest { team: key.team.clone(), key: key.name.clone(), ..Default::default() };
    let mut reports = view.api().reports();
    let (days, limits) = tokio::join!(cost::gather(view, &key), reports.list_limits(request));
    // Of a key that is over, no limit is counted.
    let limits = limits.ok().map(|answer| answer.into_inner().limits);
    let own =
        |limits: Vec<LimitStatus>| limits.into_iter().filter(|limit| limit.scope() == Scope::Key).collect();
    Ok(Found { days: Some(days?), limits: limits.map(own), key })
}

impl Found {
    /// A key of which nothing else could be read.
    pub(super) const fn alone(key: VirtualKey) -> Self {
        Self { key, days: None, limits: None }
    }
}

/// The page of a key.
pub(super) fn body(view: &View, found: &Found, beside: &Beside) -> Markup {
    let key = &found.key;
    let is_changeable = key.origin() == KeyOrigin::Created && key.state() != KeyState::Revoked;
    let may = |permission| is_changeable && view.may_for(permission, &key.team);
    let content = html! {
        @if let Some(once) = &beside.once { (once.dialog(view, key)) }
        @else { (done(&beside.done, key)) }
        // What is wrong with a form is told there, unless the key no longer has it.
        @if !may(Permission::ManageKeys) && let Some((_, faults)) = &beside.change { (faults.banner()) }
        @if !may(Permission::RotateKeys) && let Some((_, faults)) = &beside.rotate { (faults.banner()) }
        (head(view, key, may(Permission::RotateKeys)))
        (answer(view, key))
        (secrets::section(view, key))
        div.pair {
            (limits::section(view, key, found.limits.as_deref()))
            (facts(view, key))
        }
        (cost::section(view, found.days.as_deref()))
        @if may(Permission::ManageKeys) { (change_form(view, key, beside)) }
        // Browsers keep the place in the page that the form was sent to, and the secret has to be in sight.
        @if may(Permission::RotateKeys) && beside.once.is_none() { section { (rotate_form(view, key, beside)) } }
    };
    view.page(Tab::Keys, &key.name, content)
}

/// What was done a moment ago, as long as it is so.
fn done(done: &str, key: &VirtualKey) -> Markup {
    let (what, then) = match done {
        "changed" => ("The key is changed.", "It is so on every replica within a second."),
        "unchanged" => ("Nothing was changed.", "The key already was as the form says."),
        "revoked" if key.state() == KeyState::Revoked => (
            "The key is revoked, with all its secrets.",
            "Requests with it are refused on every replica within a second.",
        ),
        "secret-ended" => {
            ("The secret has ended.", "Requests with it are refused on every replica within a second.")
        }
        _ => return html! {},
    };
    html! { div.banner.banner-ok role="status" { p { strong { (what) } " " (then) } } }
}

fn head(view: &View, key: &VirtualKey, may_rotate: bool) -> Markup {
    let may_pause = view.may(Permission::Pause) && key.state() == KeyState::Active;
    html! {
        p.crumbs { a href=(view.address("/keys")) { "Keys" } }
        div.head {
            h1 { (key.name) }
            p { (Standing::of(view, key).line()) }
            div.end {
                @if may_pause {
                    a href=(format!("{}#pause", view.query("/pauses", &[("kind", "key"), ("name", &key.name)]))) { "Pause…" }
                }
                @if may_rotate {
                    a href=(format!("{}#rotate", address(view, key, &[]))) { "Rotate…" }
                    a.danger href=(address(view, key, &[("ask", "revoke")])) { "Revoke…" }
                }
            }
        }
    }
}

/// Whether the key is used, and what for.
fn answer(view: &View, key: &VirtualKey) -> Markup {
    let usage = key.usage.clone().unwrap_or_default();
    let month = time::month(view.now().date());
    html! {
        @if key.usage.is_some() {
            p.answer {
                span.big { (money::sum(nanos(usage.cost_this_month.as_ref()))) " " span.of { "in " (month) } }
                @if usage.requests_today == 0 { "No request was reported today. " }
                @else {
                    (number::of(usage.requests_today, "request")) " and " (number::of(usage.tokens_today, "token"))
                    " today, for " (money::short(nanos(usage.cost_today.as_ref()))) ". "
                }
                "Last used: " strong { (last_use_words(view, key)) } "."
                @if !usage.top_model.is_empty() { " Most of the month's cost is of " strong { (usage.top_model) } "." }
            }
        }
    }
}

fn facts(view: &View, key: &VirtualKey) -> Markup {
    let at = |time: &Option<prost_types::Timestamp>| time::minute_of(time.as_ref(), view.now());
    let mut labels: Vec<_> = key.labels.iter().collect();
    labels.sort_unstable();
    let may_read_policy = view.may(Permission::ReadPolicy);
    html! {
        section {
            div.section-head { h2 #facts { "The key" } }
            dl.words {
                dt { "Team" } dd { a href=(view.address(&format!("/teams/{}", key.team))) { (key.team) } }
                dt { "Origin" }
                @if key.origin() == KeyOrigin::Declared {
                    dd {
                        "declared in the "
                        @if may_read_policy { a href=(view.address("/policy")) { "policy" } } @else { "policy" }
                        ", where it is changed"
                    }
                } @else { dd { "created " (at(&key.create_time)) } }
                @if key.revoke_time.is_some() { dt { "Revoked" } dd { (at(&key.revoke_time)) } }
                dt { "Expires" } dd { @if key.expire_time.is_some() { (at(&key.expire_time)) } @else { "never" } }
                dt { "Labels" }
                @for (name, value) in &labels { dd { (name) "=" (value) } }
                @if labels.is_empty() { dd { "none" } }
            }
        }
    }
}

fn change_form(view: &View, key: &VirtualKey, beside: &Beside) -> Markup {
    let (typed, faults) =
        beside.change.clone().unwrap_or_else(|| (Typed::of_key(view, key), Faults::default()));
    html! {
        section {
            form.panel method="post" action=(format!("{}#change", view.address(&format!("/keys/{}/update", key.name)))) {
                (form::token(view))
                input type="hidden" name="team" value=(key.team);
                input type="hidden" name="etag" value=(key.etag);
                h2 #change { "Change" }
                (faults.banner())
                p.quiet.prose { "What is empty is the team's. Limits that are not here stay as they are." }
                (form::changes(view, &typed, &faults, &key.team))
                div.actions { button.primary { "Save" } }
            }
        }
    }
}

fn rotate_form(view: &View, key: &VirtualKey, beside: &Beside) -> Markup {
    match &beside.rotate {
        Some((overlap, faults)) => secrets::rotate_form(view, key, overlap, faults),
        None => secrets::rotate_form(view, key, "", &Faults::default()),
    }
}
