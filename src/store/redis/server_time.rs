//! What is known of the store's time without asking the server.
//!
//! The scripts derive it from the server's wall clock, which may be set. Our own clock is never set, so that it tells a step of
//! the server's from time that has passed. Each answer bounds the distance between the store's time and our reading: the script
//! ran after the call was sent and before its answer came. Calls carry what that makes of the present, and the scripts keep to
//! it: they never fall behind it, and where the server is further ahead than it they do nothing, or no more than the bound allows.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::wire::Numbers;
use crate::{
    domain::{Moment, Timestamp},
    store::clock::{Clock, Monotonic},
};

/// What was learnt counts for one to two of these: long enough for some call to have been quick, and short enough that two
/// clocks which tick unevenly stay within [`UNEVEN_MS`].
const GENERATION_MS: i64 = 10_000;
/// How far two clocks may run apart in two generations, and by how much more for each thousand milliseconds after.
const UNEVEN_MS: i64 = 20;
/// A step of the server's clock from which on the log warns.
const WARN_MS: u64 = 1_000;
/// No second warning within this: all cores have seen the step by then.
const QUIET_MS: u64 = 10_000;

/// The store's time less our monotonic reading, in milliseconds: not less than `low`, not more than `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    low: i64,
    high: i64,
}

impl Span {
    fn meet(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.min(other.high) }
    }
}

#[derive(Debug)]
struct Known {
    current: Span,
    previous: Span,
    /// When `current` became the present generation, and when anything was last learnt.
    turned: i64,
    learnt: i64,
    /// The server was ahead of what is possible, so by how much its own reckoning is more than ours at the least.
    raw_low: Option<i64>,
    /// The wall clock less our reading, and the store's time less the wall clock.
    wall: i64,
    ahead: i64,
}

/// How an answer fits what was known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// As well as can be told.
    Fits,
    /// The server is ahead of what is possible: its clock was set forwards, unless our own stood still.
    Ahead,
}

/// What the beginning of an answer says of the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) moment: Moment,
    /// What the store's time would be for the next call at the same instant.
    pub(super) next: Timestamp,
}

/// The time as a call takes it along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The wall clock; `None`: the server's.
    wall: Option<Timestamp>,
    low: u64,
    high: u64,
    /// The script must not act from this instant on.
    pub(super) given_up: u64,
    /// The store's time is to come back to what is possible.
    asks_back: bool,
}

impl Bounds {
    /// What can be said of a server that has not answered yet.
    const NONE: Self = Self { wall: None, low: 0, high: u64::MAX, given_up: u64::MAX, asks_back: false };

    /// Adds the first arguments of each script that goes by time.
    pub(super) fn push(&self, numbers: &mut Numbers) {
        match self.wall {
            None => numbers.push_negative(1),
            Some(wall) => numbers.push(wall.0),
        }
        numbers.extend(&[self.low, self.high]);
    }
}

/// The store's time as one connection knows it.
///
/// The lock is held for a few comparisons, never across an await.
#[derive(Debug)]
pub(super) struct ServerTime {
    clock: Clock,
    known: Mutex<Option<Known>>,
}

impl ServerTime {
    pub(super) const fn new(clock: Clock) -> Self {
        Self { clock, known: Mutex::new(None) }
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn reading(&self) -> Monotonic {
        self.clock.monotonic()
    }

    /// Whether an answer is needed before anything can be said of the server's clock.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.clock, Clock::System) && self.lock().is_none()
    }

    /// For a call that is sent at `sent` and given up `patience_ms` later. It changes nothing after that, nor where the server
    /// is ahead of what is possible, unless that was seen to be a step: then it goes on where it should be.
    pub(super) fn for_reserve(&self, sent: Monotonic, patience_ms: u64) -> Bounds {
        let now = millis(sent);
        self.bounds(sent, |known, bounds| {
            let span = known.span(now);
            if known.raw_low.is_some() {
                (bounds.high, bounds.asks_back) = (at(span.high, now), true);
            }
            let low = known.raw_low.unwrap_or(span.low);
            bounds.given_up = at(low.saturating_add(clamp(patience_ms)), now);
        })
    }

