//! When budgets are used up: from the days that their teams had, which are read a few teams at a time, and from counters that metrics read
//! anyway. Budgets of keys have a forecast where metrics show them, from the same days.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::sample::{PAUSE, SeenLimit};
use crate::{
    domain::{
        Timestamp,
        budget::BudgetState,
        calendar::Calendar,
        counter::CounterKey,
        forecast::Outlook,
        limit::{LimitScope, Period, Quantity, Window},
    },
    reports::{PastDays, PresentBudget, RecentDays},
    store::{Store, StoreError},
};

/// The most teams whose days are read in one round. After midnight those of 500 teams are there within three minutes.
const TEAMS_AT_ONCE: usize = 16;
/// Forecasts made before other tasks of the core get their turn: a fraction of a millisecond.
const FORECASTS_PER_TURN: usize = 64;

/// What is known of days, and what was last said of each budget.
pub(super) struct Forecasts {
    past: PastDays,
    exhausts: HashMap<CounterKey, Option<Timestamp>>,
}

/// Whose budget it is.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Owner {
    /// The team; empty: the organization.
    team: Arc<str>,
    key: Option<Arc<str>>,
}

impl Forecasts {
    pub(super) fn new(past: PastDays) -> Self {
        Self { past, exhausts: HashMap::new() }
    }

