//! The counters in memory: slots with small numbers, found by key.

use super::presharded::{PiecewiseMap, PiecewiseVec};
use crate::domain::{
    Timestamp,
    counter::{Counter, CounterKey, CounterKind, CounterState, Hold, Shortage},
};
use crate::store::Settled;

struct Slot {
    key: CounterKey,
    kind: CounterKind,
    counter: Counter,
    /// When it last changed.
    touched: Timestamp,
    /// The op that last changed it.
    lsn: u64,
    /// Whether it is in `dirty`.
    dirty: bool,
}

impl Slot {
    /// Whether looking at the counter now would leave it unchanged: its ring has already seen the present slot.
    fn is_current(&self, now: Timestamp, kind: CounterKind) -> bool {
        let slot_ms = kind.slot_ms();
        kind == self.kind && (now <= self.touched || now.0 / slot_ms <= self.touched.0 / slot_ms)
    }
}

/// A counter as table `counters` keeps it.
pub(super) struct CounterRow {
    pub(super) slot: u32,
    pub(super) key: CounterKey,
    pub(super) kind: CounterKind,
    pub(super) counter: Counter,
    pub(super) lsn: u64,
}

/// All counters that are not empty.
#[derive(Default)]
pub(super) struct Counters {
    slots: PiecewiseVec<Slot>,
    index: PiecewiseMap<CounterKey, u32>,
    free: Vec<u32>,
    /// Slots changed since they were last written to the tables.
    dirty: Vec<u32>,
    cursor: usize,
    /// How many slots were emptied so far.
    emptied: u64,
}

impl Counters {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn find(&self, key: &CounterKey) -> Option<u32> {
        self.index.get(key).copied()
    }

    /// Grows whenever a slot is emptied, so while it is the same, each slot has the counter that it had.
    pub(super) const fn emptied(&self) -> u64 {
        self.emptied
    }

    pub(super) fn key(&self, slot: u32) -> Option<&CounterKey> {
        self.slot(slot).map(|s| &s.key)
    }

    /// Calls `each` with the settled amount of each counter.
    pub(super) fn each_settled(&self, mut each: impl FnMut(&CounterKey, u64)) {
        for slot in self.slots.iter().flatten() {
            each(&slot.key, slot.counter.settled());
        }
    }

