//! The SQLite database: what the writer writes in one transaction, and what is read back.
//!
//! Every row carries the `lsn` of the op that last changed it, and is written in the same transaction as the journal up to that
//! op or a later one. So rows may be written at any time and in any order: replaying the journal over them skips the ops that a
//! row has already seen.

use std::path::Path;

use rusqlite::{
    Connection, OptionalExtension, Row, Transaction,
    config::DbConfig,
    types::{Type, ValueRef},
};

use super::{
    batch::Batch,
    counters::CounterRow,
    gates,
    kept::ReservationRow,
    outbox, rows, schema,
    segment::{self, Entry, Location, Records},
    sums,
    wire::{Malformed, kind_from_int, kind_to_int},
};
use crate::domain::{
    Timestamp,
    counter::{Counter, CounterKey},
};

/// Journal rows removed in one transaction, so no commit takes much longer than another. Few in tests, so a crash comes in between.
const TRUNCATED_AT_ONCE: i64 = if cfg!(test) { 2 } else { 64 };

/// A segment whose reservations have all ended.
pub(super) struct Expired {
    pub(super) number: u64,
    pub(super) entries: Vec<Entry>,
}

/// Opens the database for writing. A connection waits up to five seconds for another's transaction, which is the library's
/// default.
///
/// Until it is [trusted](trust), closing it leaves the write-ahead log as it was: SQLite would move what it can read of the log
/// into the database and delete the log, and with it what salvaging could still read.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    open_prepared(path, |_| Ok(()))
}

/// Opens a database for which the same holds as for the store's: a commit is on the disk. `prepare` comes before anything is written.
pub(crate) fn open_database(
    path: &Path,
    prepare: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<Connection> {
    open_prepared(path, prepare).and_then(trust)
}

fn open_prepared(
    path: &Path,
    prepare: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    prepare(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // This finds damage to the structure of a page when the page is read.
    connection.pragma_update(None, "cell_size_check", true)?;
    // A plan does not depend on what is bound to it: SQLite would compile a statement again whenever the bound of a range changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Room for every statement below; the default is 16.
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// The data was found whole: from now on the write-ahead log is emptied when the last connection closes.
pub(super) fn trust(connection: Connection) -> rusqlite::Result<Connection> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}

/// Moves everything from the write-ahead log into the database, and empties it.
pub(super) fn empty_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// How far the store has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The last op whose effects are all in the tables.
    pub(super) covered: u64,
    /// The latest time at which a reservation was forgotten.
    pub(super) forgotten: Timestamp,
    /// Transactions so far.
    pub(super) commits: u64,
    /// The process that made the last of them.
    pub(super) owner: [u8; 16],
    /// How far the store's time was behind the wall clock, in milliseconds; 0 if it was not.
    pub(super) behind: u64,
}

pub(super) fn progress(connection: &Connection) -> rusqlite::Result<Progress> {
    let mut select = connection.prepare_cached("SELECT * FROM progress")?;
    select.query_row([], |row| {
        sums::check(row, &schema::PROGRESS)?;
        let owner = blob(row, 4)?.try_into().map_err(|_| misshapen(4))?;
        let (covered, forgotten) = (uint(row, 1)?, Timestamp(uint(row, 2)?));
        Ok(Progress { covered, forgotten, commits: uint(row, 3)?, owner, behind: uint(row, 5)? })
    })
}

pub(super) fn put_progress(connection: &Connection, progress: &Progress) -> rusqlite::Result<()> {
    let Progress { covered, forgotten, commits, owner, behind } = progress;
    let [covered, forgotten, commits, behind] = [*covered, forgotten.0, *commits, *behind].map(number);
    let values = [number(1), covered, forgotten, commits, ValueRef::Blob(owner), behind];
    sums::put(connection, &schema::PROGRESS, &values)
}

/// Writes a batch. `true`: all of the journal that was to be removed is removed.
pub(super) fn write(
    transaction: &Transaction<'_>,
    progress: &mut Progress,
    batch: &Batch,
) -> rusqlite::Result<bool> {
    if batch.first <= batch.last {
        put_journal(transaction, (batch.first, batch.last), &batch.ops)?;
    }
    for entry in &batch.outbox {
        outbox::put_new(transaction, entry)?;
    }
    write_counters(transaction, batch)?;
    write_segments(transaction, batch)?;
    batch.lines.iter().try_for_each(|line| rows::put(transaction, line))?;
    if let Some(ended) = &batch.usage_gone {
        rows::forget(transaction, ended)?;
    }
    // If the clock is set back, reservations that had ended by then must not come back, and the store's time must not go back.
    progress.forgotten = progress.forgotten.max(batch.seen);
    progress.behind = batch.behind.unwrap_or(progress.behind);
    if let Some(gates) = &batch.gates {
        gates::write(transaction, gates)?;
    }
    match batch.truncate {
        Some(covered) => truncate(transaction, progress, covered),
        None => Ok(true),
    }
}

pub(super) fn put_journal(
    connection: &Connection,
    (first, last): (u64, u64),
    ops: &[u8],
) -> rusqlite::Result<()> {
    sums::put(connection, &schema::JOURNAL, &[number(last), number(first), ValueRef::Blob(ops)])
}

fn write_counters(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
    // Removals first: an emptied slot may already have its next counter.
    for slot in &batch.counters_gone {
        transaction.prepare_cached("DELETE FROM counters WHERE slot = ?")?.execute([slot])?;
    }
    for row in &batch.counters {
        let counter = encode_counter(&row.counter)?;
        let [slot, period] = [row.slot, row.key.period()].map(|n| number(u64::from(n)));
        let (kind, lsn) = (number(kind_to_int(row.kind)), number(row.lsn));
        let values = [slot, text(row.key.name()), period, kind, lsn, ValueRef::Blob(&counter)];
        sums::put(transaction, &schema::COUNTERS, &values)?;
    }
    Ok(())
}

fn write_segments(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
    for number in &batch.segments_gone {
        transaction.prepare_cached("DELETE FROM segments WHERE number = ?")?.execute([int(*number)])?;
    }
    for segment in &batch.segments {
        let ints = [segment.number, u64::from(segment.settled), segment.forget_at.0, segment.lsn].map(number);
        let blobs = [&segment.entries, &segment.terms, &segment.records].map(|bytes| ValueRef::Blob(bytes));
        let values: Vec<_> = ints.into_iter().chain(blobs).collect();
        sums::put(transaction, &schema::SEGMENTS, &values)?;
    }
    Ok(())
}

fn truncate(transaction: &Transaction<'_>, progress: &mut Progress, covered: u64) -> rusqlite::Result<bool> {
    let sql =
        "SELECT count(*), max(last) FROM (SELECT last FROM journal WHERE last <= ? ORDER BY last LIMIT ?)";
    let found = transaction.query_row(sql, [int(covered), TRUNCATED_AT_ONCE], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
    });
    let (count, last) = found?;
    if let Some(last) = last {
        transaction.execute("DELETE FROM journal WHERE last <= ?", [last])?;
        progress.covered = u64::try_from(last).unwrap_or(progress.covered);
    }
    Ok(count < TRUNCATED_AT_ONCE)
}

