//! The state in memory: a deterministic machine that decides, changes, and writes each change down as an op.
//!
//! A decision and its change are one step under the store's lock. The change goes through the same `apply_*` functions when it is
//! decided and when it is replayed. Anything that has already seen an op (its `lsn` is not before the op's) is left alone, so
//! tables written at different moments and one journal make one state.

use std::{mem, sync::Arc};

use super::{
    counters::Counters,
    kept::{Changed, Kept, Own, ReservationRow, Version, VersionState},
    op,
    presharded::{PiecewiseMap, PreshardedMap},
    reservations::Reservations,
    segment::Location,
    spend::Spend,
    terms::TermsTable,
    usage::Added,
};
use crate::domain::{
    Moment, Timestamp,
    counter::{CounterKey, CounterKind, CounterState, Hold},
    holds::{Holds, Terms},
};
use crate::store::{Cooldown, OutboxEntry, Refusal, Reserve, Reserved, StoreError, UsageKey};

/// The answer of memory to an operation.
pub(super) enum Answer<T> {
    /// This, once op `after` is on disk (0: at once).
    Ready { value: T, after: u64 },
    /// The reservation is settled and on disk; if it turns out to have ended, ask again and say so.
    Archived(Location),
    /// These lines of old months have to be put into memory first.
    Absent(Vec<UsageKey>),
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
    pub(super) reservations: Reservations,
    pub(super) terms: TermsTable,
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
    /// What those ops add to the outbox, written in the transaction that writes them: so replay has nothing to repeat.
    pub(super) outbox: Vec<OutboxEntry>,
    /// The last additions to rows, the latest at the end.
    pub(super) added: Vec<Added>,
    pub(super) found: Vec<Option<u32>>,
    pub(super) slots: Vec<u32>,
}

impl State {
    /// Decides a reservation and takes its holds; `made` is what it will have of its own without the time, `None` for a dry run, and
    /// is taken if it is granted. `gone`: the archived reservation that turned out not to exist.
    pub(super) fn reserve(
        &mut self,
        now: Moment,
        (reserve, made): (&Reserve, &mut Option<Own>),
        gone: Option<Location>,
    ) -> Result<Answer<Reserved>, StoreError> {
        let (id, holds) = (u128::from_be_bytes(reserve.id.0), &reserve.holds);
        if reserve.may_repeat {
            match self.look_up(id, now, gone) {
                Some(Answer::Ready { value, after }) => {
                    let record = value.into_record();
                    if !reserve.replaces(&record) {
                        let value = Reserved::Repeated(record.by_the_wall(now));
                        return Ok(Answer::Ready { value, after });
                    }
                }
                Some(Answer::Archived(at)) => return Ok(Answer::Archived(at)),
                Some(Answer::Absent(_)) | None => {}
            }
        }
        if !reserve.valid.contains(&now.wall) {
            return Ok(ready(Reserved::OutOfDate { now: now.wall }));
        }
        self.found.clear();
        self.terms.locate(holds.terms(), &self.counters, &mut self.found);
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
        let mut own = made.take().ok_or(StoreError::Corrupt)?;
        own.set_reserved_at(now.store);
        let used = self.grant(id, now.store, holds, own)?;
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
    fn grant(&mut self, id: u128, now: Timestamp, holds: &Holds, own: Own) -> Result<Vec<u64>, StoreError> {
        self.define(holds.iter())?;
        let slots = mem::take(&mut self.slots);
        let named = self.terms.name(holds.terms(), &slots, &self.counters);
        if named.is_new {
            self.lsn += 1;
            op::put_terms(&mut self.journal, &named.terms, &slots);
        }
        self.lsn += 1;
        self.time = now;
        op::put_reserve(&mut self.journal, id, named.number, &own);
        let used = self.apply_holds(self.lsn, now, holds, &slots);
        self.slots = slots;
        self.apply_open(self.lsn, id, named.terms, own)?;
        Ok(used)
    }

    /// Fills `slots` from `found` (those of `holds`), and gives a slot to each counter that has none.
    pub(super) fn define<'h>(
        &mut self,
        holds: impl Iterator<Item = Hold<&'h CounterKey>>,
    ) -> Result<(), StoreError> {
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

    /// Keeps the reservation of op `lsn`. An earlier one with the same id has ended, and goes.
    pub(super) fn apply_open(
        &mut self,
        lsn: u64,
        id: u128,
        terms: Arc<Terms>,
        own: Own,
    ) -> Result<(), StoreError> {
        self.archived.remove(&id);
        let version = Version { terms, state: VersionState::Open(own) };
        let kept = Kept { seq: lsn, version, dirty: true, was_written_open: false };
        let (place, old) = self.reservations.insert(id, kept).ok_or(StoreError::Overflow)?;
        self.changed.made(place);
        self.displaced.extend(old.filter(|old| old.dirty).map(|old| old.row(id)));
        Ok(())
    }

    /// The reservation, if it is known, in the store's time, and the time now.
    pub(super) fn find(
        &self,
        id: u128,
        now: Moment,
        gone: Option<Location>,
    ) -> Answer<Option<(Version, Moment)>> {
        match self.look_up(id, now, gone) {
            None | Some(Answer::Absent(_)) => ready(None),
            Some(Answer::Archived(at)) => Answer::Archived(at),
            Some(Answer::Ready { value, after }) => Answer::Ready { value: Some((value, now)), after },
        }
    }

    /// A live reservation. A settled one is shown only once its settlement is on disk, as the caller may acknowledge it.
    fn look_up(&self, id: u128, now: Moment, gone: Option<Location>) -> Option<Answer<Version>> {
        if let Some(kept) = self.reservations.get(id) {
            let after = if kept.is_open() { 0 } else { kept.lsn() };
            let value = || kept.version.clone();
            return (now.store < kept.forget_at()).then(|| Answer::Ready { value: value(), after });
        }
        let at = self.archived.get(&id).copied().filter(|at| gone != Some(*at))?;
        Some(Answer::Archived(at))
    }

    /// The reservation in a place as it is now, if it changed since it was last written.
    pub(super) fn capture(&mut self, place: u32) -> Option<ReservationRow> {
        let (id, kept) = self.reservations.at_mut(place).filter(|(_, kept)| kept.dirty)?;
        kept.dirty = false;
        kept.was_written_open |= kept.is_open();
        Some(kept.row(id))
    }

    /// The ops since they were last taken, in exchange for an empty buffer. They become a row of the journal.
    pub(super) fn take_journal(&mut self, empty: Vec<u8>) -> Vec<u8> {
        self.terms.begin_row();
        mem::replace(&mut self.journal, empty)
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

pub(super) const fn ready<T>(value: T) -> Answer<T> {
    Answer::Ready { value, after: 0 }
}
