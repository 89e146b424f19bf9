//! The contents of the next batch: the journal's ops, the slice of the round, and what to forget.

use std::{mem, sync::Arc, time::Instant};

use super::super::{
    batch::Batch,
    disk::{self, Expired},
    kept::ReservationRow,
    retention::Retention,
    segment::Entry,
    shared::Shared,
    spend,
};
use super::{FORGOTTEN, Round, SEGMENTS, SLICE, SWEPT, Writer};
use crate::store::StoreError;

impl Writer {
    pub(super) fn expired(&self) -> Vec<Expired> {
        let found = disk::expired(&self.connection, self.inner.time.now().store, self.covered, SEGMENTS);
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look for reservations to forget");
            Vec::new()
        })
    }

    /// Takes what to write next, all under one lock, as it is after the last op of the batch.
    pub(super) fn collect(
        &mut self,
        stopping: bool,
        sweep: Option<Vec<Expired>>,
    ) -> Result<(Batch, Vec<ReservationRow>), StoreError> {
        let inner = Arc::clone(&self.inner);
        let mut shared = inner.lock()?;
        let mut batch = Batch { first: self.taken + 1, last: shared.state.lsn, ..Batch::default() };
        self.taken = batch.last;
        batch.seen = shared.state.time;
        batch.behind = self.moved();
        batch.ops = mem::replace(&mut shared.state.journal, mem::take(&mut self.spare));
        let mut rows = mem::take(&mut shared.state.displaced);
        inner.age.taken();
        self.grown += batch.ops.len();
        if let Some(expired) = sweep {
            self.sweep(&mut shared, &mut batch, &expired);
        }
        if !stopping {
            if matches!(self.round, Round::Rest) && self.is_due(&shared) {
                self.begin(&mut shared, &mut batch);
            }
            self.fill(&mut shared, &mut batch, &mut rows);
        }
        Ok((batch, rows))
    }

    /// How far the store's time is behind the wall clock, if the clock was set since that was last written.
    fn moved(&mut self) -> Option<u64> {
        let now = self.inner.time.now();
        let behind = now.wall.since(now.store);
        (mem::replace(&mut self.behind, behind) != behind).then_some(behind)
    }

    fn begin(&mut self, shared: &mut Shared, batch: &mut Batch) {
        self.grown = 0;
        self.asked.append(&mut shared.checkpoints);
        let state = &mut shared.state;
        if mem::take(&mut state.gates_dirty) {
            let now = self.inner.time.now().store;
            state.gates.retain(|_, cooldown| cooldown.is_in_force(now));
            batch.gates =
                Some(state.gates.iter().map(|(gate, cooldown)| (gate.clone(), cooldown.clone())).collect());
        }
        self.round = Round::Writing {
            covers: batch.last,
            reservations: mem::take(&mut state.dirty),
            counters: state.counters.take_dirty(),
            lines: state.spend.take_dirty(),
        };
    }

    /// The next slice of the round.
    fn fill(&mut self, shared: &mut Shared, batch: &mut Batch, rows: &mut Vec<ReservationRow>) {
        match &mut self.round {
            Round::Rest | Round::Sweeping { .. } => {}
            Round::Truncating { covers } => batch.truncate = Some(*covers),
            Round::Writing { reservations, counters, lines, .. } => {
                for _ in 0..SLICE {
                    if let Some(id) = reservations.pop() {
                        rows.extend(shared.state.capture(id));
                    } else if let Some(slot) = counters.pop() {
                        batch.counters.extend(shared.state.counters.capture(slot));
                    } else if let Some(key) = lines.pop() {
                        batch.lines.extend(shared.state.spend.capture(&key));
                    } else {
                        break;
                    }
                }
            }
        }
    }

    /// Forgets a bounded part of what can be forgotten. Everything taken earlier is on disk here: a batch is collected only after
    /// the previous one was committed.
    fn sweep(&mut self, shared: &mut Shared, batch: &mut Batch, expired: &[Expired]) {
        let now = self.inner.time.now();
        let state = &mut shared.state;
        for Expired { number, entries } in expired {
            let in_memory =
                |entry: &Entry| state.reservations.get(&entry.id).filter(|kept| kept.seq == entry.seq);
            // Settled since, and the journal needs the segment to replay that: the segment goes after these are next written.
            if entries.iter().filter_map(in_memory).any(|kept| kept.dirty) {
                continue;
            }
            for entry in entries {
                // A later version is in a later segment, and stays with that.
                if state.reservations.get(&entry.id).is_some_and(|kept| kept.lsn == entry.lsn) {
                    state.reservations.remove(&entry.id);
                }
                if state.archived.get(&entry.id).is_some_and(|at| at.segment == *number) {
                    state.archived.remove(&entry.id);
                }
            }
            batch.segments_gone.push(*number);
            batch.seen = now.store;
        }
        if matches!(self.round, Round::Sweeping { begun: false }) {
            state.counters.restart_sweep();
            self.round = Round::Sweeping { begun: true };
        }
        let (emptied, whole) = state.counters.sweep(SWEPT, self.covered, Retention::at(now));
        batch.counters_gone = emptied;
        let more = state.spend.drop_old(spend::resident_from(now.wall), FORGOTTEN);
        self.swept_at = Instant::now();
        if matches!(self.round, Round::Sweeping { .. }) && whole && !more && batch.segments_gone.is_empty() {
            self.round = Round::Rest;
        }
    }
}
