//! Check sums of rows: they detect whatever a disk, a file system or a stray write has changed.

use rusqlite::{
    Connection, Row,
    types::{ToSqlOutput, Type, ValueRef},
};
use thiserror::Error;

use super::schema::Table;

/// A row that differs from what was written.
#[derive(Debug, Error)]
#[error("row {row} of table `{table}` fails its check sum")]
pub(super) struct Damaged {
    table: &'static str,
    row: String,
}

/// The check sum of a row of `table`: the first eight bytes of BLAKE3 over the table's name and every value, each with its
/// type and length, as SQLite keeps integers.
pub(super) fn of<'a>(table: &Table, values: impl IntoIterator<Item = ValueRef<'a>>) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(table.name.as_bytes());
    for value in values {
        match value {
            ValueRef::Null => hasher.update(&[0]),
            ValueRef::Integer(int) => hasher.update(&[1]).update(&int.to_le_bytes()),
            ValueRef::Real(real) => hasher.update(&[2]).update(&real.to_bits().to_le_bytes()),
            ValueRef::Text(bytes) => sized(&mut hasher, 3, bytes),
            ValueRef::Blob(bytes) => sized(&mut hasher, 4, bytes),
        };
    }
    let mut first_eight = [0; 8];
    hasher.finalize_xof().fill(&mut first_eight);
    i64::from_le_bytes(first_eight)
}

fn sized<'h>(hasher: &'h mut blake3::Hasher, tag: u8, bytes: &[u8]) -> &'h mut blake3::Hasher {
    hasher.update(&[tag]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes)
}

/// Writes a row of `table` with its check sum.
pub(super) fn put(connection: &Connection, table: &Table, values: &[ValueRef<'_>]) -> rusqlite::Result<()> {
    let sum = of(table, values.iter().copied());
    let parameters = values.iter().copied().chain([ValueRef::Integer(sum)]).map(ToSqlOutput::Borrowed);
    connection.prepare_cached(table.put)?.execute(rusqlite::params_from_iter(parameters))?;
    Ok(())
}

/// Refuses a row that differs from what was written. The row has all columns of `table`, in order.
pub(super) fn check(row: &Row<'_>, table: &Table) -> rusqlite::Result<()> {
    let mut values = Vec::with_capacity(table.columns);
    for at in 0..table.columns {
        values.push(row.get_ref(at)?);
    }
    let sum = of(table, values.iter().copied());
    if row.get_ref(table.columns)? == ValueRef::Integer(sum) {
        return Ok(());
    }
    let key = values.iter().take(table.named_by.max(1)).map(shown).collect::<Vec<_>>().join(", ");
    let damaged = Damaged { table: table.name, row: key };
    Err(rusqlite::Error::FromSqlConversionFailure(table.columns, Type::Integer, Box::new(damaged)))
}

fn shown(value: &ValueRef<'_>) -> String {
    match value {
        ValueRef::Integer(int) => int.to_string(),
        ValueRef::Text(bytes) => format!("`{}`", String::from_utf8_lossy(bytes).escape_debug()),
        _ => "?".to_owned(),
    }
}
