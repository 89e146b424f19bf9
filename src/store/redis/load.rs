//! How much a connection can take: calls that cannot be answered in time are refused before they are sent.
//!
//! Calls on one connection are answered in order, so a call waits for those before it. The wait is estimated from the calls
//! answered last: the time of a call that was almost alone (`alone`), and the time that each call before it adds (`each`). Both
//! cover the whole path: the server, the network and this process's own core.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Calls that are always sent: the estimates come from calls.
const ALWAYS: u32 = 32;
/// With fewer calls in flight than this, a call counts as alone.
const FEW: u32 = 8;
/// The most calls in flight whatever the estimates say; each holds a few kilobytes.
const MOST: u32 = 16_384;
/// The estimate for each call before anything is known: that of a slow server.
const FIRST_EACH_NS: u64 = 50_000;
/// The lowest estimate for each call: a script's time on a fast server.
const LEAST_EACH_NS: u64 = 8_000;

/// The purpose of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It takes holds, or only reads.
    Decision,
    /// It frees or ends something, and so lowers the load: it is refused later.
    Relief,
}

impl Urgency {
    /// The part of the deadline, in quarters, that the calls before it may take.
    const fn quarters(self) -> u64 {
        match self {
            Self::Decision => 2,
            Self::Relief => 3,
        }
    }
}

/// The calls in flight and the estimates. Relaxed throughout: each number is valid on its own.
#[derive(Debug)]
pub(super) struct Load {
    in_flight: AtomicU32,
    alone_ns: AtomicU64,
    each_ns: AtomicU64,
}

/// A call in flight, until dropped.
#[derive(Debug)]
pub(super) struct Flight<'l> {
    load: &'l Load,
    before: u32,
    began: Instant,
}

impl Load {
    pub(super) const fn new() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            alone_ns: AtomicU64::new(0),
            each_ns: AtomicU64::new(FIRST_EACH_NS),
        }
    }

    /// Lets a call through if it can be answered well before `deadline` ends.
    pub(super) fn enter(&self, urgency: Urgency, deadline: Duration) -> Option<Flight<'_>> {
        let before = self.in_flight.load(Ordering::Relaxed);
        if before >= self.bound(urgency, deadline) {
            return None;
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Flight { load: self, before, began: Instant::now() })
    }

    /// The most calls in flight before a call of this urgency.
    fn bound(&self, urgency: Urgency, deadline: Duration) -> u32 {
        let alone = self.alone_ns.load(Ordering::Relaxed);
        let left = nanos(deadline).saturating_sub(alone) / 4 * urgency.quarters();
        let each = self.each_ns.load(Ordering::Relaxed).max(1);
        u32::try_from(left / each).unwrap_or(MOST).clamp(ALWAYS, MOST)
    }

    fn learn(&self, before: u32, took: Duration) {
        let took = nanos(took);
        let alone = self.alone_ns.load(Ordering::Relaxed);
        // With more before it, a call cannot be faster than alone.
        if before < FEW || took < alone {
            self.alone_ns.store(towards(alone, took, 8), Ordering::Relaxed);
        }
        if before < FEW {
            return;
        }
        let each = self.each_ns.load(Ordering::Relaxed);
        let seen = (took.saturating_sub(alone) / u64::from(before)).max(LEAST_EACH_NS);
        if seen < each {
            // A call waits for all those before it, so the lower figure is the better one.
            self.each_ns.store(towards(each, seen, 8), Ordering::Relaxed);
        } else if before >= ALWAYS {
            self.each_ns.store(towards(each, seen, 64), Ordering::Relaxed);
        }
    }
}

impl Flight<'_> {
    /// The call ended. Its duration feeds the estimates if it was answered or missed its `deadline`; other errors come back at once,
    /// and say nothing about the load.
    pub(super) fn ended_with<T, E>(&self, answer: &Result<T, E>, deadline: Duration) {
        let took = self.began.elapsed();
        if answer.is_ok() || took >= deadline {
            self.load.learn(self.before, took);
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A part of the way from `from` to `to`; it always reaches `to` in the end.
const fn towards(from: u64, to: u64, part: u64) -> u64 {
    if to > from {
        from.saturating_add((to - from).div_ceil(part))
    } else {
        from.saturating_sub((from - to).div_ceil(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(250);
    const MS: u64 = 1_000_000;

    /// So many calls at once; the server finishes one every `each`, after `alone`.
    fn burst(load: &Load, calls: u32, alone: Duration, each: Duration) -> u32 {
        let flights: Vec<_> = (0..calls).map_while(|_| load.enter(Urgency::Decision, DEADLINE)).collect();
        for flight in &flights {
            let took = alone + each * (flight.before + 1);
            load.learn(flight.before, took.min(DEADLINE));
        }
        u32::try_from(flights.len()).unwrap()
    }

    fn settled(alone: Duration, each: Duration) -> u32 {
        let load = Load::new();
        for _ in 0..200 {
            burst(&load, 1, alone, each);
            burst(&load, 5_000, alone, each);
        }
        burst(&load, 5_000, alone, each)
    }

    #[test]
    fn as_many_are_sent_as_can_be_answered_in_time() {
        for (alone_us, each_us) in [(100, 20), (100, 100), (100, 1_000), (100_000, 100), (20_000, 20)] {
            let (alone, each) = (Duration::from_micros(alone_us), Duration::from_micros(each_us));
            let sent = settled(alone, each);
            let last = alone + each * sent;
            assert!(last < DEADLINE, "{sent} calls of {alone:?} and {each:?} each take {last:?}");
            let half = alone + (DEADLINE - alone) / 3;
            assert!(last > half, "{sent} calls of {alone:?} and {each:?} each take {last:?}");
        }
    }

    #[test]
    fn a_stall_is_soon_forgotten() {
        let load = Load::new();
        for _ in 0..1_000 {
            load.learn(100, DEADLINE);
        }
        assert_eq!(load.bound(Urgency::Decision, DEADLINE), ALWAYS.max(50));
        for _ in 0..100 {
            load.learn(10, Duration::from_micros(300));
        }
        assert!(load.bound(Urgency::Decision, DEADLINE) > 2_000);
    }

    #[test]
    fn what_frees_goes_on_for_longer() {
        let load = Load::new();
        load.each_ns.store(MS, Ordering::Relaxed);
        let flights: Vec<_> = std::iter::from_fn(|| load.enter(Urgency::Decision, DEADLINE)).collect();
        assert_eq!(flights.len(), 125);
        assert!(load.enter(Urgency::Relief, DEADLINE).is_some());
        drop(flights);
        assert!(load.enter(Urgency::Decision, DEADLINE).is_some());
    }

    #[test]
    fn a_few_are_always_sent() {
        let load = Load::new();
        load.each_ns.store(u64::MAX, Ordering::Relaxed);
        load.alone_ns.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(load.bound(Urgency::Decision, DEADLINE), ALWAYS);
    }
}
