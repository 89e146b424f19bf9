//! Keys, pauses and cooldowns as events of the audit log show them: money as text in dollars, instants as in RFC 3339, lengths of
//! time in seconds, and no hash of a secret.

use serde_json::{Map, Value, json};

use crate::{
    domain::{Timestamp, actor::Actor, key::KeyRecord, money::NanoUsd, pause::Pause},
    store::Cooldown,
};

/// What ends the names of instants in a stored key.
const AT: &str = "_at";
/// What ends the names of its amounts of money.
const BUDGET: &str = "_budget";

/// A key.
pub(super) fn key(record: &KeyRecord) -> Value {
    shown(serde_json::to_value(record).unwrap_or_default())
}

/// A stored form as it is shown.
fn shown(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, _)| name != "hash")
            .map(|(name, value)| field(name, value))
            .collect(),
        Value::Array(values) => values.into_iter().map(shown).collect(),
        other => other,
    }
}

fn field(name: String, value: Value) -> (String, Value) {
    match (name.as_str(), value.as_u64()) {
        ("created_at", Some(ms)) => ("create_time".to_owned(), instant(Timestamp(ms))),
        ("expires_at" | "ends_at", Some(ms)) => ("expire_time".to_owned(), instant(Timestamp(ms))),
        ("revoked_at", Some(ms)) => ("revoke_time".to_owned(), instant(Timestamp(ms))),
        (at, Some(ms)) if at.ends_with(AT) => (at.replace(AT, "_time"), instant(Timestamp(ms))),
        (budget, Some(nanos)) if budget.ends_with(BUDGET) => {
            (name, NanoUsd::new(nanos).map_or(value, |amount| Value::String(amount.to_string())))
        }
        // Its names are the user's.
        ("labels", _) => (name, value),
        _ => (name, shown(value)),
    }
}

/// A pause.
pub(super) fn pause(pause: &Pause) -> Value {
    json!({ "paused": true, "reason": pause.reason, "actor": actor(&pause.by), "create_time": instant(pause.since) })
}

fn actor(actor: &Actor) -> Value {
    serde_json::to_value(actor).unwrap_or_default()
}

/// A cooldown of the service tier of this name.
pub(super) fn cooldown(service_tier: &str, cooldown: &Cooldown) -> Value {
    let Cooldown { start, end, requested_ms, reporter, .. } = cooldown;
    json!({
        "service_tier": service_tier,
        "start_time": instant(*start),
        "end_time": instant(*end),
        "reporter_team": reporter,
        "requested_delay": length(*requested_ms),
    })
}

fn instant(at: Timestamp) -> Value {
    let instant = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    // No instant of a calendar: never.
    instant.map_or(Value::Null, |instant| Value::String(instant.to_string()))
}

/// As protobuf writes durations in JSON: `30s`, `0.250s`.
fn length(ms: u64) -> String {
    match (ms / 1000, ms % 1000) {
        (seconds, 0) => format!("{seconds}s"),
        (seconds, rest) => format!("{seconds}.{rest:03}s"),
    }
}

/// As a protobuf `Struct` with the fields of `value`; `None` if it is no object.
pub(super) fn to_struct(value: Value) -> Option<prost_types::Struct> {
    let Value::Object(fields) = value else { return None };
    Some(of_fields(fields))
}

fn of_fields(fields: Map<String, Value>) -> prost_types::Struct {
    prost_types::Struct { fields: fields.into_iter().map(|(name, value)| (name, of_value(value))).collect() }
}

fn of_value(value: Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(is_true) => Kind::BoolValue(is_true),
        Value::Number(number) => number.as_f64().map_or(Kind::NullValue(0), Kind::NumberValue),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => {
            Kind::ListValue(prost_types::ListValue { values: values.into_iter().map(of_value).collect() })
        }
        Value::Object(fields) => Kind::StructValue(of_fields(fields)),
    };
    prost_types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_without_hashes_and_in_units_that_people_read() {
        let stored = json!({
            "name": "bot-prod-web", "team": "bot", "labels": { "made_at": "7", "hash": "mine" },
            "limits": { "requests_per_minute": 5, "monthly_budget": 7_250_000_000_u64 },
            "created_at": 1_795_428_000_000_u64, "expires_at": 1_795_429_000_500_u64,
            "secrets": [{ "id": "00000000000000ff", "hash": "abc", "created_at": 1_795_428_000_000_u64, "ends_at": 0 }],
        });
        let expected = json!({
            "name": "bot-prod-web", "team": "bot", "labels": { "made_at": "7", "hash": "mine" },
            "limits": { "requests_per_minute": 5, "monthly_budget": "7.25" },
            "create_time": "2026-11-23T10:00:00Z", "expire_time": "2026-11-23T10:16:40.5Z",
            "secrets": [{
                "id": "00000000000000ff", "create_time": "2026-11-23T10:00:00Z", "expire_time": "1970-01-01T00:00:00Z",
            }],
        });
        assert_eq!(shown(stored), expected);
        assert_eq!((length(30_000), length(250), length(0)), ("30s".into(), "0.250s".into(), "0s".into()));
    }

    #[test]
    fn only_an_object_becomes_a_struct() {
        assert_eq!((to_struct(Value::Null), to_struct(json!([1]))), (None, None));
        let converted = to_struct(json!({ "a": [null, true, 2, "x", {}] })).unwrap();
        let Some(prost_types::value::Kind::ListValue(list)) = &converted.fields["a"].kind else {
            panic!("no list")
        };
        assert_eq!(list.values.len(), 5);
        assert_eq!(list.values[2].kind, Some(prost_types::value::Kind::NumberValue(2.0)));
    }
}
