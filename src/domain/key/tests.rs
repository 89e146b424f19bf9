use std::{collections::BTreeMap, sync::Arc};

use super::{record::MAX_SECRETS, *};
use crate::domain::{
    Timestamp,
    limit::{Limit, LimitMode, Limits, OnShortfall, Period, Quantity, Span, Subject, Window},
    limit_kind::LimitKind,
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
    record.limits.on_shortfall = Some(OnShortfall::Clamp);
    record.limits.budget_alerts = vec!["80%".parse().unwrap()];
    record.limits.audio_seconds_per_day = Some(9);
    record.labels.insert("owner".to_owned(), "ü".to_owned());
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<KeyRecord>(&text).unwrap(), record);
    // A limit from a later version: if the record were read without it, the key could do more than it may.
    let more = text.replace("\"models\"", "\"quarterly_budget\":1,\"models\"");
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
        mode: LimitMode::Enforce,
        on_exceed: OnExceed::Deny,
        on_unsettled: OnUnsettled::Release,
        limits: Limits {
            month: limit(Quantity::NanoUsd, Window::Calendar(Period::Month), 10_000_000_000).into(),
            others: vec![limit(Quantity::Requests, Window::Sliding(Span::Minute), 60).into()],
        },
        model_limits: Vec::new(),
        user_limits: Vec::new(),
        batch: Default::default(),
        tools: Default::default(),
        unreserved: UnreservedBounds {
            max_cost_id: "teams.chatbot.unreserved.max_cost_usd".into(),
            max_cost: NanoUsd::ZERO,
            daily: limit(Quantity::NanoUsd, Window::Calendar(Period::Day), 0).into(),
        },
        outage: Default::default(),
        labels: Default::default(),
        budget_counters: subject.budget_counters(),
        templates: Default::default(),
        tally: Default::default(),
    }
}

