//! What goes on to Groq and how, and what the client hears where nothing does.

use std::time::Duration;

use serde_json::json;
use tollgate::domain::Timestamp;

use super::{
    edge::{Edge, KEY, chat, chat_body, policy},
    http::Request,
};
use crate::{harness::UPSTREAM_KEY, support::mock_groq::Received};

const CHAT: &str = "/openai/v1/chat/completions";

fn header<'a>(received: &'a Received, name: &str) -> Option<&'a str> {
    received.headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_request_goes_on_with_groqs_key_and_nothing_of_the_client() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let request = chat(r#"{"completion_tokens":40,"gzip":true}"#, &json!({"max_tokens": 100}))
        .header("accept-encoding", "gzip")
        .header("cookie", "session=1")
        .header("x-api-key", KEY)
        .header("x-tollgate-team", "forged");
    let answer = edge.send(&request).await;
    assert_eq!(answer.status, 200, "{:?}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.json()["usage"]["completion_tokens"], 40);
    let received = edge.mock.requests();
    let [received] = received.as_slice() else { panic!("one request") };
    assert_eq!(header(received, "authorization"), Some(format!("Bearer {UPSTREAM_KEY}").as_str()));
    for name in ["accept-encoding", "cookie", "x-api-key", "x-tollgate-team"] {
        assert_eq!(header(received, name), None, "{name}");
    }
    assert!(!received.headers.values().any(|value| value.to_str().is_ok_and(|value| value.contains(KEY))));
    // The team's own limits, in Groq's units, in place of the organization's that Groq tells.
    assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("1000000"));
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("999999"));
    assert!(answer.header("x-ratelimit-reset-requests").unwrap().ends_with('s'));
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("9000000000"));
    assert!(answer.header("x-tollgate-reservation").is_some());
    let spend = edge.agrees().await;
    assert_eq!(spend.requests, 1);
    assert_eq!(spend.by_model[0].name, "openai/gpt-oss-20b");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_phase_puts_in_what_was_granted() {
    let Some(edge) =
        Edge::start(&policy(&[("request_phase = true", "request_phase = true\ninclude_usage = true")])).await
    else {
        return;
    };
    for (fields, limit) in [
        (json!({}), ("max_completion_tokens", 2048)),
        (json!({"max_tokens": 5000}), ("max_tokens", 2048)),
        (json!({"max_completion_tokens": 5000, "max_tokens": 7}), ("max_completion_tokens", 2048)),
        (json!({"max_completion_tokens": 30}), ("max_completion_tokens", 30)),
    ] {
        let answer = edge.chat(r#"{"completion_tokens":5000}"#, &fields).await;
        assert_eq!(answer.status, 200, "{fields}");
        let received = edge.mock.requests().pop().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
        assert_eq!(body[limit.0], limit.1, "{fields}");
        assert_eq!(
            header(&received, "content-length").unwrap(),
            received.body_length.to_string(),
            "{fields}"
        );
        assert_eq!(answer.json()["usage"]["completion_tokens"], limit.1, "{fields}");
    }
    let answer = edge.chat("{}", &json!({"stream": true, "max_tokens": 9})).await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains("\"choices\":[],") && text.contains("[DONE]"), "{text}");
    // A body of megabytes passes the same way.
    let long = "lorem ipsum ".repeat(300_000);
    let body = json!({"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": long}]});
    let answer = edge.send(&Request::json(CHAT, KEY, &body)).await;
    assert_eq!(answer.status, 200, "{:?}", String::from_utf8_lossy(&answer.body));
    let received = edge.mock.requests().pop().unwrap();
    assert_eq!(received.body_length, body.to_string().len() + "\"max_completion_tokens\":2048,".len());
    let answer = edge
        .send(&Request::json(
            "/openai/v1/responses",
            KEY,
            &json!({"model": "openai/gpt-oss-20b", "input": "hi"}),
        ))
        .await;
    assert_eq!(answer.status, 200);
    let body: serde_json::Value = serde_json::from_slice(&edge.mock.requests().pop().unwrap().body).unwrap();
    assert_eq!(body["max_output_tokens"], 2048);
    edge.agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_request_phase_nothing_is_clamped() {
    let Some(edge) = Edge::start(&policy(&[("request_phase = true", "request_phase = false")])).await else {
        return;
    };
    for (fields, expected) in [
        (json!({"max_tokens": 2048}), "200 "),
        (json!({"max_tokens": 2049}), "400 max_output_tokens_exceeded"),
        (json!({}), "400 max_output_tokens_exceeded"),
    ] {
        let answer = edge.chat("{}", &fields).await;
        assert_eq!(answer.error(), expected, "{fields}");
    }
    let answer = edge.chat("{}", &json!({})).await;
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("gives no `max_completion_tokens`"));
    edge.agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_denial_is_an_error_that_sdks_understand() {
    let narrow = policy(&[
        ("requests_per_day = 1_000_000", "requests_per_minute = 3"),
        (
            "tokens_per_day = 9_000_000_000",
            "tokens_per_minute = 10_000\noperations = [\"chat_completion\", \"response\"]",
        ),
        ("models = [\"*\"]", "models = [\"openai/*\", \"acme/*\"]"),
    ]);
    let Some(edge) = Edge::start(&narrow).await else { return };
    let send = async |request: Request, expected: &str| {
        let answer = edge.send(&request).await;
        assert_eq!(answer.error(), expected, "{request:?}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        answer
    };
    let body = |fields| chat_body("{}", &fields);
    let chat = |fields| Request::json(CHAT, KEY, &body(fields));
    for (request, expected) in [
        (Request::new("POST", CHAT), "401 invalid_api_key"),
        (Request::json(CHAT, "tgk_wrong", &body(json!({}))), "401 invalid_api_key"),
        (Request::json(CHAT, &"x".repeat(600), &body(json!({}))), "401 invalid_api_key"),
        (Request::new("POST", CHAT).header("authorization", "Basic eDp5"), "401 invalid_api_key"),
        (Request::new("GET", "/openai/v1/unknown").key(KEY), "404 unknown_url"),
        (Request::new("DELETE", "/openai/v1/models").key(KEY), "404 unknown_url"),
        (Request::new("GET", "/openai/v1/files").key(KEY), "403 permission_denied"),
        (chat(json!({"model": "whisper-large-v3"})), "403 permission_denied"),
        (chat(json!({"model": "acme/free"})), "404 model_not_found"),
        (
            Request::json("/openai/v1/embeddings", KEY, &json!({"model": "openai/x", "input": "a"})),
            "403 permission_denied",
        ),
        (chat(json!({"model": "openai/gpt-oss-20b", "n": 300})), "400 invalid_request_error"),
        (chat(json!({"max_tokens": "many"})), "400 invalid_request_error"),
        (Request::post(CHAT, KEY, b"{\"model\":\"a\",\"model\":\"b\"}"), "400 invalid_request_error"),
        (Request::post(CHAT, KEY, b"not json"), "400 invalid_request_error"),
        (Request::post(CHAT, KEY, b""), "400 invalid_request_error"),
        (Request::post(CHAT, KEY, "[".repeat(100_000).as_bytes()), "400 invalid_request_error"),
        (chat(json!({})).header("content-encoding", "gzip"), "400 invalid_request_error"),
        (Request::post(CHAT, KEY, &vec![b' '; 5 << 20]), "413 request_too_large"),
        (chat(json!({"padding": "x".repeat(40_000)})), "413 request_too_large"),
    ] {
        let answer = send(request, expected).await;
        assert_ne!(answer.header("x-should-retry"), Some("true"), "{expected}");
    }
    for _ in 0..3 {
        assert_eq!(edge.send(&chat(json!({"max_tokens": 1}))).await.status, 200);
    }
    let answer = send(chat(json!({"max_tokens": 1})), "429 rate_limit_exceeded").await;
    let delay: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((60..=61).contains(&delay), "{delay}");
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("0"));
    let violation = &answer.json()["error"]["violations"][0];
    assert_eq!(violation["limit_id"], "teams.chatbot.requests_per_minute");
    assert_eq!((&violation["limit"], &violation["used"]), (&json!(3), &json!(3)));
    // Exactly at the instant that was told, and not a millisecond before.
    let delay = Duration::from_secs_f64(violation["retry_delay_seconds"].as_f64().unwrap());
    let ms = u64::try_from(delay.as_micros().div_ceil(1_000)).unwrap();
    let now: Timestamp = edge.server.clock.now();
    edge.server.clock.set(now.plus(ms - 1));
    send(chat(json!({"max_tokens": 1})), "429 rate_limit_exceeded").await;
    edge.server.clock.set(now.plus(ms));
    assert_eq!(edge.send(&chat(json!({"max_tokens": 1}))).await.status, 200);
    // Nothing that was denied reached Groq.
    assert_eq!(edge.mock.requests().len(), 4);
    assert_eq!(edge.agrees().await.requests, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_budget_is_402_and_is_not_retried() {
    let Some(edge) = Edge::start(&policy(&[("\"100000.00\"", "\"0.00002\"")])).await else { return };
    assert_eq!(edge.chat("{}", &json!({"max_tokens": 20})).await.status, 200);
    edge.settled().await;
    let answer = edge.chat("{}", &json!({"max_tokens": 100})).await;
    assert_eq!(answer.error(), "402 insufficient_quota");
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(answer.json()["error"]["violations"][0]["reason"], "team_budget_exhausted");
    edge.agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_costs_nothing_goes_on_without_a_reservation() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let answer = edge.send(&Request::new("GET", "/openai/v1/models").key(KEY)).await;
    assert_eq!((answer.status, answer.header("x-tollgate-reservation")), (200, None));
    let received = edge.mock.requests().pop().unwrap();
    assert_eq!(header(&received, "authorization"), Some(format!("Bearer {UPSTREAM_KEY}").as_str()));
    let spelt = edge.send(&Request::new("POST", "/openai//v1/models/../chat/completions").key(KEY)).await;
    // One spelling of each path: Envoy makes it, the policy decides on it.
    assert_eq!(spelt.error(), "400 invalid_request_error");
    let escaped = edge.send(&Request::new("POST", "/openai/v1/chat%2Fcompletions").key(KEY)).await;
    assert_eq!(escaped.status, 400);
    assert_eq!(edge.mock.requests().len(), 1);
    assert_eq!(edge.agrees().await.requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_json_is_taken_for_json() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    for kind in ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-7"] {
        let answer = edge.send(&chat("{}", &json!({})).header("content-type", kind)).await;
        assert_eq!(answer.error(), "400 invalid_request_error", "{kind}");
    }
    assert_eq!(edge.mock.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_organization_are_not_told_to_clients() {
    let text = policy(&[("requests_per_day = 1_000_000\ntokens_per_day = 9_000_000_000\n", "")]);
    let Some(edge) = Edge::start(&text).await else { return };
    let answer = edge.chat("{}", &json!({})).await;
    assert_eq!(answer.status, 200);
    for what in ["limit", "remaining", "reset"] {
        for of in ["requests", "tokens"] {
            assert_eq!(answer.header(&format!("x-ratelimit-{what}-{of}")), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_where_a_request_came_from_goes_up() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let names = [
        "api-key",
        "forwarded",
        "openai-organization",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
    ];
    let request = names.iter().fold(chat("{}", &json!({})), |request, name| request.header(name, "private"));
    assert_eq!(edge.send(&request).await.status, 200);
    let received = edge.mock.requests().pop().unwrap();
    let leaks: Vec<_> = received.headers.iter().filter(|(_, value)| *value == "private").collect();
    assert!(leaks.is_empty(), "{leaks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_chunks_is_decided_and_rewritten_like_any_other() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let request = chat("{}", &json!({})).in_chunks();
    assert_eq!(edge.send(&request).await.status, 200);
    let body: serde_json::Value = serde_json::from_slice(&edge.mock.requests().pop().unwrap().body).unwrap();
    assert_eq!(body["max_completion_tokens"], 2048);
    edge.agrees().await;
}
