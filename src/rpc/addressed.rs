//! What the first message of a call says of the organization that it is for, where neither its caller nor its metadata does.

use prost::Message as _;

use super::{
    envoy::{
        config::core::v3::Metadata,
        service::{auth::v3::CheckRequest, ext_proc::v3::ProcessingRequest, ratelimit::v3::RateLimitRequest},
    },
    ext_authz,
    filter_context::FilterContext,
    key_parse::key_caller,
    proto::{AuthorizeRequest, RecordUsageRequest, authorize_request, record_usage_request},
};
use crate::{authorizer::ReservationName, domain::request::Caller, store::ReservationId};

/// The descriptor that has a key of the rate-limit protocol.
const API_KEY: &str = "tollgate_api_key";

/// What tells the organization of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clue {
    /// Nothing.
    None,
    /// Its id.
    Organization(String),
    /// The SHA-256 of the secret of a key.
    Key([u8; 32]),
    /// The SHA-256 of what a client of Envoy's sends where a key would stand; it may be for something else.
    Bearer([u8; 32]),
    /// A reservation.
    Reservation(ReservationId),
    /// It is for no organization: a request that none admitted, or a key or a reservation that none can have.
    Any,
}

const AUTHORIZE: &str = "/tollgate.v1.PolicyService/Authorize";
const RECORD_USAGE: &str = "/tollgate.v1.PolicyService/RecordUsage";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";
const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// Whether messages of the RPC at `path` may have one.
#[must_use]
pub fn has_clue(path: &str) -> bool {
    [AUTHORIZE, RECORD_USAGE, CHECK, PROCESS, SHOULD_RATE_LIMIT].contains(&path)
}

/// The clue in the first message of a call of the RPC at `path`. A message that cannot be read has none.
#[must_use]
pub fn clue(path: &str, message: &[u8]) -> Clue {
    let found = match path {
        AUTHORIZE => AuthorizeRequest::decode(message).ok().map(of_question),
        RECORD_USAGE => RecordUsageRequest::decode(message).ok().map(of_report),
        CHECK => CheckRequest::decode(message).ok().map(of_check),
        PROCESS => ProcessingRequest::decode(message).ok().map(of_exchange),
        SHOULD_RATE_LIMIT => RateLimitRequest::decode(message).ok().map(of_counts),
        _ => None,
    };
    found.unwrap_or(Clue::None)
}

fn of_question(request: AuthorizeRequest) -> Clue {
    match request.caller {
        Some(authorize_request::Caller::ApiKey(secret)) => of_key(&secret),
        Some(authorize_request::Caller::Team(_)) | None => Clue::None,
    }
}

fn of_report(request: RecordUsageRequest) -> Clue {
    match request.caller {
        _ if !request.reservation_id.is_empty() => of_reservation(&request.reservation_id),
        Some(record_usage_request::Caller::ApiKey(secret)) => of_key(&secret),
        Some(record_usage_request::Caller::Team(_)) | None => Clue::None,
    }
}

fn of_check(check: CheckRequest) -> Clue {
    match ext_authz::addressed(check) {
        (Some(organization), _) => Clue::Organization(organization),
        (None, Some(secret)) => match key_caller(&secret) {
            Some(Caller::Key(digest)) => Clue::Bearer(digest),
            Some(Caller::Mistyped | Caller::Team(_)) | None => Clue::None,
        },
        (None, None) => Clue::None,
    }
}

/// What no one admitted is metered for no one.
fn of_exchange(request: ProcessingRequest) -> Clue {
    let metadata = Metadata::decode(request.metadata_context).ok();
    match metadata.as_ref().and_then(FilterContext::from_metadata).map(|context| context.reservation) {
        Some(ReservationName::Stored(id)) => Clue::Reservation(id),
        Some(ReservationName::Degraded(_)) => Clue::None,
        None => Clue::Any,
    }
}

fn of_counts(request: RateLimitRequest) -> Clue {
    match request.domain.is_empty() {
        false => Clue::Organization(request.domain),
        true => {
            let mut entries = request.descriptors.iter().flat_map(|descriptor| &descriptor.entries);
            entries.find(|entry| entry.key == API_KEY).map_or(Clue::None, |entry| of_key(&entry.value))
        }
    }
}

fn of_key(secret: &str) -> Clue {
    match key_caller(secret) {
        Some(Caller::Key(digest)) => Clue::Key(digest),
        Some(Caller::Mistyped | Caller::Team(_)) | None => Clue::Any,
    }
}

fn of_reservation(text: &str) -> Clue {
    match text.parse() {
        Ok(ReservationName::Stored(id)) => Clue::Reservation(id),
        Ok(ReservationName::Degraded(_)) => Clue::None,
        Err(_) => Clue::Any,
    }
}
