//! The answer: each descriptor's tightest limit and, where one is passed, what the client gets in place of Groq's answer.

use bytes::Bytes;

use super::super::{
    answer::duration,
    envoy::{
        config::core::v3::HeaderValue,
        service::ratelimit::v3::{
            RateLimitResponse,
            rate_limit_response::{Code, DescriptorStatus, RateLimit, rate_limit::Unit},
        },
    },
};
use crate::{
    authorizer::CountOutcome,
    domain::{
        decision::Reason,
        eligibility::refusal,
        limit::{Span, Window},
        limit_status::LimitStatus,
    },
    groq::error::ApiError,
};

/// What became of all counts.
pub(super) fn answer(outcomes: &[CountOutcome]) -> RateLimitResponse {
    let violations: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.violations).cloned().collect();
    let statuses = outcomes.iter().map(status).collect();
    if violations.is_empty() {
        return RateLimitResponse {
            overall_code: Code::Ok.into(),
            statuses,
            response_headers_to_add: Vec::new(),
            raw_body: Vec::new(),
        };
    }
    over(&ApiError::denied(&violations), statuses)
}

/// The gateway's credential is bound to other teams. An answer, not an error: after an error the filter may let the request pass.
pub(super) fn other_team(descriptors: usize) -> RateLimitResponse {
    let message = "this gateway may not serve the team that asks".to_owned();
    let error = ApiError::denied(&[refusal(Reason::OperationNotAllowed, "", message)]);
    over(&error, vec![of(Code::OverLimit, None); descriptors])
}

fn over(error: &ApiError, statuses: Vec<DescriptorStatus>) -> RateLimitResponse {
    let header = |(name, value): (&'static str, String)| HeaderValue {
        key: name.into(),
        value: value.into(),
        raw_value: Bytes::new(),
    };
    RateLimitResponse {
        overall_code: Code::OverLimit.into(),
        statuses,
        response_headers_to_add: error.headers().into_iter().map(header).collect(),
        raw_body: error.body().into_bytes(),
    }
}

fn status(outcome: &CountOutcome) -> DescriptorStatus {
    let code = if outcome.violations.is_empty() { Code::Ok } else { Code::OverLimit };
    of(code, outcome.limits.tightest().next())
}

fn of(code: Code, limit: Option<LimitStatus<'_>>) -> DescriptorStatus {
    DescriptorStatus {
        code: code.into(),
        limit_remaining: limit.map_or(0, |limit| fitting(limit.remaining())),
        duration_until_reset: limit.map(|limit| duration(limit.reset_ms)),
        current_limit: limit.map(|limit| RateLimit {
            requests_per_unit: fitting(limit.bound),
            unit: unit(limit.limit.window).into(),
            name: limit.limit.id.to_string(),
        }),
    }
}

/// Envoy's type is smaller than ours.
fn fitting(amount: u64) -> u32 {
    u32::try_from(amount).unwrap_or(u32::MAX)
}

const fn unit(window: Window) -> Unit {
    match window {
        Window::Sliding(Span::Minute) => Unit::Minute,
        Window::Sliding(Span::Hour) => Unit::Hour,
        Window::Sliding(Span::Day) => Unit::Day,
        _ => Unit::Unknown,
    }
}
