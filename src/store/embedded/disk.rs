//! The SQLite database: its schema, what the writer writes in one transaction, and what is read back.
//!
//! Every row carries the `lsn` of the op that last changed it, and is written in the transaction of the journal up to
//! that op or a later one. So rows may be written at any time and in any order: replaying the journal over them skips
//! what a row has already seen.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params, types::Type};

use super::{
    counters::CounterRow,
    gates,
    segment::{self, Entry, Location, Records, Segment},
    spend::LineRow,
    state::ReservationRow,
    wire::{Malformed, kind_from_int, kind_to_int},
};
use crate::domain::{
    Timestamp,
    counter::{Counter, CounterKey},
};
use crate::store::{Cooldown, SpendAmounts, SpendKey};

/// The version of the schema below, kept in SQLite's `user_version`.
pub(super) const SCHEMA: i64 = 3;

const CREATE: &str = "
    CREATE TABLE journal (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, ops BLOB NOT NULL);
    CREATE TABLE progress (
        one INTEGER PRIMARY KEY CHECK (one = 1), covered INTEGER NOT NULL, forgotten INTEGER NOT NULL);
    INSERT INTO progress VALUES (1, 0, 0);
    CREATE TABLE counters (
        slot INTEGER PRIMARY KEY, name TEXT NOT NULL, period INTEGER NOT NULL, kind INTEGER NOT NULL,
        lsn INTEGER NOT NULL, counter BLOB NOT NULL);
    CREATE TABLE segments (
        number INTEGER PRIMARY KEY, settled INTEGER NOT NULL, forget_at INTEGER NOT NULL, lsn INTEGER NOT NULL,
        entries BLOB NOT NULL, terms BLOB NOT NULL, records BLOB NOT NULL);
    CREATE INDEX segments_by_end ON segments (forget_at);
    CREATE TABLE gates (
        name TEXT NOT NULL, period INTEGER NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (name, period)) WITHOUT ROWID;
    CREATE TABLE spend (
        month INTEGER NOT NULL, team TEXT NOT NULL, day INTEGER NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL,
        cost_nanos INTEGER NOT NULL, requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
        cached_input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
        audio_ms INTEGER NOT NULL, characters INTEGER NOT NULL, lsn INTEGER NOT NULL,
        PRIMARY KEY (month, team, day, model, key)) WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// From schema 1 to 2: the registry and the uses of secrets. Neither is in the journal; `registry.rs` writes them.
const TO_2: &str = "
    CREATE TABLE registry (name TEXT PRIMARY KEY, version INTEGER NOT NULL UNIQUE, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE uses (
        secret INTEGER NOT NULL, slot INTEGER NOT NULL, requests INTEGER NOT NULL,
        PRIMARY KEY (secret, slot)) WITHOUT ROWID;
    CREATE TABLE last_uses (secret INTEGER PRIMARY KEY, at INTEGER NOT NULL);
    PRAGMA user_version = 2;
";

const LINE: &str = "SELECT month, team, day, model, key, cost_nanos, requests, input_tokens, cached_input_tokens, \
     output_tokens, reasoning_tokens, audio_ms, characters, lsn FROM spend";

/// Journal rows removed in one transaction, so that no commit is much longer than another.
const TRUNCATED_AT_ONCE: i64 = 64;

/// What the writer puts on disk in one transaction.
#[derive(Default)]
pub(super) struct Batch {
    /// The first and the last op of `ops`; `last < first` where there are none.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) ops: Vec<u8>,
    pub(super) counters_gone: Vec<u32>,
    pub(super) counters: Vec<CounterRow>,
    pub(super) segments_gone: Vec<u64>,
    /// The latest time at which any of those were over.
    pub(super) forgotten: Timestamp,
    pub(super) segments: Vec<Segment>,
    pub(super) lines: Vec<LineRow>,
    pub(super) gates: Option<Vec<(CounterKey, Cooldown)>>,
    /// Remove journal rows up to this op, a bounded number of them.
    pub(super) truncate: Option<u64>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        let rows = self.counters.len() + self.segments.len() + self.lines.len();
        let gone = self.counters_gone.len() + self.segments_gone.len();
        self.ops.is_empty() && rows + gone == 0 && self.gates.is_none() && self.truncate.is_none()
    }
}

/// A segment whose reservations are all over.
pub(super) struct Expired {
    pub(super) number: u64,
    pub(super) entries: Vec<Entry>,
}

/// Opens the database for writing. A connection waits for another's transaction for up to five seconds, as the library has it.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Room for every statement below; the default is 16.
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// The version of the schema as found; 0: an empty database.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(CREATE)?;
    transaction.execute_batch(TO_2)?;
    transaction.execute_batch(gates::TO_3)?;
    transaction.commit()
}

/// Brings a database of an earlier schema up to the present one.
pub(super) fn migrate(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    if found < 2 {
        transaction.execute_batch(TO_2)?;
    }
    if found < 3 {
        transaction.execute_batch(gates::TO_3)?;
    }
    transaction.commit()
}

