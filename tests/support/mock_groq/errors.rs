//! Groq's error answers, and the rate-limit headers that it sends with every answer.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

/// An answer with `{"error":{…}}`.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    body: Value,
    retry_after: Option<u64>,
}

impl ApiError {
    fn new(status: u16, message: impl Into<String>, kind: &str, code: Option<&str>) -> Self {
        let mut error = json!({"message": message.into(), "type": kind});
        if let (Some(code), Some(fields)) = (code, error.as_object_mut()) {
            fields.insert("code".to_owned(), code.into());
        }
        Self { status, body: json!({"error": error}), retry_after: None }
    }

    pub(crate) fn into_response(self, number: u64) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body)).into_response();
        add_headers(&mut response, number);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

const INVALID_REQUEST: &str = "invalid_request_error";

pub(crate) fn invalid_api_key() -> ApiError {
    ApiError::new(401, "Invalid API Key", INVALID_REQUEST, Some("invalid_api_key"))
}

pub(crate) fn invalid_request(message: impl Into<String>) -> ApiError {
    ApiError::new(400, message, INVALID_REQUEST, None)
}

pub(crate) fn unknown_url(method: &Method, path: &str) -> ApiError {
    let message = format!(
        "Unknown request URL: {method} {path}. Please check the URL for typos, or see the docs at \
         https://console.groq.com/docs/"
    );
    ApiError::new(404, message, INVALID_REQUEST, Some("unknown_url"))
}

pub(crate) fn unknown_model(model: &str) -> ApiError {
    let message = format!("The model `{model}` does not exist or you do not have access to it.");
    ApiError::new(404, message, INVALID_REQUEST, Some("model_not_found"))
}

/// The error that a directive asked for.
pub(crate) fn directed(status: u16, model: &str, retry_after: Option<u64>) -> ApiError {
    let of_tokens = format!(
        "for model `{model}` in organization `org_01mock` service tier `on_demand` on tokens per minute (TPM): Limit 250000"
    );
    let upgrade = "Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing";
    match status {
        400 => invalid_request("'messages' : minimum number of items is 1"),
        401 => invalid_api_key(),
        413 => ApiError::new(
            413,
            format!(
                "Request too large {of_tokens}, Requested 300000, please reduce your message size and try again. {upgrade}"
            ),
            "tokens",
            Some("rate_limit_exceeded"),
        ),
        429 => {
            let seconds = retry_after.unwrap_or(2);
            let message = format!(
                "Rate limit reached {of_tokens}, Used 249000, Requested 9000. Please try again in {seconds}s. {upgrade}"
            );
            let error = ApiError::new(429, message, "tokens", Some("rate_limit_exceeded"));
            ApiError { retry_after: Some(seconds), ..error }
        }
        498 => ApiError::new(
            498,
            "The flex tier is at capacity. Please try again later.",
            "invalid_request_error",
            Some("capacity_exceeded"),
        ),
        503 => ApiError::new(
            503,
            format!(
                "{model} is currently over capacity. Please try again and back off exponentially. Visit \
                 https://groqstatus.com to see if there is an active incident."
            ),
            "internal_server_error",
            None,
        ),
        500.. => ApiError::new(status, "Internal Server Error", "internal_server_error", None),
        _ => ApiError::new(status, "The request cannot be processed.", INVALID_REQUEST, None),
    }
}

/// The organization's limits, which a gateway replaces by its own.
const RATE_LIMITS: [(HeaderName, HeaderValue); 6] = [
    limit("x-ratelimit-limit-requests", "500000"),
    limit("x-ratelimit-limit-tokens", "250000"),
    limit("x-ratelimit-remaining-requests", "499999"),
    limit("x-ratelimit-remaining-tokens", "249000"),
    limit("x-ratelimit-reset-requests", "172.8ms"),
    limit("x-ratelimit-reset-tokens", "240ms"),
];

const fn limit(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

pub(crate) fn add_headers(response: &mut Response, number: u64) {
    let headers = response.headers_mut();
    headers.extend(RATE_LIMITS);
    headers.insert("x-groq-region", HeaderValue::from_static("dls"));
    if let Ok(id) = HeaderValue::try_from(format!("req_{number}")) {
        headers.insert("x-request-id", id);
    }
}
