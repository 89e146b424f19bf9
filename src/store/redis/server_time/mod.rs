//! The knowledge of the store's time between two answers of the server.
//!
//! The scripts derive it from the server's wall clock, which may be set. Our own clock is never set, so it distinguishes a step
//! of the server's clock from time that has passed. Each answer bounds the distance between the store's time and our reading: the
//! script ran after the call was sent and before its answer came. Calls carry the resulting bounds on the present, and the
//! scripts keep to them: they never fall behind them, and if the server is further ahead they do nothing, or no more than the
//! bound allows.
//!
//! One rule corrects the store's time after a step forwards: an answer shows the step, and the next call that may go undone, of a
//! decision or of the sweep, asks the script to come back. Calls that must take effect never ask for this: to them, a server that
//! is ahead may simply have been slow. As every process sweeps, a step lasts no longer than one interval of the sweep.
//!
//! A new process can detect a step only by the instant when the store's time was last written, which every sweep does. If that is
//! long ago, either no process ran or the clock was set, so the process waits for as long as others need to correct it.

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::wire::Numbers;
use crate::{
    domain::{Moment, Timestamp},
    runtime::clock::{Clock, Monotonic},
};

/// A measurement counts for one to two of these: long enough for some call to have been quick, and short enough that two clocks
/// which tick unevenly stay within [`UNEVEN_MS`].
const GENERATION_MS: i64 = 10_000;
/// How far two clocks may drift apart in two generations; after that, 1 ms is added for each second.
const UNEVEN_MS: i64 = 20;
/// The smallest step of the server's clock that the log warns about.
const WARN_MS: u64 = 1_000;
/// If the store's time was last written longer ago than this, a new process doubts the server's clock: a running one writes it
/// every two seconds, and may miss one of them.
const LIVELY_MS: u64 = 5_000;
/// How long it doubts: others have swept twice by then.
const DOUBT_MS: i64 = 5_000;
/// No second warning within this time: all cores have seen the step by then.
const QUIET_MS: u64 = 10_000;

/// The store's time minus our monotonic reading, in milliseconds: not less than `low`, not more than `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    low: i64,
    high: i64,
}

impl Span {
    /// The bounds from an answer that arrived at `came`, and that reading. Both readings and the server's are rounded down.
    fn of(sent: Monotonic, came: Monotonic, told: &ServerMoment) -> (Self, i64) {
        let (sent, came) = (millis(sent), millis(came).saturating_add(1));
        let next = signed(told.next);
        let span = Self { low: next.saturating_sub(came), high: next.saturating_add(1).saturating_sub(sent) };
        (span, came)
    }

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
    /// Set if the server was ahead of what is possible: the least by which its own reckoning exceeds ours.
    raw_low: Option<i64>,
    /// The wall clock minus our reading, and the store's time minus the wall clock.
    wall: i64,
    ahead: i64,
}

/// How an answer fits what was known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It fits, as far as can be seen.
    Fits,
    /// The server is ahead of what is possible: its clock was set forwards, unless our own stood still.
    Ahead,
}

/// The time at the start of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerMoment {
    pub(super) moment: Moment,
    /// The store's time for the next call at the same instant.
    pub(super) next: Timestamp,
}

/// The time bounds that a call carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The wall clock; `None`: the server's.
    wall: Option<Timestamp>,
    low: u64,
    high: u64,
    /// The script must not act from this instant on.
    pub(super) given_up: u64,
    /// Whether the store's time should come back to what is possible.
    asks_back: bool,
}

impl Bounds {
    /// The bounds for a server that has not answered yet.
    const NONE: Self = Self { wall: None, low: 0, high: u64::MAX, given_up: u64::MAX, asks_back: false };

    /// What the scripts call the numbers that [`Bounds::push`] adds.
    #[cfg(test)]
    pub(super) const NAMES: [&str; 3] = ["asked_wall", "low", "high"];

    /// Adds the first arguments of each script that uses the time.
    pub(super) fn push(&self, numbers: &mut Numbers) {
        match self.wall {
            None => numbers.push_negative(1),
            Some(wall) => numbers.push(wall.0),
        }
        numbers.extend(&[self.low, self.high]);
    }
}

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    /// The reading at the first look that left a doubt.
    in_doubt_since: Option<i64>,
}

/// The store's time as one connection knows it.
///
/// The lock is held for a few comparisons, never across an await.
#[derive(Debug)]
pub(super) struct ServerTime {
    clock: Clock,
    state: Mutex<State>,
}

