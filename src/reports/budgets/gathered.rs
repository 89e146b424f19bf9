//! Which budgets a page has.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    ops::ControlFlow::{self, Break, Continue},
    sync::Arc,
};

use crate::{
    domain::{
        Timestamp,
        key::{KeyCursor, KeyState, VirtualKey},
        limit::{Limit, Period, Quantity, Window},
        policy::{Policy, Team},
        rbac::TeamScope,
    },
    live::Live,
};

/// The most teams of which there are budgets on one page: their days are read for forecasts, up to some 10,000 rows of each.
const MAX_TEAMS: usize = 100;
/// The same for budgets of a user: some sixty sets of rows are read of each.
const MAX_TEAMS_OF_USER: usize = 8;

/// Which budgets to list.
#[derive(Clone, Debug, Default)]
pub struct BudgetQuery {
    /// Those of one team, its keys and its users; empty: of all.
    pub team: String,
    /// Those of keys of this name; empty: of any, and of none.
    pub key: String,
    /// Those of this user; empty: of none.
    pub user: String,
    /// The most budgets.
    pub page_size: usize,
    /// Continue after this one; `None`: from the start.
    pub after: Option<BudgetPlace>,
}

/// What a budget is of, in the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "their names say it")]
pub enum BudgetOwner {
    Organization,
    Team,
    Key,
    User,
}

impl BudgetOwner {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Organization, Self::Team, Self::Key, Self::User];

    /// Its number in page tokens.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Organization => 0,
            Self::Team => 1,
            Self::Key => 2,
            Self::User => 3,
        }
    }
}

/// Where a budget stands in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetPlace {
    /// What it is of.
    pub owner: BudgetOwner,
    /// The key; empty: none.
    pub key: Arc<str>,
    /// The team; empty: the organization.
    pub team: Arc<str>,
    /// Whether the policy document declares the key.
    pub is_declared: bool,
    /// Its period, the longest first.
    pub period: Period,
}

impl BudgetPlace {
    fn of_key(key: &VirtualKey, period: Period) -> Self {
        let KeyCursor { name, team, declared } = key.cursor();
        Self { owner: BudgetOwner::Key, key: name, team, is_declared: declared, period }
    }

    /// What it is ordered by: keys come in the order of all keys.
    fn rank(&self) -> impl Ord + '_ {
        (self.owner, &self.key, &self.team, self.is_declared, Reverse(length(self.period)))
    }
}

impl PartialOrd for BudgetPlace {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BudgetPlace {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

const fn length(period: Period) -> u8 {
    match period {
        Period::Day => 0,
        Period::Week => 1,
        Period::Month => 2,
    }
}

/// The period of a limit that is a budget.
fn period_of(limit: &Limit) -> Option<Period> {
    match limit.window {
        Window::Calendar(period) if limit.quantity == Quantity::NanoUsd && limit.bound.is_some() => {
            Some(period)
        }
        _ => None,
    }
}

/// A budget of a page.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) place: BudgetPlace,
    pub(super) limit: Arc<Limit>,
    /// The bound of the budget of the month that its owner has.
    pub(super) month: Option<u64>,
}

/// The budgets of a page, gathered in order until it is full.
pub(super) struct Gathered<'q> {
    query: &'q BudgetQuery,
    scope: &'q TeamScope,
    now: Timestamp,
    pub(super) found: Vec<Found>,
    pub(super) has_more: bool,
    teams: BTreeSet<Arc<str>>,
}

impl<'q> Gathered<'q> {
    pub(super) const fn new(query: &'q BudgetQuery, scope: &'q TeamScope, now: Timestamp) -> Self {
        Self { query, scope, now, found: Vec::new(), has_more: false, teams: BTreeSet::new() }
    }

    /// Adds all that the page has room for.
    pub(super) fn add_all(&mut self, policy: &Policy, live: &Live) {
        let BudgetQuery { team, key, user, .. } = self.query;
        let (no_key, no_user) = (key.is_empty(), user.is_empty());
        let mut add_all = || {
            if team.is_empty() && no_key && no_user && *self.scope == TeamScope::All {
                let limits = policy.organization.limits.iter();
                self.add(BudgetOwner::Organization, &Arc::default(), limits)?;
            }
            if no_key && no_user {
                for team in self.teams(policy, BudgetOwner::Team) {
                    self.add(BudgetOwner::Team, &team.name, team.limits.iter())?;
                }
            }
            if no_user {
                for key in self.keys(policy, live) {
                    self.add_key(&key)?;
                }
            } else if no_key {
                for team in self.teams(policy, BudgetOwner::User) {
                    self.add(BudgetOwner::User, &team.name, team.user_limits.iter())?;
                }
            }
            Continue(())
        };
        self.has_more = add_all().is_break();
    }

