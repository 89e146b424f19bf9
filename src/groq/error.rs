//! Errors in Groq's format. Groq's and OpenAI's SDKs raise the right exception for them, and retry exactly when a retry can
//! help.
//!
//! By default, an SDK retries 408, 409, 429 and 5xx. It waits as long as `retry-after` says if that is at most a minute,
//! and obeys `x-should-retry` before anything else. So:
//!
//! | why | status | `code` | retried |
//! | --- | --- | --- | --- |
//! | no key, or one that is unknown, revoked or expired | 401 | `invalid_api_key` | no |
//! | model, operation or path not permitted | 403 | `permission_denied` | no |
//! | a built-in tool that is not permitted or has no price | 403 | `tool_not_allowed`, `tool_not_priced` | no |
//! | paused | 403 | `paused` | no |
//! | a model without a price, a path that Groq does not have | 404 | `model_not_found`, `unknown_url` | no |
//! | a body that cannot be read, more output than permitted | 400 | `invalid_request_error` and others | no |
//! | larger than what a limit can ever admit | 413 | `request_too_large` | no |
//! | a batch larger than the policy permits | 413 | `batch_too_large` | no |
//! | a body in a compression that cannot be read | 415 | `unsupported_content_encoding` | no |
//! | a budget is exhausted | 402 | `insufficient_quota` | no |
//! | a rate or concurrency limit | 429 | `rate_limit_exceeded` | where it passes within a minute |
//! | too many requests without a report from the gateway | 429 | `too_many_unsettled` | where it passes within a minute |
//! | the store does not answer, and what the team may do without it is used up | 503 | `outage_allowance_exhausted` | where it passes within a minute |
//! | the store does not answer | 503 | `service_unavailable` | yes |
//!
//! A budget gives 402 and not OpenAI's 429: whole frameworks take 429 as "wait and try again", and waiting does not bring
//! back money.

use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::{
    decision::{Reason, Retry, Violation},
    explain,
};

/// The longest wait that SDKs accept from `retry-after`, in milliseconds; above it they fall back to a few seconds of their
/// own, which cannot help.
const LONGEST_RETRY_MS: u64 = 60_000;
/// The code where a team has used up what it may do without the store: waiting helps, as with a rate.
const OUTAGE_ALLOWANCE: &str = "outage_allowance_exhausted";
/// The most violations in one answer; few limits refuse a request at the same time.
const MAX_VIOLATIONS: usize = 16;

/// An error answer that replaces Groq's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The error code, for programs.
    pub code: &'static str,
    /// The message, for people.
    pub message: String,
    /// The invalid field; empty: none.
    pub param: &'static str,
    /// When to retry, in milliseconds; `None`: not stated.
    pub retry_after_ms: Option<u64>,
    /// Whether retrying soon can help.
    pub should_retry: bool,
    /// Every limit that refused, as JSON.
    violations: Vec<Value>,
}

