//! Budgets as they stand in their present periods, page by page.

mod gathered;

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Semaphore;

pub use self::gathered::{BudgetOwner, BudgetPlace, BudgetQuery};
use self::gathered::{Found, Gathered};
use super::{
    PastDays,
    counters::{self, ListError},
};
use crate::{
    domain::{
        Timestamp,
        budget::BudgetState,
        calendar::CalendarPeriod,
        forecast::{Forecast, Outlook, Pace},
        limit::Limit,
        plan::line_of,
        policy::Policy,
        rbac::TeamScope,
    },
    live::Follower,
    store::{Ledger, Registry, Usage},
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
    /// How it ends at this pace; `None`: it is of a key or a user, or the days that it rests on cannot be read.
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

    /// The store's wall clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.follower.store().now()
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
        let months = months(policy, &gathered.found);
        let counter = |limit: &Arc<Limit>, user: Option<&str>| {
            let (counter, kind, _) = line_of(limit, user, outlook.today());
            (counter, kind)
        };
        let of_user = |found: &Found| (found.place.owner == BudgetOwner::User).then_some(query.user.as_str());
        let of_budgets = gathered.found.iter().map(|found| counter(&found.limit, of_user(found)));
        let of_months = months.values().map(|month| counter(month, None));
        let counters: Vec<_> = of_budgets.chain(of_months).collect();
        let states = counters::states(store, &counters).await?;
        let (of_budgets, of_months) = states.split_at(gathered.found.len().min(states.len()));
        let mut paces = BTreeMap::new();
        for ((team, month), state) in months.iter().zip(of_months) {
            // Without a forecast there is still the budget.
            let days = self.past.recent(store, &outlook, team, state.settled).await.ok().flatten();
            paces.extend(days.map(|days| (Arc::clone(team), Pace::of(&outlook, &days, month.bound))));
        }
        let budgets = gathered.found.iter().zip(of_budgets).map(|(found, state)| {
            let Found { place, limit } = found.clone();
            let (state, period) = (BudgetState::of(Some(&limit), *state), outlook.today().of(place.period));
            let pace = paces.get(&place.team).filter(|_| place.owner.has_forecast());
            let forecast = pace.map(|pace| Forecast::of(&outlook, pace, &state, place.period));
            BudgetReport { place, limit, period, state, forecast }
        });
        Ok(BudgetPage {
            budgets: budgets.collect(),
            has_more: gathered.has_more,
            policy_revision: Arc::clone(&snapshot.revision),
            read_at,
            time_zone: policy.calendar.zone_name().unwrap_or_default().to_owned(),
        })
    }
}

/// The months of the teams (empty: the organization) whose budgets have a forecast, whether or not they have a budget for them: days that
/// were read before are brought up to date by their counters.
fn months<'p>(policy: &'p Policy, found: &[Found]) -> BTreeMap<Arc<str>, &'p Arc<Limit>> {
    let with_forecast = found.iter().filter(|found| found.place.owner.has_forecast());
    let month = |found: &Found| {
        let limits = match found.place.owner {
            BudgetOwner::Organization => &policy.organization.limits,
            _ => &policy.teams.get(&found.place.team)?.limits,
        };
        Some((Arc::clone(&found.place.team), &limits.month))
    };
    with_forecast.filter_map(month).collect()
}
