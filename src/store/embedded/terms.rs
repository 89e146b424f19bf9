//! The terms of reservations in memory: equal ones are shared, and know the slots of their counters.
//!
//! Most reservations come on terms that were compiled before and are the same `Arc`. Those that were compiled again (after a reload of
//! the policy, or for the limits of a user), or read from the disk, are found by their content.
//!
//! In the journal, terms are defined where a reservation is the first on them in its row: all that it took between two commits. So
//! each row can be read by itself, whatever was removed before it, and a damaged row takes no other with it. A definition is about
//! ten bytes for each counter and the note of the terms, once per commit.

use std::sync::Arc;

use super::{counters::Counters, presharded::PiecewiseMap};
use crate::domain::holds::Terms;

#[derive(Default)]
pub(super) struct TermsTable {
    /// By the hash of their content. Where two have one hash, the later terms replace the earlier, which are then no longer shared.
    entries: PiecewiseMap<u64, Entry>,
    /// The present row of the journal.
    row: u64,
    /// The terms that it defines.
    defined: u32,
    /// The piece of `entries` that is swept next.
    swept: usize,
}

struct Entry {
    terms: Arc<Terms>,
    /// The last equal terms that were asked for by another `Arc`: kept, so that they are recognised without looking at their content.
    seen: Arc<Terms>,
    /// The slots of their counters, if those are known.
    slots: Box<[u32]>,
    /// How many slots had been emptied when `slots` were last found to be theirs.
    checked: u64,
    /// The row of the journal that defined them last, and their number there.
    defined: Option<(u64, u32)>,
    /// Whether they were looked for since they were last swept.
    used: bool,
}

