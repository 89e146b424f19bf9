//! Records what this process takes into force.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{PolicyRevision, said::Said};
use crate::{
    domain::{
        Timestamp,
        policy::{Policy, PolicyDocument},
    },
    live::Live,
    policy_file::{Differences, LoadSource, PolicyStatus, document_differences, shown_document},
    runtime::replica_name,
    store::{PolicyRecord, PolicyRecords, StoreError},
};

/// How long until a record is tried again that the store did not take.
const RETRY: Duration = Duration::from_secs(5);
/// The most policies that wait to be recorded, each of which may have 32 MiB. Past it the oldest are not recorded.
const MAX_WAITING: usize = 16;

/// Records the policies of one process, beside its decisions: what the store does not take is kept and tried again.
#[derive(Debug)]
pub struct Recorder<S> {
    store: S,
    live: Arc<Live>,
    name: Arc<str>,
    waiting: VecDeque<Taken>,
    is_failing: bool,
}

/// A policy that was taken into force.
#[derive(Clone, Debug)]
struct Taken {
    policy: Arc<Policy>,
    /// What was in force before; `None`: nothing, as the process had just started.
    before: Option<Arc<Policy>>,
    source: LoadSource,
    at: Timestamp,
}

impl<S: PolicyRecords> Recorder<S> {
    /// Records for the process that has `live` in force.
    #[must_use]
    pub fn new(store: S, live: Arc<Live>) -> Self {
        Self { store, live, name: replica_name().into(), waiting: VecDeque::new(), is_failing: false }
    }

    /// Records `policy`, and each other one that `changes` tells of, until the sender of those is gone.
    pub async fn run(
        mut self,
        policy: Arc<ArcSwap<Policy>>,
        mut changes: watch::Receiver<Arc<PolicyStatus>>,
    ) {
        let mut last = self.take(&policy, &changes.borrow_and_update().clone(), None);
        // The layout of the store is known by then.
        self.live.registry_asked().await;
        loop {
            tokio::select! {
                // What is interrupted here is done again.
                done = self.write(), if !self.waiting.is_empty() => if done {
                    self.waiting.pop_front();
                },
                changed = changes.changed() => match changed {
                    Ok(()) => {
                        let status = Arc::clone(&changes.borrow_and_update());
                        last = self.take(&policy, &status, last);
                    }
                    Err(_) => return,
                },
            }
        }
    }

    /// Lets what is in force wait to be recorded, unless it is `last`. Returns what is in force.
    fn take(
        &mut self,
        policy: &ArcSwap<Policy>,
        status: &PolicyStatus,
        last: Option<Arc<Policy>>,
    ) -> Option<Arc<Policy>> {
        let policy = policy.load_full();
        if last.as_ref().is_some_and(|last| last.revision == policy.revision) {
            return last;
        }
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.pop_front();
            warn!("more policies wait to be recorded than are kept for that; the oldest is not");
        }
        let (source, at) = (status.source, status.loaded_at);
        self.waiting.push_back(Taken { policy: Arc::clone(&policy), before: last, source, at });
        Some(policy)
    }

    /// Records the first that waits, after a while if the last one failed. Returns whether nothing is left to do for it.
    async fn write(&mut self) -> bool {
        let Some(taken) = self.waiting.front().cloned() else { return false };
        if self.is_failing {
            tokio::time::sleep(RETRY).await;
        }
        let written = match self.record(taken).await {
            Ok(record) => self.store.record_policy(record).await.map(drop),
            Err(error) => Err(error),
        };
        let was_failing = std::mem::replace(&mut self.is_failing, written.is_err());
        match written {
            Ok(()) if was_failing => info!("policies in force are recorded again"),
            Ok(()) => {}
            // It would fail again.
            Err(error @ (StoreError::Overflow | StoreError::Corrupt)) => {
                error!(%error, "a policy in force cannot be recorded");
                self.is_failing = false;
            }
            Err(error) if !was_failing => {
                warn!(%error, "policies in force cannot be recorded yet; trying again");
            }
            Err(_) => {}
        }
        !self.is_failing
    }

    async fn record(&self, taken: Taken) -> Result<PolicyRecord, StoreError> {
        let before = match &taken.before {
            Some(before) => Some((before.revision.to_string(), Arc::clone(&before.document))),
            None => self.newest(&taken.policy.revision).await?,
        };
        let replica = Arc::clone(&self.name);
        // Large documents take longer than anything else on this thread is to wait.
        let record = tokio::task::spawn_blocking(move || record(&taken, before, replica)).await;
        record.map_err(|error| {
            error!(%error, "what a policy changes cannot be told");
            StoreError::Corrupt
        })?
    }

    /// The newest other revision on record, if it has a document.
    async fn newest(&self, revision: &str) -> Result<Option<(String, Arc<PolicyDocument>)>, StoreError> {
        let all = super::list(&self.store).await?;
        let is_known = all.iter().any(|known| *known.revision == *revision);
        let Some(PolicyRevision { revision, format, .. }) = all.into_iter().next().filter(|_| !is_known)
        else {
            return Ok(None);
        };
        let document = self.store.policy_document(Arc::clone(&revision)).await?;
        Ok(document.map(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            (revision.to_string(), Arc::new(PolicyDocument::new(&text, format)))
        }))
    }
}

fn record(
    taken: &Taken,
    before: Option<(String, Arc<PolicyDocument>)>,
    replica: Arc<str>,
) -> Result<PolicyRecord, StoreError> {
    let Taken { policy, source, at, .. } = taken;
    // Only what may be shown leaves the process.
    let shown = shown_document(policy);
    let after = match taken.before {
        Some(_) => Arc::clone(&policy.document),
        // What is on record has no secrets, which are no differences.
        None => Arc::new(PolicyDocument::new(&shown.text, policy.document.format)),
    };
    let is_comparable = taken.before.is_some() || !shown.is_truncated;
    let compared = before.filter(|_| is_comparable).and_then(|(previous, document)| {
        document_differences(&document, &after).map(|differences| (previous, differences))
    });
    let (previous, differences): (String, Differences) = compared.unwrap_or_default();
    let has_document = !shown.is_truncated;
    let (source, format) = (source.name().to_owned(), policy.document.format);
    let said = Said { source, previous, differences, format, has_document };
    let value = said.to_bytes().map_err(|error| {
        error!(%error, "what a policy changes cannot be written");
        StoreError::Corrupt
    })?;
    let document = has_document.then(|| shown.text.as_bytes().to_vec().into());
    Ok(PolicyRecord { revision: Arc::clone(&policy.revision), at: *at, replica, value, document })
}
