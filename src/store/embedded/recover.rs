//! From the tables and the journal to the state in memory.

use std::sync::Arc;

use rusqlite::Connection;
use thiserror::Error;

use super::{
    disk, gates,
    op::{self, Op, ReserveOp, SettleOp},
    segment::Location,
    spend::{self, Spend},
    spread::SpreadMap,
    state::{Booking, Kept, ReservationRow, State},
    wire::{Malformed, Reader},
};
use crate::domain::{Timestamp, counter::Hold};
use crate::store::{Extra, Record, StoreError};

/// Why the state cannot be had from the disk.
#[derive(Debug, Error)]
pub(super) enum RecoverError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("op {lsn} of the journal is malformed")]
    Malformed { lsn: u64 },
    #[error("op {lsn} of the journal is missing")]
    Missing { lsn: u64 },
    #[error("op {lsn} of the journal speaks of what is not there")]
    Dangling { lsn: u64 },
}

/// What was on disk.
pub(super) struct Recovered {
    pub(super) state: State,
    /// The last op that the tables hold everything of.
    pub(super) covered: u64,
    /// The number of the last segment.
    pub(super) segment: u64,
}

/// Where reservations are on disk that the journal may speak of, by their `seq`.
type Versions = SpreadMap<u64, Location>;

/// Reads the tables and plays the journal over them.
pub(super) fn recover(connection: &Connection, now: Timestamp) -> Result<Recovered, RecoverError> {
    let mut state = State::default();
    disk::counters(connection, |row| state.counters.put(row))?;
    state.gates.extend(gates::read(connection)?);
    let resident_from = spend::resident_from(now);
    state.spend = Spend::new(resident_from);
    for line in disk::lines_from(connection, resident_from)? {
        state.spend.put(line);
    }
    let (covered, forgotten) = disk::progress(connection)?;
    let (segment, versions) = load_reservations(connection, &mut state, covered)?;
    state.lsn = covered;
    let mut replay = Replay { connection, state, versions };
    disk::journal(connection, |first, last, ops| replay.play((first, last), ops))?;
    let mut state = replay.state;
    state.counters.rebuild_free();
    // A reservation that was written as open, then settled, is kept as settled at least as long as it would have been kept
    // as open. Past that only the open version may be left, which must not come to life where the clock was set back.
    let is_settled = |kept: &Kept| kept.dirty || kept.record.settlement.is_some();
    state.reservations.retain(|_, kept| is_settled(kept) || kept.forget_at > forgotten);
    Ok(Recovered { state, covered, segment })
}

/// The last segment's number, and what the journal may speak of.
fn load_reservations(
    connection: &Connection,
    state: &mut State,
    covered: u64,
) -> Result<(u64, Versions), RecoverError> {
    let mut latest = SpreadMap::<u128, u64>::default();
    let mut versions = SpreadMap::<u64, (u64, Location)>::default();
    let segment = disk::reservations(connection, |entry, at, open| {
        if entry.lsn > covered {
            let version = versions.entry(entry.seq).or_insert((entry.lsn, at));
            if version.0 < entry.lsn {
                *version = (entry.lsn, at);
            }
        }
        let lsn = latest.entry(entry.id).or_default();
        if entry.lsn <= *lsn {
            return;
        }
        *lsn = entry.lsn;
        match open {
            None => {
                state.reservations.remove(&entry.id);
                state.archived.insert(entry.id, at);
            }
            Some(ReservationRow { id, seq, lsn, forget_at, record, .. }) => {
                state.archived.remove(&id);
                let kept =
                    Box::new(Kept { seq, lsn, forget_at, open_until: forget_at, dirty: false, record });
                state.reservations.insert(id, kept);
            }
        }
    })?;
    Ok((segment, versions.into_iter().map(|(seq, (_, at))| (seq, at)).collect()))
}

struct Replay<'a> {
    connection: &'a Connection,
    state: State,
    versions: Versions,
}

