//! Requests that were refused since that was last written down, and the task that writes it down.
//!
//! An allowed request touches none of this. A refused one takes a lock for one look-up. What is counted goes to the store every few
//! seconds, in additions that the store makes once each: an answer that got lost doubles nothing. A process that dies loses what it has
//! counted since the last time, a few seconds at most unless the store did not answer.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{Live, follower::has_stopped_within};
use crate::{
    domain::{
        Timestamp,
        calendar::Calendar,
        decision::Reason,
        request::{Operation, ServiceTier},
    },
    runtime::Entropy,
    store::{
        DenialCause, MAX_ADDED_ROWS, OTHER_VALUE, Series, StoreError, Usage, UsageAddition, UsageAmounts,
        UsageKey, UsageSet,
    },
};

/// Between two writings. What a crash loses is what this and the writing take.
const EVERY: Duration = Duration::from_secs(5);
/// Parts with a lock each, so that cores rarely meet at one.
const SHARDS: usize = 16;
/// Rows of a part between two writings, 4,096 in all: two megabytes at most. Past it, one for each team, reason and quarter of an hour.
const SHARD_ROWS: usize = 256;
/// Rows of a part with those: a store that is down for days has no end of quarters. Past it, requests are lost, and counted as such.
const MOST_ROWS: usize = 2 * SHARD_ROWS;
/// Rows of one team's day: more than its keys, models and limits that refuse come to, unless someone makes them up.
const DAY_ROWS: u64 = 500;
/// The longest id of a limit that is counted by name: places in a policy are shorter.
const MAX_LIMIT_BYTES: usize = 256;
/// Instants are kept by the quarter of an hour: days and hours of all time zones begin with one.
const QUARTER_MS: u64 = 900_000;
const HOUR_MS: u64 = 3_600_000;

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Denial {
    /// The team; empty: the caller belongs to none.
    pub team: Arc<str>,
    /// The virtual key; empty: none.
    pub key: Arc<str>,
    /// The model, if the price list has it. Empty: it was not looked at.
    pub model: Arc<str>,
    /// What was asked for; `None`: it was not looked at.
    pub operation: Option<Operation>,
    /// Groq's service tier.
    pub service_tier: Option<ServiceTier>,
    /// The Groq project; empty: it was not looked at.
    pub project: Arc<str>,
    /// Why: the first of the violations.
    pub reason: Reason,
    /// Its limit; empty: none.
    pub limit_id: Arc<str>,
}

impl Denial {
    /// The one that counts for all of this team and reason that there is no room for.
    fn other(self) -> Self {
        let (other, empty): (Arc<str>, Arc<str>) = (OTHER_VALUE.into(), Arc::default());
        Self {
            key: Arc::clone(&other),
            model: Arc::clone(&other),
            operation: None,
            service_tier: None,
            project: empty,
            limit_id: other,
            ..self
        }
    }

    /// The rows of the day and of the hour that an instant is in.
    fn rows(self, day: u32, hour: u8) -> [UsageKey; 2] {
        let Self { team, key, model, operation, service_tier, project, reason, limit_id } = self;
        let value = DenialCause { reason: Some(reason), limit_id }.text().into();
        let of_day = UsageKey {
            set: UsageSet { series: Series::Denials, period: day, team },
            day,
            hour: 0,
            model,
            key,
            operation,
            service_tier,
            project,
            value,
        };
        let set = UsageSet { series: Series::DenialHours, ..of_day.set.clone() };
        [UsageKey { set, hour, ..of_day.clone() }, of_day]
    }
}

/// By the quarter of an hour.
type Counted = HashMap<(Denial, u64), u64>;

/// Counts refused requests. Every core adds to it, and one task at a time takes from it.
#[derive(Debug)]
pub(super) struct Denials {
    shards: Vec<Mutex<Counted>>,
    hasher: RandomState,
    /// Requests that there was no room for since it was last told. It orders nothing.
    lost: AtomicU64,
    unwritten: tokio::sync::Mutex<Unwritten>,
}

/// What was taken and is not known to be in the store.
#[derive(Debug, Default)]
struct Unwritten {
    /// `None`: nothing was taken yet.
    source: Option<[u8; 16]>,
    /// That of the last addition.
    number: u64,
    additions: VecDeque<UsageAddition>,
    is_failing: bool,
}

