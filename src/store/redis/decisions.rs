//! Decisions for those who watch them, as calls of their scripts.

use bytes::Bytes;
use redis::Value;

use super::{Inner, RedisStore, bytes, script};
use crate::store::{DecisionId, Decisions, MAX_DECISIONS_READ, StoreError, decisions};

impl Inner {
    /// The store's time as the scripts take it.
    async fn store_ms(&self) -> Result<u64, StoreError> {
        self.know_time().await?;
        Ok(self.time.now().store.0)
    }

    /// Every process asks each second, so the question is one look-up, on a connection that there is anyway.
    async fn are_decisions_watched(&self) -> Result<bool, StoreError> {
        let now = self.store_ms().await?;
        let mut cmd = redis::cmd("GET");
        cmd.arg(&self.keyspace.decisions_watched);
        let until: Option<u64> =
            redis::from_redis_value(self.connection.run(&cmd).await?).map_err(|_| StoreError::Corrupt)?;
        Ok(until.is_some_and(|until| until > now))
    }

    async fn publish_decisions(&self, decisions: &[Bytes]) -> Result<bool, StoreError> {
        decisions::check(decisions)?;
        if decisions.is_empty() {
            return self.are_decisions_watched().await;
        }
        let now = self.store_ms().await?;
        let length = decisions.iter().map(Bytes::len).sum();
        let mut cmd = script::PUBLISH_DECISIONS.call_of(3, 1 + decisions.len(), length);
        self.keyspace.push_decisions(&mut cmd);
        cmd.arg(now);
        for decision in decisions {
            cmd.arg(&**decision);
        }
        match self.reports()?.call(&script::PUBLISH_DECISIONS, &cmd).await? {
            Value::Int(watched) => Ok(watched == 1),
            _ => Err(StoreError::Corrupt),
        }
    }

    async fn read_decisions(
        &self,
        after: Option<DecisionId>,
        count: usize,
    ) -> Result<Vec<(DecisionId, Bytes)>, StoreError> {
        let now = self.store_ms().await?;
        let mut cmd = script::READ_DECISIONS.call_of(3, 3, 64);
        self.keyspace.push_decisions(&mut cmd);
        let after = after.map(|DecisionId { ms, number }| format!("{ms}-{number}"));
        cmd.arg(now).arg(after.unwrap_or_default()).arg(count.min(MAX_DECISIONS_READ));
        let answer = self.reports()?.call(&script::READ_DECISIONS, &cmd).await?;
        let Value::Array(told) = answer else { return Err(StoreError::Corrupt) };
        let (mut read, mut told) = (Vec::with_capacity(told.len() / 2), told.into_iter());
        while let (Some(id), Some(decision)) = (told.next(), told.next()) {
            read.push((id_of(&bytes(id)?).ok_or(StoreError::Corrupt)?, bytes(decision)?.into()));
        }
        Ok(read)
    }
}

/// The id of an entry of the stream.
fn id_of(entry: &[u8]) -> Option<DecisionId> {
    let (ms, number) = str::from_utf8(entry).ok()?.split_once('-')?;
    Some(DecisionId { ms: ms.parse().ok()?, number: number.parse().ok()? })
}

impl Decisions for RedisStore {
    async fn publish_decisions(&self, decisions: Vec<Bytes>) -> Result<bool, StoreError> {
        self.0.publish_decisions(&decisions).await
    }

    async fn read_decisions(
        &self,
        after: Option<DecisionId>,
        count: usize,
    ) -> Result<Vec<(DecisionId, Bytes)>, StoreError> {
        self.0.read_decisions(after, count).await
    }
}
