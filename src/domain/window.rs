//! Sliding windows in integer arithmetic, the same in Rust and in Lua.
//!
//! A window of length `W` is divided into [`SLOTS`] slots. An amount added at time `t` lands in slot `t / slot_ms` and
//! counts until that slot and the [`SLOTS`] after it have ended: at least `W`, at most `W + W/60`. So in *every* interval
//! of length `W`, wherever it starts, at most the limit is admitted, and a refusal is early by at most one slot.
//!
//! A running total lets an update touch only the current slot; slots that have ended move to `past` when time enters a new
//! one.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{MAX_AMOUNT, Timestamp};

/// Slots in the length of a window. An amount counts in its own slot and in this many slots after it.
pub const SLOTS: u64 = 60;

/// Amounts that expire slot by slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlidingWindow {
    /// The newest slot that received an amount.
    head: u64,
    /// The amount in `head`.
    current: u64,
    /// `current` plus everything in `past`.
    total: u64,
    /// Amounts of the slots before `head`, newest first, at most [`SLOTS`]; missing ones at the end are zero.
    past: VecDeque<u64>,
}

impl SlidingWindow {
    /// What counts now, in slots of `slot_ms`. Time must not go backwards for a window. If it did (an earlier version used a
    /// clock that could be set), everything that counts moves to the current slot, where it stays at most a window too
    /// long.
    pub fn used(&mut self, now: Timestamp, slot_ms: u64) -> u64 {
        self.advance(slot_at(now, slot_ms));
        self.total
    }

    /// The most that can count from the newest slot on: time only lowers it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Adds `amount` to the current slot.
    pub fn add(&mut self, now: Timestamp, slot_ms: u64, amount: u64) {
        self.advance(slot_at(now, slot_ms));
        self.current += amount;
        self.total += amount;
    }

    /// Takes `amount` back from the slot of `then`, if that slot still counts. Takes no more than is there: the rest stays
    /// and expires by itself, which is the safe side.
    pub fn take_back(&mut self, now: Timestamp, then: Timestamp, slot_ms: u64, amount: u64) {
        self.advance(slot_at(now, slot_ms));
        let slot = slot_at(then, slot_ms);
        let entry = if slot >= self.head {
            Some(&mut self.current)
        } else {
            usize::try_from(self.head - 1 - slot).ok().and_then(|age| self.past.get_mut(age))
        };
        if let Some(entry) = entry {
            let taken = amount.min(*entry);
            *entry -= taken;
            self.total -= taken;
        }
    }

    /// The first instant when `excess` of what counts now no longer counts, if nothing is added; `None` if less than
    /// `excess` counts.
    #[must_use]
    pub fn frees_at(&self, slot_ms: u64, excess: u64) -> Option<Timestamp> {
        let mut freed = 0;
        let oldest_first = self.past.iter().enumerate().rev();
        for (age, amount) in oldest_first {
            freed += amount;
            if freed >= excess {
                return Some(end_of_count(self.head - 1 - age as u64, slot_ms));
            }
        }
        (freed + self.current >= excess).then(|| end_of_count(self.head, slot_ms))
    }

    /// Whether nothing counts any more.
    #[must_use]
    pub fn is_idle(&self, now: Timestamp, slot_ms: u64) -> bool {
        self.total == 0 || slot_at(now, slot_ms) > self.head.saturating_add(SLOTS)
    }

    fn advance(&mut self, slot: u64) {
        if slot == self.head {
            return;
        }
        let Some(gap) = slot.checked_sub(self.head) else {
            *self = Self { head: slot, current: self.total, total: self.total, past: VecDeque::new() };
            return;
        };
        if gap > SLOTS {
            *self = Self { head: slot, ..Self::default() };
            return;
        }
        if self.total > 0 {
            self.past.push_front(self.current);
            for _ in 1..gap {
                self.past.push_front(0);
            }
            while self.past.len() as u64 > SLOTS {
                self.total -= self.past.pop_back().unwrap_or(0);
            }
        }
        if self.total == 0 {
            self.past.clear();
        }
        self.head = slot;
        self.current = 0;
    }
}

const fn slot_at(now: Timestamp, slot_ms: u64) -> u64 {
    now.0 / slot_ms
}

/// The first instant when an amount in `slot` no longer counts.
const fn end_of_count(slot: u64, slot_ms: u64) -> Timestamp {
    Timestamp((slot + SLOTS + 1) * slot_ms)
}

const _: () = assert!(MAX_AMOUNT < u64::MAX / 2, "sums of two amounts cannot wrap");
