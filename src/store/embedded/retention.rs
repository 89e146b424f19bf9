//! Which counters and which rows of usage can go.

use super::{batch::UsageEnded, counters::Idle, spend};
use crate::{
    domain::{
        Moment, Timestamp,
        counter::{Counter, CounterKey, CounterKind},
    },
    store::{
        HOURS_KEPT_DAYS,
        retention::{DAY_MS, MONTH_KEPT_DAYS, PERIOD_KEPT_DAYS},
    },
};

/// The rows of usage that have ended.
pub(super) fn usage(now: Moment) -> UsageEnded {
    // As below.
    let today = now.wall.min(now.store);
    let day = |ago: u64| spend::date(Timestamp(today.0.saturating_sub(ago * DAY_MS)));
    UsageEnded { hours_before: day(HOURS_KEPT_DAYS), values_before: day(MONTH_KEPT_DAYS) }
}

/// Decides which counters have ended.
pub(super) struct Retention {
    now: Moment,
    /// Periods that began before this day.
    period: u32,
    /// Periods that began before this day, which is the first of a month.
    month: u32,
}

impl Retention {
    pub(super) fn at(now: Moment) -> Self {
        // By the earlier of the two: a single look at a wall clock that is ahead must not end a period.
        let today = now.wall.min(now.store);
        let day = |ago: u64| spend::date(Timestamp(today.0.saturating_sub(ago * DAY_MS)));
        Self { now, period: day(PERIOD_KEPT_DAYS), month: day(MONTH_KEPT_DAYS) }
    }
}

impl Idle for Retention {
    fn is_idle(&self, key: &CounterKey, counter: &Counter, kind: CounterKind) -> bool {
        let first_day = key.period();
        let kept_from = if first_day % 100 == 1 { self.month } else { self.period };
        (first_day != 0 && first_day < kept_from) || counter.is_idle(self.now.store, kind)
    }
}
