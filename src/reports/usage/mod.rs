//! Usage by any of its dimensions, exact: the rows that settlements added to, added up. Denials in the same way, from rows of their own.
//!
//! Every grouping sums to the spend of its days. Rows of users and of labels have no row for requests without one; so the rows of days
//! are read beside them, after them, and what they have more is of no value.

mod answers;
mod groups;
mod past;
mod query;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use thiserror::Error;
use tokio::time::Instant;

use self::{
    answers::{Answer, Answers},
    groups::{Groups, shown},
};
pub use self::{
    past::{PastRow, PastUsage},
    query::{Dimension, Granularity, Order, Subject, UsageFilter, UsageGroup, UsagePlace, UsageQuery},
};
use super::{sets::SetReader, spend::MONTH_KEPT_MS};
use crate::{
    domain::{
        Timestamp,
        calendar::{Calendar, first_days, next_day},
        limit::Period,
        rbac::TeamScope,
        snapshot::Snapshot,
    },
    live::Live,
    store::{Series, StoreError, Usage, UsageAmounts, UsageKey, UsageSet, each_line},
};

/// The most groups of one answer, all pages together: some tens of megabytes.
const MAX_GROUPS: usize = 200_000;
/// How far back hours are reported.
const HOURS_KEPT_MS: u64 = 35 * 86_400_000;

/// A row of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Where it stands.
    pub place: UsagePlace,
    /// When its period begins.
    pub start: Timestamp,
    /// When it ends.
    pub end: Timestamp,
    /// What was recorded.
    pub amounts: UsageAmounts,
}

/// A page of an answer.
#[derive(Clone, Debug)]
pub struct UsagePage {
    /// The rows, in order.
    pub rows: Vec<UsageRow>,
    /// Whether there are more.
    pub has_more: bool,
    /// The sum of all rows, of all pages.
    pub total: UsageAmounts,
    /// The policy in force.
    pub policy_revision: Arc<str>,
    /// When the store was asked.
    pub read_at: Timestamp,
}

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UsageError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The interval begins too long ago.
    #[error("usage of {} is no longer kept {what}", text(*day))]
    HistoryNotKept {
        /// The first day of the interval.
        day: u32,
        /// How long what is kept.
        what: &'static str,
    },
    /// There are more rows than an answer may have.
    #[error("has more than {MAX_GROUPS} rows: group by less, or ask for a shorter interval")]
    TooManyGroups,
    /// Too many wait for their answers already.
    #[error("too many reports are being made; try again")]
    Busy,
    /// A fault of the service; details are in its log.
    #[error("internal error")]
    Internal,
}

/// A day as `2026-11-23`.
fn text(day: u32) -> String {
    format!("{:04}-{:02}-{:02}", day / 10_000, day / 100 % 100, day % 100)
}

/// Reports usage, on one core.
#[derive(Clone)]
pub struct UsageReports<S> {
    store: S,
    live: Arc<Live>,
    /// One answer at a time: a large one takes seconds of the core, piece by piece, and decisions come in between.
    answers: Arc<Answers>,
}

impl<S: fmt::Debug> fmt::Debug for UsageReports<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageReports").field("store", &self.store).finish_non_exhaustive()
    }
}

impl<S: Usage> UsageReports<S> {
    /// Reports what is in `store`, in the time zone in force in `live`.
    #[must_use]
    pub fn new(store: S, live: Arc<Live>) -> Self {
        Self { store, live, answers: Arc::default() }
    }

    /// What is in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.live.snapshot()
    }

    /// The store's wall clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.store.now()
    }

    /// Reports the usage of the teams in `scope`. A page after the first is one of the same answer, if it is asked for on the same core
    /// within a minute of the one before; else the answer is made again.
    ///
    /// # Errors
    /// The interval begins too early, the answer is too large, too many wait for theirs, or the store does not answer.
    pub async fn page(&self, query: Arc<UsageQuery>, scope: &TeamScope) -> Result<UsagePage, UsageError> {
        if let Some(answer) = self.answers.find(&query, scope, Instant::now()) {
            return Ok(answer.page(&query));
        }
        let _turn = self.answers.turn().await?;
        let snapshot = self.live.snapshot();
        let now = self.store.read_clock().await?;
        is_kept(&query, &snapshot.policy.calendar, now)?;
        let groups = self.groups(&query, scope, &snapshot).await?;
        let asked = Arc::clone(&query);
        // Sorting all of a large answer takes longer than decisions are to wait.
        let made = tokio::task::spawn_blocking(move || {
            let answer = Answer::of(groups, &snapshot, now);
            let page = answer.page(&asked);
            // What is of no use any more is dropped here, which takes long as well.
            (page.has_more.then(|| Arc::new(answer)), page)
        });
        let (answer, page) = made.await.map_err(|error| {
            tracing::error!(%error, "usage cannot be reported");
            UsageError::Internal
        })?;
        if let Some(answer) = answer {
            self.answers.keep(&query, scope, answer);
        }
        Ok(page)
    }

    async fn groups(
        &self,
        query: &Arc<UsageQuery>,
        scope: &TeamScope,
        snapshot: &Snapshot,
    ) -> Result<Groups, UsageError> {
        let mut groups = Groups::new(query);
        let max_values = usize::try_from(snapshot.policy.reports.max_values).unwrap_or(usize::MAX);
        for (month, days) in days(query) {
            let teams = self.teams(query, month, scope).await?;
            let mut sets = SetReader::new(teams.iter().flat_map(|team| sets(query, month, &days, team)));
            while let Some(read) = sets.read(&self.store).await? {
                for (set, rows) in read {
                    match set.series {
                        Series::Users | Series::Label(_) => {
                            let shown = shown(&rows, max_values);
                            each_line(rows, |key, amounts| groups.add_valued(&key, &shown, amounts)).await;
                        }
                        _ => {
                            let in_days = |key: &UsageKey| days.contains(&key.day);
                            let add = |key: UsageKey, amounts: &UsageAmounts| {
                                if in_days(&key) {
                                    groups.add(&key, amounts);
                                }
                            };
                            each_line(rows, add).await;
                        }
                    }
                    groups.check()?;
                }
            }
        }
        Ok(groups)
    }

    /// The teams whose rows of a month are in the answer. Denials of callers that belong to no team are shown to those who may see all.
    async fn teams(
        &self,
        query: &UsageQuery,
        month: u32,
        scope: &TeamScope,
    ) -> Result<Vec<Arc<str>>, StoreError> {
        let mut teams = match query.subject {
            Subject::Usage => self.store.spenders(month).await?,
            Subject::Denials => self.store.denied(month).await?,
        };
        let is_of_none = query.subject == Subject::Denials && *scope == TeamScope::All;
        teams.extend(is_of_none.then(Arc::default));
        teams.retain(|team| scope.holds(team) && query.filter.has_team(team));
        Ok(teams)
    }
}

