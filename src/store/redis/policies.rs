//! The policies that were in force, as calls of their script.

use std::{cmp::Reverse, sync::Arc};

use bytes::Bytes;
use redis::Value;

use super::{Inner, RedisStore, bytes, script, wire::Reader};
use crate::{
    domain::Timestamp,
    store::{PolicyEntry, PolicyRecord, PolicyRecords, StoreError, policies::names},
};

impl Inner {
    async fn record_policy(&self, record: &PolicyRecord) -> Result<bool, StoreError> {
        record.check()?;
        let PolicyRecord { revision, at, replica, value, document } = record;
        let document = document.as_deref().unwrap_or_default();
        let length = revision.len() + replica.len() + value.len() + document.len();
        let mut cmd = script::RECORD_POLICY.call_of(3, 8, 64 + length);
        cmd.arg(&self.keyspace.policies).arg(&self.keyspace.policy_documents).arg(&self.keyspace.meta);
        cmd.arg(&**revision).arg(&**replica).arg(at.0).arg(&**value).arg(document);
        // Beside the connection of decisions: a document of a megabyte would hold them up.
        let answer = bytes(self.reports()?.call(&script::RECORD_POLICY, &cmd).await?)?;
        Ok(Reader::new(&answer).number()? == 1)
    }

    async fn policies(&self) -> Result<Vec<PolicyEntry>, StoreError> {
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(&self.keyspace.policies);
        let answer = self.reports()?.run(&cmd).await?;
        let fields: Vec<(String, Vec<u8>)> =
            redis::from_redis_value(answer).map_err(|_| StoreError::Corrupt)?;
        let mut entries = Vec::with_capacity(fields.len());
        for (revision, value) in fields {
            match entry(&revision, &value) {
                Ok(entry) => entries.push(entry),
                // Foreign data hides no other policy.
                Err(_) => tracing::warn!(document_revision = revision, "the record of a policy is damaged"),
            }
        }
        entries.sort_unstable_by_key(|(number, _)| Reverse(*number));
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    async fn policy_document(&self, revision: &str) -> Result<Option<Bytes>, StoreError> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(&self.keyspace.policy_documents).arg(revision);
        match self.reports()?.run(&cmd).await? {
            Value::Nil => Ok(None),
            found => Ok(Some(bytes(found)?.into())),
        }
    }
}

/// The number of a policy, and what is recorded of it: see `record_policy.lua`.
fn entry(revision: &str, value: &[u8]) -> Result<(u64, PolicyEntry), StoreError> {
    let mut reader = Reader::new(value);
    let (number, first, length) = (reader.number()?, reader.number()?, reader.size()?);
    let replicas = str::from_utf8(reader.bytes(length)?).map_err(|_| StoreError::Corrupt)?;
    let (replicas, value) = (names(replicas), reader.rest().to_vec().into());
    Ok((number, PolicyEntry { revision: revision.into(), first: Timestamp(first), replicas, value }))
}

impl PolicyRecords for RedisStore {
    async fn record_policy(&self, record: PolicyRecord) -> Result<bool, StoreError> {
        self.0.record_policy(&record).await
    }

    async fn policies(&self) -> Result<Vec<PolicyEntry>, StoreError> {
        self.0.policies().await
    }

    async fn policy_document(&self, revision: Arc<str>) -> Result<Option<Bytes>, StoreError> {
        self.0.policy_document(&revision).await
    }
}
