//! `tollgate.v1.AdminService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    answer,
    proto::{
        ListUpstreamKeysRequest, ListUpstreamKeysResponse, UpstreamKey, UpstreamKeyState,
        admin_service_server::AdminService,
    },
};
use crate::upstream::{KeyUse, LiveKey, UpstreamKeys};

/// Serves `AdminService`.
#[derive(Clone, Debug)]
pub struct AdminRpc {
    upstream: Arc<UpstreamKeys>,
}

impl AdminRpc {
    /// Tells of the keys in `upstream`.
    #[must_use]
    pub const fn new(upstream: Arc<UpstreamKeys>) -> Self {
        Self { upstream }
    }
}

#[tonic::async_trait]
impl AdminService for AdminRpc {
    async fn list_upstream_keys(
        &self,
        _: Request<ListUpstreamKeysRequest>,
    ) -> Result<Response<ListUpstreamKeysResponse>, Status> {
        let upstream_keys = self.upstream.all().iter().map(|(key, state)| shown(key, *state)).collect();
        Ok(Response::new(ListUpstreamKeysResponse { upstream_keys }))
    }
}

fn shown(key: &LiveKey, state: KeyUse) -> UpstreamKey {
    let state = match state {
        KeyUse::Used => UpstreamKeyState::Used,
        KeyUse::Standby => UpstreamKeyState::Standby,
        KeyUse::Refused => UpstreamKeyState::Refused,
    };
    UpstreamKey {
        name: key.id.to_string(),
        project: key.project.to_string(),
        place: key.place.clone(),
        state: state.into(),
        create_time: Some(answer::timestamp(key.since)),
        last_use_time: key.last_used().map(answer::timestamp),
        refuse_time: key.refused_at().map(answer::timestamp),
        request_count: answer::int(key.uses()),
    }
}
