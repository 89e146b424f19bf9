use std::{collections::BTreeMap, sync::Arc};

use super::{record::MAX_SECRETS, *};
use crate::domain::{
    Timestamp,
    limit::{Limit, Limits, Period, Quantity, Span, Subject, Window},
    money::NanoUsd,
    policy::{OnExceed, OnUnsettled, Team, UnreservedBounds},
    request::Operation,
};

const NOW: Timestamp = Timestamp(1_000_000);
const HOUR: u64 = 3_600_000;

fn secret(id: u64, ends_at: Option<u64>) -> KeySecret {
    let hash = HashKey::new([1; 32]).hash(&[u8::try_from(id).unwrap(); 32]);
    KeySecret { id: SecretId(id), hash, created_at: NOW, ends_at: ends_at.map(Timestamp) }
}

fn record(secrets: Vec<KeySecret>) -> KeyRecord {
    KeyRecord {
        name: "chatbot-prod-web".into(),
        team: "chatbot".into(),
        labels: BTreeMap::new(),
        limits: KeyLimits::default(),
        created_at: NOW,
        expires_at: None,
        revoked_at: None,
        secrets,
    }
}

fn ends(record: &KeyRecord) -> Vec<(u64, Option<u64>)> {
    record.secrets.iter().map(|secret| (secret.id.0, secret.ends_at.map(|end| end.0))).collect()
}

#[test]
fn a_rotation_gives_the_one_before_the_overlap() {
    let mut record = record(vec![secret(1, None)]);
    assert_eq!(record.ended_by_rotation(HOUR, NOW), []);
    record.rotate(secret(2, None), HOUR, NOW);
    assert_eq!(ends(&record), [(1, Some(NOW.0 + HOUR)), (2, None)]);
    let live = |at: u64| record.live(Timestamp(at)).map(|secret| secret.id.0).collect::<Vec<_>>();
    assert_eq!(live(NOW.0 + HOUR - 1), [1, 2]);
    assert_eq!(live(NOW.0 + HOUR), [2]);
}

#[test]
fn at_most_two_secrets_are_live() {
    let mut record = record(vec![secret(1, None)]);
    record.rotate(secret(2, None), HOUR, NOW);
    assert_eq!(record.ended_by_rotation(HOUR, NOW.plus(1)), [SecretId(1)]);
    record.rotate(secret(3, None), HOUR, NOW.plus(1));
    assert_eq!(ends(&record), [(1, Some(NOW.0 + 1)), (2, Some(NOW.0 + 1 + HOUR)), (3, None)]);
    for id in 4..20 {
        record.rotate(secret(id, None), HOUR, NOW.plus(id));
        assert_eq!(record.live(NOW.plus(id)).count(), MAX_LIVE_SECRETS);
        assert!(record.secrets.len() <= MAX_SECRETS);
    }
}

#[test]
fn without_an_overlap_everything_before_ends_at_once() {
    let mut record = record(vec![secret(1, Some(NOW.0 + 5)), secret(2, None)]);
    assert_eq!(record.ended_by_rotation(0, NOW), [SecretId(2), SecretId(1)]);
    record.rotate(secret(3, None), 0, NOW);
    assert_eq!(ends(&record), [(1, Some(NOW.0)), (2, Some(NOW.0)), (3, None)]);
}

#[test]
fn an_overlap_makes_no_secret_live_longer() {
    let mut record = record(vec![secret(1, Some(NOW.0 + 5))]);
    record.rotate(secret(2, None), HOUR, NOW);
    assert_eq!(ends(&record), [(1, Some(NOW.0 + 5)), (2, None)]);
}

#[test]
fn a_record_is_read_as_it_was_written_and_not_with_more() {
    let mut record = record(vec![secret(1, None), secret(2, Some(7))]);
    record.limits.models = vec!["openai/*".parse().unwrap()];
    record.limits.operations = vec![Operation::Chat];
    record.limits.monthly_budget = NanoUsd::new(5);
    record.labels.insert("owner".to_owned(), "ü".to_owned());
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<KeyRecord>(&text).unwrap(), record);
    // A limit from a later version: if the record were read without it, the key could do more than it may.
    let more = text.replace("\"models\"", "\"max_in_flight\":1,\"models\"");
    assert!(serde_json::from_str::<KeyRecord>(&more).is_err());
}

