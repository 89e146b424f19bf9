//! The policies that were in force.

use std::{future::Future, sync::Arc};

use bytes::Bytes;

use super::{Backend, StoreError};
use crate::domain::Timestamp;

/// A record of the policies that replicas took into force: the last [`MAX_POLICIES`]. A policy is known by its revision; what is said of
/// it and its document are opaque to the store.
///
/// It stands beside the registry: what is recorded of a document must not change the revision that decisions name.
pub trait PolicyRecords: Backend {
    /// Notes that a replica took a policy into force. The first one to do so records the policy, and those that are too many then go,
    /// the oldest first; a later one adds its name alone. Returns whether it was the first. A call may be repeated. Durable before it
    /// answers.
    fn record_policy(&self, record: PolicyRecord) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The recorded policies, the one recorded last first.
    fn policies(&self) -> impl Future<Output = Result<Vec<PolicyEntry>, StoreError>> + Send;

    /// The document of a recorded policy; `None`: there is no such policy, or it was recorded without one.
    fn policy_document(
        &self,
        revision: Arc<str>,
    ) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send;
}

/// The most policies that are kept.
pub const MAX_POLICIES: usize = 100;
/// The most bytes of a document that is kept.
pub const MAX_POLICY_DOCUMENT: usize = 1 << 20;
/// The most bytes of what is said of a policy.
pub const MAX_POLICY_VALUE: usize = 64 << 10;
/// The most replicas that are named with a policy. Each start of a process is another one, so those that came first go.
pub const MAX_POLICY_REPLICAS: usize = 64;
/// The longest revision and the longest name of a replica, in bytes.
const MAX_POLICY_NAME: usize = 256;
/// What separates names of replicas where they are stored.
pub(super) const BETWEEN_NAMES: char = '\n';

/// What a replica notes of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRecord {
    /// Identifies it.
    pub revision: Arc<str>,
    /// When the replica took it into force.
    pub at: Timestamp,
    /// The replica.
    pub replica: Arc<str>,
    /// What is said of it, at most [`MAX_POLICY_VALUE`] bytes.
    pub value: Bytes,
    /// Its document, at most [`MAX_POLICY_DOCUMENT`] bytes.
    pub document: Option<Bytes>,
}

impl PolicyRecord {
    /// # Errors
    /// Some of it is too long, or a name has a line end.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let names = [&self.revision, &self.replica];
        let is_short =
            names.iter().all(|name| name.len() <= MAX_POLICY_NAME && !name.contains(BETWEEN_NAMES))
                && self.value.len() <= MAX_POLICY_VALUE
                && self.document.as_ref().is_none_or(|document| document.len() <= MAX_POLICY_DOCUMENT);
        if is_short { Ok(()) } else { Err(StoreError::Overflow) }
    }
}

/// A recorded policy without its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEntry {
    /// Identifies it.
    pub revision: Arc<str>,
    /// When the first replica took it into force, as that one said.
    pub first: Timestamp,
    /// The replicas that did, in the order in which they noted it: the last [`MAX_POLICY_REPLICAS`].
    pub replicas: Vec<Arc<str>>,
    /// What the first one said of it.
    pub value: Bytes,
}

/// The names in `text`, as they are stored.
pub(super) fn names(text: &str) -> Vec<Arc<str>> {
    text.split(BETWEEN_NAMES).map(Arc::from).collect()
}
