//! The two answers to Envoy. Envoy takes an answer without a status as allowed, so answers are made only here.

use bytes::Bytes;

use super::super::{
    envoy::{
        config::core::v3::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction},
        service::auth::v3::{
            CheckResponse, DeniedHttpResponse, OkHttpResponse, check_response::HttpResponse,
        },
        r#type::v3::{HttpStatus, StatusCode},
    },
    filter_context::FilterContext,
    google_rpc::Status,
};
use crate::{
    domain::limit_status::LimitStatuses,
    groq::{error::ApiError, rate_headers::rate_headers},
    upstream::LiveKey,
};

/// gRPC's codes, as far as they are used: OK and PERMISSION_DENIED.
const OK: i32 = 0;
const PERMISSION_DENIED: i32 = 7;
/// A client's credentials, and what reveals the client or the path of its request, are the organization's own business.
const PRIVATE: [&str; 11] = [
    "api-key",
    "cookie",
    "forwarded",
    "openai-organization",
    "openai-project",
    "proxy-authorization",
    "via",
    "x-api-key",
    "x-forwarded-client-cert",
    "x-forwarded-host",
    "x-real-ip",
];
/// Tells the client, and anyone who supports it, which reservation its request has.
const RESERVATION_HEADER: &str = "x-tollgate-reservation";

/// What is sent on to Groq.
pub(super) struct Approval<'a> {
    /// The Groq key in place of the client's credential.
    pub(super) key: &'a LiveKey,
    /// Headers that name the caller, for the gateway only.
    pub(super) internal_headers: Vec<String>,
    /// The reservation; `None` for what costs nothing.
    pub(super) context: Option<FilterContext>,
    /// The limits after the decision.
    pub(super) limits: &'a LimitStatuses,
}

/// The request may proceed.
pub(super) fn allowed(allowed: Approval<'_>) -> CheckResponse {
    let mut headers_to_remove = allowed.internal_headers;
    headers_to_remove.extend(PRIVATE.map(str::to_owned));
    let mut to_client = rate_headers(allowed.limits);
    if let Some(context) = &allowed.context {
        // A compressed answer from Groq cannot be metered.
        headers_to_remove.push("accept-encoding".to_owned());
        to_client.push((RESERVATION_HEADER, context.reservation.id().to_string()));
    }
    CheckResponse {
        status: Some(Status { code: OK, ..Status::default() }),
        dynamic_metadata: allowed.context.map(|context| context.to_metadata()),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: vec![set("authorization", allowed.key.bearer().to_owned())],
            headers_to_remove,
            response_headers_to_add: to_client.into_iter().map(|(name, value)| set(name, value)).collect(),
        })),
    }
}

/// The client gets `error` in place of Groq's answer.
pub(super) fn denied(error: &ApiError, limits: &LimitStatuses) -> CheckResponse {
    let mut headers = error.headers();
    headers.extend(rate_headers(limits));
    let code = StatusCode::try_from(i32::from(error.status)).unwrap_or(StatusCode::Forbidden);
    CheckResponse {
        status: Some(Status { code: PERMISSION_DENIED, message: error.code.to_owned(), details: Vec::new() }),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: code.into() }),
            headers: headers.into_iter().map(|(name, value)| set(name, value)).collect(),
            body: error.body(),
        })),
    }
}

fn set(name: &'static str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.into(), value: value.into(), raw_value: Bytes::new() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}
