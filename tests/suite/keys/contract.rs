//! What `KeyService` takes and answers beside the limits themselves: checks without effect, updates without a mask, filters.

use tollgate::rpc::proto::{
    self, CreateKeyRequest, KeyLimits, KeyState, LimitMode, ListKeysRequest, OnShortfall, UpdateKeyRequest,
    VirtualKey,
};
use tonic::Code;

use super::{HOUR, MODEL, Service, StoreKind, altered, dollars, fields, instant, is_refused, key};
use crate::harness::START;

on_both! {
    every_limit_refuses
    every_limit_is_kept_and_survives_other_changes
    what_is_only_checked_has_no_effect
    an_update_without_a_mask_takes_what_is_set
    a_mask_says_what_may_change
    a_change_of_nothing_is_no_change
    filters_hold_together_on_pages_of_any_size
}

/// Each field has a value.
fn every_limit() -> KeyLimits {
    KeyLimits {
        models: vec![MODEL.to_owned()],
        operations: vec![proto::Operation::ChatCompletion.into()],
        requests_per_minute: Some(1),
        tokens_per_minute: Some(2),
        max_output_tokens: Some(3),
        monthly_budget: dollars(4),
        weekly_budget: dollars(3),
        daily_budget: dollars(2),
        on_shortfall: OnShortfall::Clamp.into(),
        min_output_tokens: 5,
        budget_alerts: vec!["80%".to_owned(), "$1".to_owned()],
        max_in_flight: Some(6),
        requests_per_hour: Some(7),
        requests_per_day: Some(8),
        tokens_per_hour: Some(9),
        tokens_per_day: Some(10),
        audio_seconds_per_minute: Some(11),
        audio_seconds_per_hour: Some(12),
        audio_seconds_per_day: Some(0),
        mode: LimitMode::Shadow.into(),
    }
}

async fn every_limit_refuses(mut s: Service) {
    let (made, secret) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    let none = KeyLimits::default;
    for (limits, place) in [
        (KeyLimits { requests_per_minute: Some(0), ..none() }, "requests_per_minute"),
        (KeyLimits { requests_per_hour: Some(0), ..none() }, "requests_per_hour"),
        (KeyLimits { requests_per_day: Some(0), ..none() }, "requests_per_day"),
        (KeyLimits { tokens_per_minute: Some(199), ..none() }, "tokens_per_minute"),
        (KeyLimits { tokens_per_hour: Some(199), ..none() }, "tokens_per_hour"),
        (KeyLimits { tokens_per_day: Some(199), ..none() }, "tokens_per_day"),
        (KeyLimits { max_in_flight: Some(0), ..none() }, "max_in_flight"),
        (KeyLimits { monthly_budget: dollars(0), ..none() }, "budget.monthly_usd"),
        (KeyLimits { weekly_budget: dollars(0), ..none() }, "budget.weekly_usd"),
        (KeyLimits { daily_budget: dollars(0), ..none() }, "budget.daily_usd"),
    ] {
        let changed =
            VirtualKey { limits: Some(limits.clone()), name: made.name.clone(), ..Default::default() };
        s.update(changed.clone(), &["limits"]).await.unwrap();
        let answer = s.ask(&secret).await;
        let ids: Vec<_> = answer.violations.iter().map(|violation| violation.limit_id.as_str()).collect();
        assert_eq!(ids, [format!("teams.bot.keys.bot-prod-web.{place}")]);
        // A budget that only warns refuses nothing.
        let limits = KeyLimits { on_shortfall: OnShortfall::Warn.into(), ..limits };
        let warns = s.update(VirtualKey { limits: Some(limits), ..changed }, &["limits"]).await;
        match place.starts_with("budget") {
            true => drop(warns.unwrap()),
            false => assert_eq!(fields(&warns.unwrap_err()), ["key.limits.on_shortfall"]),
        }
        assert_eq!(s.ask(&secret).await.violations.is_empty(), place.starts_with("budget"), "{place}");
    }
}

