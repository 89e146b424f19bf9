//! Reads rows from the pages of a database file, without trusting anything that one page says about another.
//!
//! SQLite's own path to a row leads through the pages above it, and stops at the first damaged one. Here every page of the
//! database and of its write-ahead log is read by itself, and a row counts if its check sum is right. This also finds rows that
//! were since deleted or replaced; the caller keeps the latest for each key.
//!
//! Format: <https://www.sqlite.org/fileformat2.html>.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::types::{Value, ValueRef};

use super::super::{
    schema::{self, KNOWN_TABLES, Table},
    sums,
};

/// SQLite's page size for a new file, which the store does not change.
const PAGE: usize = 4096;
const WAL_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The header of the file, before the first page's own.
const FILE_HEADER: usize = 100;
/// Where the file's header has the first page that lists free ones.
const FREE_AT: usize = 32;
/// Where it has `user_version`.
const LAYOUT_AT: usize = 60;
/// The most overflow pages of one row, as a page may point to itself: a journal row is at most 64 MiB and a few ops.
const MAX_CHAIN: usize = 1 << 16;

/// A row whose check sum is right.
pub(super) struct FoundRow {
    pub(super) table: &'static Table,
    /// Without the check sum.
    pub(super) values: Vec<Value>,
}

/// The bytes of a database and of its write-ahead log.
pub(super) struct Pages {
    database: Vec<u8>,
    frames: Vec<Frame>,
    /// Whether rows have check sums: before layout 3 they are recognised by their shape alone.
    are_summed: bool,
}

struct Frame {
    number: u32,
    /// The last frame of the transaction that this frame belongs to.
    end: usize,
    page: Vec<u8>,
}

impl Pages {
    pub(super) fn new(database: Vec<u8>, wal: &[u8]) -> Self {
        let frames = frames(wal);
        let first = frames.iter().rev().find(|frame| frame.number == 1);
        let layout = be32(first.map_or(&database, |frame| &frame.page), LAYOUT_AT);
        Self { database, frames, are_summed: !matches!(layout, Some(1 | 2)) }
    }

    /// Passes each row on. Returns how many present items are not what was written: rows, or pages with everything on them.
    pub(super) fn rows(&self, mut each: impl FnMut(FoundRow)) -> u64 {
        let mut damaged = 0;
        let (free, latest) = (self.free(), self.latest());
        let pages = (1..).zip(self.database.chunks(PAGE)).map(|(number, page)| (number, page, None, None));
        let logged = self.frames.iter().enumerate();
        let logged = logged.map(|(at, frame)| (frame.number, &*frame.page, Some(frame.end), Some(at)));
        for (number, page, upto, at) in pages.chain(logged) {
            let found = Leaf { page, pages: self, upto }.rows(&mut each).unwrap_or(1);
            // An old page may point to pages that by now are something else, which is no damage.
            if latest.get(&number).copied() == at && !free.contains(&number) {
                damaged += if page.iter().all(|byte| *byte == 0) { 1 } else { found };
            }
        }
        damaged
    }

    /// The last frame in the log of each page.
    fn latest(&self) -> BTreeMap<u32, usize> {
        self.frames.iter().zip(0..).map(|(frame, at)| (frame.number, at)).collect()
    }

    /// The unused pages, as far as the list of them can be followed.
    fn free(&self) -> BTreeSet<u32> {
        let last = self.frames.len().checked_sub(1);
        let mut free = BTreeSet::new();
        let mut trunk = self.page(1, last).and_then(|page| be32(page, FREE_AT)).unwrap_or(0);
        while trunk != 0 && free.insert(trunk) {
            let Some(page) = self.page(trunk, last) else { break };
            let count = be32(page, 4).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
            free.extend((0..count.min(PAGE / 4)).filter_map(|number| be32(page, 8 + 4 * number)));
            trunk = be32(page, 0).unwrap_or(0);
        }
        free
    }

    /// A page as it was after frame `upto`, or in the database.
    fn page(&self, number: u32, upto: Option<usize>) -> Option<&[u8]> {
        let logged = upto.and_then(|upto| {
            let frames = self.frames.get(..=upto)?;
            frames.iter().rev().find(|frame| frame.number == number)
        });
        match logged {
            Some(frame) => Some(&frame.page),
            None => self.database.chunks(PAGE).nth(usize::try_from(number.checked_sub(1)?).ok()?),
        }
    }
}