/// Writes a batch. `true`: all of the journal that was to be removed is.
pub(super) fn commit(connection: &mut Connection, batch: &Batch) -> rusqlite::Result<bool> {
    // Immediate: it waits for a write of the registry. One that begins by reading could not, once that has written.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if batch.first <= batch.last {
        let mut insert =
            transaction.prepare_cached("INSERT INTO journal (last, first, ops) VALUES (?, ?, ?)")?;
        insert.execute(params![int(batch.last), int(batch.first), batch.ops])?;
    }
    write_counters(&transaction, batch)?;
    write_segments(&transaction, batch)?;
    write_lines(&transaction, &batch.lines)?;
    if let Some(gates) = &batch.gates {
        gates::write(&transaction, gates)?;
    }
    let truncated = batch.truncate.map_or(Ok(true), |covered| truncate(&transaction, covered))?;
    transaction.commit()?;
    Ok(truncated)
}

fn write_counters(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
    // Removals first: a slot that was emptied may already have its next counter.
    for slot in &batch.counters_gone {
        transaction.prepare_cached("DELETE FROM counters WHERE slot = ?")?.execute([slot])?;
    }
    for row in &batch.counters {
        let mut put =
            transaction.prepare_cached("INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?, ?)")?;
        let counter = encode_counter(&row.counter)?;
        let kind = int(kind_to_int(row.kind));
        put.execute(params![row.slot, row.key.name(), row.key.period(), kind, int(row.lsn), counter])?;
    }
    Ok(())
}

fn write_segments(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
    for number in &batch.segments_gone {
        transaction.prepare_cached("DELETE FROM segments WHERE number = ?")?.execute([int(*number)])?;
    }
    if !batch.segments_gone.is_empty() {
        let sql = "UPDATE progress SET forgotten = max(forgotten, ?)";
        transaction.prepare_cached(sql)?.execute([int(batch.forgotten.0)])?;
    }
    for segment in &batch.segments {
        let Segment { number, settled, forget_at, lsn, entries, terms, records } = segment;
        let sql = "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?)";
        let mut insert = transaction.prepare_cached(sql)?;
        insert.execute(params![
            int(*number),
            settled,
            int(forget_at.0),
            int(*lsn),
            entries,
            terms,
            records
        ])?;
    }
    Ok(())
}

fn write_lines(transaction: &Transaction<'_>, lines: &[LineRow]) -> rusqlite::Result<()> {
    for LineRow { key, amounts, lsn } in lines {
        let sql = "INSERT OR REPLACE INTO spend VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let [a, b, c, d, e, f, g, h] = amounts.to_numbers().map(int);
        let SpendKey { month, team, day, model, key } = key;
        transaction.prepare_cached(sql)?.execute(params![
            month,
            team,
            day,
            model,
            key,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            int(*lsn)
        ])?;
    }
    Ok(())
}

fn truncate(transaction: &Transaction<'_>, covered: u64) -> rusqlite::Result<bool> {
    let sql =
        "SELECT count(*), max(last) FROM (SELECT last FROM journal WHERE last <= ? ORDER BY last LIMIT ?)";
    let found = transaction.query_row(sql, [int(covered), TRUNCATED_AT_ONCE], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
    });
    let (count, last) = found?;
    if let Some(last) = last {
        transaction.execute("DELETE FROM journal WHERE last <= ?", [last])?;
        transaction.execute("UPDATE progress SET covered = ?", [last])?;
    }
    Ok(count < TRUNCATED_AT_ONCE)
}

/// At most `count` segments whose reservations are all over, and that no op after `covered` mentions.
pub(super) fn expired(
    connection: &Connection,
    now: Timestamp,
    covered: u64,
    count: u32,
) -> rusqlite::Result<Vec<Expired>> {
    let sql = "SELECT number, entries FROM segments WHERE forget_at <= ? AND lsn <= ? LIMIT ?";
    let mut select = connection.prepare_cached(sql)?;
    let rows = select.query_map([int(now.0), int(covered), i64::from(count)], |row| {
        Ok(Expired { number: uint(row, 0)?, entries: entries_of(row, 1)? })
    })?;
    rows.collect()
}

/// The last op that the tables hold everything of, and the latest time at which a reservation was forgotten.
pub(super) fn progress(connection: &Connection) -> rusqlite::Result<(u64, Timestamp)> {
    let sql = "SELECT covered, forgotten FROM progress";
    connection.query_row(sql, [], |row| Ok((uint(row, 0)?, Timestamp(uint(row, 1)?))))
}

/// Hands each journal row on, in order: its first and its last op, and the ops.
pub(super) fn journal<E: From<rusqlite::Error>>(
    connection: &Connection,
    mut each: impl FnMut(u64, u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut select = connection.prepare("SELECT first, last, ops FROM journal ORDER BY last")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        each(uint(row, 0)?, uint(row, 1)?, blob(row, 2)?)?;
    }
    Ok(())
}

