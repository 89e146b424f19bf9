//! The last decisions of all replicas, as far as streams of this process have to do with them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{Notify, watch};

use super::{event::FeedEvent, pending::TURNS_PER_SECOND};
use crate::store::{DECISIONS_KEPT, DecisionId, StoreError};

/// The most streams of a process.
pub(super) const MAX_STREAMS: usize = 64;
/// Turns in which nothing could be read, in a row, after which streams end: 2 seconds, and what the readings take.
const PATIENCE: usize = 2 * TURNS_PER_SECOND;

/// The last decisions. The relay writes it, and streams read it, each from the place where it is.
#[derive(Debug)]
pub(super) struct Tail {
    state: Mutex<State>,
    streams: AtomicUsize,
    /// Notified when the first stream is opened.
    wanted: Notify,
    /// Sent after each change of `state`.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Arc<FeedEvent>>,
    /// The last that was read, of which there may be no event.
    last: Option<DecisionId>,
    /// Whether all is here that the store has.
    is_current: bool,
    /// Readings that have failed since the last one that did not, and why the last of them did.
    failed: (usize, Option<StoreError>),
    /// All readings that have failed.
    failures: u64,
    is_closed: bool,
}

/// What the tail has for a stream.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing yet.
    Nothing,
    /// It is up to date up to this decision.
    Current(Option<DecisionId>),
    /// These are next, and this many between them are missing.
    Events(Vec<Arc<FeedEvent>>, u64),
    /// The store does not answer.
    Failed(StoreError),
    /// This replica stops.
    Closed,
}

impl Default for Tail {
    fn default() -> Self {
        let (changed, _) = watch::channel(());
        Self { state: Mutex::default(), streams: AtomicUsize::new(0), wanted: Notify::new(), changed }
    }
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more stream; `None`: there are too many. What is returned hears of changes.
    pub(super) fn join(&self) -> Option<watch::Receiver<()>> {
        let joined = self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |streams| {
            (streams < MAX_STREAMS).then_some(streams + 1)
        });
        if joined.ok()? == 0 {
            self.wanted.notify_one();
        }
        Some(self.changed.subscribe())
    }

    pub(super) fn leave(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn has_streams(&self) -> bool {
        self.streams.load(Ordering::Relaxed) > 0
    }

    /// Returns once the first stream was opened.
    pub(super) async fn is_wanted(&self) {
        self.wanted.notified().await;
    }

    /// Takes what was read, up to `last`; `is_all`: the store had no more.
    pub(super) fn take(
        &self,
        (last, is_all): (Option<DecisionId>, bool),
        read: Result<Vec<Arc<FeedEvent>>, StoreError>,
    ) {
        let mut state = self.lock();
        match read {
            Ok(events) => {
                let is_news = !events.is_empty() || !state.is_current;
                state.events.extend(events);
                let over = state.events.len().saturating_sub(DECISIONS_KEPT);
                state.events.drain(..over);
                (state.last, state.failed) = (last, (0, None));
                state.is_current |= is_all;
                if !is_news {
                    return;
                }
            }
            Err(error) => {
                let failed = state.failed.0 + 1;
                state.failures += 1;
                state.failed = (failed, Some(error));
                state.is_current &= failed < PATIENCE;
            }
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Forgets all of it, while there is no stream.
    pub(super) fn rest(&self) {
        let mut state = self.lock();
        *state = State { failures: state.failures, is_closed: state.is_closed, ..State::default() };
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.send_replace(());
    }

    /// Where a stream begins that has not begun yet. A reading that failed before it asked says nothing about the store now: `before` is
    /// what [`Tail::failures`] said then.
    pub(super) fn begin(&self, before: u64) -> Look {
        let state = self.lock();
        match &state.failed {
            _ if state.is_closed => Look::Closed,
            _ if state.is_current => Look::Current(state.last),
            (_, Some(error)) if state.failures > before => Look::Failed(error.clone()),
            _ => Look::Nothing,
        }
    }

    /// All readings that have failed.
    pub(super) fn failures(&self) -> u64 {
        self.lock().failures
    }

    /// At most `count` decisions after `after`; `None`: all that are here are after it.
    pub(super) fn look(&self, after: Option<DecisionId>, count: usize) -> Look {
        let state = self.lock();
        if state.is_closed {
            return Look::Closed;
        }
        let from = after.map_or(0, |after| state.events.partition_point(|event| event.id <= after));
        let events: Vec<_> = state.events.range(from..).take(count).cloned().collect();
        if !events.is_empty() {
            let mut known = after;
            let missed = events
                .iter()
                .map(|event| known.replace(event.id).map_or(0, |before| before.between(event.id)));
            let missed = missed.sum();
            return Look::Events(events, missed);
        }
        match &state.failed {
            (_, Some(error)) if !state.is_current => Look::Failed(error.clone()),
            _ => Look::Nothing,
        }
    }
}
