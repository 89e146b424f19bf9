//! Tells in time that a budget will not last.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tracing::warn;

use super::days::{PastDays, daily};
use crate::{
    domain::{
        budget::BudgetState,
        counter::CounterKey,
        forecast::{Forecast, Outlook, Pace},
        limit::{Limit, Limits, Period, Quantity, Window},
        plan,
    },
    live::Live,
    store::{Ledger, OUTBOX_KEPT, Outbox, StoreError, Usage, budget_forecast},
};

/// Between two looks at all budgets: a forecast changes over days.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// Between two teams, as the days of each are read from the store.
const PAUSE: Duration = Duration::from_millis(20);
/// Until the registry was read.
const SOON: Duration = Duration::from_secs(1);

/// Looks at the budgets of weeks and months, of the organization and of teams, and adds an alert to the outbox for each that will be
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

impl<S: Ledger + Usage + Outbox> Foresight<S> {
    async fn look(&mut self, live: &Live) -> Result<(), StoreError> {
        let snapshot = live.snapshot();
        let policy = &snapshot.policy;
        let outlook = Outlook::new(&policy.calendar, self.store.now());
        let mut current = HashSet::new();
        let mut all: Vec<_> =
            policy.teams.values().map(|team| (Arc::clone(&team.name), &team.limits)).collect();
        all.push((Arc::default(), &policy.organization.limits));
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (team, limits) in all {
            let budgets: Vec<_> =
                limits.iter().filter_map(|limit| Some((&**limit, period(limit)?))).collect();
            if budgets.is_empty() {
                continue;
            }
            let counter = |(limit, period): (&Limit, Period)| {
                limit.counter.in_period(outlook.today().of(period).first_day)
            };
            current.extend(budgets.iter().copied().map(counter));
            match self.foresee(&outlook, &team, (limits, &budgets)).await {
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
        (limits, budgets): (&Limits, &[(&Limit, Period)]),
    ) -> Result<(), StoreError> {
        let mut days = daily(&self.store, outlook.today().month_number(), team).await?;
        if let Some(before) = outlook.month_before() {
            let before = self.past.of(&self.store, before, team).await?;
            days.extend(before.iter().map(|(day, spent)| (*day, *spent)));
        }
        let pace = Pace::of(outlook, &days, limits.month.bound);
        for (limit, period) in budgets {
            let counter = limit.counter.in_period(outlook.today().of(*period).first_day);
            let (Some(budget), false) = (limit.bound, self.told.contains(&counter)) else { continue };
            let states = self.store.counters(vec![(counter.clone(), plan::BUDGET_KIND)]).await?;
            let state = BudgetState::of(Some(limit), states.first().copied().unwrap_or_default());
            let (forecast, now) = (Forecast::of(outlook, &pace, &state, *period), self.store.now());
            let Some(exhaust) = forecast.exhaust.filter(|at| *at > now) else { continue };
            if forecast.falls_short(budget, false) {
                let entry = budget_forecast(&counter, now, exhaust);
                self.store.outbox_append(entry.into_iter().collect(), OUTBOX_KEPT).await?;
                let (limit_id, spent_nano_usd) = (&*limit.id, state.spent);
                warn!(
                    limit_id,
                    spent_nano_usd,
                    budget_nano_usd = budget,
                    "a budget will not last at this pace"
                );
                self.told.insert(counter);
            }
        }
        Ok(())
    }
}

/// The period of a budget that is looked at.
fn period(limit: &Limit) -> Option<Period> {
    let Window::Calendar(period @ (Period::Week | Period::Month)) = limit.window else { return None };
    (limit.quantity == Quantity::NanoUsd && limit.bound.is_some()).then_some(period)
}
