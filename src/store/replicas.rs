//! What the processes that share a store say about themselves.

use std::{future::Future, sync::Arc};

use bytes::Bytes;

use super::{Backend, StoreError, retention::REPLICA_KEPT_MS};
use crate::domain::Timestamp;

/// Announcements of replicas. A replica is a name, and what it says of itself is opaque to the store.
///
/// It stands beside the registry: what changes with every announcement must not change the revision that decisions name.
pub trait Replicas: Backend {
    /// Notes that the replica `name` is there and says `value`, at most [`MAX_REPLICA_VALUE`] bytes, in place of what it said before.
    /// Removes some of the replicas that were last seen an hour ago or earlier, and where there are too many, an old one. Not durable in
    /// a store that only one process has open.
    fn announce_replica(
        &self,
        name: Arc<str>,
        value: Bytes,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The replicas that were seen within the last hour, by name: at most [`MAX_REPLICAS`], those seen last.
    fn replicas(&self) -> impl Future<Output = Result<Vec<ReplicaEntry>, StoreError>> + Send;
}

/// The most bytes that a replica may say.
pub const MAX_REPLICA_VALUE: usize = 64 << 10;
/// The most replicas that are listed. A process that ends leaves its entry for an hour, so this is more than run at one time.
pub const MAX_REPLICAS: usize = 1_000;
/// The most replicas that Redis keeps: processes that start again and again leave an entry each. Beyond it, each announcement removes
/// the oldest entry of those that it looks at. That one is hardly ever of the newer half (at 16: once in 65,536 times), which is what is
/// listed.
pub(super) const REPLICAS_STORED: u64 = 2 * MAX_REPLICAS as u64;
/// How many entries one announcement looks at, at random, to remove those that are past their time: all of them where there are few,
/// and a bounded part of the store's time where there are many. With hundreds of replicas, each entry is still looked at every few
/// seconds.
pub(super) const REPLICAS_LOOKED_AT: u64 = 16;

/// The last announcement of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaEntry {
    /// The replica.
    pub name: Arc<str>,
    /// When the store got it.
    pub last_seen: Timestamp,
    /// What the replica said.
    pub value: Bytes,
}

/// Whether an entry of `last_seen` is kept at `now`, both in the store's time.
pub(super) const fn is_kept(last_seen: Timestamp, now: Timestamp) -> bool {
    now.since(last_seen) < REPLICA_KEPT_MS
}

/// Those of `entries` that are listed, in their order.
pub(super) fn listed(mut entries: Vec<ReplicaEntry>) -> Vec<ReplicaEntry> {
    if entries.len() > MAX_REPLICAS {
        entries.sort_unstable_by(|a, b| b.last_seen.cmp(&a.last_seen).then_with(|| a.name.cmp(&b.name)));
        entries.truncate(MAX_REPLICAS);
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    entries
}
