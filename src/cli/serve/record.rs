//! The audit log's record of how changes of a policy's file went.

use std::{future::poll_fn, path::PathBuf, sync::Arc, task::Poll};

use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    audit::Audit,
    cli::auditing,
    policy_file::{PolicyAttempt, ReloadOutcome},
    server::metrics::Reloads,
};

/// The attempts to load the policy of one organization, and where they are recorded.
pub(super) struct Record {
    pub(super) attempts: UnboundedReceiver<PolicyAttempt>,
    pub(super) reloads: Arc<Reloads>,
    pub(super) audit: Audit,
    pub(super) file: Option<PathBuf>,
}

impl Record {
    /// Waits for the next attempt of any of `all`, and records it.
    pub(super) async fn next(all: &mut [Self]) {
        poll_fn(|cx| {
            for one in &mut *all {
                // A policy that is not followed any more has no further ones.
                if let Poll::Ready(Some(attempt)) = one.attempts.poll_recv(cx) {
                    one.take(attempt);
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
    }

    /// Records those that were made and not recorded yet.
    pub(super) fn rest(&mut self) {
        while let Ok(attempt) = self.attempts.try_recv() {
            self.take(attempt);
        }
    }

    fn take(&self, attempt: PolicyAttempt) {
        self.reloads.add(matches!(attempt.outcome, ReloadOutcome::Loaded { .. }));
        auditing::record(&self.audit, self.file.as_deref(), attempt);
    }
}
