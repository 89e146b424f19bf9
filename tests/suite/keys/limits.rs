//! What a created key may do: never more than its team.

use tollgate::rpc::{
    google_type::Money,
    proto::{self, CreateKeyRequest, Decision, KeyLimits, KeyOrigin, KeyState, Reason, VirtualKey},
};

use super::{MODEL, POLICY, Service, StoreKind, altered, by_key, dollars, fields, instant, key};
use crate::harness::{START, nanos, used};

on_both! {
    a_created_key_works_at_once_and_within_its_limits
    a_threshold_of_a_created_key_is_reported
    a_budget_set_later_knows_what_the_key_has_spent
    what_would_widen_the_team_is_refused_by_field
    a_change_of_the_policy_holds_for_created_keys
}

async fn a_created_key_works_at_once_and_within_its_limits(mut s: Service) {
    let limits = KeyLimits {
        models: vec![MODEL.to_owned()],
        requests_per_minute: Some(2),
        max_output_tokens: Some(500),
        monthly_budget: dollars(1),
        ..Default::default()
    };
    let (made, secret) = s.create(key("bot-prod-web", limits.clone())).await;
    assert_eq!((made.state(), made.limits), (KeyState::Active, Some(limits)));
    assert!(secret.starts_with("tgk_") && secret.len() == 53);
    let answer = s.ask(&secret).await;
    assert_eq!(answer.decision(), Decision::Allowed);
    let ids: Vec<&str> = answer.limits.iter().map(|limit| limit.limit_id.as_str()).collect();
    for id in ["requests_per_minute", "budget.monthly_usd"] {
        assert!(ids.contains(&format!("teams.bot.keys.bot-prod-web.{id}").as_str()), "{ids:?}");
    }
    s.calls.record_usage(used(&answer.reservation_id, 100, 50)).await.unwrap();
    // The team may use it, the key may not.
    let other = proto::AuthorizeRequest { model: "m/other".to_owned(), ..by_key(&secret) };
    let answer = s.calls.authorize(other).await.unwrap().into_inner();
    assert_eq!(answer.violations[0].reason(), Reason::ModelNotAllowed);
    assert_eq!(answer.violations[0].limit_id, "teams.bot.keys.bot-prod-web.models");
    let more = proto::AuthorizeRequest { max_output_tokens: 501, ..by_key(&secret) };
    let answer = s.calls.authorize(more).await.unwrap().into_inner();
    assert_eq!(answer.violations[0].reason(), Reason::MaxOutputTokensExceeded);
    assert_eq!(s.reasons(&secret).await, []);
    let answer = s.ask(&secret).await;
    assert_eq!(answer.violations[0].reason(), Reason::RequestRateExceeded);
    assert_eq!(answer.violations[0].limit_id, "teams.bot.keys.bot-prod-web.requests_per_minute");
    // Declared keys go on beside it, whatever their secrets look like.
    assert_eq!(s.reasons("abc").await, []);
    let shown = s.get("bot-prod-web").await;
    assert_eq!(shown.secrets[0].requests_today, 5);
    assert_eq!(shown.secrets[0].last_use_time, instant(START));
    let usage = shown.usage.unwrap();
    assert_eq!((usage.requests_today, usage.tokens_today, usage.top_model.as_str()), (1, 150, MODEL));
    assert_eq!((nanos(usage.cost_today), nanos(usage.cost_this_month)), (150, 150));
}

