//! Usage as it was booked, row by row with the time that each row is of: what a replay is made from.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{HOURS_KEPT_MS, UsageError, UsageQuery, days, is_kept};
use crate::{
    domain::{
        Timestamp,
        calendar::{Calendar, next_day},
    },
    store::{Series, Usage, UsageAmounts, UsageKey, UsageSet},
};

const DAY_MS: u64 = 86_400_000;
const HOUR_MS: u64 = 3_600_000;

/// A row, and the time that it is of.
#[derive(Clone, Debug)]
pub struct PastRow {
    /// Its dimensions.
    pub key: UsageKey,
    /// Its sums.
    pub amounts: UsageAmounts,
    /// When its time begins.
    pub start: Timestamp,
    /// When it ends.
    pub end: Timestamp,
}

/// Reads the usage of an interval, piece by piece in the order of time: by hour where hours are kept, by day where only days are.
#[derive(Debug)]
pub struct PastUsage<S> {
    store: S,
    calendar: Calendar,
    now: Timestamp,
    pieces: VecDeque<Piece>,
}

/// What is read at once.
#[derive(Debug)]
enum Piece {
    /// Days of a month, by day.
    Days(u32, BTreeSet<u32>),
    /// A day, by hour.
    Hours(u32),
}

impl<S: Usage> PastUsage<S> {
    /// The usage in `store` from the day `start_day` (as `20261123`) on and before `end_day`, in the zone of `calendar`.
    ///
    /// # Errors
    /// The interval begins too early, or the store does not answer.
    pub async fn new(
        store: S,
        calendar: Calendar,
        (start_day, end_day): (u32, u32),
    ) -> Result<Self, UsageError> {
        let now = store.read_clock().await?;
        let query = UsageQuery { start_day, end_day, ..UsageQuery::default() };
        is_kept(&query, &calendar, now)?;
        let has_hours = |day: &u32| {
            calendar.start_of_day(*day).is_some_and(|begun| now.since(begun) <= HOURS_KEPT_MS + DAY_MS)
        };
        let mut pieces = VecDeque::new();
        for (month, days) in days(&query) {
            let (by_hour, by_day): (BTreeSet<u32>, _) = days.into_iter().partition(has_hours);
            if !by_day.is_empty() {
                pieces.push_back(Piece::Days(month, by_day));
            }
            pieces.extend(by_hour.into_iter().map(Piece::Hours));
        }
        Ok(Self { store, calendar, now, pieces })
    }

    /// The rows of the next piece, which may be none; `None`: there is none left.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn next(&mut self) -> Result<Option<Vec<PastRow>>, UsageError> {
        let Some(piece) = self.pieces.pop_front() else { return Ok(None) };
        let (Piece::Days(month, _) | Piece::Hours(month)) = &piece;
        let month = if let Piece::Hours(day) = &piece { day / 100 } else { *month };
        let mut bounds = BTreeMap::new();
        let mut rows = Vec::new();
        for team in self.store.spenders(month).await? {
            let read = match &piece {
                Piece::Days(..) => self.store.spend(month, team).await?,
                Piece::Hours(day) => {
                    self.store.usage(UsageSet { series: Series::Hours, period: *day, team }).await?
                }
            };
            let wanted = read.into_iter().filter(|(key, _)| match &piece {
                Piece::Days(_, days) => days.contains(&key.day),
                Piece::Hours(_) => true,
            });
            for (key, amounts) in wanted {
                let hour = matches!(piece, Piece::Hours(_)).then_some(key.hour);
                let (start, end) =
                    *bounds.entry((key.day, hour)).or_insert_with(|| self.bounds(key.day, hour));
                rows.push(PastRow { key, amounts, start, end });
            }
            // Decisions on the same core come in between.
            tokio::task::yield_now().await;
        }
        Ok(Some(rows))
    }

    /// When a day, or an hour of it, begins and ends. What has only begun ends now.
    fn bounds(&self, day: u32, hour: Option<u8>) -> (Timestamp, Timestamp) {
        let begin = |day: u32| self.calendar.start_of_day(day).unwrap_or_default();
        let (start, end) = (begin(day), begin(next_day(day).unwrap_or(day)));
        let (start, end) = match hour {
            None => (start, end),
            Some(hour) => {
                let hour = start.plus(u64::from(hour) * HOUR_MS);
                (hour.min(end), hour.plus(HOUR_MS).min(end))
            }
        };
        (start, end.min(self.now).max(start))
    }
}
