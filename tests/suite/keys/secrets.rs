//! Secrets of created keys: how long they last, and who can end them.

use tollgate::rpc::proto::{self, KeyLimits, KeyState, Reason, VirtualKey};
use tonic::Code;

use super::{DAY, HOUR, MODEL, Service, StoreKind, altered, fields, instant, is_refused, key};
use crate::harness::{START, used};

on_both! {
    an_overlap_ends_at_the_millisecond
    a_revoked_key_is_refused_for_ever
    an_expiry_can_be_moved
    what_is_in_use_ends_only_by_force
    typos_and_guesses_are_refused
}

async fn an_overlap_ends_at_the_millisecond(mut s: Service) {
    let (_, old) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    let (rotated, new) = s.rotate("bot-prod-web", 3600, false).await.unwrap();
    assert_ne!(old, new);
    let live: Vec<bool> = rotated.secrets.iter().map(|secret| secret.live).collect();
    assert_eq!(live, [true, true]);
    assert_eq!(rotated.secrets[0].end_time, instant(START.plus(HOUR)));
    for at in [0, 1, HOUR - 1] {
        s.at(at);
        assert_eq!((s.reasons(&old).await, s.reasons(&new).await), (vec![], vec![]), "{at}");
    }
    s.at(HOUR);
    assert_eq!((s.reasons(&old).await, s.reasons(&new).await), (vec![Reason::KeyExpired], vec![]));
    assert!(s.ask(&old).await.violations[0].message.contains("has ended; use the newer one"));
    s.at(HOUR - 1);
    assert_eq!(s.reasons(&old).await, []);
}

async fn a_revoked_key_is_refused_for_ever(mut s: Service) {
    let (_, secret) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    let held = s.ask(&secret).await;
    let revoked = s.revoke("bot-prod-web").await.unwrap();
    assert_eq!((revoked.state(), revoked.revoke_time), (KeyState::Revoked, instant(START)));
    assert_eq!(s.reasons(&secret).await, [Reason::KeyRevoked]);
    // What it was permitted before is still booked.
    s.calls.record_usage(used(&held.reservation_id, 10, 10)).await.unwrap();
    let unreserved = proto::RecordUsageRequest {
        reservation_id: String::new(),
        caller: Some(proto::record_usage_request::Caller::ApiKey(secret.clone())),
        request_id: "late".to_owned(),
        model: MODEL.to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        ..used("", 10, 10)
    };
    s.calls.record_usage(unreserved).await.unwrap();
    assert_eq!(s.get("bot-prod-web").await.usage.unwrap().requests_today, 2);
    // Again changes nothing, and nothing brings it back.
    s.at(5);
    assert_eq!(s.revoke("bot-prod-web").await.unwrap().revoke_time, instant(START));
    is_refused(s.rotate("bot-prod-web", 0, true).await, Code::FailedPrecondition, "KEY_REVOKED");
    let late = VirtualKey { name: "bot-prod-web".to_owned(), ..Default::default() };
    is_refused(s.update(late, &["expire_time"]).await, Code::FailedPrecondition, "KEY_REVOKED");
    is_refused(
        s.keys.create_key(key("bot-prod-web", KeyLimits::default())).await,
        Code::AlreadyExists,
        "KEY_EXISTS",
    );
    assert_eq!(s.reasons(&secret).await, [Reason::KeyRevoked]);
}

async fn an_expiry_can_be_moved(mut s: Service) {
    let expire_time = instant(START.plus(HOUR));
    let (made, secret) = s
        .create(altered(key("bot-prod-web", KeyLimits::default()), |key| key.expire_time = expire_time))
        .await;
    s.at(HOUR - 1);
    assert_eq!(s.reasons(&secret).await, []);
    s.at(HOUR);
    assert_eq!(s.reasons(&secret).await, [Reason::KeyExpired]);
    assert_eq!(s.get("bot-prod-web").await.state(), KeyState::Expired);
    let status = s.update(made.clone(), &["expire_time"]).await.unwrap_err();
    assert_eq!(fields(&status), ["key.expire_time"]);
    let later = VirtualKey { expire_time: instant(START.plus(2 * HOUR)), ..made.clone() };
    s.update(later, &["expire_time"]).await.unwrap();
    assert_eq!(s.reasons(&secret).await, []);
    let never = VirtualKey { expire_time: None, etag: String::new(), ..made };
    assert_eq!(s.update(never, &["expire_time"]).await.unwrap().expire_time, None);
    s.at(40 * DAY);
    assert_eq!(s.reasons(&secret).await, []);
}

