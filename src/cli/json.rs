//! Answers as JSON: proto3's own mapping, as grpcurl prints it with `-emit-defaults`.
//!
//! Names in lowerCamelCase, enums by name, 64-bit integers as strings, durations as `"1.5s"`, instants in RFC 3339. Every
//! number, text and list is present even when empty, so a filter never misses one; an unset message is left out.

use serde_json::{Map, Value, json};

use super::text;
use crate::rpc::{
    google_type::Money,
    proto::{self, pause_target::Target},
};

/// Removes what is not set.
fn set(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().filter(|(_, v)| !v.is_null()).collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn int(value: i64) -> Value {
    Value::from(value.to_string())
}

fn money(money: Option<&Money>) -> Option<Value> {
    money.map(|m| json!({ "currencyCode": m.currency_code, "units": int(m.units), "nanos": m.nanos }))
}

/// Seconds with no decimal places, three, six or nine.
fn duration(duration: Option<&prost_types::Duration>) -> Option<Value> {
    duration.map(|d| {
        let sign = if d.seconds < 0 || d.nanos < 0 { "-" } else { "" };
        let (seconds, nanos) = (d.seconds.unsigned_abs(), d.nanos.unsigned_abs());
        Value::from(match nanos {
            0 => format!("{sign}{seconds}s"),
            n if n.is_multiple_of(1_000_000) => format!("{sign}{seconds}.{:03}s", n / 1_000_000),
            n if n.is_multiple_of(1_000) => format!("{sign}{seconds}.{:06}s", n / 1_000),
            n => format!("{sign}{seconds}.{n:09}s"),
        })
    })
}

fn list<T>(items: &[T], one: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(one).collect())
}

/// `AuthorizeResponse`.
pub(super) fn authorize(response: &proto::AuthorizeResponse) -> Value {
    set(json!({
        "decision": response.decision().as_str_name(),
        "reservationId": response.reservation_id,
        "expireTime": response.expire_time.as_ref().map(text::instant),
        "maxOutputTokens": int(response.max_output_tokens),
        "reservedCost": money(response.reserved_cost.as_ref()),
        "violations": list(&response.violations, violation),
        "retryDelay": duration(response.retry_delay.as_ref()),
        "limits": list(&response.limits, limit),
        "warnings": response.warnings,
        "policyRevision": response.policy_revision,
        "degraded": response.degraded,
        "upstreamKey": response.upstream_key,
        "project": response.project,
    }))
}

fn cooldown(cooldown: &proto::Cooldown) -> Value {
    set(json!({
        "project": cooldown.project,
        "model": cooldown.model,
        "serviceTier": cooldown.service_tier().as_str_name(),
        "startTime": cooldown.start_time.as_ref().map(text::instant),
        "endTime": cooldown.end_time.as_ref().map(text::instant),
        "reporterTeam": cooldown.reporter_team,
        "requestedDelay": duration(cooldown.requested_delay.as_ref()),
    }))
}

/// `ListCooldownsResponse`, all pages as one.
pub(super) fn cooldowns(cooldowns: &[proto::Cooldown]) -> Value {
    json!({ "cooldowns": list(cooldowns, cooldown), "nextPageToken": "" })
}

/// `LiftCooldownResponse`.
pub(super) fn lifted(response: &proto::LiftCooldownResponse) -> Value {
    json!({ "endedCooldowns": list(&response.ended_cooldowns, cooldown) })
}

/// `ListUpstreamKeysResponse`.
pub(super) fn upstream(keys: &[proto::UpstreamKey]) -> Value {
    let key = |key: &proto::UpstreamKey| {
        set(json!({
            "name": key.name,
            "project": key.project,
            "place": key.place,
            "state": key.state().as_str_name(),
            "createTime": key.create_time.as_ref().map(text::instant),
            "lastUseTime": key.last_use_time.as_ref().map(text::instant),
            "refuseTime": key.refuse_time.as_ref().map(text::instant),
            "requestCount": int(key.request_count),
        }))
    };
    json!({ "upstreamKeys": list(keys, key) })
}

fn pause(pause: &proto::Pause) -> Value {
    let actor = pause.actor.as_ref();
    let target = pause.target.as_ref().and_then(|target| target.target.as_ref());
    set(json!({
        "target": target.map(|target| match target {
            Target::Organization(all) => json!({ "organization": all }),
            Target::Team(name) => json!({ "team": name }),
            Target::Key(name) => json!({ "key": name }),
            Target::Model(name) => json!({ "model": name }),
        }),
        "reason": pause.reason,
        "actor": actor.map(|a| json!({ "kind": a.kind, "name": a.name, "address": a.address })),
        "createTime": pause.create_time.as_ref().map(text::instant),
    }))
}

