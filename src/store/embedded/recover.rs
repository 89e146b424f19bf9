//! From the tables and the journal to the state in memory.

use std::sync::Arc;

use rusqlite::Connection;
use thiserror::Error;

use super::{
    disk::{self, Progress},
    gates,
    kept::{Kept, Own, ReservationRow},
    op::{self, Op, ReserveAloneOp, ReserveOp, SettleOp, TermOp, TermsOp},
    presharded::PreshardedMap,
    rows,
    settling::Booking,
    spend::{Resident, Spend},
    state::State,
    verify::Difference,
    wire::{Malformed, Reader},
};
use crate::domain::{
    Timestamp,
    counter::Hold,
    holds::{Holds, Term, Terms},
};
use crate::store::{Extra, StoreError};

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
    #[error("there are more reservations than the store can keep in memory")]
    TooMany,
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

/// The reservations on disk that the journal may mention, by their `seq`: when they were made, and what they hold.
type Versions = PreshardedMap<u64, (Timestamp, Holds)>;

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
    let resident = Resident::at(now);
    state.spend = Spend::new(resident);
    rows::resident(connection, resident, |line| state.spend.put(line))?;
    let Progress { covered, forgotten: seen, behind, .. } = disk::progress(connection)?;
    let (segment, versions) = load_reservations(connection, &mut state, covered)?;
    state.lsn = covered;
    state.time = seen;
    let mut replay = Replay { connection, state, versions, terms: Vec::new(), lost };
    disk::journal(connection, |first, last, ops| replay.play((first, last), ops))?;
    let Replay { mut state, lost, .. } = replay;
    state.counters.rebuild_free();
    // A reservation that was written as open and then settled is kept as settled at least as long as it would have been kept as
    // open. After that, possibly only the open version is left, which must not come back if the clock was set back.
    state.changed.make_due();
    state.reservations.retain(|kept| kept.dirty || !kept.is_open() || kept.forget_at() > seen);
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
    let mut full = false;
    let segment = disk::reservations(connection, covered, |entry, at, row| {
        if let Some(row) = row.as_ref().filter(|_| entry.lsn > covered) {
            // What the journal needs of it is the same in each version.
            versions.insert(entry.seq, (row.version.reserved_at(), row.version.holds()));
        }
        let lsn = latest.entry(entry.id).or_default();
        if entry.lsn <= *lsn {
            return;
        }
        *lsn = entry.lsn;
        match row.filter(|row| row.version.settlement().is_none()) {
            None => {
                state.reservations.remove(entry.id);
                state.archived.insert(entry.id, at);
            }
            Some(ReservationRow { id, seq, mut version, .. }) => {
                state.archived.remove(&id);
                version.terms = state.terms.share(version.terms);
                let kept = Kept { seq, version, dirty: false, was_written_open: true };
                full |= state.reservations.insert(id, kept).is_none();
            }
        }
    })?;
    if full { Err(RecoverError::TooMany) } else { Ok((segment, versions)) }
}

