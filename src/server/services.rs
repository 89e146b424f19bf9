//! The services of one core.

use std::sync::Arc;

use tonic::service::Routes;
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tracing::warn;

use super::{
    dispatch::Dispatch,
    reflection,
    request_body::{MAX_ENVOY_BYTES, MAX_MESSAGE_BYTES, MAX_PROPOSAL_BYTES, MAX_REPORT_BYTES},
};
use crate::{
    access::Guard,
    alerts::{Crossings, Receivers},
    authorizer::{Authorizer, Shared},
    control::{Keys, Pauses},
    reports::{Budgets, LimitReports, PastDays, Spending, UsageReports},
    rpc::{
        AlertRpc, AuditRpc, BudgetRpc, CheckRpc, DecisionWatch, DocumentWork, KeyRpc, OrganizationRpc,
        PauseRpc, PolicyDocumentRpc, PolicyRpc, ProcessRpc, RateLimitRpc, Recorder, ReportRpc, StatusFacts,
        StatusRpc, UpstreamRpc,
        envoy::service::{
            auth::v3::authorization_server::AuthorizationServer,
            ext_proc::v3::external_processor_server::ExternalProcessorServer,
            ratelimit::v3::rate_limit_service_server::RateLimitServiceServer,
        },
        policy_service_server::PolicyServiceServer,
        proto::{
            alert_service_server::AlertServiceServer, audit_service_server::AuditServiceServer,
            budget_service_server::BudgetServiceServer, key_service_server::KeyServiceServer,
            organization_service_server::OrganizationServiceServer, pause_service_server::PauseServiceServer,
            policy_document_service_server::PolicyDocumentServiceServer,
            report_service_server::ReportServiceServer, status_service_server::StatusServiceServer,
            upstream_service_server::UpstreamServiceServer,
        },
    },
    runtime::{Runtime, replica_name},
    store::Store,
    telemetry::trace::Tracing,
    upstream::UpstreamKeys,
};

/// What the services of all cores share.
#[derive(Clone, Debug)]
pub struct ServiceParts {
    /// Decides who may ask.
    pub guard: Guard,
    /// What the replica tells about itself.
    pub status: StatusFacts,
    /// What is done with whole policy documents.
    pub documents: DocumentWork,
    /// Where traces go.
    pub tracing: Tracing,
    /// What days cost of months that are over.
    pub past: PastDays,
    /// When thresholds of budgets were crossed.
    pub crossings: Crossings,
    /// Where alerts go.
    pub receivers: Arc<Receivers>,
    /// The keys that are sent to Groq in place of clients' credentials.
    pub upstream: Arc<UpstreamKeys>,
    /// Where people find the console, without a slash at the end; `None`: it is not served, or it is not known by which name.
    pub console: Option<Arc<str>>,
    /// Clock and entropy.
    pub runtime: Runtime,
}

/// What the services of a core are made of.
pub(super) struct Core<'c, S> {
    pub(super) authorizer: &'c Authorizer<S>,
    pub(super) shared: &'c Shared,
    pub(super) recorder: &'c Recorder,
    pub(super) parts: &'c ServiceParts,
    pub(super) health: HealthReporter,
}

/// What decides comes first: see [`Dispatch`].
pub(super) type Services<S> = Dispatch<PolicyServiceServer<PolicyRpc<S>>, AuthorizationServer<CheckRpc<S>>>;

/// All services of a core.
pub(super) fn services<S: Store + Clone>(core: Core<'_, S>) -> Services<S> {
    let ServiceParts { guard, past, upstream, tracing, .. } = core.parts;
    let spending =
        Spending::new(core.authorizer.store().clone(), Arc::clone(&core.shared.live), past.clone());
    let spending = spending.with_spool(core.shared.spool.clone());
    let audit = guard.audit().clone();
    let policy = PolicyRpc::new(core.authorizer.clone(), spending, Arc::clone(upstream), audit);
    let check = CheckRpc::new(core.authorizer.clone(), Arc::clone(upstream), tracing.clone());
    Dispatch {
        first: PolicyServiceServer::new(policy).max_decoding_message_size(MAX_MESSAGE_BYTES),
        second: AuthorizationServer::new(check).max_decoding_message_size(MAX_ENVOY_BYTES),
        routes: routes(core).prepare(),
    }
}

/// The services that decide nothing, or seldom.
fn routes<S: Store + Clone>(core: Core<'_, S>) -> Routes {
    let Core { authorizer, shared, recorder, parts, health } = core;
    let ServiceParts {
        guard, status, documents, past, crossings, receivers, upstream, console, runtime, ..
    } = parts.clone();
    let (store, follower) = (authorizer.store(), authorizer.follower());
    let process = ProcessRpc::new(authorizer.clone(), Arc::clone(&upstream), guard.audit().clone());
    let process = ExternalProcessorServer::new(process).max_decoding_message_size(MAX_ENVOY_BYTES);
    let rate_limit = RateLimitServiceServer::new(RateLimitRpc::new(authorizer.clone()));
    let rate_limit = rate_limit.max_decoding_message_size(MAX_MESSAGE_BYTES);
    let keys = KeyRpc::new(Keys::new(follower.clone(), runtime.entropy.clone()), recorder.clone());
    let keys = KeyServiceServer::new(keys).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let pauses = PauseRpc::new(Pauses::new(follower.clone()), recorder.clone());
    let pauses = PauseServiceServer::new(pauses).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let upstream = UpstreamRpc::new(authorizer.clone(), upstream, replica_name().into(), recorder.clone());
    let upstream = UpstreamServiceServer::new(upstream).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let audit = AuditRpc::new(authorizer.clone());
    let audit = AuditServiceServer::new(audit).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let alerts = AlertRpc::new(authorizer.clone(), receivers, runtime.clone(), recorder.clone());
    // The messages of its other RPCs are bounded where they arrive, as are all.
    let alerts = AlertServiceServer::new(alerts).max_decoding_message_size(MAX_REPORT_BYTES);
    let limits = LimitReports::new(follower.clone());
    let watch = DecisionWatch::new(Arc::clone(&shared.feed), guard.clone());
    let reports = ReportRpc::new(UsageReports::new(store.clone(), Arc::clone(&shared.live)), limits, watch);
    let reports = ReportServiceServer::new(reports).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let budgets = BudgetRpc::new(Budgets::new(follower.clone(), past), crossings);
    let budgets = BudgetServiceServer::new(budgets).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let documents = PolicyDocumentRpc::new(
        store.clone(),
        status.clone(),
        documents,
        authorizer.settler().tasks().clone(),
    );
    // As with alerts.
    let documents = PolicyDocumentServiceServer::new(documents).max_decoding_message_size(MAX_PROPOSAL_BYTES);
    let organizations = OrganizationRpc::new(status.clone(), console);
    let organizations =
        OrganizationServiceServer::new(organizations).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let status = StatusRpc::new(store.clone(), status);
    let status = StatusServiceServer::new(status).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let routes = Routes::new(keys)
        .add_service(process)
        .add_service(rate_limit)
        .add_service(pauses)
        .add_service(upstream)
        .add_service(audit)
        .add_service(alerts)
        .add_service(reports)
        .add_service(budgets)
        .add_service(documents)
        .add_service(organizations)
        .add_service(status)
        .add_service(HealthServer::new(HealthService::from_health_reporter(health)));
    match reflection::services() {
        Ok((v1, v1alpha)) => routes.add_service(v1).add_service(v1alpha),
        Err(error) => {
            warn!(%error, "reflection is not served");
            routes
        }
    }
}
