//! Limits in shadow on Envoy's path: nothing is refused, and clients are told of no limit that they do not have to respect.

use serde_json::json;
use tollgate::rpc::envoy::service::auth::v3::check_response::HttpResponse;

use super::{
    checks::{ask, check, reservation, status},
    edge::{KEY, policy},
};
use crate::harness::{START, Server, StoreKind};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_shadow_refuses_and_clamps_nothing() {
    let changes = [
        ("models = [\"*\"]", "mode = \"shadow\"\nmodels = [\"openai/gpt-oss-120b\"]"),
        ("max_output_tokens = 2048", "max_output_tokens = 1"),
        ("requests_per_day = 1_000_000", "requests_per_day = 0"),
    ];
    let server = Server::start(StoreKind::Embedded, &policy(&changes), START).await;
    let bearer = format!("Bearer {KEY}");
    let body = json!({"model": "openai/gpt-oss-20b", "max_tokens": 10, "messages": []});
    let answer = ask(&server, check("1", &[("authorization", bearer.as_str())], &body)).await;
    assert_eq!(status(&answer), 200);
    assert!(!reservation(&answer).is_empty());
    let Some(HttpResponse::OkResponse(ok)) = &answer.http_response else { unreachable!() };
    let told = ok.response_headers_to_add.iter().filter_map(|header| header.header.as_ref());
    let told: Vec<_> = told.filter(|header| header.key.starts_with(b"x-ratelimit")).collect();
    assert!(told.is_empty(), "{told:?}");
    assert!(server.stop().await);
}
