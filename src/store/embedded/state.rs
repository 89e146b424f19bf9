//! The state in memory: a deterministic machine that decides, changes, and writes each change down as an op.
//!
//! A decision and its change are one step under the store's lock. The change goes through the same `apply_*` functions when it is
//! decided and when it is replayed. Anything that has already seen an op (its `lsn` is not before the op's) is left alone, so
//! tables written at different moments and one journal make one state.

use std::{mem, sync::Arc};

use super::{
    counters::Counters,
    kept::{Changed, Kept, ReservationRow},
    op::{self, ReserveHead, SettleOp},
    presharded::{PiecewiseMap, PreshardedMap},
    segment::Location,
    spend::Spend,
};
use crate::domain::{
    Moment, Timestamp,
    counter::{CounterKey, CounterKind, CounterState, Hold},
    holds::Holds,
};
use crate::store::{
    Cooldown, Extra, Record, Refusal, Reserve, Reserved, Settle, SettleOutcome, Settlement, SpendKey,
    StoreError,
};

/// The answer of memory to an operation.
pub(super) enum Answer<T> {
    /// This, once op `after` is on disk (0: at once).
    Ready { value: T, after: u64 },
    /// The reservation is settled and on disk; if it turns out to have ended, ask again and say so.
    Archived(Location),
    /// These lines of old months have to be put into memory first.
    Absent(Vec<SpendKey>),
}

/// The counters of a settlement: those of the holds, followed by those that are only booked in.
pub(super) struct Booking<'a> {
    pub(super) slots: &'a [u32],
    pub(super) holds: &'a Holds,
    /// The amounts used of the holds.
    pub(super) actual: &'a [u64],
    pub(super) extras: &'a [Extra],
}

impl Booking<'_> {
    /// Each counter with the amount to book in it.
    fn parts(&self) -> impl Iterator<Item = (Hold<&CounterKey>, u64)> {
        let held = self.holds.iter().zip(self.actual.iter().copied());
        held.chain(self.extras.iter().map(|extra| (extra.hold(), extra.amount)))
    }
}

/// What became of a settlement. The record is copied for the caller without the lock.
pub(super) enum Settling {
    /// Settled now.
    Settled(Arc<Record>, Moment),
    /// Settled before.
    Already(Arc<Record>, Moment),
    NotFound,
}

impl Settling {
    /// For the caller; copies, so it is called without the lock.
    pub(super) fn outcome(self) -> SettleOutcome {
        let (record, now, outcome): (_, _, fn(Settlement) -> SettleOutcome) = match self {
            Self::Settled(record, now) => (record, now, SettleOutcome::Settled),
            Self::Already(record, now) => (record, now, SettleOutcome::AlreadySettled),
            Self::NotFound => return SettleOutcome::NotFound,
        };
        let settlement = record.settlement.clone();
        settlement.map_or(SettleOutcome::NotFound, |settlement| outcome(settlement.by_the_wall(now)))
    }
}

/// Everything the store knows, and the ops that have not gone to the writer yet.
#[derive(Default)]
pub(super) struct State {
    /// The number of the last op.
    pub(super) lsn: u64,
    /// The store's time at the last op.
    pub(super) time: Timestamp,
    pub(super) counters: Counters,
    /// Reservations that are open, or settled and not written to the table yet.
    pub(super) reservations: PiecewiseMap<u128, Kept>,
    /// Settled reservations that are only on disk.
    pub(super) archived: PiecewiseMap<u128, Location>,
    /// The gates that are or were closed.
    pub(super) gates: PreshardedMap<CounterKey, Cooldown>,
    pub(super) gates_dirty: bool,
    pub(super) spend: Spend,
    pub(super) changed: Changed,
    /// Changed reservations whose id was reused before they were written.
    pub(super) displaced: Vec<ReservationRow>,
    /// Ops since the writer last took them.
    pub(super) journal: Vec<u8>,
    found: Vec<Option<u32>>,
    slots: Vec<u32>,
}

