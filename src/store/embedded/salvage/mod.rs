//! Copies what can be read of a damaged store into a new directory.
//!
//! The damaged directory is only read. Its remaining rows go into a new database, and the remaining journal is replayed over
//! them. If counters and spend lines then show different sums, both get the larger, so no spend is forgotten and no budget is
//! granted twice.

mod pages;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection,
    types::{Value, ValueRef},
};
use thiserror::Error;

use self::pages::{Pages, Rows, int};
use super::{
    batch::Batch,
    disk::{self, Progress},
    error::OpenError,
    files::{self, Claim, DATABASE, WAL},
    opening, owner,
    recover::{self, Lost, RecoverError},
    rows as table,
    schema::{
        self, AUDIT, COUNTERS, DEPLOYMENT, GATES, JOURNAL, LAST_USES, OUTBOX, POLICIES, POLICY_DOCUMENTS,
        PROGRESS, REGISTRY, SEGMENTS, SPEND, USAGE, USES,
    },
    segment::Packing,
    state::State,
    sums,
    verify::{self, Difference},
};
use crate::{
    domain::{Timestamp, counter::CounterKind, policy::month_counter},
    runtime::clock::Clock,
    store::{UsageAmounts, UsageKey},
};

/// The model of the line that makes up for lost lines.
const SALVAGED_MODEL: &str = "(salvaged)";

/// How a dollar counter keeps its books until the next reservation says so itself.
const BUDGET: CounterKind = CounterKind::Budget { slot_ms: 10_000 };

/// Why nothing was salvaged.
#[derive(Debug, Error)]
pub enum SalvageError {
    /// The new directory cannot be created, or is not empty.
    #[error("cannot write into `{}`: {source}; name a directory that is not there yet", path.display())]
    To {
        /// The new directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The damaged store cannot be read at all.
    #[error("cannot read `{}`: {source}", path.display())]
    From {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A process has it open.
    #[error("the store in `{}` is open in another process; stop that first", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
    },
    /// None of its rows is what a store writes.
    #[error(
        "nothing in `{}` can be read: it is no store, or all of it is damaged",
        path.display()
    )]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
    /// The new store cannot be written, or does not open.
    #[error("cannot make the new store: {0}")]
    New(String),
}

/// The result: what was salvaged, and what was not.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// Rows read, by table, in the order of the tables' names.
    pub read: Vec<(&'static str, usize)>,
    /// The known losses, in sentences; empty: none are known.
    pub lost: Vec<String>,
}

/// Writes what can be read of the store in `from` into a new store in `to`.
///
/// # Errors
/// The one cannot be read at all, or the other cannot be created.
pub fn salvage(from: &Path, to: &Path, clock: &Clock) -> Result<Salvaged, SalvageError> {
    let failed = |error: OpenError| SalvageError::New(error.to_string());
    let sqlite = |error: rusqlite::Error| SalvageError::New(error.to_string());
    let source = Source::read(from)?;
    let (rows, damaged) = source.rows();
    let mut salvaged = Salvaged { read: count(&rows), lost: Vec::new() };
    if salvaged.read.is_empty() {
        return Err(SalvageError::Nothing { path: from.to_owned() });
    }
    files::create_private_directory(to).map_err(|source| SalvageError::To { path: to.to_owned(), source })?;
    {
        let claim = Claim::make(to).map_err(failed)?;
        let mut connection = disk::open(&claim.database()).map_err(sqlite)?;
        let progress = fill(&mut connection, &rows).map_err(sqlite)?;
        let recovered = recover::recover_what_is_left(&connection, clock.now())
            .map_err(|error| SalvageError::New(error.to_string()))?;
        let (mut state, mut lost) = (recovered.state, recovered.lost);
        // The next op has to be later than any that a row has seen, or a row would skip it in a replay.
        let newest = newest(&rows);
        if state.lsn < newest {
            lost.ops.push((state.lsn + 1, newest));
            state.lsn = newest;
        }
        let mut differences = verify::differences(&connection, &state).map_err(sqlite)?;
        differences.extend(verify::missing(&connection, &state).map_err(sqlite)?);
        salvaged.lost = losses(damaged, &source, progress.commits, &lost, &differences);
        for difference in &differences {
            settle_difference(&connection, &mut state, difference)
                .map_err(|error| SalvageError::New(error.to_string()))?;
        }
        write_all(&mut connection, progress, state, recovered.segment).map_err(sqlite)?;
    }
    opening::verify(to, clock).map_err(failed)?;
    Ok(salvaged)
}

