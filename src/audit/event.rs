//! The events of the audit log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::actor::Actor;

/// The actions. They are names, so that an older version can read the log of a newer one.
pub mod action {
    /// A new policy took effect.
    pub const POLICY_RELOAD: &str = "policy.reload";
    /// A new policy failed to load.
    pub const POLICY_REJECTED: &str = "policy.rejected";
    /// A caller asked for something that their roles do not permit.
    pub const ROLE_DENIED: &str = "role.denied";
    /// A key was created.
    pub const KEY_CREATE: &str = "key.create";
    /// A key was changed.
    pub const KEY_UPDATE: &str = "key.update";
    /// A key got a new secret.
    pub const KEY_ROTATE: &str = "key.rotate";
    /// A key was revoked.
    pub const KEY_REVOKE: &str = "key.revoke";
    /// One secret of a key was revoked.
    pub const KEY_REVOKE_SECRET: &str = "key.revoke_secret";
    /// A team, a key, a model or the organization was paused.
    pub const PAUSE_CREATE: &str = "pause.create";
    /// A pause was lifted.
    pub const PAUSE_END: &str = "pause.end";
    /// A cooldown after Groq's 429 was lifted.
    pub const COOLDOWN_LIFT: &str = "cooldown.lift";

    /// A test was sent to a receiver of alerts.
    pub const ALERT_TEST: &str = "alert.test";
    /// What drifts was reported.
    pub const ALERT_REPORT_DRIFT: &str = "alert.report_drift";

    /// A person signed in to the console.
    pub const SESSION_BEGIN: &str = "session.begin";
    /// A person signed out of it.
    pub const SESSION_END: &str = "session.end";

    /// All of them.
    pub const ALL: [&str; 15] = [
        POLICY_RELOAD,
        POLICY_REJECTED,
        ROLE_DENIED,
        KEY_CREATE,
        KEY_UPDATE,
        KEY_ROTATE,
        KEY_REVOKE,
        KEY_REVOKE_SECRET,
        PAUSE_CREATE,
        PAUSE_END,
        COOLDOWN_LIFT,
        ALERT_TEST,
        ALERT_REPORT_DRIFT,
        SESSION_BEGIN,
        SESSION_END,
    ];
}

/// What to record; the log adds the time, the id and the place.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Who did it.
    pub actor: Actor,
    /// What was done: one of [`action`].
    pub action: &'static str,
    /// What it was done to.
    pub subject: String,
    /// The state before; `null` if there was none. Small, and without secrets.
    pub before: Value,
    /// The state after.
    pub after: Value,
    /// `done`, or why not.
    pub outcome: &'static str,
}

/// An event as it stands in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The version of the line.
    #[serde(default = "Event::unversioned")]
    pub v: u32,
    /// Unique, and greater than the id of every earlier event: a [`crate::store::AuditId`].
    pub id: String,
    /// When it happened.
    pub time: Timestamp,
    /// Who did it.
    pub actor: Actor,
    /// What was done.
    pub action: String,
    /// What it was done to.
    pub subject: String,
    /// The state before.
    #[serde(default)]
    pub before: Value,
    /// The state after.
    #[serde(default)]
    pub after: Value,
    /// `done`, or why not.
    pub outcome: String,
    /// The process that recorded it.
    #[serde(default)]
    pub replica: String,
    /// The organization whose policy was in force.
    #[serde(default)]
    pub organization: String,
}

/// The largest integer up to which a double, which many readers of JSON make of a number, holds each one.
const MAX_EXACT: u64 = 1 << 53;

impl Event {
    /// The version of the lines that this release writes.
    pub(super) const VERSION: u32 = 1;
    /// Lines from before they had a version are read as this one.
    const fn unversioned() -> u32 {
        1
    }
}

/// `value` with integers beyond 2^53 as text: as numbers they would be rounded by readers.
pub(super) fn exact(value: Value) -> Value {
    match value {
        Value::Number(number)
            if number.as_u64().is_some_and(|n| n > MAX_EXACT)
                || number.as_i64().is_some_and(|n| n.unsigned_abs() > MAX_EXACT) =>
        {
            Value::String(number.to_string())
        }
        Value::Array(values) => values.into_iter().map(exact).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, exact(value))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_that_a_double_cannot_hold_become_text() {
        let exactly = 9_007_199_254_740_992_u64;
        let value = json!({ "a": [exactly, exactly + 1, -1, 0.5], "b": i64::MIN, "c": u64::MAX });
        let expected = json!({
            "a": [exactly, "9007199254740993", -1, 0.5],
            "b": "-9223372036854775808",
            "c": "18446744073709551615",
        });
        assert_eq!(exact(value), expected);
    }

    /// Lines as each release wrote them.
    #[test]
    fn lines_of_each_version_are_read() {
        let actor = |kind| format!("{{\"kind\":\"{kind}\",\"name\":\"edge\",\"address\":\"10.0.0.7\"}}");
        let rest = r#""action":"role.denied","subject":"s","before":null,"after":{"team":"t"},"outcome":"o""#;
        let head = r#""id":"019ac5d3a17b0000000011111111","time":"2026-11-24T10:00:00.123Z""#;
        let kinds = [
            ("service-token", "service_token"),
            ("certificate", "certificate"),
            ("oidc", "oidc"),
            ("anybody", "anyone"),
            ("system", "system"),
        ];
        for (old, new) in kinds {
            let before = format!("{{{head},\"actor\":{},{rest}}}", actor(old));
            let now = format!(
                "{{\"v\":1,{head},\"actor\":{},{rest},\"replica\":\"r\",\"organization\":\"acme\"}}",
                actor(new)
            );
            let (before, event): (Event, Event) =
                (serde_json::from_str(&before).unwrap(), serde_json::from_str(&now).unwrap());
            assert_eq!(serde_json::to_string(&event).unwrap(), now);
            let (replica, organization) = (event.replica.clone(), event.organization.clone());
            assert_eq!(event, Event { replica, organization, ..before });
        }
        // Of a later one, what is known is read.
        let later = format!("{{\"v\":2,{head},\"actor\":{},{rest},\"more\":1}}", actor("oidc"));
        assert_eq!(serde_json::from_str::<Event>(&later).unwrap().v, 2);
    }
}