async fn every_limit_is_kept_and_survives_other_changes(mut s: Service) {
    let (made, _) = s.create(key("bot-prod-web", every_limit())).await;
    assert_eq!(made.limits, Some(every_limit()));
    let labelled = VirtualKey { labels: [("owner".to_owned(), "ann".to_owned())].into(), ..made };
    assert_eq!(s.update(labelled.clone(), &["labels"]).await.unwrap().limits, Some(every_limit()));
    let changed = VirtualKey {
        limits: Some(KeyLimits { weekly_budget: dollars(1), ..KeyLimits::default() }),
        etag: String::new(),
        ..labelled
    };
    let expected = KeyLimits { weekly_budget: dollars(1), requests_per_day: None, ..every_limit() };
    let paths = ["limits.weekly_budget", "limits.requests_per_day"];
    assert_eq!(s.update(changed.clone(), &paths).await.unwrap().limits, Some(expected.clone()));
    assert_eq!(s.get("bot-prod-web").await.limits, Some(expected));
    let all = s.update(changed, &["limits"]).await.unwrap();
    assert_eq!(all.limits, Some(KeyLimits { weekly_budget: dollars(1), ..KeyLimits::default() }));
}

async fn what_is_only_checked_has_no_effect(mut s: Service) {
    let check = |request| CreateKeyRequest { validate_only: true, ..request };
    let request = check(key("bot-prod-web", every_limit()));
    let answer = s.keys.create_key(request.clone()).await.unwrap().into_inner();
    let checked = answer.key.unwrap();
    assert_eq!((checked.limits.clone(), answer.secret.as_str()), (Some(every_limit()), ""));
    assert_eq!((checked.state(), checked.etag.as_str(), checked.secrets.len()), (KeyState::Active, "", 0));
    is_refused(s.update(checked.clone(), &["labels"]).await, Code::NotFound, "UNKNOWN_KEY");
    // What the service sets is ignored.
    let again = altered(key("bot-prod-web", every_limit()), |key| {
        *key = VirtualKey { etag: "AQAAAAAAAAAB".to_owned(), revoke_time: instant(START), ..checked };
        key.set_state(KeyState::Revoked);
    });
    let (made, _) = s.create(again).await;
    assert_eq!((made.state(), made.revoke_time), (KeyState::Active, None));
    is_refused(s.keys.create_key(request).await, Code::AlreadyExists, "KEY_EXISTS");

    let limits = Some(KeyLimits { requests_per_minute: Some(60), ..KeyLimits::default() });
    let mut request =
        UpdateKeyRequest { key: Some(VirtualKey { limits, ..made.clone() }), ..Default::default() };
    request.validate_only = true;
    let checked = s.keys.update_key(request.clone()).await.unwrap().into_inner().key.unwrap();
    assert_eq!(checked.limits.unwrap().requests_per_minute, Some(60));
    let kept = s.get("bot-prod-web").await;
    assert_eq!((kept.limits, &kept.etag), (Some(every_limit()), &made.etag));
    let key = request.key.as_mut().unwrap();
    key.limits.as_mut().unwrap().requests_per_minute = Some(61);
    let status = s.keys.update_key(request.clone()).await.unwrap_err();
    assert_eq!(fields(&status), ["key.limits.requests_per_minute"]);
    request.key.as_mut().unwrap().etag = "AQAAAAAAAAAA".to_owned();
    is_refused(s.keys.update_key(request.clone()).await, Code::Aborted, "KEY_CHANGED");
    s.revoke("bot-prod-web").await.unwrap();
    request.key.as_mut().unwrap().etag.clear();
    is_refused(s.keys.update_key(request).await, Code::FailedPrecondition, "KEY_REVOKED");
}

async fn an_update_without_a_mask_takes_what_is_set(mut s: Service) {
    let (made, _) = s.create(key("bot-prod-web", every_limit())).await;
    let named = VirtualKey { name: made.name.clone(), ..Default::default() };
    assert_eq!(fields(&s.update(named.clone(), &[]).await.unwrap_err()), ["update_mask"]);
    let labels = [("owner".to_owned(), "ann".to_owned())].into();
    let changed = s.update(VirtualKey { labels, ..named.clone() }, &[]).await.unwrap();
    assert_eq!((changed.labels.len(), changed.limits), (1, Some(every_limit())));
    let limits = KeyLimits { audio_seconds_per_day: Some(9), ..KeyLimits::default() };
    let (expire_time, limits) = (instant(START.plus(HOUR)), Some(limits));
    let changed = s.update(VirtualKey { limits, expire_time, ..named.clone() }, &[]).await.unwrap();
    let expected = KeyLimits { audio_seconds_per_day: Some(9), ..every_limit() };
    assert_eq!((changed.labels.len(), changed.limits), (1, Some(expected)));
    assert_eq!(changed.expire_time, expire_time);
    // All of it: what is left out goes.
    let bare = s.update(named, &["*"]).await.unwrap();
    assert_eq!((bare.labels.len(), bare.limits, bare.expire_time), (0, Some(KeyLimits::default()), None));
}