    /// The teams whose budgets as those of `owner` may be on the page, in order of name.
    fn teams<'p>(&self, policy: &'p Policy, owner: BudgetOwner) -> Vec<&'p Team> {
        let is_left = |team: &Team| match &self.query.after {
            None => true,
            Some(after) if after.owner == owner => *team.name >= *after.team,
            Some(after) => after.owner < owner,
        };
        let teams = policy.teams.values().map(AsRef::as_ref);
        let mut teams: Vec<&Team> = teams.filter(|team| is_left(team) && self.has_team(&team.name)).collect();
        teams.sort_unstable_by_key(|team| &team.name);
        teams
    }

    fn has_team(&self, team: &str) -> bool {
        self.scope.holds(team) && (self.query.team.is_empty() || *team == *self.query.team)
    }

    /// The keys with a budget on the page, and maybe some after it.
    fn keys(&self, policy: &Policy, live: &Live) -> Vec<Arc<VirtualKey>> {
        let after = self.query.after.as_ref().filter(|after| after.owner == BudgetOwner::Key);
        // Before all keys of that name, as the last one may have budgets left.
        let of_name =
            |name: &Arc<str>| KeyCursor { name: Arc::clone(name), team: Arc::default(), declared: false };
        let cursor = after.map(|after| of_name(&after.key));
        let is_wanted = |key: &VirtualKey| {
            let name = &*self.query.key;
            let is_named = *key.name == *name;
            (is_named || name.is_empty() && key.state(self.now) == KeyState::Active)
                && self.has_team(&key.team)
                && budgets_of_key(key).any(|(place, _)| after.is_none_or(|after| place > *after))
        };
        // Each has a budget. One more than the page has room for tells whether there is another page.
        let count = self.room() + 1;
        let mut keys = live.registry.keys_after(cursor.as_ref(), count, is_wanted);
        let declared = policy.keys.after(cursor.as_ref()).iter().filter(|key| is_wanted(key));
        keys.extend(declared.take(count).cloned());
        keys.sort_by_cached_key(|key| key.cursor());
        keys
    }

    /// How many budgets there is room for.
    fn room(&self) -> usize {
        self.query.page_size.max(1).saturating_sub(self.found.len())
    }

    /// Adds the budgets among the limits of an owner, the longest period first. Breaks off where the page is full.
    fn add<'l>(
        &mut self,
        owner: BudgetOwner,
        team: &Arc<str>,
        limits: impl Iterator<Item = &'l Arc<Limit>> + Clone,
    ) -> ControlFlow<()> {
        let place = |period| {
            let (key, team) = (Arc::default(), Arc::clone(team));
            BudgetPlace { owner, key, team, is_declared: false, period }
        };
        let month = month_of(limits.clone());
        let budgets = limits.filter_map(|limit| Some((place(period_of(limit)?), limit)));
        let left = self.left(budgets, month);
        self.take(left)
    }

    fn add_key(&mut self, key: &VirtualKey) -> ControlFlow<()> {
        let left = self.left(budgets_of_key(key), month_of(key.limits.iter()));
        self.take(left)
    }

    /// Those after the last page, in order.
    fn left<'l>(
        &self,
        budgets: impl Iterator<Item = (BudgetPlace, &'l Arc<Limit>)>,
        month: Option<u64>,
    ) -> Vec<Found> {
        let after = self.query.after.as_ref();
        let left = budgets.filter(|(place, _)| after.is_none_or(|after| place > after));
        let mut left: Vec<Found> =
            left.map(|(place, limit)| Found { place, limit: Arc::clone(limit), month }).collect();
        left.sort_by(|one, other| one.place.cmp(&other.place));
        left
    }

    fn take(&mut self, budgets: Vec<Found>) -> ControlFlow<()> {
        for found in budgets {
            let most = match found.place.owner {
                BudgetOwner::User => MAX_TEAMS_OF_USER,
                _ => MAX_TEAMS,
            };
            let is_of_one_more = !self.teams.contains(&found.place.team);
            if self.room() == 0 || is_of_one_more && self.teams.len() >= most {
                return Break(());
            }
            self.teams.insert(Arc::clone(&found.place.team));
            self.found.push(found);
        }
        Continue(())
    }
}

/// The bound of the budget of the month among the limits of an owner.
fn month_of<'l>(mut limits: impl Iterator<Item = &'l Arc<Limit>>) -> Option<u64> {
    limits.find(|limit| period_of(limit) == Some(Period::Month)).and_then(|limit| limit.bound)
}

fn budgets_of_key(key: &VirtualKey) -> impl Iterator<Item = (BudgetPlace, &Arc<Limit>)> {
    let budgets = key.limits.iter().filter_map(|limit| Some((period_of(limit)?, limit)));
    budgets.map(|(period, limit)| (BudgetPlace::of_key(key, period), limit))
}
