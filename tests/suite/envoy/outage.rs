//! What becomes of requests while the store or the service is down.

use serde_json::json;

use tollgate::store::clock::ManualClock;

use super::edge::{Edge, Envoy, chat, is_available, policy};
use crate::{
    harness::{START, Server, StoreKind, eventually},
    mock_groq::MockGroq,
    redis_server::{RedisServer, free_port},
};

/// In Envoy's file.
const FAIL_CLOSED: &str = "              failure_mode_allow: false
              status_on_error: { code: ServiceUnavailable }
              with_request_body:";
const FAIL_OPEN: &str = "              failure_mode_allow: true
              with_request_body:";

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_stops_what_the_filter_says() {
    if !is_available() {
        return;
    }
    let mock = MockGroq::start().await;
    mock.accept_keys(&["gsk_mock_upstream_key", super::edge::KEY]);
    let nobody = [free_port()];
    let request = chat("{}", &json!({"max_tokens": 5}));
    let closed = Envoy::start(&nobody, mock.address(), &[]).await.unwrap();
    let answer = request.send(closed.address).await;
    assert_eq!(answer.error(), "503 policy_unavailable");
    assert_eq!(mock.requests().len(), 0);
    // Open, the request goes on as it is: unmetered, and with the credential that the client gave. The request phase has its
    // own word, and fails open as well only where it is told so.
    let phase = (
        "              failure_mode_allow: false
              status_on_error: { code: ServiceUnavailable }
              message_timeout: 0.5s",
        "              failure_mode_allow: true
              message_timeout: 0.5s",
    );
    let open = Envoy::start(&nobody, mock.address(), &[(FAIL_CLOSED, FAIL_OPEN), phase]).await.unwrap();
    let answer = request.send(open.address).await;
    assert_eq!(answer.status, 200, "{:?} {}", String::from_utf8_lossy(&answer.body), open.log());
    assert_eq!(mock.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_is_told_as_the_policy_says() {
    if !is_available() || !StoreKind::Redis.is_available() {
        return;
    }
    let request = chat("{}", &json!({"max_tokens": 5}));
    for (on_outage, change, expected) in [
        ("error", (FAIL_CLOSED, FAIL_CLOSED), "503 policy_unavailable"),
        ("error", (FAIL_CLOSED, FAIL_OPEN), "200 "),
        ("deny", (FAIL_CLOSED, FAIL_OPEN), "503 service_unavailable"),
    ] {
        let mut redis = RedisServer::start();
        let mock = MockGroq::start().await;
        mock.accept_keys(&["gsk_mock_upstream_key", super::edge::KEY]);
        let text = policy(&[(
            "request_phase = true",
            &format!("request_phase = true\non_outage = \"{on_outage}\""),
        )]);
        let server = Server::start_on_redis(&redis, "acme", &text, ManualClock::new(START));
        let envoy = Envoy::start(&[server.address()], mock.address(), &[change]).await.unwrap();
        assert_eq!(request.send(envoy.address).await.status, 200, "{}", envoy.log());
        redis.kill();
        let answer = request.send(envoy.address).await;
        assert_eq!(answer.error(), expected, "{on_outage} {change:?}");
        if expected.starts_with("503 service") {
            assert_eq!(
                (answer.header("retry-after"), answer.header("x-should-retry")),
                (Some("1"), Some("true"))
            );
        }
        assert!(redis.restart());
        eventually("requests pass again", || async { request.send(envoy.address).await.status == 200 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_groq_that_cannot_be_reached_costs_nothing() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let nobody = free_port();
    let envoy = Envoy::start(&[edge.server.address()], nobody, &[]).await.unwrap();
    let answer = chat("{}", &json!({"max_tokens": 5})).send(envoy.address).await;
    assert_eq!(answer.error(), "503 upstream_unavailable");
    edge.settled().await;
    let spend = edge.spend().await;
    // It was never sent, so it does not even count as a request.
    assert_eq!((edge.spent().await, spend.requests), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_waits_for_the_store_to_come_back() {
    if !is_available() || !StoreKind::Redis.is_available() {
        return;
    }
    let redis = RedisServer::start();
    let mock = MockGroq::start().await;
    let server = Server::start_on_redis(&redis, "acme", &policy(&[]), ManualClock::new(START));
    let envoy = Envoy::start(&[server.address()], mock.address(), &[]).await.unwrap();
    let request = chat(r#"{"delay_ms":400,"completion_tokens":4}"#, &json!({"max_tokens": 5}));
    let (answer, ()) = tokio::join!(request.send(envoy.address), async {
        eventually("the request is at Groq", || async { mock.requests().len() == 1 }).await;
        redis.freeze();
    });
    assert_eq!(answer.status, 200);
    redis.thaw();
    let client = server.client().await;
    eventually("the settlement is booked", || {
        let mut client = client.clone();
        let billed = mock.ledger().nanos;
        async move {
            let report = super::edge::organization_spend(&mut client).await;
            crate::harness::nanos(report.spend.unwrap().spent) == billed
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_nobody_hears_reserves_nothing_for_long() {
    if !is_available() || !StoreKind::Redis.is_available() {
        return;
    }
    let redis = RedisServer::start();
    let mock = MockGroq::start().await;
    let server = Server::start_on_redis(&redis, "acme", &policy(&[]), ManualClock::new(START));
    let envoy = Envoy::start(&[server.address()], mock.address(), &[]).await.unwrap();
    let request = chat("{}", &json!({"max_tokens": 5}));
    assert_eq!(request.send(envoy.address).await.status, 200);
    redis.freeze();
    // Envoy gives up after half a second; Redis has the call and will do it.
    let answer = request.send(envoy.address).await;
    assert_eq!(answer.error(), "503 policy_unavailable");
    redis.thaw();
    let client = server.client().await;
    let requests = || {
        let mut client = client.clone();
        async move { super::edge::organization_spend(&mut client).await }
    };
    eventually("nothing is reserved", || async { requests().await.unsettled_requests == 0 }).await;
    let report = requests().await;
    assert_eq!(
        (report.requests, crate::harness::nanos(report.spend.unwrap().spent)),
        (1, mock.ledger().nanos)
    );
}