/// `PauseResponse`.
pub(super) fn paused(response: &proto::PauseResponse) -> Value {
    set(json!({
        "pause": response.pause.as_ref().map(pause),
        "replacedPause": response.replaced_pause.as_ref().map(pause),
    }))
}

/// `ResumeResponse`.
pub(super) fn resumed(response: &proto::ResumeResponse) -> Value {
    set(json!({ "endedPause": response.ended_pause.as_ref().map(pause) }))
}

/// `ListPausesResponse`.
pub(super) fn pauses(pauses: &[proto::Pause]) -> Value {
    json!({ "pauses": list(pauses, pause) })
}

/// `ListAuditEventsResponse`.
pub(super) fn audit(events: &[proto::AuditEvent]) -> Value {
    let event = |event: &proto::AuditEvent| {
        let actor = event.actor.as_ref();
        set(json!({
            "id": event.id,
            "time": event.time.as_ref().map(text::instant),
            "actor": actor.map(|a| json!({ "kind": a.kind, "name": a.name, "address": a.address })),
            "action": event.action,
            "subject": event.subject,
            "before": event.before.as_ref().map(fields),
            "after": event.after.as_ref().map(fields),
            "outcome": event.outcome,
            "replica": event.replica,
            "organization": event.organization,
        }))
    };
    json!({ "events": list(events, event) })
}

/// A `Struct`.
pub(super) fn fields(fields: &prost_types::Struct) -> Value {
    fields.fields.iter().map(|(name, value)| (name.clone(), value_of(value))).collect()
}

fn value_of(value: &prost_types::Value) -> Value {
    use prost_types::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(is_true)) => (*is_true).into(),
        // Whole ones as such: `5`, not `5.0`.
        Some(Kind::NumberValue(number)) => {
            let whole = format!("{number}").parse::<i64>();
            whole.map_or_else(|_| (*number).into(), Value::from)
        }
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(value_of).collect(),
        Some(Kind::StructValue(inner)) => fields(inner),
    }
}

fn violation(violation: &proto::Violation) -> Value {
    set(json!({
        "reason": violation.reason().as_str_name(),
        "scope": violation.scope().as_str_name(),
        "limitId": violation.limit_id,
        "quantity": violation.quantity().as_str_name(),
        "limit": int(violation.limit),
        "used": int(violation.used),
        "requested": int(violation.requested),
        "retryDelay": duration(violation.retry_delay.as_ref()),
        "retryable": violation.retryable,
        "message": violation.message,
        "project": violation.project,
    }))
}

fn limit(limit: &proto::LimitStatus) -> Value {
    set(json!({
        "limitId": limit.limit_id,
        "scope": limit.scope().as_str_name(),
        "quantity": limit.quantity().as_str_name(),
        "limit": int(limit.limit),
        "used": int(limit.used),
        "remaining": int(limit.remaining),
        "resetDelay": duration(limit.reset_delay.as_ref()),
    }))
}

/// `RecordUsageResponse`.
pub(super) fn record(response: &proto::RecordUsageResponse) -> Value {
    set(json!({
        "cost": money(response.cost.as_ref()),
        "alreadyRecorded": response.already_recorded,
        "teamSpend": response.team_spend.as_ref().map(spend),
        "organizationSpend": response.organization_spend.as_ref().map(spend),
        "alerts": list(&response.alerts, alert),
        "reservationId": response.reservation_id,
        "warnings": response.warnings,
    }))
}

fn spend(spend: &proto::Spend) -> Value {
    set(json!({
        "budget": money(spend.budget.as_ref()),
        "spent": money(spend.spent.as_ref()),
        "reserved": money(spend.reserved.as_ref()),
        "remaining": money(spend.remaining.as_ref()),
    }))
}

fn alert(alert: &proto::Alert) -> Value {
    set(json!({
        "limitId": alert.limit_id,
        "threshold": alert.threshold,
        "amount": money(alert.amount.as_ref()),
        "spent": money(alert.spent.as_ref()),
        "budget": money(alert.budget.as_ref()),
    }))
}

