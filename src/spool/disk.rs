//! The tables of the spool, and what is done in them.

use std::{cell::Cell, collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use rusqlite::{Connection, Error, OptionalExtension as _, Transaction, params};

use super::{
    About, Entry, Kept, MAX_RECORD, NotKept, SpoolState, Taken,
    row::{int, is_damaged, read, sum, uint},
    worker::Job,
};
use crate::{domain::Timestamp, store::embedded::open_database};

/// The version of the layout below, kept in SQLite's `user_version`.
pub(super) const LAYOUT: i64 = 1;
/// Identifies the file in SQLite's `application_id`: `TolS`.
pub(super) const APPLICATION: i64 = 0x546f_6c53;
/// Pages of the write-ahead log after which it is moved into the database.
const WAL_PAGES: u64 = 64;
/// Pages that one commit may add to it before that: what is asked for behind them is done by the next.
pub(super) const COMMIT_PAGES: u64 = 192;
/// Pages that marking what is taken may add to it: 64 records of the usual size share fewer.
const TAKEN_PAGES: u64 = 64;
/// The bytes of the log's header, and of each frame's.
const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;
/// The pages that one more record may need besides its own bytes: of the table, of the index, and of what leads to them.
const SPARE_PAGES: u64 = 4;
/// How long a commit waits for another program that has the database locked. Then nothing is acknowledged, and it is tried again.
const BUSY: Duration = Duration::from_millis(200);

/// A row of `spooled` ends with its check sum. `tried` is when the store was first asked, and `cost` nothing where it is not known. `refused` is
/// for people: `why`, and the report `in_words`, as JSON.
const CREATE: &str = "
    CREATE TABLE about (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL, organization TEXT NOT NULL);
    CREATE TABLE spooled (
        place INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, at INTEGER NOT NULL, digest INTEGER NOT NULL,
        team TEXT NOT NULL, cost INTEGER, record BLOB NOT NULL, tried INTEGER, sum INTEGER NOT NULL);
    CREATE TABLE refused (
        place INTEGER PRIMARY KEY, id TEXT NOT NULL, at INTEGER NOT NULL, team TEXT NOT NULL, cost INTEGER,
        record BLOB NOT NULL, refused_at INTEGER NOT NULL, why TEXT NOT NULL, in_words TEXT NOT NULL);
";

/// A row that is not what was written, as one of `refused`: what of it has the right type.
pub(super) const ASIDE: &str = "
    SELECT place, lower(hex(coalesce(id, ''))), CASE typeof(at) WHEN 'integer' THEN at ELSE 0 END,
        CASE typeof(team) WHEN 'text' THEN team ELSE '' END, CASE typeof(cost) WHEN 'integer' THEN cost END,
        coalesce(record, ''), ?, 'damaged', ''
    FROM spooled WHERE place = ?";

/// The database of the spool.
pub(super) struct Disk {
    pub(super) connection: Connection,
    /// The bytes that it may take with its log.
    max_bytes: u64,
    /// The bytes that are left for the log.
    wal_room: u64,
    page_size: u64,
    /// The last place that was given.
    pub(super) last: Cell<i64>,
    /// As of which change by another program the refused ones are counted.
    pub(super) counted_at: Cell<u64>,
}

impl Disk {
    /// Opens or creates the database at `path`, which may take `max_bytes` with its log.
    pub(super) fn open(path: &Path, max_bytes: u64) -> rusqlite::Result<Self> {
        let connection = open_database(path, |connection| {
            // Has effect before the first table: pages that are free are given back to the system.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")
        })?;
        // Callers wait behind someone who looks at the tables.
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "wal_autocheckpoint", int(WAL_PAGES))?;
        let page_size = connection.pragma_query_value(None, "page_size", |row| uint(row, 0))?;
        connection.pragma_update(None, "journal_size_limit", int(WAL_PAGES * page_size))?;
        let wal_room = WAL_HEADER + (WAL_PAGES + COMMIT_PAGES) * (page_size + FRAME_HEADER);
        let (last, counted_at) = (Cell::new(0), Cell::new(0));
        Ok(Self { connection, max_bytes, wal_room, page_size, last, counted_at })
    }

    /// The bytes that it may take.
    pub(super) const fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// The last place that was given, as far as it was ever read.
    pub(super) const fn last(&self) -> i64 {
        self.last.get()
    }

    /// The layout as found; 0: an empty database.
    pub(super) fn layout(&self) -> rusqlite::Result<i64> {
        self.connection.pragma_query_value(None, "user_version", |row| row.get(0))
    }

    /// Creates the tables.
    pub(super) fn create(&mut self) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        create(&transaction)?;
        transaction.commit()
    }

    /// Its name, and the organization whose reports it holds; `None`: it is new.
    pub(super) fn about(&self) -> rusqlite::Result<Option<(String, String)>> {
        about(&self.connection)
    }

    /// It is named so, and holds reports of `organization` from now on.
    pub(super) fn set_about(&self, name: &str, organization: &str) -> rusqlite::Result<()> {
        let insert = "INSERT OR REPLACE INTO about VALUES (1, ?, ?)";
        self.connection.execute(insert, [name, organization]).map(drop)
    }

    /// Counts what there is. Of a damaged record what can be read is counted, until it is taken and put aside.
    pub(super) fn count(&self, state: &mut SpoolState) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare_cached("SELECT team, cost FROM spooled")?;
        let mut rows = select.query([])?;
        let mut teams = BTreeMap::<Arc<str>, (u64, u64)>::new();
        while let Some(row) = rows.next()? {
            let team = row.get_ref(0)?.as_str().unwrap_or_default();
            let cost = row.get_ref(1)?.as_i64().ok().and_then(|cost| u64::try_from(cost).ok()).unwrap_or(0);
            if !teams.contains_key(team) {
                teams.insert(team.into(), (0, 0));
            }
            if let Some((records, sum)) = teams.get_mut(team) {
                (*records, *sum) = (*records + 1, sum.saturating_add(cost));
            }
        }
        state.teams = teams;
        let given = self.number("SELECT seq FROM sqlite_sequence WHERE name = 'spooled'").unwrap_or(0);
        self.last.set(self.last.get().max(int(given)));
        self.counted_at.set(0);
        self.count_refused(state)?;
        self.measure(state)
    }

    /// Counts the refused ones, if another program has changed anything since they were: what is refused here is added up.
    pub(super) fn count_refused(&self, state: &mut SpoolState) -> rusqlite::Result<()> {
        let now = self.number("PRAGMA data_version")?;
        if self.counted_at.replace(now) != now {
            state.refused = self.number("SELECT count(*) FROM refused")?;
        }
        Ok(())
    }

    /// Whether it takes anything: writes what is there, and a file that is as large as a few records.
    pub(super) fn can_write(&self) -> bool {
        let file = self.connection.path().map(|path| format!("{path}-room"));
        let has_room = file.is_some_and(|file| {
            let written = std::fs::write(&file, [0; 4 * MAX_RECORD]);
            // Also what could be written of it.
            std::fs::remove_file(&file).is_ok() && written.is_ok()
        });
        let written = self.connection.execute("UPDATE about SET name = name", []);
        has_room && written.is_ok_and(|rows| rows > 0)
    }

    /// The pages that a job may add to the log, at most: those that it writes, and those that lead to them.
    pub(super) fn pages_of(&self, job: &Job) -> u64 {
        let of_record = |length: usize| (length as u64).div_ceil(self.page_size) + SPARE_PAGES;
        match job {
            Job::Keep(entry, _) => of_record(entry.record.len()),
            Job::Take { .. } => TAKEN_PAGES + of_record(MAX_RECORD),
            // The row and its entry in the index.
            Job::Delivered(places, _) => 2 * places.len() as u64 + SPARE_PAGES,
            Job::SetAside { in_words, .. } => of_record(MAX_RECORD + in_words.len()) + SPARE_PAGES,
            Job::Recount(_) => 1,
        }
    }

    /// What is known without looking at each record.
    pub(super) fn measure(&self, state: &mut SpoolState) -> rusqlite::Result<()> {
        state.records = state.teams.values().map(|(records, _)| records).sum();
        state.cost_nanos = state.teams.values().map(|(_, cost)| cost).sum();
        let mut oldest = self.connection.prepare_cached("SELECT at FROM spooled ORDER BY place LIMIT 1")?;
        let at = oldest.query_row([], |row| Ok(uint(row, 0).ok())).optional()?;
        state.oldest = at.flatten().map(Timestamp);
        state.bytes = self.bytes()?;
        Ok(())
    }

    /// The bytes of the pages in use and of the write-ahead log.
    fn bytes(&self) -> rusqlite::Result<u64> {
        Ok(self.pages()? * self.page_size + self.wal())
    }

    fn wal(&self) -> u64 {
        let wal = self.connection.path().map(|path| format!("{path}-wal"));
        wal.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |found| found.len())
    }

    fn pages(&self) -> rusqlite::Result<u64> {
        Ok(self.number("PRAGMA page_count")?.saturating_sub(self.number("PRAGMA freelist_count")?))
    }

    /// The number that a statement gives, which each commit may ask: it is compiled once.
    fn number(&self, sql: &str) -> rusqlite::Result<u64> {
        self.connection.prepare_cached(sql)?.query_row([], |row| uint(row, 0))
    }

    /// Whether one more record of this length fits.
    fn has_room(&self, length: usize) -> rusqlite::Result<bool> {
        let own = (length as u64).div_ceil(self.page_size);
        // Those that this commit has added are among them already.
        let pages = (self.pages()? + own + SPARE_PAGES) * self.page_size;
        Ok(pages + self.wal().max(self.wal_room) <= self.max_bytes)
    }

    /// Gives back to the system pages that are no longer used.
    pub(super) fn shrink(&self) -> rusqlite::Result<()> {
        let mut vacuum = self.connection.prepare("PRAGMA incremental_vacuum")?;
        let mut freed = vacuum.query([])?;
        // Each step frees a page.
        while freed.next()?.is_some() {}
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }

    /// Puts a record behind all others, within the transaction that is open.
    pub(super) fn put(
        &self,
        entry: &Entry,
        state: &mut SpoolState,
    ) -> rusqlite::Result<Result<Kept, NotKept>> {
        let Entry { id, about, record } = entry;
        let mut known = self.connection.prepare_cached("SELECT * FROM spooled WHERE id = ?")?;
        match known.query_row([&id.0[..]], read).optional() {
            Ok(Some(found)) => return Ok(Ok(Kept::Already(found.entry.about))),
            Ok(None) => {}
            Err(error) if is_damaged(&error) => {
                // This is what it said, or its gateway would not repeat it.
                let place = "SELECT place FROM spooled WHERE id = ?";
                let place = self.connection.query_row(place, [&id.0[..]], |row| row.get(0))?;
                self.put_aside_damaged(place, about.at, &error)?;
                self.count(state)?;
            }
            Err(error) => return Err(error),
        }
        if !self.has_room(record.len())? {
            return Ok(Err(NotKept::Full));
        }
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO spooled (id, at, digest, team, cost, record, tried, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let About { team, cost_nanos, at, digest, tried_at } = about;
        insert.execute(params![
            &id.0[..],
            int(at.0),
            digest.cast_signed(),
            &**team,
            cost_nanos.map(int),
            &record[..],
            tried_at.map(|at| int(at.0)),
            sum(entry),
        ])?;
        self.last.set(self.connection.last_insert_rowid());
        let (records, cost) = state.teams.entry(Arc::clone(team)).or_default();
        (*records, *cost) = (*records + 1, cost.saturating_add(cost_nanos.unwrap_or(0)));
        Ok(Ok(Kept::New))
    }

    /// The oldest records behind `after`, as many as one commit can mark; those that can be are tried `now`, if they were not before. One
    /// that is damaged is put aside.
    pub(super) fn take(
        &self,
        (after, count): (u64, u32),
        (now, can_try): (Timestamp, fn(&[u8]) -> bool),
        state: &mut SpoolState,
    ) -> rusqlite::Result<Vec<Taken>> {
        let mut select = self
            .connection
            .prepare_cached("SELECT place FROM spooled WHERE place > ? ORDER BY place LIMIT ?")?;
        let places = select.query_map(params![int(after), count], |row| row.get::<_, i64>(0))?;
        let places = places.collect::<rusqlite::Result<Vec<_>>>()?;
        self.last.set(places.iter().copied().fold(self.last.get(), i64::max));
        let mut whole = self.connection.prepare_cached("SELECT * FROM spooled WHERE place = ?")?;
        let mut update = self.connection.prepare_cached("UPDATE spooled SET tried = ? WHERE place = ?")?;
        let (mut taken, mut has_damaged) = (Vec::with_capacity(places.len()), false);
        let mut pages = 0;
        for place in places {
            // What a record takes is written again when it is marked.
            if pages >= TAKEN_PAGES {
                break;
            }
            match whole.query_row([place], read) {
                Ok(found) => {
                    pages += 1 + found.entry.record.len() as u64 / self.page_size;
                    if found.entry.about.tried_at.is_none() && can_try(&found.entry.record) {
                        update.execute([int(now.0), place])?;
                    }
                    taken.push(found);
                }
                Err(error) if is_damaged(&error) => {
                    self.put_aside_damaged(place, now, &error)?;
                    has_damaged = true;
                }
                Err(error) => return Err(error),
            }
        }
        if has_damaged {
            self.count(state)?;
        }
        match taken.is_empty() && has_damaged {
            // Those are no longer there, and others may be behind them.
            true => self.take((after, count), (now, can_try), state),
            false => Ok(taken),
        }
    }

    /// Moves a row that is not what was written to `refused`. What waits is to be counted again afterwards.
    fn put_aside_damaged(&self, place: i64, now: Timestamp, error: &Error) -> rusqlite::Result<()> {
        tracing::error!(%error, "a report of usage in the spool is damaged; it is kept aside");
        let mut insert =
            self.connection.prepare_cached(&format!("INSERT OR REPLACE INTO refused {ASIDE}"))?;
        insert.execute([int(now.0), place])?;
        let mut delete = self.connection.prepare_cached("DELETE FROM spooled WHERE place = ?")?;
        delete.execute([place])?;
        Ok(())
    }

    /// Removes the record at `place`; `None`: there is none that is whole. One that was damaged since it was taken is put aside.
    pub(super) fn remove(
        &self,
        place: u64,
        now: Timestamp,
        state: &mut SpoolState,
    ) -> rusqlite::Result<Option<Entry>> {
        let mut select = self.connection.prepare_cached("SELECT * FROM spooled WHERE place = ?")?;
        let entry = match select.query_row([int(place)], read).optional() {
            Ok(Some(Taken { entry, .. })) => entry,
            Ok(None) => return Ok(None),
            Err(error) if is_damaged(&error) => {
                self.put_aside_damaged(int(place), now, &error)?;
                self.count(state)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut delete = self.connection.prepare_cached("DELETE FROM spooled WHERE place = ?")?;
        delete.execute([int(place)])?;
        let About { team, cost_nanos, .. } = &entry.about;
        if let Some((records, cost)) = state.teams.get_mut(team) {
            *records = records.saturating_sub(1);
            *cost = cost.saturating_sub(cost_nanos.unwrap_or(0));
        }
        state.teams.retain(|_, (records, _)| *records > 0);
        Ok(Some(entry))
    }

    /// Puts a record aside; how many rows that are.
    pub(super) fn refuse(
        &self,
        (place, entry): (u64, &Entry),
        now: Timestamp,
        (why, in_words): (&str, &str),
    ) -> rusqlite::Result<u64> {
        let Entry { id, about, record } = entry;
        let mut insert = self
            .connection
            .prepare_cached("INSERT OR REPLACE INTO refused VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
        insert
            .execute(params![
                int(place),
                id.to_string(),
                int(about.at.0),
                &*about.team,
                about.cost_nanos.map(int),
                &record[..],
                int(now.0),
                why,
                in_words,
            ])
            .map(|inserted| inserted as u64)
    }
}

/// A transaction that waits for another process's, such as that of someone who looks at the tables.
pub(super) fn begin(connection: &Connection) -> rusqlite::Result<Transaction<'_>> {
    Transaction::new_unchecked(connection, rusqlite::TransactionBehavior::Immediate)
}

/// Creates the tables in a database that is empty, within a transaction.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(CREATE)?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.pragma_update(None, "user_version", LAYOUT)
}

/// The name and the organization in a database.
pub(super) fn about(connection: &Connection) -> rusqlite::Result<Option<(String, String)>> {
    let about = "SELECT name, organization FROM about";
    connection.query_row(about, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}
