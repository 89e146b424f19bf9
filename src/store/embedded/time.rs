//! The store's time: the wall clock's reading when the store was opened, plus the time since then by a clock that is never set.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use crate::domain::{Moment, Timestamp};
use crate::runtime::clock::{Clock, Monotonic};

/// The two clocks tick apart by a fraction of a millisecond, or by a few milliseconds if the pace of one is being adjusted. A
/// smaller difference than this is no step, so the time shown for an instant does not flicker.
const SAME_MS: u64 = 20;
/// The smallest step of the wall clock that the log warns about.
const WARN_MS: u64 = 1_000;

/// Tells the time. It never goes back, not even across restarts.
#[derive(Debug)]
pub(super) struct StoreTime {
    clock: Clock,
    /// The clock's reading when the store's time was `start`.
    opened: Monotonic,
    start: Timestamp,
    /// The store's time minus the wall clock, in milliseconds, as last seen. Read and written without ordering: if another thread
    /// replaces the value, a thread that reads the old one finds the same step by itself.
    ahead_ms: AtomicI64,
}

impl StoreTime {
    /// Continues from `last`, where the store's time was last seen, and goes beyond it only as far as both assumptions about the
    /// wall clock permit: that it is right, and that it is still wrong by the `behind_ms` by which the store's time was behind
    /// it. The store does not know which holds: the clock may have been corrected before the store was closed or since.
    pub(super) fn new(clock: Clock, last: Timestamp, behind_ms: u64) -> Self {
        let (wall, opened) = clock.read();
        let start = Timestamp(wall.0.saturating_sub(behind_ms)).max(last);
        let set_back_ms = last.since(wall);
        if set_back_ms > WARN_MS {
            tracing::warn!(
                by_seconds = Duration::from_millis(set_back_ms).as_secs_f64(),
                "the clock was set back since the store was last open; its own time goes on"
            );
        }
        Self { clock, opened, start, ahead_ms: AtomicI64::new(difference(start, wall)) }
    }

    /// The present instant.
    pub(super) fn now(&self) -> Moment {
        let (wall, reading) = self.clock.read();
        let passed = reading.since(self.opened).as_millis();
        let store = self.start.plus(u64::try_from(passed).unwrap_or(u64::MAX));
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        let smooth = Timestamp(store.0.saturating_add_signed(ahead.saturating_neg()));
        let off = smooth.since(wall).max(wall.since(smooth));
        let same = if let Clock::System = self.clock { SAME_MS } else { 0 };
        if off <= same {
            return Moment { store, wall: smooth };
        }
        let now = difference(store, wall);
        let replaced = self.ahead_ms.compare_exchange(ahead, now, Ordering::Relaxed, Ordering::Relaxed);
        if off > WARN_MS && replaced.is_ok() {
            let direction = if now > ahead { "backwards" } else { "forwards" };
            tracing::warn!(
                direction,
                by_seconds = Duration::from_millis(off).as_secs_f64(),
                "the clock was set; limits go on by the time that has passed"
            );
        }
        Moment { store, wall }
    }
}

fn difference(store: Timestamp, wall: Timestamp) -> i64 {
    store.0.checked_signed_diff(wall.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::ManualClock;

    #[test]
    fn only_time_that_passes_moves_it() {
        let clock = ManualClock::new(Timestamp(1_000_000));
        let time = StoreTime::new(Clock::Manual(clock.clone()), Timestamp(0), 0);
        for wall in [3_000_000, 500, 1_000_000, 999_999] {
            clock.step(Timestamp(wall));
            let now = time.now();
            assert_eq!((now.store, now.wall), (Timestamp(1_000_000), Timestamp(wall)));
            assert_eq!(now.to_wall(Timestamp(1_000_007)), Timestamp(wall + 7));
        }
        clock.pass(5);
        assert_eq!(time.now(), Moment { store: Timestamp(1_000_005), wall: Timestamp(1_000_004) });
    }

    #[test]
    fn it_goes_on_where_it_was_last_seen() {
        let clock = ManualClock::new(Timestamp(1_000_000));
        let time = StoreTime::new(Clock::Manual(clock.clone()), Timestamp(7_000_000), 0);
        clock.pass(10);
        assert_eq!(time.now(), Moment { store: Timestamp(7_000_010), wall: Timestamp(1_000_010) });
        let time = StoreTime::new(Clock::Manual(clock.clone()), Timestamp(3), 0);
        assert_eq!(time.now().store, Timestamp(1_000_010));
        // Opened under an early clock, which was corrected by 900 s.
        let time = StoreTime::new(Clock::Manual(clock.clone()), Timestamp(99_000), 900_000);
        assert_eq!(time.now(), Moment { store: Timestamp(100_010), wall: Timestamp(1_000_010) });
        clock.pass(1);
        assert_eq!(time.now(), Moment { store: Timestamp(100_011), wall: Timestamp(1_000_011) });
    }
}