/// `GetSpendResponse`.
pub(super) fn spends(response: &proto::GetSpendResponse) -> Value {
    set(json!({
        "month": response.month,
        "organization": response.organization.as_ref().map(report),
        "teams": list(&response.teams, report),
        "nextPageToken": response.next_page_token,
        "policyRevision": response.policy_revision,
    }))
}

fn report(report: &proto::SpendReport) -> Value {
    set(json!({
        "name": report.name,
        "spend": report.spend.as_ref().map(spend),
        "requests": int(report.requests),
        "tokens": int(report.tokens),
        "unsettledRequests": int(report.unsettled_requests),
        "byModel": list(&report.by_model, line),
        "byKey": list(&report.by_key, line),
        "byDay": list(&report.by_day, line),
    }))
}

fn line(line: &proto::SpendLine) -> Value {
    set(json!({
        "name": line.name,
        "spent": money(line.spent.as_ref()),
        "requests": int(line.requests),
        "tokens": int(line.tokens),
    }))
}

/// `CreateKeyResponse` and `RotateKeyResponse`.
pub(super) fn made_key(of: &proto::Key, secret: &str) -> Value {
    json!({ "key": key(of), "secret": secret })
}

/// `ListKeysResponse`, all pages as one.
pub(super) fn keys(keys: &[proto::Key]) -> Value {
    json!({ "keys": list(keys, key), "nextPageToken": "" })
}

/// `Key`.
pub(super) fn key(key: &proto::Key) -> Value {
    let instant = |at: &Option<prost_types::Timestamp>| at.as_ref().map(text::instant);
    let secret = |secret: &proto::KeySecret| {
        set(json!({
            "secretId": secret.secret_id,
            "live": secret.live,
            "createTime": instant(&secret.create_time),
            "endTime": instant(&secret.end_time),
            "lastUseTime": instant(&secret.last_use_time),
            "requestsToday": int(secret.requests_today),
            "requestsLast24Hours": int(secret.requests_last_24_hours),
        }))
    };
    let limits = |limits: &proto::KeyLimits| {
        set(json!({
            "models": limits.models,
            "operations": limits.operations().map(|of| of.as_str_name()).collect::<Vec<_>>(),
            "requestsPerMinute": limits.requests_per_minute.map(int),
            "tokensPerMinute": limits.tokens_per_minute.map(int),
            "maxOutputTokens": limits.max_output_tokens.map(int),
            "monthlyBudget": money(limits.monthly_budget.as_ref()),
        }))
    };
    let bound = |bound: &proto::KeyBound| {
        json!({
            "limitId": bound.limit_id,
            "quantity": bound.quantity().as_str_name(),
            "limit": int(bound.limit),
            "warnsOnly": bound.warns_only,
        })
    };
    let usage = |usage: &proto::KeyUsage| {
        set(json!({
            "requestsToday": int(usage.requests_today),
            "tokensToday": int(usage.tokens_today),
            "costToday": money(usage.cost_today.as_ref()),
            "costThisMonth": money(usage.cost_this_month.as_ref()),
            "topModel": usage.top_model,
        }))
    };
    set(json!({
        "name": key.name,
        "team": key.team,
        "labels": key.labels,
        "limits": key.limits.as_ref().map(limits),
        "state": key.state().as_str_name(),
        "createTime": instant(&key.create_time),
        "expireTime": instant(&key.expire_time),
        "revokeTime": instant(&key.revoke_time),
        "secrets": list(&key.secrets, secret),
        "usage": key.usage.as_ref().map(usage),
        "etag": key.etag,
        "origin": key.origin().as_str_name(),
        "otherLimits": list(&key.other_limits, bound),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_proto3() {
        for (seconds, nanos, shown) in
            [(1, 500_000_000, "1.500s"), (3, 0, "3s"), (0, 1_000, "0.000001s"), (0, 1, "0.000000001s")]
        {
            assert_eq!(duration(Some(&prost_types::Duration { seconds, nanos })), Some(Value::from(shown)));
        }
    }

    #[test]
    fn numbers_are_strings_and_unset_messages_are_left_out() {
        let response = proto::AuthorizeResponse {
            decision: proto::Decision::Denied.into(),
            max_output_tokens: 9_007_199_254_740_993,
            ..Default::default()
        };
        let value = authorize(&response);
        assert_eq!(value["decision"], "DECISION_DENIED");
        assert_eq!(value["maxOutputTokens"], "9007199254740993");
        assert_eq!(value["degraded"], false);
        assert!(value.get("retryDelay").is_none());
    }
}
