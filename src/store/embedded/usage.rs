//! Rows of usage: reading them, and adding to them without a settlement, which is decided, changed, and written down as an op.

use std::{collections::BTreeSet, sync::Arc};

use tokio::task::JoinError;

use super::{
    EmbeddedStore, on_disk,
    op::{self, Rows},
    shared::Step,
    spend,
    state::{Answer, State, ready},
};
use crate::{
    domain::Moment,
    store::{
        MAX_ADDED_ROWS, ROWS_AT_ONCE, SETS_AT_ONCE, Series, StoreError, Usage, UsageAddition, UsageAmounts,
        UsageKey, UsageSet,
    },
};

/// The last addition of a source. Only this process adds, and it asks again only while it runs, so it is kept in memory alone.
#[derive(Clone, Copy)]
pub(super) struct Added {
    source: [u8; 16],
    number: u64,
    /// The op that made it.
    lsn: u64,
}

/// Sources that are remembered: a process has one, and some room for tests.
const SOURCES: usize = 16;

impl State {
    /// Adds to rows. `addition.lines` are merged: no key twice. They are taken out of it.
    pub(super) fn add_usage(
        &mut self,
        moment: Moment,
        addition: &mut UsageAddition,
    ) -> Result<Answer<()>, StoreError> {
        let (source, number) = (addition.source, addition.number);
        let last = self.added.iter().find(|added| added.source == source);
        if let Some(last) = last.filter(|last| last.number >= number) {
            return Ok(Answer::Ready { value: (), after: last.lsn });
        }
        if addition.lines.is_empty() {
            return Ok(ready(()));
        }
        if let Some(absent) = self.make_room(&mut addition.lines, addition.max_rows) {
            return Ok(Answer::Absent(absent));
        }
        if !self.spend.can_add(&addition.lines) {
            return Err(StoreError::Overflow);
        }
        self.lsn += 1;
        self.time = moment.store;
        op::put_add_rows(&mut self.journal, &addition.lines);
        self.apply_rows(self.lsn, &addition.lines)?;
        self.added.retain(|added| added.source != source);
        if self.added.len() == SOURCES {
            self.added.remove(0);
        }
        self.added.push(Added { source, number, lsn: self.lsn });
        Ok(Answer::Ready { value: (), after: self.lsn })
    }

    /// Adds the rows of reservations that were not reported, without those that are not in memory or cannot take it, which are taken out
    /// of `rows`.
    pub(super) fn book_unreported(&mut self, rows: &mut Rows) -> Result<(), StoreError> {
        let can_add = |row: &(UsageKey, UsageAmounts)| {
            self.spend.absent(std::iter::once(&row.0)).is_empty()
                && self.spend.can_add(std::slice::from_ref(row))
        };
        rows.retain(can_add);
        if rows.is_empty() {
            return Ok(());
        }
        self.lsn += 1;
        op::put_add_rows(&mut self.journal, rows);
        self.apply_rows(self.lsn, rows)
    }

    /// Gives rows that their sets have no room for another place. Returns those that have to be put into memory first.
    pub(super) fn make_room(&mut self, lines: &mut Rows, max_rows: u64) -> Option<Vec<UsageKey>> {
        let absent = self.spend.absent(lines.iter().map(|(key, _)| key));
        if !absent.is_empty() {
            return Some(absent);
        }
        self.spend.make_room(lines, max_rows);
        // The row that takes what there is no room for may have been dropped since its set was read.
        let absent = self.spend.absent(lines.iter().map(|(key, _)| key));
        (!absent.is_empty()).then_some(absent)
    }

    /// Adds the rows of op `lsn`.
    pub(super) fn apply_rows(&mut self, lsn: u64, rows: &Rows) -> Result<(), StoreError> {
        rows.iter().try_for_each(|(key, amounts)| self.spend.add(lsn, key, amounts))
    }
}

impl spend::Spend {
    /// The teams with rows of denials in memory in one month, in order.
    pub(super) fn denied(&self, month: u32) -> Vec<Arc<str>> {
        let mut teams = BTreeSet::new();
        let mut next = UsageSet { series: Series::Denials, period: month * 100, team: Arc::default() };
        let of_month = |set: &UsageSet| set.series == Series::Denials && set.period / 100 == month;
        // One seek for each day of each team.
        while let Some(key) = self.first(&next, of_month) {
            next = UsageSet { team: format!("{}\0", key.set.team).into(), ..key.set.clone() };
            if !key.set.team.is_empty() {
                teams.insert(Arc::clone(&key.set.team));
            }
        }
        teams.into_iter().collect()
    }
}

/// What a thread of its own has read.
fn reported<T>(read: Result<Result<T, StoreError>, JoinError>) -> Result<T, StoreError> {
    read.unwrap_or_else(|error| {
        tracing::error!(%error, "the rows of usage cannot be read");
        Err(StoreError::Corrupt)
    })
}

impl Usage for EmbeddedStore {
    async fn spenders(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        let store = self.clone();
        reported(tokio::task::spawn_blocking(move || store.teams_of(month)).await)
    }

    async fn usage(&self, set: UsageSet) -> Result<Vec<(UsageKey, UsageAmounts)>, StoreError> {
        let store = self.clone();
        reported(tokio::task::spawn_blocking(move || store.rows_of(&set)).await)
    }

    async fn usage_of(&self, sets: &[UsageSet]) -> Result<Vec<Vec<(UsageKey, UsageAmounts)>>, StoreError> {
        let store = self.clone();
        let sets: Vec<UsageSet> = sets.iter().take(SETS_AT_ONCE).cloned().collect();
        let read = move || {
            let (mut all, mut held) = (Vec::with_capacity(sets.len()), 0);
            for set in &sets {
                let rows = store.rows_of(set)?;
                held += rows.len();
                all.push(rows);
                if held >= ROWS_AT_ONCE {
                    break;
                }
            }
            Ok(all)
        };
        reported(tokio::task::spawn_blocking(read).await)
    }

    async fn denied(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        let store = self.clone();
        reported(tokio::task::spawn_blocking(move || store.denied_in(month)).await)
    }

    async fn add_usage(&self, mut addition: UsageAddition) -> Result<(), StoreError> {
        if addition.lines.len() > MAX_ADDED_ROWS {
            return Err(StoreError::Overflow);
        }
        addition.lines = spend::merged(addition.lines);
        loop {
            match self.0.inner.step(|state, now| state.add_usage(now, &mut addition))? {
                Step::Done(()) => return Ok(()),
                Step::OnDisk((), heard) => return on_disk((), heard).await,
                Step::Absent(keys, drops) => self.load(&keys, drops)?,
                Step::Archived(_) => return Err(StoreError::Corrupt),
            }
        }
    }
}
