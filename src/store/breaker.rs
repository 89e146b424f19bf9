//! Holds decisions back from a store that does not answer, so that they need not wait for it: a circuit breaker over reservations. Reports of usage
//! that can be kept in a spool have one of their own, over look-ups and settlements: where only reports come, no decision finds out.
//!
//! A connection to Redis finds out by itself that it is silent, and is replaced (`redis/connection.rs`); until a new one is refused or
//! times out, calls wait for it. This is about the calls, whatever the store is: after a few in a row without an answer, those that
//! follow are not made, except one in a while that finds out whether the store answers again.
//!
//! ```text
//! closed ── 3 failures in a row ──► open: every decision is held back    ─┐
//!        ── 8 slow answers ───────► slow: those that can do without it    │ one call each 250 ms goes through:
//!        ◄── an answer in time ───────────────────────────────────────────┘ an answer closes it
//! ```

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::StoreError;

/// Failures in a row after which it opens. As many as make a connection silent: one may be due to someone else's slow command, and
/// three deadlines in a row are most of a second. Calls that ran at the same time count as one, as a connection that breaks
/// fails all of them and is back within milliseconds.
const FAILURES: u32 = 3;
/// The same of answers that took most of the deadline: about two seconds of them. They are right, so requests that have to have one
/// still ask.
const SLOW_ANSWERS: u32 = 8;
/// The part of the deadline, in quarters, after which an answer is slow.
const SLOW_QUARTERS: u32 = 3;
/// The part of the deadline for which the store may take its time: one that does well answers in a fraction of it. A caller who leaves
/// sooner, as with a deadline of a millisecond, says nothing of the store, and can neither open the breaker nor get past its limits.
const PATIENCE: u32 = 4;
/// How often one call goes through: as often as the registry is read, since without that nothing is decided anyway.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// An open breaker through which no call went for so long is not shown as open: nothing asked.
const SHOWN_FOR: Duration = Duration::from_secs(10);

const CLOSED: u8 = 0;
const SLOW: u8 = 1;
const OPEN: u8 = 2;

/// What a breaker is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Decisions,
    Reports,
}

/// The breaker of one worker's store. All numbers are relaxed: a call too many or too few changes nothing, and decisions read only
/// `state`.
#[derive(Debug)]
pub struct Breaker {
    asked: Asked,
    state: AtomicU8,
    failures: AtomicU32,
    slow: AtomicU32,
    /// For how many milliseconds callers waited who left since the last answer; those in which several waited count once.
    waited: AtomicU64,
    /// Until when these are counted, in milliseconds since `start`.
    waited_until: AtomicU64,
    /// When the last call ended that counted, in milliseconds since `start`.
    counted_at: AtomicU64,
    /// When the next call may go through, in the same milliseconds.
    probe_at: AtomicU64,
    start: Instant,
    slow_after: Duration,
    patience: Duration,
}

