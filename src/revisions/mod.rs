//! The policies that were in force: each replica records the document that it takes, without its secrets, so that any of them can tell
//! what changed when.

mod recorder;
mod said;

use std::sync::Arc;

use thiserror::Error;

pub use self::recorder::Recorder;
use self::said::Said;
use crate::{
    domain::{
        Timestamp,
        policy::{DocumentFormat, PolicyDocument},
    },
    policy_file::{Differences, document_differences},
    store::{PolicyEntry, PolicyRecords, StoreError},
};

/// A policy that was in force.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyRevision {
    /// The revision of its document.
    pub revision: Arc<str>,
    /// When the first replica took it into force.
    pub first: Timestamp,
    /// The replicas that did: the last of them, if there are very many.
    pub replicas: Vec<Arc<str>>,
    /// Why the first one read it: `start`, `file change` or `signal`.
    pub source: String,
    /// The revision that it was compared with: the one in force before on the first replica, or at its start, the newest on record.
    /// Empty: there was none, or none with a document.
    pub previous: String,
    /// What differed from that.
    pub differences: Differences,
    /// How its document is written.
    pub format: DocumentFormat,
    /// Whether its document is kept: one of more than 1 MiB is not.
    pub has_document: bool,
}

/// The document of a revision, and what differs from another.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionText {
    /// The revision.
    pub of: PolicyRevision,
    /// Its document without secrets.
    pub document: String,
    /// The revision that it is compared with.
    pub compared_with: String,
    /// What differs.
    pub differences: Differences,
}

/// Why a revision is not shown.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RevisionError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not on record.
    #[error("no policy `{0}` is on record; `tollgate policy history` lists the last 100")]
    Unknown(String),
    /// It is on record without a document.
    #[error("the document of policy `{0}` is not kept, as it has more than 1 MiB")]
    NotKept(String),
    /// What is left of a document without its secrets cannot be compared.
    #[error("the documents of policies `{0}` and `{1}` cannot be compared without the secrets in them")]
    NotComparable(String, String),
    /// A fault of the service; details are in its log.
    #[error("internal error")]
    Internal,
}

impl PolicyRevision {
    fn of(entry: PolicyEntry) -> Self {
        let PolicyEntry { revision, first, replicas, value } = entry;
        let Said { source, previous, differences, format, has_document } = Said::parse(&revision, &value);
        Self { revision, first, replicas, source, previous, differences, format, has_document }
    }
}

/// The recorded revisions, the newest first: at most 100.
///
/// # Errors
/// The store cannot be read.
pub async fn list<S: PolicyRecords>(store: &S) -> Result<Vec<PolicyRevision>, StoreError> {
    Ok(store.policies().await?.into_iter().map(PolicyRevision::of).collect())
}

/// The document of `revision`, and what changed to it from `compare_with`; if that is empty, from the revision before, as it was recorded.
///
/// # Errors
/// One of them is not on record or not kept, they cannot be compared, or the store cannot be read.
pub async fn find<S: PolicyRecords>(
    store: &S,
    revision: &str,
    compare_with: &str,
) -> Result<RevisionText, RevisionError> {
    let all = list(store).await?;
    let of = known(&all, revision)?.clone();
    let text = document(store, &of).await?;
    if compare_with.is_empty() {
        let (compared_with, differences) = (of.previous.clone(), of.differences.clone());
        return Ok(RevisionText { of, document: text, compared_with, differences });
    }
    let other = known(&all, compare_with)?;
    let before = PolicyDocument::new(&document(store, other).await?, other.format);
    let after = PolicyDocument::new(&text, of.format);
    // Large documents take longer than decisions are to wait.
    let compared = tokio::task::spawn_blocking(move || document_differences(&before, &after)).await;
    let differences = compared.map_err(|error| {
        tracing::error!(%error, "policies cannot be compared");
        RevisionError::Internal
    })?;
    let not_comparable = || RevisionError::NotComparable(compare_with.to_owned(), revision.to_owned());
    let differences = differences.ok_or_else(not_comparable)?;
    Ok(RevisionText { of, document: text, compared_with: compare_with.to_owned(), differences })
}

fn known<'a>(all: &'a [PolicyRevision], revision: &str) -> Result<&'a PolicyRevision, RevisionError> {
    let found = all.iter().find(|known| *known.revision == *revision);
    found.ok_or_else(|| RevisionError::Unknown(revision.to_owned()))
}

async fn document<S: PolicyRecords>(store: &S, of: &PolicyRevision) -> Result<String, RevisionError> {
    let not_kept = || RevisionError::NotKept(of.revision.to_string());
    let bytes = store.policy_document(Arc::clone(&of.revision)).await?.ok_or_else(not_kept)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