impl State {
    /// Decides a reservation and takes its holds; `made` is its record without the times, `None` for a dry run, and is taken if
    /// it is granted. `gone`: the archived reservation that turned out not to exist.
    pub(super) fn reserve(
        &mut self,
        now: Moment,
        (reserve, made): (&Reserve, &mut Option<Arc<Record>>),
        gone: Option<Location>,
    ) -> Result<Answer<Reserved>, StoreError> {
        let (id, holds) = (u128::from_be_bytes(reserve.id.0), &reserve.holds);
        if reserve.may_repeat {
            match self.look_up(id, now, gone) {
                Some(Answer::Ready { value, after }) if !reserve.replaces(&value) => {
                    let value = Reserved::Repeated((*value).clone().by_the_wall(now));
                    return Ok(Answer::Ready { value, after });
                }
                Some(Answer::Archived(at)) => return Ok(Answer::Archived(at)),
                Some(_) | None => {}
            }
        }
        if !reserve.valid.contains(&now.wall) {
            return Ok(ready(Reserved::OutOfDate { now: now.wall }));
        }
        self.found.clear();
        self.found.extend(holds.counters().map(|counter| self.counters.find(counter)));
        let fits =
            self.found.iter().zip(holds.iter()).all(|(slot, hold)| self.counters.surely_fits(*slot, &hold));
        let open =
            reserve.gates.is_empty() || reserve.gates.iter().all(|gate| self.opens_at(gate) <= now.store);
        if !(fits && open && !reserve.dry_run) {
            let outcome = self.check(now, &reserve.gates, holds);
            if reserve.dry_run || matches!(outcome, Reserved::Refused { .. }) {
                return Ok(ready(outcome));
            }
        }
        let mut record = made.take().ok_or(StoreError::Corrupt)?;
        let times = Arc::get_mut(&mut record).ok_or(StoreError::Corrupt)?;
        (times.reserved_at, times.expires_at) = (now.store, now.store.plus(reserve.ttl_ms));
        let used = self.grant(id, record, reserve.late_ms)?;
        Ok(ready(Reserved::Granted { now: now.wall, used }))
    }

    /// Checks every hold and gate at `found`; changes nothing.
    fn check(&mut self, now: Moment, gates: &[CounterKey], holds: &Holds) -> Reserved {
        let mut refusals = Vec::new();
        let mut used = Vec::with_capacity(holds.len());
        for (hold, (wanted, slot)) in holds.iter().zip(&self.found).enumerate() {
            used.push(self.counters.check(*slot, now.store, &wanted).unwrap_or_else(|shortage| {
                let frees_at = shortage.frees_at.map(|at| now.to_wall(at));
                refusals.push(Refusal { hold, frees_at });
                shortage.used
            }));
        }
        let opens = gates.iter().map(|gate| self.opens_at(gate)).enumerate();
        let closed = opens.filter(|(_, until)| now.store < *until);
        let closed: Vec<_> = closed.map(|(gate, until)| (gate, now.to_wall(until))).collect();
        if refusals.is_empty() && closed.is_empty() {
            return Reserved::Granted { now: now.wall, used };
        }
        Reserved::Refused { now: now.wall, used, refusals, closed }
    }

    fn opens_at(&self, gate: &CounterKey) -> Timestamp {
        self.gates.get(gate).map(|cooldown| cooldown.end).unwrap_or_default()
    }

    /// Takes the holds at `found`; returns the amounts used before.
    fn grant(&mut self, id: u128, record: Arc<Record>, late_ms: u64) -> Result<Vec<u64>, StoreError> {
        self.define(record.holds.iter())?;
        self.lsn += 1;
        self.time = record.reserved_at;
        let forget_at = record.expires_at.plus(late_ms);
        let Record { fingerprint, reserved_at, expires_at, .. } = *record;
        let head = ReserveHead { id, fingerprint, reserved_at, expires_at, forget_at };
        op::put_reserve(&mut self.journal, &head, &self.slots, &record.holds, &record.note);
        let slots = mem::take(&mut self.slots);
        let used = self.apply_holds(self.lsn, reserved_at, &record.holds, &slots);
        self.slots = slots;
        self.apply_record(self.lsn, id, forget_at, record);
        Ok(used)
    }

