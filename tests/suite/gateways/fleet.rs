//! Everything that can happen to a request, and what it costs.

use std::os::unix::process::ExitStatusExt as _;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate::rpc::proto::{ListCooldownsRequest, upstream_service_client::UpstreamServiceClient};

use super::{
    Language, aborts,
    running::{LARGE, SMALL, Scene, chat},
};
use crate::harness::{connect, eventually};

/// Long enough for what waits on a busy machine.
const WAIT: (&str, &str) = ("MAX_WAIT_SECONDS", "20");
const DRAIN: (&str, &str) = ("DRAIN_SECONDS", "1");

pub(super) async fn passes(language: Language) {
    if !tokio::task::spawn_blocking(move || language.is_available()).await.unwrap() {
        return;
    }
    let mut scene = Scene::start(language, &[WAIT, DRAIN]).await;
    answers_are_charged_what_they_say(&scene).await;
    errors_of_groq_cost_nothing(&scene).await;
    requests_wait_for_room(&scene).await;
    a_429_of_groq_closes_the_model(&scene).await;
    aborts::cost_what_went_both_ways(&scene).await;
    scene.agrees().await;
    a_restart_of_tollgate_loses_nothing(&mut scene).await;
    scene.agrees().await;
    let missing = aborts::at_any_moment_cost_no_more_than_groq_bills(&scene).await;
    the_end_reports_what_is_open(&mut scene).await;
    scene.is_short_of(missing).await;
}

/// Answers of all shapes, many at once.
async fn answers_are_charged_what_they_say(scene: &Scene) {
    let directives = [
        json!({}),
        json!({"completion_tokens": 31, "reasoning_tokens": 7}),
        json!({"prompt_tokens": 1234, "cached_tokens": 1000, "completion_tokens": 3}),
        json!({"completion_tokens": 9, "split": 1}),
        json!({"completion_tokens": 40, "split": 1000, "gzip": true}),
        json!({"completion_tokens": 5000}),
    ];
    let shapes = [
        json!({}),
        json!({"stream": true}),
        json!({"stream": true, "stream_options": {"include_usage": true}}),
        json!({"stream": true, "max_tokens": 12}),
        json!({"model": LARGE, "stream": true, "max_completion_tokens": 25}),
    ];
    let mut asked = JoinSet::new();
    for directive in &directives {
        for fields in &shapes {
            let (request, fields) = (chat("roomy", directive, fields), fields.clone());
            let exchange = scene.begin(&request).await;
            asked.spawn(async move { (exchange.finish().await, fields) });
        }
    }
    let mut longest = 0;
    while let Some(answered) = asked.join_next().await {
        let (answer, fields) = answered.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.header("x-tollgate-reservation").is_some());
        let usage =
            if fields["stream"] == true { usage_of(&answer.text()) } else { answer.json()["usage"].clone() };
        let (output, bound) = (usage["completion_tokens"].as_u64().unwrap(), bound_of(&fields));
        assert!(output <= bound, "{output} tokens of {bound}");
        longest = longest.max(output);
    }
    // What was asked for without a bound was cut at what was granted.
    assert_eq!(longest, 2048);
    // A complete answer that does not tell is charged what went both ways.
    let silent = chat("roomy", &json!({"completion_tokens": 50, "no_usage": true}), &json!({"stream": true}));
    assert_eq!(scene.send(&silent).await.status, 200);
}

fn bound_of(fields: &Value) -> u64 {
    ["max_tokens", "max_completion_tokens"].iter().find_map(|name| fields[*name].as_u64()).unwrap_or(2048)
}

/// The usage in the last event but `[DONE]` of a stream that came to its end.
fn usage_of(stream: &str) -> Value {
    let mut events: Vec<_> = stream.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.pop(), Some("[DONE]"), "{stream}");
    let last: Value = serde_json::from_str(events.last().expect("an event")).unwrap();
    last["usage"].clone()
}

