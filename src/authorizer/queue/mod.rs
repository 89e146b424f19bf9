//! Waiting for room: first come, first served at each limit.
//!
//! A waiting request stands in exactly one line: that of the counter (or upstream cooldown) that blocks it longest. Lines are
//! ordered by arrival, and only the head of a line asks the store, so a limit shared by many teams costs one question and not
//! one per team. Before any request is decided, the counters that it would take are looked up here: if an earlier request
//! waits at one of them, the later one may look but take nothing. Requests wait only for earlier ones, so the earliest of all
//! is never held up by another, and the lines cannot deadlock.
//!
//! A request whose counter has no room before its deadline, unless something is released, holds up no other: it stands in a
//! second line of the counter, which requests being decided ignore.

mod lines;
mod pace;
mod recent;
mod wait;
mod watcher;

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

pub(super) use self::lines::{Blocked, Until};
use self::{
    lines::{Chance, Lines, Next, Spot, Waiter},
    pace::Pace,
};
use crate::{domain::counter::CounterKey, runtime::clock::Monotonic};

/// The line of requests that came during an outage and have not been decided yet. No counter has this name.
const OUTAGE: &str = "\0outage";

/// When a request came, among those that may wait. At a counter where a request with a smaller number waits, it does not pass
/// that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

impl Turn {
    /// Behind all waiting requests.
    pub(super) const LAST: Self = Self(u64::MAX);
}

/// The requests that wait in this process.
///
/// The lock is held for look-ups, never across a wait. `present` counts requests that may come to wait, `standing` those in a
/// line: while they are zero, a settlement and a decision cost one load each. `closed` only ever turns true, which ends every
/// wait, present and future.
#[derive(Debug, Default)]
pub struct Queue {
    lines: Mutex<Lines>,
    present: AtomicUsize,
    standing: AtomicUsize,
    turns: AtomicU64,
    /// A task reads the counters of those that wait.
    watched: AtomicBool,
    pace: Pace,
    closed: AtomicBool,
    /// Told when it is closed. It wakes in the order of arrival, which a watch channel does not.
    closing: Notify,
}

impl Queue {
    /// Wakes the requests first in line at `counters`, where a settlement has released something, if they fit into what is
    /// used now (`None`: unknown).
    pub fn freed<'k>(&self, counters: impl Iterator<Item = (&'k CounterKey, Option<u64>)>) {
        if self.present.load(Ordering::Relaxed) > 0 {
            let mut lines = self.lock();
            counters.for_each(|(counter, used)| lines.freed(counter, used));
        }
    }

    /// The first of `counters` at which a request that came before `turn` waits and can be served in time: its index, and
    /// when the head of that line expects room.
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

    /// How many requests of each team wait.
    #[must_use]
    pub fn waiting(&self) -> Vec<(Arc<str>, usize)> {
        if self.standing.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        self.lock().by_team()
    }

    /// Ends every wait: all waiting requests are answered at once.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.notify_waiters();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    async fn closing(&self) {
        let mut closing = pin!(self.closing.notified());
        // It hears of a close from here on.
        closing.as_mut().enable();
        if !self.is_closed() {
            closing.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Nothing panics while it is held.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request that may come to wait, until `deadline`.
    fn enter(&self, deadline: Monotonic) -> Place<'_> {
        self.present.fetch_add(1, Ordering::Relaxed);
        Place {
            queue: self,
            turn: Turn(self.turns.fetch_add(1, Ordering::Relaxed)),
            deadline,
            woken: Arc::default(),
            spot: None,
            team: None,
            since: self.lock().now(),
            passed: false,
        }
    }
}

/// What blocks a request, by the last answer to it.
#[derive(Debug)]
struct Obstacle {
    counter: CounterKey,
    until: Until,
    frees_at: Option<Monotonic>,
}

/// A request that may come to wait. Dropped, it leaves its line at once and the next becomes the head.
#[derive(Debug)]
struct Place<'q> {
    queue: &'q Queue,
    turn: Turn,
    deadline: Monotonic,
    woken: Arc<Notify>,
    spot: Option<Spot>,
    /// The team of the request, once it was needed.
    team: Option<Arc<str>>,
    /// The settlement before its last question to the store.
    since: u64,
    /// It was granted: there may be room for the next one, too.
    passed: bool,
}

impl Place<'_> {
    /// The store is about to be asked.
    fn asks(&mut self) {
        let mut lines = self.queue.lock();
        self.since = lines.now();
        if let Some(spot) = &self.spot {
            lines.takes_chance(spot, self.turn);
        }
    }

    /// Joins the line of what blocks it; `false` if too many requests wait.
    fn stand(&mut self, obstacle: Obstacle) -> bool {
        let Obstacle { counter, until, frees_at } = obstacle;
        let mut lines = self.queue.lock();
        if self.spot.is_none() {
            if !lines.admit(self.team.get_or_insert_default()) {
                return false;
            }
            self.queue.standing.fetch_add(1, Ordering::SeqCst);
        }
        let late = matches!(until, Until::Room { sized: true, .. })
            && frees_at.is_some_and(|frees_at| frees_at > self.deadline);
        let spot = match self.spot.take() {
            // An outage changes nothing of what it waits for.
            Some(spot) if until == Until::Answered => spot,
            old => {
                let spot = Spot { counter, late };
                if let Some(old) = old.filter(|old| *old != spot) {
                    // Requests that came during an outage have not been asked for yet; a first question is not paced for
                    // others either.
                    let first_answer = old.counter.name() == OUTAGE;
                    lines.leave(&old, self.turn, if first_answer { Chance::Free } else { Chance::Paced });
                }
                let woken = Arc::clone(&self.woken);
                lines.join(&spot, self.turn, Waiter { woken, until, deadline: self.deadline });
                spot
            }
        };
        lines.refused(&spot, self.turn, until, self.since, frees_at);
        self.spot = Some(spot);
        true
    }

    /// Lets the first in its line ask.
    fn offer_chance(&self) {
        if let Some(spot) = &self.spot {
            self.queue.lock().has(&spot.counter, None);
        }
    }

    /// Joins the line of a counter of `blocked` where an earlier request waits, if there is one.
    fn falls_behind(&mut self, blocked: &Blocked) -> bool {
        let ahead = {
            let lines = self.queue.lock();
            blocked.counters().find(|counter| lines.ahead(counter, self.turn).is_some()).cloned()
        };
        // Those ahead in its own line are no news.
        let is_own = |counter: &CounterKey| {
            self.spot.as_ref().is_some_and(|spot| spot.counter == *counter && !spot.late)
        };
        let Some(counter) = ahead.filter(|counter| !is_own(counter)) else { return false };
        self.stand(Obstacle { counter, until: Until::Served, frees_at: None })
    }

    fn next(&self) -> Next {
        let lines = self.queue.lock();
        self.spot.as_ref().map_or(Next::Ask(Chance::Free), |spot| lines.next(spot, self.turn))
    }

    /// When it can expect room, and whether the store did not answer the head of its line.
    fn outlook(&self) -> (Option<Monotonic>, bool) {
        let lines = self.queue.lock();
        self.spot.as_ref().map_or((None, false), |spot| lines.outlook(spot, self.turn))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(spot) = self.spot.take() {
            let chance = if self.passed { Chance::Free } else { Chance::Paced };
            let mut lines = self.queue.lock();
            lines.leave(&spot, self.turn, chance);
            lines.dismiss(self.team.get_or_insert_default());
            self.queue.standing.fetch_sub(1, Ordering::SeqCst);
        }
        self.queue.present.fetch_sub(1, Ordering::Relaxed);
    }
}