/// The sets of a team that an answer is made of, in the order in which they are added.
fn sets(
    query: &UsageQuery,
    month: u32,
    days: &BTreeSet<u32>,
    team: &Arc<str>,
) -> impl Iterator<Item = UsageSet> {
    let by_hour = query.granularity == Granularity::Hour;
    let (of_days, of_month) = match (query.subject, by_hour) {
        (Subject::Denials, true) => (Some(Series::DenialHours), false),
        (Subject::Denials, false) => (Some(Series::Denials), false),
        (Subject::Usage, true) => (Some(Series::Hours), false),
        // After those of values, so that they have at least as much.
        (Subject::Usage, false) => (query.series(), true),
    };
    let set = |series: Series, period: u32| UsageSet { series, period, team: Arc::clone(team) };
    let by_day = of_days.into_iter().flat_map(|series| days.iter().map(move |day| (series.clone(), *day)));
    by_day.chain(of_month.then_some((Series::Days, month))).map(move |(series, period)| set(series, period))
}

/// The days of the interval, by month.
fn days(query: &UsageQuery) -> BTreeMap<u32, BTreeSet<u32>> {
    let mut days = BTreeMap::<u32, BTreeSet<u32>>::new();
    let mut day = Some(query.start_day);
    while let Some(present) = day.filter(|day| *day < query.end_day) {
        days.entry(present / 100).or_default().insert(present);
        day = next_day(present);
    }
    days
}

fn is_kept(query: &UsageQuery, calendar: &Calendar, now: Timestamp) -> Result<(), UsageError> {
    let day = query.start_day;
    let begun = |day| calendar.start_of_day(day).ok_or(UsageError::Internal);
    let not_kept = |what| Err(UsageError::HistoryNotKept { day, what });
    // Parts of an older month may remain, which would look like all of it.
    if now.since(begun(day / 100 * 100 + 1)?) >= MONTH_KEPT_MS {
        return not_kept("that of the current month and the 12 before it is");
    }
    if query.granularity == Granularity::Hour && now.since(begun(day)?) > HOURS_KEPT_MS + 86_400_000 {
        return not_kept("by hour: that of the last 35 days is");
    }
    Ok(())
}

/// When the period of a group begins and ends.
fn bounds(query: &UsageQuery, calendar: &Calendar, group: &UsageGroup) -> (Timestamp, Timestamp) {
    const HOUR_MS: u64 = 3_600_000;
    let begin = |day: u32| calendar.start_of_day(day).unwrap_or_default();
    let next = |day: u32| next_day(day).unwrap_or(day);
    let start = begin(group.day);
    match query.granularity {
        Granularity::Total => (start, begin(query.end_day)),
        Granularity::Hour => {
            let hour = start.plus(u64::from(group.hour) * HOUR_MS);
            // The last of a day may be shorter, where clocks are set by half an hour.
            let end = begin(next(group.day));
            (hour.min(end), hour.plus(HOUR_MS).min(end))
        }
        Granularity::Day => (start, begin(next(group.day))),
        Granularity::Week | Granularity::Month => {
            let mut end = next(group.day);
            while end < query.end_day && period_of(query, end) == group.day {
                end = next(end);
            }
            (start, begin(end))
        }
    }
}

/// The first day of the period that a day is in, but not before the interval.
fn period_of(query: &UsageQuery, day: u32) -> u32 {
    let first = |period| {
        let firsts = first_days(day).into_iter().flatten();
        let first = firsts.filter(|(of, _)| *of == period).map(|(_, first)| first).next();
        first.unwrap_or(day).max(query.start_day)
    };
    match query.granularity {
        Granularity::Total => query.start_day,
        Granularity::Hour | Granularity::Day => day,
        Granularity::Week => first(Period::Week),
        Granularity::Month => first(Period::Month),
    }
}
