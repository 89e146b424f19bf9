//! What each kind of receiver gets.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    alert::{Alert, instant},
    send::Message,
    signature::{SigningSecret, signatures},
};
use crate::domain::Timestamp;

/// A Standard Webhook: the alert in the contract's JSON, signed by each secret.
pub(super) fn webhook(alert: &Alert, event: &str, now: Timestamp, secrets: &[SigningSecret]) -> Message {
    let kind = alert.kind.name();
    let body = json!({ "type": format!("alert.{kind}"), "timestamp": alert.create_time, "data": alert });
    let body = Bytes::from(body.to_string());
    let seconds = now.0 / 1000;
    let mut headers = vec![("webhook-id", event.to_owned()), ("webhook-timestamp", seconds.to_string())];
    if !secrets.is_empty() {
        headers.push(("webhook-signature", signatures(secrets, event, seconds, &body)));
    }
    Message { body, headers }
}

/// What Slack's incoming webhooks take.
pub(super) fn slack(alert: &Alert) -> Message {
    let text = slack_text(&alert.summary);
    // What has no duration is never over.
    let state = if alert.kind.has_duration() { alert.state.name() } else { "" };
    let facts = [
        ("state", state),
        ("severity", alert.severity.name()),
        ("organization", &alert.organization),
        ("limit", &alert.limit_id),
    ];
    let facts = facts.iter().filter(|(_, value)| !value.is_empty());
    let facts: Vec<_> = facts.map(|(name, value)| format!("{name}: {}", slack_text(value))).collect();
    let body = json!({
        "text": text,
        "blocks": [
            { "type": "section", "text": { "type": "mrkdwn", "text": text } },
            { "type": "context", "elements": [{ "type": "mrkdwn", "text": facts.join(" · ") }] },
        ],
    });
    Message { body: body.to_string().into(), headers: Vec::new() }
}

/// Slack refuses a message with a longer text, in characters, of which it has its own count.
const MAX_SLACK: usize = 2_900;

/// A text without the three letters that Slack reads as marks of its own, and cut to what it takes.
fn slack_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        let mut bytes = [0; 4];
        let part = match character {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            _ => character.encode_utf8(&mut bytes),
        };
        if escaped.len() + part.len() > MAX_SLACK {
            escaped.push('…');
            break;
        }
        escaped.push_str(part);
    }
    escaped
}

/// Where Alertmanager takes alerts, below its address.
pub(super) const ALERTMANAGER_PATH: &str = "/api/v2/alerts";

/// What Alertmanager takes. `end`: when the alert ends; without one it ends by Alertmanager's own `resolve_timeout`.
pub(super) fn alertmanager(alert: &Alert, end: Option<Timestamp>) -> Message {
    let (cooldown, key, drift) = (alert.cooldown.as_ref(), alert.upstream_key.as_ref(), alert.drift.as_ref());
    let project = cooldown.map(|cooldown| &cooldown.project).or(key.map(|key| &key.project));
    let project = project.or(drift.map(|drift| &drift.project));
    let paused = alert.pause.as_ref().map(|pause| &pause.target.model);
    let model = cooldown.map(|cooldown| &cooldown.model).or(paused).or(drift.map(|drift| &drift.model));
    let tier = cooldown.and_then(|cooldown| cooldown.service_tier.strip_prefix("SERVICE_TIER_"));
    let labels = [
        ("alertname", camel(alert.kind.name())),
        ("severity", alert.severity.name().to_owned()),
        ("organization", alert.organization.clone()),
        ("team", alert.team.clone()),
        ("key", alert.key.clone()),
        // Users of a team share a limit, and Alertmanager tells alerts apart by these.
        ("user", alert.user.clone()),
        ("kind", alert.kind.name().to_owned()),
        ("limit_id", alert.limit_id.clone()),
        ("threshold", alert.budget.as_ref().map(|budget| budget.threshold.clone()).unwrap_or_default()),
        ("project", project.cloned().unwrap_or_default()),
        ("model", model.cloned().unwrap_or_default()),
        ("service_tier", tier.unwrap_or_default().to_ascii_lowercase()),
        // So that the late end of one ends no later one that is of the same.
        ("id", alert.id.clone()),
        ("upstream_key", alert.upstream_key.as_ref().map(|key| key.name.clone()).unwrap_or_default()),
        ("start_date", drift.map(|drift| drift.start_date.clone()).unwrap_or_default()),
        ("end_date", drift.map(|drift| drift.end_date.clone()).unwrap_or_default()),
    ];
    let labels: serde_json::Map<String, Value> = labels
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let mut item = json!({ "labels": labels, "annotations": { "summary": alert.summary }, "startsAt": alert.create_time });
    if let (Some(end), Some(item)) = (end, item.as_object_mut()) {
        item.insert("endsAt".to_owned(), instant(end).into());
    }
    Message { body: json!([item]).to_string().into(), headers: Vec::new() }
}

