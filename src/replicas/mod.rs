//! The processes that share a store: each announces itself there, so that any of them can tell about all.

mod announcement;
mod announcer;
mod upstream;

use std::{sync::Arc, time::Duration};

pub use announcement::{Announcement, UpstreamKeyReport, UpstreamKeyState};
pub use announcer::{Announcer, EVERY};
pub use upstream::{MergedUpstreamKey, UpstreamKeyReplica, merged_upstream_keys};

use crate::{
    domain::Timestamp,
    store::{self, StoreError},
};

/// A replica that was seen longer ago says nothing about the present. Twelve announcements are missing then: more than an outage of
/// the store that is over before anyone has looked.
pub const SEEN_LATELY: Duration = Duration::from_secs(60);

/// A process that has announced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its name.
    pub name: Arc<str>,
    /// When the store last heard of it.
    pub last_seen: Timestamp,
    /// What it said then.
    pub said: Announcement,
}

impl Replica {
    /// Whether it was seen within [`SEEN_LATELY`] before `now`.
    #[must_use]
    pub fn is_seen_lately(&self, now: Timestamp) -> bool {
        Duration::from_millis(now.since(self.last_seen)) < SEEN_LATELY
    }
}

/// The replicas seen within the last hour, by name: at most [`store::MAX_REPLICAS`].
///
/// # Errors
/// The store cannot be read.
pub async fn list<S: store::Replicas>(store: &S) -> Result<Vec<Replica>, StoreError> {
    let entries = store.replicas().await?;
    let replica = |entry: store::ReplicaEntry| {
        let said = Announcement::parse(&entry.name, &entry.value);
        Replica { name: entry.name, last_seen: entry.last_seen, said }
    };
    Ok(entries.into_iter().map(replica).collect())
}
