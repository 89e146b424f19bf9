//! Removing what holds nothing any more, a step at a time.

use std::{sync::Weak, time::Duration};

use super::{
    Inner, bytes, script,
    wire::{Numbers, Reader},
};
use crate::store::StoreError;

/// Between two steps of the sweep, over all replicas, where there is nothing to remove.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// Between two steps where much is removed. With [`SWEEP_FIELDS`] it keeps pace with 10,000 new counters a second and more, for
/// less than a tenth of the server's time.
const SWEEP_SOON_MS: u64 = 5;
/// Fields looked at in one step of the sweep: a fraction of a millisecond of the server's time.
const SWEEP_FIELDS: u64 = 256;

/// Sweeps until the store is dropped: it holds no more than a weak reference, which it tries at each step.
pub(super) async fn sweep_on(store: Weak<Inner>) {
    let every_ms = u64::try_from(SWEEP_EVERY.as_millis()).unwrap_or(u64::MAX);
    let mut pause = SWEEP_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let Some(store) = store.upgrade() else { return };
        // Only the one that took the last step comes back sooner, so that not all ask when one would do.
        pause = SWEEP_EVERY;
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
        if self.time.is_unknown() {
            // Nothing is forgotten by one look at the server's clock.
            self.counters(&[]).await?;
        }
        let sent = self.time.reading();
        let bounds = self.time.for_effect(sent, self.link.deadline_ms());
        let mut numbers = Numbers::with_capacity(6);
        bounds.push(&mut numbers);
        numbers.extend(&[every_ms, SWEEP_SOON_MS.min(every_ms), fields]);
        let mut cmd = script::SWEEP.call(5);
        cmd.arg(&self.keys.counters)
            .arg(&self.keys.history)
            .arg(&self.keys.sweep)
            .arg(&self.keys.reservations)
            .arg(&self.keys.reservation_prefix)
            .arg(numbers.bytes());
        let answer = bytes(self.link.call(&script::SWEEP, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        self.read_time(&mut reader, (sent, &bounds))?;
        let removed = reader.number()?;
        reader.number()?;
        Ok(SweepStep { removed, next_ms: Some(reader.number()?).filter(|ms| *ms > 0) })
    }
}

/// What a step of the sweep came to.
pub(super) struct SweepStep {
    pub(super) removed: u64,
    /// When the next is due; `None` where this was not.
    pub(super) next_ms: Option<u64>,
}
