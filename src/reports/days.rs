//! What each day cost: what forecasts are made from.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::sets::SetReader;
use crate::{
    domain::{
        Timestamp,
        budget::BudgetState,
        calendar::next_day,
        forecast::{DailySpend, Forecast, Outlook, Pace},
        limit::Period,
    },
    store::{OTHER_VALUE, Series, StoreError, Usage, UsageSet, each_line},
};

/// How long days are kept as they were read: those that are over change by late settlements only, and what today costs more is in the
/// budget's counter.
const KEPT_MS: u64 = 3_600_000;
/// The most teams and users of which days are kept, and the most months of teams, of about a kilobyte each.
const MAX_KEPT: usize = 4_096;
/// The most days of keys that are kept, of 16 bytes each. Keys of the months that have no room for theirs have no forecast.
const MAX_KEY_DAYS: usize = 1_000_000;

/// What was spent on the days that forecasts rest on, by team (empty: the organization), kept so that they are not read again and again.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct PastDays(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Months that are over, by month, as `202610`, and team.
    months: HashMap<(u32, Arc<str>), Kept<Arc<MonthDays>>>,
    /// The present month and the one before; `None`: what is stored of them cannot be understood, or does not tell.
    recent: HashMap<Spender, Kept<Option<RecentDays>>>,
}

/// Whose days they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Spender {
    /// The team; empty: the organization.
    team: Arc<str>,
    /// One of its users; empty: all of it.
    user: Arc<str>,
}

#[derive(Clone, Debug)]
struct Kept<T> {
    read_at: Timestamp,
    /// The day on which they were read.
    day: u32,
    days: T,
}

/// The days of a month.
#[derive(Debug, Default)]
pub(super) struct MonthDays {
    /// What was spent in all.
    pub(super) all: DailySpend,
    /// By key, in order of days; `None`: there was no room.
    keys: Option<HashMap<Arc<str>, KeyDays>>,
}

/// Days of a key, each with what was spent on it.
type KeyDays = Vec<(u32, u64)>;

impl MonthDays {
    fn key_days(&self) -> usize {
        self.keys.as_ref().map_or(0, |keys| keys.values().map(Vec::len).sum())
    }
}

/// The days of a team with its keys, or of a user, in the month of an [`Outlook`] and the one before.
#[derive(Clone, Debug)]
pub struct RecentDays {
    before: Option<Arc<MonthDays>>,
    present: Arc<MonthDays>,
}

/// A budget in its present period.
#[derive(Clone, Copy, Debug)]
pub struct PresentBudget<'b> {
    /// The key that it is of; `None`: of all that the days are of.
    pub key: Option<&'b str>,
    /// Its period.
    pub period: Period,
    /// How it stands.
    pub state: &'b BudgetState,
    /// The bound of the month's budget of the same, if there is one.
    pub month: Option<u64>,
    /// The bound of the month's budget of the key's team.
    pub month_of_team: Option<u64>,
}

impl RecentDays {
    /// How `budget` ends. What its counter has more than the days that are over is today's, so that it does not matter when days were read.
    /// `None`: it is of a key whose days are not kept.
    #[must_use]
    pub fn forecast(&self, outlook: &Outlook, budget: &PresentBudget<'_>) -> Option<Forecast> {
        let mut days = self.of(budget.key)?;
        let (today, first) = (outlook.today().day_number(), outlook.today().of(budget.period).first_day);
        let over: u64 =
            days.range(first.min(today)..today).fold(0, |sum, (_, spent)| sum.saturating_add(*spent));
        let of_today = days.entry(today).or_default();
        *of_today = (*of_today).max(budget.state.spent.saturating_sub(over));
        let held = outlook.held_after(&days, budget.month);
        let team_held = match budget.key {
            Some(_) => outlook.held_after(&self.of(None)?, budget.month_of_team),
            None => None,
        };
        let held = held.into_iter().chain(team_held).min();
        Some(Forecast::of(outlook, &Pace::held(outlook, &days, held), budget.state, budget.period))
    }