fn team() -> Team {
    let subject = Subject::team("chatbot");
    let limit = |quantity, window, bound| Limit {
        bound: Some(bound),
        ..subject.limit("teams.chatbot.x".into(), quantity, window)
    };
    Team {
        name: "chatbot".into(),
        models: vec!["openai/*".parse().unwrap(), "m".parse().unwrap()],
        operations: vec![Operation::Chat],
        max_output_tokens: Some(100),
        on_exceed: OnExceed::Deny,
        on_unsettled: OnUnsettled::Release,
        limits: Limits {
            month: limit(Quantity::NanoUsd, Window::Calendar(Period::Month), 10_000_000_000),
            others: vec![limit(Quantity::Requests, Window::Sliding(Span::Minute), 60)],
        },
        model_limits: Vec::new(),
        user_limits: Vec::new(),
        batch: Default::default(),
        tools: Default::default(),
        unreserved: UnreservedBounds {
            max_cost_id: "teams.chatbot.unreserved.max_cost_usd".into(),
            max_cost: NanoUsd::ZERO,
            daily: limit(Quantity::NanoUsd, Window::Calendar(Period::Day), 0),
        },
    }
}

#[test]
fn what_would_widen_the_team_names_its_field() {
    let breaches = |limits: KeyLimits| {
        let mut breaches = Vec::new();
        let key = VirtualKey::created(1, Arc::new(KeyRecord { limits, ..record(Vec::new()) }));
        check_limits(&key, &team(), &mut breaches);
        breaches.into_iter().map(|breach| breach.field).collect::<Vec<_>>()
    };
    let none = KeyLimits::default;
    let at_most = KeyLimits {
        models: vec!["openai/gpt*".parse().unwrap(), "m".parse().unwrap()],
        operations: vec![Operation::Chat],
        requests_per_minute: Some(60),
        // The team has none.
        tokens_per_minute: Some(crate::domain::MAX_AMOUNT),
        max_output_tokens: Some(100),
        monthly_budget: NanoUsd::new(10_000_000_000),
    };
    assert_eq!(breaches(none()), Vec::<&str>::new());
    assert_eq!(breaches(at_most), Vec::<&str>::new());
    for model in ["*", "open*", "m*", "n"] {
        let models = vec![model.parse().unwrap()];
        assert_eq!(breaches(KeyLimits { models, ..none() }), ["limits.models"]);
    }
    assert_eq!(breaches(KeyLimits { operations: vec![Operation::Speech], ..none() }), ["limits.operations"]);
    let wide = KeyLimits {
        requests_per_minute: Some(61),
        max_output_tokens: Some(101),
        monthly_budget: NanoUsd::new(10_000_000_001),
        ..none()
    };
    let fields = ["limits.requests_per_minute", "limits.max_output_tokens", "limits.monthly_budget"];
    assert_eq!(breaches(wide), fields);
}

#[test]
fn a_name_says_whose_it_is() {
    let long = format!("chatbot-prod-{}", "w".repeat(60));
    for (name, team, sound) in [
        ("chatbot-prod-web", "chatbot", true),
        ("chat-bot-prod-web-2", "chat-bot", true),
        ("chatbot-prod", "chatbot", false),
        ("chatbot-prod-", "chatbot", false),
        ("chatbot--web", "chatbot", false),
        ("chatbots-prod-web", "chatbot", false),
        ("prod-web-x", "chatbot", false),
        ("chatbot-prod-Web", "chatbot", false),
        ("chatbot-prod-web|x", "chatbot", false),
        (&long, "chatbot", false),
        ("", "chatbot", false),
    ] {
        assert_eq!(check_name(name, team).is_ok(), sound, "{name} of {team}");
    }
}