impl ApiError {
    /// An error that no retry can fix.
    #[must_use]
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        let violations = Vec::new();
        Self { status, code, message, param: "", retry_after_ms: None, should_retry: false, violations }
    }

    /// A request that cannot be read, or whose `param` is invalid.
    #[must_use]
    pub fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self { param, ..Self::new(400, "invalid_request_error", message) }
    }

    /// A body larger than what can be read.
    #[must_use]
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "request_too_large", message)
    }

    /// A compressed body where only a plain one can be read.
    #[must_use]
    pub fn unsupported_encoding(message: impl Into<String>) -> Self {
        Self::new(415, "unsupported_content_encoding", message)
    }

    /// An unknown caller.
    #[must_use]
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "invalid_api_key", message)
    }

    /// No decision is possible for now.
    #[must_use]
    pub fn unavailable(message: impl Into<String>, retry_after_ms: u64) -> Self {
        let retry_after_ms = Some(retry_after_ms);
        Self { retry_after_ms, should_retry: true, ..Self::new(503, "service_unavailable", message) }
    }

    /// A denial: the text of all violations, with the status of the one that waiting helps least.
    #[must_use]
    pub fn denied(violations: &[Violation]) -> Self {
        let worst = violations.iter().map(class).min_by_key(|class| class.rank).unwrap_or(NOT_DECIDED);
        let message = violations.iter().map(|v| v.message.as_str()).collect::<Vec<_>>().join("; ");
        // Any request that ends frees a slot, but the known time is only when the first reservation expires.
        let only_in_flight = violations.iter().all(|v| v.reason == Reason::TooManyInFlight);
        let retry_after_ms = match explain::retry(violations) {
            Retry::After(ms) if !only_in_flight => Some(ms),
            _ => None,
        };
        let soon = only_in_flight || retry_after_ms.is_some_and(|ms| ms <= LONGEST_RETRY_MS);
        Self {
            status: worst.status,
            code: worst.code,
            message,
            param: worst.param,
            retry_after_ms,
            should_retry: (worst.status == 429 || worst.code == OUTAGE_ALLOWANCE)
                && soon
                && !violations.is_empty(),
            violations: violations.iter().take(MAX_VIOLATIONS).map(violation).collect(),
        }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> String {
        let kind = match self.status {
            400 | 401 | 404 | 413 | 415 => "invalid_request_error",
            402 => "insufficient_quota",
            403 => "permissions_error",
            429 => "rate_limit_error",
            _ => "internal_server_error",
        };
        let mut error = json!({ "message": self.message, "type": kind, "code": self.code });
        if let Value::Object(fields) = &mut error {
            if !self.param.is_empty() {
                fields.insert("param".to_owned(), Value::from(self.param));
            }
            if !self.violations.is_empty() {
                fields.insert("violations".to_owned(), Value::from(self.violations.clone()));
            }
        }
        json!({ "error": error }).to_string()
    }

    /// The headers that accompany the body.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("x-should-retry", self.should_retry.to_string()),
        ];
        // Whole seconds, rounded up: a retry one millisecond early is denied again.
        headers.extend(self.retry_after_ms.map(|ms| ("retry-after", ms.div_ceil(1000).to_string())));
        headers
    }
}

/// How a reason is answered. Of several reasons, the one with the lowest rank decides.
#[derive(Clone, Copy)]
struct Class {
    rank: u8,
    status: u16,
    code: &'static str,
    param: &'static str,
}

const fn answered(rank: u8, status: u16, code: &'static str, param: &'static str) -> Class {
    Class { rank, status, code, param }
}

/// For a denial without violations, which should not exist but must be refused too.
const NOT_DECIDED: Class = answered(u8::MAX, 403, "permission_denied", "");

fn class(violation: &Violation) -> Class {
    match violation.reason {
        Reason::UnknownTeam | Reason::InvalidKey | Reason::KeyRevoked | Reason::KeyExpired => {
            answered(0, 401, "invalid_api_key", "")
        }
        Reason::Paused => answered(1, 403, "paused", ""),
        Reason::OperationNotAllowed => answered(2, 403, "permission_denied", ""),
        Reason::ModelNotAllowed => answered(3, 403, "permission_denied", "model"),
        Reason::ModelNotPriced => answered(4, 404, "model_not_found", "model"),
        Reason::ToolNotAllowed => answered(3, 403, "tool_not_allowed", "tools"),
        Reason::ToolNotPriced => answered(3, 403, "tool_not_priced", "tools"),
        Reason::BatchTooLarge => answered(5, 413, "batch_too_large", ""),
        Reason::MaxOutputTokensExceeded => {
            answered(5, 400, "max_output_tokens_exceeded", "max_completion_tokens")
        }
        Reason::TeamBudgetExhausted | Reason::KeyBudgetExhausted | Reason::OrganizationBudgetExhausted => {
            answered(7, 402, "insufficient_quota", "")
        }
        Reason::RequestRateExceeded
        | Reason::TokenRateExceeded
        | Reason::AudioRateExceeded
        | Reason::TooManyInFlight
        | Reason::UpstreamRateLimited => match violation.retry {
            Retry::Never => answered(6, 413, "request_too_large", ""),
            Retry::After(_) => answered(8, 429, "rate_limit_exceeded", ""),
        },
        // Nothing that the client does frees capacity. The code of a rate limit would tell it to slow down, so this has its
        // own.
        Reason::TooManyUnsettled => answered(8, 429, "too_many_unsettled", ""),
        Reason::OutageAllowanceExhausted => answered(9, 503, OUTAGE_ALLOWANCE, ""),
        Reason::StoreUnavailable => answered(9, 503, "service_unavailable", ""),
    }
}

