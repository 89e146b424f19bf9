//! A test of a receiver: an alert that is sent at once, past the outbox.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    alert::Alert,
    delivery::{Delivery, Event},
    receivers::{Receiver, Receivers},
    worker,
};
use crate::{
    domain::alert::AlertKind,
    runtime::{NoEntropy, Runtime},
};

/// Tests that a process sends at the same time: each holds a connection for up to a minute.
pub const MAX_TRIALS: usize = 4;

/// Why no test was sent.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TrialError {
    /// The settings have no such receiver.
    #[error("the settings of this replica have no receiver `{0}`")]
    Unknown(String),
    /// There are as many as may be.
    #[error("{MAX_TRIALS} tests of receivers are being sent already")]
    TooMany,
}

/// A test that may be sent.
#[derive(Debug)]
pub struct Trial {
    receiver: Arc<Receiver>,
    _place: OwnedSemaphorePermit,
}

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialReport {
    /// The id of the alert.
    pub alert: String,
    /// The HTTP status of the answer; `None`: there was none.
    pub status: Option<u16>,
    /// How long it took.
    pub duration: Duration,
    /// Why it was not delivered; `None`: it was.
    pub error: Option<String>,
}

impl Receivers {
    /// A test of a receiver.
    ///
    /// # Errors
    /// The receiver is not known, or there are as many tests as may be.
    pub fn trial(&self, name: &str) -> Result<Trial, TrialError> {
        let receiver = self.named(name).ok_or_else(|| TrialError::Unknown(name.to_owned()))?;
        let place = Arc::clone(&self.trials).try_acquire_owned().map_err(|_| TrialError::TooMany)?;
        Ok(Trial { receiver: Arc::clone(receiver), _place: place })
    }
}

impl Trial {
    /// Sends it as deliveries are sent, within the receiver's `timeout` for its files and once more for the rest.
    ///
    /// # Errors
    /// The system gives no random numbers for its id.
    pub async fn send(self, organization: &str, runtime: &Runtime) -> Result<TrialReport, NoEntropy> {
        let (receiver, now) = (&self.receiver.settings, runtime.clock.now());
        let id = format!("{:012x}{:016x}", now.0, u64::from_be_bytes(runtime.entropy.bytes()?));
        let summary = format!("A test: alerts of {organization} reach the receiver {}", receiver.name);
        let alert = Alert::opened(&id, AlertKind::Test, now, (organization, summary));
        let delivery = Delivery::of(Event { alert, end: None, watched: None }, now);
        let started = Instant::now();
        let sent = worker::attempt(receiver, &delivery, &format!("{id}_open"), now).await;
        let duration = started.elapsed();
        Ok(match sent {
            Ok(status) => TrialReport { alert: id, status: Some(status), duration, error: None },
            Err(error) => {
                let (status, error) = (error.status(), Some(error.with_path()));
                TrialReport { alert: id, status, duration, error }
            }
        })
    }
}
