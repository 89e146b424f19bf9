//! One request for a page: its reader, what is in force, and the moment.

use std::sync::{Arc, OnceLock};

use axum::http::HeaderMap;
use jiff::{Zoned, tz::TimeZone};
use maud::Markup;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Console,
    alerts::OpenCount,
    api::Api,
    frame::{self, Tab},
};
use crate::{
    access::{Peer, SignedIn},
    domain::{
        rbac::{Permission, Principal, TeamScope},
        snapshot::Snapshot,
    },
};

/// One request for a page. Cheap to clone.
#[derive(Clone)]
pub(super) struct View(Arc<Inner>);

struct Inner {
    console: Console,
    snapshot: Arc<Snapshot>,
    /// `None`: the policy knows no callers.
    caller: Option<Arc<Principal>>,
    /// Where the reader has signed in.
    session: Option<SignedIn>,
    peer: Option<Peer>,
    now: Zoned,
    /// How many alerts are open, where the reader may know and it is known.
    open_alerts: OnceLock<OpenCount>,
}

impl View {
    /// A request by `caller`, who is at `peer`, while `snapshot` is in force.
    pub(super) fn new(
        console: Console,
        snapshot: Arc<Snapshot>,
        caller: Option<Arc<Principal>>,
        peer: Option<Peer>,
    ) -> Self {
        let now = i64::try_from(console.0.runtime.clock.now().0).unwrap_or(i64::MAX);
        let now = jiff::Timestamp::from_millisecond(now).unwrap_or(jiff::Timestamp::MAX);
        let now = now.to_zoned(snapshot.policy.organization.time_zone.clone());
        let open_alerts = OnceLock::new();
        Self(Arc::new(Inner { console, snapshot, caller, session: None, peer, now, open_alerts }))
    }

    /// The same request, by a reader who has signed in.
    pub(super) fn of_session(self, signed_in: SignedIn) -> Self {
        let Inner { console, snapshot, caller, peer, now, .. } = &*self.0;
        let (console, snapshot, caller) = (console.clone(), Arc::clone(snapshot), caller.clone());
        let (session, peer, now) = (Some(signed_in), peer.clone(), now.clone());
        let open_alerts = OnceLock::new();
        Self(Arc::new(Inner { console, snapshot, caller, session, peer, now, open_alerts }))
    }

    /// The session of the reader, if they have signed in.
    pub(super) fn session(&self) -> Option<&SignedIn> {
        self.0.session.as_ref()
    }

    /// Has the head of the page say how many alerts are open, if the reader may know.
    pub(super) async fn count_open_alerts(&self) {
        if let Some(count) = self.0.console.0.open_alerts.count(self).await {
            // It is counted once.
            let _ = self.0.open_alerts.set(count);
        }
    }

    /// Counts them in `scope`, which is the reader's.
    pub(super) async fn note_open_alerts(self, scope: TeamScope) -> Option<OpenCount> {
        self.0.console.0.open_alerts.read(&self, &scope).await
    }

    /// How many alerts are open; `None`: the reader may not know, or it is not known.
    pub(super) fn open_alerts(&self) -> Option<OpenCount> {
        self.0.open_alerts.get().copied()
    }

    /// Waits until the page may ask for usage, which it may for as long as it holds this.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.0.console.0.usage).acquire_owned().await.ok()
    }

    /// What tells the reader from others: by session if they have signed in, else by who they are.
    pub(super) fn reader(&self) -> String {
        let Inner { session, caller, .. } = &*self.0;
        match (session, caller) {
            (Some(session), _) => format!("session {}", session.id()),
            (None, Some(caller)) => format!("{:?} {}", caller.kind, caller.name),
            (None, None) => String::new(),
        }
    }

    /// The services, asked by the reader.
    pub(super) fn api(&self) -> Api {
        let Inner { console, caller, peer, .. } = &*self.0;
        Api::new(console.0.services.clone(), caller.clone(), peer.clone())
    }

    /// What is in force. It has rows of every team: what a page shows of it is chosen by [`Self::scope`].
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.0.snapshot
    }

    /// The reader; `None`: the policy knows no callers.
    pub(super) fn caller(&self) -> Option<&Principal> {
        self.0.caller.as_deref()
    }

    /// When the page is made, in the organization's zone.
    pub(super) fn now(&self) -> &Zoned {
        &self.0.now
    }

    /// The organization's time zone.
    pub(super) fn zone(&self) -> &TimeZone {
        self.0.now.time_zone()
    }

    /// The teams over which the reader has `permission`; `None` if there are none.
    pub(super) fn scope(&self, permission: Permission) -> Option<TeamScope> {
        match &self.0.caller {
            None => Some(TeamScope::All),
            Some(caller) => caller.scope(permission),
        }
    }

    /// Whether the reader has `permission` for any team.
    pub(super) fn may(&self, permission: Permission) -> bool {
        self.scope(permission).is_some()
    }

    /// Whether the reader has `permission` for the whole organization.
    pub(super) fn may_for_all(&self, permission: Permission) -> bool {
        self.scope(permission) == Some(TeamScope::All)
    }

    /// Whether the reader has `permission` for `team`.
    pub(super) fn may_for(&self, permission: Permission, team: &str) -> bool {
        self.scope(permission).is_some_and(|scope| scope.holds(team))
    }

    /// The teams of the policy for which the reader has `permission`, by name.
    pub(super) fn teams(&self, permission: Permission) -> Vec<&str> {
        let Some(scope) = self.scope(permission) else { return Vec::new() };
        let mut teams: Vec<_> = self
            .snapshot()
            .policy
            .teams
            .keys()
            .map(|team| &**team)
            .filter(|team| scope.holds(team))
            .collect();
        teams.sort_unstable();
        teams
    }

    /// Whether the reader may see anything of `team`: what it spends, its keys, or what the policy says of it.
    pub(super) fn sees(&self, team: &str) -> bool {
        let any = [Permission::ReadSpend, Permission::ReadTeamPolicy, Permission::ReadKeys];
        any.into_iter().any(|permission| self.may_for(permission, team))
    }

    /// The address of a page of the organization: `path` begins with a slash.
    pub(super) fn address(&self, path: &str) -> String {
        format!("/console/{}{path}", self.snapshot().policy.organization.id)
    }

    /// The address of a page with what is asked of it; what is empty is left out.
    pub(super) fn query(&self, path: &str, asked: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(asked.iter().filter(|(_, value)| !value.is_empty()));
        let query = query.finish();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}{mark}{query}", self.address(path))
    }

    /// What a form of ours carries so that no page of others can send it.
    pub(super) fn form_token(&self) -> Option<String> {
        self.form_tokens().into_iter().next()
    }

    /// All that a form of ours may carry, what it carries today first: a key may be on its way to being replaced.
    pub(super) fn form_tokens(&self) -> Vec<String> {
        let Inner { console, caller, session, snapshot, .. } = &*self.0;
        match session {
            Some(session) => vec![session.form_token()],
            None => {
                let name = caller.as_ref().map_or("", |caller| &*caller.name);
                console.0.door.form_tokens(&snapshot.policy.organization.id, name)
            }
        }
    }

    /// Whether a change with these headers was sent by a page of the console.
    pub(super) fn is_from_own_page(&self, headers: &HeaderMap) -> bool {
        self.0.console.0.door.is_from_own_page(headers, self.0.peer.as_ref())
    }

    /// `body` as a whole page that stands at `tab`.
    pub(super) fn page(&self, tab: Tab, title: &str, body: Markup) -> Markup {
        frame::page(self, tab, title, &body)
    }
}
