//! Reads data no longer in memory, and spend lines for reports.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use rusqlite::Connection;

use super::{EmbeddedStore, disk, segment::Location, spend};
use crate::store::{Record, SpendAmounts, SpendKey, StoreError};

/// Spend lines read at once for a report: some tens of microseconds of the lock that decisions need.
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

    /// Puts lines of old months into memory. A line could have been written and dropped after it was read here, so the result
    /// counts only if none was dropped.
    pub(super) fn load(&self, keys: &[SpendKey], drops: u64) -> Result<(), StoreError> {
        let rows = self.read(|connection| {
            keys.iter().map(|key| disk::line(connection, key)).collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let mut shared = self.0.inner.lock()?;
        if shared.state.spend.drops() == drops {
            rows.into_iter().for_each(|row| shared.state.spend.put(row));
        }
        Ok(())
    }

    /// Reads about a month of the report: from `memory` alone if it has the whole month, else from `table` with `memory` over it.
    pub(super) fn report<T>(
        &self,
        month: u32,
        memory: impl Fn(&spend::Spend) -> Vec<T>,
        table: impl Fn(&Connection) -> rusqlite::Result<Vec<T>>,
        merge: impl Fn(Vec<T>, Vec<T>) -> Vec<T>,
    ) -> Result<Vec<T>, StoreError> {
        loop {
            let shared = self.0.inner.lock()?;
            if shared.state.spend.is_resident(month) {
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

    /// The lines of a team in a month, read in pages: each as it was at some instant of the call. It blocks, so it needs a thread
    /// of its own.
    pub(super) fn spend_of(
        &self,
        month: u32,
        team: &Arc<str>,
    ) -> Result<Vec<(SpendKey, SpendAmounts)>, StoreError> {
        let mut lines = Vec::new();
        loop {
            let after = lines.last().map(|(key, _)| key);
            let page = self.spend_page(month, team, after)?;
            if page.is_empty() {
                return Ok(lines);
            }
            lines.extend(page);
            // The locks are not fair, and decisions wait for one of them.
            std::thread::yield_now();
        }
    }

    /// The next lines after `after`, about [`PAGE`] of them; none after the last. An old month comes from the table, with the
    /// lines in memory over it.
    fn spend_page(
        &self,
        month: u32,
        team: &Arc<str>,
        after: Option<&SpendKey>,
    ) -> Result<Vec<(SpendKey, SpendAmounts)>, StoreError> {
        loop {
            let shared = self.0.inner.lock()?;
            if shared.state.spend.is_resident(month) {
                return Ok(shared.state.spend.of_team((month, team), after, PAGE));
            }
            let drops = shared.state.spend.drops();
            drop(shared);
            let rows = self.read(|connection| disk::lines_of(connection, (month, team), after, PAGE))?;
            let last = rows.get(PAGE.saturating_sub(1)).map(|row| row.key.clone());
            let shared = self.0.inner.lock()?;
            if shared.state.spend.drops() == drops {
                // There are few: only late settlements put lines of an old month into memory.
                let newer = shared.state.spend.of_team((month, team), after, usize::MAX);
                drop(shared);
                let newer = newer.into_iter().filter(|(key, _)| last.as_ref().is_none_or(|last| key <= last));
                let rows = rows.into_iter().map(|row| (row.key, row.amounts));
                return Ok(rows.chain(newer).collect::<BTreeMap<_, _>>().into_iter().collect());
            }
        }
    }
}
