//! What the page of the policy is made of, asked for at the same time.

use tonic::Status;

use super::Query;
use crate::{
    console::view::View,
    domain::rbac::Permission,
    rpc::proto::{
        GetPolicyRequest, GetStatusRequest, ListPolicyRevisionsRequest, ListPolicyRevisionsResponse,
        ListReplicasRequest, PolicySnapshot, Replica, Status as ServiceStatus,
    },
};

/// Revisions on a page: each may have many changes.
const PAGE: i32 = 20;
/// All revisions that are kept.
const ALL: i32 = 100;
/// The most replicas that are looked at.
const REPLICAS: i32 = 1_000;

/// What the page shows. Of what its reader may not see, there is nothing.
pub(super) struct Gathered {
    /// What is in force.
    pub(super) policy: PolicySnapshot,
    /// What was, and what each changed.
    pub(super) history: ListPolicyRevisionsResponse,
    /// What the replica that makes the page says of its policy.
    pub(super) status: Option<ServiceStatus>,
    pub(super) replicas: Vec<Replica>,
}

/// Asks for all of it.
pub(super) async fn gather(view: &View, asked: &Query) -> Result<Gathered, Status> {
    let (mut documents, may) = (view.api().policy_document(), view.may(Permission::ReadStatus));
    let (policy, history, status, replicas) = tokio::try_join!(
        async { Ok(documents.get_policy(GetPolicyRequest {}).await?.into_inner()) },
        history(view, PAGE, asked.older.clone()),
        async { Ok(status(view, may).await) },
        async { Ok(replicas(view, may).await) },
    )?;
    Ok(Gathered { policy: policy.policy.unwrap_or_default(), history, status, replicas })
}

/// All revisions that are kept, the newest first.
pub(super) async fn whole_history(view: &View) -> Result<ListPolicyRevisionsResponse, Status> {
    history(view, ALL, String::new()).await
}

async fn history(
    view: &View,
    page_size: i32,
    page_token: String,
) -> Result<ListPolicyRevisionsResponse, Status> {
    let request = ListPolicyRevisionsRequest { page_size, page_token };
    Ok(view.api().policy_document().list_policy_revisions(request).await?.into_inner())
}

/// The page is of use without it.
async fn status(view: &View, may: bool) -> Option<ServiceStatus> {
    if !may {
        return None;
    }
    view.api().status().get_status(GetStatusRequest {}).await.ok()?.into_inner().status
}

/// The page is of use without them.
async fn replicas(view: &View, may: bool) -> Vec<Replica> {
    let request = ListReplicasRequest { page_size: REPLICAS, ..Default::default() };
    match may {
        true => view.api().status().list_replicas(request).await,
        false => return Vec::new(),
    }
    .map(|found| found.into_inner().replicas)
    .unwrap_or_default()
}

/// The document's half of a revision of document and registry.
pub(super) fn of_document(policy_revision: &str) -> &str {
    policy_revision.split('/').next().unwrap_or_default()
}
