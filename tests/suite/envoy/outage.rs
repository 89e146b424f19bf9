//! What becomes of requests while the store or the service is down.

use serde_json::json;
use tokio::{io::AsyncReadExt as _, net::TcpListener};
use tollgate::{rpc::proto::GetSpendRequest, runtime::clock::ManualClock, spool::Spool};

use super::{
    edge::{Edge, Envoy, chat, chat_body, is_available, policy},
    http::Request,
};
use crate::{
    harness::{Fixture, START, Server, StoreKind, Ways, eventually, settings},
    outages::give_key,
    redis_server::{RedisServer, free_port},
    support::mock_groq::MockGroq,
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

/// A team's own rule comes before `on_outage`: what it permits passes, and is booked once the store is back.
#[tokio::test(flavor = "multi_thread")]
async fn requests_pass_by_their_teams_rule_while_the_store_is_down() {
    if !is_available() || !StoreKind::Redis.is_available() {
        return;
    }
    let mut redis = RedisServer::start();
    let mock = MockGroq::start().await;
    mock.accept_keys(&["gsk_mock_upstream_key", super::edge::KEY]);
    give_key(&redis, "acme", [9; 32]).await;
    let rule = "on_exceed = \"clamp\"\non_store_outage = \"allowance\"\noutage_allowance = { requests_per_minute = 2 }";
    let text = policy(&[("on_exceed = \"clamp\"", rule)]);
    let server = Server::start_on_redis(&redis, "acme", &text, ManualClock::new(START));
    let envoy = Envoy::start(&[server.address()], mock.address(), &[(FAIL_CLOSED, FAIL_OPEN)]).await.unwrap();
    let request = chat(r#"{"completion_tokens":4}"#, &json!({"max_tokens": 5}));
    assert_eq!(request.send(envoy.address).await.status, 200, "{}", envoy.log());
    redis.kill();
    for _ in 0..2 {
        let answer = request.send(envoy.address).await;
        let id = answer.header("x-tollgate-reservation").unwrap_or_default();
        assert_eq!((answer.status, id.len(), id.get(..2)), (200, 32, Some("02")), "{}", envoy.log());
    }
    let answer = request.send(envoy.address).await;
    assert_eq!(answer.error(), "503 outage_allowance_exhausted");
    // A slot more than a minute, which no SDK waits for.
    let told = (answer.header("retry-after"), answer.header("x-should-retry"));
    assert_eq!(told, (Some("61"), Some("false")));
    assert_eq!(mock.requests().len(), 3);
    assert!(redis.restart());
    // What Redis had of the first request is booked again; the others are booked after it.
    let client = server.client().await;
    let billed = mock.ledger().nanos;
    eventually("all are booked", || {
        let mut client = client.clone();
        async move {
            // It may not be connected again yet.
            let report = client.get_spend(GetSpendRequest::default()).await.ok();
            let spend = report.and_then(|report| report.into_inner().organization?.spend);
            spend.is_some_and(|spend| crate::harness::nanos(spend.spent) == billed)
        }
    })
    .await;
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

/// What the meter has seen is on the disk of the replica, and not in its memory, while the store is out.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_metered_in_an_outage_is_kept_and_booked() {
    if !is_available() || !StoreKind::Redis.is_available() {
        return;
    }
    // It comes back empty: what the replica knows of the reservation is enough.
    let mut redis = RedisServer::start();
    let (mock, directory) = (MockGroq::start().await, tempfile::TempDir::new().unwrap());
    let spool = Spool::open(directory.path(), 64 << 20, "acme").unwrap();
    let ways = Ways { spool: Some(spool.clone()), ..Ways::default() };
    let server = Server::start_on_redis_with((&redis, "acme"), &policy(&[]), ManualClock::new(START), ways);
    let envoy = Envoy::start(&[server.address()], mock.address(), &[]).await.unwrap();
    let request = chat(r#"{"delay_ms":400,"completion_tokens":4}"#, &json!({"max_tokens": 5}));
    let (answer, ()) = tokio::join!(request.send(envoy.address), async {
        eventually("the request is at Groq", || async { mock.requests().len() == 1 }).await;
        redis.kill();
    });
    assert_eq!(answer.status, 200);
    let billed = mock.ledger().nanos;
    eventually("it is kept", || async { spool.state().records == 1 }).await;
    assert_eq!(spool.state().cost_nanos, billed);
    assert!(redis.restart());
    let store = Fixture::of_redis(settings(&redis, "acme")).store;
    let _delivery = server.deliver_spooled(store);
    let client = server.client().await;
    eventually("it is booked", || {
        let mut client = client.clone();
        async move {
            let report = client.get_spend(GetSpendRequest::default()).await.ok();
            let spend = report.and_then(|report| report.into_inner().organization?.spend);
            spend.is_some_and(|spend| crate::harness::nanos(spend.spent) == billed)
        }
    })
    .await;
    assert_eq!(spool.state().records, 0);
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

/// A listener that takes connections and says nothing, and the cluster of it under the name `silent`.
async fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    format!(
        "  clusters:
  - name: silent
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: silent
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
"
    )
}

/// Puts a filter, by its prefix of statistics, in front of what says nothing.
fn filter_at_silent(prefix: &str) -> (String, String) {
    let at = |cluster| {
        format!(
            "              stat_prefix: {prefix}
              grpc_service:
                envoy_grpc: {{ cluster_name: {cluster} }}"
        )
    };
    (at("tollgate"), at("silent"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_phase_that_does_not_answer_sends_nothing_and_costs_nothing() {
    let (silent, (from, to)) = (silent().await, filter_at_silent("request"));
    let changes = [("  clusters:\n", silent.as_str()), (from.as_str(), to.as_str())];
    let Some(edge) = Edge::start_on(StoreKind::Embedded, &policy(&[]), &changes).await else { return };
    let answer = edge.chat("{}", &json!({})).await;
    assert_eq!(answer.error(), "504 policy_unavailable");
    edge.settled().await;
    assert_eq!(edge.mock.requests().len(), 0);
    assert_eq!((edge.spent().await, edge.spend().await.requests), (0, 0));
}

/// A stream passes as if the meter were not there, however long it is silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_meter_that_does_not_answer_delays_nothing() {
    let (silent, (from, to)) = (silent().await, filter_at_silent("meter"));
    let changes = [("  clusters:\n", silent.as_str()), (from.as_str(), to.as_str())];
    let Some(edge) = Edge::start_on(StoreKind::Embedded, &policy(&[]), &changes).await else { return };
    let answer = edge.chat("{}", &json!({"stream": true, "max_tokens": 50})).await;
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8_lossy(&answer.body).ends_with("data: [DONE]\n\n"));
    // Nobody told what it used: it is as if nobody had reported it.
    assert_eq!(edge.spend().await.unsettled_requests, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_circuit_breaker_stops_costs_nothing() {
    let full = (
        "  clusters:\n",
        "  clusters:
  - name: full
    type: STATIC
    connect_timeout: 1s
    circuit_breakers: { thresholds: [ { max_connections: 1, max_pending_requests: 0, max_requests: 0 } ] }
    load_assignment:
      cluster_name: full
      endpoints:
      - lb_endpoints:
        - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 1 } } }
",
    );
    let route = (
        "              - match: { path: /openai/v1/responses }
                route: *to_groq",
        "              - match: { path: /openai/v1/responses }
                route: { cluster: full }",
    );
    let Some(edge) = Edge::start_on(StoreKind::Embedded, &policy(&[]), &[full, route]).await else { return };
    let body = json!({"model": "openai/gpt-oss-20b", "input": "hi"});
    let answer = edge.send(&Request::json("/openai/v1/responses", super::edge::KEY, &body)).await;
    assert_eq!(answer.error(), "503 upstream_unavailable");
    edge.settled().await;
    assert_eq!((edge.spent().await, edge.spend().await.requests), (0, 0));
}

/// Groq takes the request and hangs up: it may have worked for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_groq_that_hangs_up_before_it_answers_is_charged_the_input() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rude = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 64 * 1024];
            let _ = stream.read(&mut request).await;
        }
    });
    let envoy = Envoy::start(&[edge.server.address()], rude, &[]).await.unwrap();
    let fields = json!({"stream": true, "max_tokens": 5});
    let answer = chat("{}", &fields).send(envoy.address).await;
    assert_eq!(answer.error(), "503 upstream_unavailable");
    edge.settled().await;
    let tokens = chat_body("{}", &fields).to_string().len().div_ceil(3);
    assert_eq!(edge.spent().await, u64::try_from(tokens).unwrap() * 75);
}

/// A stream that outlives the service is settled when that ends, by the team's rule for what nobody knows the end of.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_outlives_the_service_is_settled_when_it_stops() {
    if !is_available() || !StoreKind::Redis.is_available() {
        return;
    }
    let redis = RedisServer::start();
    let (mock, clock) = (MockGroq::start().await, ManualClock::new(START));
    let replica = || Server::start_on_redis(&redis, "acme", &policy(&[]), clock.clone());
    let (server, other) = (replica(), replica());
    let envoy = Envoy::start(&[server.address()], mock.address(), &[]).await.unwrap();
    let fields = json!({"stream": true, "max_tokens": 50});
    let mut exchange =
        chat(r#"{"completion_tokens":50,"stall_after":9}"#, &fields).start(envoy.address).await;
    exchange.until(|text| text.matches("\"delta\":{\"content\":\"").count() > 9).await;
    assert!(server.stop().await, "the drain was not long enough");
    let spend = super::edge::organization_spend(&mut other.client().await).await;
    assert_eq!(spend.unsettled_requests, 0);
    assert!(crate::harness::nanos(spend.spend.unwrap().spent) > 50 * 300);
}
