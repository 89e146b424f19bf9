//! Tells in time that a budget will not last.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tracing::warn;

use super::{PastDays, PresentBudget, RecentDays, counters};
use crate::{
    domain::{
        Timestamp,
        budget::BudgetState,
        counter::{CounterKey, CounterState},
        forecast::{Forecast, Outlook},
        key::{KeyState, VirtualKey},
        limit::{Limit, Period, Quantity, Window},
        plan,
        snapshot::Snapshot,
    },
    live::Live,
    store::{Ledger, OUTBOX_KEPT, Outbox, StoreError, Usage, budget_forecast},
};

/// Between two looks at all budgets: a forecast changes over days.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// Between two teams, as the days of each are read from the store.
const PAUSE: Duration = Duration::from_millis(20);
/// The most budgets of keys that one look tells of: thousands at once would push other alerts out. The next look tells of others.
const KEYS_AT_ONCE: usize = 64;
/// Until the registry was read.
const SOON: Duration = Duration::from_secs(1);

/// Looks at the budgets of weeks and months, of the organization, of teams and of keys, and adds an alert to the outbox for each that will be
/// used up before its period ends, once a period. All replicas look, and add the same. A budget of a day has none, as it would come too
/// late; nor has one that is used up, of which other alerts tell.
pub async fn foresee<S: Ledger + Usage + Outbox>(store: S, live: Arc<Live>, past: PastDays) {
    let mut foresight = Foresight { store, past, told: HashSet::new() };
    loop {
        if live.snapshot().is_pending {
            tokio::time::sleep(SOON).await;
            continue;
        }
        if let Err(error) = foresight.look(&live).await {
            warn!(%error, "how budgets end cannot be foreseen now; trying again in 15 minutes");
        }
        tokio::time::sleep(EVERY).await;
    }
}

struct Foresight<S> {
    store: S,
    past: PastDays,
    /// The budgets of this period that this process has told of.
    told: HashSet<CounterKey>,
}

/// A budget that is looked at.
struct Watched {
    limit: Arc<Limit>,
    period: Period,
    counter: CounterKey,
    /// Empty: it is of the organization or a team.
    key: Arc<str>,
    /// The bounds of the budgets of the month, its owner's and its team's.
    months: [Option<u64>; 2],
}

/// The budgets that are looked at, by team (empty: the organization).
type ByTeam = BTreeMap<Arc<str>, Vec<Watched>>;

impl<S: Ledger + Usage + Outbox> Foresight<S> {
    async fn look(&mut self, live: &Live) -> Result<(), StoreError> {
        let snapshot = live.snapshot();
        let now = self.store.now();
        let outlook = Outlook::new(&snapshot.policy.calendar, now);
        let budgets = watched(&snapshot, &live.created_keys(), &outlook, now);
        let (mut current, mut room) = (HashSet::new(), KEYS_AT_ONCE);
        for (team, budgets) in budgets {
            current.extend(budgets.iter().map(|watched| watched.counter.clone()));
            match self.foresee(&outlook, &team, (&budgets, &mut room)).await {
                // What is stored of one team's days holds no other up.
                Ok(()) | Err(StoreError::Corrupt) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.told.retain(|counter| current.contains(counter));
        Ok(())
    }

    async fn foresee(
        &mut self,
        outlook: &Outlook,
        team: &Arc<str>,
        (budgets, room): (&[Watched], &mut usize),
    ) -> Result<(), StoreError> {
        let Some(days) = self.past.recent(&self.store, outlook, team).await? else { return Ok(()) };
        for part in budgets.chunks(counters::AT_ONCE) {
            let left: Vec<_> = part.iter().filter(|watched| !self.told.contains(&watched.counter)).collect();
            let keys = left.iter().map(|watched| (watched.counter.clone(), plan::BUDGET_KIND)).collect();
            let states = self.store.counters(keys).await?;
            for (watched, state) in left.into_iter().zip(states) {
                if watched.key.is_empty() || *room > 0 {
                    let is_told = self.tell(outlook, &days, (watched, state)).await?;
                    *room -= usize::from(is_told && !watched.key.is_empty());
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Adds the alert of a budget that will not last. Returns whether it did.
    async fn tell(
        &mut self,
        outlook: &Outlook,
        days: &RecentDays,
        (watched, state): (&Watched, CounterState),
    ) -> Result<bool, StoreError> {
        let Watched { limit, period, counter, key, months: [month, month_of_team] } = watched;
        let (state, now) = (BudgetState::of(Some(limit), state), self.store.now());
        let key = Some(&**key).filter(|key| !key.is_empty());
        let (month, month_of_team) = (*month, *month_of_team);
        let present = PresentBudget { key, period: *period, state: &state, month, month_of_team };
        let forecast = days.forecast(outlook, &present);
        let falls_short =
            |forecast: &Forecast| state.budget.is_some_and(|budget| forecast.falls_short(budget, false));
        let exhaust = forecast.filter(falls_short).and_then(|forecast| forecast.exhaust);
        let Some(exhaust) = exhaust.filter(|at| *at > now) else { return Ok(false) };
        let entry = budget_forecast(counter, now, exhaust);
        self.store.outbox_append(entry.into_iter().collect(), OUTBOX_KEPT).await?;
        let (limit_id, spent_nano_usd) = (&*limit.id, state.spent);
        warn!(
            limit_id,
            spent_nano_usd,
            budget_nano_usd = state.budget,
            "a budget will not last at this pace"
        );
        self.told.insert(counter.clone());
        Ok(true)
    }
}

/// The budgets of weeks and months that there are.
fn watched(snapshot: &Snapshot, created: &[Arc<VirtualKey>], outlook: &Outlook, now: Timestamp) -> ByTeam {
    let (policy, none) = (&snapshot.policy, Arc::<str>::default());
    let mut all = ByTeam::new();
    let mut add = |team: &Arc<str>, key: &Arc<str>, limits: &mut dyn Iterator<Item = &Arc<Limit>>| {
        let budgets: Vec<_> = limits.filter_map(|limit| Some((limit, period(limit)?))).collect();
        let month = budgets.iter().find(|(_, period)| *period == Period::Month);
        let month = month.and_then(|(limit, _)| limit.bound);
        let month_of_team = policy.teams.get(team).and_then(|team| team.limits.month.bound);
        for (limit, period) in budgets {
            let counter = limit.counter.in_period(outlook.today().of(period).first_day);
            let (limit, key, months) = (Arc::clone(limit), Arc::clone(key), [month, month_of_team]);
            let watched = Watched { limit, period, counter, key, months };
            all.entry(Arc::clone(team)).or_default().push(watched);
        }
    };
    add(&none, &none, &mut policy.organization.limits.iter());
    for team in policy.teams.values() {
        add(&team.name, &none, &mut team.limits.iter());
    }
    for key in policy.keys.ordered().iter().chain(created).filter(|key| key.state(now) == KeyState::Active) {
        add(&key.team, &key.name, &mut key.limits.iter());
    }
    all
}

/// The period of a budget that is looked at.
fn period(limit: &Limit) -> Option<Period> {
    let Window::Calendar(period @ (Period::Week | Period::Month)) = limit.window else { return None };
    (limit.quantity == Quantity::NanoUsd && limit.bound.is_some()).then_some(period)
}
