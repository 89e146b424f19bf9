//! How much is kept, and what is wrong.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::domain::Timestamp;

/// The oldest record has waited for so long before people are told, in milliseconds: a failover is over by then, and what it left is
/// delivered.
pub(super) const BACKLOG_MS: u64 = 60_000;
/// The disk has failed for so long before people are told, as a store that does not answer: someone who has the tables locked is gone by then.
pub(super) const FAILING: Duration = Duration::from_secs(10);

/// How much is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolState {
    /// Records that wait.
    pub records: u64,
    /// What they cost in nano-dollars, as far as it is known.
    pub cost_nanos: u64,
    /// When the oldest of them was acknowledged.
    pub oldest: Option<Timestamp>,
    /// Bytes of the disk.
    pub bytes: u64,
    /// The bound on them.
    pub max_bytes: u64,
    /// Records that were refused for good and are kept aside.
    pub refused: u64,
    /// Damaged databases that are kept beside it: records in them could not be read.
    pub damaged: u64,
    /// Records that were acknowledged since the process started.
    pub kept: u64,
    /// Records that were delivered since.
    pub delivered: u64,
    /// What the disk failed to do last; `None`: nothing.
    pub failing: Option<Failing>,
    /// Why nothing more is acknowledged until a restart.
    pub lost: Option<&'static str>,
    /// By team, the empty name for those of which it is not known: records, and nano-dollars.
    pub teams: BTreeMap<Arc<str>, (u64, u64)>,
}

/// A disk that does not do what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Since when.
    pub since: Instant,
    /// What the system or SQLite says of it.
    pub why: Arc<str>,
}

impl SpoolState {
    /// Whether people have to look at it: records wait for long, or take most of the room, or were refused, or could not be read, or no
    /// more are acknowledged.
    #[must_use]
    pub fn is_backlog(&self, now: Timestamp) -> bool {
        let is_old = self.oldest.is_some_and(|oldest| now.since(oldest) >= BACKLOG_MS);
        let is_large = self.records > 0 && self.bytes >= self.max_bytes / 4 * 3;
        let fails = self.failing.as_ref().is_some_and(|failing| failing.since.elapsed() >= FAILING);
        is_old || is_large || fails || self.refused > 0 || self.damaged > 0 || self.lost.is_some()
    }

    /// What is wrong with its disk, in words; empty: nothing is known.
    #[must_use]
    pub fn fault(&self) -> String {
        let fails = self.failing.as_ref().map(|failing| format!("its disk fails: {}", failing.why));
        let damaged = match self.damaged {
            0 => None,
            count => {
                Some(format!("{count} damaged databases are kept beside it, with what could not be read"))
            }
        };
        let known = [self.lost.map(str::to_owned), fails.filter(|_| self.lost.is_none()), damaged];
        known.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}
