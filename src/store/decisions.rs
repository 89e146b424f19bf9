//! Decisions for those who watch them as they are made.

use std::{fmt, future::Future, str::FromStr};

use bytes::Bytes;
use thiserror::Error;

use super::{Backend, StoreError};

/// The last decisions of all replicas, in one order, for as long as they are watched. What is told of a decision is opaque to the store.
///
/// They are for looking at: none of them is durable, and without a watcher none is kept.
pub trait Decisions: Backend {
    /// Adds decisions, at most [`MAX_DECISIONS_PUBLISHED`] of at most [`MAX_DECISION_BYTES`] each, if some replica watches, and returns
    /// whether one does. Without any it only asks, and changes nothing. A call without an answer may have added them, so it is not to be
    /// repeated.
    fn publish_decisions(
        &self,
        decisions: Vec<Bytes>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The decisions after `after` (`None`: all that are kept) in their order, at most `count`, which is at most
    /// [`MAX_DECISIONS_READ`]. A replica that reads counts as watching for the next [`DECISIONS_WATCHED_MS`].
    fn read_decisions(
        &self,
        after: Option<DecisionId>,
        count: usize,
    ) -> impl Future<Output = Result<Vec<(DecisionId, Bytes)>, StoreError>> + Send;
}

/// The most decisions of one call of [`Decisions::publish_decisions`].
pub const MAX_DECISIONS_PUBLISHED: usize = 64;
/// The most decisions of one call of [`Decisions::read_decisions`]: half a megabyte, as they usually are.
pub const MAX_DECISIONS_READ: usize = 500;
/// The longest that a decision may be told in, in bytes. With one violation it takes about one kilobyte.
pub const MAX_DECISION_BYTES: usize = 32 << 10;
/// How many decisions are kept: what a page shows that was away for a moment, in one or two megabytes.
pub const DECISIONS_KEPT: usize = 1_000;
/// How long each is kept, in milliseconds. Users and labels are among what is told, so not for longer than someone may still look.
pub const DECISIONS_KEPT_MS: u64 = 10 * 60 * 1000;
/// How long a replica counts as watching after it has read, in milliseconds: a client that has lost its stream, and asks again within this
/// time, misses nothing.
pub const DECISIONS_WATCHED_MS: u64 = 30_000;

/// The place of a decision: the milliseconds of the store's time, and a number that is one more than that of the decision before.
/// Both never fall, so ids are in the order in which decisions came. Written as 28 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId {
    pub(super) ms: u64,
    pub(super) number: u64,
}

/// The digits of the time, and all digits.
const TIME_DIGITS: usize = 12;
const DIGITS: usize = TIME_DIGITS + 16;

impl DecisionId {
    /// The place after `last`, if it is now `ms` by the store's time.
    pub(super) fn next(last: Option<Self>, ms: u64) -> Self {
        let (last_ms, number) = last.map_or((0, 0), |last| (last.ms, last.number));
        Self { ms: ms.max(last_ms), number: number.saturating_add(1) }
    }

    /// How many decisions there were between this one and `next`. 0 where the store has begun to count from the start.
    #[must_use]
    pub const fn between(self, next: Self) -> u64 {
        next.number.saturating_sub(self.number).saturating_sub(1)
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0TIME_DIGITS$x}{:016x}", self.ms, self.number)
    }
}

/// The text is not the id of a decision.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the id of a decision is 28 lower-case hexadecimal digits")]
pub struct NotADecisionId;

impl FromStr for DecisionId {
    type Err = NotADecisionId;

    fn from_str(text: &str) -> Result<Self, NotADecisionId> {
        let digits = text.len() == DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let (ms, number) = text.split_at_checked(TIME_DIGITS).filter(|_| digits).ok_or(NotADecisionId)?;
        let read = |digits| u64::from_str_radix(digits, 16).map_err(|_| NotADecisionId);
        Ok(Self { ms: read(ms)?, number: read(number)? })
    }
}

/// Whether a store takes these.
pub(super) fn check(decisions: &[Bytes]) -> Result<(), StoreError> {
    let is_long = |decision: &Bytes| decision.len() > MAX_DECISION_BYTES;
    match decisions.len() > MAX_DECISIONS_PUBLISHED || decisions.iter().any(is_long) {
        true => Err(StoreError::Overflow),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_written_and_in_their_order() {
        let first = DecisionId::next(None, 1_795_428_000_000);
        let second = DecisionId::next(Some(first), 5);
        let later = DecisionId::next(Some(second), 1_795_428_000_001);
        assert_eq!(first.to_string(), "01a207d921000000000000000001");
        for id in [first, second, later] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert!(first < second && second < later, "a clock that is behind changes no order");
        assert_eq!((first.between(second), first.between(later), later.between(first)), (0, 1, 0));
        for text in ["", "01a207d92100", "01A207d921000000000000000001", "01a207d9210000000000000000011"] {
            assert_eq!(text.parse::<DecisionId>(), Err(NotADecisionId), "{text}");
        }
    }
}
