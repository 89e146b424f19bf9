//! What each day cost: what forecasts are made from.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    domain::{
        Timestamp,
        forecast::{DailySpend, Outlook},
    },
    store::{StoreError, Usage, each_line},
};

/// How long days are kept as they were read: those that are over change by late settlements only, and what today costs more is in the
/// month's counter.
const KEPT_MS: u64 = 3_600_000;
/// The most teams of which days are kept, and the most months of teams, of about a kilobyte each.
const MAX_KEPT: usize = 4_096;

/// What was spent on the days that forecasts rest on, by team (empty: the organization), kept so that they are not read again and again.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct PastDays(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Months that are over, by month, as `202610`, and team.
    months: HashMap<(u32, Arc<str>), Kept>,
    /// The present month and the one before, by team.
    recent: HashMap<Arc<str>, Recent>,
}

#[derive(Clone, Debug)]
struct Kept {
    read_at: Timestamp,
    days: Arc<DailySpend>,
}

/// The days of a team up to an instant.
#[derive(Clone, Debug)]
struct Recent {
    read_at: Timestamp,
    /// The day on which they were read.
    day: u32,
    /// `None`: what is stored of them cannot be understood.
    days: Option<Arc<DailySpend>>,
    /// What the month's counter had settled then.
    settled: u64,
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
        let known = self.known().months.get(&key).cloned();
        if let Some(kept) = known.filter(|kept| is_fresh(kept.read_at, now)) {
            return Ok(kept.days);
        }
        let days = Arc::new(daily(store, month, team).await?);
        let kept = Kept { read_at: now, days: Arc::clone(&days) };
        keep(&mut self.known().months, key, kept, |kept| is_fresh(kept.read_at, now));
        Ok(days)
    }

    /// The days of `team` in the month of `outlook` and the one before, up to now that the month's counter has `settled`: as they were read
    /// within the last hour, and with what the counter has more since then, which is taken as today's. `None`: what is stored of them
    /// cannot be understood.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) async fn recent<S: Usage>(
        &self,
        store: &S,
        outlook: &Outlook,
        team: &Arc<str>,
        settled: u64,
    ) -> Result<Option<DailySpend>, StoreError> {
        let (now, today) = (store.now(), outlook.today().day_number());
        let is_of_today = |recent: &Recent| recent.day == today && is_fresh(recent.read_at, now);
        let known = self.known().recent.get(team).cloned();
        let recent = match known.filter(is_of_today) {
            Some(recent) => recent,
            None => {
                let days = match self.read_recent(store, outlook, team).await {
                    Ok(days) => Some(Arc::new(days)),
                    // Read again in an hour, as it will be the same until it is repaired.
                    Err(StoreError::Corrupt) => None,
                    Err(error) => return Err(error),
                };
                let recent = Recent { read_at: now, day: today, days, settled };
                keep(&mut self.known().recent, Arc::clone(team), recent.clone(), is_of_today);
                recent
            }
        };
        Ok(recent.days.map(|days| {
            let mut days = (*days).clone();
            let of_today = days.entry(today).or_default();
            *of_today = of_today.saturating_add(settled.saturating_sub(recent.settled));
            days
        }))
    }

    async fn read_recent<S: Usage>(
        &self,
        store: &S,
        outlook: &Outlook,
        team: &Arc<str>,
    ) -> Result<DailySpend, StoreError> {
        let mut days = daily(store, outlook.today().month_number(), team).await?;
        if let Some(before) = outlook.month_before() {
            let before = self.of(store, before, team).await?;
            days.extend(before.iter().map(|(day, spent)| (*day, *spent)));
        }
        Ok(days)
    }

    /// Never held across an await.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_fresh(read_at: Timestamp, now: Timestamp) -> bool {
    now.0.abs_diff(read_at.0) < KEPT_MS
}

/// Keeps `value`, if there is room or can be made by letting go of what is not `fresh`.
fn keep<K: Eq + Hash, V>(all: &mut HashMap<K, V>, key: K, value: V, fresh: impl Fn(&V) -> bool) {
    if all.len() >= MAX_KEPT {
        all.retain(|_, kept| fresh(kept));
    }
    if all.len() < MAX_KEPT || all.contains_key(&key) {
        all.insert(key, value);
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
