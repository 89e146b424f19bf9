//! Labels of requests through Envoy: named by headers, and known to reports.

use serde_json::json;
use tollgate::rpc::proto::{QueryUsageRequest, report_service_client::ReportServiceClient};

use super::{
    checks::{ask, check, status},
    edge::{Edge, KEY, chat, policy},
};
use crate::harness::{START, Server, StoreKind, connect};

fn labelled() -> String {
    let headers =
        "request_phase = true\nlabel_headers = { cost_center = \"X-Cost-Center\", env = \"x-env\" }";
    let defaults = "labels = { cost_center = \"of the team\" }\nbudget =";
    let reports = "[reports]\nlabels = [\"cost_center\", \"env\"]\n\n[envoy]";
    policy(&[("request_phase = true", headers), ("budget =", defaults), ("[envoy]", reports)])
}

async fn labels_reach_reports_and_nothing_behind(store: StoreKind) {
    let Some(edge) = Edge::start_on(store, &labelled(), &[]).await else { return };
    for (cost_center, env) in [(Some(" 4711 "), "prod"), (Some(""), ""), (None, "pröd")] {
        let mut request =
            chat(r#"{"completion_tokens":40}"#, &json!({"max_tokens": 100})).header("x-env", env);
        if let Some(cost_center) = cost_center {
            request = request.header("x-cost-center", cost_center);
        }
        let answer = edge.send(&request).await;
        assert_eq!(answer.status, 200, "{:?}", String::from_utf8_lossy(&answer.body));
    }
    for received in edge.mock.requests() {
        assert!(!received.headers.contains_key("x-cost-center") && !received.headers.contains_key("x-env"));
    }
    edge.agrees().await;
    let mut reports = ReportServiceClient::new(connect(edge.server.address()).await);
    let mut by = async |label: &str| -> Vec<(String, i64)> {
        let request = QueryUsageRequest {
            start_date: "2026-11-01".to_owned(),
            end_date: "2026-12-01".to_owned(),
            group_by: vec![format!("labels.{label}")],
            ..Default::default()
        };
        let answer = reports.query_usage(request).await.unwrap().into_inner();
        let row = |row: tollgate::rpc::proto::UsageRow| {
            let value = row.dimensions.unwrap().labels.into_values().next().unwrap_or_default();
            (value, row.amounts.unwrap().request_count)
        };
        answer.rows.into_iter().map(row).collect()
    };
    assert_eq!(by("cost_center").await, [("4711".to_owned(), 1), ("of the team".to_owned(), 2)]);
    assert_eq!(by("env").await, [(String::new(), 1), ("prod".to_owned(), 1), ("pröd".to_owned(), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_reach_reports_and_nothing_behind_on_the_embedded_store() {
    labels_reach_reports_and_nothing_behind(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_reach_reports_and_nothing_behind_on_redis() {
    labels_reach_reports_and_nothing_behind(StoreKind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_is_no_label_is_refused() {
    let server = Server::start(StoreKind::Embedded, &labelled(), START).await;
    let (bearer, body) =
        (format!("Bearer {KEY}"), json!({"model": "openai/gpt-oss-20b", "max_tokens": 10, "messages": []}));
    let (most, long) = ("x".repeat(256), "x".repeat(257));
    for (number, (value, expected)) in
        [(most.as_str(), 200), (&long, 400), ("a\tb", 400), ("a\u{7f}b", 400), ("", 200)]
            .into_iter()
            .enumerate()
    {
        let headers = [("authorization", bearer.as_str()), ("x-cost-center", value)];
        let answer = ask(&server, check(&number.to_string(), &headers, &body)).await;
        assert_eq!(status(&answer), expected, "{value:.10}");
    }
    assert!(server.stop().await);
}
