//! The clock of a store: the system's, or one that a test moves.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::domain::Timestamp;

/// Tells the time, and waits.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's.
    #[default]
    System,
    /// One that only moves when told to.
    Manual(ManualClock),
}

impl Clock {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
            }
            Self::Manual(clock) => clock.now(),
        }
    }

    /// Returns once the time is `at` or later.
    pub async fn wait_until(&self, at: Timestamp) {
        match self {
            Self::System => tokio::time::sleep(Duration::from_millis(at.since(self.now()))).await,
            Self::Manual(clock) => clock.wait_until(at).await,
        }
    }
}

/// A clock for tests. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock(watch::Sender<Timestamp>);

impl ManualClock {
    /// Starts at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(watch::Sender::new(now))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    /// Sets the time, forwards or backwards.
    pub fn set(&self, now: Timestamp) {
        self.0.send_replace(now);
    }

    async fn wait_until(&self, at: Timestamp) {
        // The sender is held by `self`, so the channel cannot close while waiting.
        let _ = self.0.subscribe().wait_for(|now| *now >= at).await;
    }
}
