//! The system's clock as one thread of a simulation has it: time passes as the thread's tokio runtime lets it, which may hold it still and
//! move it, and the wall clock is set as the simulation likes.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

use crate::domain::Timestamp;

thread_local! {
    static TIME: Cell<Option<Time>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Time {
    began: Instant,
    start: Timestamp,
    /// How far the wall clock was set ahead since, in milliseconds.
    ahead_ms: i64,
}

/// While it lives, the system's clock of this thread is simulated.
pub(crate) struct SimulatedTime(());

impl SimulatedTime {
    /// Begins at `start`. To be called within the runtime.
    pub(crate) fn begin(start: Timestamp) -> Self {
        TIME.set(Some(Time { began: Instant::now(), start, ahead_ms: 0 }));
        Self(())
    }
}

impl Drop for SimulatedTime {
    fn drop(&mut self) {
        TIME.set(None);
    }
}

/// Sets the wall clock of this thread ahead, or back, by so many milliseconds.
pub(crate) fn step(ms: i64) {
    TIME.set(TIME.get().map(|time| Time { ahead_ms: time.ahead_ms.saturating_add(ms), ..time }));
}

/// The time that has passed, beginning at that of the start.
pub(super) fn elapsed() -> Option<Duration> {
    TIME.get().map(|time| Duration::from_millis(time.start.0) + time.began.elapsed())
}

pub(super) fn wall() -> Option<Timestamp> {
    let time = TIME.get()?;
    let passed = u64::try_from(time.began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Some(Timestamp(time.start.plus(passed).0.saturating_add_signed(time.ahead_ms)))
}