    fn of(&self, key: Option<&str>) -> Option<DailySpend> {
        let mut days = DailySpend::new();
        for month in self.before.iter().chain([&self.present]) {
            match key {
                None => days.extend(month.all.iter().map(|(day, spent)| (*day, *spent))),
                Some(key) => days.extend(month.keys.as_ref()?.get(key).into_iter().flatten().copied()),
            }
        }
        Some(days)
    }
}

impl PastDays {
    /// The days of `team` in `month`, from `store` if they were not read within the last hour.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) async fn of<S: Usage>(
        &self,
        store: &S,
        month: u32,
        team: &Arc<str>,
    ) -> Result<Arc<MonthDays>, StoreError> {
        let (now, key) = (store.now(), (month, Arc::clone(team)));
        let known = self.known().months.get(&key).cloned();
        if let Some(kept) = known.filter(|kept| kept.is_fresh(now)) {
            return Ok(kept.days);
        }
        let days = self.read_month(store, month, team).await?;
        let kept = Kept { read_at: now, day: 0, days: Arc::clone(&days) };
        keep(&mut self.known().months, key, kept, now);
        Ok(days)
    }

    /// The days of `team` in the month of `outlook` and the one before, as they were read within the last hour and on this day. `None`:
    /// what is stored of them cannot be understood.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn recent<S: Usage>(
        &self,
        store: &S,
        outlook: &Outlook,
        team: &Arc<str>,
    ) -> Result<Option<RecentDays>, StoreError> {
        let spender = Spender { team: Arc::clone(team), user: Arc::default() };
        if let Some(days) = self.fresh(&spender, outlook, store.now()) {
            return Ok(days);
        }
        let read = async {
            let present = self.read_month(store, outlook.today().month_number(), team).await?;
            let before = match outlook.month_before() {
                Some(before) => Some(self.of(store, before, team).await?),
                None => None,
            };
            Ok(Some(RecentDays { before, present }))
        };
        let read = read.await;
        self.keep_recent(spender, outlook, store.now(), read)
    }

    /// The same of a user of `team`. `None` as well where one of the days had more users than there was room for: some of what this one spent
    /// may be among that of others.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) async fn of_user<S: Usage>(
        &self,
        store: &S,
        outlook: &Outlook,
        (team, user): (&Arc<str>, &str),
    ) -> Result<Option<RecentDays>, StoreError> {
        let spender = Spender { team: Arc::clone(team), user: user.into() };
        if let Some(days) = self.fresh(&spender, outlook, store.now()) {
            return Ok(days);
        }
        let read = read_user(store, outlook, &spender).await;
        self.keep_recent(spender, outlook, store.now(), read)
    }

    /// When the days of `team` were read, and what they are, if it was on the day of `outlook`. Nothing is read for it.
    #[must_use]
    pub fn known_of(&self, outlook: &Outlook, team: &Arc<str>) -> Option<(Timestamp, Option<RecentDays>)> {
        let spender = Spender { team: Arc::clone(team), user: Arc::default() };
        let known = self.known().recent.get(&spender).cloned();
        let kept = known.filter(|kept| kept.day == outlook.today().day_number())?;
        Some((kept.read_at, kept.days))
    }

    /// Whether days that were read then are read again.
    #[must_use]
    pub const fn is_due(read_at: Timestamp, now: Timestamp) -> bool {
        now.0.abs_diff(read_at.0) >= KEPT_MS
    }

    fn fresh(&self, spender: &Spender, outlook: &Outlook, now: Timestamp) -> Option<Option<RecentDays>> {
        let known = self.known().recent.get(spender).cloned();
        let is_of_today = |kept: &Kept<_>| kept.day == outlook.today().day_number() && kept.is_fresh(now);
        known.filter(is_of_today).map(|kept| kept.days)
    }

    fn keep_recent(
        &self,
        spender: Spender,
        outlook: &Outlook,
        now: Timestamp,
        read: Result<Option<RecentDays>, StoreError>,
    ) -> Result<Option<RecentDays>, StoreError> {
        let days = match read {
            // Read again in an hour, as it will be the same until it is repaired.
            Err(StoreError::Corrupt) => None,
            read => read?,
        };
        let kept = Kept { read_at: now, day: outlook.today().day_number(), days: days.clone() };
        keep(&mut self.known().recent, spender, kept, now);
        Ok(days)
    }

    async fn read_month<S: Usage>(
        &self,
        store: &S,
        month: u32,
        team: &Arc<str>,
    ) -> Result<Arc<MonthDays>, StoreError> {
        let (mut all, mut keys) = (DailySpend::new(), HashMap::<Arc<str>, BTreeMap<u32, u64>>::new());
        each_line(store.spend(month, Arc::clone(team)).await?, |key, amounts| {
            let add = |spent: &mut u64| *spent = spent.saturating_add(amounts.cost_nanos);
            add(all.entry(key.day).or_default());
            if !key.key.is_empty() {
                add(keys.entry(key.key).or_default().entry(key.day).or_default());
            }
        })
        .await;
        let room = MAX_KEY_DAYS.saturating_sub(self.known().key_days());
        let has_room = keys.values().map(BTreeMap::len).sum::<usize>() <= room;
        let keys = keys.into_iter().map(|(key, days)| (key, days.into_iter().collect()));
        Ok(Arc::new(MonthDays { all, keys: has_room.then(|| keys.collect()) }))
    }

    /// Never held across an await.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The days of keys that are kept. A month before stands in several places and takes memory once.
    fn key_days(&self) -> usize {
        let months = self.months.values().map(|kept| kept.days.key_days());
        let recent = self.recent.values().filter_map(|kept| kept.days.as_ref());
        months.chain(recent.map(|days| days.present.key_days())).sum()
    }
}

