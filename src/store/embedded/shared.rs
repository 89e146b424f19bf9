//! What callers and the writer share, and how they wait for each other.

use std::{
    sync::{Condvar, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    age::Age,
    segment::Location,
    state::{Answer, State},
    time::StoreTime,
    waiters::{Heard, Waiters},
};
use crate::domain::Moment;
use crate::store::{StoreError, Unreported};

/// The most bytes of ops that may wait for the writer: several seconds of the heaviest load on a stalled disk. Beyond it the
/// store refuses, rather than promise what it may never write.
const MAX_UNWRITTEN: usize = 64 << 20;

/// The state that callers and the writer share.
///
/// Protocol: all of [`Shared`] is behind one mutex, held for one decision (a microsecond) or one bounded piece of the writer's
/// work, never across an await or a disk access. `wake` has one waiter, the writer. A thread that changes `shared` so that a
/// parked writer has to act clears `parked` under the lock and notifies after releasing it. So a busy writer is never notified,
/// and a parked one once.
pub(super) struct Inner {
    pub(super) shared: Mutex<Shared>,
    pub(super) wake: Condvar,
    pub(super) time: StoreTime,
    /// How long the oldest op waits for the disk; read without the lock.
    pub(super) age: Age,
    pub(super) unreported: Unreported,
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) state: State,
    /// Callers that may be answered once an op is on disk. Each stays in here until then, or until a commit fails.
    pub(super) waiters: Waiters,
    /// The last op on disk.
    pub(super) durable: u64,
    /// The last commit failed, or the writer has ended: nothing is accepted until a commit succeeds.
    pub(super) failing: bool,
    pub(super) parked: Parked,
    /// The store is being dropped: write what there is and stop.
    pub(super) stopping: bool,
    /// Callers that asked for everything to be written to the tables.
    pub(super) checkpoints: Vec<oneshot::Sender<()>>,
}

/// What the writer waits for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Parked {
    /// Nothing: it is working, and looks again before it parks.
    #[default]
    No,
    /// Any op.
    Idle,
    /// A moment to pass, so that several reservations share a commit; a settlement ends it.
    Collecting,
}

/// The result of an operation in memory.
pub(super) enum Step<T> {
    Done(T),
    /// The answer, to be given once the receiver has heard that it is on disk.
    OnDisk(T, Heard),
    Archived(Location),
    /// Lines to read, and the count of drops when they were missing.
    Absent(Vec<crate::store::UsageKey>, u64),
}

impl Inner {
    /// Takes the lock. A panic under it may leave half a change behind, so nothing is answered from that state.
    pub(super) fn lock(&self) -> Result<MutexGuard<'_, Shared>, StoreError> {
        self.shared.lock().map_err(|_| StoreError::Corrupt)
    }

    /// Runs one operation on the state, at one instant.
    pub(super) fn step<T>(
        &self,
        operation: impl FnOnce(&mut State, Moment) -> Result<Answer<T>, StoreError>,
    ) -> Result<Step<T>, StoreError> {
        let mut shared = self.lock()?;
        if shared.failing || shared.state.journal.len() > MAX_UNWRITTEN {
            return Err(StoreError::Unavailable);
        }
        // Under the lock, so the times in the journal are in the order of its ops.
        let now = self.time.now();
        // An error can leave new counters behind, which are ops: the writer learns of those with the next op.
        let answer = operation(&mut shared.state, now)?;
        let step = match answer {
            Answer::Ready { value, after } if after > shared.durable => {
                Step::OnDisk(value, shared.waiters.wait(after))
            }
            Answer::Ready { value, .. } => Step::Done(value),
            Answer::Archived(at) => Step::Archived(at),
            Answer::Absent(keys) => Step::Absent(keys, shared.state.spend.drops()),
        };
        if !shared.state.journal.is_empty() {
            self.age.unwritten();
        }
        let urgent = matches!(step, Step::OnDisk(..));
        let wanted = match shared.parked {
            Parked::No => false,
            Parked::Idle => urgent || !shared.state.journal.is_empty(),
            Parked::Collecting => urgent,
        };
        self.release(shared, wanted);
        Ok(step)
    }

    /// Signals the next commit, if the oldest op has waited too long; `None` if it has not.
    pub(super) fn next_commit(&self) -> Result<Option<Heard>, StoreError> {
        let mut shared = self.lock()?;
        if shared.failing {
            return Err(StoreError::Unavailable);
        }
        if !self.age.is_late() {
            return Ok(None);
        }
        let after = shared.durable + 1;
        let heard = shared.waiters.wait(after);
        self.release(shared, true);
        Ok(Some(heard))
    }

    /// Releases the lock and wakes the writer if that is `wanted` and it is parked.
    pub(super) fn release(&self, mut shared: MutexGuard<'_, Shared>, wanted: bool) {
        let notify = wanted && shared.parked != Parked::No;
        if notify {
            shared.parked = Parked::No;
        }
        drop(shared);
        if notify {
            self.wake.notify_one();
        }
    }

    /// Parks the writer until it is woken or `time` has passed.
    pub(super) fn park<'a>(
        &self,
        mut shared: MutexGuard<'a, Shared>,
        parked: Parked,
        time: Duration,
    ) -> Result<MutexGuard<'a, Shared>, StoreError> {
        shared.parked = parked;
        let (mut shared, _) = self.wake.wait_timeout(shared, time).map_err(|_| StoreError::Corrupt)?;
        shared.parked = Parked::No;
        Ok(shared)
    }
}

impl Shared {
    /// Notes that everything up to op `durable` is on disk. Returns the callers that waited for it, to be told without the lock.
    pub(super) fn written(&mut self, durable: u64) -> Waiters {
        self.failing = false;
        self.durable = durable;
        self.waiters.reached(durable)
    }

    /// Notes that nothing can be written; callers that wait learn it when the returned value is dropped.
    pub(super) fn fail(&mut self) -> Waiters {
        self.failing = true;
        std::mem::take(&mut self.waiters)
    }
}