async fn what_is_in_use_ends_only_by_force(mut s: Service) {
    let (_, first) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    // Never used: it ends without more.
    let (_, second) = s.rotate("bot-prod-web", 0, false).await.unwrap();
    assert_eq!(s.reasons(&first).await, [Reason::KeyExpired]);
    assert_eq!(s.reasons(&second).await, []);
    is_refused(s.rotate("bot-prod-web", 0, false).await, Code::FailedPrecondition, "SECRET_IN_USE");
    let (rotated, third) = s.rotate("bot-prod-web", 3600, false).await.unwrap();
    let id = |key: &VirtualKey, at: usize| key.secrets[at].secret_id.clone();
    let (of_second, of_third) = (id(&rotated, 1), id(&rotated, 2));
    // A third live one would end the second now.
    is_refused(s.rotate("bot-prod-web", 3600, false).await, Code::FailedPrecondition, "SECRET_IN_USE");
    is_refused(
        s.revoke_secret("bot-prod-web", &of_second, false).await,
        Code::FailedPrecondition,
        "SECRET_IN_USE",
    );
    let unknown = s.revoke_secret("bot-prod-web", "0123456789abcdef", true).await;
    is_refused(unknown, Code::NotFound, "UNKNOWN_SECRET");
    for id in ["", "0123456789ABCDEF"] {
        assert_eq!(fields(&s.revoke_secret("bot-prod-web", id, true).await.unwrap_err()), ["secret_id"]);
    }
    assert_eq!(s.reasons(&second).await, []);
    s.revoke_secret("bot-prod-web", &of_second, true).await.unwrap();
    assert_eq!(s.reasons(&second).await, [Reason::KeyExpired]);
    assert_eq!(s.reasons(&third).await, []);
    is_refused(
        s.revoke_secret("bot-prod-web", &of_third, true).await,
        Code::FailedPrecondition,
        "ONLY_SECRET",
    );
    // A day without a use, and nobody has to be forced.
    s.at(DAY);
    let (_, fourth) = s.rotate("bot-prod-web", 0, false).await.unwrap();
    assert_eq!((s.reasons(&third).await, s.reasons(&fourth).await), (vec![Reason::KeyExpired], vec![]));
}

async fn typos_and_guesses_are_refused(mut s: Service) {
    let (_, secret) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    let (start, last) = secret.split_at(secret.len() - 1);
    let typo = format!("{start}{}", if last == "a" { "b" } else { "a" });
    let answer = s.ask(&typo).await;
    assert_eq!(answer.violations[0].reason(), Reason::InvalidKey);
    assert!(answer.violations[0].message.contains("mistyped"), "{}", answer.violations[0].message);
    // Everything that shares a beginning with it, and whole secrets of nobody.
    for length in [1, 4, 20, 47, 52] {
        assert_eq!(s.reasons(&secret[..length]).await, [Reason::InvalidKey], "{length}");
    }
    for guess in [format!("{secret}a"), secret.to_uppercase(), secret.to_lowercase(), format!(" {secret}")] {
        assert_eq!(s.reasons(&guess).await, [Reason::InvalidKey], "{guess}");
    }
    for byte in 0..64 {
        let guess = tollgate::domain::key::Secret::from_random([byte; 32]);
        let answer = s.ask(guess.expose()).await;
        assert_eq!(answer.violations[0].reason(), Reason::InvalidKey);
        assert!(!answer.violations[0].message.contains("mistyped"));
    }
    assert_eq!(s.reasons(&secret).await, []);
}
