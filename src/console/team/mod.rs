//! One team: whether its money lasts, why it was refused, who spends, and what it may do.

mod aside;
mod breakdown;
mod course;
mod gather;
mod keys;
mod limits;
mod page;
mod refusals;
mod standing;

use axum::{Extension, extract::Path, http::Uri};
use jiff::ToSpan as _;
use maud::Markup;
use serde::Deserialize;

use self::gather::Question;
pub(super) use self::standing::Then;
use super::{asked::Asked, fault::Fault, frame::Tab, overview::first_of, view::View};
use crate::http::PageError;

/// What of the page is asked for. The address holds all of it, so it can be sent to others.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Query {
    /// The month, as `2026-11`; the present one by default.
    #[serde(default)]
    month: String,
    /// The breakdown of spend that is shown in full, as `group_by` of `QueryUsage` names it.
    #[serde(default)]
    by: String,
    /// Its page, from 1.
    #[serde(default)]
    page: usize,
}

impl Query {
    /// The same month with another breakdown in full, or with another page of it.
    fn address(&self, question: Question<'_>, by: &str, page: usize) -> String {
        let page = if page > 1 { page.to_string() } else { String::new() };
        question.view.query(&path(question.team), &[("month", &self.month), ("by", by), ("page", &page)])
    }
}

/// A team's page.
fn path(team: &str) -> String {
    format!("/teams/{team}")
}

/// The page. A team that the reader may not see is as unknown as one that there is not.
pub(super) async fn show(
    Extension(view): Extension<View>,
    Path((_, team)): Path<(String, String)>,
    address: Uri,
    Asked(asked): Asked<Query>,
) -> Result<Markup, Fault> {
    let is_known = view.snapshot().policy.teams.contains_key(team.as_str());
    if !is_known || !view.sees(&team) {
        return Err(PageError::unknown_page(address.path()).into());
    }
    let first = first_of(&asked.month, view.now().date())?;
    let end = first.saturating_add(1.month());
    let question = Question { view: &view, team: &team, first, end };
    if !asked.by.is_empty() && !breakdown::is_known(question, &asked.by) {
        let expected = "`model`, `key`, `user`, or `labels.` and a label that the policy's reports know";
        return Err(Fault::in_address("by", expected));
    }
    let turn = view.turn().await;
    let gathered = gather::gather(question, &asked.by).await?;
    drop(turn);
    Ok(view.page(Tab::Teams, &team, page::body(question, &asked, &gathered)))
}
