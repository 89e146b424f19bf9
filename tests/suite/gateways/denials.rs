//! What a gateway answers where Tollgate refuses is what clients get behind Envoy.

use serde_json::{Value, json};
use tollgate::rpc::envoy::service::auth::v3::{
    authorization_client::AuthorizationClient, check_response::HttpResponse,
};

use super::{
    Language,
    running::{LARGE, SMALL, Scene, chat, secret},
};
use crate::{envoy::checks::check, harness::connect};

/// An answer, as far as SDKs and programs look at it. Numbers of tokens are left out: Envoy's path estimates another body.
#[derive(Debug, PartialEq)]
struct Told {
    status: u16,
    error: Value,
    should_retry: Option<String>,
    has_retry_after: bool,
}

impl Told {
    fn new(status: u16, body: &Value, header: impl Fn(&str) -> Option<String>) -> Self {
        let error = &body["error"];
        let violations = error["violations"].as_array().into_iter().flatten();
        let told = |v: &Value| {
            json!([v["reason"], v["limit_id"], v["limit"], v["retryable"], v["retry_delay_seconds"].is_f64()])
        };
        let violations: Vec<_> = violations.map(told).collect();
        let error = json!([error["type"], error["code"], error["message"].is_string(), violations]);
        Self {
            status,
            error,
            should_retry: header("x-should-retry"),
            has_retry_after: header("retry-after").is_some(),
        }
    }
}

pub(super) async fn are_envoys(language: Language) {
    if !tokio::task::spawn_blocking(move || language.is_available()).await.unwrap() {
        return;
    }
    let scene = Scene::start(language, &[("MAX_WAIT_SECONDS", "0")]).await;
    // Uses up the one request of a minute, and the one place in flight.
    assert_eq!(scene.send(&chat("strict", &json!({}), &json!({}))).await.status, 200);
    let stalled = chat("single", &json!({"stall_after": 2}), &json!({"stream": true}));
    let mut open = scene.begin(&stalled).await;
    open.until(|text| text.contains("\"content\"")).await;
    let sent = scene.mock.ledger().requests;

    let mut denied = Vec::new();
    for (team, fields) in [
        ("unknown", json!({})),
        ("strict", json!({"model": LARGE})),
        ("roomy", json!({"model": "unheard-of"})),
        ("strict", json!({"max_completion_tokens": 51})),
        ("poor", json!({})),
        ("small", json!({})),
        ("strict", json!({"max_completion_tokens": 50})),
        ("single", json!({})),
        // More than one limit.
        ("strict", json!({"model": LARGE, "max_completion_tokens": 51})),
    ] {
        let answer = scene.send(&chat(team, &json!({}), &fields)).await;
        let by_gateway =
            Told::new(answer.status, &answer.json(), |name| answer.header(name).map(str::to_owned));
        assert_eq!(by_gateway, behind_envoy(&scene, team, &fields).await, "{team} {fields}");
        denied.push(answer.status);
    }
    assert_eq!(denied, [401, 403, 404, 400, 402, 413, 429, 429, 403]);
    for (body, status) in [("no JSON", 400), ("[]", 400), ("{}", 400), (r#"{"model":"m","n":2}"#, 400)] {
        let request = crate::envoy::http::Request::post(
            "/openai/v1/chat/completions",
            &secret("roomy"),
            body.as_bytes(),
        );
        let answer = scene.send(&request).await;
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error", "{body}");
    }
    let nothing_of_it_went_on = scene.mock.ledger().requests;
    assert_eq!(nothing_of_it_went_on, sent);
}

/// What `Check` answers to the same request.
async fn behind_envoy(scene: &Scene, team: &str, fields: &Value) -> Told {
    let mut body = json!({"model": SMALL, "messages": [{"role": "user", "content": "mock:{}"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    let bearer = format!("Bearer {}", secret(team));
    let request = check(&format!("{team}-{fields}"), &[("authorization", &bearer)], &body);
    let mut client = AuthorizationClient::new(connect(scene.tollgate().address()).await);
    let answer = client.check(request).await.unwrap().into_inner();
    let Some(HttpResponse::DeniedResponse(denied)) = answer.http_response else {
        panic!("allowed: {answer:?}")
    };
    let header = |name: &str| {
        let headers = denied.headers.iter().filter_map(|option| option.header.as_ref());
        let found = headers.filter(|header| header.key == name).map(|header| header.value.to_vec());
        found.map(|value| String::from_utf8(value).unwrap()).next()
    };
    let status = u16::try_from(denied.status.as_ref().expect("an HTTP status").code).unwrap();
    Told::new(status, &serde_json::from_str(&denied.body).unwrap(), header)
}
