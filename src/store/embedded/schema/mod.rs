//! The layout of the database: its tables, how an earlier layout becomes the present one, and the file's own name.

mod tables;

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, Transaction, types::ValueRef};

use self::tables::EARLIER_TABLES;
pub(super) use self::tables::{
    AUDIT, COUNTERS, DEPLOYMENT, GATES, JOURNAL, KNOWN_TABLES, LAST_USES, OUTBOX, POLICIES, POLICY_DOCUMENTS,
    PROGRESS, REGISTRY, SEGMENTS, SPEND, Table, USAGE, USES, added_since, tables,
};
use super::{rows, sums};

/// The version of the layout below, kept in SQLite's `user_version`.
pub(super) const LAYOUT: i64 = crate::store::LAYOUT as i64;
/// From this layout on rows have check sums and transactions are counted.
pub(super) const SUMMED: i64 = 3;
/// Identifies this application's files in SQLite's `application_id`: `Toll`.
pub(super) const APPLICATION: i64 = 0x546f_6c6c;

/// The tables since layout 3. Every row ends with its check sum (`sums.rs`). In `progress`, `commits` counts the transactions, `owner` is the
/// process that made the last of them, and `behind` is in milliseconds.
const CREATE: &str = "
    CREATE TABLE journal (
        last INTEGER PRIMARY KEY, first INTEGER NOT NULL, ops BLOB NOT NULL, sum INTEGER NOT NULL);
    CREATE TABLE progress (
        one INTEGER PRIMARY KEY CHECK (one = 1), covered INTEGER NOT NULL, forgotten INTEGER NOT NULL,
        commits INTEGER NOT NULL, owner BLOB NOT NULL, behind INTEGER NOT NULL, sum INTEGER NOT NULL);
    CREATE TABLE counters (
        slot INTEGER PRIMARY KEY, name TEXT NOT NULL, period INTEGER NOT NULL, kind INTEGER NOT NULL,
        lsn INTEGER NOT NULL, counter BLOB NOT NULL, sum INTEGER NOT NULL);
    CREATE TABLE segments (
        number INTEGER PRIMARY KEY, settled INTEGER NOT NULL, forget_at INTEGER NOT NULL, lsn INTEGER NOT NULL,
        entries BLOB NOT NULL, terms BLOB NOT NULL, records BLOB NOT NULL, sum INTEGER NOT NULL);
    CREATE INDEX segments_by_end ON segments (forget_at);
    CREATE TABLE gates (
        name TEXT NOT NULL, period INTEGER NOT NULL, until INTEGER NOT NULL, start INTEGER NOT NULL,
        refused INTEGER NOT NULL, requested_ms INTEGER NOT NULL, reporter TEXT NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (name, period)) WITHOUT ROWID;
    CREATE TABLE spend (
        month INTEGER NOT NULL, team TEXT NOT NULL, day INTEGER NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL,
        cost_nanos INTEGER NOT NULL, requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
        cached_input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
        audio_ms INTEGER NOT NULL, characters INTEGER NOT NULL, lsn INTEGER NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (month, team, day, model, key)) WITHOUT ROWID;
    CREATE TABLE registry (
        name TEXT PRIMARY KEY, version INTEGER NOT NULL UNIQUE, value BLOB NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE uses (
        secret INTEGER NOT NULL, slot INTEGER NOT NULL, requests INTEGER NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (secret, slot)) WITHOUT ROWID;
    CREATE TABLE last_uses (secret INTEGER PRIMARY KEY, at INTEGER NOT NULL, sum INTEGER NOT NULL);
";

/// What the tables of layout 4 have beside those: what all organizations of the store share, by its name; and the audit log.
const CREATE_SINCE_4: &str = "
    CREATE TABLE deployment (name TEXT PRIMARY KEY, value BLOB NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE audit (id TEXT PRIMARY KEY, line BLOB NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
";

/// What the tables of layout 6 have in place of `spend`: rows with all dimensions. Amounts are integers as the journal has them.
const CREATE_SINCE_6: &str = "
    DROP TABLE spend;
    CREATE TABLE usage (
        series TEXT NOT NULL, period INTEGER NOT NULL, team TEXT NOT NULL, day INTEGER NOT NULL, hour INTEGER NOT NULL,
        model TEXT NOT NULL, key TEXT NOT NULL, operation INTEGER NOT NULL, service_tier INTEGER NOT NULL,
        project TEXT NOT NULL, value TEXT NOT NULL, amounts BLOB NOT NULL, lsn INTEGER NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (series, period, team, day, hour, model, key, operation, service_tier, project, value)) WITHOUT ROWID;
";

/// What the tables of layout 6 have beside those: the outbox. An entry that is done is not due.
const CREATE_OUTBOX: &str = "
    CREATE TABLE outbox (
        id TEXT PRIMARY KEY, queue TEXT NOT NULL, due INTEGER, claim INTEGER NOT NULL, payload BLOB NOT NULL,
        sum INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX outbox_by_due ON outbox (queue, due) WHERE due IS NOT NULL;
";
/// The first layout with both.
const ROWS: i64 = 6;

/// What the tables of layout 8 have beside those: the policies that were in force, and apart from them their documents, which lists do not
/// read. Numbers give their order, and `changed` counts the changes of a row.
const CREATE_POLICIES: &str = "
    CREATE TABLE policies (
        revision TEXT PRIMARY KEY, number INTEGER NOT NULL, changed INTEGER NOT NULL, first INTEGER NOT NULL,
        replicas TEXT NOT NULL, value BLOB NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE policy_documents (
        revision TEXT PRIMARY KEY, document BLOB NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
";
/// The first layout with these.
const RECORDED: i64 = 8;

/// From layout 1 to 2: the registry and the uses of secrets.
const TO_2: &str = "
    CREATE TABLE registry (name TEXT PRIMARY KEY, version INTEGER NOT NULL UNIQUE, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE uses (
        secret INTEGER NOT NULL, slot INTEGER NOT NULL, requests INTEGER NOT NULL,
        PRIMARY KEY (secret, slot)) WITHOUT ROWID;
    CREATE TABLE last_uses (secret INTEGER PRIMARY KEY, at INTEGER NOT NULL);
";

/// The layout as found; 0: an empty database.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Whether the tables are described as they were made in this layout, which has check sums.
pub(super) fn is_whole(connection: &Connection, layout: i64) -> rusqlite::Result<bool> {
    let made = Connection::open_in_memory()?;
    made.execute_batch(CREATE)?;
    if layout > SUMMED {
        made.execute_batch(CREATE_SINCE_4)?;
    }
    if layout >= ROWS {
        made.execute_batch(CREATE_SINCE_6)?;
        made.execute_batch(CREATE_OUTBOX)?;
    }
    if layout >= RECORDED {
        made.execute_batch(CREATE_POLICIES)?;
    }
    Ok(description(connection)? == description(&made)?)
}

fn description(connection: &Connection) -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut select = connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Creates the tables, empty, in one transaction with what `fill` writes.
pub(super) fn create(
    connection: &mut Connection,
    fill: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(CREATE)?;
    transaction.execute_batch(CREATE_SINCE_4)?;
    transaction.execute_batch(CREATE_SINCE_6)?;
    transaction.execute_batch(CREATE_OUTBOX)?;
    transaction.execute_batch(CREATE_POLICIES)?;
    fill(&transaction)?;
    stamp(&transaction)?;
    transaction.commit()
}

fn stamp(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", LAYOUT)
}

/// The file beside the database that keeps it as it was before the update from layout `found`.
pub(super) fn kept_aside(database: &Path, found: i64) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(format!(".layout-{found}"));
    PathBuf::from(name)
}

/// Copies the database to `to`, which only its owner may read.
pub(super) fn copy(connection: &Connection, to: &Path) -> Result<(), CopyError> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // SQLite writes into an existing empty file, so the mode is ours.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    copy_into(connection, to)
}

/// The same into an empty file.
pub(super) fn copy_into(connection: &Connection, to: &Path) -> Result<(), CopyError> {
    let name = to.to_str().ok_or(io::ErrorKind::InvalidFilename).map_err(io::Error::from)?;
    connection.execute("VACUUM INTO ?", [name])?;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// Updates a database of layout `found` to the present one.
pub(super) fn migrate(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    if found < 2 {
        transaction.execute_batch(TO_2)?;
    }
    if found < SUMMED {
        to_3(&transaction)?;
    }
    if found < 4 {
        // The key that secrets are hashed with comes from the registry at its first reading (`live`), as it does from any store.
        transaction.execute_batch(CREATE_SINCE_4)?;
    }
    // The tables of layout 5 are those of layout 4, and of layout 7 those of 6. What rows hold says itself which form it has.
    if found < ROWS {
        to_6(&transaction)?;
        transaction.execute_batch(CREATE_OUTBOX)?;
    }
    if found < RECORDED {
        transaction.execute_batch(CREATE_POLICIES)?;
    }
    stamp(&transaction)?;
    transaction.commit()
}

/// From layout 2 to 3: each table is made again with check sums, and filled.
fn to_3(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    for table in EARLIER_TABLES {
        let name = table.name;
        transaction.execute_batch(&format!("ALTER TABLE {name} RENAME TO before_{name}"))?;
    }
    transaction.execute_batch("DROP INDEX segments_by_end")?;
    transaction.execute_batch(CREATE)?;
    for table in EARLIER_TABLES {
        refill(transaction, table)?;
        transaction.execute_batch(&format!("DROP TABLE before_{}", table.name))?;
    }
    Ok(())
}

/// From layout 5 to 6: rows of days without the dimensions that were not recorded.
fn to_6(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let lines = rows::earlier(transaction)?;
    transaction.execute_batch(CREATE_SINCE_6)?;
    lines.iter().try_for_each(|line| rows::put(transaction, line))
}

fn refill(transaction: &Transaction<'_>, table: &Table) -> rusqlite::Result<()> {
    let mut select = transaction.prepare(&format!("SELECT * FROM before_{}", table.name))?;
    let (columns, added) = (select.column_count(), added_since(table));
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let mut values = Vec::with_capacity(table.columns);
        for at in 0..columns {
            values.push(row.get_ref(at)?);
        }
        values.extend(added.iter().map(ValueRef::from));
        sums::put(transaction, table, &values)?;
    }
    Ok(())
}
