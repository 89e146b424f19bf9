//! The tables, as code that reads and writes all of them has to know them.

use rusqlite::types::Value;

use super::{RECORDED, ROWS, SUMMED};

/// A table, as code that reads and writes all tables has to know it.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Table {
    pub(in super::super) name: &'static str,
    /// The number of columns, without the check sum.
    pub(in super::super) columns: usize,
    /// This many leading columns identify the row, in an index of their own; 0: the first column is the row's number.
    pub(in super::super) named_by: usize,
    /// The column that grows with each change of a row: an op's or a registry's number, a count, a time. `None`: a row never changes.
    pub(in super::super) version: Option<usize>,
    /// Writes a row, over one with the same key if there can be one.
    pub(in super::super) put: &'static str,
}

pub(in super::super) const JOURNAL: Table = Table {
    name: "journal",
    columns: 3,
    named_by: 0,
    version: None,
    put: "INSERT INTO journal VALUES (?, ?, ?, ?)",
};
pub(in super::super) const PROGRESS: Table = Table {
    name: "progress",
    columns: 6,
    named_by: 0,
    version: Some(3),
    put: "INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?, ?, ?, ?)",
};
pub(in super::super) const COUNTERS: Table = Table {
    name: "counters",
    columns: 6,
    named_by: 0,
    version: Some(4),
    put: "INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?, ?, ?)",
};
pub(in super::super) const SEGMENTS: Table = Table {
    name: "segments",
    columns: 7,
    named_by: 0,
    version: Some(3),
    put: "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
};
pub(in super::super) const GATES: Table = Table {
    name: "gates",
    columns: 7,
    named_by: 2,
    version: Some(2),
    put: "INSERT INTO gates VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
};
/// Up to layout 5.
pub(in super::super) const SPEND: Table = Table {
    name: "spend",
    columns: 14,
    named_by: 5,
    version: Some(13),
    put: "INSERT OR REPLACE INTO spend VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
};
pub(in super::super) const USAGE: Table = Table {
    name: "usage",
    columns: 13,
    named_by: 11,
    version: Some(12),
    put: "INSERT OR REPLACE INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
};
pub(in super::super) const REGISTRY: Table = Table {
    name: "registry",
    columns: 3,
    named_by: 1,
    version: Some(1),
    // A version that another record has is an error, not a reason to remove that record.
    put: "INSERT INTO registry VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET version = excluded.version, \
          value = excluded.value, sum = excluded.sum",
};
pub(in super::super) const USES: Table = Table {
    name: "uses",
    columns: 3,
    named_by: 2,
    version: Some(2),
    put: "INSERT OR REPLACE INTO uses VALUES (?, ?, ?, ?)",
};
pub(in super::super) const LAST_USES: Table = Table {
    name: "last_uses",
    columns: 2,
    named_by: 0,
    version: Some(1),
    put: "INSERT OR REPLACE INTO last_uses VALUES (?, ?, ?)",
};
pub(in super::super) const DEPLOYMENT: Table = Table {
    name: "deployment",
    columns: 2,
    named_by: 1,
    version: None,
    put: "INSERT INTO deployment VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
};
pub(in super::super) const AUDIT: Table = Table {
    name: "audit",
    columns: 2,
    named_by: 1,
    version: None,
    put: "INSERT INTO audit VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING",
};
pub(in super::super) const OUTBOX: Table = Table {
    name: "outbox",
    columns: 5,
    named_by: 1,
    version: Some(3),
    put: "INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?)",
};
/// What a policy that was in force has beside its document.
pub(in super::super) const POLICIES: Table = Table {
    name: "policies",
    columns: 6,
    named_by: 1,
    version: Some(2),
    put: "INSERT OR REPLACE INTO policies VALUES (?, ?, ?, ?, ?, ?, ?)",
};
pub(in super::super) const POLICY_DOCUMENTS: Table = Table {
    name: "policy_documents",
    columns: 2,
    named_by: 1,
    version: None,
    put: "INSERT OR REPLACE INTO policy_documents VALUES (?, ?, ?)",
};
/// The tables since layout 3.
pub(super) const EARLIER_TABLES: [&Table; 9] =
    [&JOURNAL, &PROGRESS, &COUNTERS, &SEGMENTS, &GATES, &SPEND, &REGISTRY, &USES, &LAST_USES];
/// The tables of layouts 4 and 5.
const TABLES_4: [&Table; 11] = [
    &JOURNAL,
    &PROGRESS,
    &COUNTERS,
    &SEGMENTS,
    &GATES,
    &SPEND,
    &REGISTRY,
    &USES,
    &LAST_USES,
    &DEPLOYMENT,
    &AUDIT,
];
/// How many of the tables there were up to layout 7.
const TABLES_7: usize = 12;
static TABLES: [&Table; 14] = [
    &JOURNAL,
    &PROGRESS,
    &COUNTERS,
    &SEGMENTS,
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
];

/// The tables of all layouts, whose rows can be salvaged.
pub(in super::super) const KNOWN_TABLES: [&Table; 15] = [
    &JOURNAL,
    &PROGRESS,
    &COUNTERS,
    &SEGMENTS,
    &GATES,
    &SPEND,
    &USAGE,
    &REGISTRY,
    &USES,
    &LAST_USES,
    &DEPLOYMENT,
    &AUDIT,
    &OUTBOX,
    &POLICIES,
    &POLICY_DOCUMENTS,
];

/// The tables of a layout that has check sums.
pub(in super::super) fn tables(layout: i64) -> &'static [&'static Table] {
    if layout == SUMMED {
        &EARLIER_TABLES
    } else if layout < ROWS {
        &TABLES_4
    } else if layout < RECORDED {
        TABLES.get(..TABLES_7).unwrap_or_default()
    } else {
        &TABLES
    }
}

/// The values for columns that rows of `table` did not have before layout 3: then no commit was counted, no owner and no step of
/// the clock was recorded, and a gate had only an end.
pub(in super::super) fn added_since(table: &Table) -> Vec<Value> {
    match *table {
        PROGRESS => vec![Value::Integer(0), Value::Blob(vec![0; 16]), Value::Integer(0)],
        GATES => vec![Value::Integer(0), Value::Integer(0), Value::Integer(0), Value::Text(String::new())],
        _ => Vec::new(),
    }
}
