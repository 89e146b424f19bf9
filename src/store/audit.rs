//! The audit log: events in the order of their ids.

use std::{fmt, future::Future, str::FromStr};

use bytes::Bytes;
use thiserror::Error;

use super::{Backend, StoreError};
use crate::domain::Timestamp;

/// A log of events for all replicas. An event is an id and a line of text, opaque to the store.
pub trait AuditLog: Backend {
    /// Adds events, at most [`MAX_AUDIT_APPEND`], then removes the oldest of those that are past `kept`, at most
    /// [`AUDIT_REMOVED`] more than were added. Returns how many it removed. An event that is there is not added again, so a call
    /// may be repeated; no two events have one id. Durable before it answers.
    fn audit_append(
        &self,
        events: Vec<AuditEntry>,
        kept: AuditKept,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// The newest events in `range`, the newest first: at most `count`, which is at most [`MAX_AUDIT_PAGE`].
    fn audit_page(
        &self,
        range: AuditRange,
        count: usize,
    ) -> impl Future<Output = Result<Vec<AuditEntry>, StoreError>> + Send;
}

/// The most events of one call of [`AuditLog::audit_append`].
pub const MAX_AUDIT_APPEND: usize = 64;
/// The most events of one call of [`AuditLog::audit_page`].
pub const MAX_AUDIT_PAGE: usize = 64;
/// The longest line, in bytes: the state of a key before and after a change, each as long as a record of the registry may be, and
/// some room.
pub const MAX_AUDIT_LINE: usize = 192 << 10;
/// How many more events than it adds one call of [`AuditLog::audit_append`] removes. More than enough to keep pace with any time or
/// number that is kept, and a fraction of a millisecond of the store's time.
pub const AUDIT_REMOVED: usize = 64;
/// The most events of one organization, whatever time they are kept: some hundreds of megabytes.
pub const MAX_AUDIT_EVENTS: u64 = 1_000_000;

/// Identifies an event: the milliseconds of its time, a count, and a random rest. In this order, so ids are in the order of time.
/// Written as 28 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuditId {
    ms: u64,
    rest: u64,
}

/// The digits of the time, and all digits.
const TIME_DIGITS: usize = 12;
const DIGITS: usize = TIME_DIGITS + 16;
/// The latest time that an id can have: in the year 10889.
const MAX_MS: u64 = (1 << (4 * TIME_DIGITS)) - 1;

impl AuditId {
    /// The id of an event at `at`, told from others in its millisecond by `count`, which grows within a process, and `random`.
    #[must_use]
    pub const fn new(at: Timestamp, count: u32, random: u32) -> Self {
        Self { rest: (count as u64) << 32 | random as u64, ..Self::first_at(at) }
    }

    /// The least id that an event at `at` can have.
    #[must_use]
    pub const fn first_at(at: Timestamp) -> Self {
        Self { ms: if at.0 < MAX_MS { at.0 } else { MAX_MS }, rest: 0 }
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0TIME_DIGITS$x}{:016x}", self.ms, self.rest)
    }
}

/// The text is not the id of an event.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the id of an event is 28 lower-case hexadecimal digits")]
pub struct NotAnAuditId;

impl FromStr for AuditId {
    type Err = NotAnAuditId;

    fn from_str(text: &str) -> Result<Self, NotAnAuditId> {
        let digits = text.len() == DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let (ms, rest) = text.split_at_checked(TIME_DIGITS).filter(|_| digits).ok_or(NotAnAuditId)?;
        let number = |digits| u64::from_str_radix(digits, 16).map_err(|_| NotAnAuditId);
        Ok(Self { ms: number(ms)?, rest: number(rest)? })
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its id.
    pub id: AuditId,
    /// What happened, in at most [`MAX_AUDIT_LINE`] bytes.
    pub line: Bytes,
}

/// Which events stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditKept {
    /// How long, in milliseconds, by the time in their ids.
    pub ms: u64,
    /// How many.
    pub events: u64,
}

impl AuditKept {
    /// The id before which events go, if the store's time is `now`. By the earlier of its two readings: a single look at a wall
    /// clock that is ahead must not forget anything.
    #[must_use]
    pub(super) fn since(self, now: crate::domain::Moment) -> AuditId {
        AuditId::first_at(Timestamp(now.wall.min(now.store).0.saturating_sub(self.ms)))
    }
}

/// A range of ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditRange {
    /// From this one on.
    pub from: AuditId,
    /// Before this one; `None`: to the newest.
    pub before: Option<AuditId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_ids_are_ordered_as_their_texts() {
        let at = Timestamp(1_795_428_000_000);
        let ids = [
            AuditId::default(),
            AuditId::first_at(at),
            AuditId::new(at, 0, 1),
            AuditId::new(at, 1, 0),
            AuditId::new(at, u32::MAX, u32::MAX),
            AuditId::first_at(at.plus(1)),
            AuditId::first_at(Timestamp(MAX_MS)),
        ];
        assert!(ids.is_sorted() && ids.map(|id| id.to_string()).is_sorted());
        for id in ids {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(AuditId::first_at(Timestamp(u64::MAX)), AuditId::first_at(Timestamp(MAX_MS)));
        for text in ["", "0", &"0".repeat(27), &"0".repeat(29), &"F".repeat(28), &"é".repeat(14)] {
            assert_eq!(text.parse::<AuditId>(), Err(NotAnAuditId), "{text}");
        }
    }
}
