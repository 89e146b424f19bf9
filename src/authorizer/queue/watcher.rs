//! Reads the use of the counters that requests wait for: another replica may have released something.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Queue, lines::Watched};
use crate::{
    authorizer::Authorizer,
    domain::{counter::CounterKey, snapshot::Snapshot},
    store::Store,
};

/// How often each counter is read, if they all fit into that time.
const ROUND: Duration = Duration::from_millis(100);
/// The counters in one call: they keep Redis busy for less than a millisecond.
const PER_CALL: usize = 256;
/// The least time from one call to the next: 10,000 lines are read within 800 ms.
const PAUSE: Duration = Duration::from_millis(20);
/// The line heads that may ask in each round of a few calls after the snapshot has changed: one more for each further call, at
/// most half of the pace, so that requests with room need not wait for the rest.
const ASKED_AFTER_CHANGE: usize = 5;

/// Marks the lines as watched, for as long as the task runs.
struct Watching<'q>(&'q Queue);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.watched.store(false, Ordering::SeqCst);
    }
}

impl Queue {
    fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst)
    }

    /// Whether nothing watches the lines; then the caller has to.
    fn begins_watch(&self) -> bool {
        !self.is_watched() && !self.watched.swap(true, Ordering::SeqCst)
    }

    fn is_empty(&self) -> bool {
        self.standing.load(Ordering::SeqCst) == 0
    }
}

impl Watched {
    /// The store calls that read all counters.
    const fn calls(&self) -> usize {
        self.counters.len().div_ceil(PER_CALL)
    }
}

impl<S: Store + Clone> Authorizer<S> {
    /// Has the lines watched until none is left.
    pub(super) fn watch_lines(&self) {
        if self.shared.queue.is_watched() {
            return;
        }
        // Before the lines count as watched: a request that relies on the watch has looked at what is in force after that.
        let snapshot = self.snapshot();
        if self.shared.queue.begins_watch() {
            let authorizer = self.clone();
            tokio::spawn(async move {
                let queue = &authorizer.shared.queue;
                tokio::select! {
                    biased;
                    () = authorizer.watch(snapshot) => {}
                    () = queue.closing() => {}
                }
            });
        }
    }

    /// `snapshot` was in force no later than when the watch began. A request that joins a line afterwards checks for itself whether
    /// that has changed since it was decided.
    async fn watch(&self, mut snapshot: Arc<Snapshot>) {
        let queue = &self.shared.queue;
        loop {
            let watching = Watching(queue);
            let mut to_ask = Vec::new();
            while !queue.is_empty() {
                // Before the lines are read, for the same reason.
                let now = self.snapshot();
                let watched = queue.lock().watched();
                if !Arc::ptr_eq(&snapshot, &now) {
                    snapshot = now;
                    to_ask = watched.counters.iter().map(|(counter, _)| counter).cloned().collect();
                    to_ask.extend_from_slice(&watched.cooldowns);
                }
                let asked = ASKED_AFTER_CHANGE.max(watched.calls());
                let asked = to_ask.split_off(to_ask.len().saturating_sub(asked));
                self.read_lines(&watched, &asked).await;
            }
            drop(watching);
            // A request may have come just before the watch ended.
            if queue.is_empty() || !queue.begins_watch() {
                return;
            }
        }
    }

    /// One round: reads everything waited for, and wakes requests with room, and those first at `asked`.
    async fn read_lines(&self, watched: &Watched, asked: &[CounterKey]) {
        let queue = &self.shared.queue;
        let calls = u32::try_from(watched.calls()).unwrap_or(u32::MAX);
        let pause = ROUND.checked_div(calls).unwrap_or(ROUND).max(PAUSE);
        tokio::time::sleep(pause).await;
        asked.iter().for_each(|counter| queue.lock().has(counter, None));
        if !watched.cooldowns.is_empty()
            && let Ok(closed) = self.store.cooldowns().await
        {
            let is_open = |gate: &&CounterKey| closed.iter().all(|(closed, _)| closed != *gate);
            watched.cooldowns.iter().filter(is_open).for_each(|gate| queue.lock().has(gate, None));
        }
        for (place, counters) in watched.counters.chunks(PER_CALL).enumerate() {
            if place > 0 {
                tokio::time::sleep(pause).await;
            }
            if let Ok(states) = self.store.counters(counters.to_vec()).await {
                let mut lines = queue.lock();
                for ((counter, _), state) in counters.iter().zip(states) {
                    lines.has(counter, Some(state.used));
                }
            }
        }
    }
}
