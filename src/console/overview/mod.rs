//! The overview: what the organization spends of its budget, which team will not get by, and what needs attention.

mod attention;
mod days;
mod gather;
mod page;
mod service;
mod teams;

use axum::Extension;
use jiff::{ToSpan as _, civil::Date};
use maud::Markup;
use serde::Deserialize;

use super::{asked::Asked, fault::Fault, frame::Tab, text::time, view::View};

/// So many months before the present one are kept.
const MONTHS_KEPT: i64 = 12;

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
    let turn = view.turn().await;
    let gathered = gather::gather(&view, first).await?;
    drop(turn);
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
    let turn = view.turn().await;
    let gathered = gather::teams(&view, first).await?;
    drop(turn);
    Ok(view.page(Tab::Teams, "Teams", page::alone(&view, &asked, &gathered)))
}

/// The month before the one that begins with `first`; `None`: it is not kept any more.
pub(super) fn month_before(first: Date, today: Date) -> Option<Date> {
    let before = first.first_of_month().saturating_sub(1.month());
    (before >= today.first_of_month().saturating_sub(MONTHS_KEPT.months())).then_some(before)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_leads_to_a_month_that_is_not_kept() {
        let day = |text: &str| text.parse::<Date>().unwrap();
        let before = |first| month_before(day(first), day("2026-11-30")).map(|before| before.to_string());
        assert_eq!(before("2026-11-01").as_deref(), Some("2026-10-01"));
        assert_eq!(before("2025-12-01").as_deref(), Some("2025-11-01"));
        assert_eq!(before("2025-11-01"), None);
    }
}
