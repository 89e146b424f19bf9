//! The lines themselves: the position of each request, and what the head of each line does next.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::Notify;

use super::{Turn, recent::Recent};
use crate::{
    domain::{
        MAX_AMOUNT,
        counter::{CounterKey, CounterKind},
        holds::Holds,
    },
    runtime::{Hashing, clock::Monotonic},
};

/// The most requests that wait in one process; each costs a task and about 1 KiB. A team may have as many waiting as there
/// are places left, so one team alone can take half of them and others always find some.
const MAX_WAITERS: usize = 10_000;
/// How many requests that cannot be served in time are examined for one that fits into what was released.
const LOOKED_AT: usize = 64;

/// What blocks a request, for as long as it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::authorizer) struct Blocked {
    /// The counter or cooldown that blocks it longest.
    pub(in crate::authorizer) by: CounterKey,
    /// What has to change there.
    pub(in crate::authorizer) until: Until,
    /// Everything that the request would take.
    pub(in crate::authorizer) holds: Holds,
    /// The cooldowns that would have to end first.
    pub(in crate::authorizer) gates: Vec<CounterKey>,
}

impl Blocked {
    /// Everything at which earlier requests may wait. A limit that cannot refuse holds nothing up.
    pub(super) fn counters(&self) -> impl Iterator<Item = &CounterKey> {
        let refusing = self.holds.iter().filter(|hold| hold.limit < MAX_AMOUNT);
        self.gates.iter().chain(refusing.map(|hold| hold.counter))
    }
}

/// What a request waits for at its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::authorizer) enum Until {
    /// The counter has room for it.
    Room {
        /// How the counter keeps its books.
        kind: CounterKind,
        /// The bound on what is used.
        limit: u64,
        /// What the request needs from it.
        amount: u64,
        /// Whether a smaller request may fit where this one does not. Requests are all one size, tokens are not.
        sized: bool,
    },
    /// The cooldown is over.
    Open,
    /// Those ahead of it have been served.
    Served,
    /// The store answers.
    Answered,
}

impl Until {
    /// Whether a request may pass when `used` is used; `None`: something was released.
    fn may_be(self, used: Option<u64>) -> bool {
        match (self, used) {
            (Self::Room { limit, amount, .. }, Some(used)) => used.saturating_add(amount) <= limit,
            _ => true,
        }
    }
}

/// A line: that of a counter, or of the requests at it that hold up no other request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) counter: CounterKey,
    /// The counter has no room in time unless something is released: a smaller request goes ahead of it.
    pub(super) late: bool,
}

/// Why the head of a line may ask ahead of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chance {
    #[default]
    None,
    /// Something was released, or the head has changed: at the pace of the process.
    Paced,
    /// The previous request was granted, or was asked for the first time: at most one such question for each.
    Free,
}

/// What a request in line does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Waits until it is woken.
    Wait,
    /// Asks at this instant, or when it is woken.
    AskAt(Monotonic),
    /// Asks again soon, as the store did not answer.
    AskAgain,
    /// Asks.
    Ask(Chance),
}

/// A request in line.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) woken: Arc<Notify>,
    pub(super) until: Until,
    /// When it gives up.
    pub(super) deadline: Monotonic,
}

#[derive(Debug, Default)]
struct Line {
    waiters: BTreeMap<u64, Waiter>,
    /// A request behind the head that asks in its place, because it fits.
    chosen: Option<u64>,
    chance: Chance,
    /// When the head expects room.
    frees_at: Option<Monotonic>,
    /// The store did not answer the head.
    fails: bool,
}

impl Line {
    fn head(&self) -> Option<u64> {
        self.waiters.first_key_value().map(|(turn, _)| *turn)
    }

    /// Who asks next.
    fn first(&self) -> Option<u64> {
        self.chosen.or_else(|| self.head())
    }

    fn offer(&mut self, chance: Chance) {
        self.chance = self.chance.max(chance);
        if let Some(first) = self.first().and_then(|turn| self.waiters.get(&turn)) {
            first.woken.notify_one();
        }
    }

    /// The counter has `used`: a chance for the first of `looked_at` requests that fits.
    fn offer_room(&mut self, used: Option<u64>, looked_at: usize) {
        let mut waiters = self.waiters.iter().take(looked_at);
        let Some(fits) = waiters.find(|(_, waiter)| waiter.until.may_be(used)).map(|(turn, _)| *turn) else {
            return;
        };
        self.chosen = (self.head() != Some(fits)).then_some(fits);
        self.offer(Chance::Paced);
    }
}

/// The lines of one counter.
#[derive(Debug, Default)]
struct AtCounter {
    in_time: Line,
    late: Line,
    /// What is to be read about it; `None`: nothing.
    until: Option<Until>,
}

impl AtCounter {
    const fn line(&mut self, late: bool) -> &mut Line {
        if late { &mut self.late } else { &mut self.in_time }
    }

    fn offer_room(&mut self, used: Option<u64>) {
        self.in_time.offer_room(used, 1);
        self.late.offer_room(used, LOOKED_AT);
    }
}

/// What is to be read from the store for waiting requests.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) counters: Vec<(CounterKey, CounterKind)>,
    pub(super) cooldowns: Vec<CounterKey>,
}

/// All lines of a process. Every counter in it has at least one.
#[derive(Debug, Default)]
pub(super) struct Lines {
    by_counter: HashMap<CounterKey, AtCounter, Hashing>,
    recent: Recent,
    waiters: usize,
    by_team: HashMap<Arc<str>, usize>,
}

impl Lines {
    /// An instant, counted in releases.
    pub(super) const fn now(&self) -> u64 {
        self.recent.now()
    }

