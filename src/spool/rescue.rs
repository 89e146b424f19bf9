//! Makes a new database of what can be read of a damaged one, which is kept beside it.
//!
//! SQLite reads whatever has a way to it that is whole: the table from either end, and each row by the place that the index of ids has for
//! it. What has none stays in the damaged file. The new database is written beside the old one, synced, and named [`NEW`]: from then on
//! it is to be the one in use, and a process that ended before it was finds it at its next start.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection,
    config::DbConfig,
    params,
    types::{Value, ValueRef},
};
use thiserror::Error;
use tracing::error;

use super::{
    Taken,
    disk::{self, ASIDE},
    row::{int, is_damaged, read, sum},
};
use crate::{domain::Timestamp, store::embedded::Claim};

/// A new database that is whole, and not in its place yet.
const NEW: &str = "rescued.db";
/// One that is being written.
const DRAFT: &str = "rescued.db-draft";
/// Damaged databases that are kept, each as large as the spool was. People look at them, and remove them.
const MOST_KEPT: u64 = 4;
/// Rows that are looked for, as a damaged page may lead to itself: more than fit into the largest spool.
const MOST_ROWS: usize = 1 << 30;

/// Why nothing could be rescued. Nothing was changed.
#[derive(Debug, Error)]
pub enum RescueError {
    /// The new database cannot be written.
    #[error("a new database cannot be written: {0}")]
    Database(#[from] rusqlite::Error),
    /// The files cannot be written or moved.
    #[error("its files cannot be written or moved: {0}")]
    Files(#[from] io::Error),
    /// There are as many damaged databases as are kept.
    #[error(
        "{MOST_KEPT} damaged databases are kept in its directory already; look at them and move them away"
    )]
    TooMany,
}

/// What is rescued of a damaged database, besides its records.
pub(super) struct Rest {
    /// The name and the organization, where they are known.
    pub(super) about: Option<(String, String)>,
    /// The last place that was given, as far as it is known.
    pub(super) last: i64,
    /// What damaged records are put aside at.
    pub(super) now: Timestamp,
}

/// The damaged databases that are kept in a directory.
pub(super) fn kept(dir: &Path) -> u64 {
    (1..=MOST_KEPT).filter(|number| damaged(dir, *number).exists()).count() as u64
}

fn damaged(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("damaged-{number}.db"))
}

/// Puts what can be read of the damaged database that `from` has open into a new one, and that into its place.
///
/// # Errors
/// The disk does not take it.
pub(super) fn rescue(from: Connection, claim: &mut Claim, rest: Rest) -> Result<(), RescueError> {
    let dir = claim.directory().to_owned();
    if kept(&dir) >= MOST_KEPT {
        return Err(RescueError::TooMany);
    }
    let draft = dir.join(DRAFT);
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    let counts = copy(&from, &draft, rest)?;
    File::open(&draft)?.sync_all()?;
    fs::rename(&draft, dir.join(NEW))?;
    File::open(&dir)?.sync_all()?;
    // It stays as it was found, with its log.
    from.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    drop(from);
    let file = put_in_place(claim)?.unwrap_or_default();
    let Copied { reports, aside, unreadable } = counts;
    error!(
        file = %file.display(),
        reports,
        refused = aside,
        unread = unreadable,
        "a part of the spool cannot be read; what can be is in a new database, and the damaged one is kept"
    );
    Ok(())
}