/// The files of the damaged store.
struct Source {
    database: Vec<u8>,
    wal: Vec<u8>,
    /// A commit that was on disk.
    known: Option<u64>,
}

impl Source {
    fn read(from: &Path) -> Result<Self, SalvageError> {
        let read = |name: &str| {
            let path = from.join(name);
            match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                read => read.map_err(|source| SalvageError::From { path, source }),
            }
        };
        files::is_free(from).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => SalvageError::Open { path: from.to_owned() },
            _ => SalvageError::From { path: from.to_owned(), source },
        })?;
        Ok(Self { database: read(DATABASE)?, wal: read(WAL)?, known: owner::last_commit(from) })
    }

    fn rows(&self) -> (Rows, u64) {
        let mut rows = Rows::default();
        let damaged = Pages::new(self.database.clone(), &self.wal).rows(|found| rows.keep(found));
        (rows, damaged)
    }
}

fn count(rows: &Rows) -> Vec<(&'static str, usize)> {
    let tables = [
        &AUDIT,
        &COUNTERS,
        &GATES,
        &JOURNAL,
        &OUTBOX,
        &POLICIES,
        &POLICY_DOCUMENTS,
        &REGISTRY,
        &SEGMENTS,
        &SPEND,
        &USAGE,
    ];
    let counts = tables.map(|table| (table.name, rows.of(table).count()));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// Writes the rows into an empty database. Entries that have ended are left out, as old pages still hold those too.
fn fill(connection: &mut Connection, rows: &Rows) -> rusqlite::Result<Progress> {
    let progress = progress(rows);
    schema::create(connection, |transaction| {
        disk::put_progress(transaction, &progress)?;
        let put = |table, values: &[Value]| {
            let values: Vec<_> = values.iter().map(ValueRef::from).collect();
            sums::put(transaction, table, &values)
        };
        // Pages of before the update to layout 6 may remain. What became of those rows takes their place.
        rows.of(&SPEND).try_for_each(|values| table::put(transaction, &table::of_earlier(values)))?;
        for table in [
            &GATES,
            &USAGE,
            &REGISTRY,
            &USES,
            &LAST_USES,
            &DEPLOYMENT,
            &AUDIT,
            &OUTBOX,
            &POLICIES,
            &POLICY_DOCUMENTS,
        ] {
            rows.of(table).try_for_each(|values| put(table, values))?;
        }
        // Of two counters in one slot, the later one is there now.
        let mut counters: Vec<_> = rows.of(&COUNTERS).collect();
        counters.sort_by_key(|values| values.get(4).map(int));
        counters.into_iter().try_for_each(|values| put(&COUNTERS, values))?;
        let forgotten = i64::try_from(progress.forgotten.0).unwrap_or(i64::MAX);
        let kept = |values: &&[Value]| values.get(2).is_some_and(|forget_at| int(forget_at) > forgotten);
        rows.of(&SEGMENTS).filter(kept).try_for_each(|values| put(&SEGMENTS, values))?;
        let covered = i64::try_from(progress.covered).unwrap_or(i64::MAX);
        let open = |values: &&[Value]| values.first().is_some_and(|last| int(last) > covered);
        rows.of(&JOURNAL).filter(open).try_for_each(|values| put(&JOURNAL, values))
    })?;
    Ok(progress)
}

/// The last op that any row mentions.
fn newest(rows: &Rows) -> u64 {
    let places = [(&COUNTERS, 4), (&SPEND, 13), (&USAGE, 12), (&SEGMENTS, 3), (&JOURNAL, 0)];
    let ops =
        places.into_iter().flat_map(|(table, at)| rows.of(table).map(move |values| unsigned(values.get(at))));
    ops.max().unwrap_or(0)
}

fn unsigned(value: Option<&Value>) -> u64 {
    value.map_or(0, |value| u64::try_from(int(value)).unwrap_or(0))
}

/// How far the store had come; if that is lost, everything before the journal is assumed to be in the tables.
fn progress(rows: &Rows) -> Progress {
    match rows.of(&PROGRESS).next() {
        Some(values) => Progress {
            covered: unsigned(values.get(1)),
            forgotten: Timestamp(unsigned(values.get(2))),
            commits: unsigned(values.get(3)),
            owner: [0; 16],
            behind: unsigned(values.get(5)),
        },
        None => {
            let first = rows.of(&JOURNAL).map(|values| unsigned(values.get(1))).min();
            let seen = rows.of(&COUNTERS).map(|values| unsigned(values.get(4)));
            let seen = seen.chain(rows.of(&SPEND).map(|values| unsigned(values.get(13))));
            let seen = seen.chain(rows.of(&USAGE).map(|values| unsigned(values.get(12)))).max();
            let covered = first.map_or(seen.unwrap_or(0), |first| first.saturating_sub(1));
            Progress { covered, forgotten: Timestamp(0), commits: 0, owner: [0; 16], behind: 0 }
        }
    }
}

/// Gives a counter and the lines of its month the same sum: the larger.
fn settle_difference(
    connection: &Connection,
    state: &mut State,
    difference: &Difference,
) -> Result<(), RecoverError> {
    let Difference { month, team, counter, lines } = difference;
    let first_day = month.saturating_mul(100) + 1;
    state.lsn += 2;
    let lsn = state.lsn;
    if counter < lines {
        let key = month_counter(team).in_period(first_day);
        if state.counters.find(&key).is_none()
            && let Some(slot) = state.counters.vacancy()
        {
            state.counters.define(lsn - 1, slot, key.clone(), BUDGET);
        }
        state.counters.settle_more(lsn, &key, lines - counter);
        return Ok(());
    }
    let key = UsageKey::of_day(*month, team.clone(), first_day, SALVAGED_MODEL.into(), "".into());
    let amounts = UsageAmounts { cost_nanos: counter - lines, ..UsageAmounts::default() };
    if !state.spend.has(&key) {
        state.spend.put(table::one(connection, &key)?);
    }
    state.spend.add(lsn, &key, &amounts).map_err(|_| RecoverError::Dangling { lsn })
}

/// Writes everything that the journal changed to the tables, and empties the journal.
fn write_all(
    connection: &mut Connection,
    mut progress: Progress,
    mut state: State,
    segment: u64,
) -> rusqlite::Result<()> {
    let mut batch = Batch { first: 1, last: 0, ..Batch::default() };
    let mut packing = Packing::default();
    std::mem::take(&mut state.displaced).iter().for_each(|row| packing.put(row));
    for place in state.changed.begin_round(true).into_iter().flatten() {
        state.capture(place).iter().for_each(|row| packing.put(row));
    }
    (batch.segments, _) = packing.finish(segment);
    let slots = state.counters.take_dirty();
    batch.counters.extend(slots.into_iter().filter_map(|slot| state.counters.capture(slot)));
    let keys = state.spend.take_dirty();
    batch.lines.extend(keys.iter().filter_map(|key| state.spend.capture(key)));
    batch.gates = Some(state.gates.iter().map(|(gate, cooldown)| (gate.clone(), cooldown.clone())).collect());
    let transaction = connection.transaction()?;
    disk::write(&transaction, &mut progress, &batch)?;
    transaction.execute("DELETE FROM journal", [])?;
    progress.covered = state.lsn;
    progress.commits += 1;
    disk::put_progress(&transaction, &progress)?;
    transaction.commit()
}

/// The losses, as far as the remains show them.
fn losses(
    damaged: u64,
    source: &Source,
    commits: u64,
    lost: &Lost,
    differences: &[Difference],
) -> Vec<String> {
    let mut told = Vec::new();
    if damaged > 0 {
        told.push(format!("{damaged} rows or pages fail their check sums or cannot be read; limits whose counters were there begin at zero"));
    }
    if let Some(known) = source.known.filter(|known| *known > commits) {
        let missing = known - commits;
        told.push(format!("the last {missing} of {known} commits are not there: what they recorded, a few milliseconds each, is lost"));
    }
    for (first, last) in &lost.ops {
        told.push(format!("ops {first} to {last} of the journal: reservations and records between what is before and after them"));
    }
    if lost.reservations > 0 {
        told.push(format!(
            "{} reservations count against no limit, as their counters are lost",
            lost.reservations
        ));
    }
    if lost.settlements > 0 {
        told.push(format!(
            "{} records are in the spend lines, and not in every counter, as their reservations are lost",
            lost.settlements
        ));
    }
    for difference in differences {
        let Difference { counter, lines, .. } = difference;
        let done = if counter < lines {
            format!("the counter was raised by {}", verify::dollars(lines - counter))
        } else {
            format!("a line of model `{SALVAGED_MODEL}` was added with {}", verify::dollars(counter - lines))
        };
        told.push(format!("{difference}: {done}"));
    }
    told
}
