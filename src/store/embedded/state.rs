//! The state in memory: a deterministic machine that decides, changes, and writes each change down as an op.
//!
//! A decision and its change are one step under the store's lock. The change goes through the same `apply_*` functions when it is
//! decided and when it is replayed. Anything that has already seen an op (its `lsn` is not before the op's) is left alone, so
//! tables written at different moments and one journal make one state.

use super::{
    counters::Counters,
    kept::{Kept, ReservationRow},
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
    Cooldown, Record, Refusal, Reserve, Reserved, Settle, SettleOutcome, Settlement, SpendKey, StoreError,
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
    pub(super) holds: &'a [Hold<&'a CounterKey>],
    /// How many of them are of holds.
    pub(super) held: usize,
    pub(super) actual: &'a [u64],
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
    /// Boxed, so that a growing table moves pointers.
    pub(super) reservations: PiecewiseMap<u128, Box<Kept>>,
    /// Settled reservations that are only on disk.
    pub(super) archived: PiecewiseMap<u128, Location>,
    /// The gates that are or were closed.
    pub(super) gates: PreshardedMap<CounterKey, Cooldown>,
    pub(super) gates_dirty: bool,
    pub(super) spend: Spend,
    /// Reservations changed since they were last written to the table.
    pub(super) dirty: Vec<u128>,
    /// Changed reservations whose id was reused before they were written.
    pub(super) displaced: Vec<ReservationRow>,
    /// Ops since the writer last took them.
    pub(super) journal: Vec<u8>,
    found: Vec<Option<u32>>,
    slots: Vec<u32>,
}

