//! How often secrets were used since that was last written down.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    domain::{Timestamp, key::SecretId},
    store::{SecretUse, use_slot},
};

/// Parts with a lock each, so that cores rarely meet at one.
const SHARDS: usize = 64;

/// Uses of one secret that are not written down yet.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    requests: u64,
    last_used: Timestamp,
}

/// Counts the uses of secrets. Every core adds to it, and the recorder takes from it. A lock is held for one look-up.
#[derive(Debug)]
pub(super) struct UseCounts(Vec<Mutex<HashMap<SecretId, Count>>>);

impl Default for UseCounts {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl UseCounts {
    /// Counts a request at `now`.
    pub(super) fn count(&self, secret: SecretId, now: Timestamp) {
        self.add(secret, 1, now);
    }

    /// Puts back what was taken but could not be written down.
    pub(super) fn put_back(&self, taken: &SecretUse) {
        self.add(taken.secret, taken.requests, taken.last_used);
    }

    /// Takes all uses since the last call.
    pub(super) fn take(&self) -> Vec<SecretUse> {
        let mut taken = Vec::new();
        for shard in &self.0 {
            taken.extend(lock(shard).drain().map(|(secret, Count { requests, last_used })| SecretUse {
                secret,
                slot: use_slot(last_used),
                requests,
                last_used,
            }));
        }
        taken
    }

    fn add(&self, secret: SecretId, requests: u64, at: Timestamp) {
        // Ids are random numbers.
        let shard = usize::try_from(secret.0 % SHARDS as u64).unwrap_or(0);
        let Some(shard) = self.0.get(shard) else { return };
        let mut counts = lock(shard);
        let count = counts.entry(secret).or_default();
        count.requests = count.requests.saturating_add(requests);
        count.last_used = count.last_used.max(at);
    }
}

fn lock(shard: &Mutex<HashMap<SecretId, Count>>) -> MutexGuard<'_, HashMap<SecretId, Count>> {
    // Nothing panics while it is held.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_taken_once_and_can_be_put_back() {
        let uses = UseCounts::default();
        let (secret, slot) = (SecretId(70), use_slot(Timestamp(5)));
        uses.count(secret, Timestamp(5));
        uses.count(secret, Timestamp(3));
        let taken = uses.take();
        assert_eq!(taken, [SecretUse { secret, slot, requests: 2, last_used: Timestamp(5) }]);
        assert_eq!(uses.take(), []);
        uses.count(secret, Timestamp(4));
        uses.put_back(&taken[0]);
        assert_eq!(uses.take(), [SecretUse { secret, slot, requests: 3, last_used: Timestamp(5) }]);
    }
}