/// At most `count` segments whose reservations have all ended and that no op after `covered` mentions.
pub(super) fn expired(
    connection: &Connection,
    now: Timestamp,
    covered: u64,
    count: u32,
) -> rusqlite::Result<Vec<Expired>> {
    let sql = "SELECT * FROM segments WHERE forget_at <= ? AND lsn <= ? LIMIT ?";
    let mut select = connection.prepare_cached(sql)?;
    let rows = select.query_map([int(now.0), int(covered), i64::from(count)], |row| {
        sums::check(row, &schema::SEGMENTS)?;
        Ok(Expired { number: uint(row, 0)?, entries: entries_of(row, 4)? })
    })?;
    rows.collect()
}

/// Passes each journal row on, in order: its first and its last op, and the ops.
pub(super) fn journal<E: From<rusqlite::Error>>(
    connection: &Connection,
    mut each: impl FnMut(u64, u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut select = connection.prepare("SELECT * FROM journal ORDER BY last")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        sums::check(row, &schema::JOURNAL)?;
        each(uint(row, 1)?, uint(row, 0)?, blob(row, 2)?)?;
    }
    Ok(())
}

pub(super) fn counters(connection: &Connection, mut each: impl FnMut(CounterRow)) -> rusqlite::Result<()> {
    let mut select = connection.prepare("SELECT * FROM counters")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        sums::check(row, &schema::COUNTERS)?;
        let kind = kind_from_int(uint(row, 3)?).map_err(|Malformed| misshapen(3))?;
        let key = CounterKey::new(row.get::<_, String>(1)?).in_period(row.get(2)?);
        each(CounterRow {
            slot: row.get(0)?,
            key,
            kind,
            lsn: uint(row, 4)?,
            counter: decode_counter(row, 5)?,
        });
    }
    Ok(())
}