impl Default for Denials {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let (hasher, lost) = (RandomState::new(), AtomicU64::new(0));
        Self { shards, hasher, lost, unwritten: tokio::sync::Mutex::default() }
    }
}

impl Denials {
    fn count(&self, mut denial: Denial, now: Timestamp) {
        if denial.limit_id.len() > MAX_LIMIT_BYTES {
            denial.limit_id = OTHER_VALUE.into();
        }
        let key = (denial, now.0 / QUARTER_MS);
        let shard = self.hasher.hash_one(&key) % SHARDS as u64;
        let Some(shard) = usize::try_from(shard).ok().and_then(|shard| self.shards.get(shard)) else {
            return;
        };
        let mut counted = lock(shard);
        let has_room = counted.len() < SHARD_ROWS || counted.contains_key(&key);
        let key = if has_room { key } else { (key.0.other(), key.1) };
        if counted.len() >= MOST_ROWS && !counted.contains_key(&key) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let count = counted.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    /// Takes all that was counted since the last call, as rows.
    fn take(&self, calendar: &Calendar) -> Vec<(UsageKey, UsageAmounts)> {
        let mut rows = Vec::new();
        for shard in &self.shards {
            let counted = std::mem::take(&mut *lock(shard));
            for ((denial, quarter), requests) in counted {
                let at = Timestamp(quarter * QUARTER_MS);
                let day = calendar.today(at).day;
                let hour = u8::try_from(at.since(day.start) / HOUR_MS).unwrap_or(u8::MAX).min(24);
                let amounts = UsageAmounts { requests, ..UsageAmounts::default() };
                rows.extend(denial.rows(day.first_day, hour).map(|row| (row, amounts)));
            }
        }
        rows
    }
}

fn lock(shard: &Mutex<Counted>) -> MutexGuard<'_, Counted> {
    // Nothing panics while it is held.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unwritten {
    /// Makes additions of rows. Without random numbers of the system the rows are lost: replicas could not be told apart.
    fn fill(&mut self, rows: Vec<(UsageKey, UsageAmounts)>) {
        if rows.is_empty() {
            return;
        }
        let source = self.source.map_or_else(|| Entropy::System.bytes(), Ok);
        let source = match source {
            Ok(source) => source,
            Err(error) => return error!(%error, "denials cannot be written down and are lost"),
        };
        self.source = Some(source);
        for lines in rows.chunks(MAX_ADDED_ROWS) {
            self.push(source, lines.to_vec());
        }
    }

    fn push(&mut self, source: [u8; 16], lines: Vec<(UsageKey, UsageAmounts)>) {
        self.number += 1;
        self.additions.push_back(UsageAddition { source, number: self.number, lines, max_rows: DAY_ROWS });
    }

    /// Takes the first addition, of which nothing can be added, and makes two of it, each of other sets: what is stored of one set holds
    /// up no other. Of one set it is lost, and this says so.
    fn divide(&mut self) -> bool {
        let Some(UsageAddition { source, mut lines, .. }) = self.additions.pop_front() else { return false };
        lines.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let half = lines.len() / 2;
        let begins = |pair: &[(UsageKey, UsageAmounts)]| matches!(pair, [(before, _), (key, _)] if before.set != key.set);
        let places = lines.windows(2).zip(1..).filter(|(pair, _)| begins(pair)).map(|(_, place)| place);
        let Some(place) = places.min_by_key(|place: &usize| place.abs_diff(half)) else { return true };
        let rest = lines.split_off(place);
        self.push(source, lines);
        self.push(source, rest);
        false
    }
}

impl Live {
    /// Counts a request that was refused at `now`, by the store's clock.
    pub fn count_denial(&self, denial: Denial, now: Timestamp) {
        self.denials.count(denial, now);
    }

    /// Writes down the requests that were refused since the last time. What cannot be written now is kept for the next time: until then
    /// no more is taken, so what waits is bounded.
    pub async fn write_denials<S: Usage>(&self, store: &S) {
        let mut unwritten = self.denials.unwritten.lock().await;
        if unwritten.additions.is_empty() {
            let rows = self.denials.take(&self.peek().policy.calendar);
            unwritten.fill(rows);
            let denials = self.denials.lost.swap(0, Ordering::Relaxed);
            if denials > 0 {
                error!(
                    denials,
                    "there was no room for denials while they could not be written down, and they are lost"
                );
            }
        }
        let mut is_loss_told = false;
        while let Some(addition) = unwritten.additions.front() {
            // It stays where it is until it is known to be added: a caller may go away in between.
            match store.add_usage(addition.clone()).await {
                Ok(()) => drop(unwritten.additions.pop_front()),
                Err(error @ (StoreError::Corrupt | StoreError::Overflow)) => {
                    if unwritten.divide() && !std::mem::replace(&mut is_loss_told, true) {
                        error!(%error, "denials cannot be added to the usage history and are lost");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut unwritten.is_failing, true) {
                        warn!(%error, "denials cannot be written down yet");
                    }
                    return;
                }
            }
            if std::mem::take(&mut unwritten.is_failing) {
                info!("denials are written down again");
            }
        }
    }

