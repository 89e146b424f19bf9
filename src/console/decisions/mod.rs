//! Decisions as they are made: the last ones, why one was denied, and those that follow.

mod amount;
mod explain;
mod filter;
mod gather;
mod page;
mod row;
mod stream;

use axum::Extension;
use maud::Markup;
use serde::Deserialize;

pub(super) use self::{
    filter::{Filter, Words},
    stream::Tail,
};
use super::{asked::Asked, fault::Fault, frame::Tab, view::View};
use crate::{domain::rbac::Permission, rpc::proto::DecisionEvent};

/// The place before all decisions: what follows it is all that is kept.
const BEFORE_ALL: &str = "0000000000000000000000000000";
/// The most rows of the list.
const ROWS: usize = 100;

/// What of the page is asked for. The address holds all of it, so it can be sent to others.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Query {
    #[serde(flatten)]
    words: Words,
    /// The decision that is explained.
    #[serde(default)]
    open: String,
    /// The newest decision of a list that is held as it was.
    #[serde(default)]
    hold: String,
}

/// What the page shows.
struct Shown<'a> {
    view: &'a View,
    filter: Filter,
    query: &'a Query,
    /// The newest first: at most [`ROWS`], and the one that is explained.
    rows: Vec<&'a DecisionEvent>,
    /// How many of the last minute there are, and denied ones among them, by second.
    minute: Vec<(i64, usize, usize)>,
    /// How many are newer than a list that is held.
    newer: usize,
    /// The newest that is known, shown or not.
    last: Option<&'a str>,
}

/// The page.
pub(super) async fn show(
    Extension(view): Extension<View>,
    Asked(query): Asked<Query>,
) -> Result<Markup, Fault> {
    if !view.may(Permission::ReadDecisions) {
        return Err(Fault::missing(Permission::ReadDecisions));
    }
    let filter = Filter::of(query.words.clone())?;
    for (name, id) in [("open", &query.open), ("hold", &query.hold)] {
        let is_id = id.len() == BEFORE_ALL.len() && id.bytes().all(|b| b.is_ascii_hexdigit());
        if !id.is_empty() && !is_id {
            return Err(Fault::in_address(name, "the id of a decision"));
        }
    }
    let kept = gather::kept(&view, &filter).await?;
    let shown = Shown::of(&view, filter, &query, &kept);
    Ok(view.page(Tab::Decisions, "Decisions", page::body(&shown)))
}

impl<'a> Shown<'a> {
    /// Of the decisions that are kept, the oldest first.
    fn of(view: &'a View, filter: Filter, query: &'a Query, kept: &'a [DecisionEvent]) -> Self {
        // Ids are of one length, so they have their order as texts.
        let is_newer = |event: &&DecisionEvent| !query.hold.is_empty() && event.id > query.hold;
        let list = || kept.iter().rev().filter(|event| !is_newer(event));
        let is_open = |event: &&DecisionEvent| event.id == query.open;
        let mut rows: Vec<_> = list().take(ROWS).collect();
        rows.extend(list().skip(ROWS).find(is_open));
        Self {
            view,
            filter,
            query,
            rows,
            minute: gather::minute(kept, view.now().timestamp().as_second()),
            newer: kept.iter().filter(is_newer).count(),
            last: kept.last().map(|event| event.id.as_str()),
        }
    }

    fn is_held(&self) -> bool {
        !self.query.hold.is_empty()
    }

    /// The address of this list with `open` as the decision that is explained; empty: none.
    fn opening(&self, open: &str) -> String {
        let mut pairs = self.filter.pairs();
        pairs.extend([("open", open), ("hold", &self.query.hold)]);
        self.view.query("/decisions", &pairs)
    }
}