async fn a_threshold_of_a_created_key_is_reported(mut s: Service) {
    let monthly_budget = Some(Money { nanos: 1000, ..dollars(0).unwrap() });
    let budget_alerts = vec!["15%".to_owned(), "16%".to_owned()];
    let (_, secret) = s
        .create(key("bot-prod-web", KeyLimits { monthly_budget, budget_alerts, ..Default::default() }))
        .await;
    let answer = s.ask(&secret).await;
    let booked = s.calls.record_usage(used(&answer.reservation_id, 100, 50)).await.unwrap().into_inner();
    let [crossed] = &booked.alerts[..] else { panic!("{:?}", booked.alerts) };
    assert_eq!(crossed.limit_id, "teams.bot.keys.bot-prod-web.budget.monthly_usd");
    assert_eq!((crossed.threshold.as_str(), nanos(crossed.spent.clone())), ("15%", 150));
    let again = s.calls.record_usage(used(&answer.reservation_id, 100, 50)).await.unwrap().into_inner();
    assert_eq!((again.already_recorded, again.alerts), (true, booked.alerts));
}

async fn a_budget_set_later_knows_what_the_key_has_spent(mut s: Service) {
    let (_, secret) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    let answer = s.ask(&secret).await;
    s.calls.record_usage(used(&answer.reservation_id, 100, 50)).await.unwrap();
    let mut changed = s.get("bot-prod-web").await;
    let budget = Money { currency_code: "USD".to_owned(), units: 0, nanos: 300 };
    changed.limits.get_or_insert_default().monthly_budget = Some(budget);
    let changed = s.update(changed, &["limits"]).await.unwrap();
    assert_eq!(changed.usage, None, "no change waits for a report of spend");
    assert_eq!(nanos(s.get("bot-prod-web").await.usage.unwrap().cost_this_month), 150);
    let answer = s.ask(&secret).await;
    assert_eq!(answer.violations[0].reason(), Reason::KeyBudgetExhausted, "{answer:?}");
    assert_eq!((answer.violations[0].used, answer.violations[0].limit), (150, 300));
}