    /// Writes down refused requests every few seconds until told to stop. Those of the last calls are left to
    /// [`Live::write_denials`].
    pub async fn record_denials<S: Usage>(self: Arc<Self>, store: S, mut stop: watch::Receiver<bool>) {
        while !has_stopped_within(EVERY, &mut stop).await {
            self.write_denials(&store).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::calendar::parse_time_zone;

    fn denial(key: &str, reason: Reason) -> Denial {
        Denial {
            team: "t".into(),
            key: key.into(),
            model: "m".into(),
            operation: Some(Operation::Chat),
            service_tier: None,
            project: Arc::default(),
            reason,
            limit_id: "teams.t.requests_per_minute".into(),
        }
    }

    #[test]
    fn denials_are_taken_once_by_the_hour_of_the_zone() {
        let denials = Denials::default();
        // 10:00 in UTC is 15:30 in Kolkata, in the hour from 15:00 on.
        let now = Timestamp(1_795_428_000_000);
        for at in [now, now.plus(QUARTER_MS - 1), now.plus(2 * QUARTER_MS)] {
            denials.count(denial("k", Reason::RequestRateExceeded), at);
        }
        let calendar = Calendar::new(parse_time_zone("Asia/Kolkata").unwrap());
        let mut rows: Vec<_> = denials.take(&calendar);
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        let found: Vec<_> = rows
            .iter()
            .map(|(key, amounts)| (key.set.series.name(), key.day, key.hour, amounts.requests))
            .collect();
        let expected = [("n", 0, 1), ("n", 0, 2), ("nh", 15, 2), ("nh", 16, 1)];
        let mut expected = expected.map(|(series, hour, count)| (series.to_owned(), 20_261_123, hour, count));
        expected.sort();
        let mut found = found;
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(&*rows[0].0.value, "request_rate_exceeded|teams.t.requests_per_minute");
        assert!(denials.take(&calendar).is_empty());
    }

    #[test]
    fn past_the_bound_there_is_one_row_for_each_team_and_reason() {
        let denials = Denials::default();
        let all = 3 * SHARDS * SHARD_ROWS;
        for number in 0..all {
            denials.count(denial(&format!("k{number}"), Reason::Paused), Timestamp(0));
        }
        let rows = denials.take(&Calendar::new(parse_time_zone("UTC").unwrap()));
        assert!(rows.len() <= 2 * SHARDS * (SHARD_ROWS + 1), "{}", rows.len());
        let days = rows.iter().filter(|(key, _)| key.set.series == Series::Denials);
        assert_eq!(days.map(|(_, amounts)| amounts.requests).sum::<u64>(), all as u64);
        let others = rows.iter().filter(|(key, _)| &*key.value == "paused|(other)");
        assert!(others.clone().count() > 0 && others.clone().all(|(key, _)| &*key.key == OTHER_VALUE));
    }

    #[test]
    fn a_store_that_is_down_for_days_does_not_fill_the_memory() {
        let denials = Denials::default();
        let all = 4 * (SHARDS * MOST_ROWS) as u64;
        for quarter in 0..all {
            let denial = denial(&format!("k{quarter}"), Reason::Paused);
            denials.count(denial, Timestamp(quarter * QUARTER_MS));
        }
        let lost = denials.lost.load(Ordering::Relaxed);
        let rows = denials.take(&Calendar::new(parse_time_zone("UTC").unwrap()));
        assert!(rows.len() <= 2 * SHARDS * MOST_ROWS, "{}", rows.len());
        let days = rows.iter().filter(|(key, _)| key.set.series == Series::Denials);
        assert_eq!(days.map(|(_, amounts)| amounts.requests).sum::<u64>() + lost, all);
    }
}
