//! What is in force at one moment: the policy document, the keys created beside it, and what is paused.

use std::sync::Arc;

use super::{key::KeyIndex, pause::Pauses, policy::Policy};

/// Everything that decisions read, immutable. A request takes one and is decided by it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The policy document.
    pub policy: Arc<Policy>,
    /// The keys created through the service.
    pub keys: KeyIndex,
    /// What is paused.
    pub pauses: Arc<Pauses>,
    /// The hash of the document and the number of the registry's last change, as in `5e9fedb300e80eb4/42`, so that the record of
    /// a decision says what it was made by. A store that loses its last writes uses their numbers again.
    pub revision: Arc<str>,
    /// The number in the revision.
    pub registry: u64,
    /// Whether the registry has never been read. Until then an unknown key may still exist, and anything may be paused.
    pub is_pending: bool,
}

impl Snapshot {
    /// What is in force by `policy` before the registry was read for the first time.
    #[must_use]
    pub fn pending(policy: Arc<Policy>) -> Self {
        let (keys, pauses, revision) = (KeyIndex::default(), Arc::default(), Arc::default());
        Self { policy, keys, pauses, revision, registry: 0, is_pending: true }.numbered(0)
    }

    /// The same, as of the registry's state with this number.
    #[must_use]
    pub fn numbered(self, registry: u64) -> Self {
        let revision = revision(&self.policy.revision, registry).into();
        Self { revision, registry, ..self }
    }
}

/// The revision of a snapshot of this document and this state of the registry.
#[must_use]
pub fn revision(document: &str, registry: u64) -> String {
    format!("{document}/{registry}")
}

/// The document's part of a snapshot's revision.
#[must_use]
pub fn document_revision(revision: &str) -> &str {
    revision.split('/').next().unwrap_or_default()
}