impl Replay<'_> {
    fn play(&mut self, (first, last): (u64, u64), ops: &[u8]) -> Result<(), RecoverError> {
        if first != self.state.lsn + 1 {
            return Err(RecoverError::Missing { lsn: self.state.lsn + 1 });
        }
        let mut reader = Reader(ops);
        while !reader.is_empty() {
            let lsn = self.state.lsn + 1;
            let op = op::read(&mut reader).map_err(|Malformed| RecoverError::Malformed { lsn })?;
            match op {
                Op::Define { slot, key, kind } => self.state.counters.define(lsn, slot, key, kind),
                Op::Reserve(op) => self.reserve(lsn, op)?,
                Op::Settle(op) => self.settle(lsn, op)?,
                Op::Cooldown(op) => self.state.apply_cooldown(op),
            }
            self.state.lsn = lsn;
        }
        if self.state.lsn == last { Ok(()) } else { Err(RecoverError::Missing { lsn: self.state.lsn + 1 }) }
    }

    fn reserve(&mut self, lsn: u64, op: ReserveOp) -> Result<(), RecoverError> {
        let slots: Vec<u32> = op.holds.iter().map(|hold| hold.slot).collect();
        let mut holds = Vec::with_capacity(op.holds.len());
        for hold in op.holds {
            let counter = self.state.counters.key(hold.slot).ok_or(RecoverError::Dangling { lsn })?.clone();
            let (kind, limit, kept, expiring) = (hold.kind, hold.limit, hold.kept, hold.expiring);
            holds.push(Hold { counter, kind, limit, kept, expiring });
        }
        self.state.apply_holds(lsn, op.reserved_at, &holds, &slots);
        // What is on disk is this reservation or what became of it since.
        if self.versions.contains_key(&lsn) {
            return Ok(());
        }
        let record = Record {
            fingerprint: op.fingerprint,
            reserved_at: op.reserved_at,
            expires_at: op.expires_at,
            holds: holds.into(),
            note: op.note,
            settlement: None,
        };
        self.state.apply_record(lsn, op.id, op.forget_at, record);
        Ok(())
    }

    fn settle(&mut self, lsn: u64, op: SettleOp) -> Result<(), RecoverError> {
        let dangling = || RecoverError::Dangling { lsn };
        let kept = self.state.reservations.get(&op.id).filter(|kept| kept.seq == op.seq);
        let (then, holds) = match kept {
            Some(kept) => (kept.record.reserved_at, Arc::clone(&kept.record.holds)),
            // Settled on disk, or displaced by a later reservation of the same id.
            None => {
                let at = *self.versions.get(&op.seq).ok_or_else(dangling)?;
                let row = disk::reservation(self.connection, at)?.ok_or_else(dangling)?;
                (row.record.reserved_at, row.record.holds)
            }
        };
        let extras = op.extras.iter().map(|(counter, kind, amount, _)| Extra {
            counter: counter.clone(),
            kind: *kind,
            amount: *amount,
        });
        let extras: Vec<Extra> = extras.collect();
        let (held, mut holds) = (holds.len(), holds.to_vec());
        holds.extend(extras.iter().map(Extra::hold));
        let counters = &self.state.counters;
        let slots: Option<Vec<u32>> = holds.iter().map(|hold| counters.find(&hold.counter)).collect();
        let actual =
            op.holds.iter().map(|(actual, _)| *actual).chain(extras.iter().map(|extra| extra.amount));
        let (slots, actual) = (slots.ok_or_else(dangling)?, actual.collect::<Vec<u64>>());
        let booking = Booking { slots: &slots, holds: &holds, held, actual: &actual };
        // What it reported it reports again, to the counters that have not seen it.
        let reported: Vec<_> =
            op.reported.iter().map(|(counter, amount)| (*counter, vec![*amount])).collect();
        self.state.settle_counters(lsn, (op.settled_at, then), &booking, &reported);
        for key in self.state.spend.absent(op.lines.iter().map(|(key, _)| key)) {
            self.state.spend.put(disk::line(self.connection, &key)?);
        }
        self.state.apply_settle(lsn, op).map(drop).map_err(|_: StoreError| dangling())
    }
}
