//! What each day cost: what forecasts are made from.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    domain::{Timestamp, forecast::DailySpend},
    store::{StoreError, Usage, each_line},
};

/// How long the days of a month that is over are kept: only a late settlement changes them.
const KEPT_MS: u64 = 3_600_000;
/// The most months of teams that are kept, of about a kilobyte each.
const MAX_KEPT: usize = 4_096;

/// What was spent on each day of a month that is over, by month and team (empty: the organization), kept so that forecasts do not read
/// it again and again. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct PastDays(Arc<Mutex<Months>>);

/// By month, as `202610`, and team.
type Months = HashMap<(u32, Arc<str>), Kept>;

#[derive(Clone, Debug)]
struct Kept {
    read_at: Timestamp,
    days: Arc<DailySpend>,
}

impl PastDays {
    /// The days of `team` in `month`, from `store` if they were not read within the last hour.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn of<S: Usage>(
        &self,
        store: &S,
        month: u32,
        team: &Arc<str>,
    ) -> Result<Arc<DailySpend>, StoreError> {
        let (now, key) = (store.now(), (month, Arc::clone(team)));
        let is_fresh = |kept: &Kept| now.0.abs_diff(kept.read_at.0) < KEPT_MS;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(kept) = known.filter(is_fresh) {
            return Ok(kept.days);
        }
        let days = Arc::new(daily(store, month, team).await?);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_KEPT {
            all.retain(|_, kept| is_fresh(kept));
        }
        if all.len() < MAX_KEPT || all.contains_key(&key) {
            all.insert(key, Kept { read_at: now, days: Arc::clone(&days) });
        }
        Ok(days)
    }
}

/// What was spent on each day of `month` by `team` (empty: the organization).
///
/// # Errors
/// The store does not answer.
pub async fn daily<S: Usage>(store: &S, month: u32, team: &Arc<str>) -> Result<DailySpend, StoreError> {
    let mut days = DailySpend::new();
    each_line(store.spend(month, Arc::clone(team)).await?, |key, amounts| {
        let day = days.entry(key.day).or_default();
        *day = day.saturating_add(amounts.cost_nanos);
    })
    .await;
    Ok(days)
}
