//! Announcements of replicas, as calls of their script.

use std::sync::Arc;

use super::{
    Inner, bytes,
    keyspace::TIME_FIELD,
    script,
    wire::{Numbers, Reader},
};
use crate::{
    domain::Timestamp,
    store::{
        MAX_REPLICA_VALUE, ReplicaEntry, StoreError,
        replicas::{is_kept, listed},
    },
};

impl Inner {
    pub(super) async fn announce_replica(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        if value.len() > MAX_REPLICA_VALUE {
            return Err(StoreError::Overflow);
        }
        self.know_time().await?;
        let sent = self.time.reading();
        let bounds = self.time.for_effect(sent, self.connection.deadline_ms());
        let mut numbers = Numbers::with_capacity(3);
        bounds.push(&mut numbers);
        let mut cmd = script::ANNOUNCE_REPLICA.call_of(2, 5, value.len());
        cmd.arg(&self.keyspace.counters).arg(&self.keyspace.replicas);
        cmd.arg(numbers.bytes()).arg(numbers.format()).arg(name).arg(value).arg(TIME_FIELD);
        let answer = bytes(self.connection.call(&script::ANNOUNCE_REPLICA, &cmd).await?)?;
        self.read_time(&mut Reader::new(&answer), (sent, &bounds)).map(drop)
    }

    pub(super) async fn replicas(&self) -> Result<Vec<ReplicaEntry>, StoreError> {
        self.know_time().await?;
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(&self.keyspace.replicas);
        let answer = self.reports()?.run(&cmd).await?;
        let fields: Vec<(String, Vec<u8>)> =
            redis::from_redis_value(answer).map_err(|_| StoreError::Corrupt)?;
        let now = self.time.now();
        let mut entries = Vec::with_capacity(fields.len());
        for (name, field) in fields {
            let mut reader = Reader::new(&field);
            let last_seen = Timestamp(reader.number()?);
            if is_kept(last_seen, now.store) {
                let (last_seen, value) = (now.to_wall(last_seen), reader.rest().to_vec().into());
                entries.push(ReplicaEntry { name: Arc::from(name), last_seen, value });
            }
        }
        Ok(listed(entries))
    }
}
