//! The lines themselves: who stands where, and what the head of each does next.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;

use super::Turn;
use crate::{
    domain::counter::{CounterKey, Hold},
    store::clock::Monotonic,
};

/// How often the head of a line asks although nothing told it to: another replica, or a new policy, may have made room.
const POLL: Duration = Duration::from_millis(100);
/// What each line adds to that, so that all lines together take at most half of the pace.
const POLL_PER_LINE: Duration = Duration::from_millis(20);
/// Counters freed lately that are remembered for those about to stand in line: the settlements of some milliseconds.
const RECENT: usize = 256;

/// What keeps a request, for as long as it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::authorizer) struct Blocked {
    /// The counter or cooldown that keeps it longest.
    pub(in crate::authorizer) by: CounterKey,
    /// All that it would take.
    pub(in crate::authorizer) holds: Arc<[Hold]>,
    /// The cooldowns that would have to be over.
    pub(in crate::authorizer) gates: Vec<CounterKey>,
}

impl Blocked {
    pub(super) fn counters(&self) -> impl Iterator<Item = &CounterKey> {
        self.gates.iter().chain(self.holds.iter().map(|hold| &hold.counter))
    }
}

/// Why the head of a line may ask ahead of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chance {
    #[default]
    None,
    /// Something was given back, or the head has changed: at the pace of the process.
    Paced,
    /// The one before was granted: at most one such question for each grant.
    Free,
}

/// What a request in line does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Waits until it is woken.
    Wait,
    /// Asks at the instant, or after the time where that is sooner.
    AskAt(Option<Monotonic>, Duration),
    /// Asks.
    Ask(Chance),
}

#[derive(Debug, Default)]
struct Line {
    requests: BTreeMap<u64, Arc<Notify>>,
    chance: Chance,
    /// When the head expects room.
    frees_at: Option<Monotonic>,
    /// The store did not answer the head.
    fails: bool,
}

impl Line {
    fn head(&self) -> Option<u64> {
        self.requests.first_key_value().map(|(turn, _)| *turn)
    }

    fn offer(&mut self, chance: Chance) {
        self.chance = self.chance.max(chance);
        if let Some((_, head)) = self.requests.first_key_value() {
            head.notify_one();
        }
    }
}

/// All lines of a process. None is empty.
#[derive(Debug, Default)]
pub(super) struct Lines {
    by_counter: HashMap<CounterKey, Line>,
    /// Counts `recent`, with those forgotten.
    freed: u64,
    recent: VecDeque<CounterKey>,
}

impl Lines {
    /// An instant, as counted by what was given back.
    pub(super) const fn now(&self) -> u64 {
        self.freed
    }