impl State {
    /// Decides a reservation and takes its holds. `gone`: the archived reservation that turned out not to exist.
    pub(super) fn reserve(
        &mut self,
        now: Moment,
        reserve: &Reserve,
        gone: Option<Location>,
    ) -> Result<Answer<Reserved>, StoreError> {
        let (id, holds) = (u128::from_be_bytes(reserve.id.0), &reserve.holds);
        if reserve.may_repeat {
            match self.look_up(id, now, gone) {
                Some(Answer::Ready { value, after }) if !reserve.replaces(&value) => {
                    return Ok(Answer::Ready { value: Reserved::Repeated(value), after });
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
        let record = Record {
            fingerprint: reserve.fingerprint,
            reserved_at: now.store,
            expires_at: now.store.plus(reserve.ttl_ms),
            holds: holds.clone(),
            note: reserve.note.clone(),
            settlement: None,
        };
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
    fn grant(&mut self, id: u128, record: Record, late_ms: u64) -> Result<Vec<u64>, StoreError> {
        self.define(record.holds.iter())?;
        self.lsn += 1;
        self.time = record.reserved_at;
        let forget_at = record.expires_at.plus(late_ms);
        let Record { fingerprint, reserved_at, expires_at, .. } = record;
        let head = ReserveHead { id, fingerprint, reserved_at, expires_at, forget_at };
        op::put_reserve(&mut self.journal, &head, &self.slots, &record.holds, &record.note);
        let slots = std::mem::take(&mut self.slots);
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
    pub(super) fn apply_record(&mut self, lsn: u64, id: u128, forget_at: Timestamp, record: Record) {
        self.archived.remove(&id);
        let kept = Kept { seq: lsn, lsn, forget_at, open_until: Timestamp(0), dirty: true, record };
        let kept = Box::new(kept);
        self.dirty.push(id);
        if let Some(old) = self.reservations.insert(id, kept)
            && old.dirty
        {
            let Kept { seq, lsn, forget_at, open_until, record, .. } = *old;
            self.displaced.push(ReservationRow { id, seq, lsn, forget_at, open_until, record });
        }
    }

    /// The reservation, if it is known.
    pub(super) fn find(&self, id: u128, now: Moment, gone: Option<Location>) -> Answer<Option<Record>> {
        match self.look_up(id, now, gone) {
            None | Some(Answer::Absent(_)) => ready(None),
            Some(Answer::Archived(at)) => Answer::Archived(at),
            Some(Answer::Ready { value, after }) => Answer::Ready { value: Some(value), after },
        }
    }

    /// A live record. A settled one is shown only once its settlement is on disk, as the caller may acknowledge it.
    fn look_up(&self, id: u128, now: Moment, gone: Option<Location>) -> Option<Answer<Record>> {
        if let Some(kept) = self.reservations.get(&id) {
            let after = kept.record.settlement.as_ref().map_or(0, |_| kept.lsn);
            let record = || kept.record.clone().by_the_wall(now);
            return (now.store < kept.forget_at).then(|| Answer::Ready { value: record(), after });
        }
        let at = self.archived.get(&id).copied().filter(|at| gone != Some(*at))?;
        Some(Answer::Archived(at))
    }

    /// Settles a reservation. `settle.lines` are merged: no key twice.
    pub(super) fn settle(
        &mut self,
        moment: Moment,
        settle: &Settle,
        gone: Option<Location>,
    ) -> Result<Answer<SettleOutcome>, StoreError> {
        let (id, now) = (u128::from_be_bytes(settle.id.0), moment.store);
        let Some(kept) = self.reservations.get(&id).filter(|kept| now < kept.forget_at) else {
            // An id in memory is not also archived.
            return Ok(match self.archived.get(&id).filter(|at| gone != Some(**at)) {
                Some(at) => Answer::Archived(*at),
                None => ready(SettleOutcome::NotFound),
            });
        };
        if let Some(first) = &kept.record.settlement {
            let value = SettleOutcome::AlreadySettled(first.clone().by_the_wall(moment));
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
        let held = holds.len();
        let holds: Vec<_> = holds.iter().chain(settle.extras.iter().map(crate::store::Extra::hold)).collect();
        let amounts = settle.actual.iter().copied().chain(settle.extras.iter().map(|extra| extra.amount));
        let actual: Vec<u64> = amounts.collect();
        self.found.clear();
        self.found.extend(holds.iter().map(|hold| self.counters.find(hold.counter)));
        let mut parts = self.found.iter().zip(&holds).zip(&actual);
        let fits = parts.all(|((slot, hold), actual)| self.counters.can_settle(*slot, now, hold, *actual));
        if !(fits && self.spend.can_add(&settle.lines)) {
            return Err(StoreError::Overflow);
        }
        self.define(holds.iter().copied())?;
        self.lsn += 1;
        let slots = std::mem::take(&mut self.slots);
        let booking = Booking { slots: &slots, holds: &holds, held, actual: &actual };
        let (mut counters, reported) =
            self.settle_counters(self.lsn, (now, then), &booking, &settle.thresholds);
        self.counters.forget_reported(&slots, &settle.thresholds);
        self.slots = slots;
        let of_extras = counters.split_off(held.min(counters.len()));
        let extras = settle.extras.iter().zip(of_extras);
        let op = SettleOp {
            id,
            seq,
            settled_at: now,
            forget_at: now.plus(settle.keep_ms),
            holds: settle.actual.iter().copied().zip(counters).collect(),
            extras: extras
                .map(|(extra, after)| (extra.counter.clone(), extra.kind, extra.amount, after))
                .collect(),
            reported,
            lines: settle.lines.clone(),
            cooldown: self.cooldown_of(now, then, settle),
            note: settle.note.clone(),
        };
        op::put_settle(&mut self.journal, &op);
        self.time = now;
        let settlement = self.apply_settle(self.lsn, op)?.by_the_wall(moment);
        Ok(Answer::Ready { value: SettleOutcome::Settled(settlement), after: self.lsn })
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
        let (mut counters, mut all_reported) = (Vec::with_capacity(booking.holds.len()), Vec::new());
        let parts = booking.slots.iter().zip(booking.holds).zip(booking.actual).enumerate();
        for (index, ((slot, hold), actual)) in parts {
            let times = (now, (index < booking.held).then_some(then));
            let own = thresholds.iter().filter(|(counter, _)| *counter == index);
            let own = own.flat_map(|(_, amounts)| amounts.iter().copied());
            if let Some((settled, reported)) = self.counters.settle(lsn, *slot, times, (hold, *actual), own) {
                counters.push(settled);
                all_reported.extend(reported.into_iter().map(|amount| (index, amount)));
            }
        }
        (counters, all_reported)
    }

    /// Everything in op `lsn` except its counters.
    pub(super) fn apply_settle(&mut self, lsn: u64, op: SettleOp) -> Result<Settlement, StoreError> {
        for (key, amounts) in &op.lines {
            self.spend.add(lsn, key, amounts)?;
        }
        if let Some(op) = op.cooldown {
            self.apply_cooldown(op);
        }
        let settlement = Settlement {
            settled_at: op.settled_at,
            counters: op
                .holds
                .into_iter()
                .map(|(_, settled)| settled)
                .chain(op.extras.into_iter().map(|(.., settled)| settled))
                .collect(),
            reported: op.reported,
            note: op.note,
        };
        let kept = self.reservations.get_mut(&op.id);
        if let Some(kept) = kept.filter(|kept| kept.seq == op.seq && kept.lsn < lsn) {
            kept.record.settlement = Some(settlement.clone());
            kept.forget_at = op.forget_at;
            kept.lsn = lsn;
            if !kept.dirty {
                kept.dirty = true;
                self.dirty.push(op.id);
            }
        }
        Ok(settlement)
    }

    /// The reservation as it is now, if it changed since it was last written.
    pub(super) fn capture(&mut self, id: u128) -> Option<ReservationRow> {
        let kept = self.reservations.get_mut(&id).filter(|kept| kept.dirty)?;
        kept.dirty = false;
        if kept.record.settlement.is_none() {
            kept.open_until = kept.forget_at;
        }
        let Kept { seq, lsn, forget_at, open_until, .. } = **kept;
        Some(ReservationRow { id, seq, lsn, forget_at, open_until, record: kept.record.clone() })
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
        self.counters.has_dirty() || self.spend.has_dirty() || self.gates_dirty || !self.dirty.is_empty()
    }
}

const fn ready<T>(value: T) -> Answer<T> {
    Answer::Ready { value, after: 0 }
}
