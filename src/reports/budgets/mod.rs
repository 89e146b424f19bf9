//! Budgets as they stand in their present periods, page by page.

mod gathered;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use tokio::sync::Semaphore;

pub use self::gathered::{BudgetOwner, BudgetPlace, BudgetQuery};
use self::gathered::{Found, Gathered};
use super::{
    PastDays, PresentBudget, RecentDays,
    counters::{self, ListError},
};
use crate::{
    domain::{
        Timestamp,
        budget::BudgetState,
        calendar::CalendarPeriod,
        counter::CounterState,
        forecast::{Forecast, Outlook},
        limit::Limit,
        plan::line_of,
        policy::Policy,
        rbac::TeamScope,
        snapshot::Snapshot,
    },
    live::Follower,
    store::{Ledger, Registry, StoreError, Usage},
};

/// A budget as it stands.
#[derive(Clone, Debug)]
pub struct BudgetReport {
    /// Where it stands in the list, and whose it is.
    pub place: BudgetPlace,
    /// The limit.
    pub limit: Arc<Limit>,
    /// Its present period.
    pub period: CalendarPeriod,
    /// What is spent of it.
    pub state: BudgetState,
    /// How it ends at this pace; `None`: the days that it rests on cannot be read, or are not all there.
    pub forecast: Option<Forecast>,
}

/// A page of budgets.
#[derive(Clone, Debug)]
pub struct BudgetPage {
    /// The budgets, in order.
    pub budgets: Vec<BudgetReport>,
    /// Whether there are more.
    pub has_more: bool,
    /// The policy in force.
    pub policy_revision: Arc<str>,
    /// When the store was asked.
    pub read_at: Timestamp,
    /// The organization's time zone, by its IANA name.
    pub time_zone: String,
}

/// Lists budgets, on one core.
#[derive(Clone, Debug)]
pub struct Budgets<S> {
    follower: Follower<S>,
    past: PastDays,
    /// One page at a time: the days of teams are read for it, piece by piece, and decisions come in between.
    turn: Arc<Semaphore>,
}

impl<S: Ledger + Registry + Usage> Budgets<S> {
    /// Lists the budgets that are in force for `follower`. Days that `past` has are not read again.
    #[must_use]
    pub fn new(follower: Follower<S>, past: PastDays) -> Self {
        Self { follower, past, turn: Arc::new(Semaphore::new(1)) }
    }

    /// The id of the organization that they belong to.
    #[must_use]
    pub fn organization(&self) -> Arc<str> {
        Arc::clone(&self.follower.snapshot().policy.organization.id)
    }

    /// What is in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.follower.snapshot()
    }

    /// The store that they are counted in.
    #[must_use]
    pub const fn store(&self) -> &S {
        self.follower.store()
    }

    /// The store's wall clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.follower.store().now()
    }

    /// The days of a team (empty: the organization) and its keys, or of one of its users.
    async fn days(
        &self,
        outlook: &Outlook,
        team: &Arc<str>,
        user: Option<&str>,
    ) -> Result<Option<RecentDays>, StoreError> {
        let store = self.follower.store();
        match user {
            Some(user) => self.past.of_user(store, outlook, (team, user)).await,
            None => self.past.recent(store, outlook, team).await,
        }
    }

    /// Lists the budgets of the teams in `scope`; of the organization only if that is all teams.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn page(&self, query: &BudgetQuery, scope: &TeamScope) -> Result<BudgetPage, ListError> {
        let _turn = self.turn.acquire().await.map_err(|_| ListError::Internal)?;
        self.follower.read().await?;
        let (store, snapshot) = (self.follower.store(), self.follower.snapshot());
        let policy = &*snapshot.policy;
        let read_at = store.read_clock().await?;
        let mut gathered = Gathered::new(query, scope, read_at);
        gathered.add_all(policy, self.follower.live());
        let outlook = Outlook::new(&policy.calendar, read_at);
        let of_user = |found: &Found| (found.place.owner == BudgetOwner::User).then_some(query.user.as_str());
        let counter = |found: &Found| {
            let (counter, kind, _) = line_of(&found.limit, of_user(found), outlook.today());
            (counter, kind)
        };
        let counters: Vec<_> = gathered.found.iter().map(counter).collect();
        let states = counters::states(store, &counters).await?;
        let (mut budgets, mut days) = (Vec::with_capacity(gathered.found.len()), HashMap::new());
        for (found, state) in gathered.found.into_iter().zip(states) {
            let user = of_user(&found);
            let days = match days.entry((Arc::clone(&found.place.team), user.is_some())) {
                Entry::Occupied(known) => known.into_mut(),
                // Without a forecast there is still the budget.
                Entry::Vacant(place) => {
                    let read = self.days(&outlook, &found.place.team, user).await;
                    place.insert(read.ok().flatten())
                }
            };
            budgets.push(report(policy, &outlook, days.as_ref(), (found, state)));
        }
        Ok(BudgetPage {
            budgets,
            has_more: gathered.has_more,
            policy_revision: Arc::clone(&snapshot.revision),
            read_at,
            time_zone: policy.calendar.zone_name().unwrap_or_default().to_owned(),
        })
    }
}

/// A budget with its forecast.
fn report(
    policy: &Policy,
    outlook: &Outlook,
    days: Option<&RecentDays>,
    (Found { place, limit, month }, state): (Found, CounterState),
) -> BudgetReport {
    let (state, period) = (BudgetState::of(Some(&limit), state), outlook.today().of(place.period));
    let key = (place.owner == BudgetOwner::Key).then_some(&*place.key);
    let month_of_team = policy.teams.get(&place.team).and_then(|team| team.limits.month.bound);
    let budget = PresentBudget { key, period: place.period, state: &state, month, month_of_team };
    let forecast = days.and_then(|days| days.forecast(outlook, &budget));
    BudgetReport { place, limit, period, state, forecast }
}