    /// Puts into `limits`, which are those of the periods at `now`, when each budget is used up. One whose days of a new day are not read
    /// yet keeps what was said of it.
    pub(super) async fn fill<S: Store>(
        &mut self,
        store: &S,
        (calendar, now): (&Calendar, Timestamp),
        limits: &mut [SeenLimit],
    ) {
        let outlook = Outlook::new(calendar, now);
        let budgets = || limits.iter().filter_map(|seen| Some((budget_of(seen)?, seen.limit.bound?)));
        let teams: BTreeSet<Arc<str>> = budgets().map(|((owner, _), _)| owner.team).collect();
        let months = budgets().filter(|((_, period), _)| *period == Period::Month);
        let months: HashMap<Owner, u64> = months.map(|((owner, _), bound)| (owner, bound)).collect();
        // What is not read now is due again in the next round.
        let _ = self.read_days(store, &outlook, &teams).await;
        let known = teams.iter().filter_map(|team| Some((team, self.past.known_of(&outlook, team)?.1?)));
        let known: HashMap<&Arc<str>, RecentDays> = known.collect();
        let before = std::mem::take(&mut self.exhausts);
        let bounded = limits.iter_mut().filter(|seen| seen.limit.bound.is_some());
        for (count, seen) in bounded.enumerate() {
            let Some((owner, period)) = budget_of(seen) else { continue };
            let counter = seen.limit.counter.in_period(outlook.today().of(period).first_day);
            let said = before.get(&counter).copied();
            let forecast = known.get(&owner.team).and_then(|days| {
                let state = BudgetState::of(Some(&seen.limit), seen.state);
                let month_of_team = months.get(&Owner { key: None, ..owner.clone() }).copied();
                let (key, month) = (owner.key.as_deref(), months.get(&owner).copied());
                days.forecast(&outlook, &PresentBudget { key, period, state: &state, month, month_of_team })
            });
            let exhaust = match forecast {
                Some(forecast) => {
                    let is_used_up = forecast.exhaust.is_some_and(|at| at <= now);
                    // From then on it is the instant at which that was seen.
                    said.flatten().filter(|said| is_used_up && *said <= now).or(forecast.exhaust)
                }
                None => said.flatten(),
            };
            seen.exhaust = exhaust;
            self.exhausts.insert(counter, exhaust);
            if count % FORECASTS_PER_TURN == FORECASTS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Reads the days of the teams for which it is due, the longest due first.
    async fn read_days<S: Store>(
        &self,
        store: &S,
        outlook: &Outlook,
        teams: &BTreeSet<Arc<str>>,
    ) -> Result<(), StoreError> {
        let now = store.now();
        let read_at =
            |team: &Arc<str>| self.past.known_of(outlook, team).map_or(Timestamp(0), |(read_at, _)| read_at);
        let mut due: Vec<_> = teams.iter().map(|team| (read_at(team), team)).collect();
        due.retain(|(read_at, _)| PastDays::is_due(*read_at, now));
        due.sort_unstable();
        for (_, team) in due.into_iter().take(TEAMS_AT_ONCE) {
            self.past.recent(store, outlook, team).await?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// Whose budget it is and of which period, if it is a budget of one of these.
fn budget_of(seen: &SeenLimit) -> Option<(Owner, Period)> {
    let Window::Calendar(period) = seen.limit.window else { return None };
    let (team, key) = match seen.limit.scope {
        LimitScope::Organization => (Arc::default(), None),
        LimitScope::Team => (Arc::clone(&seen.team), None),
        LimitScope::Key => (Arc::clone(&seen.team), Some(Arc::clone(&seen.key))),
        _ => return None,
    };
    (seen.limit.quantity == Quantity::NanoUsd).then_some((Owner { team, key }, period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            calendar::parse_time_zone,
            counter::CounterState,
            limit::{Limit, LimitMode, OnShortfall},
        },
        runtime::clock::{Clock, ManualClock},
        store::{Usage as _, UsageAddition, UsageAmounts, UsageKey, embedded::EmbeddedStore},
    };

    #[tokio::test]
    async fn what_was_read_before_midnight_is_told_of_the_month_before() {
        let (team, bound): (Arc<str>, u64) = ("t".into(), 5);
        let limit = limit(LimitScope::Team, bound);
        let calendar = Calendar::new(parse_time_zone("UTC").unwrap());
        // 2026-12-01T00:00:00Z, by the store's clock; the budget of November was read just before.
        let december = Timestamp(1_796_083_200_000);
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::Manual(ManualClock::new(december));
        let store = EmbeddedStore::open_scratch(&directory.path().join("data"), clock).unwrap();
        let mut forecasts = Forecasts::new(PastDays::default());
        let read = Timestamp(december.0 - 1);
        for (now, used, exhaust) in [(read, bound, Some(read)), (december, 0, None)] {
            let state = CounterState { used, settled: used, ..CounterState::default() };
            let (limit, team) = (Arc::clone(&limit), Arc::clone(&team));
            let mut limits = [SeenLimit { limit, team, key: Arc::default(), state, exhaust: None }];
            forecasts.fill(&store, (&calendar, now), &mut limits).await;
            assert_eq!(limits[0].exhaust, exhaust);
        }
    }

    fn limit(scope: LimitScope, bound: u64) -> Arc<Limit> {
        Arc::new(Limit {
            id: "id".into(),
            scope,
            quantity: Quantity::NanoUsd,
            window: Window::Calendar(Period::Month),
            bound: Some(bound),
            counter: CounterKey::new(format!("{}|usd|month", scope.name())),
            mode: LimitMode::Enforce,
            on_shortfall: OnShortfall::default(),
            min_output_tokens: 1,
            alerts: Vec::new(),
        })
    }

    #[tokio::test]
    async fn budgets_of_keys_are_forecast_from_their_days() {
        // 2026-11-15T00:00:00Z: 14 days cost 10 each, half of it by the key.
        let now = Timestamp(1_794_700_800_000);
        let calendar = Calendar::new(parse_time_zone("UTC").unwrap());
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::Manual(ManualClock::new(now));
        let store = EmbeddedStore::open_scratch(&directory.path().join("data"), clock).unwrap();
        let row = |day: u32, key: &str| {
            let row = UsageKey::of_day(202_611, "t".into(), 20_261_100 + day, "m".into(), key.into());
            (row, UsageAmounts { cost_nanos: 5_000, requests: 1, ..UsageAmounts::default() })
        };
        let lines = (1..15).flat_map(|day| [row(day, "k"), row(day, "")]).collect();
        store.add_usage(UsageAddition { source: [1; 16], number: 1, lines, max_rows: 1 }).await.unwrap();
        let seen = |scope, key: &str, bound, used| SeenLimit {
            limit: limit(scope, bound),
            team: "t".into(),
            key: key.into(),
            state: CounterState { used, settled: used, ..CounterState::default() },
            exhaust: None,
        };
        let mut limits = [
            seen(LimitScope::Team, "none", 200_000, 140_000),
            seen(LimitScope::Key, "k", 100_000, 70_000),
            seen(LimitScope::Key, "other", 100, 0),
        ];
        Forecasts::new(PastDays::default()).fill(&store, (&calendar, now), &mut limits).await;
        // Six days at their pace, and none at all.
        let exhausts = limits.map(|seen| seen.exhaust.map(|at| at.since(now) / 86_400_000));
        assert_eq!(exhausts, [Some(6), Some(6), None]);
    }
}
