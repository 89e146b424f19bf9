//! What the settlements of a batch change in one counter, added up.

use smallvec::SmallVec;

use crate::domain::{Timestamp, counter::CounterKind, window::SLOTS};

/// What all settlements of a batch change in one counter.
pub(super) struct Sum {
    pub(super) kind: CounterKind,
    pub(super) actual: u64,
    pub(super) kept: u64,
    pub(super) holders: u64,
    /// What was used past what was held, which counts from now on.
    pub(super) more: u64,
    pub(super) spans: SmallVec<[Span; 2]>,
    /// How much more is used, settled and open after the settlements so far.
    used: i64,
    settled: i64,
    open: i64,
}

/// What is taken back from one slot.
pub(super) struct Span {
    pub(super) slot: u64,
    /// Whether it still counts, so that there is something to take back.
    pub(super) counts: bool,
    pub(super) back: u64,
}

/// One settlement's change of one counter.
pub(super) struct Change {
    pub(super) kept: u64,
    pub(super) expiring: u64,
    pub(super) actual: u64,
    pub(super) is_held: bool,
    pub(super) reserved_at: Timestamp,
    pub(super) now: Timestamp,
}

impl Sum {
    pub(super) const fn new(kind: CounterKind) -> Self {
        let spans = SmallVec::new_const();
        Self { kind, actual: 0, kept: 0, holders: 0, more: 0, spans, used: 0, settled: 0, open: 0 }
    }

    /// Adds a change, and says in `numbers` what the counter's numbers are then: see `record::since`.
    pub(super) fn add(&mut self, change: &Change, numbers: &mut Vec<i64>) {
        let Change { kept, expiring, actual, is_held, .. } = *change;
        self.actual = self.actual.saturating_add(actual);
        self.kept = self.kept.saturating_add(kept);
        self.holders += u64::from(is_held);
        self.open -= i64::from(is_held);
        match self.kind {
            CounterKind::Window { .. } => {
                let excess = actual.saturating_sub(expiring);
                self.more = self.more.saturating_add(excess);
                self.used += signed(excess);
                self.take_back(change, expiring.saturating_sub(actual));
                numbers.push(self.used);
            }
            CounterKind::Budget { .. } => {
                let settled_before = self.settled;
                self.settled += signed(actual);
                self.used += signed(actual) - signed(kept);
                self.take_back(change, expiring);
                numbers.extend([self.used, settled_before, self.settled, self.open]);
            }
        }
    }

    fn take_back(&mut self, change: &Change, back: u64) {
        if back == 0 {
            return;
        }
        let slot_ms = self.kind.slot_ms().max(1);
        let (slot, present) = (change.reserved_at.0 / slot_ms, change.now.0 / slot_ms);
        let counts = present.saturating_sub(slot) <= SLOTS;
        if counts {
            self.used -= signed(back);
        }
        match self.spans.iter_mut().find(|span| span.slot == slot) {
            Some(span) => span.back = span.back.saturating_add(back),
            None => self.spans.push(Span { slot, counts, back }),
        }
    }
}

/// Amounts have at most 53 bits.
fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