async fn what_would_widen_the_team_is_refused_by_field(mut s: Service) {
    let limits = || KeyLimits::default();
    let budget = || KeyLimits { monthly_budget: dollars(1), ..Default::default() };
    let wide = [
        (KeyLimits { models: vec!["*".to_owned()], ..limits() }, "limits.models"),
        (KeyLimits { models: vec!["not a model".to_owned()], ..limits() }, "limits.models"),
        (KeyLimits { operations: vec![proto::Operation::Speech.into()], ..limits() }, "limits.operations"),
        (KeyLimits { operations: vec![0], ..limits() }, "limits.operations"),
        (KeyLimits { requests_per_minute: Some(61), ..limits() }, "limits.requests_per_minute"),
        (KeyLimits { requests_per_minute: Some(-1), ..limits() }, "limits.requests_per_minute"),
        (KeyLimits { tokens_per_minute: Some(100_001), ..limits() }, "limits.tokens_per_minute"),
        (KeyLimits { max_output_tokens: Some(4_001), ..limits() }, "limits.max_output_tokens"),
        (KeyLimits { monthly_budget: dollars(11), ..limits() }, "limits.monthly_budget"),
        (KeyLimits { monthly_budget: dollars(-1), ..limits() }, "limits.monthly_budget"),
        (KeyLimits { monthly_budget: dollars(i64::MAX), ..limits() }, "limits.monthly_budget"),
        (KeyLimits { daily_budget: dollars(-1), ..limits() }, "limits.daily_budget"),
        (KeyLimits { max_in_flight: Some(-1), ..limits() }, "limits.max_in_flight"),
        (KeyLimits { audio_seconds_per_day: Some(i64::MAX), ..limits() }, "limits.audio_seconds_per_day"),
        (KeyLimits { budget_alerts: vec!["80".to_owned()], ..budget() }, "limits.budget_alerts"),
        (KeyLimits { budget_alerts: vec!["80%".to_owned()], ..limits() }, "limits.budget_alerts"),
        (KeyLimits { on_shortfall: 9, ..budget() }, "limits.on_shortfall"),
        (KeyLimits { min_output_tokens: -1, ..budget() }, "limits.min_output_tokens"),
        (KeyLimits { min_output_tokens: 5, ..budget() }, "limits.min_output_tokens"),
    ];
    let (made, _) = s.create(key("bot-test-one", limits())).await;
    for (limits, path) in wide {
        let field = format!("key.{path}");
        let status = s.keys.create_key(key("bot-prod-web", limits.clone())).await.unwrap_err();
        assert_eq!(fields(&status), [&*field], "{limits:?}");
        let changed = VirtualKey { limits: Some(limits.clone()), ..made.clone() };
        for mask in [&[path][..], &["limits"], &["*"], &[]] {
            assert_eq!(fields(&s.update(changed.clone(), mask).await.unwrap_err()), [&*field], "{limits:?}");
        }
    }
    let request = || key("bot-prod-web", limits());
    for (request, field) in [
        (CreateKeyRequest::default(), "key"),
        (altered(key("nobody-prod-web", limits()), |key| key.team = "nobody".to_owned()), "key.team"),
        (altered(request(), |key| key.team = "other".to_owned()), "key.name"),
        (key("bot-prod", limits()), "key.name"),
        (altered(request(), |key| key.expire_time = instant(START)), "key.expire_time"),
        (altered(request(), |key| key.labels = [(String::new(), String::new())].into()), "key.labels"),
    ] {
        for validate_only in [false, true] {
            let request = CreateKeyRequest { validate_only, ..request.clone() };
            assert_eq!(fields(&s.keys.create_key(request).await.unwrap_err()), [field]);
        }
    }
    // A team that may use every model may name none that is not there but for its case.
    let of_any = |name: &str, limits| altered(key(name, limits), |key| key.team = "any".to_owned());
    let (made, _) = s.create(of_any("any-test-one", limits())).await;
    for (model, fix) in [("M/text", "write `m/text`"), ("M/*", "write `m/*`")] {
        let limits = KeyLimits { models: vec![model.to_owned()], ..limits() };
        let status = s.keys.create_key(of_any("any-prod-web", limits.clone())).await.unwrap_err();
        assert_eq!(fields(&status), ["key.limits.models"]);
        assert!(status.message().contains(fix), "{}", status.message());
        let changed = VirtualKey { limits: Some(limits), ..made.clone() };
        let status = s.update(changed, &["limits.models"]).await.unwrap_err();
        assert_eq!(fields(&status), ["key.limits.models"]);
    }
    let list = s.keys.list_keys(proto::ListKeysRequest::default()).await.unwrap().into_inner();
    let created = list.keys.iter().filter(|key| key.origin() == KeyOrigin::Created);
    assert_eq!(created.count(), 2);
}

async fn a_change_of_the_policy_holds_for_created_keys(mut s: Service) {
    let limits = KeyLimits { models: vec![MODEL.to_owned()], ..Default::default() };
    let (_, secret) = s.create(key("bot-prod-web", limits)).await;
    assert_eq!(s.reasons(&secret).await, []);
    s.server.set_policy(&POLICY.replace("models = [\"m/*\"]", "models = [\"m/other\"]")).await;
    assert_eq!(s.reasons(&secret).await, [Reason::ModelNotAllowed]);
    // Labels of a key that is wider than its team by now can still be changed.
    let labels = [("owner".to_owned(), "ann".to_owned())].into();
    let labelled = VirtualKey { name: "bot-prod-web".to_owned(), labels, ..Default::default() };
    s.update(labelled.clone(), &["labels"]).await.unwrap();
    let without =
        POLICY.replace("[teams.bot]", "[teams.gone]").replace("[teams.bot.keys", "[teams.gone.keys");
    s.server.set_policy(&without).await;
    assert_eq!(s.reasons(&secret).await, [Reason::UnknownTeam]);
    assert_eq!(fields(&s.update(labelled, &["labels", "limits"]).await.unwrap_err()), ["key.team"]);
    s.server.set_policy(POLICY).await;
    assert_eq!(s.reasons(&secret).await, []);
    assert_eq!(s.get("bot-prod-web").await.labels["owner"], "ann");
}
