//! How long the oldest op has waited for the disk, which bounds what a crash can make the store forget.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// How old the oldest op that is not on disk may be before further reservations wait for the disk. `kill -9` can make the store
/// forget only reservations of this last stretch of time, however slow the disk is. It is twenty times what a commit usually
/// takes, so reservations do not wait for a disk that is only busy; and short enough that a budget is hardly granted twice.
pub(super) const MAX_AGE: Duration = Duration::from_millis(100);

/// Instants are in microseconds since `begun`, plus one; 0: no op waits.
///
/// Protocol: written under the lock of `Shared`, so that `oldest` is the smaller of the other two; read without the lock, to see
/// whether to take the slow path. It orders nothing else.
pub(super) struct Age {
    begun: Instant,
    limit: Duration,
    oldest: AtomicU64,
    /// When the oldest op that waits for the writer began to wait.
    waiting: AtomicU64,
    /// When the oldest op of the writer's batch began to wait.
    taken: AtomicU64,
}

impl Age {
    pub(super) fn new(limit: Duration) -> Self {
        let [oldest, waiting, taken] = [0; 3].map(AtomicU64::new);
        Self { begun: Instant::now(), limit, oldest, waiting, taken }
    }

    /// Whether the oldest op has waited too long. Costs one load if nothing waits, and a look at the clock if something does.
    pub(super) fn is_late(&self) -> bool {
        self.is_late_by(Duration::ZERO)
    }

    /// Whether it has waited for `more` beyond that.
    pub(super) fn is_late_by(&self, more: Duration) -> bool {
        match self.oldest.load(Ordering::Relaxed) {
            0 => false,
            since => self.now().saturating_sub(since) >= micros(self.limit + more),
        }
    }

    /// Notes that there are ops that the writer has not taken.
    pub(super) fn unwritten(&self) {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            self.waiting.store(self.now(), Ordering::Relaxed);
            self.update();
        }
    }

    /// Notes that the writer has taken all ops.
    pub(super) fn taken(&self) {
        self.taken.store(self.waiting.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.update();
    }

    /// Notes that the ops that the writer took are on disk.
    pub(super) fn written(&self) {
        self.taken.store(0, Ordering::Relaxed);
        self.update();
    }

    fn update(&self) {
        let [taken, waiting] = [&self.taken, &self.waiting].map(|since| since.load(Ordering::Relaxed));
        // The ops that the writer has taken are older.
        self.oldest.store(if taken == 0 { waiting } else { taken }, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        micros(self.begun.elapsed()).saturating_add(1)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