impl ServerTime {
    pub(super) const fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::new(State { known: None, in_doubt_since: None }) }
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn reading(&self) -> Monotonic {
        self.clock.monotonic()
    }

    /// Whether an answer is needed before anything is known about the server's clock, or the answers so far leave a doubt.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.clock, Clock::System) && self.lock().known.is_none()
    }

    /// For a call that may go undone, sent at `sent` and given up `patience_ms` later. It changes nothing after that, and nothing
    /// if the server is ahead of what is possible, unless that was seen to be a step: then the store's time comes back.
    pub(super) fn for_timely(&self, sent: Monotonic, patience_ms: u64) -> Bounds {
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

    /// For a call that must take effect whenever the server reaches it; the store's time is then at most `patience_ms` ahead.
    pub(super) fn for_effect(&self, sent: Monotonic, patience_ms: u64) -> Bounds {
        let now = millis(sent);
        self.bounds(sent, |known, bounds| {
            bounds.high = at(known.span(now).high.saturating_add(clamp(patience_ms)), now);
        })
    }

    fn bounds(&self, sent: Monotonic, narrow: impl FnOnce(&Known, &mut Bounds)) -> Bounds {
        let now = millis(sent);
        let known = &self.lock().known;
        if let Clock::Manual(clock) = &self.clock {
            let (wall, reading) = clock.read();
            let store = at(known.as_ref().map_or(0, |known| known.current.low), millis(reading));
            return Bounds { wall: Some(wall), low: store, high: store, ..Bounds::NONE };
        }
        let mut bounds = Bounds::NONE;
        if let Some(known) = known {
            bounds.low = at(known.span(now).low, now);
            narrow(known, &mut bounds);
        }
        bounds
    }

    /// Learns from the answer to a call that was sent at `sent` with `bounds`.
    pub(super) fn learn(&self, sent: Monotonic, bounds: &Bounds, told: &ServerMoment) -> Fit {
        let came = self.clock.monotonic();
        let known = &mut self.lock().known;
        if let Clock::Manual(_) = self.clock {
            // The test's clock and the store's time are the same except for what the store had seen before. Only the first answer
            // shows that: later ones may belong to calls that others, sent after the clock was moved, have overtaken.
            if known.is_none() {
                let low = signed(told.moment.store).saturating_sub(millis(sent)).max(0);
                *known = Some(Known::new(Span { low, high: low }, 0, told));
            }
            return Fit::Fits;
        }
        let (span, came) = Span::of(sent, came, told);
        // A call that arrived too late did not ask.
        let asked_back = bounds.asks_back && told.next.0 < bounds.given_up;
        known.as_mut().map_or(Fit::Fits, |known| known.learn(span, came, told, asked_back))
    }

    /// Learns from the answer to a first look, which says when the store's time was last written (`last`; 0: never). Believes it
    /// unless that was long ago. Then others may know better, and correct it while this process waits.
    pub(super) fn first_look(&self, sent: Monotonic, told: &ServerMoment, last: Timestamp) {
        let (span, came) = Span::of(sent, self.clock.monotonic(), told);
        let mut state = self.lock();
        if state.known.is_some() {
            return;
        }
        let silence_ms = told.next.since(last);
        if last.0 > 0 && silence_ms > LIVELY_MS {
            if state.in_doubt_since.is_none() {
                tracing::info!(
                    silence_seconds = Duration::from_millis(silence_ms).as_secs_f64(),
                    wait_seconds = Duration::from_millis(DOUBT_MS.unsigned_abs()).as_secs_f64(),
                    "no process has used the store for long, or the clock of the redis server was set; waiting for others to put it right"
                );
            }
            let since = *state.in_doubt_since.get_or_insert(came);
            if came.saturating_sub(since) < DOUBT_MS {
                return;
            }
        }
        state.known = Some(Known::new(span, came, told));
    }

    /// The present instant as far as it is known.
    pub(super) fn now(&self) -> Moment {
        let (wall, reading) = self.clock.read();
        let state = self.lock();
        let Some(known) = &state.known else { return Moment { store: wall, wall } };
        let reading = millis(reading);
        if let Clock::Manual(_) = self.clock {
            return Moment { store: Timestamp(at(known.current.low, reading)), wall };
        }
        known.now(reading)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic between two assignments of numbers leaves an estimate, as it was before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn new(span: Span, came: i64, told: &ServerMoment) -> Self {
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

    fn now(&self, reading: i64) -> Moment {
        let wall = self.wall.saturating_add(reading);
        Moment { store: unsigned(wall.saturating_add(self.ahead)), wall: unsigned(wall) }
    }

    /// The bounds at `now`: they widen the longer nothing was learnt.
    fn span(&self, now: i64) -> Span {
        let met = self.current.meet(self.previous);
        // The two may be disjoint, as the clocks can drift apart by less than a step.
        let span = if met.low > met.high { self.current } else { met };
        let silence = now.saturating_sub(self.learnt).saturating_sub(2 * GENERATION_MS).max(0);
        let uneven = silence / 1_000;
        Span { low: span.low.saturating_sub(uneven), high: span.high.saturating_add(uneven) }
    }

    fn learn(&mut self, span: Span, came: i64, told: &ServerMoment, asked_back: bool) -> Fit {
        let before = self.span(came);
        let ahead = signed(told.next).saturating_sub(signed(told.moment.wall));
        let (was_ahead, was_raw) = (self.ahead, self.raw_low);
        self.wall = signed(told.moment.wall).saturating_sub(came);
        if span.low > before.high.saturating_add(UNEVEN_MS) {
            // Still ahead although it was asked to come back: others have continued from there, and so must we.
            if asked_back {
                *self = Self::new(span, came, told);
                return Fit::Fits;
            }
            self.raw_low = Some(span.low);
            // The wall clock is where it was set to, but that made no time pass.
            self.ahead = before.high.saturating_sub(self.wall);
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

/// Warns about a step once, though every core's connection sees it.
fn warn(direction: &str, by_ms: u64) {
    static WARNED_MS: AtomicU64 = AtomicU64::new(0);
    let now = Clock::System.monotonic().as_millis();
    let quiet = now.saturating_sub(WARNED_MS.load(Ordering::Relaxed)) > QUIET_MS;
    if by_ms > WARN_MS && quiet {
        WARNED_MS.store(now, Ordering::Relaxed);
        // Of the server, whatever call has seen it.
        tracing::warn!(
            parent: None,
            direction,
            by_seconds = Duration::from_millis(by_ms).as_secs_f64(),
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