fn violation(violation: &Violation) -> Value {
    let mut fields = json!({
        "reason": violation.reason.name(),
        "limit_id": violation.limit_id,
        "limit": violation.limit,
        "used": violation.used,
        "requested": violation.requested,
        "retryable": violation.retry != Retry::Never,
    });
    if let (Value::Object(fields), Retry::After(ms)) = (&mut fields, violation.retry) {
        fields.insert("retry_delay_seconds".to_owned(), json!(Duration::from_millis(ms).as_secs_f64()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decision::Measure;

    fn because(reason: Reason, retry: Retry) -> Violation {
        Violation {
            reason,
            scope: None,
            limit_id: "teams.t.x".to_owned(),
            project: String::new(),
            quantity: Measure::None,
            limit: 1,
            used: 1,
            requested: 1,
            retry,
            message: format!("because of {reason:?}"),
        }
    }

    #[test]
    fn each_reason_has_its_status() {
        let soon = Retry::After(1_001);
        for (reason, retry, status, code, should_retry) in [
            (Reason::UnknownTeam, Retry::Never, 401, "invalid_api_key", false),
            (Reason::KeyExpired, Retry::Never, 401, "invalid_api_key", false),
            (Reason::Paused, Retry::Never, 403, "paused", false),
            (Reason::ModelNotAllowed, Retry::Never, 403, "permission_denied", false),
            (Reason::ModelNotPriced, Retry::Never, 404, "model_not_found", false),
            (Reason::ToolNotAllowed, Retry::Never, 403, "tool_not_allowed", false),
            (Reason::ToolNotPriced, Retry::Never, 403, "tool_not_priced", false),
            (Reason::BatchTooLarge, Retry::Never, 413, "batch_too_large", false),
            (Reason::MaxOutputTokensExceeded, Retry::Never, 400, "max_output_tokens_exceeded", false),
            (Reason::RequestRateExceeded, soon, 429, "rate_limit_exceeded", true),
            (Reason::RequestRateExceeded, Retry::After(60_001), 429, "rate_limit_exceeded", false),
            (Reason::TokenRateExceeded, Retry::Never, 413, "request_too_large", false),
            (Reason::TooManyInFlight, Retry::After(606_000), 429, "rate_limit_exceeded", true),
            (Reason::TooManyUnsettled, Retry::After(3_600_000), 429, "too_many_unsettled", false),
            (Reason::OutageAllowanceExhausted, soon, 503, "outage_allowance_exhausted", true),
            (Reason::TeamBudgetExhausted, soon, 402, "insufficient_quota", false),
            (Reason::StoreUnavailable, soon, 503, "service_unavailable", false),
        ] {
            let error = ApiError::denied(&[because(reason, retry)]);
            assert_eq!(
                (error.status, error.code, error.should_retry),
                (status, code, should_retry),
                "{reason:?}"
            );
        }
    }

    #[test]
    fn the_worst_of_several_decides_and_all_are_told() {
        let error = ApiError::denied(&[
            because(Reason::RequestRateExceeded, Retry::After(5)),
            because(Reason::TeamBudgetExhausted, Retry::After(90_000)),
        ]);
        assert_eq!((error.status, error.should_retry, error.retry_after_ms), (402, false, Some(90_000)));
        let body: Value = serde_json::from_str(&error.body()).unwrap();
        assert_eq!(body["error"]["code"], "insufficient_quota");
        assert_eq!(body["error"]["violations"].as_array().unwrap().len(), 2);
        assert_eq!(body["error"]["violations"][0]["reason"], "request_rate_exceeded");
        assert_eq!(body["error"]["violations"][0]["retry_delay_seconds"], json!(0.005));
        assert_eq!(body["error"]["violations"][1]["retry_delay_seconds"], json!(90.0));
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains("RequestRate") && message.contains("TeamBudget"), "{message}");
    }

    #[test]
    fn a_denial_without_a_reason_denies() {
        assert_eq!(ApiError::denied(&[]).status, 403);
    }

    #[test]
    fn seconds_are_rounded_up() {
        let error = ApiError::denied(&[because(Reason::RequestRateExceeded, Retry::After(1_001))]);
        assert!(error.headers().contains(&("retry-after", "2".to_owned())));
        let none = ApiError::denied(&[because(Reason::TooManyInFlight, Retry::After(606_000))]);
        assert!(none.headers().iter().all(|(name, _)| *name != "retry-after"));
    }
}
