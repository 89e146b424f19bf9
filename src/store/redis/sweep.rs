//! Removes entries that hold nothing any more, a step at a time.

use std::{sync::Weak, time::Duration};

use super::{
    ATTEMPTS, Inner, bytes, read_moment, script,
    server_time::Fit,
    wire::{Numbers, Reader},
};
use crate::store::StoreError;

/// Between two steps of the sweep, over all replicas, if there is nothing to remove.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// Between two steps if much is removed. With [`SWEEP_FIELDS`] it keeps pace with more than 10,000 new counters a second, for
/// less than a tenth of the server's time.
const SWEEP_SOON_MS: u64 = 5;
/// Fields looked at in one step of the sweep: a fraction of a millisecond of the server's time.
const SWEEP_FIELDS: u64 = 256;
/// Between two looks at the server's clock while it is unknown.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Sweeps until the store is dropped: it holds only a weak reference, which it tries at each step.
pub(super) async fn sweep_on(store: Weak<Inner>) {
    let every_ms = u64::try_from(SWEEP_EVERY.as_millis()).unwrap_or(u64::MAX);
    let mut pause = LOOK_AGAIN;
    loop {
        tokio::time::sleep(pause).await;
        let Some(store) = store.upgrade() else { return };
        // Only the process that took the last step comes back sooner, so they do not all ask when one is enough.
        pause = if store.time.is_unknown() { LOOK_AGAIN } else { SWEEP_EVERY };
        if let Ok(step) = store.sweep(every_ms, SWEEP_FIELDS).await {
            if step.removed > 0 {
                tracing::debug!(removed = step.removed, "removed idle counters");
            }
            if let Some(next_ms) = step.next_ms {
                pause = Duration::from_millis(next_ms);
            }
        }
    }
}

impl Inner {
    pub(super) async fn sweep(&self, every_ms: u64, fields: u64) -> Result<SweepStep, StoreError> {
        // A single look at the server's clock is not enough to forget anything.
        self.know_time().await?;
        for _ in 0..ATTEMPTS {
            if let Some(step) = self.sweep_once(every_ms, fields).await? {
                return Ok(step);
            }
        }
        Err(StoreError::Unavailable)
    }

    /// `None` if the server's clock was seen to be set forwards: the next call corrects that.
    async fn sweep_once(&self, every_ms: u64, fields: u64) -> Result<Option<SweepStep>, StoreError> {
        let sent = self.time.reading();
        let bounds = self.time.for_timely(sent, self.connection.deadline_ms());
        let mut numbers = Numbers::with_capacity(7);
        bounds.push(&mut numbers);
        numbers.extend(&[bounds.given_up, every_ms, SWEEP_SOON_MS.min(every_ms), fields]);
        let mut cmd = script::SWEEP.call(7);
        cmd.arg(&self.keyspace.counters)
            .arg(&self.keyspace.history)
            .arg(&self.keyspace.sweep)
            .arg(&self.keyspace.records)
            .arg(&self.keyspace.terms)
            .arg(&self.keyspace.earlier)
            .arg(&self.keyspace.unreported)
            .arg(numbers.bytes());
        let answer = bytes(self.connection.call(&script::SWEEP, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        if self.time.learn(sent, &bounds, &read_moment(&mut reader)?) == Fit::Ahead {
            return Ok(None);
        }
        let removed = reader.number()?;
        reader.number()?;
        let next_ms = Some(reader.number()?).filter(|ms| *ms > 0);
        if reader.number()? > 0 {
            // Those that are not booked now are left to the next step.
            if let Err(error) = self.book_unreported().await {
                tracing::debug!(%error, "reservations without a report cannot be booked yet");
            }
        }
        Ok(Some(SweepStep { removed, next_ms }))
    }
}

/// The result of a step of the sweep.
pub(super) struct SweepStep {
    pub(super) removed: u64,
    /// When the next step is due; `None` if this one was not.
    pub(super) next_ms: Option<u64>,
}
