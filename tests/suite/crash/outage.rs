//! Redis hangs, dies and comes back.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate::rpc::{
    Effect,
    proto::{self, Decision},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{Client, LATENESS, MODEL, policy};
use crate::{
    harness::{
        Process, StoreKind, chat, errors::is_of_with, eventually, nanos, organization, team_spend, used,
    },
    redis_server::RedisServer,
};

/// The deadline of the store in these tests.
const DEADLINE: Duration = Duration::from_millis(400);

/// During an outage every call is answered in time, and says when to come back.
async fn is_unavailable(client: &mut Client) {
    let in_time = |started: Instant, status: Status, effect: Effect| {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let details = status.get_error_details();
        let retry = details.retry_info().and_then(|info| info.retry_delay).expect("a time to come back");
        assert!(retry > Duration::ZERO);
        is_of_with(&status, "STORE_UNAVAILABLE", effect);
        let took = started.elapsed();
        assert!(took < DEADLINE + LATENESS, "answered after {took:?}");
        for detail in ["127.0.0.1", "redis", "Connection", "os error"] {
            assert!(!status.message().contains(detail), "shows internals: {status:?}");
        }
    };
    let started = Instant::now();
    in_time(started, client.authorize(chat("team", MODEL, 1, 1)).await.unwrap_err(), Effect::None);
    let started = Instant::now();
    in_time(
        started,
        client.record_usage(used(&format!("{:032x}", 1_u128 << 120), 1, 1)).await.unwrap_err(),
        Effect::Unknown,
    );
    let started = Instant::now();
    in_time(started, client.get_spend(proto::GetSpendRequest::default()).await.unwrap_err(), Effect::None);
}

/// After an outage calls succeed again, and health says so.
async fn recovers(server: &Process, client: &Client) {
    eventually("calls succeed again", || {
        let mut client = client.clone();
        async move { client.authorize(chat("team", MODEL, 1, 1)).await.is_ok() }
    })
    .await;
    eventually("health says so", || async { server.is_serving().await == Some(true) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_redis_is_answered_in_time_and_passes() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut redis = RedisServer::start();
    let directory = TempDir::new().unwrap();
    let policy = policy(&organization());
    let server = Process::start_with(directory.path(), &policy, &redis.url(), DEADLINE).await;
    let mut client = server.client().await;
    recovers(&server, &client).await;
    for round in 0..2 {
        redis.freeze();
        is_unavailable(&mut client).await;
        eventually("health notices", || async { server.is_serving().await == Some(false) }).await;
        is_unavailable(&mut client).await;
        redis.thaw();
        recovers(&server, &client).await;
        redis.kill();
        is_unavailable(&mut client).await;
        eventually("health notices", || async { server.is_serving().await == Some(false) }).await;
        is_unavailable(&mut client).await;
        assert!(redis.restart(), "round {round}");
        recovers(&server, &client).await;
    }
}

/// What was asked during an outage and took effect unseen is not taken twice by asking again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_again_after_a_hang_reserves_and_books_once() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let redis = RedisServer::start();
    let directory = TempDir::new().unwrap();
    let policy = policy(&organization());
    let server = Process::start_with(directory.path(), &policy, &redis.url(), DEADLINE).await;
    let mut client = server.client().await;
    recovers(&server, &client).await;
    let before = team_spend(&mut client, "team").await;
    let request = proto::AuthorizeRequest { request_id: "once".to_owned(), ..chat("three", MODEL, 100, 100) };
    redis.freeze();
    assert_eq!(client.authorize(request.clone()).await.unwrap_err().code(), Code::Unavailable);
    redis.thaw();
    recovers(&server, &client).await;
    let answer = client.authorize(request).await.unwrap().into_inner();
    let record = used(&answer.reservation_id, 100, 50);
    redis.freeze();
    assert_eq!(client.record_usage(record.clone()).await.unwrap_err().code(), Code::Unavailable);
    redis.thaw();
    recovers(&server, &client).await;
    assert_eq!(nanos(client.record_usage(record.clone()).await.unwrap().into_inner().cost), 150);
    assert!(client.record_usage(record).await.unwrap().into_inner().already_recorded);
    let report = team_spend(&mut client, "three").await;
    let spend = report.spend.unwrap();
    assert_eq!((nanos(spend.spent), nanos(spend.reserved), report.requests), (150, 0, 1));
    assert!(team_spend(&mut client, "team").await.unsettled_requests >= before.unsettled_requests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_starts_while_redis_is_down() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut redis = RedisServer::start();
    redis.kill();
    let directory = TempDir::new().unwrap();
    let policy = policy(&organization());
    let server = Process::start_with(directory.path(), &policy, &redis.url(), DEADLINE).await;
    let mut client = server.client().await;
    is_unavailable(&mut client).await;
    eventually("health says so", || async { server.is_serving().await == Some(false) }).await;
    assert!(redis.restart());
    recovers(&server, &client).await;
}

/// Redis that loses everything begins with nothing: no call fails for good, and no reservation of before that is kept no longer is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_its_memory_begins_anew() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut redis = RedisServer::start();
    let directory = TempDir::new().unwrap();
    let policy = policy(&organization());
    let server = Process::start_forgetful(directory.path(), &policy, &redis.url()).await;
    let mut client = server.client().await;
    recovers(&server, &client).await;
    let before = client.authorize(chat("three", MODEL, 1, 1)).await.unwrap().into_inner();
    redis.kill();
    assert!(redis.restart());
    recovers(&server, &client).await;
    let status = client.record_usage(used(&before.reservation_id, 1, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    for _ in 0..3 {
        let answer = client.authorize(chat("three", MODEL, 1, 1)).await.unwrap().into_inner();
        assert_eq!(answer.decision(), Decision::Allowed);
    }
    assert_eq!(
        client.authorize(chat("three", MODEL, 1, 1)).await.unwrap().into_inner().decision(),
        Decision::Denied
    );
}
