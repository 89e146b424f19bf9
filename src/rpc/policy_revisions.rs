//! The policies that were in force, on the wire.

use serde_json::Value;
use tonic::Status;

use super::{
    answer::timestamp,
    findings::count,
    page::{self, ListContext, PageRequest},
    proto::{
        self, GetPolicyRevisionRequest, GetPolicyRevisionResponse, ListPolicyRevisionsRequest,
        ListPolicyRevisionsResponse, PolicyChange,
    },
    status::{self, FieldErrors},
};
use crate::{
    authorizer::Failure,
    policy_file::{Differences, KeyChange},
    revisions::{self, PolicyRevision, RevisionText},
    store::PolicyRecords,
};

/// The longest revision that is looked up, in bytes.
const MAX_REVISION_BYTES: usize = 64;

/// The page that `request` asks for.
pub(super) async fn list<S: PolicyRecords>(
    store: &S,
    mut request: ListPolicyRevisionsRequest,
    context: &ListContext,
    policy_revision: String,
) -> Result<ListPolicyRevisionsResponse, Status> {
    let mut errors = FieldErrors::default();
    let page = errors.page(&mut request, context);
    let PageRequest { size, after, tokens } = errors.or(page)?;
    let all = revisions::list(store).await;
    let all = all.map_err(|error| status::undecided(&Failure::Store(error), ""))?;
    // What is no longer kept was the oldest, so nothing comes after it.
    let from = after.map_or(0, |after| {
        all.iter().position(|known| known.revision == after).map_or(all.len(), |place| place + 1)
    });
    let (revisions, last) = page::fill(all.into_iter().skip(from), size, |known| {
        let place = std::sync::Arc::clone(&known.revision);
        (place, shown(known))
    });
    Ok(ListPolicyRevisionsResponse {
        revisions,
        next_page_token: tokens.next(last.as_ref()),
        policy_revision,
    })
}

/// The revision that `request` asks for.
pub(super) async fn get<S: PolicyRecords>(
    store: &S,
    request: GetPolicyRevisionRequest,
) -> Result<GetPolicyRevisionResponse, Status> {
    let mut errors = FieldErrors::default();
    let revision = errors.text("document_revision", request.document_revision, 1, MAX_REVISION_BYTES);
    let compare_with = errors.text("compare_with", request.compare_with, 0, MAX_REVISION_BYTES);
    let (revision, compare_with) = errors.or((revision, compare_with))?;
    let found = revisions::find(store, &revision, &compare_with).await.map_err(status::no_revision)?;
    let RevisionText { of, document, compared_with, differences } = found;
    let (changes, change_count) = changes(differences);
    let format = of.format.name().to_owned();
    Ok(GetPolicyRevisionResponse { document, changes, format, change_count, compared_with })
}

fn shown(known: PolicyRevision) -> proto::PolicyRevision {
    let (changes, change_count) = changes(known.differences);
    proto::PolicyRevision {
        document_revision: known.revision.to_string(),
        first_time: Some(timestamp(known.first)),
        source: known.source,
        changes,
        replicas: known.replicas.iter().map(ToString::to_string).collect(),
        change_count,
        previous_revision: known.previous,
        document_kept: known.has_document,
    }
}

/// The changed keys that are named, and how many there are.
pub(super) fn changes(differences: Differences) -> (Vec<PolicyChange>, i32) {
    let all = count(differences.changes.len() + differences.left_out);
    (differences.changes.into_iter().map(change).collect(), all)
}

fn change(change: KeyChange) -> PolicyChange {
    let text = |value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    PolicyChange { path: change.path, before: text(change.before), after: text(change.after) }
}