    /// Lets one more request of `team` wait, unless too many already do.
    pub(super) fn admit(&mut self, team: &Arc<str>) -> bool {
        let of_team = self.by_team.get(team).copied().unwrap_or(0);
        if of_team >= MAX_WAITERS.saturating_sub(self.waiters) {
            return false;
        }
        self.waiters += 1;
        self.by_team.insert(Arc::clone(team), of_team + 1);
        true
    }

    /// How many wait, by team.
    pub(super) fn by_team(&self) -> Vec<(Arc<str>, usize)> {
        self.by_team.iter().map(|(team, count)| (Arc::clone(team), *count)).collect()
    }

    /// One request of `team` no longer waits.
    pub(super) fn dismiss(&mut self, team: &Arc<str>) {
        self.waiters = self.waiters.saturating_sub(1);
        if let Some(of_team) = self.by_team.get_mut(team) {
            *of_team = of_team.saturating_sub(1);
            if *of_team == 0 {
                self.by_team.remove(team);
            }
        }
    }

    /// Something was released at `counter`; it has `used` now, if that is known.
    pub(super) fn freed(&mut self, counter: &CounterKey, used: Option<u64>) {
        self.has(counter, used);
        self.recent.note(counter);
    }

    /// `counter` has `used`, or is a cooldown that is over.
    pub(super) fn has(&mut self, counter: &CounterKey, used: Option<u64>) {
        if let Some(lines) = self.by_counter.get_mut(counter) {
            lines.offer_room(used);
        }
    }

    /// Whether a request before `turn` waits at `counter` and can still be served. If so, when the head there expects room,
    /// but no later than the head gives up.
    pub(super) fn ahead(&self, counter: &CounterKey, turn: Turn) -> Option<Option<Monotonic>> {
        let line = &self.by_counter.get(counter)?.in_time;
        let (head, waiter) = line.waiters.first_key_value()?;
        (*head < turn.0).then(|| line.frees_at.map(|at| at.min(waiter.deadline)))
    }

    pub(super) fn join(&mut self, spot: &Spot, turn: Turn, waiter: Waiter) {
        let lines = self.by_counter.entry(spot.counter.clone()).or_default();
        if let Until::Room { .. } | Until::Open = waiter.until {
            lines.until = Some(waiter.until);
        }
        lines.line(spot.late).waiters.insert(turn.0, waiter);
    }

    /// The request of `turn` leaves; if it was due to ask, the next one has a `chance`.
    pub(super) fn leave(&mut self, spot: &Spot, turn: Turn, chance: Chance) {
        let Some(lines) = self.by_counter.get_mut(&spot.counter) else { return };
        let line = lines.line(spot.late);
        let was_first = line.first() == Some(turn.0);
        line.chosen = line.chosen.filter(|chosen| *chosen != turn.0);
        line.waiters.remove(&turn.0);
        if was_first {
            line.offer(chance);
        }
        if lines.in_time.waiters.is_empty() && lines.late.waiters.is_empty() {
            self.by_counter.remove(&spot.counter);
        }
    }

    fn line(&mut self, spot: &Spot) -> Option<&mut Line> {
        self.by_counter.get_mut(&spot.counter).map(|lines| lines.line(spot.late))
    }

    /// The request of `turn` is about to ask.
    pub(super) fn takes_chance(&mut self, spot: &Spot, turn: Turn) {
        if let Some(line) = self.line(spot).filter(|line| line.first() == Some(turn.0)) {
            (line.chance, line.chosen) = (Chance::None, None);
        }
    }

    /// The request of `turn`, which stands at `spot`, was refused `until` then. It does not know of releases after `since`.
    pub(super) fn refused(
        &mut self,
        spot: &Spot,
        turn: Turn,
        until: Until,
        since: u64,
        frees_at: Option<Monotonic>,
    ) {
        let was_freed = self.recent.has(&spot.counter, since);
        let Some(line) = self.line(spot).filter(|line| line.first() == Some(turn.0)) else { return };
        (line.frees_at, line.fails) = (frees_at.or(line.frees_at), until == Until::Answered);
        // The requests that it was behind may have left before it came.
        if was_freed || until == Until::Served {
            line.offer(Chance::Paced);
        }
    }

    pub(super) fn next(&self, spot: &Spot, turn: Turn) -> Next {
        let Some(lines) = self.by_counter.get(&spot.counter) else { return Next::Ask(Chance::Paced) };
        let line = if spot.late { &lines.late } else { &lines.in_time };
        match line.chance {
            _ if line.first() != Some(turn.0) => Next::Wait,
            Chance::None if line.fails => Next::AskAgain,
            Chance::None => line.frees_at.map_or(Next::Wait, Next::AskAt),
            chance => Next::Ask(chance),
        }
    }

    /// When the request of `turn` can expect room, and whether the store did not answer the head of its line.
    pub(super) fn outlook(&self, spot: &Spot, turn: Turn) -> (Option<Monotonic>, bool) {
        let Some(lines) = self.by_counter.get(&spot.counter) else { return (None, false) };
        let line = if spot.late { &lines.late } else { &lines.in_time };
        let head = line.waiters.first_key_value().filter(|(head, _)| **head != turn.0);
        let latest = head.map(|(_, waiter)| waiter.deadline);
        (line.frees_at.map(|at| latest.map_or(at, |latest| at.min(latest))), line.fails)
    }

    /// What is to be read for waiting requests.
    pub(super) fn watched(&self) -> Watched {
        let mut watched = Watched::default();
        for (counter, lines) in &self.by_counter {
            match lines.until {
                Some(Until::Room { kind, .. }) => watched.counters.push((counter.clone(), kind)),
                Some(Until::Open) => watched.cooldowns.push(counter.clone()),
                _ => {}
            }
        }
        watched
    }
}

#[cfg(test)]
mod tests;
