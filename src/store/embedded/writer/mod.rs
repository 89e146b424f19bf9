//! The one thread that writes: group commits of the journal, and with each a bounded piece of a round that updates the tables, so
//! no commit takes much longer than another.
//!
//! A round writes everything that changed before it began, except reservations that are open and were made since the round before
//! it began: the journal has those, and most are settled before the next round. Then it removes the journal up to that point.
//! Between rounds, data no longer needed is forgotten, some of it every quarter of a second.

mod collect;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

use std::{mem, sync::Arc, time::Duration};

use rusqlite::Connection;
use tokio::{sync::oneshot, time::Instant};

#[cfg(test)]
pub(crate) use self::simulated::SimulatedWriter;
use super::{
    batch::Batch,
    owner::{Commit, CommitError},
    segment::Location,
    shared::{Inner, Parked, Shared},
};
use crate::store::{StoreError, UsageKey};

/// How long reservations wait for others before they are written. It bounds what a crash can lose of them while the disk keeps
/// up.
const COLLECT: Duration = Duration::from_millis(5);
/// Bytes of journal that are written without waiting for more.
const ENOUGH: usize = 256 << 10;
/// Between rounds, unless the journal grows past [`ROUND_BYTES`] before. The journal holds what two rounds have not moved to the
/// tables, which bounds the replay at opening.
pub(super) const ROUND: Duration = Duration::from_secs(5);
/// The size of the journal at which a round begins; also bounds the settled reservations in memory (a few hundred bytes of
/// journal each), which a round moves to the table.
const ROUND_BYTES: usize = 8 << 20;
/// Rows written with one commit: about a millisecond of work. Few in tests, so their rounds take several commits and are
/// interrupted.
const SLICE: usize = if cfg!(test) { 3 } else { 512 };
/// The most that it looks at for these: what was written already is looked at once more.
const LOOKS: usize = 16 * SLICE;
/// Rows taken or moved at once under the lock: some ten microseconds, as most are no longer in a cache of the processor. Decisions
/// get the lock in between.
const AT_ONCE: usize = if cfg!(test) { 2 } else { 32 };
/// Between two searches for something to forget.
const SWEEP: Duration = Duration::from_millis(250);
/// Counters looked at each time: a few nanoseconds each, under the lock; a million takes two minutes.
const SWEPT: usize = 2048;
/// Counters looked at, or lines forgotten, at once under the lock.
const SWEPT_AT_ONCE: usize = if cfg!(test) { 3 } else { 128 };
/// Lines forgotten each time.
const FORGOTTEN: usize = 512;
/// Segments forgotten each time: as many reservations as ten slices.
const SEGMENTS: u32 = 10;
/// Between attempts to write when writing fails.
const RETRY: Duration = Duration::from_millis(200);

pub(super) struct Writer {
    inner: Arc<Inner>,
    connection: Connection,
    disk: Box<dyn Commit>,
    round: Round,
    pause: Duration,
    round_ended: Instant,
    /// Journal written since the last round began.
    grown: usize,
    swept_at: Instant,
    /// The last op taken from the state.
    taken: u64,
    /// The last op whose journal row is gone: no op in the journal is before it.
    covered: u64,
    /// The last op when the last round began.
    begun: u64,
    /// The last segment written.
    segment: u64,
    /// How far behind the wall clock the store's time is, as last written to disk, in milliseconds.
    behind: u64,
    /// An emptied journal buffer, to be swapped in.
    spare: Vec<u8>,
    /// Callers that wait for the present round, and for the sweep of everything after it.
    asked: Vec<oneshot::Sender<()>>,
}

#[derive(Default)]
enum Round {
    #[default]
    Rest,
    /// Writing everything that had changed when it began, except reservations that are open and younger than the round before.
    /// Then everything up to op `covers` is in the tables.
    Writing { covers: u64, reservations: [Vec<u32>; 3], counters: Vec<u32>, lines: Vec<UsageKey> },
    /// Removing the journal up to op `covers`.
    Truncating { covers: u64 },
    /// Forgetting everything possible, for callers that asked for it; `false`: not begun.
    Sweeping { begun: bool },
}

/// Why the writer stops.
enum Stop {
    /// The store is dropped, and everything is written or cannot be.
    Asked,
    /// A caller panicked with the lock held; the journal on disk is whole.
    Poisoned,
    /// Nothing more may be written; the log says why.
    Lost,
}

impl From<StoreError> for Stop {
    fn from(_: StoreError) -> Self {
        Self::Poisoned
    }
}

/// How far the store on disk has come when the writer begins.
pub(super) struct Start {
    /// The last op in the journal.
    pub(super) lsn: u64,
    /// The last op that is in the tables.
    pub(super) covered: u64,
    /// The last segment there.
    pub(super) segment: u64,
    /// How far the store's time was behind the wall clock, in milliseconds.
    pub(super) behind: u64,
    /// How long after a round the next one begins; [`ROUND`] but in tests.
    pub(super) pause: Duration,
}

