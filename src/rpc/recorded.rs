//! Changes that are recorded.

use tonic::Status;

use super::status;
use crate::audit::{Audit, Change};

/// Makes a change, and records what `event` tells of it. Both go on where the caller has gone: what is written must not stay
/// unrecorded.
///
/// # Errors
/// Where the change panicked.
pub(super) async fn recorded<T: Send + 'static>(
    audit: &Audit,
    change: impl Future<Output = T> + Send + 'static,
    event: impl FnOnce(&T) -> Option<Change> + Send + 'static,
) -> Result<T, Status> {
    let audit = audit.clone();
    let task = tokio::spawn(async move {
        let done = change.await;
        if let Some(change) = event(&done) {
            audit.changed(change);
        }
        done
    });
    task.await.map_err(|_| status::internal())
}
