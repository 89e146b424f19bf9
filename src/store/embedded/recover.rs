//! From the tables and the journal to the state in memory.

use std::sync::Arc;

use rusqlite::Connection;
use thiserror::Error;

use super::{
    disk::{self, Progress},
    gates,
    kept::{Kept, ReservationRow},
    op::{self, Op, ReserveOp, SettleOp},
    presharded::PreshardedMap,
    spend::{self, Spend},
    state::{Booking, State},
    verify::Difference,
    wire::{Malformed, Reader},
};
use crate::domain::{Timestamp, counter::Hold, holds::Holds};
use crate::store::{Extra, Record, StoreError};

/// Differences that are reported one by one.
const TOLD: usize = 3;

/// Why the state cannot be recovered from the disk.
#[derive(Debug, Error)]
pub(super) enum RecoverError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Structure(String),
    #[error(
        "commit {known} was on disk and the last one found is {found}: the end of the write-ahead log is cut off or damaged, \
         or a file is of an earlier state than the others"
    )]
    Behind { known: u64, found: u64 },
    #[error("{}", books(.0))]
    Books(Vec<Difference>),
    #[error("op {lsn} of the journal is malformed")]
    Malformed { lsn: u64 },
    #[error("op {lsn} of the journal is missing")]
    Missing { lsn: u64 },
    #[error("op {lsn} of the journal speaks of what is not there")]
    Dangling { lsn: u64 },
}

fn books(differences: &[Difference]) -> String {
    let told: Vec<_> = differences.iter().take(TOLD).map(ToString::to_string).collect();
    let more = match differences.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("counters and spend lines tell different sums: {}{more}", told.join("; "))
}

/// What is missing from a damaged journal.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// The first and the last op of each stretch that is missing.
    pub(super) ops: Vec<(u64, u64)>,
    /// Reservations whose counters are no longer known.
    pub(super) reservations: u64,
    /// Settlements whose reservation is no longer known; the amounts they booked are in the spend lines.
    pub(super) settlements: u64,
}

/// The state that was on disk.
pub(super) struct Recovered {
    pub(super) state: State,
    /// The last op whose effects are all in the tables.
    pub(super) covered: u64,
    /// The number of the last segment.
    pub(super) segment: u64,
    /// How far the store's time was behind the wall clock, in milliseconds.
    pub(super) behind: u64,
    /// What could not be read, if that was permitted.
    pub(super) lost: Lost,
}

/// The reservations on disk that the journal may mention, by their `seq`.
type Versions = PreshardedMap<u64, Arc<Record>>;

/// Reads the tables and replays the journal over them. `now` is by the wall clock.
pub(super) fn recover(connection: &Connection, now: Timestamp) -> Result<Recovered, RecoverError> {
    recover_from(connection, now, None)
}

/// The same from the remains of a damaged store: what is missing from the journal or cannot be resolved is counted and left out.
pub(super) fn recover_what_is_left(
    connection: &Connection,
    now: Timestamp,
) -> Result<Recovered, RecoverError> {
    recover_from(connection, now, Some(Lost::default()))
}

fn recover_from(
    connection: &Connection,
    now: Timestamp,
    lost: Option<Lost>,
) -> Result<Recovered, RecoverError> {
    let mut state = State::default();
    disk::counters(connection, |row| state.counters.put(row))?;
    state.gates.extend(gates::read(connection)?);
    let resident_from = spend::resident_from(now);
    state.spend = Spend::new(resident_from);
    for line in disk::lines_from(connection, resident_from)? {
        state.spend.put(line);
    }
    let Progress { covered, forgotten: seen, behind, .. } = disk::progress(connection)?;
    let (segment, versions) = load_reservations(connection, &mut state, covered)?;
    state.lsn = covered;
    state.time = seen;
    let mut replay = Replay { connection, state, versions, lost };
    disk::journal(connection, |first, last, ops| replay.play((first, last), ops))?;
    let Replay { mut state, lost, .. } = replay;
    state.counters.rebuild_free();
    // A reservation that was written as open and then settled is kept as settled at least as long as it would have been kept as
    // open. After that, possibly only the open version is left, which must not come back if the clock was set back.
    state.changed.make_due();
    let is_settled = |kept: &Kept| kept.dirty || kept.record.settlement.is_some();
    state.reservations.retain(|_, kept| is_settled(kept) || kept.forget_at > seen);
    Ok(Recovered { state, covered, segment, behind, lost: lost.unwrap_or_default() })
}