    /// For a call that is to have its effect whenever the server comes to it; further ahead than `patience_ms` it is not.
    pub(super) fn for_effect(&self, sent: Monotonic, patience_ms: u64) -> Bounds {
        let now = millis(sent);
        self.bounds(sent, |known, bounds| {
            bounds.high = at(known.span(now).high.saturating_add(clamp(patience_ms)), now);
        })
    }

    fn bounds(&self, sent: Monotonic, narrow: impl FnOnce(&Known, &mut Bounds)) -> Bounds {
        let now = millis(sent);
        let known = self.lock();
        if let Clock::Manual(clock) = &self.clock {
            let (wall, reading) = clock.read();
            let store = at(known.as_ref().map_or(0, |known| known.current.low), millis(reading));
            return Bounds { wall: Some(wall), low: store, high: store, ..Bounds::NONE };
        }
        let mut bounds = Bounds::NONE;
        if let Some(known) = &*known {
            bounds.low = at(known.span(now).low, now);
            narrow(known, &mut bounds);
        }
        bounds
    }

    /// Learns from an answer to a call that was sent at `sent` with `bounds`.
    pub(super) fn learn(&self, sent: Monotonic, bounds: &Bounds, told: &Told) -> Fit {
        let came = self.clock.monotonic();
        let mut known = self.lock();
        if let Clock::Manual(_) = self.clock {
            // The test's clock and the store's time are the same but for what the store had seen before. Only the first answer
            // tells that: later ones may be to calls that others, sent after the clock was moved, have overtaken.
            if known.is_none() {
                let low = signed(told.moment.store).saturating_sub(millis(sent)).max(0);
                *known = Some(Known::new(Span { low, high: low }, 0, told));
            }
            return Fit::Fits;
        }
        // Both readings and the server's are rounded down.
        let (sent, came) = (millis(sent), millis(came).saturating_add(1));
        let next = signed(told.next);
        let span = Span { low: next.saturating_sub(came), high: next.saturating_add(1).saturating_sub(sent) };
        match &mut *known {
            None => {
                *known = Some(Known::new(span, came, told));
                Fit::Fits
            }
            // One that came too late was not asked.
            Some(known) => known.learn(span, came, told, bounds.asks_back && told.next.0 < bounds.given_up),
        }
    }

