//! The overview: what the organization spends of its budget, which team will not get by, and what needs attention.

mod attention;
mod days;
mod gather;
mod page;
mod service;
mod teams;

use axum::Extension;
use jiff::civil::Date;
use maud::Markup;
use serde::Deserialize;

use super::{asked::Asked, fault::Fault, frame::Tab, text::time, view::View};

/// What of the page is asked for. The address holds all of it, so it can be sent to others.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Query {
    /// The month, as `2026-11`; the present one by default.
    #[serde(default)]
    month: String,
    /// What teams are sorted by.
    #[serde(default)]
    sort: teams::Sort,
    /// A part of the names of teams.
    #[serde(default)]
    q: String,
    /// The page of teams, from 1.
    #[serde(default)]
    page: usize,
    /// Whether the teams are a page of their own.
    #[serde(skip)]
    alone: bool,
}

impl Query {
    /// Where the page is.
    const fn path(&self) -> &'static str {
        if self.alone { "/teams" } else { "/" }
    }
}

/// The page.
pub(super) async fn show(
    Extension(view): Extension<View>,
    Asked(asked): Asked<Query>,
) -> Result<Markup, Fault> {
    let today = view.now().date();
    let first = first_of(&asked.month, today)?;
    let gathered = gather::gather(&view, first).await?;
    let title = time::month(first);
    Ok(view.page(Tab::Overview, &title, page::body(&view, &asked, &gathered, &title)))
}

/// The teams alone.
pub(super) async fn teams(
    Extension(view): Extension<View>,
    Asked(asked): Asked<Query>,
) -> Result<Markup, Fault> {
    let asked = Query { alone: true, ..asked };
    let first = first_of(&asked.month, view.now().date())?;
    let gathered = gather::teams(&view, first).await?;
    Ok(view.page(Tab::Teams, "Teams", page::alone(&view, &asked, &gathered)))
}

/// The first day of the month that is asked for.
///
/// # Errors
/// It is no month, or one that has not begun.
pub(super) fn first_of(month: &str, today: Date) -> Result<Date, Fault> {
    if month.is_empty() {
        return Ok(today.first_of_month());
    }
    let first = format!("{month}-01").parse::<Date>().ok();
    let known = first.filter(|first| month.len() == 7 && *first <= today);
    known.ok_or_else(|| Fault::in_address("month", "a month that has begun, such as 2026-11"))
}
