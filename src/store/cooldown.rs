//! Cooldowns: gates that refuse every request for them until an instant, or until they are lifted.
//!
//! Every store uses the same arithmetic: `settle.lua` mirrors it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{Moment, Timestamp};

/// A closed gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    /// When it closed; it has been closed without a gap since.
    pub start: Timestamp,
    /// The same by the store's own time, in which every reader is told the same.
    pub begun: Timestamp,
    /// When it opens.
    pub end: Timestamp,
    /// When the latest of the reservations whose reports closed it was made.
    pub refused: Timestamp,
    /// The cooldown that the report behind `end` asked for, in milliseconds, before any cap.
    pub requested_ms: u64,
    /// The reporter of it.
    pub reporter: Arc<str>,
}

/// The effect of a settlement on a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CooldownChange {
    /// Closes it. A gate that is closed for longer stays so.
    Open {
        /// How many milliseconds from now.
        length_ms: u64,
        /// The time asked for, in milliseconds, before any cap.
        requested_ms: u64,
        /// The reporter.
        reporter: Arc<str>,
    },
    /// Opens it if the settled reservation is no older than those that closed it: an answer to an earlier request says nothing
    /// about the present.
    Lift,
}

impl Cooldown {
    /// The same for callers, with wall-clock instants. A store keeps them in its own time.
    #[must_use]
    pub fn by_the_wall(self, now: Moment) -> Self {
        Self {
            start: now.to_wall(self.start),
            begun: self.start,
            end: now.to_wall(self.end),
            refused: now.to_wall(self.refused),
            ..self
        }
    }

    /// Whether it is closed at `now`.
    #[must_use]
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        now < self.end
    }

    /// The gate after the settlement at `now` of a reservation made at `reserved_at`; `before` is the gate before it.
    #[must_use]
    pub fn after(
        before: Option<&Self>,
        change: &CooldownChange,
        now: Timestamp,
        reserved_at: Timestamp,
    ) -> Option<Self> {
        let before = before.filter(|cooldown| cooldown.is_in_force(now));
        match change {
            CooldownChange::Lift => before.filter(|cooldown| reserved_at < cooldown.refused).cloned(),
            CooldownChange::Open { length_ms, requested_ms, reporter } => {
                let end = now.plus(*length_ms);
                let opened = Self {
                    start: now,
                    begun: now,
                    end,
                    refused: reserved_at,
                    requested_ms: *requested_ms,
                    reporter: Arc::clone(reporter),
                };
                let Some(before) = before else { return Some(opened) };
                let (start, refused) = (before.start, before.refused.max(reserved_at));
                let longer = if before.end > end { before.clone() } else { opened };
                Some(Self { start, begun: start, refused, ..longer })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(length_ms: u64, reporter: &str) -> CooldownChange {
        CooldownChange::Open { length_ms, requested_ms: 2 * length_ms, reporter: reporter.into() }
    }

    #[test]
    fn the_longer_of_two_stays_and_so_does_the_start() {
        let first = Cooldown::after(None, &open(100, "a"), Timestamp(10), Timestamp(5)).unwrap();
        let shorter = Cooldown::after(Some(&first), &open(10, "b"), Timestamp(20), Timestamp(7)).unwrap();
        assert_eq!(shorter, Cooldown { refused: Timestamp(7), ..first.clone() });
        let longer = Cooldown::after(Some(&shorter), &open(100, "b"), Timestamp(20), Timestamp(6)).unwrap();
        assert_eq!((longer.start, longer.end, longer.refused), (Timestamp(10), Timestamp(120), Timestamp(7)));
        assert_eq!((&*longer.reporter, longer.requested_ms), ("b", 200));
        let reopened = Cooldown::after(Some(&longer), &open(1, "c"), Timestamp(120), Timestamp(1)).unwrap();
        assert_eq!((reopened.start, reopened.refused), (Timestamp(120), Timestamp(1)));
    }

    #[test]
    fn when_it_began_is_the_same_for_readers_whose_clocks_differ() {
        let closed = Cooldown::after(None, &open(100, "a"), Timestamp(10), Timestamp(5)).unwrap();
        let read = |wall| {
            let now = Moment { store: Timestamp(20), wall: Timestamp(wall) };
            let cooldown = closed.clone().by_the_wall(now);
            (cooldown.start.0, cooldown.begun.0)
        };
        assert_eq!([read(20), read(500), read(15)], [(10, 10), (490, 10), (5, 10)]);
    }

    #[test]
    fn only_a_request_no_older_than_the_refused_one_lifts() {
        let closed = Cooldown::after(None, &open(100, "a"), Timestamp(10), Timestamp(5));
        let lifted =
            |at| Cooldown::after(closed.as_ref(), &CooldownChange::Lift, Timestamp(20), Timestamp(at));
        assert_eq!((lifted(4), lifted(5), lifted(6)), (closed.clone(), None, None));
    }
}
