//! What a case can expect of an answer, checked when the case is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tollgate::rpc::proto;

use super::{
    case::{Action, typed},
    units::{Delay, Instant, Usd},
};

/// What must come. Of an answer, only what is named.
pub(crate) enum Expect {
    Answer(Value),
    Error { code: String, field: Option<String>, message_contains: Option<String> },
}

impl Expect {
    /// What a step of `action` expects; what its answer cannot have is an error.
    pub(super) fn parse(action: &Action, fields: Map<String, Value>) -> Result<Self, String> {
        if fields.contains_key("error") {
            let error: ExpectError = typed(Value::Object(fields)).map_err(|e| format!("expect: {e}"))?;
            let ExpectError { error: code, error_field: field, error_contains: message_contains } = error;
            return Ok(Self::Error { code, field, message_contains });
        }
        let fields = Value::Object(fields);
        let checked = match action {
            Action::Authorize(_) => typed::<ExpectAuthorize>(fields).and_then(|e| untyped(&e)),
            Action::Record(_) => typed::<ExpectRecord>(fields).and_then(|e| untyped(&e)),
            Action::Spend(_) => typed::<ExpectSpend>(fields).and_then(|e| untyped(&e)),
            Action::Policy(_) if fields.as_object().is_some_and(Map::is_empty) => Ok(fields),
            Action::Policy(_) => Err("a change of the policy has no answer".to_owned()),
        };
        let mut expected = checked.map_err(|e| format!("expect: {e}"))?;
        for key in ["reasons", "shadow_reasons", "alerts"] {
            sort(expected.get_mut(key));
        }
        if let Some(Value::Object(by_limit)) = expected.get_mut("alerts_by_limit") {
            by_limit.values_mut().for_each(|thresholds| sort(Some(thresholds)));
        }
        let reasons =
            ["reasons", "shadow_reasons"].into_iter().filter_map(|key| expected.get(key)?.as_array());
        for reason in reasons.flatten() {
            let name = format!("REASON_{}", reason.as_str().unwrap_or_default());
            proto::Reason::from_str_name(&name).ok_or_else(|| format!("expect: no such reason: {reason}"))?;
        }
        Ok(Self::Answer(expected))
    }
}

/// What can be expected of an answer to `authorize`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ExpectAuthorize {
    decision: Option<ExpectDecision>,
    reasons: Option<Vec<String>>,
    violations: Option<BTreeMap<String, ExpectViolation>>,
    shadow_reasons: Option<Vec<String>>,
    shadow_violations: Option<BTreeMap<String, ExpectViolation>>,
    retry_delay: Option<Delay>,
    max_output_tokens: Option<i64>,
    reserved_cost_usd: Option<Usd>,
    limits: Option<BTreeMap<String, ExpectLimit>>,
    warnings_contain: Option<Vec<String>>,
    warning_count: Option<usize>,
    reservation: Option<String>,
    expire_time: Option<Instant>,
    degraded: Option<bool>,
    project: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum ExpectDecision {
    Allowed,
    Denied,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ExpectViolation {
    reason: Option<String>,
    scope: Option<String>,
    quantity: Option<String>,
    limit: Option<i64>,
    used: Option<i64>,
    requested: Option<i64>,
    retry_delay: Option<Delay>,
    retryable: Option<bool>,
    message_contains: Option<Vec<String>>,
    project: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ExpectLimit {
    scope: Option<String>,
    quantity: Option<String>,
    limit: Option<i64>,
    used: Option<i64>,
    remaining: Option<i64>,
    reset_delay: Option<Delay>,
}

/// What can be expected of an answer to `record`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ExpectRecord {
    cost_usd: Option<Usd>,
    already_recorded: Option<bool>,
    alerts: Option<Vec<String>>,
    alerts_by_limit: Option<BTreeMap<String, Vec<String>>>,
    team_spend: Option<ExpectSpent>,
    organization_spend: Option<ExpectSpent>,
    reservation: Option<String>,
    warnings_contain: Option<Vec<String>>,
    warning_count: Option<usize>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ExpectSpent {
    budget: Option<Usd>,
    spent: Option<Usd>,
    reserved: Option<Usd>,
    remaining: Option<Usd>,
}

/// What can be expected of an answer to `spend`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ExpectSpend {
    month: Option<String>,
    organization: Option<ExpectReport>,
    /// Whether the answer has a part on the organization.
    has_organization: Option<bool>,
    /// The names of the teams on this page, in order.
    teams: Option<Vec<String>>,
    team: Option<BTreeMap<String, ExpectReport>>,
    has_next_page: Option<bool>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ExpectReport {
    name: Option<String>,
    budget: Option<Usd>,
    spent: Option<Usd>,
    reserved: Option<Usd>,
    remaining: Option<Usd>,
    requests: Option<i64>,
    tokens: Option<i64>,
    unsettled_requests: Option<i64>,
    /// Names in the order given.
    models: Option<Vec<String>>,
    keys: Option<Vec<String>>,
    days: Option<Vec<String>>,
    by_model: Option<BTreeMap<String, ExpectLine>>,
    by_key: Option<BTreeMap<String, ExpectLine>>,
    by_day: Option<BTreeMap<String, ExpectLine>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ExpectLine {
    spent: Option<Usd>,
    requests: Option<i64>,
    tokens: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectError {
    error: String,
    error_field: Option<String>,
    error_contains: Option<String>,
}

fn untyped<T: Serialize>(expected: &T) -> Result<Value, String> {
    serde_json::to_value(expected).map(without_nulls).map_err(|e| e.to_string())
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        other => other,
    }
}

/// The order of reasons and of alerts says nothing.
pub(crate) fn sort(list: Option<&mut Value>) {
    if let Some(Value::Array(entries)) = list {
        entries.sort_by_cached_key(ToString::to_string);
    }
}
