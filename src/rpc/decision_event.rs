//! `DecisionEvent`: a decision as those who watch see it.

use std::time::Duration;

use super::{
    answer, convert,
    proto::{self, Operation, Quantity, Reason, Scope, ServiceTier},
};
use crate::authorizer::{BatchFacts, Facts, FeedEvent, RefusalLine};

/// The event. What only a later release knows, such as a reason, is unspecified.
pub(super) fn shown(event: &FeedEvent) -> proto::DecisionEvent {
    let decision = &event.decision;
    let head = &decision.head;
    proto::DecisionEvent {
        id: event.id.to_string(),
        time: Some(prost_types::Timestamp {
            seconds: head.time.as_second(),
            nanos: head.time.subsec_nanosecond(),
        }),
        replica: head.replica.clone(),
        team: head.team.clone(),
        key: head.key.clone(),
        model: head.model.clone(),
        operation: operation(&head.operation),
        decision: convert::decision_of(&decision.decision).into(),
        violations: decision.violations.iter().map(violation).collect(),
        shadow_violations: decision.shadow_violations.iter().map(violation).collect(),
        reservation_id: decision.reservation_id.clone().unwrap_or_default(),
        reserved_cost: decision.reserved_nano_usd.map(answer::money),
        policy_revision: head.policy_revision.clone(),
        degraded: decision.degraded,
        wait_duration: decision.wait_duration_seconds.map(duration),
        labels: decision.labels.clone().into_iter().collect(),
        trace_id: head.trace_id.clone().unwrap_or_default(),
        request: decision.request.as_ref().map(request),
    }
}

fn violation(refusal: &RefusalLine) -> proto::Violation {
    let amount = |amount: Option<u64>| answer::int(amount.unwrap_or_default());
    let reason = Reason::from_str_name(&convert::full("REASON_", &refusal.reason));
    let scope = refusal.scope.as_ref().and_then(|name| Scope::from_str_name(&convert::full("SCOPE_", name)));
    let quantity = refusal.quantity.as_ref();
    let quantity = quantity.and_then(|name| Quantity::from_str_name(&convert::full("QUANTITY_", name)));
    proto::Violation {
        reason: reason.unwrap_or_default().into(),
        scope: scope.unwrap_or_default().into(),
        limit_id: refusal.limit_id.clone(),
        quantity: quantity.unwrap_or_default().into(),
        limit: amount(refusal.limit),
        used: amount(refusal.used),
        requested: amount(refusal.requested),
        retry_delay: refusal.retry_delay_seconds.map(duration),
        retryable: refusal.retryable,
        message: refusal.message.clone(),
        project: refusal.project.clone(),
    }
}

fn request(facts: &Facts) -> proto::RequestFacts {
    let tier = ServiceTier::from_str_name(&convert::full("SERVICE_TIER_", &facts.service_tier));
    proto::RequestFacts {
        user: facts.user.clone(),
        service_tier: tier.unwrap_or_default().into(),
        input_tokens: answer::int(facts.input_tokens),
        max_output_tokens: answer::int(facts.max_output_tokens),
        audio_duration: facts.audio_duration_seconds.map(duration),
        character_count: answer::int(facts.character_count),
        batch: facts.batch.as_ref().map(batch),
        tools: facts.tools.clone(),
    }
}

fn batch(facts: &BatchFacts) -> proto::Batch {
    proto::Batch {
        line_operation: operation(&facts.line_operation),
        request_count: answer::int(facts.request_count),
        completion_window: Some(duration(facts.completion_window_seconds)),
    }
}

fn operation(name: &str) -> i32 {
    Operation::from_str_name(&convert::full("OPERATION_", name)).unwrap_or_default().into()
}

/// What is no length of time is none: the writer has only whole milliseconds.
fn duration(seconds: f64) -> prost_types::Duration {
    let time = Duration::try_from_secs_f64(seconds).unwrap_or_default() + Duration::from_micros(500);
    answer::duration(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// An event with these, and a violation for each of `reasons`.
    pub(in crate::rpc) fn event(team: &str, key: &str, model: &str, reasons: &[&str]) -> FeedEvent {
        let violation = |reason: &&str| json!({ "reason": reason, "retryable": false });
        let violations: Vec<_> = reasons.iter().map(violation).collect();
        let decision = json!({
            "v": 1, "id": "1", "time": "2026-11-24T10:00:00.123Z", "organization": "acme", "team": team, "key": key,
            "model": model, "policy_revision": "r/0", "decision": if reasons.is_empty() { "allowed" } else { "denied" },
            "violations": violations, "degraded": false,
        });
        of(decision)
    }

    fn of(decision: serde_json::Value) -> FeedEvent {
        let id = "01a207d921000000000000000001".parse().unwrap();
        FeedEvent { id, skipped: Default::default(), decision: serde_json::from_value(decision).unwrap() }
    }

    #[test]
    fn an_event_is_shown_in_the_terms_of_the_contract() {
        let event = of(json!({
            "v": 1, "id": "1", "time": "2026-11-24T10:00:00.123Z", "replica": "gate-1:42", "organization": "acme", "team": "bot",
            "key": "bot-key", "model": "m/a", "operation": "chat_completion", "policy_revision": "r/0", "trace_id": "0a",
            "decision": "denied", "degraded": false, "wait_duration_seconds": 0.25, "labels": { "a": "b" },
            "violations": [
                { "reason": "token_rate_exceeded", "scope": "team", "limit_id": "teams.bot.tokens_per_minute", "quantity": "tokens",
                  "limit": 10, "used": 9, "requested": 3, "retryable": true, "retry_delay_seconds": 1.5, "message": "too many" },
                { "reason": "of_later", "retryable": false },
            ],
            "request": {
                "request_id": "r-1", "user": "u-1", "service_tier": "flex", "input_tokens": 3, "max_output_tokens": 4,
                "audio_duration_seconds": 61.5,
                "batch": { "line_operation": "chat_completion", "request_count": 2, "completion_window_seconds": 86400.0 },
                "tools": ["browser_search"],
            },
        }));
        let shown = shown(&event);
        assert_eq!(
            (shown.id.as_str(), shown.time.unwrap().nanos),
            ("01a207d921000000000000000001", 123_000_000)
        );
        assert_eq!(
            (shown.operation(), shown.decision()),
            (Operation::ChatCompletion, proto::Decision::Denied)
        );
        let [rate, later] = shown.violations.as_slice() else { panic!("{shown:?}") };
        assert_eq!(
            (rate.reason(), rate.scope(), rate.quantity()),
            (Reason::TokenRateExceeded, Scope::Team, Quantity::Tokens)
        );
        assert_eq!((rate.limit, rate.used, rate.requested, rate.message.as_str()), (10, 9, 3, "too many"));
        assert_eq!(rate.retry_delay, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
        assert_eq!((later.reason(), later.retryable, later.retry_delay), (Reason::Unspecified, false, None));
        assert_eq!(shown.wait_duration, Some(prost_types::Duration { seconds: 0, nanos: 250_000_000 }));
        assert_eq!((shown.reserved_cost, shown.reservation_id.as_str()), (None, ""));
        let request = shown.request.unwrap();
        assert_eq!((request.user.as_str(), request.service_tier()), ("u-1", ServiceTier::Flex));
        assert_eq!(request.audio_duration, Some(prost_types::Duration { seconds: 61, nanos: 500_000_000 }));
        assert_eq!(request.batch.unwrap().completion_window.unwrap().seconds, 86_400);
        assert_eq!(request.tools, ["browser_search"]);
    }
}