impl Breaker {
    /// A closed one, for a store that answers within `deadline` or not at all.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        Self {
            asked: Asked::Decisions,
            state: AtomicU8::new(CLOSED),
            failures: AtomicU32::new(0),
            slow: AtomicU32::new(0),
            waited: AtomicU64::new(0),
            waited_until: AtomicU64::new(0),
            counted_at: AtomicU64::new(0),
            probe_at: AtomicU64::new(0),
            start: Instant::now(),
            slow_after: deadline * SLOW_QUARTERS / 4,
            patience: Self::patience(deadline),
        }
    }

    /// The same over reports of usage.
    #[must_use]
    pub(super) fn over_reports(deadline: Duration) -> Self {
        Self { asked: Asked::Reports, ..Self::new(deadline) }
    }

    /// How long a store with this deadline is waited for before it is said not to answer.
    #[must_use]
    pub fn patience(deadline: Duration) -> Duration {
        deadline / PATIENCE
    }

    /// Whether a decision must do without the store; `can` it, it also does where the store is only slow. While the store answers, this is
    /// one load.
    pub fn holds_back(&self, can: bool) -> bool {
        match self.state.load(Ordering::Relaxed) {
            CLOSED => false,
            SLOW if !can => false,
            _ => !self.probes(Instant::now()),
        }
    }

    /// Whether decisions are held back, and were a moment ago.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let since = self.ms(Instant::now()).saturating_sub(self.counted_at.load(Ordering::Relaxed));
        self.state.load(Ordering::Relaxed) != CLOSED && u128::from(since) < SHOWN_FOR.as_millis()
    }

    /// Whether the store did not answer decisions a moment ago; one that is slow does. Lets no call through.
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        self.state.load(Ordering::Relaxed) == OPEN && self.is_open()
    }

    /// Lets one call through each [`PROBE_EVERY`].
    fn probes(&self, now: Instant) -> bool {
        let (now, at) = (self.ms(now), self.probe_at.load(Ordering::Relaxed));
        let swap = |next| self.probe_at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        now >= at && swap(now + millis(PROBE_EVERY)).is_ok()
    }

    /// A call is about to be made. The one who asks says how it ended, or drops this.
    pub(super) fn begin(&self) -> Attempt<'_> {
        Attempt { breaker: self, began: Instant::now(), has_ended: AtomicBool::new(false) }
    }

    fn answered(&self, began: Instant, now: Instant) {
        if self.waited.load(Ordering::Relaxed) != 0 {
            self.waited.store(0, Ordering::Relaxed);
        }
        if now.duration_since(began) >= self.slow_after {
            self.count(&self.slow, (SLOW_ANSWERS, SLOW), began, now);
            self.failures.store(0, Ordering::Relaxed);
            // It does answer.
            if self.state.load(Ordering::Relaxed) == OPEN {
                self.turn(SLOW);
            }
            return;
        }
        for count in [&self.failures, &self.slow] {
            if count.load(Ordering::Relaxed) != 0 {
                count.store(0, Ordering::Relaxed);
            }
        }
        if self.state.load(Ordering::Relaxed) != CLOSED {
            self.turn(CLOSED);
        }
    }

    fn failed(&self, began: Instant, now: Instant) {
        self.count(&self.failures, (FAILURES, OPEN), began, now);
    }

    /// A caller left before there was an answer: after most of the deadline, that is a failure, as is as much waiting of several callers
    /// one after another, each with less time than the store has.
    fn left(&self, began: Instant, now: Instant) {
        let waited = now.saturating_duration_since(began);
        if waited < self.patience {
            return;
        }
        if waited < self.slow_after {
            let until = self.waited_until.swap(self.ms(now), Ordering::Relaxed);
            let more = self.ms(now).saturating_sub(until.max(self.ms(began)));
            let sum = self.waited.fetch_add(more, Ordering::Relaxed).saturating_add(more);
            if sum < millis(self.slow_after) {
                return;
            }
            self.waited.store(0, Ordering::Relaxed);
        }
        self.failed(began, now);
    }

    fn count(&self, count: &AtomicU32, (most, state): (u32, u8), began: Instant, now: Instant) {
        let last = self.counted_at.load(Ordering::Relaxed);
        let (began, now) = (self.ms(began), self.ms(now));
        let swap = || self.counted_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        // The first millisecond of all is no call before this one.
        let overlaps = began < last;
        if overlaps || swap().is_err() {
            return;
        }
        let counted = count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if counted >= most && self.state.load(Ordering::Relaxed) < state {
            self.probe_at.store(now + millis(PROBE_EVERY), Ordering::Relaxed);
            self.turn(state);
        }
    }

    fn turn(&self, state: u8) {
        if self.state.swap(state, Ordering::Relaxed) == state {
            return;
        }
        match (self.asked, state) {
            (Asked::Reports, CLOSED) => tracing::info!("the store answers reports of usage again"),
            // They wait for it nonetheless.
            (Asked::Reports, SLOW) => {}
            (Asked::Reports, _) => {
                tracing::warn!(
                    "the store does not answer reports of usage; they do not wait for it until it does"
                );
            }
            (_, CLOSED) => tracing::info!("the store answers decisions in time again"),
            (_, SLOW) => {
                tracing::warn!(
                    "the store answers decisions slowly; those that can do without it do not wait for it"
                );
            }
            _ => tracing::warn!("the store does not answer decisions; they do not wait for it until it does"),
        }
    }

    fn ms(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.start))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A call that was let through. Dropped without an end, its caller has left: if it had waited long for that, the store gave no answer.
#[derive(Debug)]
pub(super) struct Attempt<'b> {
    breaker: &'b Breaker,
    began: Instant,
    has_ended: AtomicBool,
}