    /// An unused slot; `None` after 2^32 counters.
    pub(super) fn vacancy(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| u32::try_from(self.slots.places()).ok())
    }

    /// Ties `slot` to `key`, unless an op at or after `lsn` already did so.
    pub(super) fn define(&mut self, lsn: u64, slot: u32, key: CounterKey, kind: CounterKind) {
        if self.slot(slot).is_some_and(|s| s.lsn >= lsn) {
            return;
        }
        self.put(CounterRow { slot, key, kind, counter: Counter::default(), lsn });
        self.mark(slot);
    }

    /// Puts a counter into its slot, as it was written.
    pub(super) fn put(&mut self, row: CounterRow) {
        let at = row.slot as usize;
        while self.slots.places() <= at {
            if self.slots.places() < at {
                self.free.extend(u32::try_from(self.slots.places()));
            }
            self.slots.add_place();
        }
        self.index.insert(row.key.clone(), row.slot);
        if let Some(place) = self.slots.place_mut(at) {
            let CounterRow { key, kind, counter, lsn, .. } = row;
            let slot = Slot { key, kind, counter, touched: Timestamp(0), lsn, dirty: false };
            if let Some(old) = place.replace(slot)
                && self.index.get(&old.key) == Some(&row.slot)
                && place.as_ref().is_some_and(|new| new.key != old.key)
            {
                self.index.remove(&old.key);
            }
        }
    }

    /// Finds the free slots again, after the slots were filled in no particular order.
    pub(super) fn rebuild_free(&mut self) {
        let vacant = self.slots.iter().zip(0..).filter(|(slot, _)| slot.is_none());
        self.free = vacant.map(|(_, number)| number).collect();
    }

    /// Whether `hold` fits at any time from the counter's last change on: time only reduces what is used.
    pub(super) fn surely_fits<K>(&self, slot: Option<u32>, hold: &Hold<K>) -> bool {
        let used = slot.and_then(|s| self.slot(s)).map_or(0, |slot| slot.counter.used_at_most());
        used + hold.amount() <= hold.limit
    }

    /// Whether `hold` fits now. Leaves the counter unchanged, as a refusal is not in the journal.
    pub(super) fn check<K>(
        &mut self,
        slot: Option<u32>,
        now: Timestamp,
        hold: &Hold<K>,
    ) -> Result<u64, Shortage> {
        self.look(slot, now, hold.kind, |counter| counter.check(now, hold))
    }

    /// The state now. Leaves the counter unchanged.
    pub(super) fn state(&mut self, slot: Option<u32>, now: Timestamp, kind: CounterKind) -> CounterState {
        self.look(slot, now, kind, |counter| counter.state(now, kind))
    }

    /// Whether the counter can take a settlement. Leaves it unchanged.
    pub(super) fn can_settle<K>(
        &mut self,
        slot: Option<u32>,
        now: Timestamp,
        hold: &Hold<K>,
        actual: u64,
    ) -> bool {
        let surely = slot.and_then(|s| self.slot(s)).is_some_and(|s| s.counter.can_surely_settle(actual));
        surely || self.look(slot, now, hold.kind, |counter| counter.can_settle(now, hold, actual))
    }

    /// Takes a granted hold, unless the counter has already seen op `lsn`. Returns the amount used before.
    pub(super) fn take<K>(&mut self, lsn: u64, slot: u32, now: Timestamp, hold: &Hold<K>) -> Option<u64> {
        let changed = self.change(lsn, slot, now, hold.kind)?;
        let used = changed.state(now, hold.kind).used;
        changed.take(now, hold);
        Some(used)
    }

    /// Settles a hold taken at `then`, or books the amount used if nothing was taken, unless the counter has already seen op
    /// `lsn`. Also returns the thresholds that this reported.
    pub(super) fn settle<K>(
        &mut self,
        lsn: u64,
        slot: u32,
        (now, then): (Timestamp, Option<Timestamp>),
        (hold, actual): (&Hold<K>, u64),
        thresholds: impl Iterator<Item = u64>,
    ) -> Option<(Settled, Vec<u64>)> {
        let counter = self.change(lsn, slot, now, hold.kind)?;
        let settled_before = counter.state(now, hold.kind).settled;
        match then {
            Some(then) => counter.settle(now, then, hold, actual),
            None => counter.book(now, hold.kind, actual),
        }
        let reported = counter.report(thresholds);
        Some((Settled { settled_before, after: counter.state(now, hold.kind) }, reported))
    }

    /// For the counters at these indexes of `slots`, forgets reported thresholds beyond the number remembered, but never one that
    /// is watched. This is not in the journal: after reopening, the store remembers more of them for a while.
    pub(super) fn forget_reported(&mut self, slots: &[u32], watched: &[(usize, Vec<u64>)]) {
        for (index, amounts) in watched {
            if let Some(slot) = slots.get(*index).and_then(|number| self.slot_mut(*number)) {
                slot.counter.forget_reported(|amount| amounts.contains(&amount));
            }
        }
    }

    /// Books `more` on a counter as settled without a reservation by op `lsn`.
    pub(super) fn settle_more(&mut self, lsn: u64, key: &CounterKey, more: u64) {
        let Some((number, kind)) = self.find(key).and_then(|n| Some((n, self.slot(n)?.kind))) else { return };
        if let Some(counter) = self.change(lsn, number, Timestamp(0), kind) {
            counter.book(Timestamp(0), kind, more);
        }
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The slots to write in a round; later changes go into the next one.
    pub(super) fn take_dirty(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.dirty)
    }

    /// The counter of a slot as it is now, if it changed since it was last written.
    pub(super) fn capture(&mut self, number: u32) -> Option<CounterRow> {
        let slot = self.slot_mut(number).filter(|s| s.dirty)?;
        slot.dirty = false;
        Some(CounterRow {
            slot: number,
            key: slot.key.clone(),
            kind: slot.kind,
            counter: slot.counter.clone(),
            lsn: slot.lsn,
        })
    }

    /// Looks at `count` slots from where it last stopped, and empties those that hold nothing worth keeping and that no op after
    /// `covered` (so none in the journal) mentions. Returns the emptied ones, and whether the last slot was reached.
    pub(super) fn sweep(&mut self, count: usize, covered: u64, idle: &impl Idle) -> (Vec<u32>, bool) {
        let mut emptied = Vec::new();
        let end = self.cursor.saturating_add(count).min(self.slots.places());
        for at in self.cursor..end {
            let Some(place) = self.slots.place_mut(at) else { break };
            let gone =
                place.take_if(|s| !s.dirty && s.lsn <= covered && idle.is_idle(&s.key, &s.counter, s.kind));
            if let (Some(slot), Ok(number)) = (gone, u32::try_from(at)) {
                self.index.remove(&slot.key);
                self.free.push(number);
                emptied.push(number);
            }
        }
        self.emptied += emptied.len() as u64;
        let done = end == self.slots.places();
        self.cursor = if done { 0 } else { end };
        (emptied, done)
    }

    pub(super) const fn restart_sweep(&mut self) {
        self.cursor = 0;
    }

    fn look<T>(
        &mut self,
        slot: Option<u32>,
        now: Timestamp,
        kind: CounterKind,
        ask: impl FnOnce(&mut Counter) -> T,
    ) -> T {
        match slot.and_then(|s| self.slot_mut(s)) {
            Some(slot) if slot.is_current(now, kind) => ask(&mut slot.counter),
            Some(slot) => ask(&mut slot.counter.clone()),
            None => ask(&mut Counter::default()),
        }
    }

    fn change(&mut self, lsn: u64, number: u32, now: Timestamp, kind: CounterKind) -> Option<&mut Counter> {
        let slot = self.slots.place_mut(number as usize)?.as_mut().filter(|s| s.lsn < lsn)?;
        slot.lsn = lsn;
        slot.kind = kind;
        slot.touched = slot.touched.max(now);
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(number);
        }
        Some(&mut slot.counter)
    }

    fn mark(&mut self, number: u32) {
        if let Some(slot) = self.slots.place_mut(number as usize).and_then(Option::as_mut)
            && !slot.dirty
        {
            slot.dirty = true;
            self.dirty.push(number);
        }
    }

    fn slot(&self, number: u32) -> Option<&Slot> {
        self.slots.place(number as usize)?.as_ref()
    }

    fn slot_mut(&mut self, number: u32) -> Option<&mut Slot> {
        self.slots.place_mut(number as usize)?.as_mut()
    }
}

/// Says which counters can go.
pub(super) trait Idle {
    fn is_idle(&self, key: &CounterKey, counter: &Counter, kind: CounterKind) -> bool;
}