    /// `counter` was given something back.
    pub(super) fn freed(&mut self, counter: &CounterKey) {
        if let Some(line) = self.by_counter.get_mut(counter) {
            line.offer(Chance::Paced);
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(counter.clone());
        self.freed = self.freed.saturating_add(1);
    }

    fn was_freed(&self, counter: &CounterKey, since: u64) -> bool {
        let later = usize::try_from(self.freed.saturating_sub(since)).unwrap_or(usize::MAX);
        later > self.recent.len() || self.recent.iter().rev().take(later).any(|freed| freed == counter)
    }

    /// Whether a request before `turn` waits at `counter`, and if so when the head there expects room.
    pub(super) fn ahead(&self, counter: &CounterKey, turn: Turn) -> Option<Option<Monotonic>> {
        let line = self.by_counter.get(counter)?;
        line.head().is_some_and(|head| head < turn.0).then_some(line.frees_at)
    }

    pub(super) fn join(&mut self, counter: &CounterKey, turn: Turn, woken: Arc<Notify>) {
        self.by_counter.entry(counter.clone()).or_default().requests.insert(turn.0, woken);
    }

    /// The request of `turn` leaves; where it was the head, the next has a `chance`.
    pub(super) fn leave(&mut self, counter: &CounterKey, turn: Turn, chance: Chance) {
        let Some(line) = self.by_counter.get_mut(counter) else { return };
        let was_head = line.head() == Some(turn.0);
        line.requests.remove(&turn.0);
        if line.requests.is_empty() {
            self.by_counter.remove(counter);
        } else if was_head {
            line.offer(chance);
        }
    }

    /// The head is about to ask.
    pub(super) fn takes_chance(&mut self, counter: &CounterKey) {
        if let Some(line) = self.by_counter.get_mut(counter) {
            line.chance = Chance::None;
        }
    }

    /// The request of `turn` was refused by its line's counter; what was given back after `since` it does not know of.
    pub(super) fn refused(
        &mut self,
        counter: &CounterKey,
        turn: Turn,
        since: u64,
        frees_at: Option<Monotonic>,
        fails: bool,
    ) {
        let was_freed = self.was_freed(counter, since);
        let Some(line) = self.by_counter.get_mut(counter) else { return };
        if line.head() != Some(turn.0) {
            return;
        }
        (line.frees_at, line.fails) = (frees_at.or(line.frees_at), fails);
        if was_freed {
            line.offer(Chance::Paced);
        }
    }

    pub(super) fn next(&self, counter: &CounterKey, turn: Turn) -> Next {
        match self.by_counter.get(counter) {
            Some(line) if line.head() != Some(turn.0) => Next::Wait,
            Some(line) if line.chance == Chance::None => Next::AskAt(line.frees_at, self.poll()),
            Some(line) => Next::Ask(line.chance),
            None => Next::Ask(Chance::Paced),
        }
    }

    fn poll(&self) -> Duration {
        let lines = u32::try_from(self.by_counter.len()).unwrap_or(u32::MAX);
        POLL.max(POLL_PER_LINE.saturating_mul(lines))
    }

    /// When the head at `counter` expects room, and whether the store did not answer it.
    pub(super) fn outlook(&self, counter: &CounterKey) -> (Option<Monotonic>, bool) {
        self.by_counter.get(counter).map_or((None, false), |line| (line.frees_at, line.fails))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(name: &str) -> CounterKey {
        CounterKey::new(name)
    }

    /// Lines where each counter was refused to so many requests, in turn, from `first` on.
    fn stand(lines: &mut Lines, name: &str, turns: std::ops::Range<u64>) {
        for turn in turns {
            lines.join(&counter(name), Turn(turn), Arc::default());
            lines.refused(&counter(name), Turn(turn), lines.now(), Some(Monotonic::default()), false);
        }
    }

    fn asking(lines: &Lines, name: &str, turns: std::ops::Range<u64>) -> Vec<u64> {
        turns.filter(|turn| matches!(lines.next(&counter(name), Turn(*turn)), Next::Ask(_))).collect()
    }

    #[test]
    fn only_the_head_of_the_counter_that_was_freed_asks() {
        let mut lines = Lines::default();
        stand(&mut lines, "organization", 0..500);
        stand(&mut lines, "team", 500..600);
        assert!(asking(&lines, "organization", 0..500).is_empty());
        let timed = (0..500).filter(|t| lines.next(&counter("organization"), Turn(*t)) != Next::Wait);
        assert_eq!(timed.collect::<Vec<_>>(), [0], "one question for all of them");

        lines.freed(&counter("team"));
        assert!(asking(&lines, "organization", 0..500).is_empty());
        assert_eq!(asking(&lines, "team", 500..600), [500]);
    }

    #[test]
    fn a_grant_gives_the_next_a_free_question_and_a_departure_a_paced_one() {
        let mut lines = Lines::default();
        stand(&mut lines, "a", 0..3);
        lines.leave(&counter("a"), Turn(1), Chance::Free);
        assert!(asking(&lines, "a", 0..3).is_empty(), "it was not the head");
        lines.leave(&counter("a"), Turn(0), Chance::Paced);
        assert_eq!(lines.next(&counter("a"), Turn(2)), Next::Ask(Chance::Paced));
        stand(&mut lines, "a", 3..4);
        lines.leave(&counter("a"), Turn(2), Chance::Free);
        assert_eq!(lines.next(&counter("a"), Turn(3)), Next::Ask(Chance::Free));
        lines.leave(&counter("a"), Turn(3), Chance::Free);
        assert!(lines.by_counter.is_empty());
    }

    #[test]
    fn what_is_freed_between_a_refusal_and_standing_in_line_is_not_missed() {
        let mut lines = Lines::default();
        let before = lines.now();
        lines.freed(&counter("a"));
        for (name, freed) in [("a", true), ("b", false)] {
            lines.join(&counter(name), Turn(0), Arc::default());
            lines.refused(&counter(name), Turn(0), before, None, false);
            assert_eq!(!asking(&lines, name, 0..1).is_empty(), freed, "{name}");
            lines.leave(&counter(name), Turn(0), Chance::None);
        }
        (0..=RECENT).for_each(|_| lines.freed(&counter("c")));
        lines.join(&counter("b"), Turn(0), Arc::default());
        lines.refused(&counter("b"), Turn(0), before, None, false);
        assert_eq!(asking(&lines, "b", 0..1), [0], "too long ago to tell");
    }

    #[test]
    fn who_came_first_is_ahead_only_at_its_own_counter() {
        let mut lines = Lines::default();
        stand(&mut lines, "a", 5..6);
        assert!(lines.ahead(&counter("a"), Turn(6)).is_some());
        assert!(lines.ahead(&counter("a"), Turn(5)).is_none());
        assert!(lines.ahead(&counter("a"), Turn(4)).is_none());
        assert!(lines.ahead(&counter("b"), Turn::LAST).is_none());
        // An earlier one that comes to the line later is its head.
        stand(&mut lines, "a", 2..3);
        assert_eq!(lines.next(&counter("a"), Turn(5)), Next::Wait);
    }
}
