//! Limits in shadow beside what the decision cases show: waiting, pauses, created keys, the log, the commands.

mod same_answers;

use std::time::Duration;

use tollgate::rpc::proto::{
    self, AuthorizeResponse, Decision, KeyLimits, LimitMode, PauseRequest, PauseTarget, Reason, VirtualKey,
    authorize_request::Caller, key_service_client::KeyServiceClient,
    pause_service_client::PauseServiceClient, pause_target::Target,
};

use crate::harness::{START, Server, StoreKind, chat, connect, new_key};

const MODEL: &str = "openai/gpt-oss-20b";

const POLICY: &str = r#"
[organization]
id = "acme"

[teams.bot]
models = ["*"]
max_in_flight = 1
requests_per_minute = 3
shadow = ["max_in_flight"]
"#;

fn shadow(answer: &AuthorizeResponse) -> Vec<Reason> {
    answer.shadow_violations.iter().map(proto::Violation::reason).collect()
}

async fn what_is_in_shadow_makes_no_request_wait(store: StoreKind) {
    let server = Server::start(store, POLICY, START).await;
    let mut client = server.client().await;
    let waiting = |name: &str| {
        let max_wait = Some(Duration::from_secs(60).try_into().unwrap());
        let request =
            proto::AuthorizeRequest { max_wait, request_id: name.to_owned(), ..chat("bot", MODEL, 10, 10) };
        let mut client = client.clone();
        async move { client.authorize(request).await.unwrap().into_inner() }
    };
    // The clock stands still: a request that waited would never be answered.
    for (name, expected) in
        [("1", &[][..]), ("2", &[Reason::TooManyInFlight]), ("3", &[Reason::TooManyInFlight])]
    {
        let answer =
            tokio::time::timeout(Duration::from_secs(20), waiting(name)).await.expect("an answer at once");
        assert_eq!((answer.decision(), shadow(&answer)), (Decision::Allowed, expected.to_vec()), "{name}");
        assert!(answer.limits.iter().all(|limit| limit.limit_id != "teams.bot.max_in_flight"), "{answer:?}");
    }
    let answer = client.authorize(chat("bot", MODEL, 10, 10)).await.unwrap().into_inner();
    let reasons: Vec<_> = answer.violations.iter().map(proto::Violation::reason).collect();
    assert_eq!(
        (reasons, shadow(&answer)),
        (vec![Reason::RequestRateExceeded], vec![Reason::TooManyInFlight])
    );
    assert!(answer.retry_delay.is_some(), "what is in shadow does not turn a delay into never");
    assert!(answer.shadow_violations.iter().all(|of| of.retry_delay.is_none() && !of.retryable));
    assert!(server.stop().await);
}

async fn a_pause_refuses_what_is_in_shadow(store: StoreKind) {
    let policy = POLICY.replace("max_in_flight = 1", "mode = \"shadow\"\nmax_in_flight = 0");
    let server = Server::start(store, &policy, START).await;
    let mut pauses = PauseServiceClient::new(connect(server.address()).await);
    let target = Some(PauseTarget { target: Some(Target::Team("bot".to_owned())) });
    pauses.pause(PauseRequest { target, reason: "why".to_owned() }).await.unwrap();
    let answer = server.client().await.authorize(chat("bot", MODEL, 10, 10)).await.unwrap().into_inner();
    let reasons: Vec<_> = answer.violations.iter().map(proto::Violation::reason).collect();
    assert_eq!(reasons, [Reason::Paused]);
    assert!(server.stop().await);
}

async fn a_created_key_has_a_mode(store: StoreKind) {
    let server = Server::start(store, POLICY, START).await;
    let mut keys = KeyServiceClient::new(connect(server.address()).await);
    let mut client = server.client().await;
    let limits = KeyLimits {
        mode: LimitMode::Shadow.into(),
        models: vec!["openai/gpt-oss-120b".to_owned()],
        max_output_tokens: Some(5),
        requests_per_day: Some(0),
        ..Default::default()
    };
    let mut request = new_key("bot-prod-web", "bot");
    request.key.as_mut().unwrap().limits = Some(limits);
    let made = keys.create_key(request).await.unwrap().into_inner();
    let (key, secret) = (made.key.unwrap(), made.secret);
    assert_eq!(key.limits.as_ref().unwrap().mode(), LimitMode::Shadow);
    let by_key = || proto::AuthorizeRequest {
        caller: Some(Caller::ApiKey(secret.clone())),
        ..chat("", MODEL, 10, 10)
    };
    let expected = [Reason::ModelNotAllowed, Reason::MaxOutputTokensExceeded, Reason::RequestRateExceeded];
    let answer = client.authorize(by_key()).await.unwrap().into_inner();
    assert_eq!((answer.decision(), shadow(&answer)), (Decision::Allowed, expected.to_vec()));
    let mut update = async |limits: KeyLimits, paths: &[&str]| {
        let key = VirtualKey { name: key.name.clone(), limits: Some(limits), ..Default::default() };
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = proto::UpdateKeyRequest { key: Some(key), update_mask, ..Default::default() };
        keys.update_key(request).await
    };
    // Without a mask, what is set is changed.
    let enforced = KeyLimits { mode: LimitMode::Enforce.into(), ..Default::default() };
    update(enforced, &[]).await.unwrap();
    let answer = client.authorize(by_key()).await.unwrap().into_inner();
    assert_eq!((answer.violations.len(), shadow(&answer)), (2, Vec::new()), "its lists, before any counter");
    // The first one is not reported, so its place in flight is taken, which its team does not refuse.
    let expected = [&expected[..2], &[Reason::TooManyInFlight], &expected[2..]].concat();
    let in_shadow = KeyLimits { mode: LimitMode::Shadow.into(), ..Default::default() };
    update(in_shadow, &["limits.mode"]).await.unwrap();
    let answer = client.authorize(by_key()).await.unwrap().into_inner();
    assert_eq!((answer.decision(), shadow(&answer)), (Decision::Allowed, expected));
    let changed = update(KeyLimits::default(), &["limits.mode"]).await.unwrap().into_inner().key.unwrap();
    assert_eq!(changed.limits.unwrap().mode(), LimitMode::Unspecified, "taken away, it enforces");
    assert_eq!(client.authorize(by_key()).await.unwrap().into_inner().decision(), Decision::Denied);
    let unknown = update(KeyLimits { mode: 7, ..Default::default() }, &[]).await.unwrap_err();
    assert!(unknown.message().contains("limits.mode"), "{unknown:?}");
    // A key in shadow still narrows its team's policy.
    let mut wider = new_key("bot-prod-wide", "bot");
    let limits =
        KeyLimits { requests_per_minute: Some(4), mode: LimitMode::Shadow.into(), ..Default::default() };
    wider.key.as_mut().unwrap().limits = Some(limits);
    let refused = keys.create_key(wider).await.unwrap_err();
    assert!(refused.message().contains("requests_per_minute"), "{refused:?}");
    assert!(server.stop().await);
}

/// Declares tests that run on both stores.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::StoreKind::Embedded).await; })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if super::StoreKind::Redis.is_available() { super::$name(super::StoreKind::Redis).await; }
            })*
        }
    };
}

on_both! {
    what_is_in_shadow_makes_no_request_wait
    a_pause_refuses_what_is_in_shadow
    a_created_key_has_a_mode
}
