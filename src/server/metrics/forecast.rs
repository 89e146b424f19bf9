//! When the budgets of teams and the organization are used up: from the days that they had, which are read a few teams at a time, and
//! from counters that metrics read anyway. Budgets of keys have no forecast, as days of keys would be read for it.

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
        forecast::{DailySpend, Forecast, Outlook, Pace},
        limit::{LimitScope, Period, Quantity, Window},
    },
    reports::{PastDays, daily},
    store::{Store, StoreError},
};

/// The most teams whose days are read in one round. After midnight those of 500 teams are there within three minutes.
const TEAMS_AT_ONCE: usize = 16;
/// How long the days of the month are taken as they were read: what was spent since then is in the month's counter.
const KEPT_MS: u64 = 3_600_000;

/// What is known of days, and what was last said of each budget.
pub(super) struct Forecasts {
    past: PastDays,
    /// By team; empty: the organization.
    known: HashMap<Arc<str>, Known>,
    exhausts: HashMap<CounterKey, Option<Timestamp>>,
}

/// The days of a team.
struct Known {
    read_at: Timestamp,
    /// The day on which they were read.
    day: u32,
    /// `None`: what is stored of them cannot be understood.
    spent: Option<DailySpend>,
    /// What the month's counter had then; `None`: it is not read, and today is as it was.
    settled: Option<u64>,
}

impl Forecasts {
    pub(super) fn new(past: PastDays) -> Self {
        Self { past, known: HashMap::new(), exhausts: HashMap::new() }
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
        let budgets = || limits.iter().filter_map(|seen| Some((seen, budget_of(seen)?)));
        let months = budgets().filter(|(_, (_, period))| *period == Period::Month);
        let settled: HashMap<Arc<str>, u64> =
            months.clone().map(|(seen, (team, _))| (team, seen.state.settled)).collect();
        let bounds: HashMap<Arc<str>, u64> =
            months.filter_map(|(seen, (team, _))| Some((team, seen.limit.bound?))).collect();
        let bounded = budgets().filter(|(seen, _)| seen.limit.bound.is_some());
        let teams: BTreeSet<Arc<str>> = bounded.map(|(_, (team, _))| team).collect();
        // What is not read now is due again in the next round.
        let _ = self.read_days(store, &outlook, &teams, &settled).await;
        let paces: HashMap<&Arc<str>, Pace> = self
            .known
            .iter()
            .filter(|(_, known)| known.day == outlook.today().day_number())
            .filter_map(|(team, known)| {
                let spent = known.at(settled.get(team).copied())?;
                Some((team, Pace::of(&outlook, &spent, bounds.get(team).copied())))
            })
            .collect();
        let before = std::mem::take(&mut self.exhausts);
        for seen in limits.iter_mut().filter(|seen| seen.limit.bound.is_some()) {
            let Some((team, period)) = budget_of(seen) else { continue };
            let counter = seen.limit.counter.in_period(outlook.today().of(period).first_day);
            let said = before.get(&counter).copied();
            let exhaust = match paces.get(&team) {
                Some(pace) => {
                    let state = BudgetState::of(Some(&seen.limit), seen.state);
                    let exhaust = Forecast::of(&outlook, pace, &state, period).exhaust;
                    let is_used_up = exhaust.is_some_and(|at| at <= now);
                    // From then on it is the instant at which that was seen.
                    said.flatten().filter(|said| is_used_up && *said <= now).or(exhaust)
                }
                None => said.flatten(),
            };
            seen.exhaust = exhaust;
            self.exhausts.insert(counter, exhaust);
        }
    }

    /// Reads the days of the teams for which it is due, the longest due first.
    async fn read_days<S: Store>(
        &mut self,
        store: &S,
        outlook: &Outlook,
        teams: &BTreeSet<Arc<str>>,
        settled: &HashMap<Arc<str>, u64>,
    ) -> Result<(), StoreError> {
        let (now, today) = (store.now(), outlook.today());
        self.known.retain(|team, _| teams.contains(team));
        let read_at = |team: &Arc<str>| {
            let known = self.known.get(team).filter(|known| known.day == today.day_number());
            known.map_or(0, |known| known.read_at.0)
        };
        let mut due: Vec<_> = teams.iter().map(|team| (read_at(team), Arc::clone(team))).collect();
        due.retain(|(read_at, _)| now.0.abs_diff(*read_at) >= KEPT_MS);
        due.sort_unstable();
        for (_, team) in due.into_iter().take(TEAMS_AT_ONCE) {
            let spent = match self.days_of(store, outlook, &team).await {
                Ok(spent) => Some(spent),
                // Of no other team, and not before the next hour.
                Err(StoreError::Corrupt) => None,
                Err(error) => return Err(error),
            };
            let settled = settled.get(&team).copied();
            self.known.insert(team, Known { read_at: now, day: today.day_number(), spent, settled });
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The days of the month and of the one before.
    async fn days_of<S: Store>(
        &self,
        store: &S,
        outlook: &Outlook,
        team: &Arc<str>,
    ) -> Result<DailySpend, StoreError> {
        let mut spent = daily(store, outlook.today().month_number(), team).await?;
        if let Some(before) = outlook.month_before() {
            let before = self.past.of(store, before, team).await?;
            spent.extend(before.iter().map(|(day, spent)| (*day, *spent)));
        }
        Ok(spent)
    }
}

impl Known {
    /// The days now that the month's counter has `settled`.
    fn at(&self, settled: Option<u64>) -> Option<DailySpend> {
        let mut spent = self.spent.clone()?;
        let since = settled.zip(self.settled).map_or(0, |(now, then)| now.saturating_sub(then));
        let today = spent.entry(self.day).or_default();
        *today = today.saturating_add(since);
        Some(spent)
    }
}

/// Whose budget it is and of which period, if it is one of a team (empty: the organization).
fn budget_of(seen: &SeenLimit) -> Option<(Arc<str>, Period)> {
    let Window::Calendar(period) = seen.limit.window else { return None };
    let team = match seen.limit.scope {
        LimitScope::Organization => Arc::default(),
        LimitScope::Team => Arc::clone(&seen.team),
        _ => return None,
    };
    (seen.limit.quantity == Quantity::NanoUsd).then_some((team, period))
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
        store::embedded::EmbeddedStore,
    };

    #[tokio::test]
    async fn what_was_read_before_midnight_is_told_of_the_month_before() {
        let (team, bound): (Arc<str>, u64) = ("t".into(), 5);
        let limit = Arc::new(Limit {
            id: "teams.t.budget.monthly_usd".into(),
            scope: LimitScope::Team,
            quantity: Quantity::NanoUsd,
            window: Window::Calendar(Period::Month),
            bound: Some(bound),
            counter: CounterKey::new("team/t|nano_usd|month"),
            mode: LimitMode::Enforce,
            on_shortfall: OnShortfall::default(),
            min_output_tokens: 1,
            alerts: Vec::new(),
        });
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
}
