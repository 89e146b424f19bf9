//! Announcements of replicas: the one process that has the store open announces itself, so they are in memory alone.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    domain::{Moment, Timestamp},
    store::{
        MAX_REPLICA_VALUE, MAX_REPLICAS, ReplicaEntry, StoreError,
        replicas::{is_kept, listed},
    },
};

/// The announcements by name, each with the store's time when it came.
#[derive(Debug, Default)]
pub(super) struct ReplicaTable(Mutex<BTreeMap<Arc<str>, (Timestamp, Bytes)>>);

impl ReplicaTable {
    pub(super) fn announce(&self, name: Arc<str>, value: Bytes, now: Timestamp) -> Result<(), StoreError> {
        if value.len() > MAX_REPLICA_VALUE {
            return Err(StoreError::Overflow);
        }
        let mut table = self.lock();
        table.retain(|_, (last_seen, _)| is_kept(*last_seen, now));
        table.insert(name, (now, value));
        if table.len() > MAX_REPLICAS {
            let by_age =
                table.iter().max_by_key(|(name, (last_seen, _))| (Reverse(*last_seen), Arc::clone(name)));
            let oldest = by_age.map(|(name, _)| Arc::clone(name));
            oldest.map(|name| table.remove(&name));
        }
        Ok(())
    }

    pub(super) fn list(&self, now: Moment) -> Vec<ReplicaEntry> {
        let table = self.lock();
        let entry = |(name, (last_seen, value)): (&Arc<str>, &(Timestamp, Bytes))| {
            is_kept(*last_seen, now.store).then(|| ReplicaEntry {
                name: Arc::clone(name),
                last_seen: now.to_wall(*last_seen),
                value: value.clone(),
            })
        };
        listed(table.iter().filter_map(entry).collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, (Timestamp, Bytes)>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_than_are_listed() {
        let table = ReplicaTable::default();
        let announce = |n: usize, at| table.announce(format!("{n:04}").into(), Bytes::new(), Timestamp(at));
        // The oldest is neither the first nor the last by name.
        announce(500, 1).unwrap();
        for n in (0..=MAX_REPLICAS).filter(|n| *n != 500) {
            announce(n, 2).unwrap();
        }
        let names: Vec<_> = table.lock().keys().cloned().collect();
        assert_eq!(names.len(), MAX_REPLICAS);
        assert!(!names.contains(&"0500".into()) && names.contains(&"1000".into()));
    }
}