impl Writer {
    pub(super) fn new(
        inner: Arc<Inner>,
        connection: Connection,
        disk: Box<dyn Commit>,
        start: Start,
    ) -> Self {
        let now = Instant::now();
        Self {
            inner,
            connection,
            disk,
            round: Round::Rest,
            pause: start.pause,
            round_ended: now,
            grown: 0,
            swept_at: now,
            // The replayed ops are already in the journal.
            taken: start.lsn,
            covered: start.covered,
            begun: start.lsn,
            segment: start.segment,
            behind: start.behind,
            spare: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// Writes until the store is dropped.
    pub(super) fn run(mut self) {
        // However the thread ends, nothing may be accepted afterwards, as nothing would write it.
        let _closing = Closing(Arc::clone(&self.inner));
        let stop = loop {
            if let Err(stop) = self.turn() {
                break stop;
            }
        };
        if matches!(stop, Stop::Poisoned) {
            tracing::error!("the embedded store stopped: its state is inconsistent after a panic");
        }
    }

    fn turn(&mut self) -> Result<(), Stop> {
        let stopping = self.wait()?;
        let sweeping = matches!(self.round, Round::Sweeping { .. });
        let sweep = !stopping && (sweeping || self.swept_at.elapsed() >= SWEEP);
        // Read before the lock is taken; a comparison finds later changes.
        let expired = if sweep { self.expired() } else { Vec::new() };
        let (batch, moves) = self.collect(stopping, sweep.then_some(expired))?;
        let truncated = if batch.is_empty() { true } else { self.commit(&batch)? };
        self.finish(batch, &moves, truncated)?;
        if stopping { Err(Stop::Asked) } else { Ok(()) }
    }

    /// Returns when there is something to do, and whether that is to stop.
    fn wait(&self) -> Result<bool, StoreError> {
        let mut shared = self.inner.lock()?;
        let mut collecting: Option<Instant> = None;
        loop {
            let unwritten = shared.state.journal.len();
            let busy = !matches!(self.round, Round::Rest) || self.is_due(&shared);
            if shared.stopping || !shared.waiters.is_empty() || busy || unwritten > ENOUGH {
                return Ok(shared.stopping);
            }
            let (parked, left) = if unwritten > 0 {
                let since = *collecting.get_or_insert_with(Instant::now);
                (Parked::Collecting, COLLECT.saturating_sub(since.elapsed()))
            } else {
                (Parked::Idle, SWEEP.saturating_sub(self.swept_at.elapsed()))
            };
            if left.is_zero() {
                return Ok(false);
            }
            shared = self.inner.park(shared, parked, left)?;
        }
    }

    /// Whether a round has to begin.
    fn is_due(&self, shared: &Shared) -> bool {
        let late = self.round_ended.elapsed() >= self.pause || self.grown >= ROUND_BYTES;
        let uncovered = shared.state.has_dirty() || self.covered < self.taken;
        !shared.checkpoints.is_empty() || (late && uncovered)
    }

    /// Commits, and tries again until that succeeds or the store is dropped.
    fn commit(&mut self, batch: &Batch) -> Result<bool, Stop> {
        loop {
            let error = match self.disk.commit(&mut self.connection, batch) {
                Ok(truncated) => return Ok(truncated),
                Err(CommitError::Lost(_)) => return Err(Stop::Lost),
                Err(CommitError::Sqlite(error)) => error,
            };
            let mut shared = self.inner.lock()?;
            if !shared.failing || shared.stopping {
                tracing::error!(%error, bytes = batch.ops.len(), "the embedded store cannot write");
            }
            let waiters = shared.fail();
            let asked = mem::take(&mut shared.checkpoints);
            let stopping = shared.stopping;
            if !stopping {
                // A writer that is not parked is never notified, except to stop.
                let (mut shared, _) =
                    self.inner.wake.wait_timeout(shared, RETRY).map_err(|_| Stop::Poisoned)?;
                drop(mem::take(&mut shared.waiters));
            }
            drop((waiters, asked, mem::take(&mut self.asked)));
            if stopping {
                return Err(Stop::Asked);
            }
        }
    }

    /// After a commit: moves settled reservations out of memory, notifies the callers that waited, continues the round.
    fn finish(
        &mut self,
        mut batch: Batch,
        moves: &[(Location, u128, u64)],
        truncated: bool,
    ) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        let mut shared = inner.lock()?;
        if shared.failing {
            tracing::info!("the embedded store can write again");
        }
        let waiters = shared.written(batch.last);
        inner.age.written();
        drop(shared);
        waiters.tell();
        for moves in moves.chunks(AT_ONCE) {
            // Freed without the lock.
            let mut moved = Vec::with_capacity(moves.len());
            let mut shared = inner.lock()?;
            let state = &mut shared.state;
            for (at, id, lsn) in moves {
                if state.reservations.get(*id).is_some_and(|kept| kept.lsn() == *lsn) {
                    moved.extend(state.reservations.remove(*id));
                    state.archived.insert(*id, *at);
                }
            }
            drop(shared);
        }
        batch.ops.clear();
        self.spare = mem::take(&mut batch.ops);
        self.advance(truncated);
        Ok(())
    }

    fn advance(&mut self, truncated: bool) {
        self.round = match mem::take(&mut self.round) {
            Round::Writing { covers, reservations, counters, lines }
                if reservations.iter().all(Vec::is_empty) && counters.is_empty() && lines.is_empty() =>
            {
                Round::Truncating { covers }
            }
            Round::Truncating { covers } if truncated => {
                self.covered = covers;
                self.round_ended = Instant::now();
                if self.asked.is_empty() { Round::Rest } else { Round::Sweeping { begun: false } }
            }
            round => round,
        };
        if matches!(self.round, Round::Rest) {
            for asked in self.asked.drain(..) {
                // A caller that asked and left is not told.
                let _ = asked.send(());
            }
        }
    }
}

/// Makes the store refuse everything once the writer ends.
struct Closing(Arc<Inner>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Ok(mut shared) = self.0.lock() {
            drop(shared.fail());
            shared.checkpoints.clear();
        }
    }
}