impl Attempt<'_> {
    /// The call ended.
    pub(super) fn ended<T>(self, answer: &Result<T, StoreError>) {
        self.has_ended.store(true, Ordering::Relaxed);
        match answer {
            // What it holds may be wrong or unknown to this release: then each call has to say so.
            Ok(_) | Err(StoreError::Corrupt | StoreError::LayoutUnsupported(_)) => {
                self.breaker.answered(self.began, Instant::now());
            }
            Err(StoreError::Unavailable) => self.breaker.failed(self.began, Instant::now()),
            // It was not asked.
            Err(StoreError::Overloaded | StoreError::Overflow) => {}
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !*self.has_ended.get_mut() {
            self.breaker.left(self.began, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(200);

    fn at(breaker: &Breaker, ms: u64) -> Instant {
        breaker.start + Duration::from_millis(ms)
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_closes_it() {
        let breaker = Breaker::new(DEADLINE);
        let failed = |from, to| breaker.failed(at(&breaker, from), at(&breaker, to));
        failed(0, 200);
        failed(200, 400);
        breaker.answered(at(&breaker, 400), at(&breaker, 401));
        failed(500, 700);
        failed(700, 900);
        assert!(!breaker.holds_back(true), "an answer came in between");
        failed(900, 1_100);
        assert_eq!(breaker.state.load(Ordering::Relaxed), OPEN);
        assert!(!breaker.probes(at(&breaker, 1_349)) && breaker.probes(at(&breaker, 1_350)));
        assert!(!breaker.probes(at(&breaker, 1_351)) && !breaker.probes(at(&breaker, 1_599)), "one alone");
        failed(1_350, 1_550);
        assert!(breaker.probes(at(&breaker, 1_600)));
        breaker.answered(at(&breaker, 1_600), at(&breaker, 1_601));
        assert!(!breaker.holds_back(true) && !breaker.is_open());
    }

    #[test]
    fn calls_at_the_same_time_fail_as_one() {
        let breaker = Breaker::new(DEADLINE);
        for end in 100..200 {
            breaker.failed(at(&breaker, 1), at(&breaker, end));
        }
        assert!(!breaker.holds_back(true));
    }

    #[test]
    fn slow_answers_hold_back_only_what_can_do_without() {
        let breaker = Breaker::new(DEADLINE);
        for turn in 0..u64::from(SLOW_ANSWERS) {
            assert!(!breaker.holds_back(true), "{turn}");
            breaker.answered(at(&breaker, turn * 150), at(&breaker, turn * 150 + 150));
        }
        assert_eq!(breaker.state.load(Ordering::Relaxed), SLOW);
        assert!(!breaker.holds_back(false), "its answers are right");
        // Fast ones are enough to close it.
        breaker.answered(at(&breaker, 5_000), at(&breaker, 5_149));
        assert_eq!(breaker.state.load(Ordering::Relaxed), CLOSED);
    }

    #[test]
    fn callers_with_less_time_than_the_store_open_it_together() {
        let breaker = Breaker::new(DEADLINE);
        let left = |from, to| breaker.left(at(&breaker, from), at(&breaker, to));
        // As long as those wait who have the time.
        for turn in 0..9 {
            assert!(!breaker.holds_back(true), "{turn}");
            left(turn * 100, turn * 100 + 60);
            left(turn * 100 + 1, turn * 100 + 61);
        }
        assert_eq!(breaker.state.load(Ordering::Relaxed), OPEN);
        let breaker = Breaker::new(DEADLINE);
        let left = |from, to| breaker.left(at(&breaker, from), at(&breaker, to));
        for turn in 0..100 {
            left(turn * 100, turn * 100 + 49);
            assert_eq!(breaker.waited.load(Ordering::Relaxed), 0, "{turn}: it learnt nothing of the store");
            left(turn * 100, turn * 100 + 60);
            breaker.answered(at(&breaker, turn * 100 + 60), at(&breaker, turn * 100 + 61));
        }
        assert_eq!(breaker.failures.load(Ordering::Relaxed), 0, "it answers");
    }

    #[test]
    fn a_caller_who_left_after_long_counts_and_others_do_not() {
        let breaker = Breaker::new(Duration::ZERO);
        for _ in 0..FAILURES {
            drop(breaker.begin());
        }
        let patient = Breaker::new(Duration::from_secs(3_600));
        for _ in 0..FAILURES {
            drop(patient.begin());
            patient.begin().ended::<()>(&Err(StoreError::Overloaded));
        }
        assert_eq!(patient.failures.load(Ordering::Relaxed), 0);
        assert!(breaker.failures.load(Ordering::Relaxed) > 0);
    }
}