async fn errors_of_groq_cost_nothing(scene: &Scene) {
    for status in [400, 401, 413, 498, 500, 503] {
        for stream in [false, true] {
            let answer =
                scene.send(&chat("roomy", &json!({"status": status}), &json!({"stream": stream}))).await;
            assert_eq!(answer.status, status);
            assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());
        }
    }
}

/// One at a time may be in flight: the others wait their turn.
async fn requests_wait_for_room(scene: &Scene) {
    let mut asked = JoinSet::new();
    for stream in [false, true, false, true] {
        let request = chat("single", &json!({"delay_ms": 50}), &json!({"stream": stream}));
        let exchange = scene.begin(&request).await;
        asked.spawn(exchange.finish());
    }
    while let Some(answered) = asked.join_next().await {
        let answer = answered.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// For as long as it asks: the next request waits for that.
async fn a_429_of_groq_closes_the_model(scene: &Scene) {
    let refused = chat("roomy", &json!({"status": 429, "retry_after": 2}), &json!({"stream": true}));
    let answer = scene.send(&refused).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("2")));
    assert_eq!(answer.error(), "429 rate_limit_exceeded");
    let channel = connect(scene.tollgate().address()).await;
    eventually("the model is closed", async || {
        let mut client = UpstreamServiceClient::new(channel.clone());
        let answer = client.list_cooldowns(ListCooldownsRequest::default()).await.unwrap().into_inner();
        answer.cooldowns.iter().any(|cooldown| cooldown.model == SMALL)
    })
    .await;
    let answer = scene.send(&chat("roomy", &json!({}), &json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Streams go on without it, and their reports wait for it.
async fn a_restart_of_tollgate_loses_nothing(scene: &mut Scene) {
    let directive = json!({"completion_tokens": 20, "chunk_ms": 20});
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut exchange = scene.begin(&chat("roomy", &directive, &json!({"stream": true}))).await;
        exchange.until(|text| text.contains("\"content\":\"cd \"")).await;
        open.push(exchange);
    }
    scene.stop_tollgate().await;
    for exchange in open {
        usage_of(&exchange.finish().await.text());
    }
    // Without a decision nothing is sent.
    let before = scene.mock.ledger().requests;
    let answer = scene.send(&chat("roomy", &json!({}), &json!({}))).await;
    assert_eq!(answer.error(), "503 service_unavailable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert_eq!(scene.mock.ledger().requests, before);
    scene.start_tollgate().await;
    scene.settled().await;
    assert_eq!(scene.send(&chat("roomy", &json!({}), &json!({}))).await.status, 200);
}

/// A gateway that is stopped lets streams end for a while, cuts the others, and reports all of them.
async fn the_end_reports_what_is_open(scene: &mut Scene) {
    let bounded = json!({"stream": true, "max_completion_tokens": 100});
    let mut stalled = Vec::new();
    for _ in 0..3 {
        let mut exchange =
            scene.begin(&chat("roomy", &json!({"completion_tokens": 50, "stall_after": 6}), &bounded)).await;
        exchange.until(|text| text.matches("\"delta\":{\"content\":\"").count() > 6).await;
        stalled.push(exchange);
    }
    let silent = chat(
        "roomy",
        &json!({"delay_ms": 20_000, "completion_tokens": 17}),
        &json!({"max_completion_tokens": 100}),
    );
    let silent = scene.begin(&silent).await;
    scene.is_at_groq(r#"\"completion_tokens\":17"#).await;
    let mut quick =
        scene.begin(&chat("roomy", &json!({"completion_tokens": 10, "chunk_ms": 20}), &bounded)).await;
    quick.until(|text| text.contains("\"content\":\"cd \"")).await;

    scene.terminate();
    usage_of(&quick.finish().await.text());
    eventually("no connection is taken", async || !scene.accepts().await).await;
    for exchange in stalled {
        assert!(!exchange.finish().await.text().contains("[DONE]"));
    }
    drop(silent);
    let status = scene.ended().await;
    // Uvicorn raises the signal once more when it is done.
    assert!(status.success() || status.signal() == Some(15), "{status}");
}