/// The frames of the log's present generation: those that carry its salt. The salt is in two places, and one of them may be
/// damaged.
fn frames(wal: &[u8]) -> Vec<Frame> {
    let rest = wal.get(WAL_HEADER..).unwrap_or_default();
    let salt = |at: usize| wal.get(at..at + 8);
    let salts = [salt(16), salt(WAL_HEADER + 8)];
    let mut frames: Vec<Frame> = Vec::new();
    let mut open = 0;
    for (index, frame) in rest.chunks(FRAME_HEADER + PAGE).enumerate() {
        let Some((header, page)) = frame.split_at_checked(FRAME_HEADER) else { break };
        let (Some(number), Some(size)) = (be32(header, 0), be32(header, 4)) else { break };
        if salts.contains(&header.get(8..16)) {
            frames.push(Frame { number, end: index, page: page.to_vec() });
        }
        if size > 0 {
            let end = frames.len().saturating_sub(1);
            frames.iter_mut().skip(open).for_each(|frame| frame.end = end);
            open = frames.len();
        }
    }
    let end = frames.len().saturating_sub(1);
    frames.iter_mut().skip(open).for_each(|frame| frame.end = end);
    frames
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().copied().map(|two| usize::from(u16::from_be_bytes(two)))
}

struct Leaf<'a> {
    page: &'a [u8],
    pages: &'a Pages,
    upto: Option<usize>,
}

impl Leaf<'_> {
    /// How many rows are damaged; `None` if the page itself is.
    fn rows(&self, each: &mut impl FnMut(FoundRow)) -> Option<u64> {
        let start = if self.page.starts_with(b"SQLite format 3\0") { FILE_HEADER } else { 0 };
        // The leaves of tables and of indexes, and the pages above the latter, which have rows of their own.
        let (header, is_table, child) = match self.page.get(start)? {
            13 => (8, true, 0),
            10 => (8, false, 0),
            2 => (12, false, 4),
            // A page above a table's leaves, a part of a long row, or an empty page: no rows.
            _ => return Some(0),
        };
        let count = be16(self.page, start + 3)?;
        let mut damaged = 0;
        for number in 0..count {
            let row =
                be16(self.page, start + header + 2 * number).and_then(|at| self.row(at + child, is_table));
            match row {
                Some(Ok(found)) => each(found),
                // An entry of an index, or a description of a table, which we do not keep.
                Some(Err(columns)) if !KNOWN_TABLES.iter().any(|t| t.columns + 1 == columns) => {}
                _ => damaged += 1,
            }
        }
        Some(damaged)
    }

    /// The row at `at`, or its number of columns if no table's check sum is right.
    fn row(&self, at: usize, is_table: bool) -> Option<Result<FoundRow, usize>> {
        let mut rest = self.page.get(at..)?;
        let length = usize::try_from(varint(&mut rest)?).ok()?;
        let rowid = if is_table { Some(varint(&mut rest)?) } else { None };
        let mut values = record(&self.payload(rest, length, is_table)?)?;
        // The number of a row is not in its record.
        if let (Some(first @ Value::Null), Some(rowid)) = (values.first_mut(), rowid) {
            *first = Value::Integer(i64::from_le_bytes(rowid.to_le_bytes()));
        }
        if !self.pages.are_summed {
            return Some(of_shape(values, is_table));
        }
        let columns = values.len();
        let Some(Value::Integer(sum)) = values.pop() else { return Some(Err(columns)) };
        let fits = |table: &&&Table| {
            table.columns == values.len()
                && (table.named_by == 0) == is_table
                && sums::of(table, values.iter().map(ValueRef::from)) == sum
        };
        Some(match KNOWN_TABLES.iter().find(fits) {
            Some(table) => Ok(FoundRow { table, values }),
            None => Err(columns),
        })
    }

    /// The bytes of a row: those on the page, and those on the overflow pages that follow.
    fn payload(&self, here: &[u8], length: usize, is_table: bool) -> Option<Vec<u8>> {
        let longest = if is_table { PAGE - 35 } else { (PAGE - 12) * 64 / 255 - 23 };
        if length <= longest {
            return here.get(..length).map(<[u8]>::to_vec);
        }
        let least = (PAGE - 12) * 32 / 255 - 23;
        let fitting = least + (length - least) % (PAGE - 4);
        let local = if fitting <= longest { fitting } else { least };
        let mut payload = here.get(..local)?.to_vec();
        let mut next = be32(here, local)?;
        for _ in 0..MAX_CHAIN {
            if payload.len() >= length {
                return Some(payload);
            }
            let page = self.pages.page(next, self.upto)?;
            next = be32(page, 0)?;
            let part = page.get(4..)?;
            payload.extend_from_slice(part.get(..part.len().min(length - payload.len()))?);
        }
        None
    }
}

/// A row without a check sum, by the shape of the tables before layout 3; or its number of columns as if it had a check sum.
fn of_shape(mut values: Vec<Value>, is_table: bool) -> Result<FoundRow, usize> {
    let (first_is_text, last_is_blob) =
        (matches!(values.first(), Some(Value::Text(_))), matches!(values.last(), Some(Value::Blob(_))));
    let fits = |table: &&&Table| {
        table.columns == values.len() + schema::added_since(table).len()
            && (table.named_by == 0) == is_table
            && first_is_text == matches!(table.name, "gates" | "registry")
            && last_is_blob == matches!(table.name, "journal" | "counters" | "segments" | "registry")
    };
    let Some(table) = schema::tables(schema::SUMMED).iter().find(fits) else {
        return Err(values.len() + 1);
    };
    values.extend(schema::added_since(table));
    Ok(FoundRow { table, values })
}

