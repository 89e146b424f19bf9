//! The settlement of a reservation: decided, changed, and written down as an op.

use std::{mem, sync::Arc};

use super::{
    kept::{Closed, VersionState},
    op::{self, SettleOp},
    segment::Location,
    state::{Answer, State, ready},
};
use crate::domain::{
    Moment, Timestamp,
    counter::{CounterKey, Hold},
    holds::Holds,
};
use crate::store::{Extra, Settle, SettleOutcome, Settlement, StoreError, crossings};

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

/// What became of a settlement. It is copied for the caller without the lock.
pub(super) enum Settling {
    /// Settled now.
    Settled(Arc<Closed>, Moment),
    /// Settled before.
    Already(Arc<Closed>, Moment),
    NotFound,
}

impl Settling {
    /// For the caller; copies, so it is called without the lock.
    pub(super) fn outcome(self) -> SettleOutcome {
        let (closed, now, outcome): (_, _, fn(Settlement) -> SettleOutcome) = match self {
            Self::Settled(closed, now) => (closed, now, SettleOutcome::Settled),
            Self::Already(closed, now) => (closed, now, SettleOutcome::AlreadySettled),
            Self::NotFound => return SettleOutcome::NotFound,
        };
        outcome(closed.settlement.clone().by_the_wall(now))
    }
}

impl State {
    /// Settles a reservation. `settle.lines` are merged: no key twice. What the reservation keeps is taken out of `settle`.
    pub(super) fn settle(
        &mut self,
        moment: Moment,
        settle: &mut Settle,
        gone: Option<Location>,
    ) -> Result<Answer<Settling>, StoreError> {
        let (id, now) = (u128::from_be_bytes(settle.id.0), moment.store);
        let Some(kept) = self.reservations.get(id).filter(|kept| now < kept.forget_at()) else {
            // An id in memory is not also archived.
            return Ok(match self.archived.get(&id).filter(|at| gone != Some(**at)) {
                Some(at) => Answer::Archived(*at),
                None => ready(Settling::NotFound),
            });
        };
        if let VersionState::Settled(closed) = &kept.version.state {
            let value = Settling::Already(Arc::clone(closed), moment);
            return Ok(Answer::Ready { value, after: closed.lsn });
        }
        let (seq, then, holds) = (kept.seq, kept.version.reserved_at(), kept.version.holds());
        if settle.actual.len() != holds.len() {
            return Err(StoreError::Corrupt);
        }
        if let Some(absent) = self.make_room(&mut settle.lines, settle.max_rows) {
            return Ok(Answer::Absent(absent));
        }
        let (actual, extras) = (&settle.actual, &settle.extras);
        let booking = Booking { slots: &[], holds: &holds, actual, extras };
        self.found.clear();
        self.terms.locate(holds.terms(), &self.counters, &mut self.found);
        self.found.extend(extras.iter().map(|extra| self.counters.find(&extra.counter)));
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
        if !reported.is_empty() {
            let counter = |index| booking.parts().nth(index).map(|(hold, _)| hold.counter);
            self.outbox.extend(crossings((settle.id, moment.wall), (&reported, &counters), counter));
        }
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
        let closed = self.apply_settle(self.lsn, op)?.ok_or(StoreError::Corrupt)?;
        Ok(Answer::Ready { value: Settling::Settled(closed, moment), after: self.lsn })
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

    /// Everything in op `lsn` except its counters. Returns the reservation, if it was open before.
    pub(super) fn apply_settle(&mut self, lsn: u64, op: SettleOp) -> Result<Option<Arc<Closed>>, StoreError> {
        self.apply_rows(lsn, &op.lines)?;
        if let Some(op) = op.cooldown {
            self.apply_cooldown(op);
        }
        let found = self.reservations.get_mut(op.id);
        let Some((place, kept)) = found.filter(|(_, kept)| kept.seq == op.seq && kept.lsn() < lsn) else {
            return Ok(None);
        };
        let VersionState::Open(own) = &mut kept.version.state else { return Ok(None) };
        let own = mem::take(own);
        let SettleOp { settled_at, counters, reported, note, forget_at, .. } = op;
        let settlement = Settlement { settled_at, counters, reported, note };
        let closed = Arc::new(Closed { own, lsn, forget_at, settlement });
        kept.version.state = VersionState::Settled(Arc::clone(&closed));
        kept.dirty = true;
        self.changed.settled(place);
        Ok(Some(closed))
    }
}
