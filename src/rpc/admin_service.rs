//! `tollgate.v1.AdminService`.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::{
    access, answer, audited, parse,
    pausing::{self, PauseCommand},
    proto::{
        AuditEvent, ListAuditEventsRequest, ListAuditEventsResponse, ListPausesRequest, ListPausesResponse,
        ListUpstreamKeysRequest, ListUpstreamKeysResponse, PauseRequest, PauseResponse, ResumeRequest,
        ResumeResponse, UpstreamKey, UpstreamKeyState, admin_service_server::AdminService,
    },
    recorded::Recorder,
    status,
};
use crate::{
    audit::{self, Event, action},
    authorizer::Failure,
    control::{PauseChange, PauseError, Pauses},
    domain::Timestamp,
    store::Store,
    upstream::{KeyUse, LiveKey, UpstreamKeys},
};

/// Pages of the audit log that one core reads at a time.
const MAX_PAGES: usize = 2;

/// Serves `AdminService`.
#[derive(Clone, Debug)]
pub struct AdminRpc<S> {
    pauses: Pauses<S>,
    store: S,
    upstream: Arc<UpstreamKeys>,
    recorder: Recorder,
    /// Pages of the audit log read at the same time: each takes a thread and some megabytes.
    pages: Arc<Semaphore>,
}

impl<S> AdminRpc<S> {
    /// Serves `pauses` with `recorder`, and tells of the keys in `upstream` and of what was recorded.
    #[must_use]
    pub fn new(store: S, pauses: Pauses<S>, upstream: Arc<UpstreamKeys>, recorder: Recorder) -> Self {
        Self { pauses, store, upstream, recorder, pages: Arc::new(Semaphore::new(MAX_PAGES)) }
    }
}

impl<S: Store + Clone> AdminRpc<S> {
    /// Makes a change and records it.
    async fn carry_out(
        &self,
        order: &Arc<PauseCommand>,
        change: impl Future<Output = Result<PauseChange, PauseError>> + Send + 'static,
    ) -> Result<PauseChange, Status> {
        let order = Arc::clone(order);
        let done = self.recorder.carry_out(change, move |done| order.event(done)).await?;
        done.map_err(|error| status::pause(&error))
    }
}

#[tonic::async_trait]
impl<S: Store + Clone> AdminService for AdminRpc<S> {
    async fn pause(&self, request: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        let actor = access::session(request.extensions()).actor();
        let PauseRequest { target, reason } = request.into_inner();
        let order = Arc::new(PauseCommand::read(action::PAUSE_CREATE, actor, target, reason)?);
        let (pauses, pause) = (self.pauses.clone(), Arc::clone(&order));
        let pause = async move { pauses.pause(&pause.target, &pause.reason, &pause.actor).await };
        let change = self.carry_out(&order, pause).await?;
        let replaced = if change.changes_nothing() { None } else { change.before };
        let [pause, replaced_pause] = [change.after, replaced].map(|pause| order.shown(pause));
        Ok(Response::new(PauseResponse { pause, replaced_pause }))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Result<Response<ResumeResponse>, Status> {
        let actor = access::session(request.extensions()).actor();
        let ResumeRequest { target, reason } = request.into_inner();
        let order = Arc::new(PauseCommand::read(action::PAUSE_END, actor, target, reason)?);
        let (pauses, resume) = (self.pauses.clone(), Arc::clone(&order));
        let resume = async move { pauses.resume(&resume.target).await };
        let change = self.carry_out(&order, resume).await?;
        Ok(Response::new(ResumeResponse { ended_pause: order.shown(change.before) }))
    }

    async fn list_pauses(
        &self,
        _: Request<ListPausesRequest>,
    ) -> Result<Response<ListPausesResponse>, Status> {
        let pauses = self.pauses.list().await.map_err(|error| status::pause(&error))?;
        let pauses = pauses.iter().map(|(target, pause)| pausing::shown(target, pause)).collect();
        Ok(Response::new(ListPausesResponse { pauses }))
    }

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
        let place = Arc::clone(&self.pages).acquire_owned().await.map_err(|_| status::internal())?;
        let page = audit::page(&self.store, &query).await;
        drop(place);
        let page = page.map_err(|error| status::failure(&Failure::Store(error)))?;
        let next_page_token =
            page.next.map_or_else(String::new, |place| format!("{}{place}", parse::AUDIT_BEFORE));
        let events = page.events.into_iter().map(event).collect();
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
