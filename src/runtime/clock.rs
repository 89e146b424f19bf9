//! The clock that decisions, keys and tokens follow: the system's, or one that a test moves.
//!
//! There are two readings. The *wall clock* shows civil time: prices, calendar periods and certificates follow it, and it may be
//! set at any moment, forwards or backwards. The *monotonic* reading shows how much time has passed, and is never set: waits,
//! deadlines and everything that expires follow it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::domain::Timestamp;

/// Reads the time, and waits.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's clock.
    #[default]
    System,
    /// A clock that moves only when told to.
    Manual(ManualClock),
}

/// An instant of a clock that only moves forwards, at the pace of true time. It is comparable only with others of the same
/// process (and of the same [`ManualClock`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// The instant `time` later, or the end of time on overflow.
    #[must_use]
    pub const fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }

    /// The time from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole milliseconds since the clock's own start, rounded down.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Clock {
    /// The wall clock now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => wall(),
            Self::Manual(clock) => clock.now(),
        }
    }

    /// The monotonic reading now. On Linux it includes the time that the machine was suspended.
    #[must_use]
    pub fn monotonic(&self) -> Monotonic {
        match self {
            Self::System => monotonic(),
            Self::Manual(clock) => clock.monotonic(),
        }
    }

    /// Both readings at one instant.
    #[must_use]
    pub fn read(&self) -> (Timestamp, Monotonic) {
        match self {
            Self::System => (self.now(), self.monotonic()),
            Self::Manual(clock) => clock.read(),
        }
    }

    /// Returns once the monotonic reading is `at` or later, whatever happens to the wall clock.
    pub async fn sleep_until(&self, at: Monotonic) {
        match self {
            Self::System => tokio::time::sleep(at.since(monotonic())).await,
            Self::Manual(clock) => clock.sleep_until(at).await,
        }
    }

    /// Returns after `time`, whatever happens to the wall clock.
    pub async fn sleep(&self, time: Duration) {
        self.sleep_until(self.monotonic().plus(time)).await;
    }
}

fn wall() -> Timestamp {
    #[cfg(test)]
    if let Some(simulated) = super::simulated::wall() {
        return simulated;
    }
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

fn monotonic() -> Monotonic {
    #[cfg(test)]
    if let Some(simulated) = super::simulated::elapsed() {
        return Monotonic(simulated);
    }
    boottime()
}

#[cfg(target_os = "linux")]
fn boottime() -> Monotonic {
    // Unlike `Instant`, this counts while the machine sleeps, as the clocks of the servers that it talks to do.
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Monotonic(Duration::try_from(time).unwrap_or_default())
}

#[cfg(not(target_os = "linux"))]
fn boottime() -> Monotonic {
    use std::{sync::LazyLock, time::Instant};
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    Monotonic(START.elapsed())
}

/// A clock for tests. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock(watch::Sender<Readings>);

#[derive(Clone, Copy, Debug)]
struct Readings {
    wall: Timestamp,
    /// Starts equal to the wall clock, so the difference shows the steps of the wall clock.
    elapsed: Monotonic,
}

impl ManualClock {
    /// Starts at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let elapsed = Monotonic(Duration::from_millis(now.0));
        Self(watch::Sender::new(Readings { wall: now, elapsed }))
    }

    /// The wall clock now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.borrow().wall
    }

    /// The monotonic reading now.
    #[must_use]
    pub fn monotonic(&self) -> Monotonic {
        self.0.borrow().elapsed
    }

    pub(crate) fn read(&self) -> (Timestamp, Monotonic) {
        let readings = *self.0.borrow();
        (readings.wall, readings.elapsed)
    }

    /// Sets the time. To a later one: that much time passes. To an earlier one: the wall clock is set back, and no time passes.
    pub fn set(&self, now: Timestamp) {
        self.0.send_modify(|readings| {
            let passed = Duration::from_millis(now.since(readings.wall));
            readings.elapsed = readings.elapsed.plus(passed);
            readings.wall = now;
        });
    }

    /// Sets the wall clock forwards or backwards; no time passes.
    pub fn step(&self, now: Timestamp) {
        self.0.send_modify(|readings| readings.wall = now);
    }

    /// Lets `ms` pass on both readings.
    pub fn pass(&self, ms: u64) {
        self.set(self.now().plus(ms));
    }

    /// Lets time pass until the wall clock shows `at`, or undoes as much of it as if it had never passed: for a test that looks
    /// at a hypothetical time. Time cannot be undone for a state that was changed at a later time.
    pub fn travel(&self, at: Timestamp) {
        let before = self.now();
        self.set(at);
        self.0.send_modify(|readings| {
            let undone = Duration::from_millis(before.since(at));
            readings.elapsed = Monotonic(readings.elapsed.0.saturating_sub(undone));
        });
    }

    async fn sleep_until(&self, at: Monotonic) {
        // `self` holds the sender, so the channel cannot close during the wait.
        let _ = self.0.subscribe().wait_for(|readings| readings.elapsed >= at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_goes_by_the_time_that_has_passed_and_not_by_the_wall() {
        let clock = ManualClock::new(Timestamp(10_000));
        let waiting = Clock::Manual(clock.clone());
        let end = waiting.monotonic().plus(Duration::from_millis(100));
        clock.step(Timestamp(99_000));
        let mut wait = std::pin::pin!(waiting.sleep_until(end));
        assert!(futures_poll(wait.as_mut()).await.is_none(), "a step forwards is no time");
        clock.set(Timestamp(1_000));
        clock.set(Timestamp(1_099));
        assert!(futures_poll(wait.as_mut()).await.is_none());
        clock.pass(1);
        wait.await;
    }

    /// The result of one poll.
    async fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }

    #[test]
    fn the_system_has_a_reading_that_is_never_set() {
        let first = Clock::System.monotonic();
        assert!(Clock::System.monotonic() >= first);
        assert!(first.as_millis() > 0);
    }
}
