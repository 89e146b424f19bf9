//! From the tables and the journal to the state in memory.

use std::sync::Arc;

use rusqlite::Connection;
use thiserror::Error;

use super::{
    disk,
    op::{self, Op, ReserveOp, SettleOp},
    spend::{self, Spend},
    state::{Kept, ReservationRow, State},
    wire::{Malformed, Reader},
};
use crate::domain::{Timestamp, counter::Hold};
use crate::store::{Record, StoreError};

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

/// Reads the tables and plays the journal over them. The state, and the last op that the tables hold everything of.
pub(super) fn recover(connection: &Connection, now: Timestamp) -> Result<(State, u64), RecoverError> {
    let mut state = State::default();
    disk::counters(connection, |row| state.counters.put(row))?;
    let (reservations, archived) = (&mut state.reservations, &mut state.archived);
    let settled = |id, seq| {
        archived.insert(id, seq);
    };
    let open = |row: ReservationRow| {
        let ReservationRow { id, seq, lsn, forget_at, record } = row;
        reservations.insert(id, Kept { seq, lsn, forget_at, dirty: false, record });
    };
    disk::reservations(connection, settled, open)?;
    // An id that was used again has two rows until the first is removed: the later one counts.
    reservations.retain(|id, kept| archived.get(id).is_none_or(|seq| *seq < kept.seq));
    archived.retain(|id, _| !reservations.contains_key(id));
    state.gates.extend(disk::gates(connection)?);
    let resident_from = spend::resident_from(now);
    state.spend = Spend::new(resident_from);
    for line in disk::lines_from(connection, resident_from)? {
        state.spend.put(line);
    }
    let covered = disk::covered(connection)?;
    state.lsn = covered;
    disk::journal(connection, |first, last, ops| replay(connection, &mut state, (first, last), ops))?;
    state.counters.rebuild_free();
    Ok((state, covered))
}

fn replay(
    connection: &Connection,
    state: &mut State,
    (first, last): (u64, u64),
    ops: &[u8],
) -> Result<(), RecoverError> {
    if first != state.lsn + 1 {
        return Err(RecoverError::Missing { lsn: state.lsn + 1 });
    }
    let mut reader = Reader(ops);
    while !reader.is_empty() {
        let lsn = state.lsn + 1;
        let op = op::read(&mut reader).map_err(|Malformed| RecoverError::Malformed { lsn })?;
        match op {
            Op::Define { slot, key, kind } => state.counters.define(lsn, slot, key, kind),
            Op::Reserve(op) => replay_reserve(state, lsn, op)?,
            Op::Settle(op) => replay_settle(connection, state, lsn, op)?,
        }
        state.lsn = lsn;
    }
    if state.lsn == last { Ok(()) } else { Err(RecoverError::Missing { lsn: state.lsn + 1 }) }
}

fn replay_reserve(state: &mut State, lsn: u64, op: ReserveOp) -> Result<(), RecoverError> {
    let slots: Vec<u32> = op.holds.iter().map(|hold| hold.slot).collect();
    let mut holds = Vec::with_capacity(op.holds.len());
    for hold in op.holds {
        let counter = state.counters.key(hold.slot).ok_or(RecoverError::Dangling { lsn })?.clone();
        let (kind, limit, kept, expiring) = (hold.kind, hold.limit, hold.kept, hold.expiring);
        holds.push(Hold { counter, kind, limit, kept, expiring });
    }
    let record = Record {
        fingerprint: op.fingerprint,
        reserved_at: op.reserved_at,
        expires_at: op.expires_at,
        holds: holds.into(),
        note: op.note,
        settlement: None,
    };
    state.apply_reserve(lsn, (op.id, op.forget_at), record, &slots);
    Ok(())
}

fn replay_settle(
    connection: &Connection,
    state: &mut State,
    lsn: u64,
    op: SettleOp,
) -> Result<(), RecoverError> {
    let dangling = || RecoverError::Dangling { lsn };
    let kept = state.reservations.get(&op.id).filter(|kept| kept.seq == op.seq);
    let (then, holds) = match kept {
        Some(kept) => (kept.record.reserved_at, Arc::clone(&kept.record.holds)),
        // In the table: as settled, or as displaced by a later reservation of the same id.
        None => {
            let row = disk::reservation(connection, op.seq)?.ok_or_else(dangling)?;
            (row.record.reserved_at, row.record.holds)
        }
    };
    let slots: Option<Vec<u32>> = holds.iter().map(|hold| state.counters.find(&hold.counter)).collect();
    let actual: Vec<u64> = op.holds.iter().map(|(actual, _)| *actual).collect();
    let times = (op.settled_at, then);
    state.settle_counters(lsn, times, (&slots.ok_or_else(dangling)?, &holds), &actual);
    for key in state.spend.absent(op.lines.iter().map(|(key, _)| key)) {
        state.spend.put(disk::line(connection, &key)?);
    }
    state.apply_settle(lsn, op).map(drop).map_err(|_: StoreError| dangling())
}
