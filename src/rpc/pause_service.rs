//! `tollgate.v1.PauseService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    access,
    page::{self, ListContext, PageRequest},
    pausing::{self, PauseCommand},
    proto::{
        ListPausesRequest, ListPausesResponse, PauseRequest, PauseResponse, ResumeRequest, ResumeResponse,
        pause_service_server::PauseService,
    },
    recorded::Recorder,
    status::{self, FieldErrors},
};
use crate::{
    audit::action,
    control::{PauseChange, PauseError, Pauses},
    domain::name::MAX_NAME_BYTES,
    store::Store,
};

/// Serves `PauseService`.
#[derive(Clone, Debug)]
pub struct PauseRpc<S> {
    pauses: Pauses<S>,
    recorder: Recorder,
}

impl<S> PauseRpc<S> {
    /// Serves `pauses`; changes are recorded with `recorder`.
    #[must_use]
    pub const fn new(pauses: Pauses<S>, recorder: Recorder) -> Self {
        Self { pauses, recorder }
    }
}

impl<S: Store + Clone> PauseRpc<S> {
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
impl<S: Store + Clone> PauseService for PauseRpc<S> {
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
        request: Request<ListPausesRequest>,
    ) -> Result<Response<ListPausesResponse>, Status> {
        let context = ListContext { organization: self.pauses.organization(), now: self.pauses.now() };
        let mut request = request.into_inner();
        let mut errors = FieldErrors::default();
        let page = errors.page(&mut request, &context);
        let team = errors.text("team", request.team, 0, MAX_NAME_BYTES);
        let PageRequest { size, after, tokens } = errors.or(page)?;
        let pauses = self.pauses.list(&team, after.as_ref()).await;
        let pauses = pauses.map_err(|error| status::pause(&error))?;
        let (pauses, last) = page::fill(pauses, size, |(target, pause)| {
            let shown = pausing::shown(&target, &pause);
            (target, shown)
        });
        Ok(Response::new(ListPausesResponse { pauses, next_page_token: tokens.next(last.as_ref()) }))
    }
}
