//! Checks that the data on disk is what was written: the structure of the file, every row, the last commit, and the books.

use std::{collections::BTreeMap, fmt, fs, path::PathBuf, sync::Arc};

use rusqlite::Connection;

use super::{
    disk,
    files::{Claim, DATABASE, WAL},
    recover::RecoverError,
    rows, schema,
    state::State,
    sums,
};
use crate::domain::{money::NanoUsd, policy::spender_of};

/// The most problems that SQLite reports; the first is shown.
const FINDINGS: i64 = 1;

/// Refuses a database of this layout, which has check sums, if it differs from what was written. `known`: a commit that was on disk.
pub(super) fn database(connection: &Connection, layout: i64, known: Option<u64>) -> Result<(), RecoverError> {
    structure(connection)?;
    if !schema::is_whole(connection, layout)? {
        return Err(RecoverError::Structure(
            "the description of its tables is not what was written".to_owned(),
        ));
    }
    for table in schema::tables(layout) {
        let mut select = connection.prepare(&format!("SELECT * FROM {}", table.name))?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            sums::check(row, table)?;
        }
    }
    let found = disk::progress(connection)?.commits;
    if known.is_none() && found > 1 {
        tracing::warn!(
            "the count of commits is missing beside the embedded store; if its files are not all of one state, that goes unnoticed"
        );
    }
    behind(known, found)
}

/// Refuses a database that is empty although its other files show that it was not. Call this before opening it: SQLite deletes
/// the write-ahead log of an empty database.
pub(super) fn is_there(claim: &Claim, known: Option<u64>) -> Result<(), RecoverError> {
    let bytes = |path: PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
    if bytes(claim.database()) > 0 {
        return Ok(());
    }
    behind(known, 0)?;
    match bytes(claim.path.join(WAL)) {
        0 => Ok(()),
        _ => Err(RecoverError::Structure(format!("`{DATABASE}` is missing or empty, and `{WAL}` is not"))),
    }
}

/// Refuses a file whose pages do not fit together, of any layout.
pub(super) fn structure(connection: &Connection) -> Result<(), RecoverError> {
    let check = format!("PRAGMA integrity_check({FINDINGS})");
    let found: String = connection.query_row(&check, [], |row| row.get(0))?;
    if found != "ok" {
        return Err(RecoverError::Structure(found.lines().last().unwrap_or_default().to_owned()));
    }
    Ok(())
}

/// Refuses data that ends before a commit that was on disk.
pub(super) const fn behind(known: Option<u64>, found: u64) -> Result<(), RecoverError> {
    match known {
        Some(known) if known > found => Err(RecoverError::Behind { known, found }),
        _ => Ok(()),
    }
}

/// The settled amount of a month's counter, and the sum of the same month's spend lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The month, as `202611`.
    pub(super) month: u32,
    /// The team; empty for the organization.
    pub(super) team: Arc<str>,
    pub(super) counter: u64,
    pub(super) lines: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { month, team, counter, lines } = self;
        match &**team {
            "" => f.write_str("the organization")?,
            team => write!(f, "team `{team}`")?,
        }
        let [counter, lines] = [counter, lines].map(|nanos| dollars(*nanos));
        write!(f, " has {counter} in its counter of {month} and {lines} in its lines")
    }
}

pub(super) fn dollars(nanos: u64) -> String {
    NanoUsd::new(nanos).map_or_else(|| format!("{nanos} nano-USD"), |amount| format!("${amount}"))
}

/// The differences between the counters of months and the spend lines. The same settlements write both, so they differ only if
/// one of them was lost or changed.
///
/// A month without a counter is no difference, as counters are forgotten before lines; [`missing`] finds those.
pub(super) fn differences(connection: &Connection, state: &State) -> rusqlite::Result<Vec<Difference>> {
    compare(connection, state).map(|(differences, _)| differences)
}

/// The months that have lines but no counter.
pub(super) fn missing(connection: &Connection, state: &State) -> rusqlite::Result<Vec<Difference>> {
    compare(connection, state).map(|(_, missing)| missing)
}

fn compare(connection: &Connection, state: &State) -> rusqlite::Result<(Vec<Difference>, Vec<Difference>)> {
    let mut sums = BTreeMap::<(u32, Arc<str>), u64>::new();
    let mut add = |month, team: &Arc<str>, nanos: u64| {
        let sum = sums.entry((month, Arc::clone(team))).or_default();
        *sum = sum.saturating_add(nanos);
    };
    rows::of_days(connection, |line| {
        if !state.spend.has(&line.key) {
            add(line.key.set.period, &line.key.set.team, line.amounts.cost_nanos);
        }
    })?;
    state.spend.each_of_days(|key, amounts| add(key.set.period, &key.set.team, amounts.cost_nanos));
    let mut differences = Vec::new();
    state.counters.each_settled(|key, counter| {
        let (Some(team), month) = (spender_of(key), key.period() / 100) else { return };
        let lines = sums.remove(&(month, Arc::from(team))).unwrap_or(0);
        if lines != counter {
            differences.push(Difference { month, team: Arc::from(team), counter, lines });
        }
    });
    let missing = sums.into_iter().filter(|(_, lines)| *lines > 0);
    let missing = missing.map(|((month, team), lines)| Difference { month, team, counter: 0, lines });
    Ok((differences, missing.collect()))
}
