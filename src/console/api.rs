//! The gRPC services, as a page calls them for its reader.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::http::{Request, Response};
use tonic::body::Body;
use tower::{Service, util::BoxCloneSyncService};

use crate::{
    access::Peer,
    domain::rbac::Principal,
    rpc::{
        SignedIn,
        proto::{
            alert_service_client::AlertServiceClient, audit_service_client::AuditServiceClient,
            budget_service_client::BudgetServiceClient, key_service_client::KeyServiceClient,
            pause_service_client::PauseServiceClient,
            policy_document_service_client::PolicyDocumentServiceClient,
            policy_service_client::PolicyServiceClient, report_service_client::ReportServiceClient,
            status_service_client::StatusServiceClient, upstream_service_client::UpstreamServiceClient,
        },
    },
};

/// All services behind the guard, for calls from within the process.
pub type InProcess = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The services, called by the reader of a page.
#[derive(Clone)]
pub(super) struct Api {
    services: InProcess,
    /// `None`: the policy knows no callers.
    caller: Option<Arc<Principal>>,
    peer: Option<Peer>,
}

impl Service<Request<Body>> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <InProcess as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.services.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let extensions = request.extensions_mut();
        if let Some(peer) = self.peer.clone() {
            extensions.insert(peer);
        }
        if let Some(caller) = self.caller.clone() {
            extensions.insert(SignedIn(caller));
        }
        self.services.call(request)
    }
}

impl Api {
    /// Calls `services` for `caller`, who is at `peer`.
    pub(super) const fn new(services: InProcess, caller: Option<Arc<Principal>>, peer: Option<Peer>) -> Self {
        Self { services, caller, peer }
    }

    pub(super) fn alerts(&self) -> AlertServiceClient<Self> {
        AlertServiceClient::new(self.clone())
    }

    pub(super) fn audit(&self) -> AuditServiceClient<Self> {
        AuditServiceClient::new(self.clone())
    }

    pub(super) fn budgets(&self) -> BudgetServiceClient<Self> {
        BudgetServiceClient::new(self.clone())
    }

    pub(super) fn keys(&self) -> KeyServiceClient<Self> {
        KeyServiceClient::new(self.clone())
    }

    pub(super) fn pauses(&self) -> PauseServiceClient<Self> {
        PauseServiceClient::new(self.clone())
    }

    pub(super) fn policy(&self) -> PolicyServiceClient<Self> {
        PolicyServiceClient::new(self.clone())
    }

    pub(super) fn policy_document(&self) -> PolicyDocumentServiceClient<Self> {
        PolicyDocumentServiceClient::new(self.clone())
    }

    pub(super) fn reports(&self) -> ReportServiceClient<Self> {
        ReportServiceClient::new(self.clone())
    }

    pub(super) fn status(&self) -> StatusServiceClient<Self> {
        StatusServiceClient::new(self.clone())
    }

    pub(super) fn upstream(&self) -> UpstreamServiceClient<Self> {
        UpstreamServiceClient::new(self.clone())
    }
}