impl<T> Kept<T> {
    const fn is_fresh(&self, now: Timestamp) -> bool {
        !PastDays::is_due(self.read_at, now)
    }
}

/// Keeps `value`, if there is room or can be made by letting go of what is due.
fn keep<K: Eq + Hash, T>(all: &mut HashMap<K, Kept<T>>, key: K, value: Kept<T>, now: Timestamp) {
    if all.len() >= MAX_KEPT {
        all.retain(|_, kept| kept.is_fresh(now));
    }
    if all.len() < MAX_KEPT || all.contains_key(&key) {
        all.insert(key, value);
    }
}

/// The days of a user: some sixty sets of a team, of which each has a bounded number of rows.
async fn read_user<S: Usage>(
    store: &S,
    outlook: &Outlook,
    Spender { team, user }: &Spender,
) -> Result<Option<RecentDays>, StoreError> {
    let today = outlook.today();
    let first = outlook.month_before().unwrap_or_else(|| today.month_number()) * 100 + 1;
    let days = std::iter::successors(Some(first), |day| next_day(*day));
    let days = days.take_while(|day| *day <= today.day_number());
    let set = |period| UsageSet { series: Series::Users, period, team: Arc::clone(team) };
    let (mut sets, mut all, mut is_whole) = (SetReader::new(days.map(set)), DailySpend::new(), true);
    while is_whole && let Some(read) = sets.read(store).await? {
        for (_, rows) in read {
            each_line(rows, |key, amounts| {
                is_whole &= *key.value != *OTHER_VALUE;
                if key.value == *user {
                    let spent = all.entry(key.day).or_default();
                    *spent = spent.saturating_add(amounts.cost_nanos);
                }
            })
            .await;
        }
    }
    let present = Arc::new(MonthDays { all, keys: None });
    Ok(is_whole.then_some(RecentDays { before: None, present }))
}