/// Puts a new database that is whole into its place, and keeps the one that is there; where. `None`: there is no new one.
///
/// # Errors
/// The files cannot be moved. It is made again at the next start.
pub(super) fn put_in_place(claim: &mut Claim) -> io::Result<Option<PathBuf>> {
    let dir = claim.directory().to_owned();
    let (new, old) = (dir.join(NEW), claim.database());
    if !new.try_exists()? {
        return Ok(None);
    }
    let beside = |path: &Path, end: &str| PathBuf::from(format!("{}{end}", path.display()));
    // The number that a process had begun to use which ended here has no database yet, at most a log.
    let free = (1..=MOST_KEPT).map(|number| damaged(&dir, number)).find(|path| !path.exists());
    let to = free.ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))?;
    // The log first: it would be taken for the new database's.
    let log = beside(&old, "-wal");
    if log.try_exists()? {
        fs::rename(log, beside(&to, "-wal"))?;
    }
    // An empty one was made by this start, where the one before ended here.
    if fs::metadata(&old).is_ok_and(|found| found.len() > 0) {
        fs::rename(&old, &to)?;
    }
    match fs::remove_file(beside(&old, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(new, old)?;
    File::open(&dir)?.sync_all()?;
    claim.renew()?;
    Ok(Some(to))
}

/// What was copied.
#[derive(Default)]
struct Copied {
    reports: u64,
    aside: u64,
    /// Records that are known to be there and have no way to them.
    unreadable: u64,
}

fn copy(from: &Connection, draft: &Path, rest: Rest) -> rusqlite::Result<Copied> {
    let to = Connection::open(draft)?;
    to.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // It is synced as a whole, and begun again where that is not reached.
    to.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    to.pragma_update(None, "synchronous", "OFF")?;
    let transaction = to.unchecked_transaction()?;
    disk::create(&to)?;
    if let Some((name, organization)) = disk::about(from).ok().flatten().or(rest.about) {
        to.execute("INSERT INTO about VALUES (1, ?, ?)", [name, organization])?;
    }
    let mut copied = Copied::default();
    let all = places(from);
    for place in &all {
        copy_record(from, &to, (*place, rest.now), &mut copied)?;
    }
    for order in ["ASC", "DESC"] {
        copy_refused(from, &to, order)?;
    }
    // Places are not used again.
    let given = "SELECT seq FROM sqlite_sequence WHERE name = 'spooled'";
    let given = from.query_row(given, [], |row| row.get::<_, i64>(0)).unwrap_or(0);
    let last = all.last().copied().unwrap_or(0).max(given).max(rest.last);
    to.execute("DELETE FROM sqlite_sequence WHERE name = 'spooled'", [])?;
    to.execute("INSERT INTO sqlite_sequence VALUES ('spooled', ?)", [last])?;
    transaction.commit()?;
    Ok(copied)
}

/// The places of all records to which there is any way.
fn places(from: &Connection) -> BTreeSet<i64> {
    let mut places = BTreeSet::new();
    for order in ["place ASC", "place DESC", "id"] {
        let Ok(mut select) = from.prepare(&format!("SELECT place FROM spooled ORDER BY {order}")) else {
            continue;
        };
        let Ok(mut rows) = select.query([]) else { continue };
        // Each goes as far as it can.
        for _ in 0..MOST_ROWS {
            let Ok(Some(row)) = rows.next() else { break };
            places.extend(row.get::<_, i64>(0));
        }
    }
    places
}

fn copy_record(
    from: &Connection,
    to: &Connection,
    (place, now): (i64, Timestamp),
    copied: &mut Copied,
) -> rusqlite::Result<()> {
    let whole = from.prepare_cached("SELECT * FROM spooled WHERE place = ?");
    let found = whole.and_then(|mut whole| whole.query_row([place], read));
    match found {
        Ok(Taken { entry, .. }) => {
            let about = &entry.about;
            let mut insert =
                to.prepare_cached("INSERT OR IGNORE INTO spooled VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
            let inserted = insert.execute(params![
                place,
                &entry.id.0[..],
                int(about.at.0),
                about.digest.cast_signed(),
                &*about.team,
                about.cost_nanos.map(int),
                &entry.record[..],
                about.tried_at.map(|at| int(at.0)),
                sum(&entry),
            ])?;
            copied.reports += inserted as u64;
        }
        // The index had a place that is none.
        Err(rusqlite::Error::QueryReturnedNoRows) => {}
        Err(error) if is_damaged(&error) => {
            let mut select = from.prepare_cached(ASIDE)?;
            match select.query_row([int(now.0), place], nine) {
                Ok(values) => copied.aside += refuse(to, values)?,
                Err(_) => copied.unreadable += 1,
            }
        }
        Err(_) => copied.unreadable += 1,
    }
    Ok(())
}

fn copy_refused(from: &Connection, to: &Connection, order: &str) -> rusqlite::Result<()> {
    let Ok(mut select) = from.prepare(&format!("SELECT * FROM refused ORDER BY place {order}")) else {
        return Ok(());
    };
    let Ok(mut rows) = select.query([]) else { return Ok(()) };
    for _ in 0..MOST_ROWS {
        let Ok(Some(row)) = rows.next() else { break };
        if let Ok(values) = nine(row) {
            refuse(to, values)?;
        }
    }
    Ok(())
}

/// The columns of `refused`, whatever they hold.
fn nine(row: &rusqlite::Row<'_>) -> rusqlite::Result<Vec<Value>> {
    let value = |column| {
        Ok(match row.get_ref(column)? {
            ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
            other => other.try_into().unwrap_or(Value::Null),
        })
    };
    (0..9).map(value).collect()
}

fn refuse(to: &Connection, values: Vec<Value>) -> rusqlite::Result<u64> {
    let mut insert = to.prepare_cached("INSERT OR IGNORE INTO refused VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
    Ok(insert.execute(rusqlite::params_from_iter(values))? as u64)
}
