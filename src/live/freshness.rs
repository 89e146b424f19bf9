//! How old the process's knowledge of the registry is.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::runtime::clock::{Clock, Monotonic};

/// The published bound: a change of the registry is in force within this time on every replica that decides anything.
pub const MAX_AGE: Duration = Duration::from_secs(1);

/// When the last successful reading began. Changes before that instant are known; later ones may not be.
///
/// A monotone clock: setting the wall clock must not make anything look fresh. It is the system's clock, because true time
/// passes for those who are shut out. One atomic, read by every decision; it grows until a reading finds what this release must not
/// decide by, and orders nothing else: what a reading found is published in the snapshot, before its time is.
#[derive(Debug, Default)]
pub struct Freshness {
    /// Milliseconds of the monotone clock, rounded down so that the age errs on the safe side; 0: nothing was read, or nothing counts.
    begun: AtomicU64,
}

impl Freshness {
    /// The instant at which a reading begins.
    pub(super) fn begin() -> Monotonic {
        Clock::System.monotonic()
    }

    /// Notes that a reading which began at `begun` succeeded. Call it only once what the reading found is in force.
    pub(super) fn read(&self, begun: Monotonic) {
        self.begun.fetch_max(begun.as_millis().max(1), Ordering::Release);
    }

    /// Notes that nothing may be decided by what is known, however young it is. A reading in progress on another worker may undo this
    /// for what is left of its bound.
    pub(super) fn forget(&self) {
        self.begun.store(0, Ordering::Release);
    }

    /// The time since the last successful reading began; `None`: there was none, or it was forgotten.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.age_at(Self::begin())
    }

    /// Whether every change older than [`MAX_AGE`] is known.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.age().is_some_and(|age| age < MAX_AGE)
    }

    fn age_at(&self, now: Monotonic) -> Option<Duration> {
        match self.begun.load(Ordering::Acquire) {
            0 => None,
            begun => Some(now.since(Monotonic::default().plus(Duration::from_millis(begun)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_that_of_the_beginning_of_the_youngest_reading() {
        let freshness = Freshness::default();
        let at = |ms| Monotonic::default().plus(Duration::from_millis(ms));
        let age_at = |ms| freshness.age_at(at(ms)).map(|age| age.as_millis());
        assert_eq!(age_at(5), None);
        assert!(!freshness.is_fresh());
        freshness.read(at(100));
        assert_eq!(age_at(100), Some(0));
        assert_eq!(age_at(1_099), Some(999));
        // A reading that began earlier and took longer proves nothing newer.
        freshness.read(at(50));
        assert_eq!(age_at(1_100), Some(1_000));
        freshness.read(at(1_000));
        assert_eq!(age_at(1_100), Some(100));
        // An instant that another core has read first.
        assert_eq!(age_at(900), Some(0));
        freshness.forget();
        assert_eq!(age_at(1_100), None);
    }
}
