//! The one task of a process between its decisions, the store and its streams.

use std::{collections::BTreeMap, mem, sync::Arc, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    DecisionFeed,
    event::{self, FeedEvent},
    pending::{Quota, TURNS_PER_SECOND},
};
use crate::{
    authorizer::decision_log::Decision,
    store::{DecisionId, Decisions, MAX_DECISION_BYTES, MAX_DECISIONS_READ, StoreError},
};

/// The time between two turns: a second has at most [`TURNS_PER_SECOND`].
pub(super) const TURN: Duration = Duration::from_millis(1000 / TURNS_PER_SECOND as u64);
/// The most teams of which one decision says what was left out: at most 7 KiB. The next one says the rest.
const SKIPPED_TEAMS: usize = 100;
/// Pages that are read in one turn. With more than 40 replicas that publish as much as they may, some of it is never read.
const PAGES: usize = 4;

/// What the relay remembers from one turn to the next.
#[derive(Default)]
struct Relay {
    quota: Quota,
    /// Turns since the store was asked whether someone watches.
    unasked: usize,
    /// The last decision that was read; `None`: none since the first of the streams that are open was opened.
    last: Option<DecisionId>,
    is_failing: bool,
}

impl DecisionFeed {
    /// Publishes decisions of this process while someone watches, and reads those of all replicas while a stream is open here, until told
    /// to stop. A fault of the store ends streams after a while, and has no effect on decisions.
    pub async fn relay<S: Decisions>(self: Arc<Self>, store: S, mut stop: watch::Receiver<bool>) {
        let mut relay = Relay::default();
        let mut due = Instant::now();
        loop {
            let is_due = tokio::select! {
                () = sleep_until(due) => true,
                // The first stream does not wait for its turn.
                () = self.tail.is_wanted() => false,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            if is_due {
                self.publish(&store, &mut relay).await;
                due = Instant::now() + TURN;
            }
            self.read(&store, &mut relay).await;
        }
        // Watched by others, perhaps: the last ones.
        self.publish(&store, &mut relay).await;
    }

    async fn publish<S: Decisions>(&self, store: &S, relay: &mut Relay) {
        let decisions = match self.is_open() {
            true => self.pending.take(relay.quota.left()),
            false => Vec::new(),
        };
        relay.quota.ends_with(decisions.len());
        relay.unasked += 1;
        if decisions.is_empty() && relay.unasked < TURNS_PER_SECOND {
            return;
        }
        relay.unasked = 0;
        let (told, skipped) = self.told(&decisions);
        match store.publish_decisions(told).await {
            Ok(is_watched) => {
                self.set_open(is_watched || self.tail.has_streams());
                self.say(relay, Ok(()));
            }
            Err(error) => {
                // They may be there nonetheless. Told twice would be worse than left out.
                for decision in &decisions {
                    self.pending.skip(&Arc::from(decision.head.team.as_str()), 1);
                }
                skipped.iter().for_each(|(team, count)| self.pending.skip(team, *count));
                self.say(relay, Err(error));
            }
        }
    }

    /// Decisions as they are stored, in the order in which they were made, and what the first of them says was left out.
    fn told(&self, decisions: &[Decision]) -> (Vec<Bytes>, BTreeMap<Arc<str>, u64>) {
        let mut decisions: Vec<_> = decisions.iter().collect();
        // Those of one millisecond are told apart by a count.
        decisions.sort_by(|one, other| one.head.id.cmp(&other.head.id));
        let (mut told, mut said) = (Vec::with_capacity(decisions.len()), BTreeMap::new());
        for decision in decisions {
            let skipped = match told.is_empty() {
                true => self.pending.take_skipped(SKIPPED_TEAMS),
                false => BTreeMap::new(),
            };
            let bytes = event::written(decision, &skipped);
            if bytes.len() <= MAX_DECISION_BYTES {
                told.push(bytes);
                said.extend(skipped);
                continue;
            }
            self.pending.skip(&Arc::from(decision.head.team.as_str()), 1);
            skipped.iter().for_each(|(team, count)| self.pending.skip(team, *count));
        }
        (told, said)
    }

    async fn read<S: Decisions>(&self, store: &S, relay: &mut Relay) {
        if !self.tail.has_streams() {
            relay.last = None;
            return self.tail.rest();
        }
        for _ in 0..PAGES {
            let read = store.read_decisions(relay.last, MAX_DECISIONS_READ).await;
            let count = read.as_ref().map_or(0, Vec::len);
            let read = read.map(|read| {
                relay.last = read.last().map(|(id, _)| *id).or(relay.last);
                // One that cannot be read is missing from the ids, and so counts as left out.
                read.iter()
                    .filter_map(|(id, told)| event::read(*id, told))
                    .map(Arc::new)
                    .collect::<Vec<Arc<FeedEvent>>>()
            });
            if read.is_ok() {
                self.set_open(true);
            }
            self.say(relay, read.as_ref().map(drop).map_err(Clone::clone));
            let is_all = count < MAX_DECISIONS_READ;
            self.tail.take((relay.last, is_all), read);
            if is_all {
                return;
            }
        }
    }

    fn set_open(&self, is_open: bool) {
        if self.is_open.swap(is_open, Ordering::Relaxed) && !is_open {
            self.pending.clear();
        }
    }

    fn say(&self, relay: &mut Relay, result: Result<(), StoreError>) {
        let was_failing = mem::replace(&mut relay.is_failing, result.is_err());
        match result {
            // While no one watches, others say that the store is out.
            Err(error) if !was_failing && self.is_open() => {
                warn!(%error, "decisions cannot be shown to those who watch; trying again");
            }
            Ok(()) if was_failing && self.is_open() => info!("decisions are shown to those who watch again"),
            _ => {}
        }
    }
}
