//! The processes that share a store: each announces itself there, so that any of them can tell about all.

mod announcement;
mod announcer;
mod spooled;
mod upstream;

use std::{sync::Arc, time::Duration};

pub use announcement::{Announcement, MAX_SPOOL_TEAMS, SpoolReport, UpstreamKeyReport, UpstreamKeyState};
pub use announcer::{Announcer, EVERY};
pub use spooled::{Spooled, spooled};
pub use upstream::{MergedUpstreamKey, UpstreamKeyReplica, merged_upstream_keys};

use crate::{
    domain::Timestamp,
    store::{self, StoreError},
};

/// A replica that was seen longer ago says nothing about the present. Twelve announcements are missing then: more than an outage of
/// the store that is over before anyone has looked.
pub const SEEN_LATELY: Duration = Duration::from_secs(60);

/// How long what a replica said of its readiness holds. One that stops may be gone before it has announced that, and one that is killed
/// announces nothing. Three announcements are missing then: one that a slow store delays does not make a replica unready.
pub const READY_FOR: Duration = EVERY.saturating_mul(3);

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
        self.is_seen_within(SEEN_LATELY, now)
    }

    /// Whether it decides at `now`, as far as can be told: it said so within [`READY_FOR`].
    #[must_use]
    pub fn is_ready(&self, now: Timestamp) -> bool {
        self.said.ready && self.is_seen_within(READY_FOR, now)
    }

    fn is_seen_within(&self, bound: Duration, now: Timestamp) -> bool {
        Duration::from_millis(now.since(self.last_seen)) < bound
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_was_not_seen_for_three_announcements_is_not_ready() {
        let replica = |ready| Replica {
            name: "gate-1:1".into(),
            last_seen: Timestamp(100_000),
            said: Announcement { ready, ..Announcement::default() },
        };
        for (ready, now, expected) in [
            (true, 100_000, true),
            (true, 114_999, true),
            (true, 115_000, false),
            (true, 200_000, false),
            // It announced itself after the clock was read.
            (true, 99_999, true),
            (false, 100_000, false),
        ] {
            assert_eq!(replica(ready).is_ready(Timestamp(now)), expected, "{ready} at {now}");
        }
    }
}
