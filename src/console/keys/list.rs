//! The list of keys, with its filters and its pages, and the form that creates one.

use axum::{
    Extension,
    response::{IntoResponse as _, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::{
    form::{self, team_field},
    rows,
    typed::Typed,
};
use crate::{
    console::{
        asked::Asked,
        fault::Fault,
        frame::Tab,
        parts::{Control, Kind},
        refusal::Faults,
        text::number,
        view::View,
    },
    domain::rbac::{Permission, TeamScope},
    rpc::proto::{KeyState, ListKeysRequest, VirtualKey},
};

/// How many keys are on a page.
const PAGE: i32 = 50;

/// What of the list is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Query {
    /// Only keys of this team.
    #[serde(default)]
    team: String,
    /// Only keys in this state: `active`, `expired` or `revoked`.
    #[serde(default)]
    state: String,
    /// Only keys with this in their names.
    #[serde(default)]
    q: String,
    /// Where the page begins.
    #[serde(default)]
    page: String,
}

/// A page of keys.
pub(super) struct Page {
    keys: Vec<VirtualKey>,
    /// Where the next one begins; empty: this is the last.
    next: String,
}

/// The page.
pub(super) async fn show(
    Extension(view): Extension<View>,
    Asked(asked): Asked<Query>,
) -> Result<Response, Fault> {
    let asked = asked.within(&view);
    let page = match asked.gather(&view).await {
        // A page of a list that is asked for otherwise now: from its beginning.
        Err(status) if is_of_token(&status) => {
            return Ok(Redirect::to(&asked.address(&view, "")).into_response());
        }
        page => page?,
    };
    let teams = view.teams(Permission::ManageKeys);
    let mut typed = Typed::default();
    // The team that one looks at, or the only one.
    typed.set(
        "team",
        if asked.team.is_empty() { teams.first().copied().unwrap_or_default() } else { &asked.team },
    );
    let form = form::create(&view, &typed, &Faults::default(), false);
    Ok(body(&view, &asked, Some(&page), &form).into_response())
}

/// The page with a form that was not carried out, beside the list as far as it can be read.
pub(super) async fn with_form(view: &View, form: &Markup) -> Markup {
    let asked = Query::default().within(view);
    let page = asked.gather(view).await.ok();
    body(view, &asked, page.as_ref(), form)
}

fn is_of_token(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == "PAGE_TOKEN_INVALID")
}

impl Query {
    /// Who may read the keys of some teams asks for one of them at a time.
    fn within(mut self, view: &View) -> Self {
        if self.team.is_empty() && !view.may_for_all(Permission::ReadKeys) {
            self.team = view.teams(Permission::ReadKeys).first().copied().unwrap_or_default().to_owned();
        }
        self
    }

    async fn gather(&self, view: &View) -> Result<Page, Status> {
        let states = match self.state.as_str() {
            "active" => vec![KeyState::Active.into()],
            "expired" => vec![KeyState::Expired.into()],
            "revoked" => vec![KeyState::Revoked.into()],
            _ => Vec::new(),
        };
        let request = ListKeysRequest {
            team: self.team.clone(),
            page_size: PAGE,
            page_token: self.page.clone(),
            states,
            name_contains: self.q.trim().to_owned(),
            include_usage: true,
        };
        let answer = view.api().keys().list_keys(request).await?.into_inner();
        Ok(Page { keys: answer.keys, next: answer.next_page_token })
    }

    fn address(&self, view: &View, page: &str) -> String {
        // Of one team only, there is no other list.
        view.query("/keys", &[("team", &self.team), ("state", &self.state), ("q", &self.q), ("page", page)])
    }

    fn is_filtered(&self, view: &View) -> bool {
        let chosen = !self.team.is_empty() && view.may_for_all(Permission::ReadKeys);
        chosen || !self.state.is_empty() || !self.q.is_empty()
    }
}

fn body(view: &View, asked: &Query, page: Option<&Page>, form: &Markup) -> Markup {
    let may_create = view.may(Permission::ManageKeys);
    let content = html! {
        div.head {
            h1 { "Keys" }
            @if let Some(scope) = only(view) { p.quiet { "of " (scope) } }
            @if may_create { div.end { a.button href="#create" { "Create a key" } } }
        }
        @match page {
            Some(page) => { (filters(view, asked)) (list(view, asked, page, may_create)) }
            None => {
                div.banner.banner-over role="alert" {
                    p { strong { "The keys cannot be read at the moment." } " Load the page again in a moment." }
                }
            }
        }
        @if may_create { (form) }
    };
    view.page(Tab::Keys, "Keys", content)
}

/// The one team whose keys the reader may see.
fn only(view: &View) -> Option<String> {
    match view.scope(Permission::ReadKeys) {
        Some(scope @ TeamScope::Teams(_)) => scope.only_team().map(ToString::to_string),
        _ => None,
    }
}

fn filters(view: &View, asked: &Query) -> Markup {
    let teams = view.teams(Permission::ReadKeys);
    let all = view.may_for_all(Permission::ReadKeys).then_some("all");
    let states = [("", "all"), ("active", "active"), ("expired", "expired"), ("revoked", "revoked")];
    html! {
        form.filters method="get" action=(view.address("/keys")) role="search" {
            (Control { id: "q", name: "q", label: "Name contains", value: &asked.q, most: 64, ..Control::default() })
            @if teams.len() > 1 { (team_field("team", &teams, &asked.team, None, all)) }
            (Control {
                id: "state", name: "state", label: "State", value: &asked.state, kind: Kind::Choice(&states), ..Control::default()
            })
            button { "Show" }
        }
    }
}

fn list(view: &View, asked: &Query, page: &Page, may_create: bool) -> Markup {
    html! {
        section.near {
            h2 #list .visually-hidden { "All keys" }
            @if page.keys.is_empty() {
                p.empty {
                    @if asked.is_filtered(view) || !asked.page.is_empty() {
                        strong { "No key is so." } a href=(view.address("/keys")) { "Show all keys" }
                    } @else {
                        strong { "There is no key." }
                        " Keys are created " @if may_create { "below" } @else { "by those who may manage them" }
                        ", with " code { "tollgate keys create" } ", or declared in the policy as "
                        code { "[teams.NAME.keys.NAME]" } "."
                    }
                }
            } @else {
                (rows::table(view, &page.keys))
            }
            @if !page.keys.is_empty() || !asked.page.is_empty() { (pager(view, asked, page)) }
        }
    }
}

fn pager(view: &View, asked: &Query, page: &Page) -> Markup {
    let shown = i64::try_from(page.keys.len()).unwrap_or(i64::MAX);
    html! {
        p.pager {
            span { (number::of(shown, "key")) " here, by name. Uses of a declared key's secret are not counted; its cost is." }
            @if !asked.page.is_empty() || !page.next.is_empty() {
                span.end {
                    @if !asked.page.is_empty() { a rel="first" href=(asked.address(view, "")) { "From the first" } }
                    @if !page.next.is_empty() { a rel="next" href=(asked.address(view, &page.next)) { "After" } }
                }
            }
        }
    }
}
