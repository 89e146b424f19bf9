//! `tollgate.v1.AuditService`.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::{
    answer, audited,
    page::{self, ListContext},
    parse,
    proto::{
        AuditEvent, ListAuditEventsRequest, ListAuditEventsResponse, audit_service_server::AuditService,
    },
    status,
};
use crate::{
    audit::{self, Event},
    authorizer::{Authorizer, Failure},
    domain::Timestamp,
    store::Store,
};

/// Pages of the audit log that one core reads at a time.
const MAX_PAGES: usize = 2;

/// Serves `AuditService`.
#[derive(Clone, Debug)]
pub struct AuditRpc<S> {
    authorizer: Authorizer<S>,
    /// Pages of the audit log read at the same time: each may take some megabytes.
    pages: Arc<Semaphore>,
}

impl<S> AuditRpc<S> {
    /// Shows what the store of `authorizer` keeps of the audit log.
    #[must_use]
    pub fn new(authorizer: Authorizer<S>) -> Self {
        Self { authorizer, pages: Arc::new(Semaphore::new(MAX_PAGES)) }
    }
}

#[tonic::async_trait]
impl<S: Store + Clone> AuditService for AuditRpc<S> {
    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        let organization = Arc::clone(&self.authorizer.snapshot().policy.organization.id);
        let context = ListContext { organization, now: self.authorizer.store().now() };
        let (query, tokens) = parse::audit(request.into_inner(), &context)?;
        let place = Arc::clone(&self.pages).acquire_owned().await.map_err(|_| status::internal())?;
        let page = audit::page(self.authorizer.store(), &query).await;
        drop(place);
        let page = page.map_err(|error| status::undecided(&Failure::Store(error), ""))?;
        let (events, cut) = page::fill(page.events, usize::MAX, |(id, told)| (id, event(told)));
        let next_page_token = tokens.next(cut.or(page.next).as_ref());
        Ok(Response::new(ListAuditEventsResponse { events, next_page_token }))
    }
}

fn event(event: Event) -> AuditEvent {
    let at = Timestamp(u64::try_from(event.time.as_millisecond()).unwrap_or(0));
    AuditEvent {
        id: event.id,
        time: Some(answer::timestamp(at)),
        actor: Some(answer::actor(&event.actor)),
        action: event.action,
        subject: event.subject,
        before: audited::to_struct(event.before),
        after: audited::to_struct(event.after),
        outcome: event.outcome,
        replica: event.replica,
        organization: event.organization,
    }
}
