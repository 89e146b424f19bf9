//! Answers in the words of a case, and the comparison of what was expected with what came.

use serde_json::{Map, Value, json};
use tollgate::{domain::Timestamp, rpc::proto};

use super::{
    expect::sort,
    units::{Instant, Millis, Usd},
};

/// Dollars of an optional `google.type.Money`.
macro_rules! usd {
    ($money:expr) => {
        $money.as_ref().map_or_else(
            || "none".to_owned(),
            |money| Usd::of_nanos(i128::from(money.units) * 1_000_000_000 + i128::from(money.nanos)),
        )
    };
}

/// A reservation in a case's words: the name that a step gave it, `new`, or `none`.
pub(crate) type NameOf<'a> = &'a dyn Fn(&str) -> String;

pub(crate) fn of_authorize(
    answer: &proto::AuthorizeResponse,
    start: Timestamp,
    name_of: NameOf<'_>,
) -> Result<Value, String> {
    let (reasons, violations) = refused(&answer.violations)?;
    let (shadow_reasons, shadow_violations) = refused(&answer.shadow_violations)?;
    let mut limits = Map::new();
    for limit in &answer.limits {
        let shown = json!({
            "scope": limit.scope().as_str_name().trim_start_matches("SCOPE_"),
            "quantity": limit.quantity().as_str_name().trim_start_matches("QUANTITY_"),
            "limit": limit.limit,
            "used": limit.used,
            "remaining": limit.remaining,
            "reset_delay": delay(limit.reset_delay.as_ref(), "none")?,
        });
        limits.insert(limit.limit_id.clone(), shown);
    }
    let allowed = answer.decision() == proto::Decision::Allowed;
    let mut shown = json!({
        "decision": answer.decision().as_str_name().trim_start_matches("DECISION_").to_lowercase(),
        "reasons": reasons,
        "violations": violations,
        "shadow_reasons": shadow_reasons,
        "shadow_violations": shadow_violations,
        "retry_delay": delay(answer.retry_delay.as_ref(), if allowed { "none" } else { "never" })?,
        "max_output_tokens": answer.max_output_tokens,
        "reserved_cost_usd": usd!(answer.reserved_cost),
        "limits": limits,
        "warnings_contain": answer.warnings,
        "warning_count": answer.warnings.len(),
        "reservation": name_of(&answer.reservation_id),
        "expire_time": instant(answer.expire_time.as_ref(), start)?,
        "degraded": answer.degraded,
        "project": answer.project,
    });
    sort(shown.get_mut("reasons"));
    sort(shown.get_mut("shadow_reasons"));
    Ok(shown)
}

/// The reasons of violations, and what each says, by its limit.
fn refused(violations: &[proto::Violation]) -> Result<(Vec<Value>, Map<String, Value>), String> {
    let (mut reasons, mut by_limit) = (Vec::new(), Map::new());
    for violation in violations {
        let reason = violation.reason().as_str_name().trim_start_matches("REASON_");
        reasons.push(Value::from(reason));
        let shown = json!({
            "reason": reason,
            "scope": violation.scope().as_str_name().trim_start_matches("SCOPE_"),
            "quantity": violation.quantity().as_str_name().trim_start_matches("QUANTITY_"),
            "limit": violation.limit,
            "used": violation.used,
            "requested": violation.requested,
            "retry_delay": delay(violation.retry_delay.as_ref(), "never")?,
            "retryable": violation.retryable,
            "message_contains": [violation.message],
            "project": violation.project,
        });
        by_limit.insert(violation.limit_id.clone(), shown);
    }
    Ok((reasons, by_limit))
}

pub(crate) fn of_record(answer: &proto::RecordUsageResponse, name_of: NameOf<'_>) -> Value {
    let mut alerts_by_limit = Map::new();
    for alert in &answer.alerts {
        let thresholds = alerts_by_limit.entry(alert.limit_id.clone()).or_insert_with(|| json!([]));
        if let Value::Array(thresholds) = thresholds {
            thresholds.push(Value::from(alert.threshold.clone()));
        }
    }
    alerts_by_limit.values_mut().for_each(|thresholds| sort(Some(thresholds)));
    let mut shown = json!({
        "cost_usd": usd!(answer.cost),
        "already_recorded": answer.already_recorded,
        "alerts": answer.alerts.iter().map(|alert| alert.threshold.clone()).collect::<Vec<_>>(),
        "alerts_by_limit": alerts_by_limit,
        "team_spend": answer.team_spend.as_ref().map(spent),
        "organization_spend": answer.organization_spend.as_ref().map(spent),
        "reservation": name_of(&answer.reservation_id),
        "warnings_contain": answer.warnings,
        "warning_count": answer.warnings.len(),
    });
    sort(shown.get_mut("alerts"));
    shown
}