async fn a_mask_says_what_may_change(mut s: Service) {
    let (made, _) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    for path in ["name", "team", "limits.", "limits.*", "limits.quarterly_budget", "label", ""] {
        let status = s.update(made.clone(), &[path]).await.unwrap_err();
        assert_eq!(fields(&status), ["update_mask"], "{path}");
    }
    let ignored = ["state", "secrets", "usage.cost_today", "create_time", "revoke_time", "etag", "origin"];
    let labels = [("owner".to_owned(), "ann".to_owned())].into();
    let kept = s.update(VirtualKey { labels, ..made.clone() }, &ignored).await.unwrap();
    assert_eq!((kept.labels.len(), kept.etag), (0, made.etag));
}

async fn a_change_of_nothing_is_no_change(mut s: Service) {
    let (made, _) = s.create(key("bot-prod-web", every_limit())).await;
    let same = s.update(made.clone(), &[]).await.unwrap();
    assert_eq!(same.etag, made.etag);
    let other = KeyLimits { max_in_flight: Some(5), ..every_limit() };
    let changed = s.update(VirtualKey { limits: Some(other), ..made.clone() }, &[]).await.unwrap();
    assert_ne!(changed.etag, made.etag);
}

async fn filters_hold_together_on_pages_of_any_size(mut s: Service) {
    for name in ["bot-prod-a", "bot-prod-b", "bot-test-a", "other-prod-a", "bot-prod-c"] {
        s.create(key(name, KeyLimits::default())).await;
    }
    let expiring =
        altered(key("bot-prod-d", KeyLimits::default()), |key| key.expire_time = instant(START.plus(1)));
    s.create(expiring).await;
    s.revoke("bot-prod-b").await.unwrap();
    s.at(1);
    let all = |states: &[KeyState], name_contains: &str, team: &str| ListKeysRequest {
        states: states.iter().map(|state| (*state).into()).collect(),
        name_contains: name_contains.to_owned(),
        team: team.to_owned(),
        ..Default::default()
    };
    use KeyState::{Active, Expired, Revoked};
    for (request, expected) in [
        (all(&[], "-prod-", ""), "bot-prod-a bot-prod-b bot-prod-c bot-prod-d other-prod-a"),
        (all(&[Active], "-prod-", ""), "bot-prod-a bot-prod-c other-prod-a"),
        (all(&[Active], "-prod-", "bot"), "bot-prod-a bot-prod-c"),
        (all(&[Active], "", "bot"), "bot-declared-one bot-prod-a bot-prod-c bot-test-a"),
        (all(&[Expired, Revoked, Expired], "", ""), "bot-prod-b bot-prod-d"),
        (all(&[Revoked], "test", ""), ""),
        (all(&[], "PROD", ""), ""),
    ] {
        for page_size in 1..=6 {
            let mut request = ListKeysRequest { page_size, ..request.clone() };
            let mut names = Vec::new();
            loop {
                let page = s.keys.list_keys(request.clone()).await.unwrap().into_inner();
                let full = usize::try_from(page_size).unwrap();
                assert!(page.keys.len() == full || page.next_page_token.is_empty(), "{request:?}");
                assert!(page.keys.iter().all(|key| key.usage.is_none()));
                names.extend(page.keys.into_iter().map(|key| key.name));
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            assert_eq!(names.join(" "), expected, "{request:?}");
        }
    }
    for (request, field) in [
        (ListKeysRequest { states: vec![0], ..Default::default() }, "states"),
        (ListKeysRequest { states: vec![9], ..Default::default() }, "states"),
        (all(&[], &"x".repeat(65), ""), "name_contains"),
        (all(&[], "", &"x".repeat(65)), "team"),
    ] {
        assert_eq!(fields(&s.keys.list_keys(request).await.unwrap_err()), [field]);
    }
    let request = ListKeysRequest { include_usage: true, ..Default::default() };
    let page = s.keys.list_keys(request).await.unwrap().into_inner();
    assert!(page.keys.iter().all(|key| key.usage.is_some()));
}
