//! Changes that are recorded.

use tokio::sync::oneshot;
use tonic::Status;

use super::{error::Effect, status};
use crate::{
    audit::{Audit, Change},
    runtime::Tasks,
};

/// Makes changes and records them.
#[derive(Clone, Debug)]
pub struct Recorder {
    audit: Audit,
    tasks: Tasks,
}

impl Recorder {
    /// Records in `audit`. `tasks` waits for changes in flight.
    #[must_use]
    pub const fn new(audit: Audit, tasks: Tasks) -> Self {
        Self { audit, tasks }
    }

    /// Makes a change, and records what `event` says about it. Both continue if the caller has gone, and while the service
    /// drains: what is written must not stay unrecorded.
    ///
    /// # Errors
    /// If the service has ended its tasks, so that no one would wait for the change, or if it panicked.
    pub(super) async fn carry_out<T: Send + 'static>(
        &self,
        change: impl Future<Output = T> + Send + 'static,
        event: impl FnOnce(&T) -> Option<Change> + Send + 'static,
    ) -> Result<T, Status> {
        let audit = self.audit.clone();
        let (told, done) = oneshot::channel();
        let is_begun = self.tasks.spawn_unless_ending(async move {
            let done = change.await;
            if let Some(change) = event(&done) {
                audit.changed(change);
            }
            // No one listens if the caller has gone.
            let _ = told.send(done);
        });
        if !is_begun {
            return Err(status::shutting_down(Effect::None));
        }
        done.await.map_err(|_| status::internal())
    }
}
