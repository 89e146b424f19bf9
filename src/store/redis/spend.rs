//! Reading the spend report.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use redis::Value;

use super::{Inner, connection::Connection, keyspace::spend_line, wire::Reader};
use crate::store::{SpendAmounts, SpendKey, StoreError};

/// Lines or teams read at once for a report: a fraction of a millisecond of the server's time.
const PAGE: usize = 256;

impl Inner {
    /// The teams, read in pages: the set is not read at one instant, but no member is missed.
    pub(super) async fn spenders(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        let mut teams = BTreeSet::new();
        self.scan("SSCAN", &self.keyspace.spenders(month), |page| {
            let page: Vec<String> = redis::from_redis_value(page).map_err(|_| StoreError::Corrupt)?;
            teams.extend(page.into_iter().map(Arc::from));
            Ok(())
        })
        .await?;
        Ok(teams.into_iter().collect())
    }

    /// The lines, read in pages: each as it was at some instant of the call.
    pub(super) async fn spend(
        &self,
        month: u32,
        team: Arc<str>,
    ) -> Result<Vec<(SpendKey, SpendAmounts)>, StoreError> {
        let mut lines = BTreeMap::new();
        self.scan("HSCAN", &self.keyspace.spend(month, &team), |page| {
            let page: Vec<(String, Vec<u8>)> =
                redis::from_redis_value(page).map_err(|_| StoreError::Corrupt)?;
            for (field, value) in page {
                let line = spend_line(month, &team, &field).ok_or(StoreError::Corrupt)?;
                // A later page may repeat a line of an earlier one; the later reading is the newer.
                lines.insert(line, amounts(&mut Reader::new(&value))?);
            }
            Ok(())
        })
        .await?;
        Ok(lines.into_iter().collect())
    }

    /// The connection for reports, which are long or not urgent. They notice an outage as soon as decisions do.
    pub(super) fn reports(&self) -> Result<&Connection, StoreError> {
        if self.connection.is_down() {
            return Err(StoreError::Unavailable);
        }
        Ok(self.reports.get_or_init(|| Connection::open_patient(self.target.clone(), self.acts_within())))
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

/// The amounts as [`SpendAmounts::to_numbers`] orders them, which is how the script adds them up.
fn amounts(reader: &mut Reader<'_>) -> Result<SpendAmounts, StoreError> {
    Ok(SpendAmounts {
        cost_nanos: reader.number()?,
        requests: reader.number()?,
        input_tokens: reader.number()?,
        cached_input_tokens: reader.number()?,
        output_tokens: reader.number()?,
        reasoning_tokens: reader.number()?,
        audio_ms: reader.number()?,
        characters: reader.number()?,
    })
}
