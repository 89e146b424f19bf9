//! `tollgate.v1.AuditService`.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::spawn_blocking};
use tonic::{Request, Response, Status};

use super::{
    answer, parse,
    proto::{
        AuditEvent, ListAuditEventsRequest, ListAuditEventsResponse, audit_service_server::AuditService,
    },
    recorded::Recorder,
    status,
};
use crate::{audit::Event, domain::Timestamp};

/// Pages of the audit log that one core reads at a time.
const MAX_PAGES: usize = 2;

/// Serves `AuditService`.
#[derive(Clone, Debug)]
pub struct AuditRpc {
    recorder: Recorder,
    /// Pages of the audit log read at the same time: each takes a thread and some megabytes.
    pages: Arc<Semaphore>,
}

impl AuditRpc {
    /// Shows what `recorder` recorded.
    #[must_use]
    pub fn new(recorder: Recorder) -> Self {
        Self { recorder, pages: Arc::new(Semaphore::new(MAX_PAGES)) }
    }
}

#[tonic::async_trait]
impl AuditService for AuditRpc {
    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        let query = parse::audit(request.into_inner())?;
        let audit = self.recorder.audit().clone();
        let place = Arc::clone(&self.pages).acquire_owned().await.map_err(|_| status::internal())?;
        // The disk may be slow, and this thread serves others.
        let page = spawn_blocking(move || {
            // Held for as long as it reads, even if the caller has gone.
            let _place = place;
            audit.page(&query)
        })
        .await
        .map_err(|_| status::internal())?;
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
        actor: Some(answer::actor(&event.actor)),
        action: event.action,
        subject: event.subject,
        before: value(event.before),
        after: value(event.after),
        outcome: event.outcome,
    }
}
