//! The limits of a caller as they stand, of all models.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::counters::{self, ListError};
use crate::{
    domain::{
        Timestamp, explain,
        key::VirtualKey,
        limit::{Limit, LimitScope, Quantity},
        limit_status::{LimitStatus, LimitStatuses},
        plan::line_of,
        policy::{Organization, Policy, Team},
        rbac::TeamScope,
        snapshot::Snapshot,
    },
    live::Follower,
    store::{Ledger, Registry},
};

/// Whose limits to list.
#[derive(Clone, Debug, Default)]
pub struct LimitQuery {
    /// The team; empty: that of the key, or all.
    pub team: String,
    /// The key; empty: none.
    pub key: String,
    /// The user; empty: none.
    pub user: String,
    /// The most limits.
    pub page_size: usize,
    /// Continue after this one; `None`: from the start.
    pub after: Option<LimitPlace>,
}

/// Where a limit stands in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LimitPlace {
    /// The team; empty: the organization.
    pub team: Arc<str>,
    /// What it applies to.
    pub scope: LimitScope,
    /// Its place in the policy.
    pub id: Arc<str>,
}

/// A page of limits.
#[derive(Clone, Debug)]
pub struct LimitPage {
    /// In order.
    places: Vec<LimitPlace>,
    /// In the same order.
    statuses: LimitStatuses,
    /// Whether there are more.
    pub has_more: bool,
    /// The policy in force.
    pub policy_revision: Arc<str>,
    /// When the store was asked.
    pub read_at: Timestamp,
}

impl LimitPage {
    /// Each limit with its place.
    pub fn iter(&self) -> impl Iterator<Item = (&LimitPlace, LimitStatus<'_>)> {
        self.places.iter().zip(self.statuses.iter())
    }
}

/// Lists limits, on one core.
#[derive(Clone, Debug)]
pub struct LimitReports<S> {
    follower: Follower<S>,
    /// One page at a time.
    turn: Arc<Semaphore>,
}

/// Limits of one team or of the organization.
type Placed<'p> = (LimitPlace, &'p Arc<Limit>);

