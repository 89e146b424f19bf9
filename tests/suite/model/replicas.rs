//! The processes that share the store.

use std::sync::Arc;

use bytes::Bytes;
use tollgate::{
    domain::Timestamp,
    store::{MAX_REPLICA_VALUE, MAX_REPLICAS, ReplicaEntry, Replicas, StoreError},
};

use super::Model;

impl Replicas for Model {
    async fn announce_replica(&self, name: Arc<str>, value: Bytes) -> Result<(), StoreError> {
        if value.len() > MAX_REPLICA_VALUE {
            return Err(StoreError::Overflow);
        }
        self.state.lock().unwrap().replicas.insert(name, (self.moment().store, value));
        Ok(())
    }

    async fn replicas(&self) -> Result<Vec<ReplicaEntry>, StoreError> {
        let (state, now) = (self.state.lock().unwrap(), self.moment());
        let seen = state.replicas.iter().filter(|(_, (at, _))| now.store.since(*at) < 3_600_000);
        let mut seen: Vec<_> = seen.collect();
        seen.sort_by_key(|(name, (at, _))| (std::cmp::Reverse(*at), (*name).clone()));
        seen.truncate(MAX_REPLICAS);
        seen.sort();
        let entry = |(name, (at, value)): (&Arc<str>, &(Timestamp, Bytes))| ReplicaEntry {
            name: name.clone(),
            last_seen: now.to_wall(*at),
            value: value.clone(),
        };
        Ok(seen.into_iter().map(entry).collect())
    }
}