/// An integer of one to nine bytes, each with seven bits except the ninth.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for _ in 0..8 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value = value << 7 | u64::from(byte & 0x7f);
        if *byte < 0x80 {
            return Some(value);
        }
    }
    let (byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(value << 8 | u64::from(*byte))
}

/// The values of a record, whose header has the type of each.
fn record(bytes: &[u8]) -> Option<Vec<Value>> {
    let mut rest = bytes;
    let header = usize::try_from(varint(&mut rest)?).ok()?;
    let mut types = bytes.get(bytes.len() - rest.len()..header)?;
    let mut body = bytes.get(header..)?;
    let mut values = Vec::new();
    while !types.is_empty() {
        let kind = varint(&mut types)?;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            text => (text - 12) / 2,
        };
        let (value, after) = body.split_at_checked(usize::try_from(length).ok()?)?;
        body = after;
        values.push(match kind {
            0 => Value::Null,
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            1..=6 => Value::Integer(signed(value)),
            7 => return None,
            blob if blob % 2 == 0 => Value::Blob(value.to_vec()),
            _ => Value::Text(String::from_utf8(value.to_vec()).ok()?),
        });
    }
    Some(values)
}

fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| *first >= 0x80);
    bytes.iter().fold(if negative { -1 } else { 0 }, |value, byte| value << 8 | i64::from(*byte))
}

/// The latest version of each row, by its table and its key.
#[derive(Default)]
pub(super) struct Rows(BTreeMap<(&'static str, Vec<u8>), FoundRow>);

impl Rows {
    pub(super) fn keep(&mut self, found: FoundRow) {
        let key = (found.table.name, key(&found));
        match self.0.get(&key) {
            // Of two equal versions, the log's comes later.
            Some(known) if version(known) > version(&found) => {}
            _ => drop(self.0.insert(key, found)),
        }
    }

    pub(super) fn of(&self, table: &Table) -> impl Iterator<Item = &[Value]> {
        self.0.values().filter(move |found| found.table == table).map(|found| &*found.values)
    }
}

fn key(found: &FoundRow) -> Vec<u8> {
    // A counter is identified by what it counts; its number may be reused from another counter.
    let (from, count) =
        if found.table.name == "counters" { (1, 2) } else { (0, found.table.named_by.max(1)) };
    let mut key = Vec::new();
    for value in found.values.iter().skip(from).take(count) {
        match value {
            Value::Integer(int) => key.extend((int ^ i64::MIN).to_be_bytes()),
            Value::Text(text) => {
                key.extend(text.as_bytes());
                key.push(0);
            }
            _ => {}
        }
    }
    key
}

/// Grows with each change of a row.
fn version(found: &FoundRow) -> i64 {
    let version = found.table.version.and_then(|at| found.values.get(at)).map_or(0, int);
    // An entry is done by the claim that delivered it.
    let is_done = *found.table == schema::OUTBOX && matches!(found.values.get(2), Some(Value::Null));
    version.saturating_mul(2).saturating_add(i64::from(is_done))
}

pub(super) const fn int(value: &Value) -> i64 {
    match value {
        Value::Integer(int) => *int,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(table: &'static Table, values: &[(usize, i64)]) -> FoundRow {
        let mut found = vec![Value::Text("x".to_owned()); table.columns];
        values.iter().for_each(|(at, value)| found[*at] = Value::Integer(*value));
        FoundRow { table, values: found }
    }

    #[test]
    fn the_latest_of_a_row_stays_wherever_its_page_is() {
        for (table, at) in KNOWN_TABLES.into_iter().filter_map(|table| Some((table, table.version?))) {
            let kept = |versions: [i64; 2]| {
                let mut rows = Rows::default();
                versions.into_iter().for_each(|version| rows.keep(row(table, &[(at, version)])));
                let values: Vec<_> = rows.of(table).map(|values| int(&values[at])).collect();
                values
            };
            // Where the version is part of the key they are two rows.
            if at >= table.named_by.max(1) {
                assert_eq!((kept([7, 8]), kept([8, 7])), (vec![8], vec![8]), "{}", table.name);
            }
        }
    }

    #[test]
    fn an_entry_that_is_done_stays_done() {
        let entry = |due: Value| {
            let mut found = row(&schema::OUTBOX, &[(3, 1)]);
            found.values[2] = due;
            found
        };
        for order in [[Value::Null, Value::Integer(5)], [Value::Integer(5), Value::Null]] {
            let mut rows = Rows::default();
            order.into_iter().for_each(|due| rows.keep(entry(due)));
            assert!(rows.of(&schema::OUTBOX).all(|values| values[2] == Value::Null));
        }
    }
}