impl<S: Ledger + Registry> LimitReports<S> {
    /// Lists the limits that are in force for `follower`.
    #[must_use]
    pub fn new(follower: Follower<S>) -> Self {
        Self { follower, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Lists the limits of a caller: the organization's, and those of the team. With neither team nor key, those of all teams in `scope`.
    /// The organization's budgets are listed only if that is all.
    ///
    /// # Errors
    /// There is no such team or key in `scope`, several teams have such a key, or the store does not answer.
    pub async fn page(&self, query: &LimitQuery, scope: &TeamScope) -> Result<LimitPage, ListError> {
        let _turn = self.turn.acquire().await.map_err(|_| ListError::Internal)?;
        self.follower.read().await?;
        let (store, snapshot) = (self.follower.store(), self.follower.snapshot());
        let policy = &*snapshot.policy;
        if !query.team.is_empty() && !policy.teams.contains_key(query.team.as_str()) {
            return Err(ListError::UnknownTeam(query.team.clone()));
        }
        let key = match query.key.is_empty() {
            true => None,
            false => Some(self.key(query, scope, &snapshot)?),
        };
        let team = key.as_ref().map_or(query.team.as_str(), |key| &key.team);
        let teams = teams(policy, team, scope, query.after.as_ref())?;
        let of_key = key.as_ref().map_or(&[][..], |key| &key.limits);
        let found = found(query, of_organization(&policy.organization, scope), &teams, of_key);
        let read_at = store.read_clock().await?;
        let today = policy.calendar.today(read_at);
        let size = query.page_size.max(1);
        let (mut places, mut read, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        let has_more = found.len() > size;
        for (place, limit) in found.into_iter().take(size) {
            let user = Some(query.user.as_str()).filter(|_| limit.scope == LimitScope::User);
            let (counter, kind, line) = line_of(limit, user, &today);
            places.push(place);
            read.push((counter, kind));
            lines.push(line);
        }
        let used: Vec<u64> = counters::states(store, &read).await?.iter().map(|state| state.used).collect();
        let statuses = explain::standing(&lines.into(), store.moment(), &used);
        let policy_revision = Arc::clone(&snapshot.revision);
        Ok(LimitPage { places, statuses, has_more, policy_revision, read_at })
    }

    /// The key of a query: the created one, otherwise the one that a team declares.
    fn key(
        &self,
        query: &LimitQuery,
        scope: &TeamScope,
        snapshot: &Snapshot,
    ) -> Result<Arc<VirtualKey>, ListError> {
        let is_wanted =
            |key: &VirtualKey| scope.holds(&key.team) && (query.team.is_empty() || *key.team == *query.team);
        let created = self.follower.live().registry.key(&query.key)?;
        if let Some(created) = created.filter(|key| is_wanted(key)) {
            return Ok(created);
        }
        let declared = snapshot.policy.keys.named(&query.key).iter().filter(|key| is_wanted(key));
        let declared: Vec<&Arc<VirtualKey>> = declared.collect();
        match declared.as_slice() {
            [] => Err(ListError::UnknownKey(query.key.clone())),
            [key] => Ok(Arc::clone(key)),
            several => {
                Err(ListError::SeveralTeams(several.iter().map(|key| format!("`{}`", key.team)).collect()))
            }
        }
    }
}

/// The team of this name, or all in `scope` that a page after `after` can have, in order of name.
fn teams<'p>(
    policy: &'p Policy,
    name: &str,
    scope: &TeamScope,
    after: Option<&LimitPlace>,
) -> Result<Vec<&'p Team>, ListError> {
    if !name.is_empty() {
        let team = policy.teams.get(name).ok_or_else(|| ListError::UnknownTeam(name.to_owned()))?;
        return Ok(vec![team]);
    }
    let is_left =
        |team: &&Arc<Team>| scope.holds(&team.name) && after.is_none_or(|after| *team.name >= *after.team);
    let mut teams: Vec<&Team> = policy.teams.values().filter(is_left).map(AsRef::as_ref).collect();
    teams.sort_unstable_by_key(|team| &team.name);
    Ok(teams)
}

/// The limits after the last page, in order, and one more than this page can have, if there are so many.
fn found<'p>(
    query: &LimitQuery,
    of_organization: Vec<&'p Arc<Limit>>,
    teams: &[&'p Team],
    of_key: &'p [Arc<Limit>],
) -> Vec<Placed<'p>> {
    let none = Arc::default();
    let of_teams = teams.iter().map(|team| {
        let by_model = team.model_limits.iter().flat_map(|(_, limits)| limits);
        let own = team.limits.iter().chain(by_model).chain(&team.batch.open).chain(of_key);
        let of_user = team.user_limits.iter().filter(|_| !query.user.is_empty());
        (&team.name, own.chain(of_user).collect())
    });
    let mut found = Vec::new();
    for (team, limits) in std::iter::once((&none, of_organization)).chain(of_teams) {
        if found.len() > query.page_size {
            break;
        }
        let told = limits.into_iter().filter(|limit| explain::is_told(limit));
        let placed = told.map(|limit| {
            let (team, scope, id) = (Arc::clone(team), limit.scope, Arc::clone(&limit.id));
            (LimitPlace { team, scope, id }, limit)
        });
        let is_after = |place: &LimitPlace| query.after.as_ref().is_none_or(|after| *place > *after);
        let mut of_team: Vec<Placed<'_>> = placed.filter(|(place, _)| is_after(place)).collect();
        of_team.sort_by(|(one, _), (other, _)| one.cmp(other));
        found.extend(of_team);
    }
    found
}

/// The organization's limits. How much all teams together spend is shown to callers of all teams only, as in reports of spend.
fn of_organization<'p>(organization: &'p Organization, scope: &TeamScope) -> Vec<&'p Arc<Limit>> {
    let by_model = organization.model_limits.iter().flat_map(|(_, limits)| limits);
    let all = organization.limits.iter().chain(by_model);
    all.filter(|limit| *scope == TeamScope::All || limit.quantity != Quantity::NanoUsd).collect()
}
