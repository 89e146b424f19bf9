//! Envoy asks more than once for one request: after it gave up, after the store failed, or at once.

use std::time::Duration;

use serde_json::json;
use tollgate::{
    rpc::{
        envoy::service::auth::v3::{CheckRequest, authorization_client::AuthorizationClient},
        proto,
    },
    runtime::clock::ManualClock,
};
use tonic::{Code, transport::Channel};

use super::{
    checks::{ask, check, reservation, status},
    edge::{KEY, policy},
};
use crate::{
    harness::{START, Server, StoreKind, connect, eventually, used},
    redis_server::RedisServer,
};

fn request(id: &str) -> CheckRequest {
    let bearer = format!("Bearer {KEY}");
    let body = json!({"model": "openai/gpt-oss-20b", "max_tokens": 10, "messages": []});
    check(id, &[("authorization", &bearer)], &body)
}

async fn client(server: &Server) -> AuthorizationClient<Channel> {
    AuthorizationClient::new(connect(server.address()).await)
}

/// The requests that nothing is booked for yet. Of a store that has just come back each connection may fail once more.
async fn unsettled(server: &Server) -> i64 {
    let mut client = server.client().await;
    loop {
        match client.get_spend(proto::GetSpendRequest::default()).await {
            Ok(answer) => return answer.into_inner().organization.unwrap().unsettled_requests,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
    }
}

/// Whether the reservation can still be settled, by settling it. Here too a connection may fail once more.
async fn holds(server: &Server, reservation: &str) -> bool {
    let mut client = server.client().await;
    loop {
        match client.record_usage(used(reservation, 5, 5)).await {
            Ok(answer) => return !answer.into_inner().already_recorded,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_at_once_shares_one_reservation() {
    for store in [StoreKind::Embedded, StoreKind::Redis] {
        if !store.is_available() {
            continue;
        }
        let server = Server::start(store, &policy(&[]), START).await;
        let asked: Vec<_> = (0..16).map(|_| ask(&server, request("x"))).collect();
        let mut reservations = Vec::new();
        for asked in asked {
            reservations.push(reservation(&asked.await));
        }
        reservations.dedup();
        assert_eq!(reservations.len(), 1, "{reservations:?}");
        assert_eq!(unsettled(&server).await, 1);
        assert!(holds(&server, &reservations[0]).await);
    }
}

/// The store fails one check; Envoy asks again and is allowed; giving back the first must not take from the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_asked_again_after_an_outage_keeps_its_reservation() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut redis = RedisServer::start();
    let server = Server::start_on_redis(&redis, "acme", &policy(&[]), ManualClock::new(START));
    let mut client = client(&server).await;
    assert!(client.check(request("before")).await.is_ok());
    redis.kill();
    assert!(client.check(request("x")).await.is_err());
    assert!(redis.restart());
    let answered = std::sync::Mutex::new(None);
    eventually("it is answered", || async {
        let answer = client.clone().check(request("x")).await.ok();
        *answered.lock().unwrap() = answer.map(tonic::Response::into_inner);
        answered.lock().unwrap().is_some()
    })
    .await;
    let answer = answered.into_inner().unwrap().unwrap();
    assert_eq!(status(&answer), 200);
    // Whatever was to be given back was: nothing is left but the one that is told of, and the one of before, which Redis had forgotten.
    eventually("only two are left", || async { unsettled(&server).await == 2 }).await;
    assert!(holds(&server, &reservation(&answer)).await);
}

/// Envoy gives up on a slow store and asks again at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_asked_again_after_giving_up_keeps_its_reservation() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let redis = RedisServer::start();
    let server = Server::start_on_redis(&redis, "acme", &policy(&[]), ManualClock::new(START));
    let (mut first, mut again) = (client(&server).await, client(&server).await);
    assert!(first.check(request("before")).await.is_ok());
    redis.freeze();
    let given_up = tokio::time::timeout(Duration::from_millis(100), first.check(request("x"))).await;
    assert!(given_up.is_err());
    let second = tokio::spawn(async move { again.check(request("x")).await });
    redis.thaw();
    let answer = second.await.unwrap().unwrap().into_inner();
    assert_eq!(status(&answer), 200);
    eventually("only the two that are told of are left", || async { unsettled(&server).await == 2 }).await;
    assert!(holds(&server, &reservation(&answer)).await);
}

/// What an earlier check was told of is not given back because a later one was given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_check_that_is_given_up_takes_nothing_back() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let redis = RedisServer::start();
    let server = Server::start_on_redis(&redis, "acme", &policy(&[]), ManualClock::new(START));
    let mut client = client(&server).await;
    let told = client.check(request("x")).await.unwrap().into_inner();
    redis.freeze();
    let given_up = tokio::time::timeout(Duration::from_millis(100), client.check(request("x"))).await;
    assert!(given_up.is_err());
    redis.thaw();
    // A check of another request, answered after whatever the given up one does.
    let report = proto::GetSpendRequest::default();
    assert!(server.client().await.get_spend(report).await.is_ok());
    assert!(holds(&server, &reservation(&told)).await);
}
