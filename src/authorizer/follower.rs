//! Following the registry, and deciding by nothing that was read too long ago.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{Authorizer, Decided, Failure, MAX_AGE, decided::denied};
use crate::{
    domain::{
        decision::{Reason, Violation},
        permit::Who,
        plan,
        request::{AuthorizeRequest, Caller},
    },
    store::{Store, StoreError},
};

/// How often the registry is asked whether it changed. With a call of at most 250 ms (the store's deadline as it comes) a
/// change is in force on every replica well within the second that is promised.
const FOLLOW: Duration = Duration::from_millis(250);
/// How much longer than the one before it a worker waits for another's reading.
const STAND_BY: Duration = Duration::from_millis(20);
/// Readings after which a decision gives up, where each succeeds and takes longer than what it proves lasts.
const FRESHEN_ATTEMPTS: u32 = 3;
/// How often uses are written down.
const WRITE_USES: Duration = Duration::from_secs(1);

/// The readings of the registry over the connection of one worker.
///
/// Protocol: `turn` is held over a whole reading, so that they come one after the other, and keeps how the last one ended. A waiter
/// that gets its turn when a reading that began after it asked has ended takes that one's result: however many wait, there are
/// two. Workers do not wait for each other: one whose connection is silent holds up its own calls only.
#[derive(Debug, Default)]
pub(super) struct Readings {
    turn: tokio::sync::Mutex<Option<StoreError>>,
    /// The number of the last reading that began; written within `turn`.
    begun: AtomicU64,
    /// The number of the last reading that ended; the same.
    ended: AtomicU64,
}

impl<S: Store + Clone> Authorizer<S> {
    /// Reads what changed in the registry, over this worker's connection, in a reading that begins after this call.
    pub(super) async fn read_registry(&self) -> Result<(), StoreError> {
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
        let read = self.shared.read_registry(&self.store).await;
        match (&read, last.is_some()) {
            (Err(error), false) => {
                warn!(%error, "a worker cannot read the registry over its connection; trying again");
            }
            (Ok(()), true) => info!("the worker can read the registry again"),
            _ => {}
        }
        *last = read.clone().err();
        self.readings.ended.store(reading, Ordering::Release);
        read
    }

    /// Makes sure that what is known of the registry is young enough to decide by.
    ///
    /// # Errors
    /// Where it is not and cannot be read now.
    pub async fn freshen(&self) -> Result<(), Failure> {
        let freshness = self.shared.freshness();
        // Once more where a reading took longer than what it proves lasts, as on a machine that stood still.
        for _ in 0..FRESHEN_ATTEMPTS {
            if freshness.is_fresh() {
                return Ok(());
            }
            // What takes longer proves nothing. The follower goes on without that bound, whatever it has to read.
            match tokio::time::timeout(MAX_AGE, self.read_or_share()).await {
                Ok(Ok(())) => {}
                Ok(Err(error @ (StoreError::Unavailable | StoreError::Overloaded))) => {
                    return Err(error.into());
                }
                Ok(Err(StoreError::Corrupt | StoreError::Overflow)) | Err(_) => break,
            }
        }
        if freshness.is_fresh() { Ok(()) } else { Err(Failure::SnapshotStale) }
    }

    /// Reads the registry, or waits for a reading in progress and takes its result: of one connection it is as good.
    async fn read_or_share(&self) -> Result<(), StoreError> {
        let ended = self.readings.ended.load(Ordering::Acquire);
        let last = self.readings.turn.lock().await;
        if self.shared.freshness().is_fresh() {
            Ok(())
        } else if self.readings.ended.load(Ordering::Acquire) > ended {
            last.clone().map_or(Ok(()), Err)
        } else {
            self.read_in_turn(last).await
        }
    }

    /// Follows the registry and writes down uses, until told to stop. Neither waits for the other. Worker number `worker` reads
    /// where those before it have not, so that one reads while all can, and no single connection is needed.
    pub async fn follow_registry(&self, worker: u32, mut stop: watch::Receiver<bool>) {
        let mut stop_writing = stop.clone();
        let every = FOLLOW + STAND_BY.saturating_mul(worker).min(FOLLOW);
        let following = async {
            loop {
                let age = self.shared.freshness().age();
                let mut due = age.map_or(Duration::ZERO, |age| every.saturating_sub(age));
                if due.is_zero() {
                    // Said where it fails; the next turn tries again.
                    let _ = self.read_registry().await;
                    due = every;
                }
                self.shared.watch_age();
                if has_stopped_within(due, &mut stop).await {
                    return;
                }
            }
        };
        let writing = async {
            while !has_stopped_within(WRITE_USES, &mut stop_writing).await {
                self.shared.write_uses(&self.store).await;
            }
        };
        tokio::join!(following, writing);
    }

    /// What was decided; or, where it is allowed and what was known became too old while the store was asked (as in a process
    /// that was stopped), the denial by what is known now. What was reserved for it is released like any answer that no caller
    /// gets; what a repeat found stays, as it is of who got it.
    pub(super) async fn unless_overtaken(
        &self,
        request: &AuthorizeRequest,
        decided: Decided,
    ) -> Result<Decided, Failure> {
        if decided.outcome.is_err() || self.shared.freshness().is_fresh() {
            return Ok(decided);
        }
        self.freshen().await?;
        let policy = self.shared.policy.load_full();
        let now = self.store.now();
        let today = self.today(&policy, now);
        Ok(match plan::compile(&policy, request, now, &today) {
            Ok(_) => decided,
            Err(violations) => denied(&policy, violations, Vec::new()),
        })
    }

    /// Counts a use of the secret by which `who` came, if it is one of a created key.
    pub fn count_use(&self, who: &Who<'_>) {
        if let Some(secret) = who.secret {
            secret.uses.count(self.store.now());
        }
    }
}

/// Whether a refusal that needed no counter may be told; `fresh`: what [`Authorizer::freshen`] said before the policy that refuses was
/// taken. What is known to refuse goes on refusing while the store is away; only a key that is not known may have been made since.
///
/// # Errors
/// Why nothing can be decided.
pub fn refusal_stands(
    caller: &Caller,
    violation: &Violation,
    fresh: &Result<(), Failure>,
) -> Result<(), Failure> {
    match violation.reason {
        Reason::StoreUnavailable => Err(StoreError::Unavailable.into()),
        Reason::InvalidKey if *caller != Caller::Mistyped => fresh.clone(),
        _ => Ok(()),
    }
}

/// Waits; whether a stop was asked for in that time.
async fn has_stopped_within(pause: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok()
}
