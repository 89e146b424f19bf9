//! Decisions as they are made: the last ones, why one was denied, and those that follow.

mod amount;
mod explain;
mod filter;
mod gather;
mod page;
mod row;
mod stream;

use axum::Extension;
use maud::{Markup, html};
use serde::Deserialize;

pub(super) use self::{
    filter::{Filter, Words},
    stream::Tail,
};
use super::{asked::Asked, fault::Fault, frame::Tab, view::View};
use crate::{
    domain::rbac::Permission,
    rpc::proto::{DecisionEvent, Reason},
};

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
    /// The decision before which the page of the list begins; empty: the newest.
    #[serde(default)]
    before: String,
}

/// What the page shows.
struct Shown<'a> {
    view: &'a View,
    filter: Filter,
    query: &'a Query,
    /// The newest first: at most [`ROWS`], and the one that is explained.
    rows: Vec<&'a DecisionEvent>,
    /// How many of these are of the list.
    listed: usize,
    /// How many of the list are newer than the first row.
    skipped: usize,
    /// How many the list has.
    all: usize,
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
    for (name, id) in [("open", &query.open), ("hold", &query.hold), ("before", &query.before)] {
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
        let is_skipped = |event: &&DecisionEvent| !query.before.is_empty() && event.id >= query.before;
        let skipped = list().take_while(is_skipped).count();
        let mut rows: Vec<_> = list().skip(skipped).take(ROWS).collect();
        let (listed, is_there) = (rows.len(), rows.iter().any(is_open));
        rows.extend(list().find(is_open).filter(|_| !is_there));
        Self {
            view,
            filter,
            query,
            rows,
            listed,
            skipped,
            all: list().count(),
            minute: gather::minute(kept, view.now().timestamp().as_second()),
            newer: kept.iter().filter(is_newer).count(),
            last: kept.last().map(|event| event.id.as_str()),
        }
    }

    /// An older page holds the list as well: what is new has no place on it.
    fn is_held(&self) -> bool {
        !self.query.hold.is_empty() || !self.query.before.is_empty()
    }

    /// The address of the page of the list that begins before a decision; empty: the first.
    fn page(&self, before: &str) -> String {
        let newest = self.rows.first().map_or("", |event| event.id.as_str());
        let hold = if self.is_held() { &self.query.hold } else { newest };
        let mut pairs = self.filter.pairs();
        pairs.extend([("hold", hold), ("before", before)]);
        self.view.query("/decisions", &pairs)
    }

    /// The address of this list with `open` as the decision that is explained; empty: none.
    fn opening(&self, open: &str) -> String {
        let mut pairs = self.filter.pairs();
        pairs.extend([("open", open), ("hold", &self.query.hold), ("before", &self.query.before)]);
        self.view.query("/decisions", &pairs)
    }
}

/// The address of the decisions that `asked` asks for, by the names of the page's filters; `None`: the reader may not see those of `team`
/// (empty: of any).
pub(super) fn address(view: &View, team: &str, asked: &[(&str, &str)]) -> Option<String> {
    let may = match team {
        "" => view.may(Permission::ReadDecisions),
        team => view.may_for(Permission::ReadDecisions, team),
    };
    may.then(|| view.query("/decisions", &[&[("team", team)][..], asked].concat()))
}

/// A link to those of them that were denied for `reason`; nothing, where the reader may not see them.
pub(super) fn denied(view: &View, team: &str, reason: Reason, asked: &[(&str, &str)]) -> Markup {
    let address = address(view, team, &[&[("reason", filter::name(reason))][..], asked].concat());
    html! { @if let Some(address) = address { " " a href=(address) { "Denials now" } } }
}

/// A reason, which leads to the decisions of `team` (empty: of any) that were denied for it, where the reader may see them.
pub(super) fn reason(view: &View, team: &str, reason: Reason) -> Markup {
    let name = filter::name(reason);
    html! {
        @match address(view, team, &[("reason", name)]) {
            Some(address) if reason != Reason::Unspecified => { a.reason href=(address) { (name) } }
            _ => span.reason { (name) },
        }
    }
}
