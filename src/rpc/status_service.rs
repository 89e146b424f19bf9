//! `tollgate.v1.StatusService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    proto::{
        GetStatusRequest, GetStatusResponse, ListReplicasRequest, ListReplicasResponse,
        status_service_server::StatusService,
    },
    replica_list,
};
use crate::store::Store;

/// Serves `StatusService`.
#[derive(Clone, Debug)]
pub struct StatusRpc<S> {
    store: S,
    organization: Arc<str>,
}

impl<S> StatusRpc<S> {
    /// Tells of the replicas of `organization` that share `store`.
    #[must_use]
    pub const fn new(store: S, organization: Arc<str>) -> Self {
        Self { store, organization }
    }
}

#[tonic::async_trait]
impl<S: Store> StatusService for StatusRpc<S> {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Err(Status::unimplemented("`GET /status` of the operators' listener says it"))
    }

    async fn list_replicas(
        &self,
        request: Request<ListReplicasRequest>,
    ) -> Result<Response<ListReplicasResponse>, Status> {
        replica_list::answer(&self.store, &self.organization, request.into_inner()).await.map(Response::new)
    }
}
