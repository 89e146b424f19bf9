//! The policy: what is in force and was, line by line, and what a proposed one would change. Nothing is put in force here: the
//! policy's file is where it is changed.

mod document;
mod findings;
mod gather;
mod history;
mod page;
mod proposal;
mod revision;
mod words;

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Path},
    routing::get,
};
use maud::Markup;
use serde::Deserialize;

pub(super) use proposal::MAX_PROPOSALS;

use super::{Console, asked::Asked, fault::Fault, frame::Tab, view::View};
use crate::domain::rbac::Permission;

/// Below the organization's pages.
const POLICY: &str = "/policy";
/// Where proposals are sent.
const PROPOSAL: &str = "/policy/proposal";

/// What of the page is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Query {
    /// The first line of the document that is shown, from 1.
    #[serde(default)]
    line: usize,
    /// Where the history continues, as the page before says.
    #[serde(default)]
    older: String,
}

/// What of the page of a revision is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Comparison {
    /// The revision that it is compared with; the one before by default.
    #[serde(default)]
    with: String,
}

/// The addresses of these pages.
pub(super) fn router() -> Router<Console> {
    let proposal = get(proposal::show).post(proposal::answer);
    let proposal = proposal.layer(DefaultBodyLimit::max(proposal::MAX_BYTES));
    Router::new()
        .route("/console/{organization}/policy", get(show))
        .route("/console/{organization}/policy/revisions/{revision}", get(show_revision))
        .route("/console/{organization}/policy/proposal", proposal)
}

/// What is in force, and was.
async fn show(Extension(view): Extension<View>, Asked(asked): Asked<Query>) -> Result<Markup, Fault> {
    may(&view, Permission::ReadPolicy)?;
    let gathered = gather::gather(&view, &asked).await?;
    Ok(view.page(Tab::Policy, "Policy", page::body(&view, &asked, &gathered)))
}

/// One revision, and what differs in it from another.
async fn show_revision(
    Extension(view): Extension<View>,
    Path((_, revision)): Path<(String, String)>,
    Asked(Comparison { with }): Asked<Comparison>,
) -> Result<Markup, Fault> {
    may(&view, Permission::ReadPolicy)?;
    let found = revision::gather(&view, revision, with).await?;
    let title = format!("Policy {}", found.revision);
    Ok(view.page(Tab::Policy, &title, revision::body(&view, &found)))
}

fn may(view: &View, permission: Permission) -> Result<(), Fault> {
    match view.may(permission) {
        true => Ok(()),
        false => Err(Fault::missing(permission)),
    }
}
