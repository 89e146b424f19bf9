//! Table `usage`: the rows of usage, written and read back.

use std::sync::Arc;

use rusqlite::{
    Connection, OptionalExtension, Row, Transaction, params,
    types::{Value, ValueRef},
};

use super::{
    batch::UsageEnded,
    disk::{blob, misshapen, number, text, uint},
    schema,
    spend::{LineRow, Resident},
    sums,
    wire::{Malformed, Reader, put_amounts},
};
use crate::store::{Series, UsageAmounts, UsageKey, UsageSet};

/// The conditions of one row and of one set.
const OF_SET: &str = "series = ? AND period = ? AND team = ?";
const OF_ROW: &str = "(day, hour, model, key, operation, service_tier, project, value)";
/// Rows of usage of each series removed in one transaction: some hundred microseconds, four times a second.
const USAGE_FORGOTTEN: i64 = if cfg!(test) { 2 } else { 256 };

pub(super) fn put(connection: &Connection, LineRow { key, amounts, lsn }: &LineRow) -> rusqlite::Result<()> {
    let mut bytes = Vec::with_capacity(64);
    put_amounts(&mut bytes, amounts);
    let ([operation, tier], series) = (key.codes().map(|code| number(code.into())), key.set.series.name());
    let [period, day, hour] = [key.set.period, key.day, key.hour.into()].map(|n| number(u64::from(n)));
    let [team, model, name] = [&key.set.team, &key.model, &key.key].map(|name| text(name));
    let names = [text(&key.project), text(&key.value)];
    let [project, value] = names;
    let row = [text(&series), period, team, day, hour, model, name, operation, tier, project, value];
    let values: Vec<_> = row.into_iter().chain([ValueRef::Blob(&bytes), number(*lsn)]).collect();
    sums::put(connection, &schema::USAGE, &values)
}

/// The series that have rows, but that of days, each with the first day of which they are kept. One seek for each, past all its rows.
fn series_of_days(connection: &Connection, ended: &UsageEnded) -> rusqlite::Result<Vec<(String, u32)>> {
    let (mut found, mut last) = (Vec::new(), "d".to_owned());
    let mut next = connection.prepare_cached("SELECT min(series) FROM usage WHERE series > ?")?;
    while let Some(series) = next.query_row([&last], |row| row.get::<_, Option<String>>(0))? {
        let is_by_hour = series == "h" || series == "nh";
        let kept_from = if is_by_hour { ended.hours_before } else { ended.values_before };
        last.clone_from(&series);
        found.push((series, kept_from));
    }
    Ok(found)
}

/// Whether there are rows of periods that are over.
pub(super) fn has_ended(connection: &Connection, ended: &UsageEnded) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM usage WHERE series = ? AND period < ?)";
    let mut select = connection.prepare_cached(sql)?;
    for (series, kept_from) in series_of_days(connection, ended)? {
        if select.query_row(params![series, kept_from], |row| row.get(0))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes rows of periods that are over, a bounded number of each series.
pub(super) fn forget(transaction: &Transaction<'_>, ended: &UsageEnded) -> rusqlite::Result<()> {
    let columns = "series, period, team, day, hour, model, key, operation, service_tier, project, value";
    let sql = format!(
        "DELETE FROM usage WHERE ({columns}) IN (SELECT {columns} FROM usage WHERE series = ? AND period < ? LIMIT ?)"
    );
    let mut delete = transaction.prepare_cached(&sql)?;
    for (series, kept_from) in series_of_days(transaction, ended)? {
        delete.execute(params![series, kept_from, USAGE_FORGOTTEN])?;
    }
    Ok(())
}

/// Passes on the rows of all periods that are kept in memory.
pub(super) fn resident(
    connection: &Connection,
    periods: Resident,
    mut each: impl FnMut(LineRow),
) -> rusqlite::Result<()> {
    let mut series: Option<String> = Some(String::new());
    while let Some(last) = series.take() {
        let mut next = connection.prepare_cached("SELECT min(series) FROM usage WHERE series > ?")?;
        series = next.query_row([&last], |row| row.get(0))?;
        let Some(name) = &series else { break };
        let from = if name == "d" { periods.month } else { periods.day };
        let mut select = connection.prepare_cached("SELECT * FROM usage WHERE series = ? AND period >= ?")?;
        let mut rows = select.query(params![name, from])?;
        while let Some(row) = rows.next()? {
            each(read(row)?);
        }
    }
    Ok(())
}

/// At most `count` rows of a set, in order, starting with the first after `after`.
pub(super) fn of_set(
    connection: &Connection,
    set: &UsageSet,
    after: Option<&UsageKey>,
    count: usize,
) -> rusqlite::Result<Vec<LineRow>> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let (series, team) = (set.series.name(), &*set.team);
    let Some(after) = after else {
        let sql = format!("SELECT * FROM usage WHERE {OF_SET} ORDER BY {} LIMIT ?", order());
        let mut select = connection.prepare_cached(&sql)?;
        return select.query_map(params![series, set.period, team, count], read)?.collect();
    };
    let sql = format!(
        "SELECT * FROM usage WHERE {OF_SET} AND {OF_ROW} > (?, ?, ?, ?, ?, ?, ?, ?) ORDER BY {} LIMIT ?",
        order()
    );
    let [operation, tier] = after.codes();
    let (model, name, project, value) = (&*after.model, &*after.key, &*after.project, &*after.value);
    let mut select = connection.prepare_cached(&sql)?;
    let last = params![
        series, set.period, team, after.day, after.hour, model, name, operation, tier, project, value, count
    ];
    select.query_map(last, read)?.collect()
}

