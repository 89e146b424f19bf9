//! Entries of the registry that a later release wrote.

use std::sync::Arc;

use tollgate::{
    live::{Follower, Live, Unfresh},
    store::{Registry as _, RegistryWritten, Revision, Store, StoreError, Unsupported},
};

use super::POLICY;
use crate::harness::{self, Fixture, START};

const UNKNOWN: StoreError = StoreError::LayoutUnsupported(Unsupported::Entry);

fn follower<S: Store + Clone>(fixture: &Fixture<S>) -> Follower<S> {
    let policy = Arc::new(harness::policy(POLICY, START));
    Follower::new(fixture.store.clone(), Arc::new(Live::new(policy)))
}

async fn write<S: Store>(fixture: &Fixture<S>, name: &str, expected: u64, value: &'static str) -> u64 {
    let written = fixture.store.registry_write(name.into(), expected, value.into()).await.unwrap();
    let RegistryWritten::Written { version } = written else { panic!("{name}: {written:?}") };
    version
}

/// What only says what no decision depends on is kept and passed over.
async fn an_entry_of_an_unknown_kind_is_kept<S: Store + Clone>(fixture: Fixture<S>) {
    let follower = follower(&fixture);
    for (name, value) in
        [("note/a", r#"{"v":9,"text":"t"}"#), ("note/b", r#"{"critical":false}"#), ("note/c", "\0")]
    {
        write(&fixture, name, 0, value).await;
    }
    assert_eq!(follower.read().await, Ok(()));
    assert_eq!(follower.freshen().await, Ok(()));
    let kept = fixture.store.registry_since(Revision::default()).await.unwrap().records;
    assert_eq!(kept.len(), 3);
}

#[tokio::test]
async fn an_entry_of_an_unknown_kind_is_kept_on_the_embedded_store() {
    an_entry_of_an_unknown_kind_is_kept(Fixture::embedded()).await;
}

#[tokio::test]
async fn an_entry_of_an_unknown_kind_is_kept_on_redis() {
    let Some(fixture) = Fixture::redis() else { return };
    an_entry_of_an_unknown_kind_is_kept(fixture).await;
}

/// Whatever can refuse requests and is not known stops decisions at once, and until it is gone.
async fn what_may_refuse_requests_stops_decisions<S: Store + Clone>(fixture: Fixture<S>) {
    let follower = follower(&fixture);
    assert_eq!(follower.freshen().await, Ok(()));
    for (name, value) in [
        ("raise/teams.bot.budget/1", r#"{"v":1,"critical":true,"by":"5"}"#),
        // Of an unknown target, whatever it says: the releases before `critical` wrote none.
        ("pause/user/eve", "{}"),
        ("pause/project/web", r#"{"v":1,"critical":true,"reason":"r"}"#),
    ] {
        let version = write(&fixture, name, 0, value).await;
        assert_eq!(follower.read().await, Err(UNKNOWN), "{name}");
        assert!(!follower.live().freshness().is_fresh(), "{name}: not ready");
        assert_eq!(follower.freshen().await, Err(Unfresh::Store(UNKNOWN)), "{name}");
        // Nothing changed since, and still nothing is decided.
        assert_eq!(follower.read().await, Err(UNKNOWN), "{name}");
        write(&fixture, name, version, "").await;
        assert_eq!(follower.read().await, Ok(()), "{name}: it was removed");
        assert_eq!(follower.freshen().await, Ok(()), "{name}");
    }
}

#[tokio::test]
async fn what_may_refuse_requests_stops_decisions_on_the_embedded_store() {
    what_may_refuse_requests_stops_decisions(Fixture::embedded()).await;
}

#[tokio::test]
async fn what_may_refuse_requests_stops_decisions_on_redis() {
    let Some(fixture) = Fixture::redis() else { return };
    what_may_refuse_requests_stops_decisions(fixture).await;
}

/// Entries as each release wrote them.
#[tokio::test]
async fn keys_and_pauses_of_each_release_are_read() {
    let (fixture, hash) = (Fixture::embedded(), "0".repeat(64));
    let follower = follower(&fixture);
    let of = |head: &str, name: &str| {
        let secret = format!(r#"{{"id":"00000000000000ff","hash":"{hash}","created_at":1795428000000}}"#);
        format!(
            r#"{{{head}"name":"{name}","team":"bot","labels":{{"owner":"ann"}},"limits":{{"models":["openai/gpt-oss-20b"],"requests_per_minute":5,"monthly_budget":7000000000}},"created_at":1795428000000,"expires_at":1795429000000,"secrets":[{secret}]}}"#
        )
    };
    let pause = |head: &str| {
        format!(r#"{{{head}"reason":"why","by":{{"kind":"system","name":"n"}},"since":1795428000000}}"#)
    };
    for (name, value) in [
        ("key/bot-prod-a", of("", "bot-prod-a")),
        ("key/bot-prod-b", of(r#""v":1,"critical":true,"#, "bot-prod-b")),
        ("pause/team/bot", pause("")),
        ("pause/model/m/*", pause(r#""v":1,"critical":true,"#)),
        // Of a later form: what it narrows is unknown, so the one is refused and the other in force.
        ("key/bot-prod-c", of(r#""v":2,"critical":true,"#, "bot-prod-c")),
        ("pause/key/k", pause(r#""v":2,"critical":true,"#)),
    ] {
        fixture.store.registry_write(name.into(), 0, value.into()).await.unwrap();
    }
    assert_eq!(follower.read().await, Ok(()));
    let keys = tollgate::control::Keys::new(follower.clone(), tollgate::runtime::Entropy::System);
    let mut limits = Vec::new();
    for name in ["bot-prod-a", "bot-prod-b"] {
        let key = keys.created_key(name).await.unwrap();
        let record = &key.stored.as_ref().unwrap().record;
        assert_eq!((&*record.labels["owner"], record.secrets.len()), ("ann", 1));
        limits.push(record.limits.clone());
    }
    assert_eq!(limits[0], limits[1]);
    assert_eq!((limits[0].requests_per_minute, limits[0].models.len()), (Some(5), 1));
    assert_eq!(limits[0].monthly_budget.map(|budget| budget.nanos()), Some(7_000_000_000));
    assert!(keys.created_key("bot-prod-c").await.is_err());
    let paused: Vec<_> = follower
        .snapshot()
        .pauses
        .iter()
        .map(|(target, pause)| (target.to_string(), pause.reason.contains("cannot be read")))
        .collect();
    let expected = [("team/bot", false), ("key/k", true), ("model/m/*", false)];
    assert_eq!(paused, expected.map(|(target, unread)| (target.to_owned(), unread)));
}