struct Replay<'a> {
    connection: &'a Connection,
    state: State,
    versions: Versions,
    /// Those that the present row of the journal defines, with the slots of their counters; `None`: those are not known.
    terms: Vec<Option<(Arc<Terms>, Vec<u32>)>>,
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
        self.terms.clear();
        let mut reader = Reader(ops);
        while !reader.is_empty() {
            let lsn = self.state.lsn + 1;
            let op = op::read(&mut reader).map_err(|Malformed| RecoverError::Malformed { lsn })?;
            match op {
                Op::Define { slot, key, kind } => self.state.counters.define(lsn, slot, key, kind),
                Op::Terms(terms) => {
                    let terms = self.resolve(terms);
                    self.terms.push(terms);
                }
                Op::Reserve(op) => {
                    let played = self.reserve(lsn, &op);
                    self.unless_lost(played)?;
                }
                Op::ReserveAlone(op) => {
                    let played = self.reserve_alone(lsn, op);
                    self.unless_lost(played)?;
                }
                Op::Settle(op) => self.settle(lsn, op)?,
                Op::Cooldown(op) => self.state.apply_cooldown(op),
                Op::AddRows(rows) => self.add_rows(lsn, &rows)?,
            }
            self.state.lsn = lsn;
        }
        if self.state.lsn == last { Ok(()) } else { Err(RecoverError::Missing { lsn: self.state.lsn + 1 }) }
    }

    /// Passes on why a reservation cannot be played, unless that is permitted.
    fn unless_lost(&mut self, played: Result<(), RecoverError>) -> Result<(), RecoverError> {
        match (played, &mut self.lost) {
            (Err(RecoverError::Dangling { .. }), Some(lost)) => lost.reservations += 1,
            (played, _) => return played,
        }
        Ok(())
    }

    /// The terms and the slots of their counters; `None` if one of those is not known.
    fn resolve(&mut self, op: TermsOp) -> Option<(Arc<Terms>, Vec<u32>)> {
        let counters = &self.state.counters;
        let term = |TermOp { slot, kind, limit, class }: &TermOp| {
            let counter = counters.key(*slot)?.clone();
            Some(Term { counter, kind: *kind, limit: *limit, class: *class })
        };
        let terms = Terms::new(op.terms.iter().map(term).collect::<Option<Vec<_>>>()?, op.note);
        let terms = self.state.terms.share(Arc::new(terms));
        Some((terms, op.terms.iter().map(|term| term.slot).collect()))
    }

    fn reserve(&mut self, lsn: u64, op: &ReserveOp) -> Result<(), RecoverError> {
        let known = self.terms.get(op.terms).ok_or(RecoverError::Malformed { lsn })?;
        let (terms, slots) = known.as_ref().ok_or(RecoverError::Dangling { lsn })?;
        let own = Own::read(&op.own, terms).map_err(|Malformed| RecoverError::Malformed { lsn })?;
        self.state.apply_holds(lsn, own.reserved_at(), &own.holds(terms), slots);
        let terms = Arc::clone(terms);
        self.keep(lsn, op.id, terms, own)
    }

    fn reserve_alone(&mut self, lsn: u64, op: ReserveAloneOp) -> Result<(), RecoverError> {
        let slots: Vec<u32> = op.holds.iter().map(|hold| hold.slot).collect();
        let mut holds = Vec::with_capacity(op.holds.len());
        for hold in op.holds {
            let counter = self.state.counters.key(hold.slot).ok_or(RecoverError::Dangling { lsn })?.clone();
            let (kind, limit, kept, expiring) = (hold.kind, hold.limit, hold.kept, hold.expiring);
            holds.push(Hold { counter, kind, limit, kept, expiring });
        }
        let holds = Holds::from(holds);
        self.state.apply_holds(lsn, op.reserved_at, &holds, &slots);
        let spans = (op.expires_at.since(op.reserved_at), op.forget_at.since(op.expires_at));
        let own = Own::new((op.fingerprint, op.reserved_at), spans, &holds, &op.note);
        let terms = self.state.terms.share(Arc::clone(holds.terms()));
        self.keep(lsn, op.id, terms, own)
    }

    fn keep(&mut self, lsn: u64, id: u128, terms: Arc<Terms>, own: Own) -> Result<(), RecoverError> {
        // The version on disk is this reservation or a later state of it.
        if self.versions.contains_key(&lsn) {
            return Ok(());
        }
        self.state.apply_open(lsn, id, terms, own).map_err(|_: StoreError| RecoverError::TooMany)
    }

    fn settle(&mut self, lsn: u64, op: SettleOp) -> Result<(), RecoverError> {
        match (self.settle_counters(lsn, &op), &mut self.lost) {
            (Err(RecoverError::Dangling { .. }), Some(lost)) => lost.settlements += 1,
            (settled, _) => settled?,
        }
        self.read_absent(&op.lines)?;
        self.state.apply_settle(lsn, op).map(drop).map_err(|_: StoreError| RecoverError::Dangling { lsn })
    }

    fn add_rows(&mut self, lsn: u64, rows: &op::Rows) -> Result<(), RecoverError> {
        self.read_absent(rows)?;
        self.state.apply_rows(lsn, rows).map_err(|_: StoreError| RecoverError::Dangling { lsn })
    }

    /// Reads the rows that are not in memory.
    fn read_absent(&mut self, rows: &op::Rows) -> Result<(), RecoverError> {
        for key in self.state.spend.absent(rows.iter().map(|(key, _)| key)) {
            self.state.spend.put(rows::one(self.connection, &key)?);
        }
        Ok(())
    }

    fn settle_counters(&mut self, lsn: u64, op: &SettleOp) -> Result<(), RecoverError> {
        let dangling = || RecoverError::Dangling { lsn };
        let kept = self.state.reservations.get(op.id).filter(|kept| kept.seq == op.seq);
        let kept = kept.map(|kept| (kept.version.reserved_at(), kept.version.holds()));
        // Settled on disk, or displaced by a later reservation with the same id.
        let found = kept.or_else(|| self.versions.get(&op.seq).cloned());
        let (reserved_at, holds) = found.ok_or_else(dangling)?;
        let held = holds.iter().chain(op.extras.iter().map(Extra::hold));
        let counters = &self.state.counters;
        let slots: Option<Vec<u32>> = held.map(|hold| counters.find(hold.counter)).collect();
        let slots = slots.ok_or_else(dangling)?;
        // It reports again what it reported, to the counters that have not seen it.
        let reported: Vec<_> =
            op.reported.iter().map(|(counter, amount)| (*counter, vec![*amount])).collect();
        let booking = Booking { slots: &slots, holds: &holds, actual: &op.actual, extras: &op.extras };
        self.state.settle_counters(lsn, (op.settled_at, reserved_at), &booking, &reported);
        Ok(())
    }
}