fn order() -> &'static str {
    OF_ROW.trim_matches(['(', ')'])
}

pub(super) fn one(connection: &Connection, key: &UsageKey) -> rusqlite::Result<LineRow> {
    let sql = format!("SELECT * FROM usage WHERE {OF_SET} AND {OF_ROW} = (?, ?, ?, ?, ?, ?, ?, ?)");
    let ([operation, tier], series, team) = (key.codes(), key.set.series.name(), &*key.set.team);
    let (model, name, project, value) = (&*key.model, &*key.key, &*key.project, &*key.value);
    let mut select = connection.prepare_cached(&sql)?;
    let row = params![
        series,
        key.set.period,
        team,
        key.day,
        key.hour,
        model,
        name,
        operation,
        tier,
        project,
        value
    ];
    let empty = || LineRow { key: key.clone(), amounts: UsageAmounts::default(), lsn: 0 };
    Ok(select.query_row(row, read).optional()?.unwrap_or_else(empty))
}

/// The teams with rows of days in one month, in order.
pub(super) fn teams(connection: &Connection, month: u32) -> rusqlite::Result<Vec<String>> {
    let sql =
        "SELECT DISTINCT team FROM usage WHERE series = 'd' AND period = ? AND team <> '' ORDER BY team";
    let mut select = connection.prepare_cached(sql)?;
    let rows = select.query_map([month], |row| row.get(0))?;
    rows.collect()
}

/// The teams with rows of denials on a day of one month, in order.
pub(super) fn denied(connection: &Connection, month: u32) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT DISTINCT team FROM usage WHERE series = 'n' AND period BETWEEN ? AND ? AND team <> '' \
               ORDER BY team";
    let mut select = connection.prepare_cached(sql)?;
    let rows = select.query_map([month * 100, month * 100 + 99], |row| row.get(0))?;
    rows.collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<LineRow> {
    sums::check(row, &schema::USAGE)?;
    let text = |at| row.get::<_, String>(at).map(Arc::from);
    let series = Series::of_name(&row.get::<_, String>(0)?).ok_or_else(|| misshapen(0))?;
    let (operation, service_tier) = UsageKey::of_codes([row.get(7)?, row.get(8)?]);
    let key = UsageKey {
        set: UsageSet { series, period: row.get(1)?, team: text(2)? },
        day: row.get(3)?,
        hour: row.get(4)?,
        model: text(5)?,
        key: text(6)?,
        operation,
        service_tier,
        project: text(9)?,
        value: text(10)?,
    };
    let amounts = Reader(blob(row, 11)?).amounts().map_err(|Malformed| misshapen(11))?;
    Ok(LineRow { key, amounts, lsn: uint(row, 12)? })
}

/// Passes on each row of days, of all months.
pub(super) fn of_days(connection: &Connection, mut each: impl FnMut(LineRow)) -> rusqlite::Result<()> {
    let mut select = connection.prepare("SELECT * FROM usage WHERE series = 'd'")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        each(read(row)?);
    }
    Ok(())
}

/// The rows of table `spend`, as it was up to layout 5.
pub(super) fn earlier(connection: &Connection) -> rusqlite::Result<Vec<LineRow>> {
    let mut select = connection.prepare("SELECT * FROM spend")?;
    let rows = select.query_map([], |row| {
        sums::check(row, &schema::SPEND)?;
        let values: rusqlite::Result<Vec<Value>> = (0..schema::SPEND.columns).map(|at| row.get(at)).collect();
        Ok(of_earlier(&values?))
    })?;
    rows.collect()
}

/// A row of that table, whose check sum is right.
pub(super) fn of_earlier(values: &[Value]) -> LineRow {
    let uint = |at: usize| match values.get(at) {
        Some(Value::Integer(int)) => u64::try_from(*int).unwrap_or(0),
        _ => 0,
    };
    let small = |at| u32::try_from(uint(at)).unwrap_or(u32::MAX);
    let text = |at: usize| match values.get(at) {
        Some(Value::Text(text)) => Arc::from(text.as_str()),
        _ => Arc::default(),
    };
    let mut ints = [0; 8];
    for (int, at) in ints.iter_mut().zip(5..) {
        *int = uint(at);
    }
    let key = UsageKey::of_day(small(0), text(1), small(2), text(3), text(4));
    LineRow { key, amounts: UsageAmounts::from_numbers(&ints), lsn: uint(13) }
}
