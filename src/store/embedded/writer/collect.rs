//! The contents of the next batch: the journal's ops, the slice of the round, and what to forget.

use std::{collections::BTreeMap, mem, sync::Arc};

use tokio::time::Instant;

use super::super::{
    batch::{Batch, UsageEnded},
    disk::{self, Expired},
    op::Rows,
    retention::{self, Retention},
    rows,
    segment::{Entry, Location, Packing},
    shared::Shared,
    spend::Resident,
};
use super::{AT_ONCE, FORGOTTEN, LOOKS, Round, SEGMENTS, SLICE, SWEPT, SWEPT_AT_ONCE, Writer};
use crate::{
    domain::{Moment, holds::Terms},
    store::{StoreError, UsageAmounts, unreported::unreported as rows_of},
};

/// What to write, and the settled reservations in it.
type Collected = (Batch, Vec<(Location, u128, u64)>);

impl Writer {
    pub(super) fn expired(&self) -> Vec<Expired> {
        let found = disk::expired(&self.connection, self.inner.time.now().store, self.covered, SEGMENTS);
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look for reservations to forget");
            Vec::new()
        })
    }

    /// Takes what to write next: first the rows of the slice, a few at a time, then what is to be forgotten, and then all ops. So
    /// no row is ahead of the ops.
    /// Also returns the settled reservations, to be moved out of memory once they are on disk: where they will be, their id and
    /// their `lsn`.
    pub(super) fn collect(
        &mut self,
        stopping: bool,
        sweep: Option<Vec<Expired>>,
    ) -> Result<Collected, StoreError> {
        let inner = Arc::clone(&self.inner);
        let (mut batch, mut packing) = (Batch::default(), Packing::default());
        if !stopping {
            self.fill(&mut batch, &mut packing)?;
        }
        if let Some(expired) = sweep {
            self.sweep(&mut batch, &expired)?;
        }
        let mut shared = inner.lock()?;
        (batch.first, batch.last) = (self.taken + 1, shared.state.lsn);
        self.taken = batch.last;
        batch.seen = batch.seen.max(shared.state.time);
        batch.behind = self.moved();
        batch.ops = shared.state.take_journal(mem::take(&mut self.spare));
        batch.outbox = mem::take(&mut shared.state.outbox);
        let displaced = mem::take(&mut shared.state.displaced);
        inner.age.taken();
        self.grown += batch.ops.len();
        if !stopping && matches!(self.round, Round::Rest) && self.is_due(&shared) {
            self.begin(&mut shared, &mut batch);
        }
        drop(shared);
        displaced.iter().for_each(|row| packing.put(row));
        let (segments, moves) = packing.finish(self.segment);
        self.segment += segments.len() as u64;
        batch.segments = segments;
        Ok((batch, moves))
    }

    /// How far the store's time is behind the wall clock, if the clock was set since that was last written.
    fn moved(&mut self) -> Option<u64> {
        let now = self.inner.time.now();
        let behind = now.wall.since(now.store);
        (mem::replace(&mut self.behind, behind) != behind).then_some(behind)
    }

    fn begin(&mut self, shared: &mut Shared, batch: &mut Batch) {
        self.grown = 0;
        let whole = !shared.checkpoints.is_empty();
        // Each op up to there is of a reservation that was due or is settled, or of something that is written in any case.
        let covers = if whole { batch.last } else { self.begun };
        self.begun = batch.last;
        self.asked.append(&mut shared.checkpoints);
        let state = &mut shared.state;
        if mem::take(&mut state.gates_dirty) {
            let now = self.inner.time.now().store;
            state.gates.retain(|_, cooldown| cooldown.is_in_force(now));
            batch.gates =
                Some(state.gates.iter().map(|(gate, cooldown)| (gate.clone(), cooldown.clone())).collect());
        }
        self.round = Round::Writing {
            covers,
            reservations: state.changed.begin_round(whole),
            counters: state.counters.take_dirty(),
            lines: state.spend.take_dirty(),
        };
    }

    /// The next slice of the round.
    fn fill(&mut self, batch: &mut Batch, packing: &mut Packing) -> Result<(), StoreError> {
        let (reservations, counters, lines) = match &mut self.round {
            Round::Rest | Round::Sweeping { .. } => return Ok(()),
            Round::Truncating { covers } => {
                batch.truncate = Some(*covers);
                return Ok(());
            }
            Round::Writing { reservations, counters, lines, .. } => (reservations, counters, lines),
        };
        let (mut packed, mut taken, mut looks, mut ended) = (0, 0, 0, false);
        while !ended && taken < SLICE && looks < LOOKS {
            let mut rows = Vec::with_capacity(AT_ONCE);
            let mut shared = self.inner.lock()?;
            let state = &mut shared.state;
            for _ in 0..AT_ONCE {
                taken = packed + rows.len() + batch.counters.len() + batch.lines.len();
                if taken >= SLICE {
                    break;
                }
                if let Some(place) = reservations.iter_mut().find_map(Vec::pop) {
                    rows.extend(state.capture(place));
                } else if let Some(slot) = counters.pop() {
                    batch.counters.extend(state.counters.capture(slot));
                } else if let Some(key) = lines.pop() {
                    batch.lines.extend(state.spend.capture(&key));
                } else {
                    ended = true;
                    break;
                }
                looks += 1;
            }
            drop(shared);
            rows.iter().for_each(|row| packing.put(row));
            packed += rows.len();
        }
        Ok(())
    }

    /// Forgets a bounded part of what can be forgotten, a few at a time. What earlier batches took is on disk here, since a batch is
    /// collected only after the previous one was committed; the rows of this one are not.
    fn sweep(&mut self, batch: &mut Batch, expired: &[Expired]) -> Result<(), StoreError> {
        let (now, mut unreported) = (self.inner.time.now(), BTreeMap::new());
        for Expired { number, entries } in expired {
            // Settled since, and the journal needs the segment to replay that: the segment goes after these are next written.
            if self.is_needed(entries)? {
                continue;
            }
            self.forget(*number, entries, &mut unreported)?;
            batch.segments_gone.push(*number);
            batch.seen = now.store;
        }
        self.book_unreported(&unreported)?;
        if matches!(self.round, Round::Sweeping { begun: false }) {
            self.inner.lock()?.state.counters.restart_sweep();
            self.round = Round::Sweeping { begun: true };
        }
        let (retention, mut whole) = (Retention::at(now), false);
        for _ in 0..SWEPT.div_ceil(SWEPT_AT_ONCE) {
            let mut shared = self.inner.lock()?;
            let (emptied, ended) = shared.state.counters.sweep(SWEPT_AT_ONCE, self.covered, &retention);
            drop(shared);
            batch.counters_gone.extend(emptied);
            whole = ended;
            if whole {
                break;
            }
        }
        // Bound first, so that they are dropped when the lock is released.
        let forgotten = self.inner.lock()?.state.terms.sweep(SWEPT_AT_ONCE);
        drop(forgotten);
        // By the earlier of the two, as a single look at a wall clock that is ahead must not put a month out of memory.
        let resident = Resident::at(now.wall.min(now.store));
        let mut more = true;
        for _ in 0..FORGOTTEN.div_ceil(SWEPT_AT_ONCE) {
            more = self.inner.lock()?.state.spend.drop_old(resident, SWEPT_AT_ONCE, self.covered);
            if !more {
                break;
            }
        }
        batch.usage_gone = self.ended_usage(now);
        // Otherwise there may be more than a sweep takes, and the next follows at once.
        if batch.segments_gone.len() < SEGMENTS as usize {
            self.swept_at = Instant::now();
        }
        if matches!(self.round, Round::Sweeping { .. })
            && whole
            && !more
            && batch.segments_gone.is_empty()
            && batch.usage_gone.is_none()
        {
            self.round = Round::Rest;
        }
        Ok(())
    }

    /// The periods whose rows of usage are over, if there are such rows.
    fn ended_usage(&self, now: Moment) -> Option<UsageEnded> {
        let ended = retention::usage(now);
        match rows::has_ended(&self.connection, &ended) {
            Ok(true) => Some(ended),
            Ok(false) => None,
            Err(error) => {
                tracing::warn!(%error, "cannot look for rows of usage to forget");
                None
            }
        }
    }

    /// Whether one of a segment's reservations changed since it was last written. They have all ended, so none changes from now on,
    /// and it does not matter that the lock is released in between.
    fn is_needed(&self, entries: &[Entry]) -> Result<bool, StoreError> {
        for entries in entries.chunks(AT_ONCE) {
            let shared = self.inner.lock()?;
            let kept =
                |entry: &Entry| shared.state.reservations.get(entry.id).filter(|kept| kept.seq == entry.seq);
            if entries.iter().filter_map(kept).any(|kept| kept.dirty) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn forget(&self, number: u64, entries: &[Entry], unreported: &mut Kinds) -> Result<(), StoreError> {
        for entries in entries.chunks(AT_ONCE) {
            // Freed without the lock.
            let mut gone = Vec::with_capacity(entries.len());
            let mut shared = self.inner.lock()?;
            let state = &mut shared.state;
            for entry in entries {
                // A later version is in a later segment, and stays with that.
                if state.reservations.get(entry.id).is_some_and(|kept| kept.lsn() == entry.lsn) {
                    gone.extend(state.reservations.remove(entry.id));
                }
                if state.archived.get(&entry.id).is_some_and(|at| at.segment == number) {
                    state.archived.remove(&entry.id);
                }
            }
            drop(shared);
            for kept in gone.iter().filter(|kept| kept.is_open()) {
                let terms = &kept.version.terms;
                let kind = unreported.entry(Arc::as_ptr(terms).addr());
                kind.or_insert_with(|| (Arc::clone(terms), 0)).1 += 1;
            }
        }
        Ok(())
    }

    /// Books reservations that were forgotten without a report in rows of usage, by an op of the transaction that removes them.
    fn book_unreported(&self, unreported: &Kinds) -> Result<(), StoreError> {
        let mut sums = BTreeMap::<_, UsageAmounts>::new();
        for (terms, count) in unreported.values() {
            for (key, amounts) in rows_of(terms.note(), *count) {
                sums.entry(key).or_default().add(&amounts);
            }
        }
        if sums.is_empty() {
            return Ok(());
        }
        let mut rows: Rows = sums.into_iter().collect();
        let absent = self.inner.lock()?.state.spend.absent(rows.iter().map(|(key, _)| key));
        // Only this thread drops rows, so those that are read here are there below.
        let read = absent.iter().filter_map(|key| {
            let row = rows::one(&self.connection, key);
            // One that cannot be read keeps no others from being added to.
            row.inspect_err(|error| tracing::error!(%error, "a row of usage cannot be read")).ok()
        });
        let (read, all): (Vec<_>, _) = (read.collect(), rows.len());
        let mut shared = self.inner.lock()?;
        read.into_iter().for_each(|row| shared.state.spend.put(row));
        shared.state.book_unreported(&mut rows)?;
        drop(shared);
        self.inner.unreported.count(&rows);
        let left_out = all - rows.len();
        if left_out > 0 {
            tracing::warn!(left_out, "reservations without a report are not counted in some rows of usage");
        }
        Ok(())
    }
}

/// Terms by where they are in memory, each with how many reservations on them were not reported.
type Kinds = BTreeMap<usize, (Arc<Terms>, u64)>;