/// Terms that were taken out of the table.
pub(super) struct Forgotten(#[expect(dead_code, reason = "only dropped")] Entry);

/// How the journal names terms.
pub(super) struct Named {
    /// Those to keep.
    pub(super) terms: Arc<Terms>,
    /// Their number in the present row.
    pub(super) number: u32,
    /// Whether the row has to define them first.
    pub(super) is_new: bool,
}

impl TermsTable {
    fn entry(&mut self, terms: &Arc<Terms>) -> Option<&mut Entry> {
        let entry = self.equal(terms)?;
        if !Arc::ptr_eq(&entry.terms, terms) {
            entry.seen = Arc::clone(terms);
        }
        Some(entry)
    }

    /// The entry of equal terms.
    fn equal(&mut self, terms: &Arc<Terms>) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&terms.content_hash())?;
        let is_known = Arc::ptr_eq(&entry.terms, terms) || Arc::ptr_eq(&entry.seen, terms);
        if !is_known && entry.terms != *terms {
            return None;
        }
        entry.used = true;
        Some(entry)
    }

    /// Appends the slots of the terms' counters to `found`, in their order.
    pub(super) fn locate(&mut self, terms: &Arc<Terms>, counters: &Counters, found: &mut Vec<Option<u32>>) {
        if let Some(entry) = self.entry(terms)
            && entry.is_right(counters)
        {
            return found.extend(entry.slots.iter().copied().map(Some));
        }
        found.extend(terms.iter().map(|term| counters.find(&term.counter)));
    }

    /// Names terms whose counters are in `slots`.
    pub(super) fn name(&mut self, terms: &Arc<Terms>, slots: &[u32], counters: &Counters) -> Named {
        let present = (self.row, self.defined);
        if self.entry(terms).is_none() {
            self.entries.insert(terms.content_hash(), Entry::new(terms));
        }
        let Some(entry) = self.entries.get_mut(&terms.content_hash()) else {
            // It is there; else they are defined each time.
            self.defined += 1;
            return Named { terms: Arc::clone(terms), number: present.1, is_new: true };
        };
        if *entry.slots != *slots {
            entry.slots = slots.into();
            entry.defined = None;
        }
        entry.checked = counters.emptied();
        let known = entry.defined.filter(|(row, _)| *row == present.0);
        let (_, number) = *entry.defined.insert(known.unwrap_or(present));
        let terms = Arc::clone(&entry.terms);
        self.defined += u32::from(known.is_none());
        Named { terms, number, is_new: known.is_none() }
    }

    /// The same terms as other reservations have, if there are any.
    pub(super) fn share(&mut self, terms: Arc<Terms>) -> Arc<Terms> {
        if let Some(entry) = self.equal(&terms) {
            return Arc::clone(&entry.terms);
        }
        self.entries.insert(terms.content_hash(), Entry::new(&terms));
        terms
    }

    /// Begins the next row of the journal, which defines its terms itself.
    pub(super) const fn begin_row(&mut self) {
        self.row += 1;
        self.defined = 0;
    }

    /// Looks at a 256th of the terms, and takes out at most `most` that nothing else has and that were not looked for since the last
    /// time. To be dropped without the lock.
    pub(super) fn sweep(&mut self, most: usize) -> Vec<Forgotten> {
        let is_over = |_: &u64, entry: &mut Entry| {
            let held = if Arc::ptr_eq(&entry.terms, &entry.seen) { 2 } else { 1 };
            !std::mem::take(&mut entry.used) && Arc::strong_count(&entry.terms) <= held
        };
        let (over, next) = self.entries.take_from(self.swept, most, is_over);
        self.swept = next;
        over.into_iter().map(Forgotten).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Entry {
    fn new(terms: &Arc<Terms>) -> Self {
        let [terms, seen] = [Arc::clone(terms), Arc::clone(terms)];
        Self { terms, seen, slots: Box::default(), checked: 0, defined: None, used: true }
    }

    /// Whether `slots` are those of the counters: they were, and a slot gets another counter only after it was emptied.
    fn is_right(&mut self, counters: &Counters) -> bool {
        if self.slots.len() != self.terms.iter().len() {
            return false;
        }
        if self.checked == counters.emptied() {
            return true;
        }
        let mut pairs = self.slots.iter().zip(&*self.terms);
        let right = pairs.all(|(slot, term)| counters.key(*slot) == Some(&term.counter));
        if right {
            self.checked = counters.emptied();
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            counter::{Counter, CounterKey, CounterKind},
            holds::Term,
        },
        store::embedded::counters::Idle,
    };

    const KIND: CounterKind = CounterKind::Window { slot_ms: 1_000 };

    fn terms(names: &[&str]) -> Arc<Terms> {
        let term = |name: &&str| Term { counter: CounterKey::new(*name), kind: KIND, limit: 9, class: 0 };
        Arc::new(names.iter().map(term).collect())
    }

    fn counters(names: &[&str]) -> Counters {
        let mut counters = Counters::default();
        for (name, lsn) in names.iter().zip(1..) {
            let slot = counters.vacancy().unwrap();
            counters.define(lsn, slot, CounterKey::new(*name), KIND);
            counters.capture(slot).unwrap();
        }
        counters
    }

    /// Looks for the terms and names them, as a reservation does.
    fn taken(table: &mut TermsTable, terms: &Arc<Terms>, counters: &Counters) -> Named {
        let mut found = Vec::new();
        table.locate(terms, counters, &mut found);
        let expected: Vec<_> = terms.iter().map(|term| counters.find(&term.counter)).collect();
        assert_eq!(found, expected);
        let slots: Vec<_> = found.into_iter().flatten().collect();
        table.name(terms, &slots, counters)
    }

    #[test]
    fn equal_terms_are_shared_and_defined_once_in_each_row() {
        let (counters, mut table) = (counters(&["a", "b", "c"]), TermsTable::default());
        let (one, again, other) = (terms(&["a", "c"]), terms(&["a", "c"]), terms(&["b"]));
        for _ in 0..2 {
            let named = [&one, &again, &other, &one, &other].map(|of| taken(&mut table, of, &counters));
            assert!([0, 1, 3].iter().all(|at| Arc::ptr_eq(&named[*at].terms, &one)));
            assert_eq!(named.each_ref().map(|named| named.number), [0, 0, 1, 0, 1]);
            assert_eq!(named.each_ref().map(|named| named.is_new), [true, false, true, false, false]);
            table.begin_row();
        }
        assert!(Arc::ptr_eq(&table.share(again), &one));
        assert_eq!(table.len(), 2);
    }

    struct All;

    impl Idle for All {
        fn is_idle(&self, _: &CounterKey, _: &Counter, _: CounterKind) -> bool {
            true
        }
    }

    #[test]
    fn a_slot_that_has_another_counter_is_found_again() {
        let (mut counters, mut table) = (counters(&["a", "b"]), TermsTable::default());
        let both = terms(&["a", "b"]);
        taken(&mut table, &both, &counters);
        assert_eq!(counters.sweep(9, 9, &All).0, [0, 1]);
        for name in ["b", "x", "a"] {
            let slot = counters.vacancy().unwrap();
            counters.define(10, slot, CounterKey::new(name), KIND);
        }
        let named = taken(&mut table, &both, &counters);
        assert!(named.is_new, "the row's earlier definition is of other slots");
        assert_eq!(named.number, 1);
        assert!(!taken(&mut table, &both, &counters).is_new);
    }

    #[test]
    fn terms_that_nothing_has_are_forgotten() {
        let (counters, mut table) = (counters(&["a", "b"]), TermsTable::default());
        let (held, free) = (terms(&["a"]), terms(&["b"]));
        taken(&mut table, &held, &counters);
        taken(&mut table, &free, &counters);
        // Compiled again, and found.
        taken(&mut table, &terms(&["b"]), &counters);
        drop(free);
        let swept = |table: &mut TermsTable| {
            (0..256).for_each(|_| drop(table.sweep(9)));
            table.len()
        };
        assert_eq!(swept(&mut table), 2, "used since the sweep before");
        assert_eq!(swept(&mut table), 1);
        drop(held);
        assert_eq!(swept(&mut table), 0);
    }
}