/// The last segment's number, and the reservations that the journal may mention.
fn load_reservations(
    connection: &Connection,
    state: &mut State,
    covered: u64,
) -> Result<(u64, Versions), RecoverError> {
    let mut latest = PreshardedMap::<u128, u64>::default();
    let mut versions = Versions::default();
    let segment = disk::reservations(connection, covered, |entry, at, row| {
        if let Some(row) = row.as_ref().filter(|_| entry.lsn > covered) {
            // What the journal needs of it is the same in each version.
            versions.insert(entry.seq, Arc::clone(&row.record));
        }
        let lsn = latest.entry(entry.id).or_default();
        if entry.lsn <= *lsn {
            return;
        }
        *lsn = entry.lsn;
        match row.filter(|row| row.record.settlement.is_none()) {
            None => {
                state.reservations.remove(&entry.id);
                state.archived.insert(entry.id, at);
            }
            Some(ReservationRow { id, seq, lsn, forget_at, record, .. }) => {
                state.archived.remove(&id);
                let kept = Kept { seq, lsn, forget_at, open_until: forget_at, dirty: false, record };
                state.reservations.insert(id, kept);
            }
        }
    })?;
    Ok((segment, versions))
}

struct Replay<'a> {
    connection: &'a Connection,
    state: State,
    versions: Versions,
    /// What is missing, if that is permitted.
    lost: Option<Lost>,
}

impl Replay<'_> {
    fn play(&mut self, (first, last): (u64, u64), ops: &[u8]) -> Result<(), RecoverError> {
        let next = self.state.lsn + 1;
        match &mut self.lost {
            _ if first == next => {}
            None => return Err(RecoverError::Missing { lsn: next }),
            // The tables already hold all of it.
            Some(_) if last < next => return Ok(()),
            Some(lost) if first > next => lost.ops.push((next, first - 1)),
            Some(_) => {}
        }
        self.state.lsn = first.saturating_sub(1);
        let mut reader = Reader(ops);
        while !reader.is_empty() {
            let lsn = self.state.lsn + 1;
            let op = op::read(&mut reader).map_err(|Malformed| RecoverError::Malformed { lsn })?;
            match op {
                Op::Define { slot, key, kind } => self.state.counters.define(lsn, slot, key, kind),
                Op::Reserve(op) => match (self.reserve(lsn, op), &mut self.lost) {
                    (Err(RecoverError::Dangling { .. }), Some(lost)) => lost.reservations += 1,
                    (played, _) => played?,
                },
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
        let holds = Holds::from(holds);
        self.state.apply_holds(lsn, op.reserved_at, &holds, &slots);
        // The version on disk is this reservation or a later state of it.
        if self.versions.contains_key(&lsn) {
            return Ok(());
        }
        let record = Record {
            fingerprint: op.fingerprint,
            reserved_at: op.reserved_at,
            expires_at: op.expires_at,
            holds,
            note: op.note,
            settlement: None,
        };
        self.state.apply_record(lsn, op.id, op.forget_at, Arc::new(record));
        Ok(())
    }

    fn settle(&mut self, lsn: u64, op: SettleOp) -> Result<(), RecoverError> {
        match (self.settle_counters(lsn, &op), &mut self.lost) {
            (Err(RecoverError::Dangling { .. }), Some(lost)) => lost.settlements += 1,
            (settled, _) => settled?,
        }
        for key in self.state.spend.absent(op.lines.iter().map(|(key, _)| key)) {
            self.state.spend.put(disk::line(self.connection, &key)?);
        }
        self.state.apply_settle(lsn, op).map_err(|_: StoreError| RecoverError::Dangling { lsn })
    }

    fn settle_counters(&mut self, lsn: u64, op: &SettleOp) -> Result<(), RecoverError> {
        let dangling = || RecoverError::Dangling { lsn };
        let kept = self.state.reservations.get(&op.id).filter(|kept| kept.seq == op.seq);
        // Settled on disk, or displaced by a later reservation with the same id.
        let record = kept.map(|kept| &kept.record).or_else(|| self.versions.get(&op.seq));
        let record = Arc::clone(record.ok_or_else(dangling)?);
        let held = record.holds.iter().chain(op.extras.iter().map(Extra::hold));
        let counters = &self.state.counters;
        let slots: Option<Vec<u32>> = held.map(|hold| counters.find(hold.counter)).collect();
        let slots = slots.ok_or_else(dangling)?;
        // It reports again what it reported, to the counters that have not seen it.
        let reported: Vec<_> =
            op.reported.iter().map(|(counter, amount)| (*counter, vec![*amount])).collect();
        let booking = Booking { slots: &slots, holds: &record.holds, actual: &op.actual, extras: &op.extras };
        self.state.settle_counters(lsn, (op.settled_at, record.reserved_at), &booking, &reported);
        Ok(())
    }
}
