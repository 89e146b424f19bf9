//! Waiting for room: first come, first served at each limit.
//!
//! A request that waits stands in exactly one line: that of the counter (or upstream cooldown) that keeps it longest. Lines
//! are ordered by arrival, and only the head of a line asks the store, so that a limit shared by many teams costs one
//! question and not one per team. Before any request is decided, the counters that it would take are looked up here: where
//! an earlier request waits at one of them, the later one may look but take nothing. Requests wait only for earlier ones,
//! so the earliest of all is never held up by another, and the lines cannot lock each other.

mod lines;
mod pace;
mod wait;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, watch};

pub(super) use self::lines::Blocked;
use self::{
    lines::{Chance, Lines, Next},
    pace::Pace,
};
use crate::{domain::counter::CounterKey, store::clock::Monotonic};

/// The most requests that wait in one process; each costs a task and about 1 KiB. Past it a request is decided at once.
const MAX_WAITERS: usize = 10_000;

/// When a request came, among those that may wait. It passes none with a smaller number at a counter where that one waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

impl Turn {
    /// Behind all that wait.
    pub(super) const LAST: Self = Self(u64::MAX);
}

/// The requests that wait in this process.
///
/// The lock is held for look-ups, never across a wait. `present` counts requests that may come to wait, `standing` those in
/// a line: while they are zero, a settlement and a decision cost one load each. `closed` only ever turns true, which ends
/// every wait, present and future.
#[derive(Debug, Default)]
pub struct Queue {
    lines: Mutex<Lines>,
    present: AtomicUsize,
    standing: AtomicUsize,
    turns: AtomicU64,
    pace: Pace,
    closed: watch::Sender<bool>,
}

impl Queue {
    /// Wakes those first in line at `counters`, which have room since a settlement.
    pub fn freed<'k>(&self, counters: impl Iterator<Item = &'k CounterKey>) {
        if self.present.load(Ordering::Relaxed) > 0 {
            let mut lines = self.lock();
            counters.for_each(|counter| lines.freed(counter));
        }
    }

    /// The first of `counters` at which a request that came before `turn` waits: its place in the iteration, and when the
    /// head of that line expects room.
    pub(super) fn ahead<'k>(
        &self,
        turn: Turn,
        mut counters: impl Iterator<Item = (usize, &'k CounterKey)>,
    ) -> Option<(usize, Option<Monotonic>)> {
        if self.standing.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let lines = self.lock();
        counters.find_map(|(place, counter)| Some((place, lines.ahead(counter, turn)?)))
    }

    /// Ends every wait: all that wait are answered at once.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    async fn closing(&self) {
        // The sender is held by `self`, so the channel cannot close before it says so.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Nothing panics while it is held.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request wait; `None` where too many do.
    fn enter(&self) -> Option<Place<'_>> {
        let present = self.present.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            queue: self,
            turn: Turn(self.turns.fetch_add(1, Ordering::Relaxed)),
            woken: Arc::default(),
            line: None,
            since: self.lock().now(),
            passed: false,
        };
        (present < MAX_WAITERS).then_some(place)
    }
}

/// A request that may come to wait. Dropped, it leaves its line at once and the next becomes the head.
#[derive(Debug)]
struct Place<'q> {
    queue: &'q Queue,
    turn: Turn,
    woken: Arc<Notify>,
    line: Option<CounterKey>,
    /// The settlement before its last question to the store.
    since: u64,
    /// It was granted: there may be room for the next, too.
    passed: bool,
}

impl Place<'_> {
    /// The store is about to be asked.
    fn asks(&mut self) {
        let mut lines = self.queue.lock();
        self.since = lines.now();
        if let Some(line) = &self.line {
            lines.takes_chance(line);
        }
    }

    /// Stands at `counter`, which refused it until `frees_at`; `None`: another before it there knows better.
    fn stand(&mut self, counter: CounterKey, frees_at: Option<Monotonic>, failed: bool) {
        let mut lines = self.queue.lock();
        if self.line.as_ref() != Some(&counter) {
            match self.line.take() {
                Some(old) => lines.leave(&old, self.turn, Chance::Paced),
                None => _ = self.queue.standing.fetch_add(1, Ordering::Relaxed),
            }
            lines.join(&counter, self.turn, Arc::clone(&self.woken));
        }
        lines.refused(&counter, self.turn, self.since, frees_at, failed);
        self.line = Some(counter);
    }

    /// Goes to the line of a counter of `blocked` where an earlier request waits, if there is one.
    fn falls_behind(&mut self, blocked: &Blocked) -> bool {
        let ahead = {
            let lines = self.queue.lock();
            blocked.counters().find(|counter| lines.ahead(counter, self.turn).is_some()).cloned()
        };
        // Those ahead in its own line are no news.
        let other = ahead.filter(|counter| self.line.as_ref() != Some(counter));
        other.map(|counter| self.stand(counter, None, false)).is_some()
    }

    fn next(&self) -> Next {
        let lines = self.queue.lock();
        self.line.as_ref().map_or(Next::Ask(Chance::Free), |line| lines.next(line, self.turn))
    }

    /// When the head of its line expects room, and whether the store did not answer it.
    fn outlook(&self) -> (Option<Monotonic>, bool) {
        let lines = self.queue.lock();
        self.line.as_ref().map_or((None, false), |line| lines.outlook(line))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            let chance = if self.passed { Chance::Free } else { Chance::Paced };
            self.queue.lock().leave(&line, self.turn, chance);
            self.queue.standing.fetch_sub(1, Ordering::Relaxed);
        }
        self.queue.present.fetch_sub(1, Ordering::Relaxed);
    }
}
