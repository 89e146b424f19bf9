//! Decisions for those who watch them: of the one process that has the store open, so they are in memory alone.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::EmbeddedStore;
use crate::{
    domain::Timestamp,
    store::{
        Backend as _, DECISIONS_KEPT, DECISIONS_KEPT_MS, DECISIONS_WATCHED_MS, DecisionId, Decisions,
        MAX_DECISIONS_READ, StoreError, decisions,
    },
};

/// The last decisions. The lock is held for a few hundred copies of references at most.
#[derive(Debug, Default)]
pub(super) struct DecisionRing(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<(DecisionId, Bytes)>,
    last: Option<DecisionId>,
    /// Until when someone watches.
    watched: Timestamp,
}

impl DecisionRing {
    fn publish(&self, decisions: Vec<Bytes>, now: Timestamp) -> bool {
        let mut ring = self.lock();
        ring.forget(now);
        if ring.watched <= now {
            return false;
        }
        for decision in decisions {
            let id = DecisionId::next(ring.last, now.0);
            ring.last = Some(id);
            ring.events.push_back((id, decision));
        }
        let over = ring.events.len().saturating_sub(DECISIONS_KEPT);
        ring.events.drain(..over);
        true
    }

    fn read(&self, after: Option<DecisionId>, count: usize, now: Timestamp) -> Vec<(DecisionId, Bytes)> {
        let mut ring = self.lock();
        ring.forget(now);
        ring.watched = now.plus(DECISIONS_WATCHED_MS);
        let from = after.map_or(0, |after| ring.events.partition_point(|(id, _)| *id <= after));
        ring.events.range(from..).take(count.min(MAX_DECISIONS_READ)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn forget(&mut self, now: Timestamp) {
        let is_past = |(id, _): &(DecisionId, Bytes)| now.since(Timestamp(id.ms)) > DECISIONS_KEPT_MS;
        let past = self.events.iter().take_while(|event| is_past(event)).count();
        self.events.drain(..past);
    }
}

impl Decisions for EmbeddedStore {
    async fn publish_decisions(&self, decisions: Vec<Bytes>) -> Result<bool, StoreError> {
        decisions::check(&decisions)?;
        Ok(self.0.decisions.publish(decisions, self.moment().store))
    }

    async fn read_decisions(
        &self,
        after: Option<DecisionId>,
        count: usize,
    ) -> Result<Vec<(DecisionId, Bytes)>, StoreError> {
        Ok(self.0.decisions.read(after, count, self.moment().store))
    }
}
