//! `tollgate.v1.AdminService`.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};

use super::{
    answer, parse,
    proto::{
        AuditActor, AuditEvent, ListAuditEventsRequest, ListAuditEventsResponse, ListUpstreamKeysRequest,
        ListUpstreamKeysResponse, UpstreamKey, UpstreamKeyState, admin_service_server::AdminService,
    },
    status,
};
use crate::{
    audit::{Audit, Event},
    domain::Timestamp,
    upstream::{KeyUse, LiveKey, UpstreamKeys},
};

/// Serves `AdminService`.
#[derive(Clone, Debug)]
pub struct AdminRpc {
    upstream: Arc<UpstreamKeys>,
    audit: Audit,
}

impl AdminRpc {
    /// Tells of the keys in `upstream` and of the events in `audit`.
    #[must_use]
    pub const fn new(upstream: Arc<UpstreamKeys>, audit: Audit) -> Self {
        Self { upstream, audit }
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

    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        let query = parse::audit(request.into_inner())?;
        let audit = self.audit.clone();
        // The disk may take its time, and this thread serves others.
        let page = spawn_blocking(move || audit.page(&query)).await.map_err(|_| status::internal())?;
        let page = page.map_err(|error| status::audit(&error))?;
        let next_page_token =
            page.next.map_or_else(String::new, |place| format!("{}{place}", parse::AUDIT_BEFORE));
        let events = page.events.into_iter().map(event).collect();
        Ok(Response::new(ListAuditEventsResponse { events, next_page_token }))
    }
}

fn event(event: Event) -> AuditEvent {
    let value = |value: serde_json::Value| if value.is_null() { String::new() } else { value.to_string() };
    let at = Timestamp(u64::try_from(event.time.as_millisecond()).unwrap_or(0));
    AuditEvent {
        id: event.id,
        time: Some(answer::timestamp(at)),
        actor: Some(AuditActor {
            kind: event.actor.kind.name().to_owned(),
            name: event.actor.name.to_string(),
            address: event.actor.address.map_or_else(String::new, |address| address.to_string()),
        }),
        action: event.action,
        subject: event.subject,
        before: value(event.before),
        after: value(event.after),
        outcome: event.outcome,
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
