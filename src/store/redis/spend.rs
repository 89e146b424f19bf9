//! Reading rows of usage, and adding to them without a settlement.

use std::{collections::BTreeSet, sync::Arc};

use redis::{FromRedisValue, Value};

use super::{
    Inner,
    connection::Connection,
    script,
    settle::{merged, push_row_fields, push_row_keys, push_row_numbers},
    wire::{Numbers, Reader, size},
};
use crate::store::{MAX_ADDED_ROWS, StoreError, USAGE_AMOUNTS, UsageAddition, UsageAmounts};

/// Lines or teams read at once for a report: a fraction of a millisecond of the server's time.
pub(super) const PAGE: usize = 256;

impl Inner {
    pub(super) async fn spenders(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        self.teams(&self.keyspace.spenders(month)).await
    }

    pub(super) async fn denied(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        self.teams(&self.keyspace.denied(month)).await
    }

    /// The teams, read in pages: the set is not read at one instant, but no member is missed.
    async fn teams(&self, index: &str) -> Result<Vec<Arc<str>>, StoreError> {
        let mut teams = BTreeSet::new();
        self.scan("SSCAN", index, |page| {
            let page: Vec<String> = redis::from_redis_value(page).map_err(|_| StoreError::Corrupt)?;
            teams.extend(page.into_iter().map(Arc::from));
            Ok(())
        })
        .await?;
        Ok(teams.into_iter().collect())
    }

    /// Adds to rows, once for each number of a source.
    pub(super) async fn add_usage(&self, addition: &UsageAddition) -> Result<(), StoreError> {
        let UsageAddition { source, number, lines, max_rows } = addition;
        if lines.len() > MAX_ADDED_ROWS {
            return Err(StoreError::Overflow);
        }
        if lines.is_empty() {
            return Ok(());
        }
        let lines = merged(lines);
        let mut numbers = Numbers::with_capacity(2 + 16 * lines.len());
        numbers.extend(&[*number, size(lines.len())]);
        let mut cmd = script::ADD_USAGE.call(2 + 2 * lines.len());
        cmd.arg(self.keyspace.added(*source)).arg(&self.keyspace.meta);
        for (row, amounts) in &lines {
            push_row_keys(&mut cmd, &self.keyspace, row);
            push_row_numbers(&mut numbers, row, amounts, *max_rows);
        }
        cmd.arg(numbers.bytes()).arg(numbers.format());
        push_row_fields(&mut cmd, lines.iter().map(|(row, _)| *row));
        let answer = self.reports()?.call(&script::ADD_USAGE, &cmd).await?;
        match redis::from_redis_value::<u64>(answer) {
            Ok(0 | 1) => Ok(()),
            Ok(2) => Err(StoreError::Overflow),
            _ => Err(StoreError::Corrupt),
        }
    }

    /// The connection for reports, which are long or not urgent. They notice an outage as soon as decisions do.
    pub(super) fn reports(&self) -> Result<&Connection, StoreError> {
        if self.connection.is_down() {
            return Err(StoreError::Unavailable);
        }
        Ok(self
            .reports
            .get_or_init(|| Connection::open_patient(self.targets.reports.clone(), self.acts_within())))
    }

    /// Reads a collection in pages on the connection for reports, so neither the server nor the connection for decisions is held
    /// for longer than a page takes. Each page has the deadline of any call, and takes far less.
    async fn scan(
        &self,
        command: &str,
        key: &str,
        mut take: impl FnMut(Value) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let reports = self.reports()?;
        let mut cursor = "0".to_owned();
        loop {
            let mut cmd = redis::cmd(command);
            cmd.arg(key).arg(&cursor).arg("COUNT").arg(PAGE);
            let (next, page): (String, Value) =
                redis::from_redis_value(reports.run(&cmd).await?).map_err(|_| StoreError::Corrupt)?;
            take(page)?;
            if next == "0" {
                return Ok(());
            }
            cursor = next;
            // If the answer is already there, awaiting it would not let other tasks of this core run in between.
            tokio::task::yield_now().await;
        }
    }
}

/// The fields and values of a page.
pub(super) fn fields<F: FromRedisValue>(page: Value) -> Result<Vec<(F, Vec<u8>)>, StoreError> {
    redis::from_redis_value(page).map_err(|_| StoreError::Corrupt)
}

/// The amounts as scripts add them up (`rows.lua`).
pub(super) fn amounts(value: &[u8]) -> Result<UsageAmounts, StoreError> {
    let (mut reader, mut numbers) = (Reader::new(value), Vec::with_capacity(USAGE_AMOUNTS));
    while !reader.is_empty() {
        numbers.push(reader.seven()?);
    }
    Ok(UsageAmounts::from_numbers(&numbers))
}