    /// Fills `slots` from `found` (those of `holds`), and gives a slot to each counter that has none.
    fn define<'h>(&mut self, holds: impl Iterator<Item = Hold<&'h CounterKey>>) -> Result<(), StoreError> {
        self.slots.clear();
        for (hold, found) in holds.zip(&self.found) {
            let slot = match found {
                Some(slot) => *slot,
                None => {
                    let slot = self.counters.vacancy().ok_or(StoreError::Overflow)?;
                    self.lsn += 1;
                    op::put_define(&mut self.journal, slot, hold.counter, hold.kind);
                    self.counters.define(self.lsn, slot, hold.counter.clone(), hold.kind);
                    slot
                }
            };
            self.slots.push(slot);
        }
        Ok(())
    }

    /// Takes the holds of op `lsn`; returns the amounts used before, for counters that had not seen the op yet.
    pub(super) fn apply_holds(&mut self, lsn: u64, now: Timestamp, holds: &Holds, slots: &[u32]) -> Vec<u64> {
        let mut used = Vec::with_capacity(holds.len());
        for (hold, slot) in holds.iter().zip(slots) {
            used.extend(self.counters.take(lsn, *slot, now, &hold));
        }
        used
    }

    /// Keeps the record of op `lsn`. An earlier reservation with the same id has ended, and goes.
    pub(super) fn apply_record(&mut self, lsn: u64, id: u128, forget_at: Timestamp, record: Arc<Record>) {
        self.archived.remove(&id);
        let kept = Kept { seq: lsn, lsn, forget_at, open_until: Timestamp(0), dirty: true, record };
        self.changed.made(id);
        if let Some(old) = self.reservations.insert(id, kept)
            && old.dirty
        {
            let Kept { seq, lsn, forget_at, open_until, record, .. } = old;
            self.displaced.push(ReservationRow { id, seq, lsn, forget_at, open_until, record });
        }
    }

    /// The reservation, if it is known, in the store's time, and the time now.
    pub(super) fn find(
        &self,
        id: u128,
        now: Moment,
        gone: Option<Location>,
    ) -> Answer<Option<(Arc<Record>, Moment)>> {
        match self.look_up(id, now, gone) {
            None | Some(Answer::Absent(_)) => ready(None),
            Some(Answer::Archived(at)) => Answer::Archived(at),
            Some(Answer::Ready { value, after }) => Answer::Ready { value: Some((value, now)), after },
        }
    }

    /// A live record. A settled one is shown only once its settlement is on disk, as the caller may acknowledge it.
    fn look_up(&self, id: u128, now: Moment, gone: Option<Location>) -> Option<Answer<Arc<Record>>> {
        if let Some(kept) = self.reservations.get(&id) {
            let after = kept.record.settlement.as_ref().map_or(0, |_| kept.lsn);
            let value = || Arc::clone(&kept.record);
            return (now.store < kept.forget_at).then(|| Answer::Ready { value: value(), after });
        }
        let at = self.archived.get(&id).copied().filter(|at| gone != Some(*at))?;
        Some(Answer::Archived(at))
    }

    /// Settles a reservation. `settle.lines` are merged: no key twice. What the reservation keeps is taken out of `settle`.
    pub(super) fn settle(
        &mut self,
        moment: Moment,
        settle: &mut Settle,
        gone: Option<Location>,
    ) -> Result<Answer<Settling>, StoreError> {
        let (id, now) = (u128::from_be_bytes(settle.id.0), moment.store);
        let Some(kept) = self.reservations.get(&id).filter(|kept| now < kept.forget_at) else {
            // An id in memory is not also archived.
            return Ok(match self.archived.get(&id).filter(|at| gone != Some(**at)) {
                Some(at) => Answer::Archived(*at),
                None => ready(Settling::NotFound),
            });
        };
        if kept.record.settlement.is_some() {
            let value = Settling::Already(Arc::clone(&kept.record), moment);
            return Ok(Answer::Ready { value, after: kept.lsn });
        }
        let (seq, then, holds) = (kept.seq, kept.record.reserved_at, kept.record.holds.clone());
        if settle.actual.len() != holds.len() {
            return Err(StoreError::Corrupt);
        }
        let absent = self.spend.absent(settle.lines.iter().map(|(key, _)| key));
        if !absent.is_empty() {
            return Ok(Answer::Absent(absent));
        }
        let (actual, extras) = (&settle.actual, &settle.extras);
        let booking = Booking { slots: &[], holds: &holds, actual, extras };
        self.found.clear();
        self.found.extend(booking.parts().map(|(hold, _)| self.counters.find(hold.counter)));
        let fits = self
            .found
            .iter()
            .zip(booking.parts())
            .all(|(slot, (hold, actual))| self.counters.can_settle(*slot, now, &hold, actual));
        if !(fits && self.spend.can_add(&settle.lines)) {
            return Err(StoreError::Overflow);
        }
        self.define(booking.parts().map(|(hold, _)| hold))?;
        self.lsn += 1;
        let slots = mem::take(&mut self.slots);
        let booking = Booking { slots: &slots, ..booking };
        let (counters, reported) = self.settle_counters(self.lsn, (now, then), &booking, &settle.thresholds);
        self.counters.forget_reported(&slots, &settle.thresholds);
        self.slots = slots;
        let op = SettleOp {
            id,
            seq,
            settled_at: now,
            forget_at: now.plus(settle.keep_ms),
            actual: mem::take(&mut settle.actual),
            extras: mem::take(&mut settle.extras),
            counters,
            reported,
            lines: mem::take(&mut settle.lines),
            cooldown: self.cooldown_of(now, then, settle),
            note: mem::take(&mut settle.note),
        };
        op::put_settle(&mut self.journal, &op);
        self.time = now;
        self.apply_settle(self.lsn, op)?;
        let kept = self.reservations.get(&id).ok_or(StoreError::Corrupt)?;
        let value = Settling::Settled(Arc::clone(&kept.record), moment);
        Ok(Answer::Ready { value, after: self.lsn })
    }

    /// Settles the counters of op `lsn`; returns the results for counters that had not seen the op yet, and the thresholds that
    /// it reported.
    pub(super) fn settle_counters(
        &mut self,
        lsn: u64,
        (now, then): (Timestamp, Timestamp),
        booking: &Booking<'_>,
        thresholds: &[(usize, Vec<u64>)],
    ) -> (Vec<crate::store::Settled>, Vec<(usize, u64)>) {
        let count = booking.slots.len();
        let (mut counters, mut all_reported) = (Vec::with_capacity(count), Vec::new());
        let parts = booking.slots.iter().zip(booking.parts()).enumerate();
        for (index, (slot, (hold, actual))) in parts {
            let times = (now, (index < booking.holds.len()).then_some(then));
            let own = thresholds.iter().filter(|(counter, _)| *counter == index);
            let own = own.flat_map(|(_, amounts)| amounts.iter().copied());
            if let Some((settled, reported)) = self.counters.settle(lsn, *slot, times, (&hold, actual), own) {
                counters.push(settled);
                all_reported.extend(reported.into_iter().map(|amount| (index, amount)));
            }
        }
        (counters, all_reported)
    }

    /// Everything in op `lsn` except its counters.
    pub(super) fn apply_settle(&mut self, lsn: u64, op: SettleOp) -> Result<(), StoreError> {
        for (key, amounts) in &op.lines {
            self.spend.add(lsn, key, amounts)?;
        }
        if let Some(op) = op.cooldown {
            self.apply_cooldown(op);
        }
        let kept = self.reservations.get_mut(&op.id);
        if let Some(kept) = kept.filter(|kept| kept.seq == op.seq && kept.lsn < lsn) {
            let SettleOp { settled_at, counters, reported, note, .. } = op;
            // Copied only while a caller is being told of the open one.
            let record = Arc::make_mut(&mut kept.record);
            record.settlement = Some(Settlement { settled_at, counters, reported, note });
            kept.forget_at = op.forget_at;
            kept.lsn = lsn;
            kept.dirty = true;
            self.changed.settled(op.id);
        }
        Ok(())
    }

    /// The reservation as it is now, if it changed since it was last written.
    pub(super) fn capture(&mut self, id: u128) -> Option<ReservationRow> {
        let kept = self.reservations.get_mut(&id).filter(|kept| kept.dirty)?;
        kept.dirty = false;
        if kept.record.settlement.is_none() {
            kept.open_until = kept.forget_at;
        }
        let Kept { seq, lsn, forget_at, open_until, .. } = *kept;
        Some(ReservationRow { id, seq, lsn, forget_at, open_until, record: Arc::clone(&kept.record) })
    }

    /// The states of counters now.
    pub(super) fn counters(
        &mut self,
        now: Timestamp,
        keys: &[(CounterKey, CounterKind)],
    ) -> Vec<CounterState> {
        let states = keys.iter().map(|(key, kind)| {
            let slot = self.counters.find(key);
            self.counters.state(slot, now, *kind)
        });
        states.collect()
    }

    /// Whether anything changed since it was last written to the tables.
    pub(super) fn has_dirty(&self) -> bool {
        self.counters.has_dirty() || self.spend.has_dirty() || self.gates_dirty || !self.changed.is_empty()
    }
}

const fn ready<T>(value: T) -> Answer<T> {
    Answer::Ready { value, after: 0 }
}