/// `budget_threshold` as `TollgateBudgetThreshold`.
fn camel(kind: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or_default();
        first.to_ascii_uppercase() + rest
    };
    "Tollgate".to_owned() + &kind.split('_').map(word).collect::<String>()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{alerts::alert::BudgetCrossing, domain::alert::AlertKind};

    pub(in crate::alerts) fn alert() -> Alert {
        let summary = "chatbot has spent 80% of its monthly budget: $160.00 of $200.00".to_owned();
        let at = Timestamp(1_795_514_400_123);
        Alert {
            team: "chatbot".to_owned(),
            limit_id: "teams.chatbot.budget.monthly_usd".to_owned(),
            budget: Some(BudgetCrossing {
                threshold: "80%".to_owned(),
                amount: 160_000_000_000.into(),
                spent: 160_000_000_000.into(),
                budget: Some(200_000_000_000.into()),
            }),
            ..Alert::opened("0197", AlertKind::BudgetThreshold, at, ("acme", summary))
        }
    }

    fn value(message: &Message) -> Value {
        serde_json::from_slice(&message.body).unwrap()
    }

    /// The example of the documentation.
    #[test]
    fn a_webhook_has_the_form_of_the_contract() {
        let message = webhook(&alert(), "0197_open", Timestamp(1_795_514_400_999), &[]);
        let usd = |units: &str| json!({ "currencyCode": "USD", "units": units });
        let expected = json!({
            "type": "alert.budget_threshold",
            "timestamp": "2026-11-24T10:00:00.123Z",
            "data": {
                "id": "0197", "kind": "ALERT_KIND_BUDGET_THRESHOLD", "severity": "SEVERITY_WARNING",
                "state": "ALERT_STATE_OPEN", "organization": "acme", "team": "chatbot",
                "limitId": "teams.chatbot.budget.monthly_usd", "createTime": "2026-11-24T10:00:00.123Z",
                "summary": "chatbot has spent 80% of its monthly budget: $160.00 of $200.00",
                "budget": { "threshold": "80%", "amount": usd("160"), "spent": usd("160"), "budget": usd("200") },
            },
        });
        assert_eq!(value(&message), expected);
        let headers =
            [("webhook-id", "0197_open".to_owned()), ("webhook-timestamp", "1795514400".to_owned())];
        assert_eq!(message.headers, headers);
        // It is kept as it is sent.
        let kept: Alert = serde_json::from_value(expected["data"].clone()).unwrap();
        assert_eq!(kept, alert());
    }

    #[test]
    fn slack_and_alertmanager_get_theirs() {
        let loud = Alert { summary: "a<b & c>".to_owned(), ..alert() };
        let message = value(&slack(&loud));
        assert_eq!(message["text"], "a&lt;b &amp; c&gt;");
        assert_eq!(message["blocks"][0]["text"]["text"], "a&lt;b &amp; c&gt;");
        // Slack takes 3,000 characters, and an entity is not cut.
        for part in ["&", "ä", "ab<"] {
            let long = Alert { summary: part.repeat(3_000), limit_id: part.repeat(3_000), ..alert() };
            let message = value(&slack(&long));
            for pointer in ["/blocks/0/text/text", "/blocks/1/elements/0/text"] {
                let text = message.pointer(pointer).unwrap().as_str().unwrap();
                assert!(text.chars().count() <= 3_000 && text.ends_with('…'), "{part} {pointer}");
                let bare = text.replace("&amp;", "").replace("&lt;", "");
                assert!(!bare.contains(['&', '<']), "{bare}");
            }
        }
        let context = |alert: &Alert| value(&slack(alert))["blocks"][1]["elements"][0]["text"].clone();
        assert_eq!(
            context(&alert()),
            "severity: warning · organization: acme · limit: teams.chatbot.budget.monthly_usd"
        );
        let pause = Alert::opened("0197", AlertKind::Pause, Timestamp(0), ("acme", String::new()));
        assert_eq!(context(&pause), "state: open · severity: info · organization: acme");
        let end = Timestamp(1_796_083_200_000);
        let message = value(&alertmanager(&alert(), Some(end)));
        let labels = json!({
            "alertname": "TollgateBudgetThreshold", "severity": "warning", "organization": "acme", "team": "chatbot",
            "kind": "budget_threshold", "limit_id": "teams.chatbot.budget.monthly_usd", "threshold": "80%",
            "id": "0197",
        });
        assert_eq!(message[0]["labels"], labels);
        assert_eq!(message[0]["endsAt"], "2026-12-01T00:00:00Z");
        assert_eq!(value(&alertmanager(&alert(), None))[0]["endsAt"], Value::Null);
        // Of two users under one limit, which Alertmanager would take for one alert.
        let of_user = |user: &str| {
            let alert = Alert { user: user.to_owned(), ..alert() };
            value(&alertmanager(&alert, None))[0]["labels"].clone()
        };
        assert_ne!(of_user("ada"), of_user("bob"));
    }
}
