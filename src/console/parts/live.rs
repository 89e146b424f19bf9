//! The mark of a page that keeps itself up to date.

use maud::{Markup, html};

use crate::console::{events, view::View};

/// The mark, which the script shows once it follows `topics`; of `team` alone, if it is not empty. Without a script there is none, and
/// the page is as it was when it was made.
///
/// What is to be replaced has the attribute `data-live` and an id of its own.
pub(in super::super) fn mark(view: &View, topics: &str, team: &str) -> Markup {
    let topics = events::permitted(view, topics);
    let address = view.query("/events", &[("topics", &topics), ("team", team)]);
    html! { @if !topics.is_empty() { span.live #live-mark hidden data-events=(address) role="status" { "live" } } }
}