#[test]
fn what_would_widen_the_team_names_its_field() {
    let breaches = |limits: KeyLimits| {
        let mut breaches = Vec::new();
        check_limits(&KeyRecord { limits, ..record(Vec::new()) }, &team(), &mut breaches);
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
        ..none()
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
fn each_bound_narrows_the_teams_and_never_widens_it() {
    let breaches = |kind: LimitKind, bound: u64| {
        let mut record = record(Vec::new());
        record.limits.set_bound(kind, Some(bound));
        let subject = Subject::team("chatbot");
        let limit = |kind: LimitKind| {
            let limit = subject.limit("x".into(), kind.quantity(), kind.window());
            Limit { bound: Some(50 * kind.unit()), ..limit }
        };
        let [month, rest @ ..] = LimitKind::BUDGETS.map(limit);
        let others = rest.into_iter().chain(LimitKind::RATES.map(limit)).map(Into::into).collect();
        let team = Team { limits: Limits { month: month.into(), others }, ..team() };
        let mut breaches = Vec::new();
        check_limits(&record, &team, &mut breaches);
        breaches
    };
    for kind in LimitKind::BUDGETS.into_iter().chain(LimitKind::RATES) {
        assert_eq!(breaches(kind, 50), [], "{kind:?}");
        let wide = breaches(kind, 51);
        assert_eq!(wide.iter().map(|breach| breach.field).collect::<Vec<_>>(), [kind.path()]);
        let shown = [51, 50].map(|bound| kind.shown(bound * kind.unit()));
        let message = format!("{} is more than team `chatbot` has, {}", shown[0], shown[1]);
        assert_eq!(wide[0].message, message);
    }
    for kind in LimitKind::RATES {
        let over = breaches(kind, kind.max() + 1);
        assert_eq!(over.len(), 1, "{kind:?}");
        assert!(over[0].message.contains("more than any limit may be"), "{over:?}");
    }
}

#[test]
fn the_terms_of_a_budget_need_one() {
    let breaches = |limits: &KeyLimits| {
        let mut breaches = Vec::new();
        check_limits(&KeyRecord { limits: limits.clone(), ..record(Vec::new()) }, &team(), &mut breaches);
        breaches.into_iter().map(|breach| breach.field).collect::<Vec<_>>()
    };
    let alerts = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let sound = KeyLimits {
        monthly_budget: NanoUsd::new(5_000_000_000),
        weekly_budget: NanoUsd::new(2_000_000_000),
        on_shortfall: Some(OnShortfall::Clamp),
        min_output_tokens: Some(1),
        budget_alerts: alerts(&["80%", "$4"]),
        ..KeyLimits::default()
    };
    assert_eq!(breaches(&sound), Vec::<&str>::new());
    let none = KeyLimits { monthly_budget: None, weekly_budget: None, ..sound.clone() };
    let terms = ["limits.on_shortfall", "limits.min_output_tokens", "limits.budget_alerts"];
    assert_eq!(breaches(&none), terms);
    assert_eq!(breaches(&KeyLimits { monthly_budget: None, ..sound.clone() }), ["limits.budget_alerts"]);
    for on_shortfall in [None, Some(OnShortfall::Deny), Some(OnShortfall::Warn)] {
        let unclamped = KeyLimits { on_shortfall, ..sound.clone() };
        assert_eq!(breaches(&unclamped), ["limits.min_output_tokens"], "{on_shortfall:?}");
    }
    assert_eq!(
        breaches(&KeyLimits { min_output_tokens: Some(0), ..sound.clone() }),
        ["limits.min_output_tokens"]
    );
    let many = |count| (1..=count).map(|percent| format!("{percent}%").parse().unwrap()).collect();
    assert_eq!(breaches(&KeyLimits { budget_alerts: many(32), ..sound.clone() }), Vec::<&str>::new());
    assert_eq!(breaches(&KeyLimits { budget_alerts: many(33), ..sound }), ["limits.budget_alerts"]);
}

/// Limits of which each field has a value.
fn every_limit() -> KeyLimits {
    let mut limits = KeyLimits {
        models: vec!["openai/*".parse().unwrap()],
        operations: vec![Operation::Chat],
        max_output_tokens: Some(3),
        on_shortfall: Some(OnShortfall::Clamp),
        min_output_tokens: Some(2),
        budget_alerts: vec!["80%".parse().unwrap(), "$0.000000009".parse().unwrap()],
        mode: Some(LimitMode::Shadow),
        ..KeyLimits::default()
    };
    for (bound, kind) in (10..).zip(LimitKind::BUDGETS.into_iter().chain(LimitKind::RATES)) {
        limits.set_bound(kind, Some(bound));
    }
    limits
}

#[test]
fn limits_are_the_same_for_both_kinds_of_keys() {
    let key = |limits| VirtualKey::created(1, Arc::new(KeyRecord { limits, ..record(Vec::new()) }));
    for limits in [every_limit(), KeyLimits::default()] {
        assert_eq!(KeyLimits::of_declared(&key(limits.clone())), limits);
    }
    let compiled = key(every_limit()).limits;
    assert_eq!(compiled.len(), 13);
    assert!(compiled.iter().all(|limit| limit.mode == LimitMode::Shadow));
    let of = |kind| compiled.iter().find(|limit| LimitKind::of(limit) == Some(kind)).unwrap();
    let audio = of(LimitKind::AudioSecondsPerDay);
    assert_eq!(&*audio.id, "teams.chatbot.keys.chatbot-prod-web.audio_seconds_per_day");
    assert_eq!(audio.bound, every_limit().audio_seconds_per_day.map(|seconds| seconds * 1_000));
    let weekly = of(LimitKind::WeeklyBudget);
    assert_eq!(&*weekly.id, "teams.chatbot.keys.chatbot-prod-web.budget.weekly_usd");
    assert_eq!((weekly.on_shortfall, weekly.min_output_tokens), (OnShortfall::Clamp, 2));
    // An amount is of the month.
    assert_eq!(weekly.alerts.len(), 1);
    assert_eq!(of(LimitKind::MonthlyBudget).alerts.len(), 2);
    // Without a bound, requests in flight are counted all the same.
    let [in_flight] = key(KeyLimits::default()).limits.try_into().unwrap();
    assert_eq!((LimitKind::of(&in_flight), in_flight.bound), (Some(LimitKind::MaxInFlight), None));
}

#[test]
fn each_field_is_replaced_by_itself() {
    let (full, none) = (every_limit(), KeyLimits::default());
    for field in LimitField::ALL {
        assert!(full.is_set(field) && !none.is_set(field), "{field:?}");
        let mut changed = none.clone();
        changed.replace(field, &full);
        let set: Vec<_> = LimitField::ALL.into_iter().filter(|other| changed.is_set(*other)).collect();
        assert_eq!(set, [field]);
        changed.replace(field, &none);
        assert_eq!(changed, none);
    }
    let mut changed = none;
    LimitField::ALL.into_iter().for_each(|field| changed.replace(field, &full));
    assert_eq!(changed, full);
    // Each is stored under the last part of its path, and no other is.
    let stored = serde_json::to_value(&full).unwrap();
    let mut names: Vec<_> = stored.as_object().unwrap().keys().map(|name| format!("limits.{name}")).collect();
    let mut paths = LimitField::ALL.map(LimitField::path).to_vec();
    names.sort();
    paths.sort_unstable();
    assert_eq!(names, paths);
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
