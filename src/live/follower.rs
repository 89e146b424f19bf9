//! Following the registry over the connection of one worker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Freshness, Live, MAX_AGE};
use crate::{
    domain::snapshot::Snapshot,
    store::{Registry, StoreError},
};

/// How often the registry is asked whether it changed. With a call of at most 250 ms (the store's default deadline) a change
/// is in force on every replica well within the promised second.
const FOLLOW: Duration = Duration::from_millis(250);
/// How much longer than the previous worker each worker waits for another's reading.
const STAND_BY: Duration = Duration::from_millis(20);
/// Readings after which a decision gives up, if each succeeds but takes longer than its result stays valid.
const FRESHEN_ATTEMPTS: u32 = 3;
/// Readings in a row of one worker without an answer after which decisions do not wait for its next one: as many as reservations
/// without an answer that open a breaker. The follower goes on.
const FAILED_READINGS: u32 = 3;
/// How often uses are written down.
pub(super) const WRITE_USES: Duration = Duration::from_secs(1);

/// Reads the registry over the connection of one worker.
///
/// Protocol: `turn` is held over a whole reading, so readings come one after the other, and it keeps the outcome of the last
/// one. When a waiter gets its turn and a reading that began after it asked has ended, it takes that result: however many
/// wait, there are two readings. Workers do not wait for each other: one whose connection is silent holds up only its own
/// calls.
#[derive(Debug, Default)]
struct Readings {
    turn: tokio::sync::Mutex<Option<StoreError>>,
    /// The number of the last reading that began; written within `turn`.
    begun: AtomicU64,
    /// The number of the last reading that ended; written within `turn`.
    ended: AtomicU64,
    /// How many of the last readings in a row had no answer; written within `turn`. It orders nothing.
    unanswered: AtomicU32,
    /// When a decision may wait for a reading nonetheless, in milliseconds of the monotone clock. It orders nothing.
    probe_at: AtomicU64,
}

impl Readings {
    /// Lets one decision through each [`FOLLOW`], for those whose store no follower reads.
    fn probes(&self) -> bool {
        let (now, at) = (Freshness::begin().as_millis(), self.probe_at.load(Ordering::Relaxed));
        let next = now + u64::try_from(FOLLOW.as_millis()).unwrap_or(u64::MAX);
        now >= at && self.probe_at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Why what is in force is not young enough to decide by.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unfresh {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It answers too slowly for the bound.
    #[error("pauses and keys could not be read within their bound")]
    Stale,
}

/// What is in force, followed over the store's connection of one worker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Follower<S> {
    pub(super) store: S,
    pub(super) live: Arc<Live>,
    readings: Arc<Readings>,
}

impl<S: Registry> Follower<S> {
    /// Follows for `live` what is in `store`.
    #[must_use]
    pub fn new(store: S, live: Arc<Live>) -> Self {
        Self { store, live, readings: Arc::default() }
    }

    /// The store that is followed.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// What is followed into.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// What is in force now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.live.snapshot()
    }

    /// Reads what changed in the registry, over this worker's connection, in a reading that begins after this call.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn read(&self) -> Result<(), StoreError> {
        let asked = self.readings.begun.load(Ordering::Acquire);
        let last = self.readings.turn.lock().await;
        if self.readings.ended.load(Ordering::Acquire) > asked {
            return last.clone().map_or(Ok(()), Err);
        }
        self.read_in_turn(last).await
    }

    async fn read_in_turn(
        &self,
        mut last: tokio::sync::MutexGuard<'_, Option<StoreError>>,
    ) -> Result<(), StoreError> {
        let reading = self.readings.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let read = self.live.read_registry(&self.store).await;
        match (&read, last.is_some()) {
            (Err(error), false) => {
                warn!(%error, "a worker cannot read the registry over its connection; trying again");
            }
            (Ok(()), true) => info!("the worker can read the registry again"),
            _ => {}
        }
        let unanswered = match &read {
            Err(StoreError::Unavailable) => {
                self.readings.unanswered.load(Ordering::Relaxed).saturating_add(1)
            }
            Ok(()) | Err(_) => 0,
        };
        self.readings.unanswered.store(unanswered, Ordering::Relaxed);
        *last = read.clone().err();
        self.readings.ended.store(reading, Ordering::Release);
        read
    }

    /// Makes sure that what is known of the registry is recent enough to decide by. Where the last readings had no answer, it is not
    /// waited for another.
    ///
    /// # Errors
    /// If it is not and cannot be read now.
    pub async fn freshen(&self) -> Result<(), Unfresh> {
        let freshness = self.live.freshness();
        // Tried again if a reading took longer than its result stays valid, as on a machine that stood still.
        for _ in 0..FRESHEN_ATTEMPTS {
            if freshness.is_fresh() {
                return Ok(());
            }
            if self.readings.unanswered.load(Ordering::Relaxed) >= FAILED_READINGS && !self.readings.probes()
            {
                return Err(StoreError::Unavailable.into());
            }
            // A longer reading proves nothing. The follower runs without that bound, however much it has to read.
            match tokio::time::timeout(MAX_AGE, self.read_or_share()).await {
                Ok(Ok(())) => {}
                // One that answers wrongly is not away, so it is not said to be.
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => break,
            }
        }
        if freshness.is_fresh() { Ok(()) } else { Err(Unfresh::Stale) }
    }

    /// Reads the registry, or waits for a reading in progress and takes its result: on the same connection it is as good.
    async fn read_or_share(&self) -> Result<(), StoreError> {
        let ended = self.readings.ended.load(Ordering::Acquire);
        let last = self.readings.turn.lock().await;
        if self.live.freshness().is_fresh() {
            Ok(())
        } else if self.readings.ended.load(Ordering::Acquire) > ended {
            last.clone().map_or(Ok(()), Err)
        } else {
            self.read_in_turn(last).await
        }
    }

    /// Follows the registry and writes down uses, until told to stop. Neither waits for the other. Worker number `worker`
    /// reads only if those before it have not. One reads while all can, and no single connection is needed.
    pub async fn follow(&self, worker: u32, mut stop: watch::Receiver<bool>) {
        let mut stop_writing = stop.clone();
        let every = reads_every(worker);
        let following = async {
            loop {
                let age = self.live.freshness().age();
                let mut due = age.map_or(Duration::ZERO, |age| every.saturating_sub(age));
                if due.is_zero() {
                    // Logged where it fails; the next turn tries again.
                    let _ = self.read().await;
                    due = every;
                }
                self.live.watch_age();
                if has_stopped_within(due, &mut stop).await {
                    return;
                }
            }
        };
        let writing = async {
            while !has_stopped_within(WRITE_USES, &mut stop_writing).await {
                self.live.write_uses(&self.store).await;
            }
        };
        tokio::join!(following, writing);
    }
}

/// How old what is known may be when worker number `worker` reads the registry.
pub(super) fn reads_every(worker: u32) -> Duration {
    FOLLOW + STAND_BY.saturating_mul(worker).min(FOLLOW)
}

/// Waits. Returns whether a stop was requested in that time.
pub(super) async fn has_stopped_within(pause: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok()
}
