//! One counter, as everything that happened to it.

use std::collections::BTreeMap;

use tollgate::domain::{
    Timestamp,
    counter::{CounterKey, CounterKind, CounterState, Hold, MAX_REPORTED},
    window::SLOTS,
};

/// What happened to one counter.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// What was added in each slot, less what was given back there.
    added: BTreeMap<u64, u64>,
    pub(super) kept: u64,
    pub(super) settled: u64,
    pub(super) open: u64,
    reported: Vec<u64>,
}

impl Log {
    /// The slots that count at `now`, oldest first.
    fn counted(&self, now: Timestamp, kind: CounterKind) -> impl Iterator<Item = (u64, u64)> + '_ {
        let oldest = (now.0 / kind.slot_ms()).saturating_sub(SLOTS);
        self.added.range(oldest..).map(|(slot, amount)| (*slot, *amount))
    }

    pub(super) fn state(&self, now: Timestamp, kind: CounterKind) -> CounterState {
        let expiring: u64 = self.counted(now, kind).map(|(_, amount)| amount).sum();
        CounterState { used: self.kept + expiring, settled: self.settled, open: self.open }
    }

    pub(super) fn frees_at(&self, now: Timestamp, hold: Hold<&CounterKey>) -> Option<Timestamp> {
        let used = self.state(now, hold.kind).used;
        let mut left = used + hold.amount();
        self.counted(now, hold.kind).find_map(|(slot, amount)| {
            left -= amount;
            (left <= hold.limit).then(|| Timestamp((slot + SLOTS + 1) * hold.kind.slot_ms()))
        })
    }

    pub(super) fn add(&mut self, now: Timestamp, kind: CounterKind, amount: u64) {
        *self.added.entry(now.0 / kind.slot_ms()).or_default() += amount;
    }

    fn take_back(&mut self, now: Timestamp, then: Timestamp, kind: CounterKind, amount: u64) {
        let slot = then.0 / kind.slot_ms();
        let counts = slot + SLOTS >= now.0 / kind.slot_ms();
        if let Some(entry) = self.added.get_mut(&slot).filter(|_| counts) {
            *entry = entry.saturating_sub(amount);
        }
    }

    pub(super) fn book(&mut self, amount: u64) {
        self.kept += amount;
        self.settled += amount;
    }

    pub(super) fn report(&mut self, thresholds: &[u64]) -> Vec<u64> {
        let mut new = Vec::new();
        for threshold in thresholds {
            if *threshold <= self.settled && !self.reported.contains(threshold) {
                self.reported.push(*threshold);
                new.push(*threshold);
            }
        }
        let mut excess = self.reported.len().saturating_sub(MAX_REPORTED);
        self.reported.retain(|threshold| {
            let stays = excess == 0 || thresholds.contains(threshold);
            excess -= usize::from(!stays);
            stays
        });
        new
    }

    pub(super) fn settle(&mut self, now: Timestamp, then: Timestamp, hold: Hold<&CounterKey>, actual: u64) {
        match hold.kind {
            CounterKind::Window { .. } if actual > hold.expiring => {
                self.add(now, hold.kind, actual - hold.expiring)
            }
            CounterKind::Window { .. } => self.take_back(now, then, hold.kind, hold.expiring - actual),
            CounterKind::Budget { .. } => {
                self.take_back(now, then, hold.kind, hold.expiring);
                self.kept = self.kept - hold.kept + actual;
                self.settled += actual;
                self.open -= 1;
            }
        }
    }
}