pub(super) fn counters(connection: &Connection, mut each: impl FnMut(CounterRow)) -> rusqlite::Result<()> {
    let mut select = connection.prepare("SELECT slot, name, period, kind, lsn, counter FROM counters")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
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

/// Hands on where each reservation is, segment by segment; the open ones whole.
pub(super) fn reservations(
    connection: &Connection,
    mut each: impl FnMut(Entry, Location, Option<ReservationRow>),
) -> rusqlite::Result<u64> {
    let sql = "SELECT number, settled, entries, terms, records FROM segments ORDER BY number";
    let mut select = connection.prepare(sql)?;
    let mut rows = select.query([])?;
    let mut last = 0;
    while let Some(row) = rows.next()? {
        last = uint(row, 0)?;
        let open = if row.get(1)? { None } else { Some(records_of(row, 3)?) };
        for (entry, place) in entries_of(row, 2)?.into_iter().zip(0..) {
            let whole = open.as_ref().map(|records| records.read(&entry));
            let whole = whole.transpose().map_err(|Malformed| misshapen(4))?;
            each(entry, Location { segment: last, place }, whole);
        }
    }
    Ok(last)
}

/// The reservation at `at`, if its segment is still there.
pub(super) fn reservation(connection: &Connection, at: Location) -> rusqlite::Result<Option<ReservationRow>> {
    let sql = "SELECT entries, terms, records FROM segments WHERE number = ?";
    let mut select = connection.prepare_cached(sql)?;
    let found = select.query_row([int(at.segment)], |row| {
        let place = usize::try_from(at.place).map_err(|_| misshapen(0))?;
        let entry = entries_of(row, 0)?.get(place).copied().ok_or_else(|| misshapen(0))?;
        records_of(row, 1)?.read(&entry).map_err(|Malformed| misshapen(2))
    });
    found.optional()
}

fn entries_of(row: &Row<'_>, at: usize) -> rusqlite::Result<Vec<Entry>> {
    segment::entries(blob(row, at)?).map_err(|Malformed| misshapen(at))
}

/// From the columns `terms`, at `at`, and `records`, after it.
fn records_of<'a>(row: &'a Row<'_>, at: usize) -> rusqlite::Result<Records<'a>> {
    Records::new(blob(row, at)?, blob(row, at + 1)?).map_err(|Malformed| misshapen(at))
}

/// The lines from `month` on.
pub(super) fn lines_from(connection: &Connection, month: u32) -> rusqlite::Result<Vec<LineRow>> {
    let mut select = connection.prepare(&format!("{LINE} WHERE month >= ?"))?;
    let rows = select.query_map([month], line_of)?;
    rows.collect()
}

/// At most `count` lines of one team in one month, in order, from the first after `after` on.
pub(super) fn lines_of(
    connection: &Connection,
    (month, team): (u32, &str),
    after: Option<&SpendKey>,
    count: usize,
) -> rusqlite::Result<Vec<LineRow>> {
    let sql = format!(
        "{LINE} WHERE month = ? AND team = ? AND (day, model, key) > (?, ?, ?) ORDER BY day, model, key LIMIT ?"
    );
    let (day, model, key) = after.map_or((0, "", ""), |after| (after.day, &*after.model, &*after.key));
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let mut select = connection.prepare_cached(&sql)?;
    let rows = select.query_map(params![month, team, day, model, key, count], line_of)?;
    rows.collect()
}

pub(super) fn line(connection: &Connection, key: &SpendKey) -> rusqlite::Result<LineRow> {
    let sql = format!("{LINE} WHERE month = ? AND team = ? AND day = ? AND model = ? AND key = ?");
    let mut select = connection.prepare_cached(&sql)?;
    let found = select.query_row(params![key.month, key.team, key.day, key.model, key.key], line_of);
    let empty = || LineRow { key: key.clone(), amounts: SpendAmounts::default(), lsn: 0 };
    Ok(found.optional()?.unwrap_or_else(empty))
}

/// The teams with lines in one month, in order.
pub(super) fn teams(connection: &Connection, month: u32) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT DISTINCT team FROM spend WHERE month = ? AND team <> '' ORDER BY team";
    let mut select = connection.prepare_cached(sql)?;
    let rows = select.query_map([month], |row| row.get(0))?;
    rows.collect()
}

fn line_of(row: &Row<'_>) -> rusqlite::Result<LineRow> {
    let text = |at| row.get::<_, String>(at).map(std::sync::Arc::from);
    let key =
        SpendKey { month: row.get(0)?, team: text(1)?, day: row.get(2)?, model: text(3)?, key: text(4)? };
    let mut ints = [0; 8];
    for (int, at) in ints.iter_mut().zip(5..) {
        *int = uint(row, at)?;
    }
    Ok(LineRow { key, amounts: SpendAmounts::from_numbers(ints), lsn: uint(row, 13)? })
}

/// SQLite's integers are signed; what is past their end (a time that never comes) becomes the last of them.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn uint(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(at)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, value))
}

/// The counter, and behind it the thresholds that were reported, if any: rows of before there were any end where it ends.
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

fn misshapen(at: usize) -> rusqlite::Error {
    malformed(at, Malformed)
}

fn malformed(at: usize, cause: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, Type::Blob, Box::new(cause))
}
