//! Outages in part: a store that takes no writes, and callers with less time than it has.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate::rpc::proto::{GetStatusRequest, status_service_client::StatusServiceClient};
use tonic::Code;

use super::{DEADLINE, POLICY, ask, give_key, is_degraded, of};
use crate::{
    harness::{PATIENCE, Process, StoreKind, connect, eventually, eventually_within, nanos, used},
    redis_server::RedisServer,
    telemetry,
};

/// A store of this process can fail as well: its disk takes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_embedded_store_cannot_write_is_decided_without_it() {
    let directory = TempDir::new().unwrap();
    let process = Process::start(directory.path(), POLICY, "embedded:./data").await;
    let mut client = process.client().await;
    let held = ask(&mut client, of("closed")).await.unwrap().reservation_id;
    assert!(!ask(&mut client, of("open")).await.unwrap().degraded);
    let database = rusqlite::Connection::open(directory.path().join("data/tollgate.db")).unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON journal BEGIN SELECT RAISE(FAIL, 'full'); END";
    let mut degraded = None;
    eventually("its rule decides", async || {
        // It is full already, or busy with a transaction.
        let _ = database.execute_batch(full);
        match ask(&mut client, of("open")).await {
            Ok(answer) if answer.degraded => {
                is_degraded(&answer);
                degraded = Some(answer.reservation_id);
            }
            Ok(_) => {}
            // A new store has no key yet to seal reservations with.
            Err(_) => database.execute_batch("DROP TRIGGER IF EXISTS full").unwrap_or_default(),
        }
        degraded.is_some()
    })
    .await;
    let refused =
        async || ask(&mut client, of("closed")).await.is_err_and(|status| status.code() == Code::Unavailable);
    eventually("one without a rule is refused", refused).await;
    eventually("there is room", async || database.execute_batch("DROP TRIGGER full").is_ok()).await;
    eventually("the store decides again", async || ask(&mut client, of("closed")).await.is_ok()).await;
    let booked =
        client.record_usage(used(&degraded.unwrap(), 1_000_000, 100_000)).await.unwrap().into_inner();
    assert_eq!((nanos(booked.cost), booked.already_recorded), (105_000_000, false));
    client.record_usage(used(&held, 1, 1)).await.unwrap();
}

/// It can still be read, so that what is known stays young and connections stay: that decisions do not wait for it is shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_takes_no_writes_opens_the_breaker() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    give_key(&redis, "acme", [9; 32]).await;
    let store = format!("--store={}", redis.url());
    let (process, admin) = telemetry::start(&directory, POLICY, &[&store, "--store-timeout=20s"]).await;
    let mut client = process.client().await;
    eventually("it serves", async || ask(&mut client, of("closed")).await.is_ok()).await;
    let is_open =
        async || telemetry::value(&telemetry::page(admin).await, "tollgate_store_breaker_open", &[]);
    assert_eq!(is_open().await, Some(0.0));
    let mut by_hand = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut allow = |bytes: &str| {
        redis::cmd("CONFIG").arg(&["SET", "maxmemory", bytes]).query::<()>(&mut by_hand).unwrap();
    };
    allow("1");
    eventually("decisions are held back", async || {
        let refused = ask(&mut client, of("closed")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        is_open().await == Some(1.0)
    })
    .await;
    is_degraded(&ask(&mut client, of("open")).await.unwrap());
    allow("0");
    eventually("the store decides again", async || ask(&mut client, of("closed")).await.is_ok()).await;
    eventually("the breaker is closed", async || is_open().await == Some(0.0)).await;
}

/// Callers with less time than the store, alone on a Redis that is silent: each gets its team's rule in its time, and soon without a wait.
/// With next to no time they learn nothing, and while Redis answers they get past no limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_with_less_time_than_the_store_get_their_rule_in_time() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    give_key(&redis, "acme", [9; 32]).await;
    let store = format!("--store={}", redis.url());
    let (process, admin) = telemetry::start(&directory, POLICY, &[&store, "--store-timeout=1s"]).await;
    let mut client = process.client().await;
    eventually("it serves", async || ask(&mut client, of("closed")).await.is_ok()).await;
    let is_open =
        async || telemetry::value(&telemetry::page(admin).await, "tollgate_store_breaker_open", &[]);
    let within = |team: &str, time: Duration| {
        let mut request = tonic::Request::new(of(team));
        request.set_timeout(time);
        request
    };
    for _ in 0..200 {
        match client.authorize(within("open", Duration::from_millis(1))).await {
            Ok(answer) => assert!(!answer.into_inner().degraded, "the store answers"),
            Err(status) => {
                assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}")
            }
        }
    }
    assert_eq!(is_open().await, Some(0.0));
    redis.freeze();
    let (frozen, time) = (Instant::now(), DEADLINE * 6 / 10);
    // A busy machine may take longer for the answer than the 20 ms that are left for it.
    let (mut quick, mut late) = (0, 0);
    while quick < 20 {
        assert!(frozen.elapsed() < PATIENCE, "requests wait for the store");
        let started = Instant::now();
        match client.authorize(within("open", time)).await {
            Ok(answer) => is_degraded(&answer.into_inner()),
            Err(status) => {
                late += 1;
                assert!(late < 4 && started.elapsed() >= time, "{status:?}");
            }
        }
        quick += u32::from(started.elapsed() < time / 4);
        if frozen.elapsed() > 10 * DEADLINE {
            // Known by now, it is no reason to wait for those without a rule.
            let refused = client.authorize(within("closed", time)).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        }
    }
    redis.thaw();
    let decides = async || !ask(&mut client, of("open")).await.unwrap().degraded;
    eventually("the store decides again", decides).await;
}

/// However long decisions may wait for the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_people_are_told_of_a_silent_store_in_a_second_or_so() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let process = Process::start_with(directory.path(), POLICY, &redis.url(), Duration::from_secs(60)).await;
    eventually("it serves", async || process.is_serving().await == Some(true)).await;
    redis.freeze();
    let bound = Duration::from_secs(20);
    eventually_within(bound, "health says so", async || process.is_serving().await == Some(false)).await;
    let mut client = StatusServiceClient::new(connect(process.address()).await);
    let asked = tokio::time::timeout(bound, client.get_status(GetStatusRequest::default())).await;
    let status = asked.expect("in time").unwrap().into_inner().status.unwrap();
    assert!(!status.store.unwrap().reachable);
    redis.thaw();
    eventually("it serves again", async || process.is_serving().await == Some(true)).await;
}
