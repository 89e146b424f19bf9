//! Reads data no longer in memory, and rows of usage for reports.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use rusqlite::Connection;

use super::{EmbeddedStore, disk, rows as table, segment::Location, spend};
use crate::store::{Record, Series, StoreError, UsageAmounts, UsageKey, UsageSet};

/// The teams of both lists, in order.
fn together(mut teams: Vec<Arc<str>>, newer: Vec<Arc<str>>) -> Vec<Arc<str>> {
    teams.extend(newer);
    teams.sort_unstable();
    teams.dedup();
    teams
}

/// Rows read at once for a report: some tens of microseconds of the lock that decisions need.
pub(super) const PAGE: usize = 256;

impl EmbeddedStore {
    fn reader(&self) -> MutexGuard<'_, Connection> {
        // A panic between two queries does no harm to a connection that only reads.
        self.0.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        query(&self.reader()).map_err(|error| {
            tracing::error!(%error, "the embedded store cannot read");
            StoreError::Unavailable
        })
    }

    /// The settled reservation at `at`, if it has not ended. Reads a segment: tens of microseconds, for a late repeat.
    pub(super) fn archived(&self, at: Location) -> Result<Option<Record>, StoreError> {
        let row = self.read(|connection| disk::reservation(connection, at))?;
        let now = self.0.inner.time.now();
        Ok(row.filter(|row| now.store < row.forget_at).map(|row| row.shown(now)))
    }

    /// Puts rows of old periods into memory: of a bounded set all that it has, as a new one needs to know whether there is room. A row
    /// could have been written and dropped after it was read here, so the result counts only if none was dropped.
    pub(super) fn load(&self, keys: &[UsageKey], drops: u64) -> Result<(), StoreError> {
        let rows = self.read(|connection| {
            let mut rows = Vec::with_capacity(keys.len());
            for key in keys {
                if key.set.series.is_bounded() {
                    rows.extend(table::of_set(connection, &key.set, None, usize::MAX)?);
                }
                rows.push(table::one(connection, key)?);
            }
            Ok(rows)
        })?;
        let mut shared = self.0.inner.lock()?;
        if shared.state.spend.drops() == drops {
            rows.into_iter().for_each(|row| shared.state.spend.put(row));
        }
        Ok(())
    }

    /// Reads about a set: from `memory` alone if it has the whole set, else from `table` with `memory` over it.
    pub(super) fn report<T>(
        &self,
        set: &UsageSet,
        memory: impl Fn(&spend::Spend) -> Vec<T>,
        table: impl Fn(&Connection) -> rusqlite::Result<Vec<T>>,
        merge: impl Fn(Vec<T>, Vec<T>) -> Vec<T>,
    ) -> Result<Vec<T>, StoreError> {
        loop {
            let shared = self.0.inner.lock()?;
            if shared.state.spend.is_resident(set) {
                return Ok(memory(&shared.state.spend));
            }
            let drops = shared.state.spend.drops();
            drop(shared);
            let rows = self.read(&table)?;
            let shared = self.0.inner.lock()?;
            if shared.state.spend.drops() == drops {
                let newer = memory(&shared.state.spend);
                drop(shared);
                return Ok(merge(rows, newer));
            }
        }
    }

    /// The teams with rows of days in a month, in order. It blocks, so it needs a thread of its own.
    pub(super) fn teams_of(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        let stored = |connection: &Connection| {
            table::teams(connection, month).map(|teams| teams.into_iter().map(Arc::from).collect())
        };
        let set = UsageSet { series: Series::Days, period: month, team: Arc::default() };
        self.report(&set, |spend| spend.teams(month), stored, together)
    }

    /// The teams with rows of denials in a month, in order. It blocks, so it needs a thread of its own.
    pub(super) fn denied_in(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        let stored = |connection: &Connection| {
            table::denied(connection, month).map(|teams| teams.into_iter().map(Arc::from).collect())
        };
        // Its first day, so that all days of a month are in memory if this one is.
        let set = UsageSet { series: Series::Denials, period: month * 100 + 1, team: Arc::default() };
        self.report(&set, |spend| spend.denied(month), stored, together)
    }

    /// The rows of a set, read in pages: each as it was at some instant of the call. It blocks, so it needs a thread of its own.
    pub(super) fn rows_of(&self, set: &UsageSet) -> Result<Vec<(UsageKey, UsageAmounts)>, StoreError> {
        let mut rows = Vec::new();
        loop {
            let after = rows.last().map(|(key, _)| key);
            let page = self.page(set, after)?;
            if page.is_empty() {
                return Ok(rows);
            }
            rows.extend(page);
            // The locks are not fair, and decisions wait for one of them.
            std::thread::yield_now();
        }
    }

    /// The next rows after `after`, about [`PAGE`] of them; none after the last. A set that is not in memory comes from the table, with
    /// the rows in memory over it.
    fn page(
        &self,
        set: &UsageSet,
        after: Option<&UsageKey>,
    ) -> Result<Vec<(UsageKey, UsageAmounts)>, StoreError> {
        loop {
            let shared = self.0.inner.lock()?;
            if shared.state.spend.is_resident(set) {
                return Ok(shared.state.spend.of_set(set, after, PAGE));
            }
            let drops = shared.state.spend.drops();
            drop(shared);
            let rows = self.read(|connection| table::of_set(connection, set, after, PAGE))?;
            let last = rows.get(PAGE.saturating_sub(1)).map(|row| row.key.clone());
            let shared = self.0.inner.lock()?;
            if shared.state.spend.drops() == drops {
                // There are few: only late settlements put rows of old periods into memory.
                let newer = shared.state.spend.of_set(set, after, usize::MAX);
                drop(shared);
                let newer = newer.into_iter().filter(|(key, _)| last.as_ref().is_none_or(|last| key <= last));
                let rows = rows.into_iter().map(|row| (row.key, row.amounts));
                return Ok(rows.chain(newer).collect::<BTreeMap<_, _>>().into_iter().collect());
            }
        }
    }
}
