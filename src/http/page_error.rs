//! Errors of the pages: `google.rpc.Status` in JSON for programs that ask for JSON, else its message as text.

use axum::{
    Json,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{ACCEPT, ALLOW, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse as _, Response},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    access::Refusal,
    rpc::{PageFault, caller_refused, error_to_json, page_error},
};

/// When to ask again for what there is too much of at the moment, in seconds: as the console's script does for its streams.
const RETRY_SECONDS: &str = "30";

/// Why there is no page.
#[derive(Clone, Debug)]
pub struct PageError {
    http: StatusCode,
    status: Status,
    /// What is shown in place of the message to those who read text.
    text: Option<String>,
}

impl PageError {
    /// There is no such page, for anyone.
    pub fn unknown_page(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, PageFault::UnknownPage, path, "there is no such page")
    }

    /// The page is only read.
    pub fn method_not_allowed() -> Self {
        let message = "this page is only read: use GET";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, PageFault::MethodNotAllowed, "", message)
    }

    /// The request is for another host.
    pub fn foreign_host() -> Self {
        let message = "this `Host` is none of this listener: use its address, or localhost";
        Self::new(StatusCode::MISDIRECTED_REQUEST, PageFault::ForeignHost, "", message)
    }

    /// A change was asked for that no page of ours asked for.
    pub fn foreign_form() -> Self {
        let message =
            "this form did not come from a page of the console, or that page is too old: load it again";
        Self::new(StatusCode::FORBIDDEN, PageFault::ForeignForm, "", message)
    }

    /// Nothing can be decided at the moment. Those who read text read `text`.
    pub fn not_ready(fault: PageFault, message: &str, text: String) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, fault, "", message);
        Self { text: Some(text), ..error }
    }

    /// The page could not be made.
    pub fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, PageFault::Internal, "", message)
    }

    /// The caller may not see the page.
    pub fn refused(refusal: Refusal) -> Self {
        Self::told(caller_refused(refusal))
    }

    /// What a service answered in place of what the page is made of.
    pub fn told(status: Status) -> Self {
        let http = match status.code() {
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound | Code::Unimplemented => StatusCode::NOT_FOUND,
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition => StatusCode::CONFLICT,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { http, status, text: None }
    }

    /// The code of the answer.
    pub const fn http(&self) -> StatusCode {
        self.http
    }

    /// The header that goes with the code.
    pub fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match self.http {
            StatusCode::TOO_MANY_REQUESTS => (RETRY_AFTER, RETRY_SECONDS),
            StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, "Bearer"),
            StatusCode::METHOD_NOT_ALLOWED => (ALLOW, "GET, HEAD"),
            _ => return None,
        };
        Some((name, HeaderValue::from_static(value)))
    }

    /// What is wrong, for people.
    pub fn message(&self) -> &str {
        self.status.message()
    }

    /// The reason of the error, as its `google.rpc.ErrorInfo` has it; empty if it has none.
    pub fn reason(&self) -> String {
        self.status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
    }

    fn new(http: StatusCode, fault: PageFault, path: &str, message: &str) -> Self {
        Self { http, status: page_error(fault, path, message), text: None }
    }

    /// The answer to a request with these headers.
    pub fn answer(self, request: &HeaderMap) -> Response {
        let header = self.header();
        let Self { http, status, text } = self;
        // Of what has no JSON, the message is left.
        let json = wants_json(request).then(|| error_to_json(&status).ok()).flatten();
        let mut answer = match json {
            Some(json) => (http, Json(json)).into_response(),
            None => (http, text.unwrap_or_else(|| format!("{}\n", status.message()))).into_response(),
        };
        if let Some((name, value)) = header {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

/// Whether errors are told in JSON: of JSON and text, `accept` names JSON, or JSON first. What names neither, such as `*/*`,
/// is content with text, as people at a terminal are.
pub fn wants_json(request: &HeaderMap) -> bool {
    let values = request.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let named = values.flat_map(|value| value.split(',')).find_map(|range| {
        let range = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match range.split_once('/') {
            Some(("application", "json" | "*")) => Some(true),
            Some(("text", _)) => Some(false),
            _ => None,
        }
    });
    named.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_those_who_name_it_before_text() {
        let wants = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT, value.parse().unwrap());
            }
            wants_json(&headers)
        };
        for json in [
            &["application/json"] as &[&str],
            &["Application/JSON; charset=utf-8"],
            &["application/*"],
            &["application/json, text/plain, */*"],
            &["*/*, application/json"],
            &["image/png", "application/json;q=0.5"],
        ] {
            assert!(wants(json), "{json:?}");
        }
        for text in [
            &[] as &[&str],
            &["*/*"],
            &[""],
            &["text/html, application/xhtml+xml, application/json;q=0.9, */*;q=0.8"],
            &["text/plain", "application/json"],
            &["application/jsonl"],
            &["json"],
        ] {
            assert!(!wants(text), "{text:?}");
        }
    }
}
