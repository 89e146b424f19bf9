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

    /// Takes all uses since the last call.
    pub(super) fn take(&self) -> TakenUses<'_> {
        let mut taken = Vec::new();
        for shard in &self.0 {
            taken.extend(lock(shard).drain().map(|(secret, Count { requests, last_used })| SecretUse {
                secret,
                slot: use_slot(last_used),
                requests,
                last_used,
            }));
        }
        TakenUses { counts: self, taken }
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

/// Uses that are being written down. What is not written when this is dropped, as when a caller goes away, counts again.
#[derive(Debug)]
pub(super) struct TakenUses<'c> {
    counts: &'c UseCounts,
    taken: Vec<SecretUse>,
}

impl TakenUses<'_> {
    pub(super) const fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// The last of them, at most `count`.
    pub(super) fn part(&self, count: usize) -> Vec<SecretUse> {
        self.taken.get(self.taken.len().saturating_sub(count)..).unwrap_or_default().to_vec()
    }

    /// The last `count` are written down.
    pub(super) fn is_written(&mut self, count: usize) {
        self.taken.truncate(self.taken.len().saturating_sub(count));
    }
}

impl Drop for TakenUses<'_> {
    fn drop(&mut self) {
        for taken in &self.taken {
            self.counts.add(taken.secret, taken.requests, taken.last_used);
        }
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
    fn uses_are_taken_once_and_what_is_not_written_counts_again() {
        let uses = UseCounts::default();
        let (secret, slot) = (SecretId(70), use_slot(Timestamp(5)));
        uses.count(secret, Timestamp(5));
        uses.count(secret, Timestamp(3));
        let written =
            |requests, last_used| SecretUse { secret, slot, requests, last_used: Timestamp(last_used) };
        let mut taken = uses.take();
        assert_eq!(taken.part(9), [written(2, 5)]);
        assert_eq!(uses.take().part(9), []);
        uses.count(secret, Timestamp(4));
        drop(taken);
        taken = uses.take();
        assert_eq!(taken.part(9), [written(3, 5)]);
        taken.is_written(1);
        assert!(taken.is_empty());
        drop(taken);
        assert!(uses.take().is_empty());
    }
}
