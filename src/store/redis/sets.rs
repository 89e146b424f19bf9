//! Reading the rows of several sets together.
//!
//! Most sets have few rows, and one read after the other takes a round trip each. So the sizes of many are asked in one round trip, and
//! their rows in as few as keep each of them short: the server answers nothing else before it has answered all commands of one.

use std::collections::{BTreeMap, VecDeque};

use redis::{Cmd, Pipeline, Value};

use super::{
    Inner,
    connection::Connection,
    keyspace::{Keyspace, spend_line, usage_key},
    load::Urgency,
    spend::{PAGE, amounts, fields},
    wire::Reader,
};
use crate::store::{ROWS_AT_ONCE, SETS_AT_ONCE, StoreError, UsageAmounts, UsageKey, UsageSet};

/// Rows of all sets that are asked for in one round trip: some tenths of a millisecond of the server's time, and at most some hundred
/// kilobytes.
const ROWS_PER_TRIP: usize = 2 * PAGE;
/// The fewest rows that are asked for of a set.
const LEAST: usize = 16;

type Rows = BTreeMap<UsageKey, UsageAmounts>;

/// A hash that is being read.
struct Scan<'s> {
    set: &'s UsageSet,
    /// The place of the set among all.
    place: usize,
    key: String,
    /// Whether its rows are those of days that were written up to layout 5. None are added to any more.
    is_earlier: bool,
    /// How many rows are about to come.
    left: usize,
    cursor: String,
    rows: Rows,
}

impl<'s> Scan<'s> {
    /// The hashes of a set.
    fn of(keyspace: &Keyspace, place: usize, set: &'s UsageSet) -> impl Iterator<Item = Self> {
        let earlier = set.series.is_monthly().then(|| keyspace.spend(set.period, &set.team));
        let keys = std::iter::once((keyspace.usage(set), false)).chain(earlier.map(|key| (key, true)));
        keys.map(move |(key, is_earlier)| {
            let (cursor, rows) = ("0".to_owned(), Rows::new());
            Self { set, place, key, is_earlier, left: 0, cursor, rows }
        })
    }

    fn size(&self) -> Cmd {
        let mut cmd = redis::cmd("HLEN");
        cmd.arg(&self.key);
        cmd
    }

    /// How many rows are asked for at once.
    fn count(&self) -> usize {
        self.left.clamp(LEAST, PAGE)
    }

    fn page(&self) -> Cmd {
        let mut cmd = redis::cmd("HSCAN");
        cmd.arg(&self.key).arg(&self.cursor).arg("COUNT").arg(self.count());
        cmd
    }

    /// Takes a page in. Returns whether it was the last.
    fn take(&mut self, answer: Value) -> Result<bool, StoreError> {
        let (next, page): (String, Value) =
            redis::from_redis_value(answer).map_err(|_| StoreError::Corrupt)?;
        let page = fields::<String>(page)?;
        self.left = self.left.saturating_sub(page.len());
        for (field, value) in page {
            // A later page may repeat a row of an earlier one; the later reading is the newer.
            let (key, amounts) = match self.is_earlier {
                false => (usage_key(self.set, &field), amounts(&value)?),
                true => {
                    let key = spend_line(self.set.period, &self.set.team, &field);
                    (key, UsageAmounts::from_numbers(&Reader::new(&value).numbers(8)?))
                }
            };
            self.rows.insert(key.ok_or(StoreError::Corrupt)?, amounts);
        }
        self.cursor = next;
        Ok(self.cursor == "0")
    }
}

impl Inner {
    /// The rows of the first of `sets`, each row as it was at some instant of the call.
    pub(super) async fn usage_of(
        &self,
        sets: &[UsageSet],
    ) -> Result<Vec<Vec<(UsageKey, UsageAmounts)>>, StoreError> {
        let reports = self.reports()?;
        if sets.is_empty() {
            return Ok(Vec::new());
        }
        let sets = sets.get(..SETS_AT_ONCE).unwrap_or(sets).iter().enumerate();
        let mut scans: Vec<_> = sets.flat_map(|(place, set)| Scan::of(&self.keyspace, place, set)).collect();
        let sizes = reports.run_all(scans.iter().map(Scan::size)).await?;
        for (scan, size) in scans.iter_mut().zip(sizes) {
            scan.left = redis::from_redis_value(size).map_err(|_| StoreError::Corrupt)?;
        }
        let count = fitting(&scans);
        let mut answers = vec![Rows::new(); count];
        let is_due = |scan: &Scan<'_>| scan.place < count && scan.left > 0;
        let mut due: VecDeque<_> = scans.into_iter().filter(is_due).collect();
        while !due.is_empty() {
            let trip = next_trip(&mut due);
            let pages = reports.run_all(trip.iter().map(Scan::page)).await?;
            for (mut scan, page) in trip.into_iter().zip(pages) {
                if !scan.take(page)? {
                    due.push_back(scan);
                } else if let Some(answer) = answers.get_mut(scan.place) {
                    for (key, amounts) in scan.rows {
                        answer.entry(key).or_default().add(&amounts);
                    }
                }
            }
            // If the answer is already there, awaiting it would not let other tasks of this core run in between.
            tokio::task::yield_now().await;
        }
        Ok(answers.into_iter().map(|rows| rows.into_iter().collect()).collect())
    }
}

/// How many of the first sets may be held together: one at least, if there is one.
fn fitting(scans: &[Scan<'_>]) -> usize {
    let mut held = 0;
    let fits = scans.iter().take_while(|scan| {
        held += scan.left;
        scan.place == 0 || held <= ROWS_AT_ONCE
    });
    // Of a set with two hashes both are to fit.
    let count = fits.count();
    scans.get(count).or(scans.last()).map_or(0, |scan| scan.place + usize::from(count == scans.len()))
}

/// The hashes of which the next round trip reads.
fn next_trip<'s>(due: &mut VecDeque<Scan<'s>>) -> Vec<Scan<'s>> {
    let (mut trip, mut rows) = (Vec::new(), 0);
    while let Some(scan) = due.pop_front() {
        rows += scan.count();
        if rows > ROWS_PER_TRIP && !trip.is_empty() {
            due.push_front(scan);
            break;
        }
        trip.push(scan);
    }
    trip
}

impl Connection {
    /// The same as [`Self::run`] for several commands, in one round trip. One that fails is a failure of all.
    async fn run_all(&self, cmds: impl Iterator<Item = Cmd>) -> Result<Vec<Value>, StoreError> {
        let mut pipeline = Pipeline::new();
        for cmd in cmds {
            pipeline.add_command(cmd);
        }
        let answer = self.bounded("commands", Urgency::Relief, self.attempt_all(&pipeline)).await?;
        if let Value::Array(answers) = answer { Ok(answers) } else { Err(StoreError::Corrupt) }
    }

    async fn attempt_all(&self, pipeline: &Pipeline) -> Result<Value, StoreError> {
        let mut up = self.connection().await?;
        self.layout.check()?;
        let answers = up.connection.send_packed_commands(pipeline, 0, pipeline.len()).await;
        let answers = answers.and_then(|answers| answers.into_iter().map(Value::extract_error).collect());
        self.heard(up.number, answers.map(Value::Array))
    }
}