pub(crate) fn of_spend(answer: &proto::GetSpendResponse) -> Value {
    let by_name =
        |teams: &[proto::SpendReport]| teams.iter().map(|team| (team.name.clone(), report(team))).collect();
    json!({
        "month": answer.month,
        "organization": answer.organization.as_ref().map(report),
        "has_organization": answer.organization.is_some(),
        "teams": answer.teams.iter().map(|team| team.name.clone()).collect::<Vec<_>>(),
        "team": Value::Object(by_name(&answer.teams)),
        "has_next_page": !answer.next_page_token.is_empty(),
    })
}

fn report(report: &proto::SpendReport) -> Value {
    let mut shown = report.spend.as_ref().map_or_else(|| json!({}), spent);
    let names = |lines: &[proto::SpendLine]| lines.iter().map(|line| line.name.clone()).collect::<Vec<_>>();
    let rest = json!({
        "name": report.name,
        "requests": report.requests,
        "tokens": report.tokens,
        "unsettled_requests": report.unsettled_requests,
        "models": names(&report.by_model),
        "keys": names(&report.by_key),
        "days": names(&report.by_day),
        "by_model": lines(&report.by_model),
        "by_key": lines(&report.by_key),
        "by_day": lines(&report.by_day),
    });
    if let (Value::Object(shown), Value::Object(rest)) = (&mut shown, rest) {
        shown.extend(rest);
    }
    shown
}

fn lines(lines: &[proto::SpendLine]) -> Value {
    let shown = |line: &proto::SpendLine| json!({ "spent": usd!(line.spent), "requests": line.requests, "tokens": line.tokens });
    Value::Object(lines.iter().map(|line| (line.name.clone(), shown(line))).collect())
}

fn spent(spend: &proto::Spend) -> Value {
    json!({
        "budget": usd!(spend.budget),
        "spent": usd!(spend.spent),
        "reserved": usd!(spend.reserved),
        "remaining": usd!(spend.remaining),
    })
}

fn delay(duration: Option<&prost_types::Duration>, unset: &str) -> Result<String, String> {
    duration.map_or_else(|| Ok(unset.to_owned()), |duration| Millis::of(duration).map(|ms| ms.to_string()))
}

fn instant(timestamp: Option<&prost_types::Timestamp>, start: Timestamp) -> Result<String, String> {
    let Some(timestamp) = timestamp else { return Ok("none".to_owned()) };
    let since_epoch = prost_types::Duration { seconds: timestamp.seconds, nanos: timestamp.nanos };
    let start = i64::try_from(start.0).map_err(|e| e.to_string())?;
    Millis::of(&since_epoch).map(|ms| Instant::since_start(ms.0 - start))
}

/// Every difference between what is expected and what came, one sentence each. Only what is expected is compared.
pub(crate) fn differences(expected: &Value, came: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", expected, came, &mut found);
    found
}

fn compare(place: &str, expected: &Value, came: &Value, found: &mut Vec<String>) {
    let Value::Object(fields) = expected else {
        if expected != came {
            found.push(format!("{place}: expected {}, came {}", words(expected), words(came)));
        }
        return;
    };
    for (key, expected) in fields {
        let place = if place.is_empty() { key.clone() } else { format!("{place} › {key}") };
        let came = came.get(key).unwrap_or(&Value::Null);
        if key.ends_with("contain") || key.ends_with("contains") {
            compare_parts(&place, expected, came, found);
        } else {
            compare(&place, expected, came, found);
        }
    }
}

/// Each expected part must be within one of the texts that came.
fn compare_parts(place: &str, expected: &Value, came: &Value, found: &mut Vec<String>) {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let came_texts = texts(came);
    for part in texts(expected) {
        if !came_texts.iter().any(|text| text.contains(&part)) {
            found.push(format!("{place}: expected a text with `{part}`, came {}", words(came)));
        }
    }
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => format!("`{text}`"),
        Value::Array(entries) if entries.is_empty() => "an empty list".to_owned(),
        Value::Array(entries) => format!("[{}]", entries.iter().map(words).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

#[test]
fn only_what_is_expected_is_compared_and_every_difference_is_named() {
    let came = json!({ "decision": "denied", "retry_delay": "60s", "warnings_contain": ["the budget of x is short"],
        "violations": { "teams.x.requests_per_minute": { "used": 60, "limit": 60 } } });
    assert!(differences(&json!({ "decision": "denied", "warnings_contain": ["of x"] }), &came).is_empty());
    let expected = json!({ "retry_delay": "61s", "warnings_contain": ["of y"],
        "violations": { "teams.x.requests_per_minute": { "used": 59 }, "teams.x.max_in_flight": { "used": 1 } } });
    assert_eq!(
        differences(&expected, &came),
        [
            "retry_delay: expected `61s`, came `60s`",
            "violations › teams.x.max_in_flight › used: expected 1, came nothing",
            "violations › teams.x.requests_per_minute › used: expected 59, came 60",
            "warnings_contain: expected a text with `of y`, came [`the budget of x is short`]",
        ]
    );
}
