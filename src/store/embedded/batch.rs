//! What the writer puts on disk in one transaction.

use super::{counters::CounterRow, segment::Segment, spend::LineRow};
use crate::domain::{Timestamp, counter::CounterKey};
use crate::store::{Cooldown, OutboxEntry};

/// The first days whose rows are kept: of hours, and of users and labels.
pub(super) struct UsageEnded {
    pub(super) hours_before: u32,
    pub(super) values_before: u32,
}

/// What the writer puts on disk in one transaction.
#[derive(Default)]
pub(super) struct Batch {
    /// The first and the last op of `ops`; `last < first` if there are none.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) ops: Vec<u8>,
    pub(super) counters_gone: Vec<u32>,
    pub(super) counters: Vec<CounterRow>,
    pub(super) segments_gone: Vec<u64>,
    /// The latest store time that anything in the batch has seen.
    pub(super) seen: Timestamp,
    /// How far the store's time is behind the wall clock, in milliseconds, if that has changed.
    pub(super) behind: Option<u64>,
    pub(super) segments: Vec<Segment>,
    pub(super) lines: Vec<LineRow>,
    /// Periods whose rows are over.
    pub(super) usage_gone: Option<UsageEnded>,
    pub(super) gates: Option<Vec<(CounterKey, Cooldown)>>,
    /// What the ops add to the outbox.
    pub(super) outbox: Vec<OutboxEntry>,
    /// Remove journal rows up to this op, a bounded number of them.
    pub(super) truncate: Option<u64>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        let rows = self.counters.len() + self.segments.len() + self.lines.len();
        let gone = self.counters_gone.len() + self.segments_gone.len();
        let few = self.gates.is_none() && self.truncate.is_none() && self.behind.is_none();
        let few = few && self.usage_gone.is_none();
        self.ops.is_empty() && rows + gone == 0 && few
    }
}
