//! Alerts: what operators were told of, whether it arrived, and tests of receivers.

mod gather;
mod list;
mod open;
mod receivers;

use axum::{Extension, extract::Path, response::Redirect};
use maud::{Markup, html};
use serde::Deserialize;

use self::receivers::Tested;
pub(super) use self::{
    gather::list,
    open::{OpenAlerts, OpenCount},
};
use super::{asked, fault::Fault, fields::Fields, frame::Tab, view::View};
use crate::{
    domain::rbac::Permission,
    rpc::proto::{TestReceiverRequest, TestReceiverResponse},
};

/// What of the page is asked for. The address holds all of it, so it can be sent to others.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Asked {
    /// `open` or `resolved`; empty: both.
    #[serde(default)]
    state: String,
    /// The short name of a kind; empty: all.
    #[serde(default)]
    kind: String,
    /// The name of a team; empty: all.
    #[serde(default)]
    team: String,
    /// The first day, in the organization's zone; empty: all that are kept.
    #[serde(default)]
    since: String,
    /// Continues the list.
    #[serde(default)]
    after: String,
    /// The result of a test, after one.
    #[serde(flatten)]
    tested: Tested,
}

impl Asked {
    fn is_filtered(&self) -> bool {
        [&self.state, &self.kind, &self.team, &self.since].iter().any(|filter| !filter.is_empty())
    }

    /// The address of the page that begins behind `after`.
    fn address(&self, view: &View, after: &str) -> String {
        let filters =
            [("state", &*self.state), ("kind", &self.kind), ("team", &self.team), ("since", &self.since)];
        view.query("/alerts", &[&filters[..], &[("after", after)]].concat())
    }
}

/// The page.
pub(super) async fn show(
    Extension(view): Extension<View>,
    asked::Asked(asked): asked::Asked<Asked>,
) -> Result<Markup, Fault> {
    let gathered = gather::gather(&view, &asked).await?;
    let body = html! {
        @if let Some(banner) = asked.tested.banner(&view) { (banner) }
        div.head { h1 { "Alerts" } @if view.may_for_all(Permission::ReadAlerts) { p.quiet { "Kept for 90 days" } } }
        (list::filters(&view, &asked))
        (list::open(&view, &asked, &gathered))
        (list::all(&view, &asked, &gathered))
        (receivers::section(&view, &gathered.receivers))
    };
    Ok(view.page(Tab::Alerts, "Alerts", body))
}

/// Sends a test to a receiver, and shows how it went.
pub(super) async fn test(
    Extension(view): Extension<View>,
    Path((_, receiver)): Path<(String, String)>,
    _: Fields,
) -> Result<Redirect, Fault> {
    let request = TestReceiverRequest { name: receiver.clone() };
    let answer: TestReceiverResponse = view.api().alerts().test_receiver(request).await?.into_inner();
    Ok(Redirect::to(&Tested::of(&view, &receiver, &answer).address(&view)))
}
