//! What is charged for every way in which an answer can go, to the nano-dollar.

use serde_json::{Value, json};
use tollgate::rpc::proto;

use super::{
    edge::{Edge, KEY, chat, chat_body, policy},
    http::Request,
};
use crate::harness::{StoreKind, eventually, nanos, team_spend, used};

/// gpt-oss-20b, in nano-dollars a token.
const INPUT: u64 = 75;
const OUTPUT: u64 = 300;

fn tokens_of(length: usize) -> u64 {
    u64::try_from(length).unwrap().div_ceil(3)
}

/// A form with a file of `audio_bytes`.
fn form(path: &str, response_format: &str, directive: &str, audio_bytes: usize) -> Request {
    let mut body = Vec::new();
    for (name, value) in [
        ("model", "whisper-large-v3-turbo"),
        ("response_format", response_format),
        ("prompt", &format!("mock:{directive}")),
    ] {
        let part = format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    body.extend_from_slice(
        b"--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n",
    );
    body.resize(body.len() + audio_bytes, 0x80);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    Request::post(path, KEY, &body).header("content-type", "multipart/form-data; boundary=XX")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_answer_is_charged_as_groq_bills_it() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let details =
        r#"{"prompt_tokens":4641,"cached_tokens":4608,"completion_tokens":1817,"reasoning_tokens":200}"#;
    for model in ["openai/gpt-oss-120b", "openai/gpt-oss-20b"] {
        for fields in [
            json!({"model": model}),
            json!({"model": model, "stream": true}),
            json!({"model": model, "stream": true, "stream_options": {"include_usage": true}}),
        ] {
            assert_eq!(edge.chat(details, &fields).await.status, 200);
        }
        for stream in [false, true] {
            let body = json!({"model": model, "input": format!("mock:{details}"), "stream": stream});
            assert_eq!(edge.send(&Request::json("/openai/v1/responses", KEY, &body)).await.status, 200);
        }
    }
    // Groq's own example, among them.
    assert_eq!(edge.agrees().await.requests, 10);
    let speech = json!({"model": "canopylabs/orpheus-v1-english", "input": "Grüß Gott", "voice": "x"});
    assert_eq!(edge.send(&Request::json("/openai/v1/audio/speech", KEY, &speech)).await.status, 200);
    for (path, directive) in [
        ("/openai/v1/audio/transcriptions", r#"{"duration":5.05}"#),
        ("/openai/v1/audio/transcriptions", r#"{"duration":61.337}"#),
        ("/openai/v1/audio/translations", "{}"),
    ] {
        let answer = edge.send(&form(path, "verbose_json", directive, 3 << 20)).await;
        assert_eq!(answer.status, 200, "{:?}", String::from_utf8_lossy(&answer.body));
    }
    edge.agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_split_of_an_answer_is_charged_the_same() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    for split in [1, 2, 3, 7, 50] {
        let directive = format!(r#"{{"completion_tokens":6,"reasoning_tokens":2,"split":{split}}}"#);
        for fields in [
            json!({}),
            json!({"stream": true}),
            json!({"stream": true, "stream_options": {"include_usage": true}}),
        ] {
            assert_eq!(edge.chat(&directive, &fields).await.status, 200);
        }
    }
    assert_eq!(edge.agrees().await.requests, 15);
}

/// Groq writes faster than anybody reads, and what Envoy has passed on to the client it still has to tell the service.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_as_long_and_fast_as_can_be_is_charged_to_its_last_token() {
    let policy = policy(&[("max_output_tokens = 2048", "max_output_tokens = 8192")]);
    let Some(edge) = Edge::start(&policy).await else { return };
    for directive in [
        r#"{"completion_tokens":6000}"#,
        // Nothing but the text that was seen tells what it costs.
        r#"{"completion_tokens":6000,"no_usage":true}"#,
        // All of it in a few pieces, the last ones at once.
        r#"{"completion_tokens":6000,"split":65536}"#,
    ] {
        let fields = json!({"stream": true, "max_completion_tokens": 6000});
        let answer = edge.chat(directive, &fields).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.len() > 900_000, "{} bytes", answer.body.len());
        edge.agrees().await;
    }
    assert_eq!(edge.spend().await.requests, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_groq_cost_nothing_and_reach_the_client() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    for status in [400, 401, 413, 498, 500, 503] {
        let answer = edge.chat(&format!(r#"{{"status":{status}}}"#), &json!({})).await;
        assert_eq!(answer.status, status);
        assert!(answer.json()["error"]["message"].is_string());
    }
    let spend = edge.agrees().await;
    assert_eq!((spend.requests, edge.spent().await), (6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_of_groq_closes_the_model_for_as_long_as_it_asks() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let answer = edge.chat(r#"{"status":429,"retry_after":7}"#, &json!({})).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("7")));
    edge.settled().await;
    let answer = edge.chat("{}", &json!({})).await;
    assert_eq!(answer.error(), "429 rate_limit_exceeded");
    assert_eq!(answer.json()["error"]["violations"][0]["reason"], "upstream_rate_limited");
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!(edge.chat("{}", &json!({"model": "openai/gpt-oss-120b"})).await.status, 200);
    edge.server.clock.set(edge.server.clock.now().plus(7_000));
    assert_eq!(edge.chat("{}", &json!({})).await.status, 200);
    edge.agrees().await;
}

/// A stream's request that nothing is changed in, so that Groq counts the bytes that the estimate counted.
fn whole(directive: &str) -> (Request, usize) {
    let fields =
        json!({"stream": true, "max_completion_tokens": 100, "stream_options": {"include_usage": true}});
    let body = chat_body(directive, &fields).to_string();
    (Request::post("/openai/v1/chat/completions", KEY, body.as_bytes()), body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_is_charged_what_was_seen() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    // By Groq.
    let (request, length) = whole(r#"{"completion_tokens":50,"cut_after":7}"#);
    edge.send(&request).await;
    edge.settled().await;
    assert_eq!(edge.spent().await, tokens_of(length) * INPUT + 7 * OUTPUT);
    // By the client, at the last piece that there is.
    let (request, length) = whole(r#"{"completion_tokens":50,"stall_after":9}"#);
    let before = edge.spent().await;
    // The first piece carries no token.
    let ninth = |text: &str| text.matches("\"delta\":{\"content\":\"").count() > 9;
    request.start(edge.envoy.address).await.until(ninth).await;
    edge.settled().await;
    assert_eq!(edge.spent().await - before, tokens_of(length) * INPUT + 9 * OUTPUT);
    edge.agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_any_answer_is_settled_at_once() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let fields = json!({"stream": true, "max_completion_tokens": 100});
    let waiting = chat(r#"{"delay_ms":20000}"#, &fields);
    let exchange = waiting.start(edge.envoy.address).await;
    eventually("the request is at Groq", || async { edge.mock.requests().len() == 1 }).await;
    drop(exchange);
    edge.settled().await;
    let length = chat_body(r#"{"delay_ms":20000}"#, &fields).to_string().len();
    assert_eq!(edge.spent().await, tokens_of(length) * INPUT);
    // Of an answer in one piece nobody knows whether Groq made it: the team's rule, the worst case.
    let before = edge.spent().await;
    let fields = json!({"max_completion_tokens": 100});
    let waiting = chat(r#"{"delay_ms":20000}"#, &fields);
    let exchange = waiting.start(edge.envoy.address).await;
    eventually("the request is at Groq", || async { edge.mock.requests().len() == 2 }).await;
    drop(exchange);
    edge.settled().await;
    let length = chat_body(r#"{"delay_ms":20000}"#, &fields).to_string().len();
    assert_eq!(edge.spent().await - before, tokens_of(length) * INPUT + 100 * OUTPUT);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_tell_is_charged_by_the_stated_rule() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    // A stream without usage: what was sent and what was seen, which is what the mock bills.
    let (request, _) = whole(r#"{"completion_tokens":50,"no_usage":true}"#);
    assert_eq!(edge.send(&request).await.status, 200);
    edge.agrees().await;
    // Compressed all the same: nobody can read it, so the worst case counts.
    let before = edge.spent().await;
    let fields = json!({"max_completion_tokens": 100});
    let answer = edge.chat(r#"{"force_gzip":true,"completion_tokens":3}"#, &fields).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
    edge.settled().await;
    let length = chat_body(r#"{"force_gzip":true,"completion_tokens":3}"#, &fields).to_string().len();
    assert_eq!(edge.spent().await - before, tokens_of(length) * INPUT + 100 * OUTPUT);
    // A transcription that does not tell its length: by its bytes, at 4,000 a second.
    let before = edge.spent().await;
    let answer = edge.send(&form("/openai/v1/audio/transcriptions", "json", "{}", 80_000)).await;
    assert_eq!(answer.status, 200);
    edge.settled().await;
    let nanos_of_20_seconds = (20_u64 * 40_000_000).div_ceil(3_600);
    assert_eq!(edge.spent().await - before, nanos_of_20_seconds);
}

/// What nobody settles is released, but Groq did answer: that is not free.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_costs_the_worst_case_also_under_release() {
    let release = ("on_exceed = \"clamp\"", "on_exceed = \"clamp\"\non_unsettled = \"release\"");
    let Some(edge) = Edge::start(&policy(&[release])).await else { return };
    let fields = json!({"max_completion_tokens": 100});
    let directive = r#"{"force_gzip":true,"completion_tokens":3}"#;
    assert_eq!(edge.chat(directive, &fields).await.status, 200);
    let length = chat_body(directive, &fields).to_string().len();
    let worst_case = tokens_of(length) * INPUT + 100 * OUTPUT;
    eventually("it is booked", || async { edge.spent().await == worst_case }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_holds_what_it_declares_until_somebody_reports() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let declared = json!({"input_file_id": "file_1", "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "metadata": {"tollgate_model": "openai/gpt-oss-20b", "tollgate_input_tokens": "1000",
                     "tollgate_max_output_tokens": "2000"}});
    let answer = edge.send(&Request::json("/openai/v1/batches", KEY, &declared)).await;
    assert_eq!(answer.status, 200, "{:?}", String::from_utf8_lossy(&answer.body));
    let reservation = answer.header("x-tollgate-reservation").unwrap().to_owned();
    assert_eq!(edge.spend().await.unsettled_requests, 1);
    let used = used(&reservation, 900, 100);
    edge.server.client().await.record_usage(used).await.unwrap();
    edge.settled().await;
    assert_eq!(edge.spent().await, (900 * INPUT + 100 * OUTPUT) / 2);
    // Of many lines, in a week: more output than one answer can have, and the rates of the team do not count it.
    let declared = json!({"input_file_id": "file_1", "endpoint": "/v1/chat/completions", "completion_window": "7d",
        "metadata": {"tollgate_model": "openai/gpt-oss-20b", "tollgate_input_tokens": "1000000",
                     "tollgate_max_output_tokens": "2000000", "tollgate_batch_requests": "1000"}});
    let answer = edge.send(&Request::json("/openai/v1/batches", KEY, &declared)).await;
    assert_eq!(answer.status, 200, "{:?}", String::from_utf8_lossy(&answer.body));
    let undeclared: Value = json!({"input_file_id": "file_1", "endpoint": "/v1/chat/completions"});
    let answer = edge.send(&Request::json("/openai/v1/batches", KEY, &undeclared)).await;
    assert_eq!(answer.error(), "400 invalid_request_error");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_back_too_early_is_booked_all_the_same() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let (request, _) = whole(r#"{"completion_tokens":20,"chunk_ms":20}"#);
    let mut exchange = request.start(edge.envoy.address).await;
    let head = exchange.until(|text| text.contains("\r\n\r\n")).await;
    let id = head.split("x-tollgate-reservation: ").nth(1).unwrap().split("\r\n").next().unwrap();
    // Whoever reports by hand that it was never sent is wrong.
    let report = proto::RecordUsageRequest {
        reservation_id: id.to_owned(),
        outcome: proto::Outcome::NotSent.into(),
        ..Default::default()
    };
    edge.server.client().await.record_usage(report).await.unwrap();
    assert_eq!(exchange.finish().await.status, 200);
    eventually("it is booked", || async { edge.spent().await == edge.mock.ledger().nanos }).await;
    assert_eq!(edge.agrees().await.requests, 1);
    // For whom it was.
    let team = team_spend(&mut edge.server.client().await, "chatbot").await;
    assert_eq!(team.by_key[0].name, "chatbot-test-web");
    assert_eq!(nanos(team.by_key[0].spent.clone()), edge.mock.ledger().nanos);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_of_the_proxy_are_one_reservation_and_one_settlement() {
    let retrying = (
        "              - match: { path: /openai/v1/chat/completions }
                route: *to_groq",
        "              - match: { path: /openai/v1/chat/completions }
                route:
                  cluster: groq
                  timeout: 0s
                  retry_policy: { retry_on: 5xx, num_retries: 2 }",
    );
    let Some(edge) = Edge::start_on(StoreKind::Embedded, &policy(&[]), &[retrying]).await else { return };
    assert_eq!(edge.chat(r#"{"status":503}"#, &json!({})).await.status, 503);
    assert_eq!(edge.mock.requests().len(), 3);
    assert_eq!(edge.agrees().await.requests, 1);
}