/// Passes on where each reservation is, segment by segment; those that are open, or that an op after `covered` changed, with their
/// contents.
pub(super) fn reservations(
    connection: &Connection,
    covered: u64,
    mut each: impl FnMut(Entry, Location, Option<ReservationRow>),
) -> rusqlite::Result<u64> {
    let sql = "SELECT * FROM segments ORDER BY number";
    let mut select = connection.prepare(sql)?;
    let mut rows = select.query([])?;
    let mut last = 0;
    while let Some(row) = rows.next()? {
        sums::check(row, &schema::SEGMENTS)?;
        last = uint(row, 0)?;
        let (settled, lsn) = (row.get::<_, bool>(1)?, uint(row, 3)?);
        let records = if settled && lsn <= covered { None } else { Some(records_of(row, 5)?) };
        for (entry, place) in entries_of(row, 4)?.into_iter().zip(0..) {
            let records = records.as_ref().filter(|_| !settled || entry.lsn > covered);
            let whole = records.map(|records| records.read(&entry));
            let whole = whole.transpose().map_err(|Malformed| misshapen(6))?;
            each(entry, Location { segment: last, place }, whole);
        }
    }
    Ok(last)
}

/// The reservation at `at`, if its segment is still there.
pub(super) fn reservation(connection: &Connection, at: Location) -> rusqlite::Result<Option<ReservationRow>> {
    let sql = "SELECT * FROM segments WHERE number = ?";
    let mut select = connection.prepare_cached(sql)?;
    let found = select.query_row([int(at.segment)], |row| {
        sums::check(row, &schema::SEGMENTS)?;
        let place = usize::try_from(at.place).map_err(|_| misshapen(4))?;
        let entry = entries_of(row, 4)?.get(place).copied().ok_or_else(|| misshapen(4))?;
        records_of(row, 5)?.read(&entry).map_err(|Malformed| misshapen(6))
    });
    found.optional()
}

fn entries_of(row: &Row<'_>, at: usize) -> rusqlite::Result<Vec<Entry>> {
    segment::entries(blob(row, at)?).map_err(|Malformed| misshapen(at))
}

/// The records from the columns `terms`, at `at`, and `records`, after it.
fn records_of<'a>(row: &'a Row<'_>, at: usize) -> rusqlite::Result<Records<'a>> {
    Records::new(blob(row, at)?, blob(row, at + 1)?).map_err(|Malformed| misshapen(at))
}

pub(super) fn number(value: u64) -> ValueRef<'static> {
    ValueRef::Integer(int(value))
}

pub(super) const fn text(value: &str) -> ValueRef<'_> {
    ValueRef::Text(value.as_bytes())
}

/// SQLite's integers are signed; anything beyond their range (a time that never comes) becomes the largest.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn uint(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(at)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, value))
}

/// The counter, followed by the reported thresholds, if any: rows from before thresholds existed end where the counter does.
fn encode_counter(counter: &Counter) -> rusqlite::Result<Vec<u8>> {
    let failed = |e| rusqlite::Error::ToSqlConversionFailure(Box::new(e));
    let bytes = postcard::to_stdvec(counter).map_err(failed)?;
    match counter.reported() {
        [] => Ok(bytes),
        reported => postcard::to_extend(reported, bytes).map_err(failed),
    }
}

fn decode_counter(row: &Row<'_>, at: usize) -> rusqlite::Result<Counter> {
    let failed = |e| malformed(at, e);
    let (counter, rest) = postcard::take_from_bytes::<Counter>(blob(row, at)?).map_err(failed)?;
    match rest {
        [] => Ok(counter),
        rest => Ok(counter.with_reported(postcard::from_bytes(rest).map_err(failed)?)),
    }
}

pub(super) fn blob<'a>(row: &'a Row<'_>, at: usize) -> rusqlite::Result<&'a [u8]> {
    row.get_ref(at)?.as_blob().map_err(|e| malformed(at, e))
}

pub(super) fn misshapen(at: usize) -> rusqlite::Error {
    malformed(at, Malformed)
}

fn malformed(at: usize, cause: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, Type::Blob, Box::new(cause))
}