    /// The present instant as far as it can be told.
    pub(super) fn now(&self) -> Moment {
        let (wall, reading) = self.clock.read();
        let known = self.lock();
        let Some(known) = &*known else { return Moment { store: wall, wall } };
        let reading = millis(reading);
        if let Clock::Manual(_) = self.clock {
            return Moment { store: Timestamp(at(known.current.low, reading)), wall };
        }
        let wall = known.wall.saturating_add(reading);
        let store = wall.saturating_add(known.ahead);
        Moment { store: unsigned(store), wall: unsigned(wall) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        // A panic between two assignments of numbers leaves an estimate, as it was before.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn new(span: Span, came: i64, told: &Told) -> Self {
        let wall = signed(told.moment.wall);
        Self {
            current: span,
            previous: span,
            turned: came,
            learnt: came,
            raw_low: None,
            wall: wall.saturating_sub(came),
            ahead: signed(told.next).saturating_sub(wall),
        }
    }

    /// What can be said at `now`: less, the longer nothing was learnt.
    fn span(&self, now: i64) -> Span {
        let met = self.current.meet(self.previous);
        // Two clocks may have run apart by less than a step.
        let span = if met.low > met.high { self.current } else { met };
        let silence = now.saturating_sub(self.learnt).saturating_sub(2 * GENERATION_MS).max(0);
        let uneven = silence / 1_000;
        Span { low: span.low.saturating_sub(uneven), high: span.high.saturating_add(uneven) }
    }

    fn learn(&mut self, span: Span, came: i64, told: &Told, asked_back: bool) -> Fit {
        let before = self.span(came);
        let ahead = signed(told.next).saturating_sub(signed(told.moment.wall));
        let (was_ahead, was_raw) = (self.ahead, self.raw_low);
        self.wall = signed(told.moment.wall).saturating_sub(came);
        if span.low > before.high.saturating_add(UNEVEN_MS) {
            // Still ahead although it was asked to come back: others have gone on from there, and so must we.
            if asked_back {
                *self = Self::new(span, came, told);
                return Fit::Fits;
            }
            self.raw_low = Some(span.low);
            if was_raw.is_none() {
                warn("forwards", span.low.abs_diff(before.high));
            }
            return Fit::Ahead;
        }
        self.raw_low = None;
        self.ahead = ahead;
        if ahead.saturating_sub(was_ahead) > clamp(WARN_MS) && was_raw.is_none() {
            warn("backwards", ahead.abs_diff(was_ahead));
        }
        if span.high.saturating_add(UNEVEN_MS) < before.low {
            *self = Self::new(span, came, told);
            return Fit::Fits;
        }
        if came.saturating_sub(self.turned) > GENERATION_MS {
            (self.previous, self.current, self.turned) = (self.current, span, came);
        } else {
            let met = self.current.meet(span);
            self.current = if met.low > met.high { span } else { met };
        }
        self.learnt = came;
        Fit::Fits
    }
}

/// Warns of a step once, though every core's connection sees it.
fn warn(direction: &str, by_ms: u64) {
    static WARNED_MS: AtomicU64 = AtomicU64::new(0);
    let now = Clock::System.monotonic().as_millis();
    let quiet = now.saturating_sub(WARNED_MS.load(Ordering::Relaxed)) > QUIET_MS;
    if by_ms > WARN_MS && quiet {
        WARNED_MS.store(now, Ordering::Relaxed);
        tracing::warn!(
            direction,
            by_ms,
            "the clock of the redis server was set; limits go on by the time that has passed"
        );
    }
}

fn millis(reading: Monotonic) -> i64 {
    clamp(reading.as_millis())
}

fn signed(time: Timestamp) -> i64 {
    clamp(time.0)
}

fn clamp(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn unsigned(ms: i64) -> Timestamp {
    Timestamp(u64::try_from(ms).unwrap_or(0))
}

/// The instant at a distance from our reading.
fn at(distance: i64, reading: i64) -> u64 {
    unsigned(distance.saturating_add(reading)).0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server says whose time is `store` and whose wall clock is `wall`.
    fn told(store: i64, wall: i64) -> Told {
        let moment = Moment { store: unsigned(store), wall: unsigned(wall) };
        Told { moment, next: unsigned(store) }
    }

    fn span(low: i64, high: i64) -> Span {
        Span { low, high }
    }

    #[test]
    fn a_quick_answer_tells_more_than_a_slow_one() {
        let mut known = Known::new(span(1_000, 1_200), 0, &told(1_000, 1_000));
        assert_eq!(known.learn(span(1_150, 1_160), 10, &told(1_160, 1_160), false), Fit::Fits);
        assert_eq!(known.span(10), span(1_150, 1_160));
        assert_eq!(known.learn(span(1_000, 1_300), 20, &told(1_160, 1_160), false), Fit::Fits);
        assert_eq!(known.span(20), span(1_150, 1_160));
        assert_eq!(known.span(20 + 2 * GENERATION_MS + 60_000), span(1_090, 1_220), "and less with time");
    }

    #[test]
    fn a_step_forwards_is_told_from_time_that_passes() {
        let mut known = Known::new(span(1_000, 1_010), 0, &told(1_000, 1_000));
        // An hour without an answer is an hour for both.
        assert_eq!(known.learn(span(1_002, 1_008), 3_600_000, &told(3_601_002, 3_601_002), false), Fit::Fits);
        let ahead = span(8_000, 8_010);
        for _ in 0..2 {
            let answer = told(3_608_000, 3_608_000);
            assert_eq!(known.learn(ahead, 3_600_100, &answer, false), Fit::Ahead);
            assert_eq!((known.span(3_600_100).low, known.raw_low), (1_002, Some(8_000)));
        }
        // It came back when it was asked to.
        assert_eq!(known.learn(span(1_001, 1_009), 3_600_200, &told(3_601_201, 3_608_200), true), Fit::Fits);
        assert_eq!((known.raw_low, known.ahead), (None, -6_999));
    }

    #[test]
    fn where_others_have_gone_on_it_goes_on_too() {
        let mut known = Known::new(span(1_000, 1_010), 0, &told(1_000, 1_000));
        let ahead = span(8_000, 8_010);
        assert_eq!(known.learn(ahead, 100, &told(8_100, 8_100), false), Fit::Ahead);
        assert_eq!(known.learn(ahead, 200, &told(8_200, 8_200), true), Fit::Fits);
        assert_eq!((known.span(200), known.raw_low), (ahead, None));
    }
}
