//! The gRPC services: the only place that sees protobuf.

mod access;
mod addressed;
mod alert_service;
mod answer;
mod audit_service;
mod audited;
mod budget_service;
mod codec;
mod convert;
mod deadline;
mod decision_event;
mod delivery;
mod error;
mod etag;
mod ext_authz;
mod ext_proc;
mod filter_context;
mod findings;
mod json;
mod key_answer;
mod key_parse;
mod key_service;
mod organization_service;
mod page;
mod page_error;
mod parse;
mod pause_service;
mod pausing;
mod policy_document_service;
mod policy_revisions;
mod policy_service;
mod rate_limit;
mod recorded;
mod replaying;
mod replica_list;
mod report_service;
mod settling;
mod status;
mod status_service;
mod upstream_service;
mod watching;

pub use crate::audit::action::ALL as AUDIT_ACTIONS;
pub use access::{Access, AccessLayer, SignedIn, credentials};
pub use addressed::{Clue, clue, has_clue};
pub use alert_service::AlertRpc;
pub use answer::AuthorizeAnswer;
pub use audit_service::AuditRpc;
pub use budget_service::BudgetRpc;
pub use delivery::watched;
pub use error::{ERROR_DOMAIN, ERRORS, Effect, ErrorRow, explain_end, explained};
pub use ext_authz::CheckRpc;
pub use ext_proc::ProcessRpc;
pub use findings::without_secrets;
pub use json::{JsonError, error_to_json, struct_to_json, to_json};
pub use key_service::KeyRpc;
pub use organization_service::{Memberships, OrganizationRpc};
pub use page_error::{PageFault, caller_refused, page_error};
pub use pause_service::PauseRpc;
pub use policy_document_service::{DocumentWork, PolicyDocumentRpc};
pub use policy_service::PolicyRpc;
pub use rate_limit::RateLimitRpc;
pub use recorded::Recorder;
pub use report_service::ReportRpc;
pub use status::{
    busy_with_documents, deadline_exceeded, effect_of, invalid_field, message_too_large, request_too_slow,
    shutting_down, store_silent, too_many_streams, too_many_streams_of_reader,
};
pub use status_service::{StatusFacts, StatusRpc};
pub use upstream_service::UpstreamRpc;
pub use watching::DecisionWatch;

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    dead_code,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));

    /// The server of `PolicyService` whose answers are written by [`super::answer`].
    pub mod written {
        include!(concat!(env!("OUT_DIR"), "/written/tollgate.v1.rs"));
    }
}

/// Envoy's protocols, as far as they are spoken.
pub use generated::envoy;
/// `google.rpc`, which Envoy's protocols and errors use.
use generated::google::rpc as google_rpc;
/// `google.type`, which the contract uses.
pub use generated::google::r#type as google_type;
/// The contract as generated from `proto/`.
pub use generated::tollgate::v1 as proto;
/// `PolicyService` as it is served.
pub use generated::written::policy_service_server;

/// The contract's descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
